"""RewardBench, one right and one wrong answer, and RewardBench 2, lists of both. Text only. No torch."""

from probes.reading.rows import Row, text, texts
from probes.reading.sources import RawRow
from rewardmodels.readers.parts import BETTER_AND_WORSE, is_texts, question, row_id
from rewardmodels.records import Preference, Response

WHY = "rows with prompt, subset, and chosen and rejected as texts"
WHY_2 = "rows with prompt, subset, and chosen and rejected as lists"
TIES = "Ties"
"""The subset whose right answers are equally good; an item ``tied:5`` goes with the item ``ref:5``."""


def matches(row: Row) -> bool:
    """Return whether a row has the columns of RewardBench."""
    texts_given = all(isinstance(row.get(key), str) for key in ("prompt", "chosen", "rejected"))
    return texts_given and "subset" in row


def matches_2(row: Row) -> bool:
    """Return whether a row has the columns of RewardBench 2."""
    return {"prompt", "subset"} <= row.keys() and is_texts(row.get("chosen")) and is_texts(row.get("rejected"))


def read(raw: RawRow) -> Preference:
    """Read one item of RewardBench; its subset is its group.

    Raises:
        InputError: a value is missing or of the wrong type.
    """
    row = raw.values
    return Preference(
        id=row_id(raw, "id"),
        prompt=question(text(row, "prompt"), ()),
        responses=(
            Response(text(row, "chosen"), (), text(row, "chosen_model", "")),
            Response(text(row, "rejected"), (), text(row, "rejected_model", "")),
        ),
        ranks=BETTER_AND_WORSE,
        group=text(row, "subset"),
        source="RewardBench",
    )


def read_2(raw: RawRow) -> Preference:
    """Read one item of RewardBench 2: right answers first, in the order of its published scores.

    Items of the subset Ties have several right answers, which tie; with its reference item such an item shares its
    base.

    Raises:
        InputError: a value is missing or of the wrong type.
    """
    row = raw.values
    name, subset = row_id(raw, "id"), text(row, "subset")
    chosen, rejected = texts(row, "chosen"), texts(row, "rejected")
    models = texts(row, "models")
    written_by = models if len(models) == len(chosen) + len(rejected) else ("",) * (len(chosen) + len(rejected))
    return Preference(
        id=name,
        prompt=question(text(row, "prompt"), ()),
        responses=tuple(Response(words, (), model) for words, model in zip(chosen + rejected, written_by, strict=True)),
        ranks=(0,) * len(chosen) + (1,) * len(rejected),
        group=subset,
        source="RewardBench 2",
        base=f"{TIES}:{name.partition(':')[2]}" if subset == TIES and ":" in name else None,
    )
