"""Takes chosen tokens' values out of chosen rows of a layer without softmax, and scores the answer without them.

The twin of `probes.knockout` for hidden attention. Knows rows and columns of tokens; `mixer_knockout_effects` and
`joint_knockout_effects` alone know of images and answers.
"""

from collections.abc import Collection, Sequence
from contextlib import AbstractContextManager, nullcontext
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor, nn

from probes.attention_rows import pad_rows
from probes.backend import AnswerScores
from probes.changes import Knockout
from probes.encoding import Answer, Encoded
from probes.inputs import InputError
from probes.interventions import FloatArray, cut_effects
from probes.knockout import hidden_runs
from probes.mixers.contributions import image_part
from probes.mixers.hooks import MixerCall, MixerHooks
from probes.mixers.modules import mixer_modules
from probes.model import HookedModel
from probes.prompts import Question


class MixerKnockout:
    """While it is entered, chosen rows of chosen mixers do without what chosen tokens' values add to their scans.

    The layer runs as ever; what the tokens add, by the rows' hidden attention, is then taken out of the scan's output
    before gate and norm. Nothing is renormalised, as hidden attention has no fixed sum. Keys stay: what a delta net's
    tokens take back from the state is as it was. One forward without a cache.

    Args:
        model: A transformers model, or its decoder.
        rows: Bool (batch, tokens): rows that are blinded.
        columns: Per batch row the (start, stop) tokens they do without; entries may also be spans with `.runs`.
        layers: True indices of the layers concerned; None is every layer with a mixer.
        strength: How much is taken out: 1 is all, and less fades it.

    Raises:
        InputError: For layers without a mixer, columns that do not fit, or where nothing would be taken out.
        UnsupportedAttention: As `probes.mixers.hooks.MixerHooks`.
    """

    def __init__(
        self,
        model: nn.Module,
        rows: Tensor,
        columns: Sequence[Sequence[Any]],
        layers: Collection[int] | None = None,
        strength: float = 1.0,
    ) -> None:
        hidden = hidden_runs(rows, columns)
        self._tokens = torch.zeros(rows.shape, dtype=torch.bool)
        for index, runs in enumerate(hidden):
            for start, stop in runs:
                if stop > rows.shape[1]:
                    raise InputError(
                        f"knock-out columns of batch row {index} end at {stop}, past {rows.shape[1]} tokens"
                    )
                self._tokens[index, start:stop] = True
        if not (rows.cpu().any(1) & self._tokens.any(1)).any():
            raise InputError("the knock-out does nothing: no batch row has both rows to blind and columns to hide")
        self._rows, valid = pad_rows(rows.cpu())
        # A filler repeats a row that is blinded anyway, or blinds nothing where there is none.
        last = self._rows.gather(1, (valid.sum(1, keepdim=True) - 1).clamp(min=0))
        self._rows = torch.where(valid, self._rows, last)
        self._tokens &= valid.any(1)[:, None]
        self._strength, self._shape = strength, tuple(rows.shape)
        self._taken: dict[int, Tensor] = {}
        self._hooks = MixerHooks(mixer_modules(model, layers), self._measure, self._take_out, changes=True)

    def __enter__(self) -> Self:
        self._hooks.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._hooks.__exit__(kind, error, trace)

    @torch.no_grad()
    def _measure(self, call: MixerCall) -> None:
        scan = call.scan()
        if tuple(scan.values.shape[:2]) != self._shape:
            raise InputError(
                f"the knock-out is for {self._shape[0]} sequences of {self._shape[1]} tokens, the model runs "
                f"{tuple(scan.values.shape[:2])}: give rows of the whole prompt, and no beams"
            )
        taken = self._strength * image_part(scan, self._rows, self._tokens)
        if call.reader.output(call.module)[1]:
            taken = taken * scan.gates(self._rows).transpose(1, 2)
        self._taken[call.layer] = taken

    @torch.no_grad()
    def _take_out(self, call: MixerCall, output: Tensor) -> Tensor:
        taken = self._taken.pop(call.layer)
        by_token = output.reshape(*self._shape, -1).float().clone()
        batch = torch.arange(len(by_token), device=by_token.device)[:, None]
        rows = self._rows.to(by_token.device)
        by_token[batch, rows] = by_token[batch, rows] - taken.flatten(2)
        return by_token.reshape(output.shape)


