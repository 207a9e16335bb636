"""Reads what each image contributes to an answer through every layer that mixes tokens, softmax or not, and experts.

One forward and one backward pass. Each mixing layer's output at a query row is a sum over tokens' values, weighed by
softmax or hidden attention, and scaled by gate and norm behind it; what the scale came to is taken as fixed, so that
the sum over tokens stays one, and each token's term is multiplied by the gradient of the answer's log-probability at
the layer's output. Experts act on each token alone, so that an image's share is at its own tokens. Taking norms as
fixed follows direct logit attribution (Elhage et al. 2021); one unit for all kinds of layers is ours: a reconstruction.
Dense feed-forward blocks are not read.
"""

from collections.abc import Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Self

import numpy as np
import torch
from torch import Tensor, nn

from probes.attention_calls import AttentionCall, Places, UnsupportedAttention, refusal
from probes.attention_rows import column_masses
from probes.decoder import attention_modules
from probes.encoding import Answer, Encoded, row_sets
from probes.inputs import InputError
from probes.instruments.contribution_experts import ExpertPart, expert_parts
from probes.instruments.contribution_parts import Part, Tap
from probes.instruments.contributions import ATTENTION, Contributions
from probes.instruments.reading import LIMIT_BYTES, answer_log_probability, encoded_answer, refuse_large
from probes.interface import ModuleListener, listen, require_called, unlisten
from probes.mixers.hooks import MixerCall, MixerHooks
from probes.mixers.modules import mixers_if_any
from probes.mixers.readers import reader_of
from probes.model import HookedModel
from probes.prompts import Question

ROWS = ("after", "paper", "predicting", "answer")
"""Row sets whose rows all stand behind every image."""
ORTHOGONAL = 1e-4
"""Share of an output's products with its gradient that is left, in every row, where a norm behind it hides its size."""


def contributions(
    model: HookedModel,
    question: Question,
    answer: Answer,
    rows: str = "after",
    limit_bytes: int = LIMIT_BYTES,
    experts: bool = True,
) -> Contributions:
    """What each image contributes to an answer through each mixing layer, and through each mixture of experts.

    Args:
        model: The model.
        question: Images and text.
        answer: Text, or the token ids of a trace.
        rows: The query rows, of `ROWS`; "after" is what knock-outs blind.
        limit_bytes: Most bytes of softmax attention to hold, rows x tokens for each head and layer.
        experts: Whether mixtures of experts are read, each of their experts once more.

    Returns:
        A `Contributions`, layers in order; softmax attention before another mixer of the same layer, experts last.

    Raises:
        InputError: If the rows are none of `ROWS`, the answer has no tokens, the attention would take more than the
            limit, or the model cannot take the question.
        UnsupportedAttention: If a layer's attention or hidden attention cannot be read, what it gives is not the sum
            that was read, or a norm of its own stands between it and the residual stream (Gemma 3).
        UnsupportedRouting: If a router is not known.
    """
    if rows not in ROWS:
        raise InputError(f"contributions are read of rows behind all images, {', '.join(ROWS)}, and not of {rows!r}")
    encoded = encoded_answer(model, question, answer)
    chosen = row_sets(encoded, [rows])[rows][0].nonzero().flatten()
    if not len(chosen):
        raise InputError(f"row set {rows!r} has no row in this sample")
    parts = _Parts(model.model, chosen.cpu(), limit_bytes, experts)
    with torch.enable_grad(), parts:
        log_probability = answer_log_probability(model, encoded)
        gradients = torch.autograd.grad(log_probability, [tap.zero for tap in parts.taps()])
    return _summed(parts, encoded, rows, gradients, float(log_probability.detach()))


