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
from studies.shortcuts.grid import Task, missing, run_tasks, tasks, tasks_at
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
    """Parts of the study, in the order of the work: headline, controls, start, map; or of the map only lengths (the
    headline's place trained for longer and shorter), shorter (only that) or fallible (where the cue sometimes fails).
    """
    methods: tuple[str, ...] = ()
    """Run only these methods, and plain training and the text alone, which each is compared with; by default all but
    the exponents 0.55, 0.6 and 0.65, which were not fixed beforehand.
    """
    attempt: str = ""
    """Instead of the parts, one place with settings of its own, which was tried when the headline missed a bar: faster
    or scarcer."""
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
    attempt = settings.ATTEMPTS[config.attempt] if config.attempt else None
    noted = {"attempt": config.attempt, "why": attempt.why} if attempt else None
    digest = settings_digest(attempt)
    open_study(config.out, "shortcuts", digest, resume=config.resume, packages=packages, noted=noted)
    todo = wanted(config)
    left = [task for task in todo if missing(config.out, task, config.methods)]
    sizes = attempt.sizes if attempt else settings.Sizes()
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
            for task, _ in run_tasks(config.out, left, sizes, config.workers, config.methods):
                progress.update(bar, advance=1, description=" ".join(map(str, task)))
    except KeyboardInterrupt:
        say_interrupted("shortcuts", config, "runs")
        raise
    headline = attempt.place if attempt else settings.HEADLINE
    summaries, judged = write_metrics(config.out, todo, headline)
    figures = write_figures(config.out, summaries, headline)
    print_summaries(summaries)
    if judged is not None:
        print_verdict(judged)
    if figures:
        print(f"figures: {figures[0].parent}")
    finish_study(config.out)
    return 0


def wanted(config: ShortcutsConfig) -> list[Task]:
    """The tasks of a config."""
    seeds = settings.SEEDS[: config.seeds]
    if config.attempt:
        return tasks_at((settings.ATTEMPTS[config.attempt].place,), seeds)
    return tasks(config.parts, seeds)


def settings_digest(attempt: settings.Attempt | None = None) -> str:
    """SHA-256 of everything that is fixed before the first run, and of an attempt's own place and sizes."""
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
    if attempt is not None:
        fixed["attempt"] = (attempt.place, settings.noise_of(attempt.place.learnability), asdict(attempt.sizes))
    return digest_of(fixed)


def _check(config: ShortcutsConfig) -> None:
    check_study(config, settings.SEEDS)
    refuse_below(config, {"workers": 1})
    parts = settings.PLACES | settings.SUBSETS
    unknown = [part for part in config.parts if part not in parts]
    if unknown or not config.parts:
        raise InputError(f"--parts {' '.join(unknown) or 'is empty'}: there are {', '.join(parts)}")
    methods = [method.name for method in (*settings.METHODS, settings.CONTRAST_ALONE, *settings.FINER)]
    strange = [name for name in config.methods if name not in methods]
    if strange:
        raise InputError(f"--methods {', '.join(map(repr, strange))}: there are {', '.join(map(repr, methods))}")
    if config.attempt and config.attempt not in settings.ATTEMPTS:
        raise InputError(f"--attempt {config.attempt}: there are {', '.join(settings.ATTEMPTS)}")


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
