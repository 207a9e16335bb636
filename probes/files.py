"""Files that are whole or absent: writes through a temporary name and a rename, and digests.

Knows nothing of what is in the files. No torch.
"""

import hashlib
import io
import json
import math
import os
import secrets
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from probes.inputs import InputError

TEMPORARY = ".tmp-"


def now() -> str:
    """Return the time as ISO 8601 in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let ``write`` fill a temporary file next to ``path``, then rename it: the name appears with its content."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{TEMPORARY}{os.getpid()}-{secrets.token_hex(4)}-{path.name}")
    try:
        write(temporary)
        _flush(temporary)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _flush(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def write_bytes(path: Path, content: bytes) -> None:
    """Write a whole file or none of it."""
    write_atomically(path, lambda temporary: temporary.write_bytes(content))


def write_arrays(path: Path, arrays: Mapping[str, Any]) -> None:
    """Write named arrays as a compressed .npz, whole or not at all."""
    import numpy as np

    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    write_bytes(path, buffer.getvalue())


def write_json(path: Path, content: Any) -> None:
    """Write indented JSON, whole or not at all.

    Raises:
        InputError: the content holds something that JSON cannot say, NaN included.
    """
    try:
        text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise InputError(f"{path.name} cannot be written as JSON: {error}") from error
    write_bytes(path, f"{text}\n".encode())


def without_nan(value: Any) -> Any:
    """Return a value with null for every number that JSON cannot say, at any depth.

    >>> without_nan({"value": float("nan"), "range": (0.5, float("inf"))})
    {'value': None, 'range': [0.5, None]}
    """
    if isinstance(value, Mapping):
        return {key: without_nan(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def read_json(path: Path) -> Any:
    """Read JSON.

    Raises:
        InputError: the file is missing, or is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(f"{path} does not exist") from error
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read as JSON: {error}") from error


def clean_temporaries(folder: Path) -> int:
    """Delete what killed writers left half-written directly in ``folder``; returns how many files went."""
    leftovers = list(folder.glob(f"{TEMPORARY}*"))
    for path in leftovers:
        path.unlink(missing_ok=True)
    return len(leftovers)


def digest_of_file(path: Path) -> str:
    """Return the SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_of_folder(path: str | Path) -> str:
    """Return one SHA-256 for a file, or for a folder's relative names and contents; hidden names are left out.

    Moving or touching a folder keeps its digest; changing, renaming, adding or removing a file changes it.
    Links to files are followed, so a hub cache's snapshot counts as the files it stands for.

    Raises:
        InputError: there is nothing at that path, or the folder holds no file.
    """
    root = Path(path)
    if root.is_file():
        return digest_of_file(root)
    if not root.is_dir():
        raise InputError(f"{root} does not exist: there is nothing to take a digest of")
    files = sorted(
        (found.relative_to(root).as_posix(), found)
        for found in root.rglob("*")
        if found.is_file() and not any(part.startswith(".") for part in found.relative_to(root).parts)
    )
    if not files:
        raise InputError(f"{root} holds no file: there is nothing to take a digest of")
    total = hashlib.sha256()
    for name, file in files:
        total.update(f"{len(name.encode())}:{name}:{digest_of_file(file)}\n".encode())
    return total.hexdigest()