class _Parts(ModuleListener):
    """Listens to every layer that is read, in one forward."""

    def __init__(self, model: nn.Module, rows: Tensor, limit_bytes: int, experts: bool) -> None:
        self._attentions, self._mixers = attention_modules(model), mixers_if_any(model)
        if not self._attentions and not self._mixers:
            raise UnsupportedAttention(f"{type(model).__name__}: no layer mixes tokens in a way that is known")
        self.rows, self._limit, self._places, self._stack = rows, limit_bytes, Places(), ExitStack()
        super().__init__(self._attentions.values())
        self._by_layer = {layer: Part(layer, ATTENTION, module) for layer, module in self._attentions.items()}
        self._hooks = MixerHooks(self._mixers, self._keep_scan, self._tap_scan) if self._mixers else None
        self._mixing = {layer: Part(layer, reader_of(module).kind, module) for layer, module in self._mixers.items()}
        self.experts = expert_parts(model) if experts else []

    @property
    def all(self) -> list[Part | ExpertPart]:
        """In the order of layers."""
        return sorted([*self._by_layer.values(), *self._mixing.values(), *self.experts], key=lambda part: part.layer)

    def taps(self) -> list[Tap]:
        return [tap for part in self.all for tap in part.taps()]

    def __enter__(self) -> Self:
        listen(self)
        self._stack.callback(unlisten, self)
        if self._hooks is not None:
            self._hooks.__enter__()
        for part in self.all:
            for handle in part.hooks():
                self._stack.callback(handle.remove)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()
        if self._hooks is not None:
            self._hooks.__exit__(kind, error, trace)
        if kind is None and self._attentions:
            require_called(self._attentions, self._places)

    @torch.no_grad()
    def hear(self, call: AttentionCall) -> None:
        """Keep the softmax of the query rows, the values, and what the call gave."""
        if call.is_cross:
            raise call.refuse("it attends to image features, and contributions are of the prompt's tokens", "use trace")
        place, part = self._places.place(call), self._by_layer[call.layer]
        heads, keys = call.query.shape[1], call.key.shape[2]
        size = 4 * len(self._attentions) * heads * len(self.rows) * keys
        refuse_large(
            f"contributions hold {len(self.rows):,} rows x {keys:,} tokens for each head",
            size,
            self._limit,
            "give fewer images or rows, or raise the limit",
        )
        rows = self.rows[None].to(call.query.device)
        each = torch.eye(len(self.rows), device=rows.device)[None]
        part.attention = column_masses(call, place, rows, each, per_head=True).columns[0]
        part.values = call.value[0].detach().float()
        assert call.output is not None
        part.mixed = call.output[0].detach().flatten(1)[self.rows].float()
        made = part.attention @ part.values.repeat_interleave(heads // len(part.values), dim=0)
        _check(call, made.transpose(0, 1).flatten(1), part.mixed, call.output.dtype)

    @torch.no_grad()
    def _keep_scan(self, call: MixerCall) -> None:
        part = self._mixing[call.layer]
        part.scan, part.gated = call.scan(), call.reader.output(call.module)[1]

    def _tap_scan(self, call: MixerCall, output: Tensor) -> Tensor | None:
        part = self._mixing[call.layer]
        return None if part.gated else part.scanned.add(output)


def _check(call: AttentionCall, made: Tensor, own: Tensor, dtype: torch.dtype) -> None:
    slack = 1e-3 if dtype == torch.float32 else 3e-2
    if made.shape != own.shape or float((made - own).abs().max()) > slack * max(1e-6, float(own.abs().max())):
        raise call.refuse("what it gives is not attention times values", "use knock-outs, which need no values")


@torch.no_grad()
def _summed(
    parts: _Parts, encoded: Encoded, rows: str, gradients: Sequence[Tensor], log_probability: float
) -> Contributions:
    images = [torch.tensor(list(span.tokens)) for span in encoded.spans[0]]
    left, nats, slopes, totals, errors = iter(gradients), [], [], [], []
    for part in parts.all:
        shares, products, constant = part.shared_out(parts.rows, left)
        nats.append([float(shares.nats[image].double().sum()) for image in images])
        slopes.append([float(shares.slopes[image].double().sum()) for image in images])
        totals.append(float(products.sum()))
        scale = float(products.abs().sum())
        if bool((products.sum(-1).abs() <= ORTHOGONAL * products.abs().sum(-1)).all()) and scale:
            raise refusal(
                part.module,
                part.layer,
                "a norm follows its output on the way to the residual stream, so that output times gradient is nothing",
                "use knock-outs, which need no gradients",
            )
        shared = float(shares.nats.double().sum()) + constant
        errors.append(abs(shared - totals[-1]) / scale if scale else 0.0)
    return Contributions(
        layers=tuple(part.layer for part in parts.all),
        kinds=tuple(part.kind for part in parts.all),
        rows=rows,
        nats=np.asarray(nats),
        slopes=np.asarray(slopes),
        totals=np.asarray(totals),
        errors=np.asarray(errors),
        log_probability=log_probability,
        experts=tuple(part.by_expert(images) for part in parts.experts),
    )
