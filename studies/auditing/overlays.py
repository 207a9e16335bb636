"""One sample of a run folder as an overlay: its maps, cells and images, read back and drawn. No torch."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.compute as pc
from PIL import Image

from studies.auditing.evidence import FloatArray

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

    from studies.runs import RunFolder


def overlay_of(folder: "RunFolder", name: str, layers: Sequence[int], focus: int, rows: str = "paper") -> "Drawing":
    """Lay a sample's maps over its images.

    Args:
        folder: A run that kept the sample's maps and images.
        name: The sample's id.
        layers: True indices of the layers to average over.
        focus: 0-based image in focus.
        rows: Row set of the maps.
    """
    from viz import papers

    sample = folder.sample(name)
    maps = folder.read("maps", filter=(pc.field("sample_id") == name) & (pc.field("rows") == rows)).to_pylist()
    cells = folder.read("cells", filter=pc.field("sample_id") == name).to_pylist()
    pictures, boxes, scores, scales = [], [], [], []
    for image, digest in enumerate(sample["image_digests"]):
        with Image.open(folder.image_path(digest)) as opened:
            picture = opened.convert("RGB")
        own = [row["map"] for row in maps if row["image"] == image and row["layer"] in layers]
        scale = picture.width / sample["image_widths"][image], picture.height / sample["image_heights"][image]
        pictures.append(np.asarray(picture))
        scales.append(scale)
        shown = [cell for cell in cells if cell["image"] == image and _has_area(cell)]
        boxes.append(_boxes(shown, scale))
        scores.append(np.asarray(own, dtype=np.float64).mean(axis=0)[[cell["token"] for cell in shown]])
    target = sample["target"]
    gold = None if target is None or not sample["boxes"] else _scaled(sample["boxes"], scales[target])
    return papers.overlay(pictures, boxes, scores, target=target, focus=focus, gold=gold)


def _has_area(cell: dict[str, Any]) -> bool:
    """Whether a cell shows pixels: padding's does not, and overlays refuse it."""
    return bool(cell["right"] > cell["left"] and cell["bottom"] > cell["top"])


def _boxes(cells: Sequence[dict[str, Any]], scale: tuple[float, float]) -> FloatArray:
    return _scaled([[cell["left"], cell["top"], cell["right"], cell["bottom"]] for cell in cells], scale)


def _scaled(boxes: Sequence[Sequence[float]], scale: tuple[float, float]) -> FloatArray:
    return np.asarray(boxes, dtype=np.float64) * [*scale, *scale]
