"""Opens the run folder of an audit: what makes it this run, and which of its batches are there already.

It knows an audit's config and the run folder; it computes nothing. Importing it loads no torch.
"""

from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from studies.audit import Prepared
    from studies.auditing.processes import Processes
    from studies.runs import Manifest, RunFolder

NOT_IDENTITY = (
    "out",
    "resume",
    "overwrite",
    "dry_run",
    "model",
    "data",
    "answers",
    "trust_remote_code",
    "allow_pickle",
    "mixers",
)
"""Options that leave the numbers alone, or that an audit's identity tells in other words."""


def done_batches(prepared: "Prepared", path: Path | None = None) -> frozenset[int]:
    """Numbers of the batches that the run to go on with has; none where there is none yet. Writes nothing.

    Args:
        prepared: What is to be done.
        path: The run folder; None takes the config's --out.

    Raises:
        InputError: If the folder holds other files, or a run that this one cannot go on with.
    """
    from studies.run_folder.start import refuse_foreign, taken_up
    from studies.runs import RunFolder

    path = prepared.config.out if path is None else path
    refuse_foreign(path)
    if not prepared.config.resume or not (path / "manifest.json").is_file():
        return frozenset()
    taken_up(path, _manifest(prepared), resume=True)
    return RunFolder.open(path).done_batches()


def open_folder(prepared: "Prepared", processes: "Processes", path: Path | None = None) -> "RunFolder":
    """Start or resume the run in the main process, then let the others help to write it."""
    from studies.runs import RunFolder

    out, manifest = prepared.config.out if path is None else path, _manifest(prepared)
    with processes.together():
        folder = RunFolder.create(out, manifest, resume=prepared.config.resume) if processes.is_main else None
    with processes.together():
        folder = RunFolder.help_write(out, manifest, processes.index) if folder is None else folder
    assert folder is not None
    return folder


def _manifest(prepared: "Prepared") -> "Manifest":
    from studies.runs import Manifest

    config = prepared.config
    shown = {entry.name: getattr(config, entry.name) for entry in fields(config) if entry.name not in NOT_IDENTITY}
    named = {key: value for key, value in prepared.identity.items() if key not in ("model_digest", "data_digest")}
    return Manifest(
        config={"study": "audit", **shown, **named},
        batches=len(prepared.work.plan),
        seeds={"seed": config.seed},
        model_digest=prepared.identity["model_digest"],
        data_digest=prepared.identity["data_digest"],
    )
