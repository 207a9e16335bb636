"""What changes in an answer's probability when the model loses an image: the causal check beside attention.

Each image in turn is replaced (by a neutral one, or by another sample's) or hidden (attention from chosen rows, such as
the text behind it, to its span is knocked out), the same answer is scored again, and the effect is the drop in its
log-probability. An effect is positive where the image spoke for the answer. Videos can be hidden, and are not replaced.
Nothing here reads attention or compares it with effects.
"""

from collections.abc import Callable, Collection, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from probes.attention_columns import runs_of
from probes.backend import AnswerScores, Backend
from probes.changes import Knockout
from probes.encoding import Answer, Encoded, row_sets
from probes.inputs import ImageRef, InputError, same_picture
from probes.prompts import Question

NEUTRALS = ("gray", "white", "mean")
"""What an image can be blanked with: mid gray, white, or the image's own mean colour."""

_GRAY, _WHITE = (128, 128, 128), (255, 255, 255)

FloatArray = npt.NDArray[np.float64]


def blank_effects(
    model: Backend, question: Question, answer: Answer, neutral: str = "gray", batch_size: int = 16
) -> FloatArray:
    """Drop in the answer's log-probability when each image in turn is replaced by a neutral one of its size.

    Args:
        model: The model: `probes.HookedModel`, or another back end.
        question: Images and text.
        answer: Text, or the token ids of a trace.
        neutral: "gray", "white" or "mean".
        batch_size: Most variants in one forward pass.

    Returns:
        (images,) nats, positive where the image spoke for the answer; NaN for an image that is the neutral one itself,
        because nothing is taken away from it.

    Raises:
        InputError: If the neutral is unknown, the answer has no tokens, or the model cannot take the question.
    """
    images = decoded(question)
    replacements = [blanked(each, neutral) for each in images]
    effects = _replacement_effects(model, question, images, replacements, answer, batch_size)
    effects[unchanged(images, replacements)] = np.nan
    return effects


def swap_effects(
    model: Backend, question: Question, answer: Answer, others: Sequence[Any], batch_size: int = 16
) -> FloatArray:
    """Drop in the answer's log-probability when each image in turn is replaced by one of another sample.

    Args:
        model: The model: `probes.HookedModel`, or another back end.
        question: Images and text.
        answer: Text, or the token ids of a trace.
        others: Images of another sample, in any form that ImageRef.of takes; image i is replaced by `others[i]`,
            counted round if there are fewer, and resized so that the number of tokens stays.
        batch_size: Most variants in one forward pass.

    Returns:
        (images,) nats, positive where the image spoke for the answer.

    Raises:
        InputError: If there are no others, one cannot be read or shows just what it would replace, the answer has no
            tokens, or the model cannot take the question.
    """
    images = decoded(question)
    return _replacement_effects(model, question, images, swapped(images, others), answer, batch_size)


def knockout_effects(
    model: Backend,
    question: Question,
    answer: Answer,
    windows: Sequence[Collection[int]] | None = None,
    rows: str | Sequence[str] = "after",
    batch_size: int = 16,
) -> FloatArray:
    """Drop in the answer's log-probability when the query rows cannot see one image's (or one video's) tokens.

    Only the blinded rows' own way is cut: what other tokens, such as text between images, have taken from the hidden
    image still reaches the answer, and so does what layers without attention carry (as the linear ones of Qwen3.5).

    Args:
        model: The model: `probes.HookedModel`, or another back end.
        question: Images and text.
        answer: Text, or the token ids of a trace.
        windows: Sets of true layer indices in which attention is cut, one set per row of the result; None is a single
            window of all attention layers. See `layer_windows`.
        rows: Which rows are blinded, one row set or several; "after" is all behind the last image, the template's tail
            included (with "paper" rows alone, the tail would still see the image). See `probes.encoding.row_sets`. An
            image's own tokens keep seeing it.
        batch_size: Most images in one forward pass.

    Returns:
        (windows, images) nats, positive where the image spoke for the answer; NaN for an image that none of the rows
        could be blinded to, as for the last image with "anchor" rows alone. Videos stand behind images, as in traces.

    Raises:
        InputError: If a window is empty or names a layer without attention, the rows are none, unknown or "anchor" of a
            single image, the answer has no tokens, or the model cannot take the question.
        UnsupportedAttention: If a layer's attention cannot be reached.
    """

    def scored(
        encoded: Encoded, blinded: Tensor, hidden: Sequence[Sequence[Any]], layers: tuple[int, ...]
    ) -> AnswerScores:
        return model.score(encoded, [Knockout(blinded, hidden, layers)])

    return cut_effects(model, question, answer, model.layers, windows, rows, batch_size, scored)


