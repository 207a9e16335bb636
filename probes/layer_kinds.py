"""What a decoder layer is made of: attention, a state space, linear attention, experts, a plain feed-forward block.

Records and what configurations call them; which layer holds what is found elsewhere, from the modules. Imports no
torch.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from probes.errors import InputError, counted


class LayerKind(StrEnum):
    """One kind of part that a decoder layer can hold."""

    ATTENTION = "attention"
    """Softmax attention, over all tokens, a window or a chosen few."""
    STATE_SPACE = "state space"
    """Mamba and Mamba-2."""
    LINEAR_ATTENTION = "linear attention"
    """Gated delta nets, delta attention, lightning attention."""
    CONVOLUTION = "convolution"
    """A short gated convolution in attention's place (LFM2)."""
    EXPERTS = "mixture of experts"
    MLP = "mlp"
    """A dense feed-forward block; a shared expert is a part of its mixture."""


MIXERS = (LayerKind.ATTENTION, LayerKind.STATE_SPACE, LayerKind.LINEAR_ATTENTION, LayerKind.CONVOLUTION)
"""Kinds that carry something from token to token, in the order in which records name them."""
FEED_FORWARDS = (LayerKind.EXPERTS, LayerKind.MLP)
"""Kinds that act on each token alone."""

WITHOUT_ATTENTION = frozenset(
    {"linear_attention", "mamba", "mamba2", "conv", "recurrent", "moe", "mlp", "sparse", "dense"}
)
"""Kinds of a configuration's `layer_types` without softmax attention."""
_SOFTMAX = (
    "attention",
    "full_attention",
    "sliding_attention",
    "chunked_attention",
    "window_attention",
    "indexed_attention",
    "compressed_sparse_attention",
    "heavily_compressed_attention",
    "minimax_m3_sparse",
    "reference_sliding_attention",
)
_RECURRENT = frozenset({LayerKind.STATE_SPACE, LayerKind.LINEAR_ATTENTION})


@dataclass(frozen=True)
class LayerKinds:
    """The parts of one decoder layer.

    A layer of a Transformer has a mixer and a feed-forward block; one of Nemotron-H has one or the other; one of
    Falcon-H1 has two mixers side by side.

    >>> print(LayerKinds(3, (LayerKind.ATTENTION,), (LayerKind.EXPERTS,)))
    layer 3: attention, mixture of experts
    """

    layer: int
    """True index in the decoder."""
    mixers: tuple[LayerKind, ...]
    """Of `MIXERS`, in that order."""
    feed_forwards: tuple[LayerKind, ...]
    """Of `FEED_FORWARDS`, in that order."""

    @property
    def all(self) -> tuple[LayerKind, ...]:
        """Every kind of part."""
        return (*self.mixers, *self.feed_forwards)

    def __str__(self) -> str:
        return f"layer {self.layer}: {', '.join(self.all)}"


def of_parts(layer: int, found: Collection[LayerKind]) -> LayerKinds:
    """The record of a layer with such parts, in whatever order they were found."""
    return LayerKinds(
        layer,
        tuple(kind for kind in MIXERS if kind in found),
        tuple(kind for kind in FEED_FORWARDS if kind in found),
    )


def layers_with(kinds: Mapping[int, LayerKinds], kind: LayerKind | str) -> list[int]:
    """True indices of the layers that have a kind of part.

    Raises:
        InputError: If there is no such kind.

    >>> layers_with({0: of_parts(0, {LayerKind.MLP}), 1: of_parts(1, {LayerKind.EXPERTS})}, "mlp")
    [0]
    """
    wanted = as_kind(kind)
    return [layer for layer, each in kinds.items() if wanted in each.all]


