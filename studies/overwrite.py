"""Replaces a run folder: removes an audit's run, and nothing that is not one or that another process writes.

Knows manifests and locks; nothing of what a run holds. No torch.
"""

import os
import secrets
import shutil
from pathlib import Path

from probes.files import TEMPORARY, read_json
from probes.inputs import InputError
from studies.run_folder.locking import WriterLock
from studies.run_folder.manifest import Manifest
from studies.run_folder.start import refuse_foreign


def refuse_other(path: Path) -> None:
    """Refuse a folder that `--overwrite` must not remove. Changes nothing.

    Args:
        path: The folder; it need not exist.

    Raises:
        InputError: If it is a link, or holds something else than the run of an audit.
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
    if manifest.config.get("study") != "audit":
        raise InputError(f"--overwrite leaves {path} alone: its manifest is not an audit's; give another --out")


def remove_run(path: Path) -> None:
    """Remove the run of an audit: it is renamed aside under its writer's lock, and then deleted.

    Args:
        path: The run folder. A folder that does not exist, or is empty, stays as it is.

    Raises:
        InputError: If the folder is no audit's run, another process writes it, or it cannot be moved.
    """
    refuse_other(path)
    if not (path / "manifest.json").is_file():
        return
    aside = path.with_name(f"{TEMPORARY}{os.getpid()}-{secrets.token_hex(4)}-{path.name}")
    lock = WriterLock(path)
    try:
        # Another writer may have put another run there between the look and the lock.
        refuse_other(path)
        path.rename(aside)
    except OSError as error:
        raise InputError(f"--overwrite: {path} cannot be removed ({error.strerror}); give another --out") from error
    finally:
        lock.release()
    shutil.rmtree(aside)
