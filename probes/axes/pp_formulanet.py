"""PP-FormulaNet: one picture a row; two convolutions of stride 2 make one column of several patches."""

from probes.axes.pages import covered
from probes.axes.view import AxisView, Placed, check_pixels
from probes.axes.view import one_image_each as counts
from probes.families.geometry import Convolution, Tile, under_windows

__all__ = ["counts", "place"]

_HALVING = Convolution(window=3, stride=2, padding=1)


def place(image: AxisView) -> Placed:
    """One tile.

    Raises:
        InputError: If the processor cut off margins and the image's size is given: where they lay is not known.
    """
    tower = image.config.vision_config
    side, patch = int(tower.image_size), int(tower.patch_size)
    check_pixels(image, side, side)
    steps = [Convolution(patch, patch, 0), _HALVING, _HALVING]
    cells, box = under_windows(covered(image, side, side), side, steps)
    return Placed(0, [Tile(cells, cells, box)])
