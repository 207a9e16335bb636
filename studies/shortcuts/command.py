"""The command `sightcheck shortcuts`: runs the grid, or what is left of it, and says what was found.

Knows options, the run folder and progress; what a run is, and what numbers mean, is in the modules beside it.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from probes.estimates import Estimate
from probes.files import now, read_json, write_json
from probes.inputs import InputError
from studies.options import refuse_below, refuse_file, say_interrupted
from studies.shortcuts import settings
from studies.shortcuts.grid import Task, missing, run_tasks, tasks
from studies.shortcuts.report import print_summaries, write_metrics

MANIFEST = "manifest.json"


@dataclass(frozen=True)
class ShortcutsConfig:
    """Where does shortcut-aware learning help? A map of methods over three environments with a text shortcut each.

    Trains some three thousand small reward models, hours of work; interrupt it at any time and go on with --resume.
    Every finished run is kept, so a grid of fewer seeds grows into one of more.
    """

    out: Path = Path("runs/shortcuts")
    """The folder to write."""
    seeds: int = len(settings.SEEDS)
    """Seeds of each place of the map."""
    workers: int = 1
    """Processes, each on one thread."""
    strengths: tuple[float, ...] = settings.STRENGTHS
    """Shares of pairs in which the own cue is right."""
    backbones: tuple[str, ...] = settings.BACKBONES
    """Backbones to start from: seeing, blind."""
    resume: bool = False
    """Go on with the runs that are missing in --out."""


def run(config: ShortcutsConfig) -> int:
    """Run what is missing; returns 0.

    Raises:
        InputError: If options do not fit, there is nothing to resume, or the folder was made with other settings.
    """
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    _check(config)
    digest = settings_digest()
    _open(config, digest)
    todo = wanted(config)
    left = [task for task in todo if missing(config.out, task)]
    try:
        _backbones(config.out)
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        with Progress(*columns) as progress:
            bar = progress.add_task("training", total=len(todo), completed=len(todo) - len(left))
            for task, _ in run_tasks(config.out, left, settings.Sizes(), config.workers):
                progress.update(bar, advance=1, description=" ".join(map(str, task)))
    except KeyboardInterrupt:
        say_interrupted("shortcuts", config, "runs")
        raise
    print_summaries(write_metrics(config.out, todo))
    manifest = read_json(config.out / MANIFEST)
    write_json(config.out / MANIFEST, {**manifest, "finished": now()})
    return 0


def wanted(config: ShortcutsConfig) -> list[Task]:
    """The tasks of a config."""
    return tasks(config.backbones, settings.SEEDS[: config.seeds], config.strengths)


def settings_digest() -> str:
    """SHA-256 of everything that is fixed before the first run."""
    from studies.shortcuts.backbone import SIZE, Teaching

    fixed: dict[str, Any] = {
        "cues": settings.CUES,
        "elsewhere": settings.ELSEWHERE,
        "learnabilities": settings.LEARNABILITIES,
        "lengths": settings.LENGTHS,
        "methods": settings.METHODS,
        "sizes": asdict(settings.Sizes()),
        "backbone": asdict(SIZE),
        "teaching": asdict(Teaching()),
        "stops": settings.STOPS,
    }
    return hashlib.sha256(json.dumps(fixed, sort_keys=True).encode()).hexdigest()


def measure_ceilings(folder: Path, pairs: int = 2000) -> dict[str, Any]:
    """Accuracy of each backbone on unseen pictures where no cue tells anything: the image-only ceiling."""
    from rewardmodels.model import RewardModel
    from studies.shortcuts.environments import make_pairs, strengths
    from studies.shortcuts.pictures import split_pictures
    from studies.shortcuts.preparing import PreparedPairs, margins
    from studies.shortcuts.summary import measured_ceiling

    found: dict[str, dict[str, Estimate]] = {}
    for backbone in settings.BACKBONES:
        reward = RewardModel.from_pretrained(folder / backbone, device="cpu")
        for learnability in settings.LEARNABILITIES:
            drawn = make_pairs(split_pictures()["test"], pairs, strengths("", 0.5), learnability.noise, (999, 1))
            prepared = PreparedPairs(reward, drawn)
            estimate = measured_ceiling(margins(reward.model, prepared), [pair.cluster for pair in drawn])
            found.setdefault(learnability.name, {})[backbone] = estimate
    return {name: {which: each.to_dict() for which, each in both.items()} for name, both in found.items()}


def _check(config: ShortcutsConfig) -> None:
    refuse_file(config.out)
    refuse_below(config, {"seeds": 1, "workers": 1})
    if config.seeds > len(settings.SEEDS):
        raise InputError(f"--seeds {config.seeds}: the study fixes {len(settings.SEEDS)} seeds")
    _known("strengths", config.strengths, settings.STRENGTHS)
    _known("backbones", config.backbones, settings.BACKBONES)


def _known(option: str, given: Sequence[Any], known: Sequence[Any]) -> None:
    unknown = [value for value in given if value not in known]
    if unknown or not given:
        raise InputError(f"--{option} {unknown or 'is empty'}: the study fixes {', '.join(map(str, known))}")


def _open(config: ShortcutsConfig, digest: str) -> None:
    path = config.out / MANIFEST
    if path.is_file() and not config.resume:
        raise InputError(f"{config.out} holds this study already: go on with --resume, or give another --out")
    if not path.is_file():
        if config.resume:
            raise InputError(f"there is nothing to resume in {config.out}: leave --resume out")
        from studies.bench_results import this_machine

        machine = this_machine(("torch", "transformers", "trl"))
        write_json(path, {"study": "shortcuts", "digest": digest, "machine": machine, "started": now()})
    found = read_json(path)
    if found.get("study") != "shortcuts" or found.get("digest") != digest:
        raise InputError(f"{config.out} was made with other settings: give another --out")


def _backbones(folder: Path) -> None:
    """Teach the backbones once, and measure what they see."""
    if (folder / "ceilings.json").is_file():
        return
    from studies.shortcuts.backbone import Teaching, save_backbones

    save_backbones(folder / "backbones", Teaching(), print)
    write_json(folder / "ceilings.json", measure_ceilings(folder / "backbones"))
