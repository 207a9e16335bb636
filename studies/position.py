"""The position study: the same question with its target image at every place, distractors in fixed order.

Pure: records in, records out. It knows nothing of models or files. A bias of place shows as a spread of accuracy
over places; the study sets the spread of answer accuracy beside the spread of attention accuracy (a reconstruction:
the paper on implicit visual misunderstanding claims the second is smaller, and no released script measures it).
"""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from probes.inputs import IMAGE_MARK
from studies.multi_image import MultiImageQuestion
from studies.references import asks_which, bare_number, may_name, named_numbers, renumber, set_number, why_unclear
from studies.scoring import answer_choice

SEPARATOR = "@"
"""Between a sample's id and the 1-based place of its target in the id of a moved sample."""


class Moved(NamedTuple):
    """Records of a position study, and why the other records were left out."""

    records: list[MultiImageQuestion]
    left_out: dict[str, str]


def position_study(records: Iterable[MultiImageQuestion]) -> Moved:
    """Put every record's target at every place it can take.

    Returns:
        Moved records, `places(record)` of them for each movable record, with `base` set to the original's cluster;
        and the reason for each record that cannot be moved.
    """
    moved: list[MultiImageQuestion] = []
    left_out: dict[str, str] = {}
    for record in records:
        reason = why_fixed(record)
        if reason is None:
            moved += [at_position(record, place) for place in range(places(record))]
        else:
            left_out[record.id] = reason
    return Moved(moved, left_out)


def places(record: MultiImageQuestion) -> int:
    """How many places the target can take: all, except the last in image-to-image tasks, where the anchor stands."""
    return len(record.images) - int(is_anchored(record))


def is_anchored(record: MultiImageQuestion) -> bool:
    """Whether the last image is the query image of an image-to-image task, not a candidate."""
    return record.task.lower() in ("retrieval", "gpr1200") or bool(record.meta.get("last_fixed"))


def blinded_rows(record: MultiImageQuestion) -> tuple[str, ...]:
    """The row sets that a knock-out blinds to an image: those behind the images, and an anchor's own rows, by way of
    which an image-to-image answer may come from an image.
    """
    return ("after", "anchor") if is_anchored(record) else ("after",)


def why_fixed(record: MultiImageQuestion) -> str | None:
    """Why the target of a record cannot be moved; None if it can."""
    if record.target is None:
        return "no target image"
    if not 0 <= record.target < places(record):
        return f"target {record.target + 1} is not among the {places(record)} candidate images"
    if places(record) < 2:
        return "only one place to take"
    if "question_template" in record.meta:
        return None
    anchored = is_anchored(record)
    # Moves permute the candidates, and so leave "images 1 to 4" as it is where these are all of them.
    whole = {places(record), len(record.images)}
    texts = (record.question, record.answer, *record.choices)
    reasons = (why_unclear(text, len(record.images), whole, anchored) for text in texts)
    return next((reason for reason in reasons if reason is not None), None) or _why_answer(record)


def _why_answer(record: MultiImageQuestion) -> str | None:
    """Why it is not clear what a bare answer such as "2" means: an image, a count, a digit in the picture."""
    assert record.target is not None
    number, answer = record.target + 1, record.answer
    if record.choices:
        option = answer_choice(record, answer)
        answer = answer if option is None else record.choices[option]
    only_target, which = named_numbers(record.question) == {number}, asks_which(record.question)
    if only_target and not which:
        return None
    if which and not only_target and not record.choices and bare_number(answer) is not None:
        return None if bare_number(answer) == number else "the answer is the number of another image than the target"
    return "the answer may or may not be the number of the target image" if may_name(answer, number) else None


def at_position(record: MultiImageQuestion, place: int) -> MultiImageQuestion:
    """Move the target to `place`; distractors keep their order, and references to images by number follow them.

    "image 3" and "images 1, 2 and 3" in question, answer and choices are renumbered, and an answer that is the
    target's bare number where the question asks which image. Where a bare answer may or may not name the target, or a
    text refers to images by words, letters or order, `why_fixed` gives the reason. Texts in `meta` under
    `question_template` and `answer_template`, with `{position}` for the target's 1-based number, take precedence; a
    template without image marks follows the marks of the question.

    Args:
        record: A record for which `why_fixed` gives None.
        place: 0-based new place of the target.

    Raises:
        ValueError: If the record cannot be moved, or not there.
    """
    reason = why_fixed(record)
    if reason is not None or record.target is None:
        raise ValueError(f"sample {record.id!r} cannot be moved: {reason}")
    if not 0 <= place < places(record):
        raise ValueError(f"sample {record.id!r} has places 0 to {places(record) - 1}, not {place}")
    order = moved_order(len(record.images), record.target, place)
    new_number = {old + 1: new + 1 for new, old in enumerate(order)}
    question, answer = _texts(record, place, new_number)
    return dataclasses.replace(
        record,
        id=f"{record.id}{SEPARATOR}{place + 1}",
        base=record.base or record.id,
        images=tuple(record.images[old] for old in order),
        target=place,
        question=question,
        answer=answer,
        choices=tuple(renumber(choice, new_number) for choice in record.choices),
    )


def moved_order(count: int, target: int, place: int) -> list[int]:
    """Old indices in their new order.

    >>> moved_order(4, target=0, place=2)
    [1, 2, 0, 3]
    """
    order = [index for index in range(count) if index != target]
    order.insert(place, target)
    return order


def _texts(record: MultiImageQuestion, place: int, new_number: dict[int, int]) -> tuple[str, str]:
    assert record.target is not None
    question = renumber(record.question, new_number)
    answer = renumber(record.answer, new_number)
    if bare_number(answer) == record.target + 1 and asks_which(record.question) and not record.choices:
        answer = set_number(answer, place + 1)
    if "question_template" in record.meta:
        question = _fill(record.meta["question_template"], place)
        if IMAGE_MARK in record.question and IMAGE_MARK not in question:
            marks, mark, _ = record.question.rpartition(IMAGE_MARK)
            question = f"{marks}{mark} {question}"
        answer = _fill(record.meta.get("answer_template", record.answer), place)
    return question, answer


def _fill(template: object, place: int) -> str:
    return str(template).replace("{position}", str(place + 1))


def by_place(ids: Sequence[str]) -> list[int]:
    """The 0-based places in the ids of moved samples.

    >>> by_place(["a@1", "b@x@3"])
    [0, 2]
    """
    return [int(name.rpartition(SEPARATOR)[2]) - 1 for name in ids]


def base_of(name: str) -> str:
    """The base sample of a moved one, by its id.

    >>> base_of("a@x@3")
    'a@x'
    """
    return name.rpartition(SEPARATOR)[0]
