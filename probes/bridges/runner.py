"""What stands between a bridge and its library: one class per library that runs a model's passes.

Knows models and tensors; no processor, question or answer.
"""

import copy
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, NoReturn

from probes.bridges.passes import Pass, Plan
from probes.checkpoints import first_line
from probes.cross_attention import is_cross_attention
from probes.decoder import attention_modules, decoder_layers
from probes.inputs import InputError


class UnsupportedBridge(InputError):  # noqa: N818
    """A model that a library does not run, or not as the model itself runs. Names model, reason and way forward."""


class Runner(ABC):
    """Runs passes of one model in one library.

    Args:
        model: A transformers model on eager attention, which the library may change; see `twin`.

    Raises:
        UnsupportedBridge: If the library does not take the model.
        UnsupportedAttention: If its decoder's layers cannot be told.
    """

    library: ClassVar[str]
    """Name of the library, for errors and tables."""

    def __init__(self, model: Any) -> None:
        self.model = model
        attentions = attention_modules(model)
        if attentions and all(is_cross_attention(module) for module in attentions.values()):
            raise self.refusal("its images are no tokens of the prompt: every attention that is read is over features")
        self.layers = list(attentions)
        """True indices of the decoder's attention layers."""

    @property
    def residual_layers(self) -> list[int]:
        """True indices of the decoder's layers of every kind."""
        return list(decoder_layers(self.model))

    @abstractmethod
    def run(self, inputs: Mapping[str, Any], plan: Plan) -> Pass:
        """Run one forward pass.

        Args:
            inputs: What `model(**inputs)` takes.
            plan: What is read and changed.

        Raises:
            UnsupportedBridge: If the library does not show or change what is asked for.
            InputError: If a row would see nothing, or a patch does not fit.
        """

    def refusal(self, reason: str) -> UnsupportedBridge:
        """The error in the one form that every refused model gets."""
        name = f"{type(self.model).__name__} ({self.model.config.model_type})"
        return UnsupportedBridge(
            f"{self.library} does not take {name}: {reason}; read it with probes.HookedModel, which needs no bridge, "
            "or take a family of docs/bridges.md"
        )

    def refuse(self, error: BaseException) -> NoReturn:
        """Refuse for what a library raised."""
        raise self.refusal(f"{type(error).__name__}: {first_line(error)}") from error


def twin(model: Any) -> Any:
    """A model with the same weights and modules of its own, on eager attention: what is done to it stays there."""
    shared: dict[int, Any] = {id(parameter): parameter for parameter in model.parameters()}
    copied = copy.deepcopy(model, shared)
    copied.set_attn_implementation("eager")
    return copied.eval()
