"""A run folder's tables as arrays: what the metrics of an audit are computed from.

It knows table and column names, and nothing of models or of what a number means. No torch.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

if TYPE_CHECKING:
    from studies.runs import RunFolder

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

ROW_SETS = ("paper", "predicting", "anchor")
FACTOR = "factor"
"""The measure of the table `layers` that is softmax attention's."""
REGION_MEASURES = ("region_hit", "region_top", "region_chance")
"""Measures of the table `layers` that compare the target image's map with the gold region."""


class Effects(NamedTuple):
    """Effects of one intervention in one window of layers."""

    intervention: str
    window: str
    values: FloatArray
    """(samples, images) drop in the answer's log-probability in nats; NaN where it was not measured."""


@dataclass(frozen=True)
class Evidence:
    """Samples that went well, and what was measured on them; every array has the samples first."""

    ids: tuple[str, ...]
    cluster: npt.NDArray[np.str_]
    task: npt.NDArray[np.str_]
    split: npt.NDArray[np.str_]
    n_images: IntArray
    target: IntArray
    """0-based; -1 where the sample has none."""
    correct: FloatArray
    """1 or 0; NaN where the answer could not be scored."""
    layers: tuple[int, ...]
    """True indices of the layers that the factors are of: those with attention, or those of another kind."""
    factors: dict[str, FloatArray]
    """By row set (samples, layers, images); NaN where there is no such image or the row set was not recorded."""
    regions: dict[str, FloatArray]
    """By measure (samples, layers); NaN without a gold region."""
    effects: tuple[Effects, ...] = ()

    def __len__(self) -> int:
        return len(self.ids)

    def where(self, kept: BoolArray) -> "Evidence":
        """The evidence of some samples."""
        return replace(
            self,
            ids=tuple(name for name, keep in zip(self.ids, kept, strict=True) if keep),
            cluster=self.cluster[kept],
            task=self.task[kept],
            split=self.split[kept],
            n_images=self.n_images[kept],
            target=self.target[kept],
            correct=self.correct[kept],
            factors={rows: table[kept] for rows, table in self.factors.items()},
            regions={measure: table[kept] for measure, table in self.regions.items()},
            effects=tuple(effect._replace(values=effect.values[kept]) for effect in self.effects),
        )

    def has_rows(self, rows: str) -> BoolArray:
        """(samples,) whether the row set was recorded."""
        return np.asarray(~np.isnan(self.factors[rows]).all(axis=(1, 2)))

    def scorable(self, rows: str) -> BoolArray:
        """(samples,) whether attention accuracy can be asked of a sample: scored, with a target, rows recorded."""
        return np.asarray((self.target >= 0) & ~np.isnan(self.correct) & self.has_rows(rows))

    def candidates(self, rows: str) -> IntArray:
        """(samples,) images that the focus may fall on under a row set."""
        return np.asarray((~np.isnan(self.factors[rows]).all(axis=1)).sum(axis=-1), dtype=np.int64)


class Reading(NamedTuple):
    """What a measure beside the attention factor says, in the layers of one kind.

    Measures have units of their own, and so have kinds of layers: no reading is averaged with another.
    """

    measure: str
    layer_kind: str
    evidence: Evidence
    """The same samples and effects; its layers and factors are this measure's in this kind of layer."""


class _Recorded(NamedTuple):
    """One of the things that the table `layers` holds."""

    measure: str
    layer_kind: str
    rows: str
    layer: int


def gather(folder: "RunFolder") -> Evidence:
    """Read the samples of a run that went well, with factors (mean over heads), region measures and effects."""
    columns = ["sample_id", "cluster", "task", "split", "n_images", "target", "correct"]
    samples = folder.read("samples", columns=columns, filter=pc.field("error").is_null())
    ids = samples.column("sample_id").combine_chunks()
    widest = max(samples.column("n_images").to_pylist(), default=1)
    recorded = [each for each in _recorded(folder) if each.measure in (FACTOR, *REGION_MEASURES)]
    layers = _layers(recorded)
    wanted = pc.field("measure") == FACTOR
    factors = {rows: _factors(folder, ids, rows, layers, widest, wanted) for rows in _rows(recorded)}
    return Evidence(
        ids=tuple(ids.to_pylist()),
        cluster=np.asarray(samples.column("cluster").to_pylist(), dtype=np.str_),
        task=np.asarray([task or "" for task in samples.column("task").to_pylist()], dtype=np.str_),
        split=np.asarray([split or "" for split in samples.column("split").to_pylist()], dtype=np.str_),
        n_images=np.asarray(samples.column("n_images").to_pylist(), dtype=np.int64),
        target=np.asarray(samples.column("target").fill_null(-1).to_pylist(), dtype=np.int64),
        correct=np.asarray(samples.column("correct").cast(pa.float64()).to_numpy(), dtype=np.float64),
        layers=layers,
        factors=factors,
        regions={measure: _region(folder, ids, measure, layers) for measure in REGION_MEASURES},
        effects=tuple(_effects(folder, ids, widest)),
    )


