"""Images of tables in which a row may name another that holds them, as in VLMEvalKit's TSV files. No torch."""

from collections.abc import Iterable, Mapping
from typing import Any

from probes.inputs import ImageRef, InputError
from probes.reading.images import find_images
from probes.reading.rows import Row, items
from probes.reading.sources import RawRow

_LONGEST_REFERENCE = 64
"""An ``image`` that is no longer than this is the index of the row that holds it."""


def by_index(rows: Iterable[RawRow]) -> dict[str, Row]:
    """Return the values of rows by their column ``index``."""
    return {str(raw.values.get("index")): raw.values for raw in rows}


def table_images(raw: RawRow, indexed: Mapping[str, Row]) -> tuple[ImageRef, ...]:
    """Find the images of a row: encoded, one or a list, under ``image``, or paths under ``image_path``.

    Args:
        raw: the row.
        indexed: all rows by their index, for rows that name another one instead of holding an image.

    Raises:
        InputError: an image is missing, or the row that is named holds none.
    """
    encoded = raw.values.get("image")
    if encoded in (None, ""):
        return find_images(_listed(raw.values, "image_path"), raw.root)
    if isinstance(encoded, str) and len(encoded) <= _LONGEST_REFERENCE and not encoded.startswith("["):
        other = indexed.get(encoded.strip())
        if other is None or len(str(other.get("image"))) <= _LONGEST_REFERENCE:
            raise InputError(f"the image is that of row {encoded!r}, which holds none")
        return find_images(_listed(other, "image"), raw.root)
    return find_images(_listed(raw.values, "image"), raw.root)


def _listed(row: Row, key: str) -> list[Any]:
    value = row.get(key)
    if isinstance(value, str) and not value.lstrip().startswith("["):
        return [value] if value else []
    return items(row, key)
