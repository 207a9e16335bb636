"""Multimodal RewardBench: ``all_data.json``, as its authors' script builds it, or a hub mirror of it. No torch."""

from probes.inputs import InputError
from probes.reading.rows import Row, shown, text
from probes.reading.sources import RawRow
from rewardmodels.readers.parts import needed_images, question, row_id, two
from rewardmodels.records import REPORTED, Preference

WHY = "rows with Output1, Output2 and Better"
MISPAIRED = "prompts and answers of visitbench items are reported to be mispaired (multimodal_rewardbench issue 8)"
_RANKS = {"Output1": (0, 1), "Output2": (1, 0)}


def matches(row: Row) -> bool:
    """Return whether a row has the columns of this format."""
    return {"Output1", "Output2", "Better"} <= row.keys()


def group_of(category: str, name: str) -> str:
    """Return the group of an item, with the parts of safety and reasoning that the released scoring tells apart.

    >>> group_of("safety", "PAIRS_3"), group_of("reasoning", "EMMA-Coding_1"), group_of("vqa", "x")
    ('safety/bias', 'reasoning/coding', 'vqa')
    """
    if category == "safety":
        return "safety/bias" if name.lower().startswith("pairs") else "safety/toxicity"
    if category == "reasoning":
        return "reasoning/math" if name.lower().startswith("math") else "reasoning/coding"
    return category


def read(raw: RawRow) -> Preference:
    """Read one row. An item of visitbench is kept, and marked as reported to be mispaired.

    Raises:
        InputError: a value is missing or of the wrong type, the image does not exist, or neither output is better.
    """
    row = raw.values
    if "Text" not in row:
        raise InputError("Text is missing: the release file has no prompts; run its authors' script, which adds them")
    better = text(row, "Better")
    if better not in _RANKS:
        raise InputError(f"Better is {shown(better)}, and must be Output1 or Output2")
    name = row_id(raw, "ID")
    return Preference(
        id=name,
        prompt=question(text(row, "Text"), needed_images(row, raw.root, "Image")),
        responses=two(text(row, "Output1"), text(row, "Output2")),
        ranks=_RANKS[better],
        group=group_of(text(row, "Category", ""), name),
        source="Multimodal RewardBench",
        meta={REPORTED: [MISPAIRED]} if name.lower().startswith("visitbench") else {},
    )
