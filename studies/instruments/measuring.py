"""Asks every instrument about each sample of a plan, knocks out each image in turn, and writes both to the run folder.

It knows models and tables; it ranks nothing. A sample that cannot be asked becomes a row with its error. Importing it
loads no torch.
"""

import io
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from probes.inputs import InputError
from probes.instruments.names import BY_ROWS, IMAGE_ROWS, LENS, RAW
from studies.auditing.causal_metrics import KNOCKOUT
from studies.auditing.image_facts import ImageFacts
from studies.auditing.plan import Batch
from studies.auditing.progress import Counter
from studies.auditing.tables import ATTENTION, MEAN_OVER_HEADS, Row, described, effect_rows
from studies.multi_image import MultiImageQuestion, answer_correct
from studies.position import blinded_rows, is_anchored

if TYPE_CHECKING:
    from probes.instruments.sample import InstrumentScores
    from probes.model import HookedModel
    from studies.runs import RunFolder

ANY_LAYER = "any"
"""Kind of layer of what is read from the residual stream."""
NO_IMAGE = -1
"""In the column `image`: the number is of no single image."""
ANSWER_LOG_PROBABILITY, ANSWER_RANK, SINK_SHARE = "answer log-probability", "answer rank", "sink share"
"""Measures of whole samples, by layer."""
ANCHORED_KNOCKOUT, ALL_LAYERS = "knockout, anchor rows too", "all"
"""The intervention where the last image is the query of an image-to-image sample, and what is hidden in all layers."""
PREFLIGHT = 8
"""Samples that may fail before anything is written; one that works is enough."""
Columns = dict[str, list[Any]]


@dataclass(frozen=True)
class Settings:
    """How samples are asked."""

    max_new_tokens: int
    generic: str
    sink_threshold: float
    limit_bytes: int


def measure(
    model: "HookedModel",
    plan: Sequence[Batch],
    records: Mapping[str, MultiImageQuestion],
    settings: Settings,
    folder: "RunFolder",
    facts: ImageFacts,
) -> None:
    """Compute and write every batch that the folder lacks.

    Raises:
        UnsupportedAttention: If the instruments cannot read the model; nothing of that batch has been written.
        MemoryError: If a sample does not fit in memory.
    """
    from studies.auditing.memory import one_line_refusal

    done = folder.done_batches()
    before = sum(len(batch.ids) for batch in plan if batch.index in done)
    with Counter("scoreboard", sum(len(batch.ids) for batch in plan), before) as counter:
        for batch in plan:
            if batch.index in done:
                continue
            tables = _Tables()
            for name in batch.ids:
                with one_line_refusal(1):
                    _add(model, records[name], settings, facts, tables)
                counter.advance(1)
            folder.write_file(features_file(batch.index), tables.features_bytes())
            folder.write_batch(batch.index, tables.as_tables())


def preflight(model: "HookedModel", records: Sequence[MultiImageQuestion], settings: Settings) -> None:
    """Measure samples until one works, before anything is written, so that a model that cannot be read is refused.

    Raises:
        InputError: The first reason, if none of the first samples works.
    """
    from probes.attention import UnsupportedAttention
    from probes.instruments.sample import instrument_scores
    from probes.model import Question

    first: InputError | None = None
    for record in records[:PREFLIGHT]:
        question = Question(record.images, record.question)
        try:
            ids = model.trace_batch([question], max_new_tokens=1, maps=False)[0].answer_ids
            instrument_scores(model, question, ids, settings.generic, settings.sink_threshold, settings.limit_bytes)
            return
        except UnsupportedAttention:
            raise
        except InputError as error:
            first = first or error
    if first is not None:
        raise first


def features_file(batch: int) -> str:
    """Where the residual streams of a batch lie inside the run folder."""
    return f"features/part-{batch:05}.npz"


