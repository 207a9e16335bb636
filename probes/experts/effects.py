"""What an answer loses when the model goes without experts: the causal check beside load and specialisation.

Knows questions and answers, and nothing of how experts are taken away.
"""

from collections.abc import Collection, Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from probes.encoding import Answer, Encoded
from probes.experts.knockout import ExpertKnockout
from probes.experts.layers import expert_layers
from probes.inputs import InputError
from probes.interventions import baseline_score, chunks
from probes.model import HookedModel
from probes.prompts import Question
from probes.spans import ImageSpan

TokenChoice = Literal["all", "images", "text"]
SHARED = "shared"
"""In an expert's place: the shared experts of the layer."""


def expert_effects(
    model: HookedModel,
    question: Question,
    answer: Answer,
    experts: Sequence[tuple[int, int | str]],
    tokens: TokenChoice | int = "all",
    renormalize: bool = False,
) -> npt.NDArray[np.float64]:
    """Drop in the answer's log-probability when tokens go without each expert in turn.

    Args:
        model: The model.
        question: Images and text.
        answer: Text, or the token ids of a trace.
        experts: (layer, expert) each, true indices; "shared" in an expert's place stands for the layer's shared ones.
        tokens: Which go without: "all", those of "images" (and videos), "text" (the template and the answer too), or
            those of one image, by its 0-based number, videos behind images.
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


def expert_knockout_effects(
    model: HookedModel,
    question: Question,
    answer: Answer,
    windows: Sequence[Collection[int]] | None = None,
    batch_size: int = 16,
) -> npt.NDArray[np.float64]:
    """Drop in the answer's log-probability when one image's (or one video's) tokens go without any experts.

    `probes.interventions.knockout_effects` for layers with experts: routed and shared ones are taken away from the
    image's own tokens, and text keeps its experts. A layer behind the last that mixes tokens has no effect: what its
    experts do to an image's tokens reaches no other.

    Args:
        model: The model.
        question: Images and text.
        answer: Text, or the token ids of a trace.
        windows: Sets of true layer indices, one per row of the result; None is a single window of all layers with
            experts.
        batch_size: Most images in one forward pass.

    Returns:
        (windows, images) nats, positive where the experts made the image speak for the answer.

    Raises:
        InputError: If the answer has no tokens, a window has no layer or one without experts, or the model cannot take
            the question.
        UnsupportedRouting: If a router is not known.
    """
    mixtures = expert_layers(model.model)
    chosen = [sorted(set(window)) for window in ([list(mixtures)] if windows is None else windows)]
    if not chosen or not all(chosen):
        raise InputError(f"each window needs at least one layer; the layers with experts are {list(mixtures)}")
    missing = sorted({layer for window in chosen for layer in window} - set(mixtures))
    if missing:
        raise InputError(f"layers {missing} have no experts; the layers with experts are {list(mixtures)}")
    baseline = baseline_score(model, question, answer)
    count = len(model.encode([question], [answer]).spans[0])
    effects = np.zeros((len(chosen), count))
    for images in chunks(count, batch_size):
        encoded = model.encode([question] * len(images), [answer] * len(images))
        tokens = torch.stack([chosen_tokens(encoded, image)[row] for row, image in enumerate(images)])
        for window, layers in enumerate(chosen):
            routed = {layer: range(mixtures[layer].count) for layer in layers}
            shared = [layer for layer in layers if mixtures[layer].shared]
            with ExpertKnockout(model.model, tokens, routed, shared):
                effects[window, images] = baseline - model.score(encoded).log_probability
    return effects


def chosen_tokens(encoded: Encoded, tokens: TokenChoice | int) -> Tensor:
    """Bool (batch, tokens) of an encoded batch: all tokens but padding, those of images and videos, the others, or
    those of one image or video by its number.

    Raises:
        InputError: If `tokens` is none of these, or the model's images are no tokens of its prompt.
    """
    real: Tensor = encoded.inputs["attention_mask"].bool().cpu()
    if tokens == "all":
        return real
    if tokens not in ("images", "text") and isinstance(tokens, (str, bool)):
        raise InputError(f"unknown tokens {tokens!r}: there are all, images, text, or an image's number")
    encoded.need_image_tokens(f"tokens={tokens!r}")
    of_images = torch.zeros_like(real)
    for row, spans in enumerate(encoded.spans):
        for span in spans if isinstance(tokens, str) else [_numbered(spans, int(tokens))]:
            for start, stop in span.runs:
                of_images[row, start:stop] = True
    return real & ~of_images if tokens == "text" else of_images


def _numbered(spans: Sequence[ImageSpan], image: int) -> ImageSpan:
    if not 0 <= image < len(spans):
        there = f"its images are 0 to {len(spans) - 1}" if spans else "it has none"
        raise InputError(f"the question has no image {image}: {there}, videos behind images")
    return spans[image]


def _number(expert: int | str) -> int:
    if isinstance(expert, str):
        raise InputError(f"unknown expert {expert!r}: give its number, or 'shared'")
    return int(expert)
