"""Values out of a raw row, each with the type it must have: whatever else is there is named in an ``InputError``.

Knows no format. No torch.
"""

import ast
import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from probes.inputs import InputError

Row = Mapping[str, Any]
_LETTER = re.compile(r"[A-Z]")


def text(row: Row, key: str, default: str | None = None) -> str:
    """Return a text; whole and decimal numbers count as their text.

    Raises:
        InputError: it is missing and has no default, is of another type, or is not valid Unicode.

    >>> text({"answer": 3}, "answer")
    '3'
    """
    value = row.get(key)
    if value is None:
        if default is None:
            raise InputError(f"{key} is missing")
        return default
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return str(value)
    if not isinstance(value, str):
        raise InputError(f"{key} must be text, not {shown(value)}")
    return valid(value, key)


def valid(value: str, key: str) -> str:
    """Return a text that can be written as UTF-8.

    Raises:
        InputError: it holds half of a surrogate pair.
    """
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise InputError(f"{key} is not valid Unicode: {error.reason}") from error
    return value


def integer(row: Row, key: str) -> int | None:
    """Return a whole number, or None where there is none.

    Raises:
        InputError: it is something else than a whole number.

    >>> integer({"target_id": "2"}, "target_id"), integer({"target_id": 2.0}, "target_id")
    (2, 2)
    """
    value = row.get(key)
    if value is None or value == "":
        return None
    if isinstance(value, str) and re.fullmatch(r"\s*[+-]?[0-9]{1,18}\s*", value):
        return int(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, float) and value.is_integer():
        return int(value)
    raise InputError(f"{key} must be a whole number, not {shown(value)}")


def items(row: Row, key: str) -> list[Any]:
    """Return a list; a text that spells a JSON or Python list counts as one. Missing: an empty list.

    Raises:
        InputError: it is something else than a list.

    >>> items({"options": "['cat', 'dog']"}, "options")
    ['cat', 'dog']
    """
    value = row.get(key)
    if value is None or value == "":
        return []
    if isinstance(value, str):
        value = _spelled(value)
    if isinstance(value, Sequence) and not isinstance(value, str | bytes | bytearray | memoryview):
        return list(value)
    raise InputError(f"{key} must be a list, not {shown(row.get(key))}")


def texts(row: Row, key: str) -> tuple[str, ...]:
    """Return a list of texts.

    Raises:
        InputError: it is no list, or holds something else than texts and numbers.
    """
    values = items(row, key)
    return tuple(text({f"{key}[{place}]": value}, f"{key}[{place}]") for place, value in enumerate(values))


def mapping(row: Row, key: str) -> dict[str, Any]:
    """Return a mapping with text keys; missing: an empty one.

    Raises:
        InputError: it is something else than a mapping.
    """
    value = row.get(key)
    if value is None:
        return {}
    if not isinstance(value, Mapping) or not all(isinstance(name, str) for name in value):
        raise InputError(f"{key} must be a mapping, not {shown(value)}")
    return dict(value)


def number(row: Row, key: str) -> float | None:
    """Return a finite number, or None where there is none; a text that spells one counts.

    Raises:
        InputError: it is something else than a finite number.

    >>> number({"margin": "0.5"}, "margin"), number({}, "margin")
    (0.5, None)
    """
    value = row.get(key)
    if value is None or value == "":
        return None
    try:
        found = math.nan if isinstance(value, bool) or not isinstance(value, int | float | str) else float(value)
    except (ValueError, OverflowError):
        found = math.nan
    if not math.isfinite(found):
        raise InputError(f"{key} must be a finite number, not {shown(value)}")
    return found


def boxes(row: Row, key: str) -> tuple[tuple[float, float, float, float], ...]:
    """Return a list of boxes, each left, top, right, bottom.

    Raises:
        InputError: it is no list, or one of them is not four numbers.
    """
    return tuple(_box(box, key) for box in items(row, key))


def _box(value: object, key: str) -> tuple[float, float, float, float]:
    edges = items({key: value}, key)
    if len(edges) != 4 or not all(isinstance(edge, int | float) and not isinstance(edge, bool) for edge in edges):
        raise InputError(f"the box {edges!r:.60} is not four numbers: left, top, right, bottom")
    try:
        left, top, right, bottom = (float(edge) for edge in edges)
    except OverflowError as error:
        raise InputError("a box has an edge that is too large for a number of pixels") from error
    return left, top, right, bottom


def lettered(question: str, options: Sequence[str]) -> str:
    """Return a question with its options below it, one a line, as ``(A) text``.

    >>> print(lettered("Which?", ["cat", "dog"]))
    Which?
    (A) cat
    (B) dog
    """
    return "\n".join([question, *(f"({letter(place)}) {option}" for place, option in enumerate(options))])


def letter(place: int) -> str:
    """Return the letters of an option, from 0: A to Z, then AA to ZZ."""
    return chr(65 + place) if place < 26 else chr(64 + place // 26) + chr(65 + place % 26)


def letter_columns(row: Row) -> tuple[str, ...]:
    """Return the options that a row holds in columns A, B, C, …, up to the first that is missing or empty.

    Raises:
        InputError: an option is missing between two others, or is not text.
    """
    filled = {key: text(row, key) for key in row if _LETTER.fullmatch(str(key)) and row[key] not in (None, "")}
    options = [filled[letter(place)] for place in range(len(filled)) if letter(place) in filled]
    if len(options) != len(filled):
        raise InputError(f"the options are {', '.join(sorted(filled))}: one between them is missing")
    return tuple(options)


def _spelled(value: str) -> Any:
    for read in (json.loads, ast.literal_eval):
        try:
            return read(value)
        except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
            continue
    return value


def shown(value: Any) -> str:
    """Return how messages show a value of any kind: its start, and its type."""
    kind = type(value).__name__
    try:
        spelled = repr(value)
    except (RecursionError, ValueError):
        return kind
    return f"{spelled if len(spelled) <= 40 else spelled[:39] + '…'} ({kind})"
