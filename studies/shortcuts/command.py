"""The command `sightcheck shortcuts`: runs the grid, or what is left of it, and says what was found.

Knows options, the run folder and progress; what a run is, and what numbers mean, is in the modules beside it.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from probes.inputs import InputError
from studies.fixed_study import check_study, digest_of, finish_study, open_study
from studies.options import refuse_below, say_interrupted
from studies.shortcuts import settings
from studies.shortcuts.figures import write_figures
from studies.shortcuts.grid import Task, missing, run_tasks, tasks
from studies.shortcuts.report import print_summaries, print_verdict, write_metrics


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
    parts: tuple[str, ...] = tuple(settings.PLACES)
    """Parts of the study, in the order of the work: headline, controls, start, map."""
    teach: bool = False
    """Teach the backbones again, which takes some five minutes; the bundled ones are those it gives."""
    quick: bool = False
    """Only train three small models, in about a minute, and print how they compare: a taste, and no claim."""
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
    if config.quick:
        from studies.shortcuts.quick import run_quick

        return run_quick(config.out)
    packages = ("torch", "transformers", "trl")
    open_study(config.out, "shortcuts", settings_digest(), resume=config.resume, packages=packages)
    todo = wanted(config)
    left = [task for task in todo if missing(config.out, task)]
    try:
        _backbones(config.out, config.teach)
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
    summaries, judged = write_metrics(config.out, todo)
    figures = write_figures(config.out, summaries)
    print_summaries(summaries)
    if judged is not None:
        print_verdict(judged)
    if figures:
        print(f"figures: {figures[0].parent}")
    finish_study(config.out)
    return 0


def wanted(config: ShortcutsConfig) -> list[Task]:
    """The tasks of a config."""
    return tasks(config.parts, settings.SEEDS[: config.seeds])


def settings_digest() -> str:
    """SHA-256 of everything that is fixed before the first run."""
    from studies.shortcuts.backbone import SIZE, Teaching

    fixed: dict[str, Any] = {
        "cues": settings.CUES,
        "elsewhere": settings.ELSEWHERE,
        "learnabilities": settings.LEARNABILITIES,
        "lengths": settings.LENGTHS,
        "methods": (settings.METHODS, settings.CONTRAST_ALONE, settings.CONTROL_METHODS, settings.STARTING_METHODS),
        "sizes": asdict(settings.Sizes()),
        "backbone": asdict(SIZE),
        "teaching": asdict(Teaching()),
        "stops": settings.STOPS,
        "places": settings.PLACES,
        "seeds": settings.SEEDS,
        "exponents": (settings.EXPONENTS, settings.LARGEST_DEV_LOSS),
    }
    return digest_of(fixed)


def _check(config: ShortcutsConfig) -> None:
    check_study(config, settings.SEEDS)
    refuse_below(config, {"workers": 1})
    unknown = [part for part in config.parts if part not in settings.PLACES]
    if unknown or not config.parts:
        raise InputError(f"--parts {' '.join(unknown) or 'is empty'}: there are {', '.join(settings.PLACES)}")


def _backbones(folder: Path, teach: bool) -> None:
    """Put the backbones in their place, once and together."""
    if (folder / "backbones").is_dir():
        return
    from studies.shortcuts.backbone import Teaching, copy_backbones, save_backbones

    unfinished = folder / "backbones.unfinished"
    if teach:
        save_backbones(unfinished, Teaching(), print)
    else:
        copy_backbones(unfinished, Teaching().seed)
    unfinished.rename(folder / "backbones")
