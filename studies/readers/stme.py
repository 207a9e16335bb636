"""STME and MileBench: one target image per question, or MileBench's own annotation files. No torch.

Fields as in the Implicit visual misunderstanding paper's released code (``merged_result_*.json``) and in MileBench's.
"""

import re

from probes.inputs import InputError
from probes.reading.images import find_images
from probes.reading.rows import Row, integer, items, letter, mapping, text, texts
from probes.reading.sources import RawRow
from studies.questions import IMAGE_MARK, MultiImageQuestion, Scoring

WHY = "rows with dataset_name, sample_id, context, raw_img_list and response"
WHY_RAW = "rows with sample_id, task_instance and response"

_SLOT = re.compile(r"<ImageHere>|\{(?:image|table)#\d+\}")
_CHOICES = re.compile(r"\nChoice list:\s*\n(?P<options>.*?)(?:\nYour answer is:\s*)?\Z", re.DOTALL)
_LETTER = re.compile(r"\A(?P<letter>[A-Z])\. ")


def matches(row: Row) -> bool:
    """Return whether a row has the keys of the merged STME file."""
    return {"sample_id", "context", "raw_img_list", "response"} <= row.keys()


def matches_raw(row: Row) -> bool:
    """Return whether a row has the keys of a MileBench annotation."""
    return {"sample_id", "task_instance", "response"} <= row.keys()


def read(raw: RawRow) -> MultiImageQuestion:
    """Read one row of the merged file: image slots become marks, and ``target_id`` (from 1) becomes a target from 0.

    The options are taken from the context's "Choice list". Caption matching (data set "CM") is scored by image
    number, needles by the words of the answer, all else by choice where there are options and else exactly.

    Raises:
        InputError: a value is missing or of the wrong type, the target is out of range, or an image does not exist.
    """
    row = raw.values
    dataset = text(row, "dataset_name", raw.source)
    context = _SLOT.sub(IMAGE_MARK, text(row, "context"))
    choices = _listed(context)
    target = integer(row, "target_id")
    if target is not None and target < 1:
        raise InputError(f"target_id counts from 1 and is {target}")
    return MultiImageQuestion(
        id=f"{dataset}-{text(row, 'sample_id')}",
        question=context,
        images=find_images(items(row, "raw_img_list"), raw.root),
        answer=text(row, "response"),
        target=None if target is None else target - 1,
        task=dataset,
        split=raw.split or "test",
        choices=choices,
        scoring=_scoring(dataset, choices),
    )


def read_raw(raw: RawRow) -> MultiImageQuestion:
    """Read one MileBench annotation: the instruction, the context and its lettered options become the question.

    MileBench names no target image.

    Raises:
        InputError: a value is missing or of the wrong type, or an image does not exist.
    """
    row, meta = raw.values, mapping(raw.shared, "meta_data")
    instance = mapping(row, "task_instance")
    dataset = text(meta, "dataset", raw.source)
    choices = texts(instance, "choice_list")
    question = f"{_instruction(meta, row)}{text(instance, 'context')}"
    if choices:
        # The options of GPR1200 outnumber the letters and are listed without them, as its authors do.
        shown = [option if dataset == "GPR1200" else f"{letter(i)}. {option}" for i, option in enumerate(choices)]
        question = "\n".join([question, "Choice list:", *shown])
    return MultiImageQuestion(
        id=f"{dataset}-{text(row, 'sample_id')}",
        question=_SLOT.sub(IMAGE_MARK, question),
        images=find_images(items(instance, "images_path"), raw.root),
        answer=text(row, "response"),
        task=dataset,
        split=text(meta, "split", raw.split or "test"),
        choices=choices,
        scoring=_scoring(dataset, choices),
    )


def _scoring(dataset: str, choices: tuple[str, ...]) -> Scoring:
    if dataset == "CM":
        return "caption"
    if "Needle" in dataset:
        return "contains"
    return "choice" if choices else "exact"


def _listed(context: str) -> tuple[str, ...]:
    found = _CHOICES.search(context)
    if not found:
        return ()
    lines = [line for line in found["options"].split("\n") if line.strip()]
    letters = [match["letter"] for line in lines if (match := _LETTER.match(line))]
    if letters and letters == [letter(place) for place in range(len(lines))]:
        return tuple(_LETTER.sub("", line).strip() for line in lines)
    return tuple(line.strip() for line in lines)


def _instruction(meta: Row, row: Row) -> str:
    instructions, place = items(meta, "task_instruction"), integer(row, "task_instruction_id")
    if place is None or not instructions:
        return ""
    if not 0 <= place < len(instructions):
        raise InputError(f"task_instruction_id is {place}, and there are {len(instructions)} instructions")
    return text({"task_instruction": instructions[place]}, "task_instruction") + "\n"