def mixer_knockout_effects(
    model: HookedModel,
    question: Question,
    answer: Answer,
    windows: Sequence[Collection[int]] | None = None,
    rows: str | Sequence[str] = "after",
    batch_size: int = 16,
) -> FloatArray:
    """Drop in the answer's log-probability when mixers' query rows do without one image's (or one video's) values.

    `probes.interventions.knockout_effects` for layers without softmax: only the blinded rows' own way is cut.

    Args:
        model: The model.
        question: Images and text.
        answer: Text, or the token ids of a trace.
        windows: Sets of true layer indices, one per row of the result; None is a single window of all mixers.
        rows: Which rows are blinded; see `probes.encoding.row_sets`.
        batch_size: Most images in one forward pass.

    Returns:
        (windows, images) nats, positive where the image spoke for the answer; NaN for an image that none of the rows
        could be blinded to.

    Raises:
        InputError: As `knockout_effects`.
        UnsupportedAttention: As `MixerKnockout`.
    """
    every = list(mixer_modules(model.model))

    def scored(
        encoded: Encoded, blinded: Tensor, hidden: Sequence[Sequence[Any]], layers: tuple[int, ...]
    ) -> AnswerScores:
        with MixerKnockout(model.model, blinded, hidden, layers):
            return model.score(encoded)

    return cut_effects(model, question, answer, every, windows, rows, batch_size, scored)


def joint_knockout_effects(
    model: HookedModel,
    question: Question,
    answer: Answer,
    windows: Sequence[Collection[int]] | None = None,
    rows: str | Sequence[str] = "after",
    batch_size: int = 16,
) -> FloatArray:
    """Drop in the answer's log-probability when softmax attention and mixers do without one image at once.

    `probes.interventions.knockout_effects` and `mixer_knockout_effects` in the same forward: in a hybrid, either alone
    leaves the image the other way. What other tokens have taken from it still reaches the answer; so does what a
    mixer's convolution carries to the first tokens behind the image, and how much its tokens make a state forget.

    Args:
        model: The model.
        question: Images and text.
        answer: Text, or the token ids of a trace.
        windows: Sets of true layer indices, one per row of the result; in each of their layers attention is cut,
            mixers, or both, as the layer has them. None is a single window of all layers with either.
        rows: Which rows are blinded; see `probes.encoding.row_sets`.
        batch_size: Most images in one forward pass.

    Returns:
        (windows, images) nats, positive where the image spoke for the answer; NaN for an image that none of the rows
        could be blinded to.

    Raises:
        InputError: As `knockout_effects`; for a window that names a layer with neither attention nor a mixer.
        UnsupportedAttention: As `MixerKnockout` and `probes.knockout.AttentionKnockout`; for a model without mixers.
    """
    mixers = set(mixer_modules(model.model))
    every = sorted(mixers | set(model.layers))
    for window in windows or ():
        odd = sorted(set(window) - set(every))
        if odd:
            raise InputError(f"layers {odd} mix no tokens; those with attention or a mixer are {every}")

    def scored(
        encoded: Encoded, blinded: Tensor, hidden: Sequence[Sequence[Any]], layers: tuple[int, ...]
    ) -> AnswerScores:
        mixing = [layer for layer in layers if layer in mixers]
        seeing = tuple(layer for layer in layers if layer in model.layers)
        cut: AbstractContextManager[Any] = (
            MixerKnockout(model.model, blinded, hidden, mixing) if mixing else nullcontext()
        )
        with cut:
            return model.score(encoded, [Knockout(blinded, hidden, seeing)] if seeing else [])

    return cut_effects(model, question, answer, every, windows, rows, batch_size, scored)
