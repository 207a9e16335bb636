"""One look: a model, some images and a question become arrays, once; blanking an image traces again.

Knows the model's public interface and nothing of the page.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from probes.errors import counted
from probes.inputs import IMAGE_MARK, ImageRef, InputError
from probes.scores import focus
from studies.explorer.shown import Picture, Shown, painting_order, picture

if TYPE_CHECKING:
    from probes.model import HookedModel, Trace
    from probes.spans import Cell

MAX_IMAGES = 16
MAX_QUESTION = 4000
RULE, LAST = "M-LND", 4
LONGEST, LONGEST_ALLOWED = 32, 512
ROWS = ("paper", "predicting")


@dataclass(frozen=True)
class Looked:
    """A traced question, kept for the length of a session.

    Attributes:
        shown: The arrays that the page draws.
        images: The images as the model got them.
        prompt: The question with its image marks.
        answer: What the model said.
        log_probability: Natural logarithm of the answer's probability, summed over its tokens.
        answer_ids: The answer's tokens.
        longest: Most tokens that the answer could have.
    """

    shown: Shown
    images: tuple[Image.Image, ...]
    prompt: str
    answer: str
    log_probability: float
    answer_ids: tuple[int, ...]
    longest: int


@dataclass(frozen=True)
class Blanked:
    """The same question with one image replaced by a plain grey one of the same size.

    Attributes:
        image: The blanked image, 0-based.
        looked: What the model says now.
        log_probability: Log-probability of the first answer, now.
        drop: How much that answer lost, in nats; NaN for an empty answer.
    """

    image: int
    looked: Looked
    log_probability: float
    drop: float


def prompt_of(question: str, images: int, numbered: bool = True) -> str:
    """Put image marks into a question that has none.

    Args:
        question: What the user asks; may hold `<image>` marks.
        images: How many images there are.
        numbered: Write each image's number before it.

    Raises:
        InputError: If the question is empty or too long, or its marks do not match the images.

    >>> prompt_of("what is in image 2 ?", 2)
    '1 <image> 2 <image> what is in image 2 ?'
    """
    text = question.strip()
    if not text.replace(IMAGE_MARK, "").strip():
        raise InputError("The question is empty: write one, or click an example.")
    if len(text) > MAX_QUESTION:
        raise InputError(f"The question has {len(text):,} characters: shorten it to {MAX_QUESTION:,}.")
    marks = text.count(IMAGE_MARK)
    if marks == 0:
        return f"{image_list(images)} {text}" if numbered else text
    if marks != images:
        raise InputError(
            f"The question has {counted(marks, f'{IMAGE_MARK} mark')} for {counted(images, 'image')}: make them match, "
            "or leave all marks out."
        )
    return text


def image_list(images: int) -> str:
    """Numbered image marks, as they stand before a question.

    >>> image_list(2)
    '1 <image> 2 <image>'
    """
    return " ".join(f"{number} {IMAGE_MARK}" for number in range(1, images + 1))


def plain_question(prompt: str, images: int) -> str:
    """Take the numbered image list off a prompt, where it is exactly that.

    >>> plain_question("1 <image> 2 <image> which is red ?", 2)
    'which is red ?'
    """
    return prompt.removeprefix(image_list(images)).strip()


def open_images(files: Sequence[str] | None) -> tuple[Image.Image, ...]:
    """Open uploaded images.

    Raises:
        InputError: If there are none or too many, or one is broken; the message names it by its place.
    """
    if not files:
        raise InputError("There is no image: add one or more, or click an example.")
    if len(files) > MAX_IMAGES:
        raise InputError(f"{len(files)} images are too many: give at most {MAX_IMAGES}.")
    opened = []
    for number, path in enumerate(files, start=1):
        try:
            opened.append(ImageRef(path=path).open())
        except InputError as error:
            reason = re.sub(r"(?:/[^\s/:]+)+/", "", str(error))
            raise InputError(f"Image {number} cannot be used: {reason}") from error
    return tuple(opened)


def look(model: "HookedModel", images: Sequence[Image.Image], prompt: str, longest: int = LONGEST) -> Looked:
    """Ask a question, and record where the model looks, for both row sets.

    Args:
        model: The model to ask.
        images: What it is shown.
        prompt: The question with its image marks; see `prompt_of`.
        longest: Most tokens of the answer.

    Raises:
        InputError: If the model cannot take the images or the question.
    """
    from probes.model import Question

    questions = [Question(tuple(images), prompt)]
    (trace,) = model.trace_batch(
        questions, max_new_tokens=longest, rows=ROWS, maps=True, image_to_image=len(images) > 1
    )
    return _looked(trace, tuple(images), prompt, longest)


def blank(model: "HookedModel", looked: Looked, image: int) -> Blanked:
    """Replace one image by grey, ask again, and re-score the first answer.

    Args:
        model: The model that answered.
        looked: The first look.
        image: Which image, 0-based.

    Raises:
        InputError: If there is no such image.
    """
    from probes.interventions import blanked
    from probes.model import Question

    if not 0 <= image < len(looked.images):
        raise InputError(f"There is no image {image + 1}: the question has {len(looked.images)}.")
    images = list(looked.images)
    images[image] = blanked(images[image])
    again = look(model, images, looked.prompt, looked.longest)
    before, after = looked.log_probability, float("nan")
    if looked.answer_ids:
        scores, _ = model.log_probability([Question(tuple(images), looked.prompt)], [looked.answer_ids])
        after = float(scores[0])
    return Blanked(image, again, after, before - after)


def picture_of(cells: Sequence["Cell"], image: Image.Image) -> Picture:
    """An image ready for the page, with the place of each of its cells; `map_of` gives scores in the same order."""
    order = painting_order((cell.thumbnail for cell in cells), (cell.kept for cell in cells))
    boxes = [(cell.box.left, cell.box.top, cell.box.right, cell.box.bottom) for cell in cells]
    return picture(image, boxes, order)


def map_of(cells: Sequence["Cell"], scores: NDArray[np.floating[Any]]) -> NDArray[np.floating[Any]]:
    """Scores of cells (layers, cells) from scores of image tokens (layers, tokens), some of which are no cell."""
    return np.asarray(scores)[:, [cell.token for cell in cells]]


def _looked(trace: "Trace", images: tuple[Image.Image, ...], prompt: str, longest: int) -> Looked:
    layers = tuple(trace.layers)
    factors = {rows: np.asarray(values) for rows, values in trace.factors_by_rows.items()}
    last = min(LAST, len(layers))
    shown = Shown(
        pictures=tuple(picture_of(trace.cells(image=index), image) for index, image in enumerate(images)),
        layers=layers,
        factors=factors,
        maps={rows: _maps(trace, rows, len(images)) for rows in factors},
        focus={rows: _focus(values, last) for rows, values in factors.items()},
        rule=f"{RULE} over the last {last} layers",
        pairwise=None if trace.pairwise is None else np.where(trace.pairwise == 0, np.nan, trace.pairwise),
    )
    return Looked(shown, images, prompt, trace.answer, float(trace.log_probability), tuple(trace.answer_ids), longest)


def _focus(factors: NDArray[np.floating[Any]], last: int) -> int | None:
    return focus(factors, rule=RULE, last=last) if np.isfinite(factors).any() else None


def _maps(trace: "Trace", rows: str, images: int) -> tuple[NDArray[np.floating[Any]] | None, ...]:
    held = trace.maps_by_rows[rows]
    return tuple(map_of(trace.cells(image=index), held[index]) for index in range(images))