def readings(folder: "RunFolder", evidence: Evidence) -> list[Reading]:
    """Read every measure beside the attention factor that a run recorded, apart for each kind of layer.

    Args:
        folder: The run.
        evidence: What `gather` read of it.
    """
    by_kind: dict[tuple[str, str], list[_Recorded]] = {}
    for each in _recorded(folder):
        if each.measure not in (FACTOR, *REGION_MEASURES):
            by_kind.setdefault((each.measure, each.layer_kind), []).append(each)
    ids, widest = pa.array(evidence.ids, pa.string()), max(evidence.n_images.tolist(), default=1)
    found = []
    for (measure, kind), recorded in sorted(by_kind.items(), key=lambda item: item[0][::-1]):
        layers = _layers(recorded)
        wanted = (pc.field("measure") == measure) & (pc.field("layer_kind") == kind)
        factors = {rows: _factors(folder, ids, rows, layers, widest, wanted) for rows in _rows(recorded)}
        nothing = np.full((len(ids), len(layers)), np.nan)
        own = replace(evidence, layers=layers, factors=factors, regions=dict.fromkeys(REGION_MEASURES, nothing))
        found.append(Reading(measure, kind, own))
    return found


def _recorded(folder: "RunFolder") -> set[_Recorded]:
    found: set[_Recorded] = set()
    for batch in folder.scan("layers", columns=list(_Recorded._fields)):
        there = pa.Table.from_batches([batch]).group_by(list(_Recorded._fields)).aggregate([])
        found.update(_Recorded(**row) for row in there.to_pylist())
    return found


def _layers(recorded: Iterable[_Recorded]) -> tuple[int, ...]:
    return tuple(sorted({each.layer for each in recorded}))


def _rows(recorded: Iterable[_Recorded]) -> list[str]:
    return sorted({each.rows for each in recorded}, key=ROW_SETS.index)


def _factors(
    folder: "RunFolder", ids: pa.Array, rows: str, layers: Sequence[int], widest: int, wanted: pc.Expression
) -> FloatArray:
    table = np.full((len(ids), len(layers), widest), np.nan)
    wanted = wanted & (pc.field("rows") == rows) & (pc.field("head") == -1)
    for batch in folder.scan("layers", columns=["sample_id", "layer", "image", "factor"], filter=wanted):
        sample, layer = _places(batch, ids, layers)
        table[sample, layer, _ints(batch, "image")] = _floats(batch, "factor")
    return table


def _region(folder: "RunFolder", ids: pa.Array, measure: str, layers: Sequence[int]) -> FloatArray:
    table = np.full((len(ids), len(layers)), np.nan)
    wanted = (pc.field("measure") == measure) & (pc.field("head") == -1)
    for batch in folder.scan("layers", columns=["sample_id", "layer", "factor"], filter=wanted):
        sample, layer = _places(batch, ids, layers)
        table[sample, layer] = _floats(batch, "factor")
    return table


def _effects(folder: "RunFolder", ids: pa.Array, widest: int) -> list[Effects]:
    table = folder.read("effects", columns=["sample_id", "intervention", "window", "image", "effect"])
    kinds = dict.fromkeys(
        zip(table.column("intervention").to_pylist(), table.column("window").to_pylist(), strict=True)
    )
    found = []
    for intervention, window in kinds:
        part = table.filter((pc.field("intervention") == intervention) & (pc.field("window") == window))
        values = np.full((len(ids), widest), np.nan)
        sample = _ints_of(pc.index_in(part.column("sample_id"), value_set=ids))
        values[sample, _ints_of(part.column("image"))] = part.column("effect").to_numpy()
        found.append(Effects(intervention, window, values))
    return found


def _places(batch: pa.RecordBatch, ids: pa.Array, layers: Sequence[int]) -> tuple[IntArray, IntArray]:
    sample = _ints_of(pc.index_in(batch.column("sample_id"), value_set=ids))
    return sample, np.searchsorted(np.asarray(layers), _ints(batch, "layer")).astype(np.int64)


def _ints(batch: pa.RecordBatch, column: str) -> IntArray:
    return _ints_of(batch.column(column))


def _ints_of(values: Any) -> IntArray:
    return np.asarray(
        values.to_numpy(**({} if isinstance(values, pa.ChunkedArray) else {"zero_copy_only": False})), np.int64
    )


def _floats(batch: pa.RecordBatch, column: str) -> FloatArray:
    return np.asarray(batch.column(column).to_numpy(zero_copy_only=False), dtype=np.float64)
