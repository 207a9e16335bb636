"""One forward and one backward pass over a question and its answer, and everything that the instruments need of it.

The model keeps its own attention implementation. Beside it, all softmax rows are made again in fp32, so a reading holds
tokens x tokens for each head and layer: it is for short samples, and refuses by name what would not fit. Knows nothing
of what the instruments make of it.
"""

from contextlib import ExitStack
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from probes.attention_calls import AttentionCall, Places, refusal
from probes.attention_rows import column_masses
from probes.decoder import attention_modules, find_decoder, last_logits
from probes.encoding import Answer, Encoded, row_sets
from probes.inputs import InputError
from probes.instruments.arrays import HeadOutputs, Reading, Streams
from probes.instruments.names import ROWS
from probes.interface import ModuleListener, listen, require_called, unlisten
from probes.model import HookedModel
from probes.prompts import Question

__all__ = ["LIMIT_BYTES", "read", "read_streams"]

LIMIT_BYTES = 2**30
"""Most bytes of attention that a reading holds."""

_PROJECTIONS = ("o_proj", "out_proj", "dense", "wo")
"""What families call the map from the heads' outputs back to the residual stream."""


def read(
    model: HookedModel,
    question: Question,
    answer: Answer,
    rows: tuple[str, ...] = ROWS,
    limit_bytes: int = LIMIT_BYTES,
) -> Reading:
    """Run the model over a question and its answer, teacher-forced, forward and backward.

    Args:
        model: The model.
        question: Images and text.
        answer: Text, or the token ids of a trace; its log-probability is what gradients are of.
        rows: Row sets to keep; see `probes.encoding.row_sets`.
        limit_bytes: Most bytes of attention to hold.

    Returns:
        A `Reading`, arrays on the CPU.

    Raises:
        InputError: If the answer has no tokens, the attention would take more than the limit, or the model cannot take
            the question.
        UnsupportedAttention: If a layer's attention cannot be read, or its heads' outputs do not go from attention
            times values straight into an output projection (gated attention).
    """
    encoded = encoded_answer(model, question, answer)
    capture = _Capture(model.model, limit_bytes)
    residuals = _Residuals(find_decoder(model.model))
    with torch.enable_grad(), ExitStack() as stack:
        stack.enter_context(residuals)
        stack.enter_context(capture)
        log_probability = answer_log_probability(model, encoded)
        gradients = torch.autograd.grad(log_probability, [capture.shifts[layer] for layer in capture.layers])
    outputs = [capture.outputs(layer, each) for layer, each in zip(capture.layers, gradients, strict=True)]
    return Reading(
        **_streams(encoded, residuals, log_probability),
        layers=tuple(capture.layers),
        heads=tuple(outputs),
        rows={name: _array(mask[0]).nonzero()[0] for name, mask in row_sets(encoded, rows).items()},
    )


def read_streams(model: HookedModel, question: Question, answer: Answer) -> Streams:
    """Run the model over a question and its answer, and keep the residual stream only: for layers of any kind.

    Raises:
        InputError: If the answer has no tokens, or the model cannot take the question or keeps its layers elsewhere.
    """
    encoded = encoded_answer(model, question, answer)
    residuals = _Residuals(find_decoder(model.model))
    with torch.no_grad(), residuals:
        log_probability = answer_log_probability(model, encoded)
    return Streams(**_streams(encoded, residuals, log_probability))


def encoded_answer(model: HookedModel, question: Question, answer: Answer) -> Encoded:
    """One question and its answer, as instruments take them.

    Raises:
        InputError: If images are no tokens of the prompt, or the answer has no tokens.
    """
    encoded = model.encode([question], [answer])
    encoded.need_image_tokens("a reading of instruments")
    if not encoded.answer_ids[0]:
        raise InputError("the answer is empty, so there is no probability to explain")
    return encoded


def _streams(encoded: Encoded, residuals: "_Residuals", log_probability: Tensor) -> dict[str, Any]:
    return {
        "depths": tuple(range(len(residuals.streams))),
        "residuals": np.stack([_array(stream[0]) for stream in residuals.streams]),
        "images": tuple(np.asarray(span.tokens, dtype=np.int64) for span in encoded.spans[0]),
        "predicting": np.arange(encoded.prompt_stop - 1, encoded.columns - 1),
        "answer_ids": encoded.answer_ids[0],
        "log_probability": float(log_probability.detach()),
    }


def refuse_large(held: str, size: int, limit: int, way: str) -> None:
    """Refuse to hold more bytes than a limit, before they are held.

    Raises:
        InputError: If `size` is above `limit`; the message says what is `held`, and the `way` forward.
    """
    if size > limit:
        raise InputError(
            f"{held}: {size / 2**20:,.1f} MiB in all, more than the limit of {limit / 2**20:,.1f} MiB; {way}"
        )


def answer_log_probability(model: HookedModel, encoded: Encoded) -> Tensor:
    """The answer's log-probability, with its graph where gradients are on.

    Raises:
        InputError: If the logits are not numbers.
    """
    ids = torch.tensor(encoded.answer_ids[0], device=model.device)
    kept = last_logits(model.model, len(ids) + 1, encoded.columns)
    logits = model.model(**encoded.inputs, use_cache=False, logits_to_keep=kept).logits[0, -len(ids) - 1 : -1]
    if torch.isnan(logits).any():
        raise InputError("the logits are not numbers, so no probability can be explained")
    log_probability: Tensor = logits.float().log_softmax(-1).gather(1, ids[:, None]).sum()
    return log_probability