def chosen_layers(
    kinds: Mapping[int, LayerKinds], kind: LayerKind | str, layers: Collection[int] | None = None
) -> list[int]:
    """The layers asked for, each of which has a kind of part; None asks for every one that does.

    Raises:
        InputError: If no layer has it, none is named, or one that is named does not have it; the message names the
            layers that do.
    """
    wanted = as_kind(kind)
    able = layers_with(kinds, wanted)
    if not able:
        there = ", ".join(dict.fromkeys(each for one in kinds.values() for each in one.all))
        raise InputError(
            f"no layer of this decoder has any {wanted}: its layers have {there or 'no known part'}; ask for what they "
            "have, or give another model"
        )
    if layers is None:
        return able
    missing = sorted(set(layers) - set(able))
    if missing or not layers:
        lacking = f"layers {missing} have no {wanted}" if missing else "no layers are named"
        raise InputError(f"{lacking}; the layers with {wanted} are {able}")
    return sorted(set(layers))


def counts(kinds: Mapping[int, LayerKinds]) -> dict[LayerKind, int]:
    """How many layers have each kind of part, of those kinds that there are.

    >>> counts({0: of_parts(0, {LayerKind.MLP}), 1: of_parts(1, {LayerKind.MLP})})
    {<LayerKind.MLP: 'mlp'>: 2}
    """
    return {kind: number for kind in LayerKind if (number := len(layers_with(kinds, kind)))}


def as_kind(kind: LayerKind | str) -> LayerKind:
    """A kind by its name.

    Raises:
        InputError: If there is no such kind.
    """
    try:
        return LayerKind(kind)
    except ValueError:
        raise InputError(f"unknown kind of layer {kind!r}: there are {', '.join(LayerKind)}") from None


def check_against_config(
    kinds: Mapping[int, LayerKinds], layer_types: Sequence[str], mlp_layer_types: Sequence[str]
) -> None:
    """Refuse layers whose modules are not what the configuration says that they are.

    Args:
        kinds: What the modules are.
        layer_types: The configuration's kinds by layer (`layer_types`, or `layers_block_type`); empty if it has none.
        mlp_layer_types: The same of feed-forward blocks, "dense" or "sparse"; may be longer than there are layers.

    Raises:
        InputError: For the first layer that differs, for kinds that are not known, and for lists that are too short.
    """
    for name, given in (("layer_types", layer_types), ("mlp_layer_types", mlp_layer_types)):
        if given and len(given) < len(kinds):
            raise InputError(
                f"the configuration's {name} name {counted(len(given), 'layer')}, and the decoder has {len(kinds)}"
            )
    for layer, each in kinds.items():
        if layer_types and not _fits(layer_types[layer], each):
            raise _disagreement(each, layer_types[layer])
        if mlp_layer_types and not _fits(mlp_layer_types[layer], each, beside_mixer=True):
            raise _disagreement(each, mlp_layer_types[layer])


def _fits(name: str, found: LayerKinds, beside_mixer: bool = False) -> bool:
    """Whether a layer may be called so; `beside_mixer` where the name is of its feed-forward block alone."""
    mixers, blocks = frozenset(found.mixers), frozenset(found.feed_forwards)
    if name in _SOFTMAX:
        return mixers == {LayerKind.ATTENTION}
    if name in ("linear_attention", "mamba", "mamba2"):
        return bool(mixers & _RECURRENT) and mixers <= _RECURRENT
    if name == "conv":
        return mixers == {LayerKind.CONVOLUTION}
    if name in ("hybrid", "hybrid_sliding"):
        return LayerKind.ATTENTION in mixers
    if name in ("moe", "sparse", "hash_moe"):
        return LayerKind.EXPERTS in blocks and (beside_mixer or not mixers)
    if name in ("mlp", "dense"):
        return blocks == {LayerKind.MLP} and (beside_mixer or not mixers)
    raise InputError(
        f"the configuration calls decoder layer {found.layer} {name!r}, and what that is is not known; read its "
        f"modules instead: {', '.join(found.all) or 'no part of a known kind'}"
    )


def _disagreement(found: LayerKinds, name: str) -> InputError:
    return InputError(
        f"decoder layer {found.layer} holds {', '.join(found.all) or 'no part of a known kind'}, and the configuration "
        f"calls it {name!r}: the model was changed after its configuration was written, or its modules are not known"
    )
