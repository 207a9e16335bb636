"""Measure the finished runs of a grid: an audit, the routing along training, and which kind of layer carries an image.

Run as ``python -m studies.decoders.measuring RUNS``. Each part is written into the run's own folder and done once; a
part that was stopped goes on. Trains nothing and draws no conclusion.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, NamedTuple

import tyro

from probes.inputs import InputError
from studies.bundled import BUNDLED_DATA, BUNDLED_MODEL
from studies.decoders.checkpoints import ROUTING_FOLDER, WEIGHTS_FOLDER
from studies.decoders.run import RECORD_FILE

AUDIT_FOLDER, EXPERTS_FOLDER, CARRYING_FILE = "audit", "experts", "carrying.npz"
DENSE = "dense"
"""What the bundled dense model is called among decoders. It has no experts, and was trained elsewhere."""


class Amounts(NamedTuple):
    """How much is asked of each model."""

    audited: int | None = 1500
    """Questions of the audit, drawn evenly over splits and tasks; None is all."""
    causal: int = 120
    """Questions of its causal check."""
    carried: int = 120
    """Test questions in which images are hidden from kinds of layers."""
    permutations: int = 199
    """Shuffles behind each p-value of specialisation."""


AMOUNTS = Amounts()
EVERY_DEV_QUESTION = 600
"""The questions of saved routing are some of these: all are read, so that none of them is missing."""


def measure_run(folder: Path, amounts: Amounts = AMOUNTS) -> None:
    """Measure what is not measured yet of one finished training run.

    Raises:
        InputError: If it is not finished, or a part of it fails; what is done stays.
    """
    if not (folder / RECORD_FILE).is_file():
        raise InputError(f"{folder} holds no {RECORD_FILE}: the run is not finished")
    model = final_weights(folder)
    if not _finished(folder / EXPERTS_FOLDER):
        _refuse_failure(folder, "routing", route(model, folder, amounts))
    measure_model(model, folder, amounts)


def measure_model(model: Path, folder: Path, amounts: Amounts = AMOUNTS) -> None:
    """What is asked of every model, with experts or without: its audit, and what carries its images.

    Raises:
        InputError: If a part fails; what is done stays.
    """
    if not _finished(folder / AUDIT_FOLDER):
        _refuse_failure(folder, "audit", audit(model, folder / AUDIT_FOLDER, amounts))
    if not (folder / CARRYING_FILE).is_file():
        carry_images(model, folder / CARRYING_FILE, amounts)


def final_weights(folder: Path) -> Path:
    """The last checkpoint of a run.

    Raises:
        InputError: If it kept none.
    """
    kept = sorted((folder / WEIGHTS_FOLDER).glob("step-*"))
    if not kept:
        raise InputError(f"{folder} keeps no checkpoint below {WEIGHTS_FOLDER}")
    return kept[-1]


def audit(model: Path, out: Path, amounts: Amounts) -> int:
    """Audit a model on the bundled questions; returns the exit status of `sightcheck audit`."""
    from studies.audit import AuditConfig, run

    config = AuditConfig(
        model=str(model), out=out, limit=amounts.audited, causal=amounts.causal, maps="none", resume=_begun(out)
    )
    return run(config)


def route(model: Path, folder: Path, amounts: Amounts) -> int:
    """Hold the routing that a run left along its training against its last; returns the status of `sightcheck routing`.

    The questions are those of the saved routing, which are the same in every run.
    """
    from studies.routing.command import RoutingConfig, run

    saved = sorted((folder / ROUTING_FOLDER).glob("step-*.npz"))
    if not saved:
        raise InputError(f"{folder} left no routing below {ROUTING_FOLDER}")
    out = folder / EXPERTS_FOLDER
    config = RoutingConfig(
        model=str(model),
        out=out,
        split="dev",
        samples=EVERY_DEV_QUESTION,
        checkpoints=tuple(map(str, saved[:-1])),
        permutations=amounts.permutations,
        resume=_begun(out),
    )
    return run(config)


def carry_images(model: Path, path: Path, amounts: Amounts) -> None:
    """Hide images from kinds of layers in test questions, drawn evenly over tasks, and write what that costs."""
    from probes.model import HookedModel
    from studies.auditing.plan import draw_evenly
    from studies.decoders.carrying import carry, save_carried
    from studies.multi_image import read_questions

    records = [record for record in read_questions(BUNDLED_DATA, split="test").records if record.target is not None]
    chosen = set(draw_evenly({record.id: record.task for record in records}, amounts.carried, seed=0))
    loaded = HookedModel.from_pretrained(model, device="cpu", dtype="float32")
    save_carried(path, carry(loaded, [record for record in records if record.id in chosen]))


def main(runs: Annotated[Path, tyro.conf.Positional], amounts: Amounts = AMOUNTS) -> None:
    """Measure every finished run below a folder, and the dense model beside them.

    Args:
        runs: What `studies.decoders.grid` wrote.
        amounts: How much is asked of each model.
    """
    done = sorted(path.parent for path in runs.glob(f"*/{RECORD_FILE}"))
    for number, folder in enumerate(done, start=1):
        print(f"{number} of {len(done)} trained decoders: {folder.name}", flush=True)
        measure_run(folder, amounts)
    print(f"the bundled {DENSE} model", flush=True)
    measure_model(BUNDLED_MODEL, runs / f"{DENSE}-0", amounts)


def _begun(run: Path) -> bool:
    return (run / "manifest.json").is_file()


def _finished(run: Path) -> bool:
    from studies.runs import RunFolder

    return _begun(run) and RunFolder.open(run).manifest.finished is not None and (run / "metrics.json").is_file()


def _refuse_failure(folder: Path, part: str, status: int) -> None:
    if status:
        raise InputError(f"the {part} of {folder} ended with status {status}: run it again to go on")


if __name__ == "__main__":
    tyro.cli(main)
