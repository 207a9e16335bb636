"""Traces the untrained control's samples under one seed of the weights after another, and keeps what is finished.

It knows samples, row sets and files of factors; what the factors mean is `studies.untrained`. No torch on import.
"""

import hashlib
import io
import json
import secrets
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from probes.files import TEMPORARY, read_json, write_bytes, write_json
from probes.inputs import InputError
from studies.auditing.evidence import FloatArray, IntArray
from studies.multi_image import MultiImageQuestion

if TYPE_CHECKING:
    from probes.model import HookedModel

TEXT_ROWS = ("paper", "predicting")
ANCHOR_ROWS = ("anchor",)
ROWS = (*TEXT_ROWS, *ANCHOR_ROWS)
_IDENTITY = "identity.json"


class Seeding(Protocol):
    """What of a configuration concerns seeds and batches."""

    @property
    def seed(self) -> int:
        """The first seed of the weights."""

    @property
    def seeds(self) -> int:
        """How many."""

    @property
    def batch_size(self) -> int:
        """Most samples in a batch."""


class Traced(NamedTuple):
    """Factors of all samples under all seeds, one row each."""

    layers: tuple[int, ...]
    factors: dict[str, FloatArray]
    """By row set (seeds * samples, layers, images), padded with NaN; all NaN where a sample has no such rows."""
    target: IntArray
    seed: IntArray


class FinishedSeeds:
    """A folder that holds the factors of every seed that is done, until all are.

    Args:
        folder: It; made when the first seed is done.
        identity: What the factors depend on, as plain data. Only seeds of the same identity are gone on from.
        resume: Go on from what the folder holds. Otherwise what an interrupted run left there is dropped.

    Raises:
        InputError: If there is nothing to resume, or it is of other options.
    """

    def __init__(self, folder: Path, identity: dict[str, Any], resume: bool) -> None:
        self.folder, self._identity = folder, json.loads(json.dumps(identity, default=str))
        text = json.dumps(self._identity, sort_keys=True)
        self._digest = hashlib.sha256(text.encode()).hexdigest()
        if resume:
            self._check()
        else:
            self.remove()

    def __repr__(self) -> str:
        return f"FinishedSeeds({self.folder}, {len(list(self.folder.glob('*.npz')))} done)"

    def _check(self) -> None:
        if not holds_seeds(self.folder):
            raise InputError(
                f"{self.folder} holds no finished seeds, so there is nothing to resume: leave out --resume"
            )
        if read_json(self.folder / _IDENTITY) != self._identity:
            raise InputError(
                f"{self.folder} holds seeds of other options, data, model or package versions: give the same ones, or "
                "start again without --resume"
            )

    def read(self, seed: int) -> tuple[tuple[int, ...], dict[str, FloatArray]] | None:
        """Layers and factors of a seed, None if it is not done with this very identity."""
        path = self.folder / f"{seed}.npz"
        if not path.is_file():
            return None
        with np.load(path, allow_pickle=False) as held:
            if str(held["identity"]) != self._digest:
                return None
            return tuple(held["layers"].tolist()), {rows: held[rows] for rows in ROWS}

    def write(self, seed: int, layers: Sequence[int], factors: dict[str, FloatArray]) -> None:
        """Keep a seed's factors."""
        write_json(self.folder / _IDENTITY, self._identity)
        buffer = io.BytesIO()
        arrays: dict[str, Any] = {rows: factors[rows] for rows in ROWS}
        np.savez(buffer, identity=self._digest, layers=np.asarray(layers), **arrays)
        write_bytes(self.folder / f"{seed}.npz", buffer.getvalue())

    def remove(self) -> None:
        """Drop the folder, if it is one of these: renamed first, so that no half of it can be taken for one."""
        if holds_seeds(self.folder):
            aside = self.folder.with_name(f"{TEMPORARY}{secrets.token_hex(4)}-{self.folder.name}")
            self.folder.rename(aside)
            shutil.rmtree(aside)


def holds_seeds(folder: Path) -> bool:
    """Whether an interrupted control left finished seeds in a folder."""
    return (folder / _IDENTITY).is_file()


def trace_seeds(
    build: Callable[[int], "HookedModel"],
    records: Sequence[MultiImageQuestion],
    config: Seeding,
    finished: FinishedSeeds,
) -> Traced:
    """Trace all samples, right answers teacher-forced, under every seed.

    Args:
        build: Makes the model of a seed.
        records: Samples with balanced target places.
        config: The seeds, and the batch size.
        finished: Seeds that it holds are not traced again; new ones are added to it.
    """
    from studies.auditing.image_facts import ImageFacts
    from studies.auditing.inputs import items
    from studies.auditing.plan import plan_batches
    from studies.auditing.progress import Counter

    by_id = {record.id: record for record in records}
    plan = plan_batches(items(build(config.seed), records, ImageFacts()), config.batch_size)
    order = [by_id[name] for batch in plan for name in batch.ids]
    parts: dict[str, list[FloatArray]] = {rows: [] for rows in ROWS}
    layers: tuple[int, ...] = ()
    batches = [[by_id[name] for name in batch.ids] for batch in plan]
    seeds = range(config.seed, config.seed + config.seeds)
    done = len(records) * sum(finished.read(seed) is not None for seed in seeds)
    with Counter("untrained control", len(seeds) * len(records), done) as counter:
        for seed in seeds:
            held = finished.read(seed)
            if held is None:
                held = _trace(build(seed), batches, counter.advance)
                finished.write(seed, *held)
            layers = held[0]
            for rows, table in held[1].items():
                parts[rows].append(table)
    return Traced(
        layers=layers,
        factors={rows: table for rows, part in parts.items() if not np.isnan(table := np.concatenate(part)).all()},
        target=np.tile([record.target or 0 for record in order], config.seeds).astype(np.int64),
        seed=np.repeat(np.arange(config.seeds), len(order)).astype(np.int64),
    )


def _trace(
    model: "HookedModel", batches: Sequence[Sequence[MultiImageQuestion]], advance: Callable[[int], object]
) -> tuple[tuple[int, ...], dict[str, FloatArray]]:
    """Layers, and by row set the factors (samples, layers, images) of all batches in order."""
    widest = max(len(record.images) for batch in batches for record in batch)
    traces = []
    for batch in batches:
        traces += _traces(model, batch)
        advance(len(batch))
    layers = tuple(traces[0].layers)
    tables = {
        rows: np.stack([_padded(trace.factors_by_rows.get(rows), len(layers), widest) for trace in traces])
        for rows in ROWS
    }
    return layers, tables


def _traces(model: "HookedModel", records: Sequence[MultiImageQuestion]) -> list[Any]:
    """Traces of a batch, whose samples are all image-to-image ones or none of them."""
    from probes.model import Question
    from studies.position import is_anchored

    questions = [Question(record.images, record.question) for record in records]
    rows = ANCHOR_ROWS if is_anchored(records[0]) else TEXT_ROWS
    return list(model.trace_batch(questions, answers=[record.answer for record in records], rows=rows, maps=False))


def _padded(factors: Any, layers: int, widest: int) -> FloatArray:
    table = np.full((layers, widest), np.nan)
    if factors is not None:
        table[:, : factors.shape[1]] = factors
    return table
