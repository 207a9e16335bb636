"""Measure the finished runs of a grid: an audit, the routing along training, and which kind of layer carries an image.

Run as ``python -m studies.decoders.measuring RUNS``. Each part is written into the run's own folder and done once; a
part that was stopped goes on. Trains nothing and draws no conclusion.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import tyro

from probes.files import digest_of_file, read_json, write_json
from probes.inputs import InputError
from studies.bundled import BUNDLED_MODEL
from studies.decoders.checkpoints import ROUTING_FOLDER, WEIGHTS_FOLDER
from studies.decoders.run import RECORD_FILE

AUDIT_FOLDER, EXPERTS_FOLDER, CARRYING_FILE = "audit", "experts", "carrying.npz"
MEASURED_FILE = "measured.json"
"""What was measured, of which weights, and with how many questions; and what the layers are made of."""
DENSE = "dense"
"""What the bundled dense model is called among decoders. It has no experts, and was trained elsewhere."""


class Amounts(NamedTuple):
    """How much is asked of each model."""

    audited: int | None = 1500
    """Questions of the audit, drawn evenly over splits and tasks; None is all."""
    carried: int = 120
    """Test questions in which images are hidden from kinds of layers."""
    permutations: int = 199
    """Shuffles behind each p-value of specialisation."""


Part = Callable[[Path, Path, Amounts], int]
"""Measures a model into a folder, and returns an exit status."""
AMOUNTS = Amounts()
EVERY_DEV_QUESTION = 600
"""The questions of saved routing are some of these: all are read, so that none of them is missing."""


def measure_run(folder: Path, amounts: Amounts = AMOUNTS) -> None:
    """Measure what is not measured yet of one finished training run.

    A run whose weights are gone, as one that was unpacked from what was published, is passed over if all of it is done.

    Raises:
        InputError: If it is not finished, was measured of other weights or in other amounts, or a part of it fails;
            what is done stays.
    """
    if not (folder / RECORD_FILE).is_file():
        raise InputError(f"{folder} holds no {RECORD_FILE}: the run is not finished")
    parts = {"audit": audit, "routing": route, "carrying": carry_images}
    done = read_json(folder / MEASURED_FILE)["done"] if (folder / MEASURED_FILE).is_file() else []
    if (folder / WEIGHTS_FOLDER).is_dir() or not set(parts) <= set(done):
        _measure(final_weights(folder), folder, amounts, parts)


def measure_dense(folder: Path, amounts: Amounts = AMOUNTS) -> None:
    """Measure the bundled dense model, which has no experts, in the same way.

    Raises:
        InputError: As `measure_run`.
    """
    _measure(BUNDLED_MODEL, folder, amounts, {"audit": audit, "carrying": carry_images})


def _measure(model: Path, folder: Path, amounts: Amounts, parts: Mapping[str, Part]) -> None:
    record = _record(model, folder, amounts)
    for name, part in parts.items():
        if name not in record["done"]:
            status = part(model, folder, amounts)
            if status:
                raise InputError(
                    f"the {name} of {folder} ended with status {status}: see what it said, remove what it wrote there, "
                    "and measure again"
                )
            record["done"].append(name)
            write_json(folder / MEASURED_FILE, record)


def _record(model: Path, folder: Path, amounts: Amounts) -> dict[str, Any]:
    """What is measured already; begun where nothing is.

    Raises:
        InputError: If that was of other weights, or in other amounts.
    """
    from probes.model import HookedModel

    now = {"weights": digest_of_file(model / "model.safetensors"), "amounts": amounts._asdict()}
    if not (folder / MEASURED_FILE).is_file():
        kinds = HookedModel.from_pretrained(model, device="cpu").layer_kinds
        named = {str(layer): [str(kind) for kind in each.all] for layer, each in kinds.items()}
        write_json(folder / MEASURED_FILE, {**now, "layer_kinds": named, "done": []})
    before: dict[str, Any] = read_json(folder / MEASURED_FILE)
    changed = [name for name in now if before[name] != now[name]]
    if changed:
        raise InputError(
            f"{folder} was measured with other {' and '.join(changed)}: remove {MEASURED_FILE}, {AUDIT_FOLDER}, "
            f"{EXPERTS_FOLDER} and {CARRYING_FILE} there to measure again"
        )
    return before


def final_weights(folder: Path) -> Path:
    """The last checkpoint of a run.

    Raises:
        InputError: If it kept none.
    """
    kept = sorted((folder / WEIGHTS_FOLDER).glob("step-*"))
    if not kept:
        raise InputError(f"{folder} keeps no checkpoint below {WEIGHTS_FOLDER}")
    return kept[-1]


def audit(model: Path, folder: Path, amounts: Amounts) -> int:
    """Audit a model on the bundled questions; returns the exit status of `sightcheck audit`."""
    from studies.audit import AuditConfig, run

    out = folder / AUDIT_FOLDER
    return run(AuditConfig(model=str(model), out=out, limit=amounts.audited, maps="none", resume=_begun(out)))


def route(model: Path, folder: Path, amounts: Amounts) -> int:
    """Hold the routing that a run left along its training against its last; returns the status of `sightcheck routing`.

    The questions are those of the saved routing, which are the same in every run, and run alone, as they did then.
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
        batch_size=1,
        resume=_begun(out),
    )
    return run(config)


def carry_images(model: Path, folder: Path, amounts: Amounts) -> int:
    """Hide images from kinds of layers in test questions, drawn evenly over tasks, and write what that costs."""
    from probes.model import HookedModel
    from studies.decoders.carrying import carry, save_carried
    from studies.decoders.questions import drawn_questions

    loaded = HookedModel.from_pretrained(model, device="cpu", dtype="float32")
    save_carried(folder / CARRYING_FILE, carry(loaded, drawn_questions(amounts.carried)))
    return 0


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
    measure_dense(runs / f"{DENSE}-0", amounts)


def _begun(run: Path) -> bool:
    return (run / "manifest.json").is_file()


if __name__ == "__main__":
    tyro.cli(main)
