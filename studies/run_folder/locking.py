"""The lock of a folder's one writer, or of a group of them, and what a killed one may leave.

Knows nothing of what is in the folder. No torch.
"""

import os
import socket
from pathlib import Path

from filelock import FileLock, Timeout

from probes.files import TEMPORARY, now, read_json, write_json
from probes.inputs import InputError

_LOCK, _NOTE = ".lock", ".writer"


def is_leftover(name: str) -> bool:
    """Whether a writer killed before its first file may leave a file of this name.

    >>> [is_leftover(name) for name in (".lock", ".lock-1", ".writer-1.json", ".tmp-7-a", "notes.txt")]
    [True, True, True, True, False]
    """
    return name.startswith((f"{_LOCK}-", f"{_NOTE}-", TEMPORARY)) or name in (_LOCK, f"{_NOTE}.json")


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
