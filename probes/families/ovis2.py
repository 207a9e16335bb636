"""Ovis 2: a stretched thumbnail of the whole image, then square tiles row by row if it is cut.

What stands between the tiles are marks of their own, which no image feature replaces.
"""

from probes.families.geometry import Tile
from probes.families.internvl import divisions, nearest_ratio
from probes.families.view import ImageView, square_side
from probes.families.view import image_token_ids as image_token_ids
from probes.families.view import pixel_tiles as pixel_tiles
from probes.inputs import InputError

_COVERED = 0.9
"""Share of the image that tiles must cover without shrinking it: the image processor's fixed threshold."""


def tiles(image: ImageView) -> list[Tile]:
    """The thumbnail and the tiles row by row; one tile of the whole image where it is not cut.

    Raises:
        InputError: If the processor or the image's size is missing, or they do not fit the pixels or the model.
    """
    image.need_processor("cut")
    side = square_side(image)
    cells = _cells_per_side(image, side)
    rows, columns = _division(image, side)
    *grid, last = Tile.cut(cells, image.whole(), rows, columns)
    return [last, *grid]


def _cells_per_side(image: ImageView, side: int) -> int:
    tower = image.config.vision_config
    cells = -(-(side // int(tower.patch_size)) // int(tower.hidden_stride))
    if int(image.processor.image_seq_length) != cells * cells:
        raise InputError(
            f"the processor writes {image.processor.image_seq_length} tokens per tile and the model makes "
            f"{cells * cells}: load both from one checkpoint"
        )
    return cells


def _division(image: ImageView, side: int) -> tuple[int, int]:
    """(rows, columns) of tiles."""
    fewest, most = int(image.settings.get("min_patches")), int(image.settings.get("max_patches"))
    if not image.settings.get("crop_to_patches") or most <= 1:
        return 1, 1
    width, height = image.known_size()
    if not image.settings.get("use_covering_area_grid"):
        return nearest_ratio(width, height, side, divisions(fewest, most))
    return _covering(width, height, side, most)


def _covering(width: int, height: int, side: int, most: int) -> tuple[int, int]:
    """The fewest tiles that cover the image without shrinking; failing that, those that cover most.

    The image processor judges divisions with rows and columns swapped, and so does this.
    """
    shares = {
        (rows, columns): _share(width, height, side, rows=columns, columns=rows) for rows, columns in divisions(1, most)
    }
    enough = [division for division, share in shares.items() if share > _COVERED]
    if enough:
        return min(enough, key=lambda division: (division[0] * division[1], -shares[division]))
    return min(shares, key=lambda division: (-shares[division], division[0] * division[1]))


def _share(width: int, height: int, side: int, rows: int, columns: int) -> float:
    """Share of the image's area that is left when each part is shrunk to the side of a tile."""
    across, down = width // columns, height // rows
    covered = 0.0
    for row in range(rows):
        for column in range(columns):
            part = width - column * across if column == columns - 1 else across
            tall = height - row * down if row == rows - 1 else down
            longer, shorter = max(part, tall), min(part, tall)
            covered += longer * shorter if longer <= side else side * (shorter / longer * side)
    return covered / (width * height)
