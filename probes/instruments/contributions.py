"""One unit across kinds of layers: nats of the answer's log-probability that each image gives through each of them.

A record and its agreement with knock-out, on plain arrays. Knows nothing of models, and imports no torch.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata

from probes.estimates import Estimate, mean
from probes.inputs import InputError
from probes.layer_kinds import LayerKind
from probes.scores import Agreement, causal_agreement, focus

FloatArray = npt.NDArray[np.float64]
ATTENTION = "attention"
"""The kind of softmax attention; mixers' kinds are those of `probes.state_space.mixer_layers`."""
EXPERTS = str(LayerKind.EXPERTS)
"""The kind of mixtures of experts."""


@dataclass(frozen=True, eq=False, repr=False)
class ExpertShares:
    """What each expert of one layer contributes at each image's tokens; together they are the layer's entry.

    Attributes:
        layer: True index.
        routed: (experts, images) nats: weight times output of each routed expert; 0 for one that none of the image's
            tokens goes to.
        shared: (images,) nats: that of the shared experts.
    """

    layer: int
    routed: FloatArray
    shared: FloatArray

    def __repr__(self) -> str:
        return f"ExpertShares(layer {self.layer}, {self.routed.shape[0]} experts, {self.routed.shape[1]} images)"


@dataclass(frozen=True, eq=False, repr=False)
class Contributions:
    """What one answer owes to each image, by way of each layer that mixes tokens or has experts; see
    `contribution_reading`.

    A first-order reading: what an image's tokens add to the layer's output at the query rows, times the gradient of the
    answer's log-probability there; of experts, their output at the image's own tokens. Layers of all kinds share the
    unit, nats; a sum over layers counts a path that leads through several of them several times, so that it is no share
    of the answer.

    Attributes:
        layers: Per entry the true index of its layer; a layer with a mixer and experts, or with two mixers (Falcon-H1),
            has two entries.
        kinds: Per entry "attention", "mamba2", "mamba", "delta" or "mixture of experts".
        rows: Name of the query rows, which experts' entries do not depend on.
        nats: (entries, images): with gate and norm behind the mixing taken as fixed factors. Complete: with those of
            all other tokens and of the bias they make up `totals`.
        slopes: (entries, images): the first-order effect of a knock-out: of fading the image's values in a mixer,
            through gate and norm; of fading its weights in softmax attention, each row renormalised. Not complete:
            neither a norm nor a softmax takes notice of how much there is in all. Of experts the same as `nats`:
            nothing stands between them and the layer's output.
        totals: (entries,): the gradient times the layer's output, over the query rows; of experts over all tokens.
        errors: (entries,): how far all contributions together are from `totals`, over the sum of the absolute products
            of gradient and output: the completeness error.
        log_probability: Of the answer, in nats.
        experts: Per layer with experts what each of them contributes; empty where they were not read.
    """

    layers: tuple[int, ...]
    kinds: tuple[str, ...]
    rows: str
    nats: FloatArray
    slopes: FloatArray
    totals: FloatArray
    errors: FloatArray
    log_probability: float
    experts: tuple[ExpertShares, ...] = ()

    def __repr__(self) -> str:
        kinds = ", ".join(dict.fromkeys(self.kinds))
        return (
            f"Contributions({self.nats.shape[1]} images through {len(self.layers)} layers of {kinds}, "
            f"completeness error at most {self.errors.max():.1e})"
        )

    def of_kind(self, kind: str, slopes: bool = False) -> FloatArray:
        """The entries of one kind, (entries, images).

        Raises:
            InputError: If there are none.
        """
        if kind not in self.kinds:
            raise InputError(f"no {kind!r} layer here; there are {', '.join(dict.fromkeys(self.kinds))}")
        table: FloatArray = (self.slopes if slopes else self.nats)[[each == kind for each in self.kinds]]
        return table

    def by_expert(self, layer: int) -> ExpertShares:
        """What each expert of a layer contributes.

        Raises:
            InputError: If its experts were not read.
        """
        found = [each for each in self.experts if each.layer == layer]
        if not found:
            able = [each.layer for each in self.experts]
            raise InputError(f"no experts of layer {layer} were read; those of layers {able} were")
        return found[0]

    def windows(self, kind: str) -> list[list[int]]:
        """The layers of one kind, each a window of its own: what knock-outs of the same entries take."""
        return [[layer] for layer, each in zip(self.layers, self.kinds, strict=True) if each == kind]

    def focus(self, kind: str, rule: str = "M-LND", last: int = 4) -> int:
        """The 0-based image that a rule picks from the last layers of one kind; see `probes.focus`."""
        return focus(self.of_kind(kind), rule, last)