def cut_effects(
    model: Backend,
    question: Question,
    answer: Answer,
    every: Sequence[int],
    windows: Sequence[Collection[int]] | None,
    rows: str | Sequence[str],
    batch_size: int,
    scored: Callable[[Encoded, Tensor, Sequence[Sequence[Any]], tuple[int, ...]], AnswerScores],
) -> FloatArray:
    """`knockout_effects` with a cut of the caller's.

    Args:
        model: As there.
        question: As there.
        answer: As there.
        every: The layers of a single window where `windows` is None.
        windows: As there.
        rows: As there.
        batch_size: As there.
        scored: Scores an encoded batch with blinded rows, bool (batch, tokens), cut off from columns, per batch row, in
            layers.

    Returns:
        As there.

    Raises:
        InputError: As there.
    """
    chosen = [sorted(set(window)) for window in ([every] if windows is None else windows)]
    if not chosen or not all(chosen):
        raise InputError(f"each window needs at least one layer; this model's are {list(every)}")
    names = [rows] if isinstance(rows, str) else list(rows)
    if not names:
        raise InputError("a knock-out needs at least one row set: see probes.encoding.row_sets")
    baseline = baseline_score(model, question, answer)
    blinded = _blinded(model.encode([question], [answer]), names)
    effects = np.full((len(chosen), len(blinded)), np.nan)
    able = blinded.any(1).nonzero().flatten().tolist()
    for places in chunks(len(able), batch_size):
        images = [able[place] for place in places]
        encoded = model.encode([question] * len(images), [answer] * len(images))
        hidden = [[encoded.spans[row][image]] for row, image in enumerate(images)]
        for window, layers in enumerate(chosen):
            scores = scored(encoded, blinded[images], hidden, tuple(layers))
            effects[window, images] = baseline - scores.log_probability
    return effects


def knocked_out(encoded: Encoded, rows: str, images: Sequence[int]) -> Knockout:
    """In each batch row one image hidden from a row set, in every layer; the image's own rows keep seeing it."""
    encoded.need_image_tokens("a knock-out of an image")
    blinded = row_sets(encoded, [rows])[rows].clone()
    hidden = [[encoded.spans[row][image]] for row, image in enumerate(images)]
    for row, (span,) in enumerate(hidden):
        for start, stop in runs_of(span):
            blinded[row, start:stop] = False
    return Knockout(blinded, hidden)


def _blinded(encoded: Encoded, rows: Sequence[str]) -> Tensor:
    """(images, tokens) of one question: the rows of any of the sets, without each image's own tokens."""
    encoded.need_image_tokens("a knock-out of an image")
    chosen = torch.stack(list(row_sets(encoded, rows).values())).any(0)[0]
    blinded = chosen.repeat(len(encoded.spans[0]), 1)
    for image, span in enumerate(encoded.spans[0]):
        for start, stop in runs_of(span):
            blinded[image, start:stop] = False
    return blinded


