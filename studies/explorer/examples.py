"""The examples of the Look view: a few test questions of a benchmark, one per task, images read when clicked.

Knows the question records and nothing of models; small thumbnails only are made at start.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from PIL import Image

from probes.inputs import ImageRef, InputError
from studies.explorer.looking import plain_question
from studies.explorer.shown import data_address

_THUMBNAIL = 40
_PER_TASK = 2
_MOST = 8


@dataclass(frozen=True)
class Example:
    """A question ready to click."""

    question: str
    images: tuple[ImageRef, ...]
    task: str
    gold: str
    target: int | None


def read_examples(benchmark: Path, most: int = _MOST) -> list[Example]:
    """Choose examples from a benchmark: the same number from each task, from its test split where it has one.

    Args:
        benchmark: Folder or file that `studies.multi_image.read_questions` reads; one that is absent has none.
        most: How many examples there are at most.

    Raises:
        InputError: If the benchmark is there and cannot be read.
    """
    if not benchmark.exists():
        return []
    from studies.multi_image import read_questions

    records = read_questions(str(benchmark)).records
    pool = [record for record in records if record.split == "test"] or list(records)
    by_task: dict[str, list[Example]] = {}
    for record in pool:
        held = by_task.setdefault(record.task, [])
        if len(held) < _PER_TASK:
            question = plain_question(record.question, len(record.images))
            held.append(Example(question, tuple(record.images), record.task, record.answer, record.target))
    turns = range(max(map(len, by_task.values()), default=0))
    return [held[turn] for turn in turns for held in by_task.values() if turn < len(held)][:most]


def example_card(example: Example, behind: str = "") -> str:
    """Thumbnails and the question with what is said behind it, as HTML; texts are escaped."""
    thumbnails = "".join(f'<img alt="" src="{data_address(_thumbnail(ref), "WEBP")}">' for ref in example.images[:4])
    more = f" +{len(example.images) - 4}" if len(example.images) > 4 else ""
    label = f"<b>{escape(example.task)}</b> · " if example.task else ""
    return (
        f'<div class="sc-example"><div class="sc-thumbs">{thumbnails}</div>'
        f"<span>{more} {label}{escape(example.question + behind)}</span></div>"
    )


def _thumbnail(ref: ImageRef) -> Image.Image:
    try:
        image = ref.open()
    except InputError:
        return Image.new("RGB", (_THUMBNAIL, _THUMBNAIL), (200, 200, 200))
    image.thumbnail((_THUMBNAIL, _THUMBNAIL))
    return image


def images_of(examples: Sequence[Example], index: int) -> list[Image.Image]:
    """Open the images of one example.

    Raises:
        InputError: If there is no such example, or an image is broken.
    """
    if not 0 <= index < len(examples):
        raise InputError(f"There is no example {index + 1}.")
    return [ref.open() for ref in examples[index].images]