@dataclass(frozen=True)
class KnockoutAgreement:
    """How far contributions of one kind agree with knock-outs of the same layers, over samples."""

    kind: str
    top: Agreement
    """How often the image that contributes most, summed over the layers, is the one whose knock-outs cost most."""
    correlation: Estimate
    """Mean over samples of Pearson's correlation between contributions and effects, over layers and images."""
    rank_correlation: Estimate
    """The same of their ranks (Spearman's)."""


def knockout_agreement(
    contributions: Sequence[Contributions],
    effects: Sequence[Mapping[str, npt.ArrayLike]],
    clusters: npt.ArrayLike | None = None,
    slopes: bool = False,
) -> dict[str, KnockoutAgreement]:
    """Hold contributions against knock-outs, each kind apart.

    Args:
        contributions: One per sample.
        effects: Per sample and kind, (layers, images): the drop in the answer's log-probability when one layer is cut
            off from one image, layers as `Contributions.windows`. NaN for images that could not be hidden.
        clusters: (samples,) base sample of each sample.
        slopes: Compare slopes and not nats.

    Returns:
        By kind. Samples in which contributions or effects do not vary, such as one image in one layer, have no
        correlation, and are left out of it.

    Raises:
        InputError: If effects and contributions do not match.
    """
    kinds = list(dict.fromkeys(kind for each in contributions for kind in each.kinds))
    if len(contributions) != len(effects) or not contributions:
        raise InputError(f"{len(contributions)} samples have contributions, and {len(effects)} have effects")
    return {kind: _agreement(kind, contributions, effects, clusters, slopes) for kind in kinds}


def _agreement(
    kind: str,
    contributions: Sequence[Contributions],
    effects: Sequence[Mapping[str, npt.ArrayLike]],
    clusters: npt.ArrayLike | None,
    slopes: bool,
) -> KnockoutAgreement:
    focused, totals, correlations, of_ranks = [], [], [], []
    for number, (sample, measured) in enumerate(zip(contributions, effects, strict=True)):
        given = sample.of_kind(kind, slopes)
        cut = np.asarray(measured.get(kind, ()), dtype=np.float64)
        if cut.shape != given.shape:
            raise InputError(
                f"sample {number}: its effects of {kind!r} layers have the shape {cut.shape}, its contributions "
                f"{given.shape}: knock out each of `windows({kind!r})` by itself"
            )
        known = ~np.isnan(cut).all(axis=0)
        summed = np.where(known, cut.sum(axis=0), np.nan)
        focused.append(int(np.where(known, given.sum(axis=0), -np.inf).argmax()))
        totals.append(summed)
        correlations.append(_correlation(given[:, known].ravel(), cut[:, known].ravel()))
        of_ranks.append(_correlation(rankdata(given[:, known], axis=None), rankdata(cut[:, known], axis=None)))
    widest = max(len(each) for each in totals)
    table = np.full((len(totals), widest), np.nan)
    for row, each in enumerate(totals):
        table[row, : len(each)] = each
    top = causal_agreement(focused, table, clusters)
    return KnockoutAgreement(kind, top, _mean_known(correlations, clusters), _mean_known(of_ranks, clusters))


def _mean_known(values: Sequence[float], clusters: npt.ArrayLike | None) -> Estimate:
    """The mean of those that are numbers."""
    found = np.asarray(values, dtype=np.float64)
    known = np.isfinite(found)
    return mean(found[known], None if clusters is None else np.asarray(clusters)[known])


def _correlation(one: FloatArray, other: FloatArray) -> float:
    """Pearson's; NaN where either does not vary."""
    if min(np.ptp(one), np.ptp(other)) == 0:
        return float("nan")
    first, second = one - one.mean(), other - other.mean()
    return float((first * second).sum() / np.sqrt((first**2).sum() * (second**2).sum()))
