"""The study of the bundled decoders over several seeds: numbers, figures, and what was run.

Run as ``python -m studies.decoders.study RUNS --out docs/study/decoders`` over runs that `studies.decoders.measuring`
has measured. It asks whether attention accuracy rises with depth in a hybrid, which kind of layer carries the right
image, and whether experts specialise in images, and when in training that settles. Computes nothing from models.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro

from probes.estimates import Estimate, mean
from probes.files import read_json, without_nan, write_json
from probes.inputs import InputError
from studies.auditing.kinds import ATTENTION
from studies.decoders.figures import draw
from studies.decoders.findings import (
    NEAR,
    STATE_SPACE,
    RunFindings,
    bits_above_chance,
    depth_gain,
    gained_bits,
    read_run,
    settles,
    shared_experts,
)
from studies.decoders.measuring import AUDIT_FOLDER, CARRYING_FILE, DENSE, EXPERTS_FOLDER, MEASURED_FILE
from studies.decoders.run import RECORD_FILE

Entry = dict[str, Any]


def main(runs: Annotated[Path, tyro.conf.Positional], out: Path = Path("docs/study/decoders")) -> None:
    """Write `metrics.json`, `manifest.json`, the figures and each run's own small files, and print the short of it.

    Args:
        runs: The folder of measured runs, the dense model's among them.
        out: The folder to write.
    """
    found = read_all(runs)
    out.mkdir(parents=True, exist_ok=True)
    entries = list(conclusions(found))
    draw(found, out)
    every = [*(entry for run in found for entry in run_entries(run)), *entries]
    write_json(out / "metrics.json", without_nan(every))
    write_json(out / "manifest.json", manifest(runs, found))
    for run in found:
        publish_run(_folder(runs, run), out / "by-run" / f"{run.name}-{run.seed}")
    for entry in entries:
        print(line(entry))


def read_all(runs: Path) -> list[RunFindings]:
    """Every finished training run below a folder, behind the dense model that they are held against.

    Raises:
        InputError: If there is no run, or one, or the dense model, is not measured.
    """
    dense = runs / f"{DENSE}-0"
    trained = sorted(path.parent for path in runs.glob(f"*/{RECORD_FILE}"))
    unmeasured = [folder.name for folder in (dense, *trained) if not (folder / MEASURED_FILE).is_file()]
    if unmeasured or not trained:
        what = f"{', '.join(unmeasured)} not measured" if trained else "no finished training run"
        raise InputError(f"{runs} holds {what}: run python -m studies.decoders.measuring {runs}")
    return [read_run(folder, *_split(folder.name)) for folder in (dense, *trained)]


def run_entries(run: RunFindings) -> Iterator[Entry]:
    """What one run says, an entry for each number, as `metrics.json` holds them."""
    where = {"decoder": run.name, "seed": run.seed}
    yield {"name": "answer_accuracy", **where, "task": None, "estimate": run.answers.to_dict()}
    for task, estimate in run.answers_by_task.items():
        yield {"name": "answer_accuracy", **where, "task": task, "estimate": estimate.to_dict()}
    for layer, look in sorted(run.looks.items()):
        told = {"layer": layer, "layer_kind": look.kind, "chance": look.chance}
        yield {"name": "attention_accuracy", **where, **told, "estimate": look.estimate.to_dict()}
    for kind, look in run.kinds.items():
        told = {"layer": None, "layer_kind": kind, "chance": look.chance}
        yield {"name": "attention_accuracy", **where, **told, "estimate": look.estimate.to_dict()}
    for path, estimate in run.carried.items():
        yield {"name": "lost_without_target", **where, "path": path, "estimate": estimate.to_dict()}
        look = run.named[path]
        told = {"path": path, "chance": look.chance}
        yield {"name": "target_is_dearest", **where, **told, "estimate": look.estimate.to_dict()}
    for each in run.special:
        yield {"name": "specialisation", **where, **each._asdict()}
    if run.course is not None:
        yield {
            "name": "course",
            **where,
            **{key: np.asarray(value).tolist() for key, value in run.course._asdict().items()},
        }


def conclusions(found: Sequence[RunFindings]) -> Iterator[Entry]:
    """The study's answers: one number a seed, and their mean with its interval over seeds.

    A number that a seed does not have, such as attention accuracy where no answer is right, is None and not counted.
    The dense model is one model, and taken as it is: that interval does not hold what other questions would say. Steps
    at which something settles have no mean, as None says that it had not settled before the end.
    """
    (dense,) = (run for run in found if run.name == DENSE)
    for name in dict.fromkeys(run.name for run in found if run.name != DENSE):
        runs = [run for run in found if run.name == name]
        yield _told("answers_minus_dense", runs, lambda run: run.answers.value - dense.answers.value)
        yield from _where_it_looks(runs)
        yield from _what_experts_do(runs)


def _where_it_looks(runs: Sequence[RunFindings]) -> Iterator[Entry]:
    for kind in (kind for kind, layers in runs[0].depths.items() if len(layers) > 1):
        yield _told("last_minus_first_layer", runs, partial(depth_gain, kind=kind), kind=kind)
    for path in (path for path in runs[0].carried if not path.startswith("layer ")):
        yield _told("lost_without_target", runs, partial(_lost, path=path), path=path)
    if STATE_SPACE in runs[0].kinds:
        yield _told(
            "attention_minus_state_space",
            runs,
            lambda run: run.kinds[ATTENTION].estimate.value - run.kinds[STATE_SPACE].estimate.value,
        )


def _what_experts_do(runs: Sequence[RunFindings]) -> Iterator[Entry]:
    for label in dict.fromkeys(each.label for each in runs[0].special):
        yield _told("bits_above_chance", runs, partial(bits_above_chance, label=label), label=label)
    yield _told("bits_at_first", runs, lambda run: float(gained_bits(run)[0]), step=runs[0].steps[0])
    for name, numbers in (("bits_settle", gained_bits), ("choices_settle", shared_experts)):
        settled = [settles(run.steps, numbers(run)) for run in runs]
        yield {**_named(name, runs), "near": NEAR, "by_seed": settled, "last_step": runs[0].steps[-1]}


def _lost(run: RunFindings, path: str) -> float:
    return run.carried[path].value


def _told(question: str, runs: Sequence[RunFindings], number: Callable[[RunFindings], float], **more: Any) -> Entry:
    values = [float(number(run)) for run in runs]
    known = [value for value in values if math.isfinite(value)]
    by_seed = [value if math.isfinite(value) else None for value in values]
    return {**_named(question, runs), **more, "by_seed": by_seed, "estimate": mean(known).to_dict()}


def _named(question: str, runs: Sequence[RunFindings]) -> Entry:
    return {"name": question, "decoder": runs[0].name, "seeds": [run.seed for run in runs]}


def line(entry: Entry) -> str:
    """A conclusion in words, for the screen."""
    named = " ".join(str(entry[key]) for key in ("kind", "path", "label") if key in entry)
    if "estimate" not in entry:
        steps = ", ".join("not before the end" if step is None else str(step) for step in entry["by_seed"])
        return f"{entry['decoder']:18} {entry['name']}: by seed, from step {steps}"
    estimate = Estimate.from_dict(entry["estimate"])
    by_seed = ", ".join("none" if value is None else f"{value:.3f}" for value in entry["by_seed"])
    return f"{entry['decoder']:18} {entry['name']} {named}: {estimate}  by seed {by_seed}"


def manifest(runs: Path, found: Sequence[RunFindings]) -> Entry:
    """What was trained and how it was asked, by run; without where it lay."""
    return {"study": "decoders", "runs": {f"{run.name}-{run.seed}": _described(_folder(runs, run)) for run in found}}


def _described(folder: Path) -> Entry:
    asked = {name: folder / name / "manifest.json" for name in (AUDIT_FOLDER, EXPERTS_FOLDER)}
    return {
        "training": _training(folder),
        "measured": read_json(folder / MEASURED_FILE),
        **{name: _without_places(read_json(path)) for name, path in asked.items() if path.is_file()},
    }


def _without_places(manifest: Entry) -> Entry:
    config = {name: value for name, value in manifest["config"].items() if name not in ("model", "checkpoints")}
    return {**manifest, "config": config}


def publish_run(folder: Path, out: Path) -> None:
    """Copy what a run's numbers are made from and is small: its training record and what its images carry."""
    out.mkdir(parents=True, exist_ok=True)
    for name in (RECORD_FILE, CARRYING_FILE):
        if (folder / name).is_file():
            shutil.copyfile(folder / name, out / name)


def _training(folder: Path) -> Any:
    record = folder / RECORD_FILE
    return read_json(record)["config"] if record.is_file() else None


def _folder(runs: Path, run: RunFindings) -> Path:
    return runs / f"{run.name}-{run.seed}"


def _split(name: str) -> tuple[str, int]:
    decoder, _, seed = name.rpartition("-")
    return decoder, int(seed)


if __name__ == "__main__":
    tyro.cli(main)
