"""Files that are whole or absent: writes through a temporary name, digests, and the lock of a folder's one writer.

Knows nothing of what is in the files. No torch.
"""

import hashlib
import json
import math
import os
import secrets
import socket
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from probes.inputs import InputError

TEMPORARY = ".tmp-"
_LOCK, _NOTE = ".lock", ".writer"


def is_leftover(name: str) -> bool:
    """Whether a writer killed before its first file may leave a file of this name.

    >>> [is_leftover(name) for name in (".lock", ".lock-1", ".writer-1.json", ".tmp-7-a", "notes.txt")]
    [True, True, True, True, False]
    """
    return name.startswith((f"{_LOCK}-", f"{_NOTE}-", TEMPORARY)) or name in (_LOCK, f"{_NOTE}.json")


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


class WriterLock:
    """The right to write into one folder, held by one process at a time, or by a group of them.

    The operating system's own file lock: it ends with its process, so the lock of a killed writer is free at once.
    A note beside it says who holds it. In a group each process has a lock of its own, and the main one's is granted
    only when no helper of an earlier group still writes.

    Args:
        folder: The folder; it exists.
        helper: Number of a process that helps the main one, from 1; 0 is the main process.

    Raises:
        InputError: another process holds the lock; says which.
    """

    def __init__(self, folder: Path, helper: int = 0) -> None:
        self._folder, self._helper = folder, helper
        suffix = f"-{helper}" if helper else ""
        self._note = folder / f"{_NOTE}{suffix}.json"
        self._lock = FileLock(folder / f"{_LOCK}{suffix}", thread_local=False)
        self._take(self._lock, self._note)
        if not helper:
            try:
                self._refuse_helpers()
            except InputError:
                self._lock.release()
                raise
        write_json(self._note, {"pid": os.getpid(), "host": socket.gethostname(), "since": now()})

    def _take(self, lock: FileLock, note: Path) -> None:
        try:
            lock.acquire(timeout=0)
        except Timeout as error:
            raise InputError(
                f"{self._folder} is being written by {_holder(note)}: wait for it, stop it, or choose another folder"
            ) from error

    def _refuse_helpers(self) -> None:
        for path in self._folder.glob(f"{_LOCK}-*"):
            lock = FileLock(path, thread_local=False)
            note = self._folder / f"{_NOTE}{path.name.removeprefix(_LOCK)}.json"
            self._take(lock, note)
            note.unlink(missing_ok=True)
            path.unlink(missing_ok=True)
            lock.release()

    def release(self) -> None:
        """Give up the right to write. Doing it twice is harmless."""
        if self._lock.is_locked:
            self._note.unlink(missing_ok=True)
            if self._helper:
                (self._folder / f"{_LOCK}-{self._helper}").unlink(missing_ok=True)
            self._lock.release()


def _holder(note: Path) -> str:
    try:
        found = read_json(note)
        return f"process {found['pid']} on {found['host']} since {found['since']}"
    except (InputError, KeyError, TypeError):
        return "another process"
