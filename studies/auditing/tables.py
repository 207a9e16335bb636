"""Rows of the run folder's tables from records and traces. It knows column names; it computes nothing but regions."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from probes.inputs import InputError
from probes.scores import region_attention_accuracy
from studies.auditing.evidence import REGION_MEASURES
from studies.auditing.image_facts import ImageFacts
from studies.auditing.kinds import ATTENTION as ATTENTION
from studies.auditing.mixers import MEASURES, PART
from studies.multi_image import MultiImageQuestion, answer_correct

if TYPE_CHECKING:
    from probes.model import Trace

Row = dict[str, Any]
MEAN_OVER_HEADS = -1
REGION_ROWS = "paper"
"""The row set whose maps are compared with gold regions."""


class Tables:
    """Rows of one batch, by table, in the order in which samples were added."""

    def __init__(self, facts: ImageFacts) -> None:
        self.rows: dict[str, list[Row]] = {"samples": []}
        self._facts = facts

    def add(self, table: str, rows: Sequence[Row]) -> None:
        """Append rows to a table."""
        self.rows.setdefault(table, []).extend(rows)

    def add_failed(self, name: str, record: MultiImageQuestion | None, error: str) -> None:
        """Add the row of a sample without a trace; its record is None if it could not even be read."""
        known = {"sample_id": name} if record is None else described(record, self._facts)
        self.add("samples", [{**known, "error": error}])

    def add_traced(self, record: MultiImageQuestion, trace: "Trace", seconds: float) -> None:
        """Add a sample's row, its factors, region measures and image-to-image matrix: all of them, or none.

        Raises:
            InputError: If the sample's region cannot be compared with its map; nothing has been added then.
        """
        answered: Row = {
            "answer": trace.answer,
            "correct": answer_correct(record, trace.answer),
            "log_probability": trace.log_probability,
            "prompt_tokens": trace.prompt_tokens,
            "answer_tokens": trace.answer_tokens,
            "image_widths": [width for width, _ in trace.image_sizes],
            "image_heights": [height for _, height in trace.image_sizes],
            "seconds": seconds,
        }
        rows = {
            "samples": [{**described(record, self._facts), **answered}],
            "layers": [*factor_rows(record.id, trace), *region_rows(record, trace), *hidden_rows(record.id, trace)],
            "pairwise": pairwise_rows(record.id, trace),
        }
        for table, own in rows.items():
            self.add(table, own)

    def note_effects_error(self, error: str) -> None:
        """Say why the sample that was added last has no causal effects, although it has an answer."""
        self.rows["samples"][-1]["effects_error"] = error

    def note_unread(self, name: str, error: str) -> None:
        """Say why the hidden attention of a sample could not be read, although its attention was."""
        self.add("unread", [{"sample_id": name, "part": PART, "error": error}])

    def add_maps(self, name: str, trace: "Trace") -> None:
        """Add the maps of a sample, and the box of each of their cells."""
        self.add("maps", map_rows(name, trace))
        self.add("cells", cell_rows(name, trace))


def described(record: MultiImageQuestion, facts: ImageFacts) -> Row:
    """What a sample's row says of the question itself."""
    return {
        "sample_id": record.id,
        "cluster": record.cluster,
        "task": record.task,
        "split": record.split,
        "n_images": len(record.images),
        "target": record.target,
        "gold": record.answer,
        "question": record.question,
        "boxes": [[float(edge) for edge in box] for box in record.boxes],
        "image_digests": [facts.of(image).digest for image in record.images],
    }


def factor_rows(name: str, trace: "Trace") -> list[Row]:
    """Attention factors: the mean over heads as head -1, and single heads where they were recorded."""
    rows: list[Row] = []
    for row_set, table in trace.factors_by_rows.items():
        by_head = table if table.ndim == 3 else table[:, None]
        for index, layer in enumerate(trace.layers):
            common = {"sample_id": name, "rows": row_set, "layer": layer, "layer_kind": ATTENTION, "measure": "factor"}
            heads = [(MEAN_OVER_HEADS, by_head[index].mean(axis=0))]
            heads += list(enumerate(by_head[index])) if table.ndim == 3 else []
            for head, factors in heads:
                rows += [
                    {**common, "image": image, "head": head, "factor": float(factor)}
                    for image, factor in enumerate(factors)
                    if not np.isnan(factor)
                ]
    return rows


