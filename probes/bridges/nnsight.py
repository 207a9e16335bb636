"""A model through nnsight: attention and residual streams as a traced block sees them, in this process or on a server.

The only file that knows nnsight. One block, `_traced`, runs every pass: in this process, or serialised and run by a
server that hosts the model. Importing nnsight gives every Python object a `save` method; nothing here relies on it.
"""

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor

from probes.bridges.bridged import BridgedModel
from probes.bridges.passes import Pass, Plan, hidden_by, place_of_mask, refuse_blind, row_sums, with_hidden
from probes.bridges.runner import Runner
from probes.changes import Knockout, Patch
from probes.checkpoints import first_line
from probes.decoder import attention_modules, decoder_layers
from probes.encoding import Encoded
from probes.inputs import InputError
from probes.loading import load_processor
from probes.model import HookedModel
from probes.residuals import picked, replaced, residual_of, with_residual

try:
    import nnsight
    from nnsight.schema.config import CONFIG
except ImportError as error:
    raise InputError("this bridge needs nnsight: pip install sightcheck[bridges]") from error


class Step(NamedTuple):
    """What the traced block does at one decoder layer, in the order in which it happens.

    Args:
        layer: True index.
        block: Path of the layer's module; empty where its residual stream is left alone.
        patches: Tokens with what enters the layer in their place.
        tokens: Whose residual stream is read; None reads none.
        attention: Path of its attention module; empty where it is left alone.
        mask_at: Place of the mask among the attention's positional arguments, where it is one.
        hidden: What the rows cannot see; None hides nothing.
        sets: Row sets whose attention is summed; None sums none.
        per_head: Keep heads apart.
    """

    layer: int
    block: str
    patches: tuple[tuple[Tensor, Tensor], ...]
    tokens: Tensor | None
    attention: str
    mask_at: int
    hidden: Tensor | None
    sets: Tensor | None
    per_head: bool


class NNsightRunner(Runner):
    """Runs a model in nnsight's traces, in this process."""

    library = "nnsight"

    def __init__(self, model: Any) -> None:
        super().__init__(model)
        paths = {id(module): path for path, module in model.named_modules()}
        attentions = attention_modules(model)
        self._attentions = {layer: paths[id(module)] for layer, module in attentions.items()}
        self._masks_at = {layer: place_of_mask(module) for layer, module in attentions.items()}
        self._choosing = {layer for layer, module in attentions.items() if _chooses_by_mask(module)}
        self._paths = paths
        self._envoy = self._wrapped(model)
        self._options: dict[str, Any] = {}

    def _wrapped(self, model: Any) -> Any:
        return nnsight.NNsight(model)

    def run(self, inputs: Mapping[str, Any], plan: Plan) -> Pass:
        """Run one forward pass; see `Runner`."""
        steps = self._steps(plan)
        logits, sums, residuals, blind = _traced(self._envoy, dict(inputs), steps, self._options)
        for layer, is_blind in blind.items():
            refuse_blind(layer, is_blind)
        return Pass(logits, sums, residuals)

    def _steps(self, plan: Plan) -> list[Step]:
        chosen = sorted(self._choosing & set(plan.blocks))
        if chosen:
            raise self.refusal(
                f"layers {chosen} choose their columns by the mask that they are given, and would choose others under "
                "one that hides some"
            )
        touched = {*plan.patches, *(plan.layers if plan.tokens is not None else ())}
        modules = decoder_layers(self.model) if touched else {}
        attended = self.layers if plan.sets is not None else plan.blocks
        return [
            Step(
                layer=layer,
                block=self._paths[id(modules[layer])] if layer in touched else "",
                patches=tuple(plan.patches.get(layer, ())),
                tokens=plan.tokens if layer in plan.layers else None,
                attention=self._attentions[layer] if layer in attended else "",
                mask_at=self._masks_at.get(layer, -1),
                hidden=hidden_by(plan.blocks[layer]) if layer in plan.blocks else None,
                sets=plan.sets,
                per_head=plan.per_head,
            )
            for layer in sorted({*touched, *attended})
        ]


def _chooses_by_mask(module: Any) -> bool:
    """Whether a sparse attention's indexer reads the mask that hides columns from the attention itself."""
    indexer = getattr(module, "indexer", None)
    return indexer is not None and any("mask" in name for name in inspect.signature(indexer.forward).parameters)


class ServedRunner(NNsightRunner):
    """Runs a model where a server hosts it, by the same block.

    Args:
        envoy: nnsight's view of the model, without weights.
        remote: See `ServedModel`.
    """

    def __init__(self, envoy: Any, remote: bool | str) -> None:
        self._given = envoy
        super().__init__(envoy._module)
        # What the block calls travels with it: the server does not have this package.
        nnsight.register("probes")
        self._options = {"remote": remote}
        self._host = remote if isinstance(remote, str) else str(CONFIG.API.HOST)

    def _wrapped(self, model: Any) -> Any:  # noqa: ARG002
        return self._given

    def run(self, inputs: Mapping[str, Any], plan: Plan) -> Pass:
        """Run one forward pass on the server; see `Runner`.

        Raises:
            InputError: Also if the server cannot be reached or refuses, or what comes back is no attention.
        """
        try:
            found = super().run(inputs, plan)
        except InputError:
            raise
        # The hub, the connection and the server fail each in their own ways, and nnsight passes them all on.
        except Exception as error:
            raise InputError(
                f"{type(self.model).__name__} cannot be run at {self._host} ({type(error).__name__}: "
                f"{first_line(error)}): remote runs need the network, the model's name on the hub, and an API key in "
                "NDIF_API_KEY or a server of your own in NDIF_HOST"
            ) from error
        if plan.sets is not None:
            _check_shares(found.sums, plan.sets)
        return found


