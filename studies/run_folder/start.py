"""Whether a folder may be written as a run: not over other files, and not over another run.

Knows manifests and file names; nothing of tables. No torch.
"""

import warnings
from pathlib import Path

from probes.files import read_json
from probes.inputs import InputError
from studies.run_folder.locking import is_leftover
from studies.run_folder.manifest import Manifest


def refuse_foreign(folder: Path) -> None:
    """Refuse a folder that holds something else than a run, before anything is written into it.

    Raises:
        InputError: the path is a file, or a folder with other files and no run.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file: a run needs a folder")
    if not folder.is_dir() or (folder / "manifest.json").is_file():
        return
    others = [path.name for path in folder.iterdir() if not is_leftover(path.name)]
    if others:
        raise InputError(f"{folder} holds other files ({sorted(others)[0]}) and no run: choose a new or empty folder")


def taken_up(folder: Path, wanted: Manifest, resume: bool) -> Manifest:
    """Return the manifest of the run that a folder holds, as taken up again now.

    Raises:
        InputError: ``resume`` is false, or the run differs from the one wanted; each changed key is named.
    """
    source = folder / "manifest.json"
    found = Manifest.from_json(read_json(source), str(source))
    if not resume:
        raise InputError(f"{folder} already holds a run: resume it (--resume), or choose another folder")
    differences = found.differences(wanted)
    if differences:
        raise InputError(
            f"{folder} holds a run that differs from the one asked for ({'; '.join(differences)}): "
            "resume it with its own settings, or choose another folder"
        )
    if found.versions != wanted.versions:
        changed = sorted(
            f"{name} {found.versions.get(name)} -> {wanted.versions.get(name)}"
            for name in {*found.versions, *wanted.versions}
            if found.versions.get(name) != wanted.versions.get(name)
        )
        warnings.warn(
            f"{folder} was begun with other versions ({', '.join(changed)}): numbers may differ", stacklevel=4
        )
    return found.with_resume()
