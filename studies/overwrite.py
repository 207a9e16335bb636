"""What becomes of the run that --out holds: gone on with, replaced, or left alone.

Only a run of the same study is replaced, and only while no other process writes it. Knows manifests and locks; nothing
of what a run holds. No torch.
"""

import os
import secrets
import shutil
from pathlib import Path

from probes.inputs import InputError
from studies.options import refuse_file
from studies.run_folder.files import TEMPORARY, WriterLock, read_json
from studies.run_folder.manifest import Manifest
from studies.run_folder.start import refuse_foreign


def check_out(out: Path, study: str, *, resume: bool, overwrite: bool) -> None:
    """Refuse an ``--out`` that the options do not allow to write. Changes nothing.

    Args:
        out: The run folder; it need not exist.
        study: Whose run it is to be, as its manifest names it.
        resume: Whether to go on with the run that it holds.
        overwrite: Whether to replace it.

    Raises:
        InputError: If both are asked for, it is a file, there is no run to go on with, a run that is neither gone on
            with nor replaced, or something that must not be replaced.
    """
    if resume and overwrite:
        raise InputError("--resume goes on with a run and --overwrite replaces it: leave one out")
    refuse_file(out)
    if resume and not (out / "manifest.json").is_file():
        raise InputError(f"--resume: {out} holds no run to go on with; give its --out, or leave --resume out")
    if (out / "manifest.json").exists() and not (resume or overwrite):
        raise InputError(f"--out {out} holds a run: give --resume to go on, --overwrite, or another folder")
    if overwrite:
        refuse_other(out, study)


def refuse_other(path: Path, study: str) -> None:
    """Refuse a folder that `--overwrite` must not remove. Changes nothing.

    Args:
        path: The folder; it need not exist.
        study: The only one whose runs may be removed.

    Raises:
        InputError: If it is a link, or holds something else than a run of that study.
    """
    if path.is_symlink():
        raise InputError(f"--overwrite: {path} is a link, so it is left alone; give the folder that it leads to")
    refuse_foreign(path)
    source = path / "manifest.json"
    if not source.is_file():
        return
    try:
        manifest = Manifest.from_json(read_json(source), str(source))
    except InputError as error:
        raise InputError(
            f"--overwrite leaves {path} alone ({error}); remove it yourself, or give another --out"
        ) from None
    if manifest.config.get("study") != study:
        raise InputError(f"--overwrite leaves {path} alone: its manifest is of no {study}; give another --out")


def remove_run(path: Path, study: str) -> None:
    """Remove the run of a study: it is renamed aside under its writer's lock, and then deleted.

    Args:
        path: The run folder. A folder that does not exist, or is empty, stays as it is.
        study: The only one whose runs may be removed.

    Raises:
        InputError: If the folder is no run of that study, another process writes it, or it cannot be moved.
    """
    refuse_other(path, study)
    if not (path / "manifest.json").is_file():
        return
    aside = path.with_name(f"{TEMPORARY}{os.getpid()}-{secrets.token_hex(4)}-{path.name}")
    lock = WriterLock(path)
    try:
        # Another writer may have put another run there between the look and the lock.
        refuse_other(path, study)
        path.rename(aside)
    except OSError as error:
        raise InputError(f"--overwrite: {path} cannot be removed ({error.strerror}); give another --out") from error
    finally:
        lock.release()
    shutil.rmtree(aside)