def layer_windows(layers: Sequence[int], size: int) -> list[tuple[int, ...]]:
    """Cut layers into neighbouring windows of `size`, the last one shorter if they do not divide.

    >>> layer_windows([0, 1, 2, 3, 4], 2)
    [(0, 1), (2, 3), (4,)]
    """
    if size < 1:
        raise InputError(f"a window has at least one layer, and {size} are asked for")
    return [tuple(layers[start : start + size]) for start in range(0, len(layers), size)]


def _replacement_effects(
    model: Backend,
    question: Question,
    images: Sequence[Image.Image],
    replacements: Sequence[Image.Image],
    answer: Answer,
    batch_size: int,
) -> FloatArray:
    variants = replaced_one_by_one(question, images, replacements)
    baseline = baseline_score(model, question, answer)
    scored = [
        model.log_probability([variants[place] for place in places], [answer] * len(places)).log_probability
        for places in chunks(len(variants), batch_size)
    ]
    return baseline - np.concatenate(scored)


def replaced_one_by_one(
    question: Question, images: Sequence[Image.Image], replacements: Sequence[Image.Image]
) -> list[Question]:
    """One question per image, with that image replaced."""
    return [
        Question([*images[:place], replacement, *images[place + 1 :]], question.text, question.videos)
        for place, replacement in enumerate(replacements)
    ]


def baseline_score(model: Backend, question: Question, answer: Answer) -> float:
    """The answer's log-probability as things are.

    Raises:
        InputError: If the answer has no tokens.
    """
    scores = model.log_probability([question], [answer])
    if not scores.tokens[0]:
        raise InputError("the answer is empty, so no intervention can change its probability")
    return float(scores.log_probability[0])


def decoded(question: Question) -> list[Image.Image]:
    """The question's images.

    Raises:
        InputError: If it has none, or one cannot be read.
    """
    if not question.images:
        raise InputError("the question has no image to replace: videos can be hidden, by knockout_effects")
    return [ImageRef.of(image).open() for image in question.images]


def blanked(image: Image.Image, neutral: str = "gray") -> Image.Image:
    """A neutral image of the same size.

    Raises:
        InputError: If the neutral is none of `NEUTRALS`.
    """
    if neutral not in NEUTRALS:
        raise InputError(f"unknown neutral {neutral!r}: there are {', '.join(NEUTRALS)}")
    if neutral == "mean":
        mean = np.asarray(image, dtype=np.float64).reshape(-1, 3).mean(axis=0).round().astype(int)
        return Image.new("RGB", image.size, (int(mean[0]), int(mean[1]), int(mean[2])))
    return Image.new("RGB", image.size, _GRAY if neutral == "gray" else _WHITE)


def unchanged(images: Sequence[Image.Image], replacements: Sequence[Image.Image]) -> list[int]:
    """Places of the images whose replacement shows the same, so that its effect says nothing of the image."""
    pairs = zip(images, replacements, strict=True)
    return [place for place, (old, new) in enumerate(pairs) if same_picture(old, new)]


def swapped(images: Sequence[Image.Image], others: Sequence[Any]) -> list[Image.Image]:
    """For each image one of another sample, resized so that the number of tokens stays; see `swap_effects`.

    Raises:
        InputError: If there are no others, one cannot be read, or it shows just what it would replace.
    """
    if not others:
        raise InputError("swapping needs at least one image of another sample, and none is given")
    chosen = [ImageRef.of(others[place % len(others)]).open() for place in range(len(images))]
    replacements = [new.resize(old.size) for old, new in zip(images, chosen, strict=True)]
    for place in unchanged(images, replacements):
        raise InputError(f"image {place + 1} would be swapped for one that shows the same; give another in its place")
    return replacements


def chunks(count: int, size: int) -> list[list[int]]:
    """Cut 0 to count - 1 into lists of at most `size`.

    >>> chunks(3, 2)
    [[0, 1], [2]]
    """
    if size < 1:
        raise InputError(f"batch_size must be at least 1, and is {size}")
    return [list(range(start, min(start + size, count))) for start in range(0, count, size)]
