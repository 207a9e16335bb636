"""RLHF-V and RLAIF-V: a question about one image and two answers, in columns or inside ``text``. No torch."""

from collections.abc import Mapping

from probes.inputs import InputError
from probes.reading.rows import Row, text
from probes.reading.sources import RawRow, parse_json
from rewardmodels.readers.parts import BETTER_AND_WORSE, needed_images, question, row_id, two
from rewardmodels.records import Preference

WHY = "rows with image, and a text that holds question, chosen and rejected; or these as columns and ds_name RLHF-V"
WHY_RLAIF = "rows with image, question, chosen and rejected, and another ds_name or none"
_ANSWERED = {"question", "chosen", "rejected"}
_IMAGE = {"image", "image_path"}


def matches(row: Row) -> bool:
    """Return whether a row is RLHF-V's, in any of its three forms."""
    if not _IMAGE & row.keys():
        return False
    return _is_flat(row) and _is_named(row) if _ANSWERED & row.keys() else "text" in row and _is_nested(row["text"])


def matches_rlaif(row: Row) -> bool:
    """Return whether a row has RLAIF-V's columns, and does not say that it is RLHF-V's."""
    return bool(_IMAGE & row.keys()) and _is_flat(row) and not _is_named(row)


def read(raw: RawRow) -> Preference:
    """Read one row of either data set; rows about one image share their base.

    Raises:
        InputError: a value is missing or of the wrong type, or the image does not exist.
    """
    row = raw.values
    answered = row if _ANSWERED & row.keys() else _nested(row)
    return Preference(
        id=row_id(raw, "idx", "id"),
        prompt=question(text(answered, "question"), needed_images(row, raw.root, "image", "image_path")),
        responses=two(text(answered, "chosen"), text(answered, "rejected")),
        ranks=BETTER_AND_WORSE,
        group=text(row, "origin_dataset", ""),
        source=text(row, "ds_name", "") or raw.source,
        base=text(row, "image_path", "") or None,
    )


def _is_flat(row: Row) -> bool:
    return all(isinstance(row.get(key), str) for key in _ANSWERED)


def _is_named(row: Row) -> bool:
    return str(row.get("ds_name")).upper().startswith("RLHF")


def _is_nested(value: object) -> bool:
    return isinstance(value, Mapping) or (isinstance(value, str) and value.lstrip().startswith("{"))


def _nested(row: Row) -> Row:
    value = row.get("text")
    if isinstance(value, str):
        value = parse_json(value)
    if not isinstance(value, Mapping):
        raise InputError(f"text must hold question, chosen and rejected, and holds a {type(value).__name__}")
    return value
