"""A study whose settings are fixed before its first run: the manifest holds their digest, and other results stay out.

Knows a run folder's manifest and the options that every such study has; nothing of what a study trains. No torch.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from probes.files import now, read_json, write_json
from probes.inputs import InputError
from studies.options import refuse_below, refuse_file

MANIFEST = "manifest.json"


def check_study(config: Any, seeds: Sequence[int]) -> None:
    """Refuse an --out that is a file, and more seeds than the study fixes.

    Args:
        config: The study's config, with `out` and `seeds`.
        seeds: What the study fixes.

    Raises:
        InputError: Naming the option.
    """
    refuse_file(config.out)
    refuse_below(config, {"seeds": 1})
    if config.seeds > len(seeds):
        raise InputError(f"--seeds {config.seeds}: the study fixes {len(seeds)} seeds")


def digest_of(fixed: dict[str, Any]) -> str:
    """SHA-256 of everything that is fixed, as plain JSON values."""
    return hashlib.sha256(json.dumps(fixed, sort_keys=True).encode()).hexdigest()


def open_study(
    out: Path, study: str, digest: str, *, resume: bool, packages: Sequence[str], noted: dict[str, Any] | None = None
) -> None:
    """Begin a run folder, or go on with one.

    Args:
        out: The run folder.
        study: Its verb.
        digest: `digest_of` what is fixed.
        resume: Whether to go on.
        packages: Distributions whose versions the manifest notes.
        noted: What else the manifest tells.

    Raises:
        InputError: If the folder holds the study already, there is nothing to resume, or it was made with other
            settings.
    """
    path = out / MANIFEST
    if path.is_file() and not resume:
        raise InputError(f"{out} holds this study already: go on with --resume, or give another --out")
    if not path.is_file():
        if resume:
            raise InputError(f"there is nothing to resume in {out}: leave --resume out")
        from studies.bench_results import this_machine

        machine = this_machine(packages)
        write_json(path, {"study": study, "digest": digest, **(noted or {}), "machine": machine, "started": now()})
    found = read_json(path)
    if found.get("study") != study or found.get("digest") != digest:
        raise InputError(f"{out} was made with other settings: give another --out")
    if found.pop("finished", None) is not None:
        write_json(path, found)


def hold_inputs(out: Path, found: Mapping[str, str]) -> None:
    """Note in the manifest the digests of what a study's runs are made from, or hold them against those noted before.

    Raises:
        InputError: If one differs: earlier runs were made from something else.
    """
    manifest = read_json(out / MANIFEST)
    noted = manifest.get("inputs", {})
    changed = [name for name, digest in found.items() if noted.get(name, digest) != digest]
    if changed:
        raise InputError(f"{out} holds runs from other {' and '.join(changed)}: give another --out")
    if noted != {**noted, **found}:
        write_json(out / MANIFEST, {**manifest, "inputs": {**noted, **found}})


def finish_study(out: Path) -> None:
    """Note in the manifest when the study was finished."""
    write_json(out / MANIFEST, {**read_json(out / MANIFEST), "finished": now()})
