"""Two answers to one prompt become scores, once: as it is, with other images or none, and as an answer gets longer.

Knows the reward model's public interface and nothing of the page.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from probes.inputs import ImageRef, InputError, Turn
from probes.scores import focus
from rewardmodels.edits import HEDGES, hedged, padded
from rewardmodels.records import Response
from rewardmodels.views import blanked, with_images_of, without_images
from studies.explorer.looking import LAST, RULE, map_of, picture_of
from studies.explorer.shown import Shown

if TYPE_CHECKING:
    from rewardmodels.model import Comparison, RewardModel

AS_IS, BLANK, SHUFFLED, ALONE = "As it is", "Images blank", "Other pictures", "Text alone"
SIDES = ("scoring-a", "scoring-b")
"""Row sets of the two answers' scoring tokens; see `studies.explorer.shown.ROW_NAMES`."""
LONGEST_ANSWER = 4000
MOST_SENTENCES = 12
Padding = Literal["sentences", "hedges"]
FloatArray = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class ViewScores:
    """Both answers' scores under one view of the images.

    Attributes:
        view: `AS_IS`, `BLANK`, `SHUFFLED` or `ALONE`.
        comparison: What the model gives; None where it cannot be asked so.
        why_not: The reason then.
        pictures: The pictures shown instead, where they are other ones.
    """

    view: str
    comparison: "Comparison | None"
    why_not: str = ""
    pictures: tuple[Image.Image, ...] = ()


@dataclass(frozen=True)
class Judged:
    """A prompt with two answers and their scores, kept for the length of a session.

    Attributes:
        prompt: The user's turn with its images.
        answers: The two answers.
        views: Scores under each view, `AS_IS` first.
        shown: Images, factors and maps of both scoring tokens; None where they cannot be read.
        why_not_shown: The reason then.
    """

    prompt: tuple[Turn, ...]
    answers: tuple[str, str]
    views: tuple[ViewScores, ...]
    shown: Shown | None
    why_not_shown: str = ""

    @property
    def plain(self) -> "Comparison":
        """The scores of the prompt as it is."""
        found = self.views[0].comparison
        assert found is not None
        return found


@dataclass(frozen=True)
class Padded:
    """One answer made longer step by step, the other left as it is.

    Attributes:
        side: The answer that grows: 0 or 1.
        texts: From the answer as it is to the longest.
        tokens: Of each text.
        scores: Of each text, as it is.
        blank: Of each text with blank images; None for a model that reads text only.
        other: Score of the other answer.
        flips: Places in `texts` at which the preference is another than at the start; a tie is one of its own.
    """

    side: int
    texts: tuple[str, ...]
    tokens: tuple[int, ...]
    scores: tuple[float, ...]
    blank: tuple[float, ...] | None
    other: float
    flips: tuple[int, ...]


def answers_of(first: str | None, second: str | None) -> tuple[str, str]:
    """Check two answers.

    Raises:
        InputError: If one is empty or too long, or both say the same.

    >>> answers_of("a cat", " a dog ")
    ('a cat', 'a dog')
    """
    texts = ((first or "").strip(), (second or "").strip())
    for name, text in zip("AB", texts, strict=True):
        if not text:
            raise InputError(f"Answer {name} is empty: write one, or click an example.")
        if len(text) > LONGEST_ANSWER:
            raise InputError(f"Answer {name} has {len(text):,} characters: shorten it to {LONGEST_ANSWER:,}.")
    if Response(texts[0]).said() == Response(texts[1]).said():
        raise InputError("The two answers say the same: change one, or there is nothing to compare.")
    return texts


