"""VL-RewardBench: two answers about an image and their human ranking, as Parquet or as VLMEvalKit's TSV. No torch."""

from collections.abc import Mapping

from probes.inputs import InputError, Turn
from probes.reading.references import table_images
from probes.reading.rows import Row, integer, items, text, texts
from probes.reading.sources import RawRow
from rewardmodels.readers.parts import needed_images, question, row_id
from rewardmodels.records import Preference, Response

WHY = "rows with query, response and human_ranking"
WHY_TSV = "rows with index, question, response, answer (a ranking) and image"
_GROUPS = {
    "reasoning": ("mathverse", "mmmu"),
    "hallucination": ("rlhf", "rlaif", "hallucination"),
}
"""Starts of an id, by group; all other ids are of the group general. In the release: 318, 749 and 183 items."""


def matches(row: Row) -> bool:
    """Return whether a row has the columns of the Parquet form."""
    return {"query", "response", "human_ranking"} <= row.keys()


def matches_tsv(row: Row) -> bool:
    """Return whether a row has the columns of the TSV form."""
    return {"index", "question", "response", "answer"} <= row.keys()


def group_of(name: str) -> str:
    """Return the group of an item by its id.

    >>> [group_of(name) for name in ("mathverse_12", "RLAIF-V-3", "wildvision-battle-4")]
    ['reasoning', 'hallucination', 'general']
    """
    known = (group for group, starts in _GROUPS.items() if name.lower().startswith(starts))
    return next(known, "general")


def read(raw: RawRow) -> Preference:
    """Read one row of the Parquet form; rank 0 is the better.

    Raises:
        InputError: a value is missing or of the wrong type, the image does not exist, or the ranking does not fit.
    """
    name, row = row_id(raw, "id"), raw.values
    prompt = question(text(row, "query"), needed_images(row, raw.root, "image"))
    return _record(row, name, prompt, "human_ranking", texts(row, "models"), group_of(name))


def read_tsv(raw: RawRow, indexed: Mapping[str, Row]) -> Preference:
    """Read one row of the TSV form; the ranking is spelled out under ``answer``.

    Args:
        raw: the row.
        indexed: all rows by their index, for rows that name another one instead of holding an image.

    Raises:
        InputError: a value is missing or of the wrong type, the image does not exist, or the ranking does not fit.
    """
    name, row = row_id(raw, "id", "index"), raw.values
    images = table_images(raw, indexed)
    if not images:
        raise InputError("image is missing")
    group = text(row, "category", "") or group_of(name)
    return _record(row, name, question(text(row, "question"), images), "answer", (), group)


def _record(
    row: Row, name: str, prompt: tuple[Turn, ...], ranking: str, models: tuple[str, ...], group: str
) -> Preference:
    responses = texts(row, "response")
    given = {f"{ranking}[{place}]": rank for place, rank in enumerate(items(row, ranking))}
    ranks = tuple(integer(given, key) for key in given)
    if None in ranks:
        raise InputError(f"{ranking} has an empty rank")
    written_by = models if len(models) == len(responses) else ("",) * len(responses)
    return Preference(
        id=name,
        prompt=prompt,
        responses=tuple(Response(words, (), model) for words, model in zip(responses, written_by, strict=True)),
        ranks=tuple(rank for rank in ranks if rank is not None),
        group=group,
        source="VL-RewardBench",
    )
