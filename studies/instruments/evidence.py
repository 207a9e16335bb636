"""A scoreboard's run folder as arrays: what the ranks are computed from.

It knows table and column names, and nothing of models or of what a number means. No torch.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc

from probes.inputs import InputError
from probes.instruments.names import IMAGE_ROWS, LENS, RAW
from studies.auditing.tables import MEAN_OVER_HEADS
from studies.instruments.measuring import (
    ANCHORED_KNOCKOUT,
    ANSWER_LOG_PROBABILITY,
    ANSWER_RANK,
    MEASURES,
    SINK_SHARE,
    features_file,
)

if TYPE_CHECKING:
    from studies.runs import RunFolder

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]
StrArray = npt.NDArray[np.str_]


@dataclass(frozen=True)
class Evidence:
    """Samples that went well, and what was measured on them; every array has the samples first."""

    cluster: StrArray
    task: StrArray
    split: StrArray
    n_images: IntArray
    target: IntArray
    """0-based; -1 where the sample has none."""
    effects: FloatArray
    """(samples, images) drop in the answer's log-probability in nats when an image is knocked out; NaN padded."""
    anchored: BoolArray
    """(samples,) whether the last image is the query of an image-to-image sample: two images matter there."""
    layers: tuple[int, ...]
    """Layers with attention, true indices."""
    depths: tuple[int, ...]
    """All decoder layers."""
    scores: Mapping[tuple[str, str], FloatArray]
    """By instrument and row set, (samples, layers, images), padded with NaN."""
    heads: Mapping[str, FloatArray]
    """By row set, per-head factors (samples, layers, heads, images), padded with NaN."""
    features: FloatArray
    """(samples, depths, hidden)."""
    answer_log_probability: FloatArray
    """(samples, depths), through the logit lens."""
    answer_rank: FloatArray
    """(samples, depths)."""
    sinks: FloatArray
    """(samples, layers) share of image tokens that are sinks."""

    def __len__(self) -> int:
        return len(self.cluster)

    def where(self, kept: BoolArray) -> "Evidence":
        """The evidence of some samples."""
        changed: dict[str, Any] = {
            name: value[kept] for name, value in self.__dict__.items() if isinstance(value, np.ndarray)
        }
        for name in ("scores", "heads"):
            changed[name] = {key: table[kept] for key, table in getattr(self, name).items()}
        return replace(self, **changed)


def read_evidence(folder: "RunFolder") -> Evidence:
    """Read what a finished scoreboard measured.

    Raises:
        InputError: If no sample went well.
    """
    samples = folder.read("samples", filter=pc.field("error").is_null()).to_pandas()
    if not len(samples):
        errors = folder.read("samples", columns=["error"], limit=1).column("error").to_pylist()
        raise InputError(f"no sample could be measured; the first failed with: {errors[0]}")
    place = {name: index for index, name in enumerate(samples["sample_id"])}
    widest = int(samples["n_images"].max())
    table = _Layers(folder, place, widest)
    effects = np.full((len(place), widest), np.nan)
    drops = folder.read("effects").to_pandas()
    effects[drops["sample_id"].map(place), drops["image"]] = drops["effect"]
    anchored = np.zeros(len(place), dtype=bool)
    anchored[drops["sample_id"].map(place)] = drops["intervention"] == ANCHORED_KNOCKOUT
    return Evidence(
        cluster=samples["cluster"].to_numpy(dtype=np.str_),
        task=samples["task"].to_numpy(dtype=np.str_),
        split=samples["split"].to_numpy(dtype=np.str_),
        n_images=samples["n_images"].to_numpy(dtype=np.int64),
        target=samples["target"].fillna(-1).to_numpy(dtype=np.int64),
        effects=effects,
        anchored=anchored,
        layers=table.layers(RAW),
        depths=table.layers(LENS),
        scores={key: table.scores(*key) for key in table.names()},
        heads={rows: table.heads(rows) for name, rows in table.names() if name == RAW},
        features=_features(folder, place),
        answer_log_probability=table.numbers(ANSWER_LOG_PROBABILITY),
        answer_rank=table.numbers(ANSWER_RANK),
        sinks=table.numbers(SINK_SHARE),
    )


class _Layers:
    """The table `layers`, cut by measure and row set."""

    def __init__(self, folder: "RunFolder", place: Mapping[str, int], widest: int) -> None:
        columns = ["sample_id", "rows", "layer", "measure", "image", "head", "factor"]
        rows = folder.read("layers", columns=columns).to_pandas()
        rows["sample"] = rows["sample_id"].map(place)
        self._parts = dict(iter(rows.groupby(["measure", "rows"], sort=False)))
        self._samples, self._widest = len(place), widest

    def names(self) -> list[tuple[str, str]]:
        """Instruments and row sets, in the order in which instruments are named."""
        return sorted((key for key in self._parts if key[0] in MEASURES), key=lambda key: MEASURES.index(key[0]))

    def layers(self, measure: str) -> tuple[int, ...]:
        """True indices of the layers that a measure was taken in."""
        part = next(part for key, part in self._parts.items() if key[0] == measure)
        return tuple(sorted(int(layer) for layer in part["layer"].unique()))

    def scores(self, measure: str, rows: str) -> FloatArray:
        """(samples, layers, images)."""
        part = self._parts[measure, rows]
        part = part[part["head"] == MEAN_OVER_HEADS]
        layers = self.layers(measure)
        table = np.full((self._samples, len(layers), self._widest), np.nan)
        table[part["sample"], np.searchsorted(layers, part["layer"]), part["image"]] = part["factor"]
        return table

    def heads(self, rows: str) -> FloatArray:
        """(samples, layers, heads, images)."""
        part = self._parts[RAW, rows]
        part = part[part["head"] != MEAN_OVER_HEADS]
        layers = self.layers(RAW)
        table = np.full((self._samples, len(layers), int(part["head"].max()) + 1, self._widest), np.nan)
        table[part["sample"], np.searchsorted(layers, part["layer"]), part["head"], part["image"]] = part["factor"]
        return table

    def numbers(self, measure: str) -> FloatArray:
        """(samples, layers) of a measure that is of no single image."""
        part, layers = self._parts[measure, IMAGE_ROWS], self.layers(measure)
        table = np.full((self._samples, len(layers)), np.nan)
        table[part["sample"], np.searchsorted(layers, part["layer"])] = part["factor"]
        return table


def _features(folder: "RunFolder", place: Mapping[str, int]) -> FloatArray:
    table: FloatArray | None = None
    for batch in range(folder.manifest.batches):
        with np.load(folder.path / features_file(batch), allow_pickle=False) as held:
            if not len(held["ids"]):
                continue
            if table is None:
                table = np.full((len(place), *held["features"].shape[1:]), np.nan)
            table[[place[str(name)] for name in held["ids"]]] = held["features"]
    assert table is not None
    return table