class _Capture(ModuleListener):
    """Hears every attention call, and adds a zero to each output projection's input whose gradient is asked for."""

    def __init__(self, model: nn.Module, limit_bytes: int) -> None:
        self._modules = attention_modules(model)
        super().__init__(self._modules.values())
        self.layers = list(self._modules)
        self.shifts: dict[int, Tensor] = {}
        self._limit, self._places, self._stack = limit_bytes, Places(), ExitStack()
        self._attention: dict[int, npt.NDArray[np.float32]] = {}
        self._values: dict[int, Tensor] = {}
        self._given: dict[int, Tensor] = {}
        self._projections: dict[int, nn.Linear] = {}

    def __enter__(self) -> Self:
        listen(self)
        for layer, module in self._modules.items():
            self._projections[layer] = projection = output_projection(module)
            handle = projection.register_forward_pre_hook(self._shift(layer))
            self._stack.callback(handle.remove)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()
        unlisten(self)
        if kind is None:
            require_called(self._modules, self._places)

    def _shift(self, layer: int) -> Any:
        def hook(_: nn.Module, given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            self._given[layer] = given[0].detach()
            self.shifts[layer] = torch.zeros_like(given[0], requires_grad=True)
            return (given[0] + self.shifts[layer], *given[1:])

        return hook

    @torch.no_grad()
    def hear(self, call: AttentionCall) -> None:
        """Keep the call's softmax rows, all of them, and its values."""
        if call.is_cross:
            raise call.refuse("it attends to image features, and instruments read columns of the prompt", "use trace")
        place = self._places.place(call)
        self._refuse_large(call)
        tokens = call.query.shape[2]
        rows = torch.arange(tokens, device=call.query.device)[None]
        each = torch.eye(tokens, device=call.query.device)[None]
        self._attention[call.layer] = _array(column_masses(call, place, rows, each, per_head=True).columns[0])
        self._values[call.layer] = call.value[0].detach()

    def _refuse_large(self, call: AttentionCall) -> None:
        heads, tokens = call.query.shape[1:3]
        size = 4 * len(self._modules) * heads * tokens * call.key.shape[2]
        refuse_large(
            f"the instruments hold the attention of all {len(self._modules)} layers and {heads} heads, {tokens:,} x "
            f"{call.key.shape[2]:,} tokens each",
            size,
            self._limit,
            "give fewer or smaller images, raise the limit, or use the factor of `trace`, which holds chosen rows only",
        )

    def outputs(self, layer: int, gradient: Tensor) -> HeadOutputs:
        """What a layer's heads did.

        Raises:
            UnsupportedAttention: If attention times values is not what the output projection was given.
        """
        attention, weight = self._attention[layer], _array(self._projections[layer].weight)
        heads, size = attention.shape[0], self._values[layer].shape[-1]
        values = _array(self._values[layer])
        self._check(layer, attention, values)
        by_head = _array(gradient[0]).reshape(-1, heads, size).transpose(1, 0, 2)
        return HeadOutputs(attention, values, weight.reshape(-1, heads, size), by_head)

    def _check(self, layer: int, attention: npt.NDArray[np.float32], values: npt.NDArray[np.float32]) -> None:
        given = _array(self._given[layer][0])
        spread = np.repeat(values, len(attention) // len(values), axis=0)
        made = (attention @ spread).transpose(1, 0, 2).reshape(len(given), -1)
        slack = 1e-3 if self._given[layer].dtype == torch.float32 else 3e-2
        if made.shape != given.shape or np.abs(made - given).max() > slack * max(1e-6, np.abs(given).max()):
            raise _refusal(
                self._modules[layer],
                layer,
                "its output projection is given something else than attention times values (a gate, or a norm)",
            )


def output_projection(module: nn.Module) -> nn.Linear:
    """The map from an attention's heads back to the residual stream.

    Raises:
        UnsupportedAttention: If there is none, or several.
    """
    found = [getattr(module, name, None) for name in _PROJECTIONS]
    linear = [each for each in found if isinstance(each, nn.Linear)]
    if len(linear) != 1:
        layer = int(module.layer_idx)  # type: ignore[arg-type]
        raise _refusal(module, layer, f"it has {len(linear)} linear maps among {', '.join(_PROJECTIONS)}")
    return linear[0]


def _refusal(module: nn.Module, layer: int, reason: str) -> InputError:
    return refusal(module, layer, reason, "use the factor of `trace`, which needs no values and gradients")


class _Residuals:
    """Keeps what each decoder layer leaves in the residual stream, whatever kind of layer it is."""

    def __init__(self, decoder: nn.Module) -> None:
        layers = getattr(decoder, "layers", None)
        if not isinstance(layers, nn.ModuleList):
            raise InputError(f"{type(decoder).__name__} keeps its layers under another name than `layers`")
        self._layers, self._stack = layers, ExitStack()
        self.streams: list[Tensor] = []

    def __enter__(self) -> Self:
        for layer in self._layers:
            handle = layer.register_forward_hook(self._keep)
            self._stack.callback(handle.remove)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _keep(self, _: nn.Module, __: Any, output: Any) -> None:
        stream = (output[0] if isinstance(output, tuple) else output).detach()
        if stream.dim() != 3:
            raise InputError(
                f"its layers leave a residual stream of shape {tuple(stream.shape)}, and the instruments read one of "
                "(batch, tokens, hidden size): use the factor of `trace`, which needs none"
            )
        self.streams.append(stream)


def _array(values: Tensor) -> npt.NDArray[Any]:
    plain = values.detach().cpu()
    return np.asarray((plain.float() if plain.is_floating_point() else plain).numpy())
