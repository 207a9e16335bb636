"""What an answer loses when the model goes without an expert: the causal check beside load and specialisation.

Knows questions and answers, and nothing of how experts are taken away.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from probes.encoding import Answer, Encoded
from probes.experts.knockout import ExpertKnockout
from probes.inputs import InputError
from probes.model import HookedModel
from probes.prompts import Question

TokenChoice = Literal["all", "images", "text"]
SHARED = "shared"
"""In an expert's place: the shared experts of the layer."""


def expert_effects(
    model: HookedModel,
    question: Question,
    answer: Answer,
    experts: Sequence[tuple[int, int | str]],
    tokens: TokenChoice = "all",
    renormalize: bool = False,
) -> npt.NDArray[np.float64]:
    """Drop in the answer's log-probability when tokens go without each expert in turn.

    Args:
        model: The model.
        question: Images and text.
        answer: Text, or the token ids of a trace.
        experts: (layer, expert) each, true indices; "shared" in an expert's place stands for the layer's shared ones.
        tokens: Which go without: "all", those of "images" (and videos), or "text" (the template and the answer too).
        renormalize: See `ExpertKnockout`.

    Returns:
        (experts,) nats, positive where the expert spoke for the answer; 0 for one that none of the tokens goes to.

    Raises:
        InputError: If the answer has no tokens, no experts are named, one is none, `tokens` is unknown, or the model
            cannot take the question.
        UnsupportedRouting: If a router is not known.
    """
    if not experts:
        raise InputError("name the experts to do without, as (layer, expert) or (layer, 'shared')")
    encoded = model.encode([question], [answer])
    if not encoded.answer_ids[0]:
        raise InputError("the answer is empty, so no expert can change its probability")
    chosen = chosen_tokens(encoded, tokens)
    baseline = model.score(encoded).log_probability[0]
    effects = []
    for layer, expert in experts:
        routed = {} if expert == SHARED else {layer: [_number(expert)]}
        shared = [layer] if expert == SHARED else []
        with ExpertKnockout(model.model, chosen, routed, shared, renormalize):
            effects.append(baseline - model.score(encoded).log_probability[0])
    return np.array(effects, dtype=np.float64)


def chosen_tokens(encoded: Encoded, tokens: TokenChoice) -> Tensor:
    """Bool (batch, tokens) of an encoded batch: all tokens but padding, those of images and videos, or the others.

    Raises:
        InputError: If `tokens` is none of these, or the model's images are no tokens of its prompt.
    """
    if tokens not in ("all", "images", "text"):
        raise InputError(f"unknown tokens {tokens!r}: there are all, images, text")
    real: Tensor = encoded.inputs["attention_mask"].bool().cpu()
    if tokens == "all":
        return real
    encoded.need_image_tokens(f"tokens={tokens!r}")
    of_images = torch.zeros_like(real)
    for row, spans in enumerate(encoded.spans):
        for span in spans:
            for start, stop in span.runs:
                of_images[row, start:stop] = True
    return of_images if tokens == "images" else real & ~of_images


def _number(expert: int | str) -> int:
    if isinstance(expert, str):
        raise InputError(f"unknown expert {expert!r}: give its number, or 'shared'")
    return int(expert)
