"""Regions and overlays where an image has cells without pixels, or tokens without a cell."""

from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from probes.inputs import ImageRef
from probes.spans import Box, ImageSpan, Tile
from probes.trace import Trace
from studies.auditing.overlays import overlay_of
from studies.auditing.tables import cell_rows, map_rows, region_rows
from studies.multi_image import MultiImageQuestion
from studies.runs import RunFolder

WIDTH, HEIGHT = 90, 40
TILES = {
    "padded": Tile(4, 4, Box(0, -25, 90, 65)),
    "class token": Tile(4, 4, Box(0, 0, 90, 40), before=1),
    "both": Tile(4, 4, Box(0, -25, 90, 65), before=1),
}
"""A grid of which half saw padding only, a grid behind a token without pixels, and both."""


def traced(kind: str) -> tuple[Trace, MultiImageQuestion]:
    """A trace of two layers whose strongest cell is the third of the second row, and its question."""
    tile = TILES[kind]
    scores = np.full((2, tile.tokens), 0.01, dtype=np.float32)
    scores[:, tile.offset(1, 2)] = 0.5
    trace = Trace(
        answer="cat",
        answer_ids=(1,),
        layers=[1, 3],
        rows="paper",
        factors_by_rows={"paper": np.full((2, 1), 0.1, dtype=np.float32)},
        maps_by_rows={"paper": (scores,)},
        log_probability=-1.0,
        prompt_tokens=30,
        answer_tokens=1,
        spans=(ImageSpan(0, 0, tile.tokens, ((0, tile.tokens),), (tile,), (WIDTH, HEIGHT)),),
        image_sizes=((WIDTH, HEIGHT),),
    )
    image = ImageRef.of(Image.new("RGB", (WIDTH, HEIGHT)))
    box = (46.0, 1.0, 60.0, 19.0)
    return trace, MultiImageQuestion("q", "What is it?", (image,), "cat", target=0, boxes=(box,))


class Folder:
    """What an overlay reads of a run folder."""

    def __init__(self, trace: Trace, record: MultiImageQuestion, path: Path) -> None:
        Image.new("RGB", (WIDTH, HEIGHT)).save(path / "image.png")
        self._path = path / "image.png"
        self._tables = {"maps": map_rows("q", trace), "cells": cell_rows("q", trace)}
        self._boxes = [list(box) for box in record.boxes]

    def sample(self, _: str) -> dict[str, Any]:
        return {
            "image_digests": ["d"],
            "image_widths": [WIDTH],
            "image_heights": [HEIGHT],
            "target": 0,
            "boxes": self._boxes,
        }

    def read(self, table: str, filter: Any) -> pa.Table:
        rows = [{**row, "map": row["map"].tolist()} if "map" in row else row for row in self._tables[table]]
        return pa.Table.from_pylist(rows).filter(filter)

    def image_path(self, _: str) -> Path:
        return self._path


@pytest.mark.parametrize("kind", TILES)
def test_regions_are_compared_with_the_cells_that_show_pixels(kind: str) -> None:
    trace, record = traced(kind)
    found = {(row["measure"], row["layer"]): row["factor"] for row in region_rows(record, trace)}
    cells = 16 if kind == "class token" else 8
    inside = 2 if kind == "class token" else 1
    assert found["region_chance", 1] == found["region_chance", 3] == inside / cells
    assert found["region_hit", 1] == found["region_hit", 3] == 1.0
    assert len(found) == 6


@pytest.mark.parametrize("kind", TILES)
def test_overlays_pair_cells_and_scores_by_token(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from viz import papers

    drawn: dict[str, Any] = {}
    monkeypatch.setattr(papers, "overlay", lambda *given, **_: drawn.update(zip("pbs", given, strict=True)))
    trace, record = traced(kind)
    overlay_of(cast(RunFolder, Folder(trace, record, tmp_path)), "q", layers=[1], focus=0)
    (boxes,), (scores,) = drawn["b"], drawn["s"]
    seen = trace.visible(layer=1)
    np.testing.assert_allclose(boxes, seen.boxes)
    np.testing.assert_allclose(scores, seen.scores, rtol=1e-3)
    monkeypatch.undo()
    assert overlay_of(cast(RunFolder, Folder(trace, record, tmp_path)), "q", layers=[1], focus=0).axes