class NNsightModel(BridgedModel):
    """A model that runs in nnsight's traces, in this process; see `BridgedModel`. `ServedModel` is the remote one."""

    runner_class = NNsightRunner


class ServedModel(BridgedModel):
    """A model on a server of nnsight's (NDIF, or your own), traced from here by the block that runs in this process.

    Only configuration and processor are loaded here; answers are given, not generated. Since the plain model is not at
    hand, nothing is held against it: the server is asked for eager attention, and every row's attention that comes back
    is checked to be a share of one.

    Args:
        repo_id: The model's name on the hub, by which the server knows it.
        remote: True for the host in nnsight's configuration, a URL for another, or "local" to run here what would be
            sent, serialised and read back, with this project's modules out of reach.
        revision: Branch, tag or commit.
        dtype: Of the model where it runs with "local"; a server has its own.

    Raises:
        InputError: If configuration or processor cannot be loaded, or an API key is missing.
    """

    runner_class = ServedRunner

    def __init__(
        self,
        repo_id: str | Path,
        remote: bool | str = True,
        revision: str | None = None,
        dtype: str | torch.dtype = "auto",
    ) -> None:
        if not remote:
            raise InputError("a served model runs elsewhere: give remote=True, or use NNsightModel in this process")
        if remote is True and not CONFIG.API.APIKEY and CONFIG.API.HOST == type(CONFIG.API)().HOST:
            raise InputError(
                f"{CONFIG.API.HOST} wants an API key: set NDIF_API_KEY, or NDIF_HOST for a server of your own"
            )
        processor = load_processor(repo_id, revision=revision)
        try:
            envoy: Any = nnsight.TransformersModel(
                str(repo_id),
                task="image-text-to-text",
                revision=revision,
                attn_implementation="eager",
                processor=processor,
                tokenizer=processor.tokenizer,
                image_processor=processor.image_processor,
                dtype=dtype,
            )
        # The hub, configurations and pipelines fail each in their own ways.
        except Exception as error:
            raise InputError(
                f"model {str(repo_id)!r}: cannot be prepared for a server ({first_line(error)})"
            ) from error
        HookedModel.__init__(self, envoy._module, processor)
        self._trusted = {Knockout, Patch}
        self.runner = ServedRunner(envoy, remote)

    @classmethod
    def of(cls, source: HookedModel | str | Path, **settings: Any) -> Self:
        """See the class.

        Raises:
            InputError: If a model is given in place of its name.
        """
        if isinstance(source, HookedModel):
            raise InputError("a server knows models by name: give the model's name on the hub")
        return cls(source, **settings)

    @property
    def device(self) -> torch.device:
        """Where inputs go: they are sent from here."""
        return torch.device("cpu")

    def _generate(self, encoded: Encoded, max_new_tokens: int) -> list[tuple[int, ...]]:  # noqa: ARG002
        raise InputError("a served model is not generated from: give the answers")


def _check_shares(sums: Mapping[int, Tensor], sets: Tensor) -> None:
    """Refuse attention whose rows add up to more than one, or to nothing."""
    rows = sets.sum(-1)[:, None].float()
    for layer, values in sums.items():
        shares = values.cpu().sum(-1)
        if bool(((shares > rows * 1.01) | ((shares <= 0) & (rows > 0))).any()):
            raise InputError(f"what the server gives for layer {layer} is no attention: its rows do not add up to one")


def _traced(
    envoy: Any, inputs: dict[str, Any], steps: list[Step], options: dict[str, Any]
) -> tuple[Tensor, dict[int, Tensor], dict[int, Tensor], dict[int, Tensor]]:
    """Run one pass: logits, sums of attention, residual streams, and whether a layer's knock-out leaves a row blind."""
    with envoy.trace(**inputs, **options):
        sums: dict[int, Tensor] = {}
        residuals: dict[int, Tensor] = {}
        blind: dict[int, Tensor] = {}
        for step in steps:
            if step.block:
                block = envoy.get(step.block)
                residuals |= _at_block(block, step)
            if step.attention:
                attention = envoy.get(step.attention)
                blind |= _at_mask(attention, step)
                sums |= _at_probabilities(attention, step)
        logits = envoy.output.logits
        nnsight.save(sums)
        nnsight.save(residuals)
        nnsight.save(blind)
        nnsight.save(logits)
    return logits, sums, residuals, blind


def _at_block(block: Any, step: Step) -> dict[int, Tensor]:
    """Patch what enters a layer, then read it."""
    args, named = block.inputs
    residual = residual_of(args, named)
    for tokens, values in step.patches:
        residual = replaced(step.layer, residual, tokens, values)
    if step.patches:
        block.inputs = with_residual(args, named, residual)
    return {} if step.tokens is None else {step.layer: picked(step.layer, residual, step.tokens).clone()}


def _at_mask(attention: Any, step: Step) -> dict[int, Tensor]:
    """Hide columns in the mask that a layer's attention is given."""
    if step.hidden is None:
        return {}
    args, named = attention.inputs
    new_args, new_named, blind = with_hidden(args, named, step.mask_at, step.hidden)
    attention.inputs = (new_args, new_named)
    return {step.layer: blind}


def _at_probabilities(attention: Any, step: Step) -> dict[int, Tensor]:
    """Sum the probabilities that an eager attention gives beside its output."""
    if step.sets is None:
        return {}
    tokens = step.sets.shape[-1]
    for value in attention.output:
        if isinstance(value, Tensor) and value.dim() == 4 and tuple(value.shape[2:]) == (tokens, tokens):
            return {step.layer: row_sums(value, step.sets, step.per_head)}
    return {}