def judge(
    model: "RewardModel",
    images: Sequence[Image.Image],
    prompt: str,
    answers: tuple[str, str],
    others: Sequence[ImageRef] = (),
    seed: int = 0,
) -> Judged:
    """Score two answers under every view, and record where their scoring tokens look.

    Args:
        model: The reward model.
        images: The prompt's images; none for a model that reads text only.
        prompt: What was asked, with its image marks; see `studies.explorer.looking.prompt_of`.
        answers: See `answers_of`.
        others: Pictures to draw from where other ones are shown.
        seed: Draws them.

    Raises:
        InputError: If the model cannot read the prompt with an answer.
    """
    turns = (Turn("user", prompt, tuple(map(ImageRef.of, images))),)
    views = [ViewScores(AS_IS, model.compare(turns, *answers))]
    if not images:
        return Judged(turns, answers, tuple(views), None, "The prompt has no image to look at.")
    views.append(_view(model, BLANK, blanked(turns), answers))
    drawn = other_pictures(images, others, seed)
    if len(drawn) == len(images):
        shuffled = with_images_of(turns, (Turn("user", "", tuple(map(ImageRef.of, drawn))),))
        views.append(_view(model, SHUFFLED, shuffled, answers, drawn))
    else:
        views.append(ViewScores(SHUFFLED, None, "there are not enough other pictures at hand"))
    views.append(_view(model, ALONE, without_images(turns), answers))
    try:
        shown, why_not = _where(model, turns, images, answers), ""
    except InputError as error:
        shown, why_not = None, f"Where the scoring token looks cannot be read: {error}"
    return Judged(turns, answers, tuple(views), shown, why_not)


def other_pictures(images: Sequence[Image.Image], others: Sequence[ImageRef], seed: int) -> tuple[Image.Image, ...]:
    """Draw as many other pictures as there are images, none of them twice and none that is among the images.

    Returns:
        Fewer than asked for where there are not so many.
    """
    own = {_pixels(image) for image in images}
    found: dict[bytes, Image.Image] = {}
    for place in random.Random(seed).sample(range(len(others)), len(others)):
        opened = others[place].open()
        if _pixels(opened) not in own:
            found.setdefault(_pixels(opened), opened)
        if len(found) == len(images):
            break
    return tuple(found.values())


def pad(model: "RewardModel", judged: Judged, side: int, kind: Padding, most: int) -> Padded:
    """Make one answer longer by words that claim nothing, and score every step.

    Args:
        model: The model that judged.
        judged: The prompt and the answers.
        side: The answer that grows: 0 or 1.
        kind: Filler sentences behind the answer, or hedges around it; see `rewardmodels.edits`.
        most: Sentences or hedges at the longest; of hedges there are so many at most as the list has.

    Raises:
        InputError: If `most` is out of range, or a text is too long for the model.
    """
    limit = MOST_SENTENCES if kind == "sentences" else len(HEDGES)
    if not 1 <= most <= limit:
        raise InputError(f"Give 1 to {limit} {kind}, not {most}.")
    grow = padded if kind == "sentences" else hedged
    answer = judged.answers[side]
    texts = (answer, *(grow(answer, size) for size in range(1, most + 1)))
    scores = tuple(model.get_scores([judged.prompt] * len(texts), list(texts)))
    blank = None
    if judged.prompt[0].images:
        blank = tuple(model.get_scores([blanked(judged.prompt)] * len(texts), list(texts)))
    other = judged.plain[1 - side]
    ahead = np.sign(np.array(scores) - other)
    flips = tuple(int(place) for place in np.flatnonzero(ahead != ahead[0]))
    return Padded(side, texts, tuple(model.count_tokens(texts)), scores, blank, other, flips)


def _view(
    model: "RewardModel",
    view: str,
    turns: tuple[Turn, ...],
    answers: tuple[str, str],
    pictures: tuple[Image.Image, ...] = (),
) -> ViewScores:
    try:
        return ViewScores(view, model.compare(turns, *answers), "", pictures)
    except InputError as error:
        return ViewScores(view, None, str(error))


def _pixels(image: Image.Image) -> bytes:
    return image.convert("RGB").tobytes()


def _where(
    model: "RewardModel", turns: tuple[Turn, ...], images: Sequence[Image.Image], answers: tuple[str, str]
) -> Shown:
    from rewardmodels.looking import scoring_attention

    both = dict(zip(SIDES, scoring_attention(model, [turns, turns], list(answers), maps=True), strict=True))
    first = both[SIDES[0]]
    cells = [span.cells() for span in first.spans]
    last = min(LAST, len(first.layers))
    return Shown(
        pictures=tuple(map(picture_of, cells, images)),
        layers=first.layers,
        factors={side: _with_mean(found.factors) for side, found in both.items()},
        maps={
            side: tuple(_with_mean(map_of(*each)) for each in zip(cells, found.maps, strict=True))
            for side, found in both.items()
        },
        focus={side: focus(found.factors, rule=RULE, last=last) for side, found in both.items()},
        rule=f"{RULE} over the last {last} layers",
        averaged=True,
    )


def _with_mean(rows: FloatArray) -> FloatArray:
    return np.concatenate([rows, rows.mean(axis=0, keepdims=True)])