def hidden_rows(name: str, trace: "Trace") -> list[Row]:
    """Hidden attention of layers without softmax, a measure for each form, as means over heads."""
    from probes.mixers.trace import layer_kind

    if trace.mixers is None:
        return []
    return [
        {
            "sample_id": name,
            "rows": row_set,
            "layer": layer,
            "layer_kind": str(layer_kind(kind)),
            "measure": MEASURES[form],
            "image": image,
            "head": MEAN_OVER_HEADS,
            "factor": float(factor),
        }
        for (row_set, form), table in trace.mixers.factors_by_rows.items()
        for layer, kind, factors in zip(trace.mixers.layers, trace.mixers.kinds, table, strict=True)
        for image, factor in enumerate(factors)
        if not np.isnan(factor)
    ]


def region_rows(record: MultiImageQuestion, trace: "Trace") -> list[Row]:
    """How the target image's map meets its gold region, per layer; empty without a region, maps or cells.

    Cells that show no pixels are left out, and thumbnails of images that also have tiles: they would count twice.
    """
    if not record.boxes or record.target is None or REGION_ROWS not in trace.maps_by_rows:
        return []
    if trace.spans[record.target].mixed:
        return []
    boxes, maps = trace.visible(record.target, layer=None, rows=REGION_ROWS)
    rows: list[Row] = []
    for layer, scores in zip(trace.layers, maps, strict=True):
        try:
            found = region_attention_accuracy(scores, boxes, np.asarray(record.boxes))
        except ValueError as error:
            raise InputError(f"sample {record.id!r}: its region cannot be compared with the map: {error}") from None
        values = (found.hit, found.top_ratio, found.chance)
        for measure, value in zip(REGION_MEASURES, values, strict=True):
            common = {"sample_id": record.id, "rows": REGION_ROWS, "layer": layer, "layer_kind": ATTENTION}
            rows.append(
                {**common, "measure": measure, "image": record.target, "head": MEAN_OVER_HEADS, "factor": value}
            )
    return rows


def pairwise_rows(name: str, trace: "Trace") -> list[Row]:
    """Attention from image j to image k; index n stands for text."""
    if trace.pairwise is None:
        return []
    count = trace.pairwise.shape[-1]
    return [
        {
            "sample_id": name,
            "layer": layer,
            "from_image": start,
            "to_image": end,
            "factor": _number(trace.pairwise[index, start, end]),
        }
        for index, layer in enumerate(trace.layers)
        for start in range(count)
        for end in range(count)
    ]


def map_rows(name: str, trace: "Trace") -> list[Row]:
    """Attention per image token, per row set, layer and image.

    The anchor has no map under its own rows; nor has an image whose tokens have no places in it.
    """
    rows: list[Row] = []
    for row_set, maps in trace.maps_by_rows.items():
        for image, table in enumerate(maps):
            span = trace.spans[image]
            if span.mixed or np.isnan(table[:, span.retention]).any():
                continue
            rows += [
                {"sample_id": name, "rows": row_set, "layer": layer, "image": image, "map": _half(table[index])}
                for index, layer in enumerate(trace.layers)
            ]
    return rows


def cell_rows(name: str, trace: "Trace") -> list[Row]:
    """Token, place and pixel box of each cell of each image."""
    return [
        {
            "sample_id": name,
            "image": image,
            "token": cell.token,
            "tile": cell.tile,
            "frame": cell.frame,
            "row": cell.row,
            "column": cell.column,
            "thumbnail": cell.thumbnail,
            "left": cell.box.left,
            "top": cell.box.top,
            "right": cell.box.right,
            "bottom": cell.box.bottom,
            "kept": cell.kept,
        }
        for image, span in enumerate(trace.spans)
        if not span.mixed
        for cell in trace.cells(image)
    ]


def effect_rows(name: str, effects: Mapping[tuple[str, str], npt.NDArray[np.float64]]) -> list[Row]:
    """Causal effects, by (intervention, window) one value per image."""
    return [
        {"sample_id": name, "intervention": intervention, "window": window, "image": image, "effect": _number(value)}
        for (intervention, window), values in effects.items()
        for image, value in enumerate(values)
    ]


def _half(values: npt.NDArray[np.float32]) -> npt.NDArray[np.float16]:
    return values.astype(np.float16)


def _number(value: Any) -> float | None:
    number = float(value)
    return None if np.isnan(number) else number
