"""Our own JSONL: one row a preference, images named relative to the file. No torch."""

from typing import Any

from probes.inputs import InputError, Turn
from probes.reading.images import find_images
from probes.reading.rows import Row, boxes, integer, items, mapping, number, text
from probes.reading.sources import RawRow
from rewardmodels.readers.parts import question
from rewardmodels.records import Preference, Response

WHY = "rows with prompt, responses and ranks"


def matches(row: Row) -> bool:
    """Return whether a row has the keys of this format."""
    return {"prompt", "responses", "ranks"} <= row.keys()


def read(raw: RawRow) -> Preference:
    """Read one row. A prompt may be turns, or a text with the row's own ``images``; a response may be a text.

    Raises:
        InputError: a value is missing or of the wrong type, or an image does not exist.
    """
    row = raw.values
    ranks = {f"ranks[{place}]": rank for place, rank in enumerate(items(row, "ranks"))}
    weight = number(row, "weight")
    return Preference(
        id=text(row, "id"),
        prompt=prompt_of(raw),
        responses=tuple(response_of(response, raw) for response in items(row, "responses")),
        ranks=tuple(_rank(ranks, key) for key in ranks),
        target=integer(row, "target"),
        boxes=boxes(row, "boxes"),
        group=text(row, "group", ""),
        source=text(row, "source", ""),
        base=text(row, "base", "") or None,
        margin=number(row, "margin"),
        weight=1.0 if weight is None else weight,
        meta=mapping(row, "meta"),
    )


def prompt_of(raw: RawRow) -> tuple[Turn, ...]:
    """Return a row's prompt: turns, or a text with the row's own ``images``.

    Raises:
        InputError: It is of another kind, or an image does not exist.
    """
    row = raw.values
    if isinstance(row.get("prompt"), str) and not row["prompt"].lstrip().startswith("["):
        return question(row["prompt"], find_images(items(row, "images"), raw.root))
    if row.get("images"):
        raise InputError("images beside a prompt of turns: give each turn its own")
    return tuple(_turn(turn, raw) for turn in items(row, "prompt"))


def _turn(value: Any, raw: RawRow) -> Turn:
    turn = mapping({"prompt": value}, "prompt")
    return Turn(text(turn, "role"), text(turn, "text", ""), find_images(items(turn, "images"), raw.root))


def response_of(value: Any, raw: RawRow) -> Response:
    """Return one response: a text, or a mapping with ``text``, ``images``, ``model`` and ``score``.

    Raises:
        InputError: It is of another kind or empty, or an image does not exist.
    """
    if isinstance(value, str):
        return Response(value)
    given = mapping({"responses": value}, "responses")
    images = find_images(items(given, "images"), raw.root)
    return Response(text(given, "text", ""), images, text(given, "model", ""), number(given, "score"))


def _rank(ranks: Row, key: str) -> int:
    rank = integer(ranks, key)
    if rank is None:
        raise InputError(f"{key} is missing")
    return rank
