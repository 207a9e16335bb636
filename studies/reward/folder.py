"""The folder of a training run: what it was started with, its checkpoints and its log, and how it is gone on with.

    OUT/train.json    config, digests, versions, times, what became of the data and, at the end, what was measured
    OUT/log.jsonl     one line a step
    OUT/checkpoints/  checkpoint-N, the newest ones
    OUT/model/        the trained model, merged, with its card; proxy/ beside it where one was trained along

It knows nothing of models. No torch.
"""

import json
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from probes.files import TEMPORARY, now, read_json, without_nan, write_bytes, write_json
from probes.inputs import InputError
from studies.run_folder.locking import WriterLock, is_leftover
from studies.run_folder.manifest import Manifest

if TYPE_CHECKING:
    from studies.auditing.processes import Processes
    from studies.reward.parts import Prepared

RECORD, LOG, CHECKPOINTS, MODEL, PROXY = "train.json", "log.jsonl", "checkpoints", "model", "proxy"
STUDY = "reward train"
_BESIDE = ("data", "results")
"""Keys of `train.json` beside the manifest's."""


def read_record(path: Path) -> tuple[Manifest, dict[str, Any]]:
    """Return the manifest of a training run, and what its record holds beside it.

    Raises:
        InputError: If the folder holds no training run.
    """
    source = path / RECORD
    content = read_json(source)
    beside = {key: content.pop(key, None) for key in _BESIDE} if isinstance(content, dict) else {}
    manifest = Manifest.from_json(content, str(source))
    if manifest.config.get("study") != STUDY:
        raise InputError(f"{source} is no training run's")
    return manifest, beside


def refuse_taken(path: Path, resume: bool, overwrite: bool) -> None:
    """Refuse an --out that cannot be written, before anything is loaded.

    Raises:
        InputError: Naming what is in the way, and the option that fits.
    """
    if path.exists() and not path.is_dir():
        raise InputError(f"--out {path} is a file; give a folder")
    there = (path / RECORD).is_file()
    if resume and not there:
        raise InputError(f"--resume: {path} holds no training to go on with; give its --out, or leave --resume out")
    if there and not (resume or overwrite):
        raise InputError(f"--out {path} holds a training run: give --resume to go on, --overwrite, or another folder")
    if there:
        _refuse_other(path)
    elif path.is_dir() and (others := [entry.name for entry in path.iterdir() if not is_leftover(entry.name)]):
        raise InputError(
            f"--out {path} holds other files ({sorted(others)[0]}) and no training: choose a new or empty folder"
        )


def _refuse_other(path: Path) -> None:
    if path.is_symlink():
        raise InputError(f"{path} is a link, so it is left alone; give the folder that it leads to")
    try:
        read_record(path)
    except InputError as error:
        raise InputError(f"{path} is left alone ({error}); remove it yourself, or give another --out") from None


def remove_training(path: Path) -> None:
    """Remove a training run: it is renamed aside under its writer's lock, and then deleted.

    Raises:
        InputError: If the folder is no training run, another process writes it, or it cannot be moved.
    """
    if not (path / RECORD).is_file():
        return
    _refuse_other(path)
    aside = path.with_name(f"{TEMPORARY}{os.getpid()}-{secrets.token_hex(4)}-{path.name}")
    lock = WriterLock(path)
    try:
        path.rename(aside)
    except OSError as error:
        raise InputError(f"--overwrite: {path} cannot be removed ({error.strerror}); give another --out") from error
    finally:
        lock.release()
    shutil.rmtree(aside)


@dataclass
class TrainFolder:
    """One training run's folder, as one of its processes sees it; the main one alone writes.

    Attributes:
        path: The folder.
        checkpoint: The whole checkpoint to go on from; None starts at the beginning.
        finished: Whether nothing is left to do.
    """

    path: Path
    manifest: Manifest
    data: Mapping[str, Any]
    checkpoint: Path | None = None
    finished: bool = False

    @classmethod
    @contextmanager
    def opened(cls, path: Path, prepared: "Prepared", processes: "Processes") -> Iterator["TrainFolder"]:
        """Open the folder of a new run, or of one that is gone on with.

        Raises:
            InputError: If it holds a run of other settings, or another process writes it.
        """
        folder = cls(path, prepared.manifest, prepared.told)
        lock = None
        try:
            with processes.together():
                if processes.is_main:
                    path.mkdir(parents=True, exist_ok=True)
                    lock = WriterLock(path)
                    folder._take_up()
            folder.checkpoint, folder.finished = processes.agreed((folder.checkpoint, folder.finished))
            yield folder
        finally:
            if lock is not None:
                lock.release()

    def _take_up(self) -> None:
        if (self.path / RECORD).is_file():
            found, _ = read_record(self.path)
            if differences := found.differences(self.manifest):
                raise InputError(
                    f"{self.path} holds a run that differs from the one asked for ({'; '.join(differences)}): "
                    "resume it with its own settings, or choose another folder"
                )
            self.manifest = found.with_resume()
            self.finished = found.finished is not None
            self.checkpoint = _last_whole(self.path / CHECKPOINTS)
            self._cut_log()
        if not self.finished:
            self.write(None)

    def _cut_log(self) -> None:
        """Leave out what was logged behind the checkpoint: those steps are done again."""
        path = self.path / LOG
        if not path.is_file() or self.finished:
            return
        last = step_of(self.checkpoint) if self.checkpoint else 0
        kept = [line for line in path.read_text(encoding="utf-8").splitlines() if _logged(line) <= last]
        write_bytes(path, "".join(f"{line}\n" for line in kept).encode())

    def log(self, row: Mapping[str, Any]) -> None:
        """Add a line to the log."""
        with (self.path / LOG).open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(without_nan(row)) + "\n")

    def write(self, results: Mapping[str, Any] | None) -> None:
        """Write the record; with results, as that of a finished run."""
        if results is not None:
            self.manifest = replace(self.manifest, finished=now())
        write_json(
            self.path / RECORD,
            {**self.manifest.as_json(), "data": dict(self.data), "results": without_nan(results)},
        )


def _last_whole(folder: Path) -> Path | None:
    """The newest checkpoint that was written to its end; half-written ones are removed."""
    found = sorted((path for path in folder.glob("checkpoint-*") if path.is_dir()), key=step_of)
    while found:
        # The trainer writes its state last.
        if _is_json(found[-1] / "trainer_state.json"):
            return found[-1]
        shutil.rmtree(found.pop())
    return None


def _is_json(path: Path) -> bool:
    try:
        read_json(path)
    except InputError:
        return False
    return True


def step_of(path: Path) -> int:
    """The step of a checkpoint's folder; -1 where its name says none."""
    number = path.name.rpartition("-")[2]
    return int(number) if number.isdigit() else -1


def _logged(line: str) -> float:
    """The step of a line; a torn one is of no step."""
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return float("inf")