def _add(
    model: "HookedModel", record: MultiImageQuestion, settings: Settings, facts: ImageFacts, tables: "_Tables"
) -> None:
    from probes.attention import UnsupportedAttention
    from probes.instruments.sample import instrument_scores
    from probes.interventions import knockout_effects
    from probes.model import Question

    start = time.perf_counter()
    question = Question(record.images, record.question)
    intervention, blinded = ANCHORED_KNOCKOUT if is_anchored(record) else KNOCKOUT, blinded_rows(record)
    try:
        trace = model.trace_batch([question], max_new_tokens=settings.max_new_tokens, maps=False)[0]
        found = instrument_scores(
            model, question, trace.answer_ids, settings.generic, settings.sink_threshold, settings.limit_bytes
        )
        effects = knockout_effects(model, question, trace.answer_ids, rows=blinded)[0]
    except UnsupportedAttention:
        raise
    except InputError as error:
        tables.samples.append({**described(record, facts), "error": str(error)})
        return
    answered = {
        "answer": trace.answer,
        "correct": answer_correct(record, trace.answer),
        "log_probability": found.log_probability,
        "prompt_tokens": trace.prompt_tokens,
        "answer_tokens": trace.answer_tokens,
        "seconds": time.perf_counter() - start,
    }
    tables.samples.append({**described(record, facts), **answered})
    tables.effects += effect_rows(record.id, {(intervention, ALL_LAYERS): effects})
    tables.add_scores(record.id, found)


class _Tables:
    """Rows of one batch."""

    def __init__(self) -> None:
        self.samples: list[Row] = []
        self.effects: list[Row] = []
        self.layers: Columns = {
            name: [] for name in ("sample_id", "rows", "layer", "layer_kind", "measure", "image", "head", "factor")
        }
        self.features: dict[str, npt.NDArray[np.float32]] = {}

    def add_scores(self, name: str, found: "InstrumentScores") -> None:
        """Add everything that the instruments say of a sample."""
        self.features[name] = found.features
        for (instrument, rows), table in found.scores.items():
            layers, kind = (found.depths, ANY_LAYER) if instrument == LENS else (found.layers, ATTENTION)
            self._add_table(name, instrument, rows, layers, kind, table)
        for rows, by_head in found.heads.items():
            for head in range(by_head.shape[1]):
                self._add_table(name, RAW, rows, found.layers, ATTENTION, by_head[:, head], head)
        for measure, layers, values in (
            (ANSWER_LOG_PROBABILITY, found.depths, found.answer.log_probability),
            (ANSWER_RANK, found.depths, found.answer.rank),
            (SINK_SHARE, found.layers, found.sinks),
        ):
            self._extend(name, measure, IMAGE_ROWS, layers, ANY_LAYER, [NO_IMAGE] * len(layers), values)

    def _add_table(
        self,
        name: str,
        measure: str,
        rows: str,
        layers: Iterable[int],
        kind: str,
        table: npt.NDArray[np.float32],
        head: int = MEAN_OVER_HEADS,
    ) -> None:
        images = np.broadcast_to(np.arange(table.shape[1]), table.shape).ravel().tolist()
        spread = np.repeat(np.asarray(list(layers)), table.shape[1]).tolist()
        self._extend(name, measure, rows, spread, kind, images, table.ravel(), head)

    def _extend(
        self,
        name: str,
        measure: str,
        rows: str,
        layers: Sequence[int],
        kind: str,
        images: Sequence[int],
        values: npt.ArrayLike,
        head: int = MEAN_OVER_HEADS,
    ) -> None:
        count = len(images)
        same = {"sample_id": name, "rows": rows, "layer_kind": kind, "measure": measure, "head": head}
        for column, value in same.items():
            self.layers[column] += [value] * count
        self.layers["layer"] += list(layers)
        self.layers["image"] += list(images)
        self.layers["factor"] += np.asarray(values, dtype=np.float64).tolist()

    def as_tables(self) -> dict[str, Any]:
        """The tables as the run folder takes them."""
        return {"samples": self.samples, "layers": self.layers, "effects": self.effects}

    def features_bytes(self) -> bytes:
        """Sample ids, and (samples, layers, hidden) of the residual stream, as npz."""
        stream = io.BytesIO()
        values = np.stack(list(self.features.values())) if self.features else np.zeros((0, 0, 0), np.float32)
        np.savez(stream, ids=np.asarray(list(self.features), dtype=np.str_), features=values)
        return stream.getvalue()


MEASURES = (*BY_ROWS, LENS)
"""Instruments whose scores are in the table `layers`."""
