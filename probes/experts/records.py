"""What a model's routers did, as plain arrays with a label for every token. Imports no torch.

Measures of it stand beside: `load`, `margins`, `specialisation`, `stability`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from probes.errors import InputError, counted
from probes.experts.rules import FloatArray, Grouping, IntArray, selection_scores

TEXT = -1
"""Label of tokens that belong to no image."""


@dataclass(frozen=True, eq=False, repr=False)
class LayerRouting:
    """What one layer's router did with each token, as the model used it.

    Tokens are those of the batch without padding, row by row.
    """

    indices: IntArray
    """(tokens, k): the experts chosen, in the router's order."""
    weights: FloatArray
    """(tokens, k): what their outputs were multiplied with."""
    affinities: FloatArray
    """(tokens, experts): softmax or sigmoid of the logits, without bias."""
    bias: FloatArray
    """(experts,): what is added to affinities for the choice alone; 0 where the router has none."""
    grouping: Grouping
    """Groups of experts that can be shut out."""

    @property
    def scores(self) -> FloatArray:
        """(tokens, experts): what the choice was made by: affinity and bias, minus infinity in groups shut out."""
        return selection_scores(self.affinities, self.bias, self.grouping)

    def __repr__(self) -> str:
        tokens, k = self.indices.shape
        return f"LayerRouting({counted(tokens, 'token')}, {k} of {self.bias.shape[-1]} experts)"


@dataclass(frozen=True, eq=False, repr=False)
class Routing:
    """What the routers of several layers did with each token, as the model used it.

    Tokens are those of all samples without padding, sample by sample.
    """

    layers: tuple[int, ...]
    """True indices of the layers, the order of every layer axis."""
    indices: IntArray
    """(layers, tokens, k): the experts chosen, in the router's order."""
    weights: FloatArray
    """(layers, tokens, k): what their outputs were multiplied with."""
    bias: FloatArray
    """(layers, experts): what is added to affinities for the choice alone; 0 where a router has none."""
    grouping: Grouping
    """Groups of experts that can be shut out."""
    samples: IntArray
    """(tokens,): the sample that each token belongs to, from 0."""
    columns: IntArray
    """(tokens,): its column in the model's input, padding counted."""
    images: IntArray
    """(tokens,): the image that it belongs to, from 0, videos behind images; `TEXT` (-1) for text."""
    affinities: FloatArray | None
    """(layers, tokens, experts): softmax or sigmoid of the logits, without bias; None where they were left away."""

    def __post_init__(self) -> None:
        layers, tokens, _ = self.indices.shape
        if len(self.layers) != layers or self.bias.shape[0] != layers or self.weights.shape != self.indices.shape:
            raise InputError("a routing's arrays differ in their layers, tokens or k")
        if any(labels.shape != (tokens,) for labels in (self.samples, self.columns, self.images)):
            raise InputError(f"a routing of {tokens} tokens needs as many labels of each sort")

    def __repr__(self) -> str:
        return (
            f"Routing({counted(len(self.layers), 'layer')}, {counted(self.indices.shape[1], 'token')} of "
            f"{counted(len(np.unique(self.samples)), 'sample')}, {self.k} of {self.experts} experts)"
        )

    @property
    def experts(self) -> int:
        """Routed experts of each layer."""
        return int(self.bias.shape[1])

    @property
    def k(self) -> int:
        """Experts that each token goes to."""
        return int(self.indices.shape[2])

    @property
    def is_image(self) -> npt.NDArray[np.bool_]:
        """(tokens,): whether each token belongs to an image or a video."""
        found: npt.NDArray[np.bool_] = self.images != TEXT
        return found

    @property
    def scores(self) -> FloatArray:
        """(layers, tokens, experts): what choices were made by: affinity and bias, minus infinity in groups shut out.

        Raises:
            InputError: If affinities were left away.
        """
        return selection_scores(self.kept_affinities, self.bias[:, None], self.grouping)

    @property
    def unbiased_scores(self) -> FloatArray:
        """(layers, tokens, experts): what choices would be made by if all biases were zero.

        Raises:
            InputError: If affinities were left away.
        """
        return selection_scores(self.kept_affinities, np.zeros_like(self.bias)[:, None], self.grouping)

    @property
    def kept_affinities(self) -> FloatArray:
        """`affinities`, or an error.

        Raises:
            InputError: If they were left away.
        """
        if self.affinities is None:
            raise InputError("this routing holds no affinities: measure margins before without_affinities()")
        return self.affinities

    def layer(self, layer: int) -> LayerRouting:
        """One layer by its true index.

        Raises:
            InputError: If it was not recorded, or affinities were left away.
        """
        if layer not in self.layers:
            raise InputError(f"no routing of layer {layer}: recorded are {', '.join(map(str, self.layers))}")
        at = self.layers.index(layer)
        return LayerRouting(self.indices[at], self.weights[at], self.kept_affinities[at], self.bias[at], self.grouping)

    def of(self, tokens: npt.ArrayLike) -> "Routing":
        """The same of some tokens only, by bool (tokens,) or by their places."""
        chosen = np.arange(self.indices.shape[1])[np.asarray(tokens)]
        affinities = self.affinities
        return replace(
            self,
            indices=self.indices[:, chosen],
            weights=self.weights[:, chosen],
            samples=self.samples[chosen],
            columns=self.columns[chosen],
            images=self.images[chosen],
            affinities=None if affinities is None else affinities[:, chosen],
        )

    def without_affinities(self) -> "Routing":
        """The same without what takes most memory: layers x tokens x experts numbers."""
        return replace(self, affinities=None)


def joined(routings: Sequence[Routing]) -> Routing:
    """The routings of several batches as one; samples are counted on.

    Raises:
        InputError: If there are none, or they are of unlike layers, experts, k, biases or groups.
    """
    if not routings:
        raise InputError("no routings are given to join")
    first = routings[0]
    for each in routings[1:]:
        same = each.layers == first.layers and each.k == first.k and each.grouping == first.grouping
        if not same or not np.array_equal(each.bias, first.bias):
            raise InputError(f"{first} and {each} are not of the same layers and routers")
    starts = np.cumsum([0, *(int(each.samples.max(initial=-1)) + 1 for each in routings)])
    kept = [each.affinities for each in routings if each.affinities is not None]
    return replace(
        first,
        indices=np.concatenate([each.indices for each in routings], axis=1),
        weights=np.concatenate([each.weights for each in routings], axis=1),
        samples=np.concatenate([each.samples + start for each, start in zip(routings, starts, strict=False)]),
        columns=np.concatenate([each.columns for each in routings]),
        images=np.concatenate([each.images for each in routings]),
        affinities=np.concatenate(kept, axis=1) if len(kept) == len(routings) else None,
    )


def stacked(layers: dict[int, LayerRouting], samples: IntArray, columns: IntArray, images: IntArray) -> Routing:
    """One record of several layers' routings of the same tokens.

    Raises:
        InputError: If layers differ in their experts, their k or their groups.
    """
    records = list(layers.values())
    forms = {(each.indices.shape, each.bias.shape, each.grouping) for each in records}
    if len(forms) > 1:
        raise InputError(
            f"layers {list(layers)} differ in tokens, experts, k or groups: record fewer layers, or one by one"
        )
    return Routing(
        layers=tuple(layers),
        indices=np.stack([each.indices for each in records]),
        weights=np.stack([each.weights for each in records]),
        bias=np.stack([each.bias for each in records]),
        grouping=records[0].grouping,
        samples=samples,
        columns=columns,
        images=images,
        affinities=np.stack([each.affinities for each in records]),
    )
