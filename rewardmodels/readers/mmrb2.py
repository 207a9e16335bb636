"""Multimodal RewardBench 2: pairs of interleaved answers, with images in them, in one JSON file a task. No torch."""

from typing import Any

from probes.inputs import ImageRef, InputError, Turn
from probes.reading.rows import Row, items, mapping, shown, text
from probes.reading.sources import RawRow
from rewardmodels.readers.parts import interleaved, row_id
from rewardmodels.records import Preference, Response

WHY = "rows with response_a and response_b, each with response_content, and chosen A or B"
_RANKS = {"A": (0, 1), "B": (1, 0)}


def matches(row: Row) -> bool:
    """Return whether a row has the keys of one pair."""
    return {"response_a", "response_b"} <= row.keys()


def read(raw: RawRow) -> Preference:
    """Read one pair; the task, which the file is named after, is its group.

    Raises:
        InputError: a value is missing or of the wrong type, an image does not exist, neither answer is chosen, or the
            file is the one without prompts.
    """
    row = raw.values
    if not row.get("prompt_content"):
        raise InputError("prompt_content is missing: build the benchmark first, its authors' script adds the prompts")
    better = text(row, "chosen", "") or text(row, "human_preference", "")
    if better not in _RANKS:
        raise InputError(f"chosen is {shown(better)}, and must be A or B")
    words, images = _interleaved(row, "prompt_content", raw)
    return Preference(
        id=row_id(raw, "pair_id", "id"),
        prompt=(Turn("user", words, images),),
        responses=(_response(row, "response_a", raw), _response(row, "response_b", raw)),
        ranks=_RANKS[better],
        group=raw.source.removesuffix("_response_only"),
        source="MMRB2",
        meta={"prompt_source": text(row, "prompt_source", "")},
    )


def _response(row: Row, key: str, raw: RawRow) -> Response:
    given = mapping(row, key)
    model = text(given, "model", "") or text(given, "model_name", "")
    return Response(*_interleaved(given, "response_content", raw), model=model)


def _interleaved(row: Row, key: str, raw: RawRow) -> tuple[str, tuple[ImageRef, ...]]:
    return interleaved([_block(value, key) for value in items(row, key)], raw.root)


def _block(value: Any, key: str) -> tuple[str, Any]:
    if not isinstance(value, list | tuple) or len(value) != 2:
        raise InputError(f"{key} must be a list of kind and content, and has {shown(value)}")
    return str(value[0]), value[1]
