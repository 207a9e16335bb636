"""Hidden attention in an audit: which layers without softmax are read, which are not and why, and what is recorded.

It stands beside attention factors as measures of its own, each over layers of one kind. It knows layers and names;
the numbers are `probes.state_space`'s. Importing it loads no torch.
"""

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Self

from probes.inputs import InputError

MEASURES = {"absolute": "hidden_attention_absolute", "value": "hidden_attention_value"}
"""The measure of each form of hidden attention that is recorded.

Signed hidden attention is not: its weights have either sign, so that those of an image's tokens cancel in their mean,
and the image with the largest mean is not the one that is weighed most.
"""

PART = "hidden attention"
"""What the table `unread` calls it."""


@dataclass(frozen=True)
class Mixers:
    """A decoder's layers without softmax, by true index."""

    read: Mapping[int, str] = field(default_factory=dict)
    """The kind of each layer whose hidden attention is recorded: "state space" or "linear attention"."""
    refused: Mapping[int, str] = field(default_factory=dict)
    """Why the hidden attention of a layer is not recorded."""

    def __bool__(self) -> bool:
        return bool(self.read or self.refused)

    @property
    def cuttable(self) -> bool:
        """Whether an image can be hidden from all of them, as it can from softmax attention."""
        return bool(self.read) and not self.refused

    def as_json(self) -> dict[str, Any]:
        """What a manifest says of them."""
        named = {str(layer): kind for layer, kind in self.read.items()}
        return {"measures": list(MEASURES.values()), "read": named, "refused": dict(self.refused)}

    @classmethod
    def from_json(cls, told: Mapping[str, Any]) -> Self:
        """What a manifest says, read back; an empty one says that there are none."""
        read, refused = ({int(layer): text for layer, text in told.get(key, {}).items()} for key in ("read", "refused"))
        return cls(read, refused)


def find_mixers(model: Any) -> Mixers:
    """The layers without softmax of a transformers model: those that can be read, and those that are refused by name.

    Raises:
        UnsupportedAttention: If the model's decoder is not found.
    """
    from probes.mixers.modules import mixers_if_any, refused_mixers
    from probes.mixers.readers import reader_of
    from probes.mixers.trace import layer_kind

    read = {layer: str(layer_kind(reader_of(module).kind)) for layer, module in mixers_if_any(model, ()).items()}
    return Mixers(read, refused_mixers(model))


def followed(ask: Callable[[Mixers], object], mixers: Mixers) -> Mixers:
    """Try a question: the mixers that it can be traced with, the others refused with their reasons.

    A mixer of a known class can still be one that cannot be followed, as where its output is not what its hidden
    attention rebuilds. Only then are layers tried one by one.

    Args:
        ask: Traces the question with some mixers.
        mixers: Those of the model.

    Raises:
        InputError: If the question cannot be traced without any mixer either.
    """
    try:
        ask(mixers)
        return mixers
    except InputError:
        if not mixers.read:
            raise
    ask(Mixers())
    refused = {}
    for layer, kind in mixers.read.items():
        try:
            ask(Mixers({layer: kind}))
        except InputError as error:
            refused[layer] = str(error)
    kept = {layer: kind for layer, kind in mixers.read.items() if layer not in refused}
    return replace(mixers, read=kept, refused=dict(sorted({**mixers.refused, **refused}.items())))


def described(model: Any, mixers: Mixers) -> dict[str, Any]:
    """What the manifest of an audit of such a model says, beside what other manifests say; nothing without mixers.

    Which kinds of parts every layer has is told too, for figures; where that is not known, it is said on stderr.
    """
    from probes.layer_parts import layer_kinds

    if not mixers:
        return {}
    try:
        parts = {str(layer): [str(kind) for kind in kinds.all] for layer, kinds in layer_kinds(model).items()}
    except InputError as error:
        print(f"what the decoder's other layers are made of is not known: {error}", file=sys.stderr)
        parts = {}
    return {"mixers": {**mixers.as_json(), "layer_kinds": parts}}


def lines_of(mixers: Mixers) -> list[str]:
    """The layers for people; those that are refused for the same reason share a line.

    >>> lines_of(Mixers({0: "state space", 2: "state space"}, {3: "decoder layer 3 (Odd): not known"}))
    ['hidden attention of state space layers 0, 2', 'no hidden attention: decoder layer 3 (Odd): not known']
    """
    lines = []
    for kind in dict.fromkeys(mixers.read.values()):
        layers = ", ".join(str(layer) for layer, own in mixers.read.items() if own == kind)
        lines.append(f"{PART} of {kind} layers {layers}")
    return [*lines, *(f"no {PART}: {reason}" for reason in refusals(mixers.refused))]


def refusals(refused: Mapping[int, str]) -> list[str]:
    """Reasons, each with the layers that it holds for.

    >>> refusals({0: "decoder layer 0 (Odd): not known", 1: "decoder layer 1 (Odd): not known"})
    ['decoder layers 0, 1 (Odd): not known']
    """
    by_reason: dict[str, list[int]] = {}
    for layer, reason in refused.items():
        by_reason.setdefault(reason.replace(f"decoder layer {layer} ", "decoder layer {} ", 1), []).append(layer)
    return [
        reason.replace("decoder layer {}", f"decoder layer{'s' * (len(layers) > 1)} {', '.join(map(str, layers))}", 1)
        for reason, layers in by_reason.items()
    ]
