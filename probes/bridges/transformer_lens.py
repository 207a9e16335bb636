"""A model through TransformerLens' TransformerBridge: attention from its pattern hooks, changes by its score hooks.

The only file that knows TransformerLens. Its bridge takes the place of modules inside the model it is given, so it gets
a twin. Of attention it shows whole patterns, one layer at a time; they are summed inside the hook.
"""

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal

from torch import Tensor

from probes.bridges.bridged import BridgedModel
from probes.bridges.passes import (
    Block,
    Pass,
    Plan,
    blinded,
    hidden_by,
    hide,
    place_of_mask,
    refuse_blind,
    row_sums,
    with_hidden,
)
from probes.bridges.runner import Runner, UnsupportedBridge
from probes.inputs import InputError
from probes.residuals import picked, replaced

try:
    from transformer_lens.model_bridge.sources import build_bridge_from_module
except ImportError as error:
    raise InputError("this bridge needs TransformerLens: pip install sightcheck[bridges]") from error

Hook = Callable[[Tensor], Tensor | None]


class TransformerLensRunner(Runner):
    """Runs a model in a TransformerBridge.

    Knock-outs act on `hook_attn_scores`. Where TransformerLens leaves a family's attention to transformers, such as
    over multi-axis positions, it shows scores that nothing uses; `knocks_out_by` is then set to "mask", and columns are
    hidden in the mask that the bridge's attention is given.
    """

    library = "TransformerLens"
    knocks_out_by: Literal["scores", "mask"] = "scores"
    """Where columns are hidden."""

    def __init__(self, model: Any) -> None:
        super().__init__(model)
        self._all = super().residual_layers
        try:
            with warnings.catch_warnings():
                # The bridge warns of every name of its own that a family lacks.
                warnings.simplefilter("ignore")
                self._lens: Any = build_bridge_from_module(model, type(model).__name__, hf_config=model.config)
        # Adapters fail on models that they do not fit in as many ways as there are adapters.
        except Exception as error:
            self.refuse(error)
        points = set(self._lens.hook_dict)
        missing = [layer for layer in self.layers if _pattern(layer) not in points]
        if missing:
            raise self.refusal(f"it has no attention pattern for the layers {missing}")

    @property
    def residual_layers(self) -> list[int]:
        """True indices of the decoder's layers of every kind."""
        return self._all

    def run(self, inputs: Mapping[str, Any], plan: Plan) -> Pass:
        """Run one forward pass; see `Runner`."""
        found = Pass(inputs["input_ids"], {}, {})
        acted: set[str] = set()
        hooks = [(name, _noting(name, hook, acted)) for name, hook in self._hooks(plan, found)]
        named = {name: value for name, value in inputs.items() if name != "input_ids"}
        hidden = plan.blocks if self.knocks_out_by == "mask" else {}
        with self._lens.hooks(fwd_hooks=hooks), self._hidden_in_masks(hidden):
            logits = self._lens(inputs["input_ids"], return_type="logits", **named)
        silent = sorted({name for name, _ in hooks} - acted)
        if silent:
            raise self.refusal(f"its hook {silent[0]} never ran")
        return found._replace(logits=logits)

    def _hooks(self, plan: Plan, found: Pass) -> list[tuple[str, Hook]]:
        """Hooks by name, in the order in which they act where several share one."""
        hooks: list[tuple[str, Hook]] = []
        for layer, patches in plan.patches.items():
            for tokens, values in patches:
                hooks.append((_residual(layer), _patching(layer, tokens, values)))
        if plan.tokens is not None:
            hooks += [(_residual(layer), _reading(layer, plan.tokens, found)) for layer in plan.layers]
        if self.knocks_out_by == "scores":
            hooks += [(_scores(layer), _hiding(layer, hidden_by(blocks))) for layer, blocks in plan.blocks.items()]
        if plan.sets is not None:
            hooks += [(_pattern(layer), _summing(layer, plan.sets, plan.per_head, found)) for layer in self.layers]
        return hooks

    @contextmanager
    def _hidden_in_masks(self, blocks: Mapping[int, Sequence[Block]]) -> Iterator[None]:
        handles = []
        for layer, each in blocks.items():
            module = self._lens.blocks[layer].attn
            hook = _masking(layer, place_of_mask(module.original_component), hidden_by(each))
            handles.append(module.register_forward_pre_hook(hook, with_kwargs=True))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()


class TransformerLensModel(BridgedModel):
    """A model that runs in TransformerLens' TransformerBridge; see `BridgedModel`."""

    runner_class = TransformerLensRunner
    runner: TransformerLensRunner

    def _check_knockouts(self) -> None:
        try:
            super()._check_knockouts()
        except UnsupportedBridge:
            self.runner.knocks_out_by = "mask"
            super()._check_knockouts()


def _pattern(layer: int) -> str:
    return f"blocks.{layer}.attn.hook_pattern"


def _scores(layer: int) -> str:
    return f"blocks.{layer}.attn.hook_attn_scores"


def _residual(layer: int) -> str:
    return f"blocks.{layer}.hook_in"


def _noting(name: str, act: Hook, acted: set[str]) -> Callable[..., Tensor | None]:
    """A hook as TransformerLens calls it, which notes that it ran."""

    def hooked(value: Tensor, hook: Any) -> Tensor | None:  # noqa: ARG001
        acted.add(name)
        return act(value)

    return hooked


def _patching(layer: int, tokens: Tensor, values: Tensor) -> Hook:
    return lambda residual: replaced(layer, residual, tokens, values)


def _reading(layer: int, tokens: Tensor, found: Pass) -> Hook:
    def read(residual: Tensor) -> None:
        found.residuals[layer] = picked(layer, residual, tokens).clone()

    return read


def _hiding(layer: int, hidden: Tensor) -> Hook:
    def act(scores: Tensor) -> Tensor:
        refuse_blind(layer, blinded(scores, hidden))
        return hide(scores, hidden)

    return act


def _masking(layer: int, place: int, hidden: Tensor) -> Callable[..., Any]:
    def act(_: Any, args: tuple[Any, ...], named: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        new_args, new_named, blind = with_hidden(args, named, place, hidden)
        refuse_blind(layer, blind)
        return new_args, new_named

    return act


def _summing(layer: int, sets: Tensor, per_head: bool, found: Pass) -> Hook:
    def add(pattern: Tensor) -> None:
        found.sums[layer] = row_sums(pattern, sets, per_head)

    return add
