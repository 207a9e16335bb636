"""The command `sightcheck shortcuts`: runs the grid, or what is left of it, and says what was found.

Knows options, the run folder and progress; what a run is, and what numbers mean, is in the modules beside it.
"""

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from probes.inputs import InputError
from studies.auditing.progress import Counter
from studies.fixed_study import check_study, digest_of, finish_study, hold_inputs, open_study
from studies.options import refuse_below, say_interrupted
from studies.shortcuts import settings
from studies.shortcuts.figures import write_figures
from studies.shortcuts.grid import EVERY_METHOD, Task, missing, run_tasks, tasks, tasks_at
from studies.shortcuts.printing import print_controls, print_summaries, print_verdict
from studies.shortcuts.report import write_metrics

Part = Literal["headline", "controls", "start", "map", "lengths", "shorter", "fallible", "never-wrong"]


@dataclass(frozen=True)
class ShortcutsConfig:
    """Where does shortcut-aware learning help? A map of methods over three environments with a text shortcut each.

    Trains 2,620 small reward models, some twelve hours of one core; interrupt it at any time and go on with --resume.
    Every finished run is kept, so a grid of fewer seeds, parts or methods grows into one of more, and what is printed
    and written is of all that the folder holds.
    """

    out: Path = Path("runs/shortcuts")
    """The folder to write."""
    seeds: int = len(settings.SEEDS)
    """Seeds of each place of the map."""
    workers: int = 1
    """Processes, each on one thread."""
    parts: tuple[Part, ...] = ()
    """Parts of the study, in the order of the work: headline, controls, start, map, which are the default; or of the
    map only lengths (the headline's place trained for longer and shorter), shorter (only that), fallible (where the
    cue sometimes fails) or never-wrong (the control).
    """
    methods: tuple[str, ...] = ()
    """Run only these methods, and plain training and the text alone, which each is compared with, such as SFC "1 - p"
    "product of experts" "group-DRO" "half rate" "SFC, normalised" "SFC^0.5" "SFC^0.7" "image contrast"; by default
    those that were fixed beforehand for each place. "SFC^0.55", "SFC^0.6" and "SFC^0.65" were fixed for none.
    """
    attempt: Literal["faster", "scarcer"] | None = None
    """Instead of parts, one place with settings of its own, which was tried when the headline missed a bar."""
    teach: bool = False
    """Teach the backbones again, which takes some five minutes; the bundled ones are those it gives."""
    quick: bool = False
    """Only train four small models, in about a minute, and print how they compare: a taste, and no claim."""
    resume: bool = False
    """Go on with the runs that are missing in --out."""


def run(config: ShortcutsConfig) -> int:
    """Run what is missing; returns 0.

    Raises:
        InputError: If options do not fit, there is nothing to resume, or the folder was made with other settings.
    """
    _check(config)
    if config.quick:
        from studies.shortcuts.quick import run_quick

        return run_quick(config.out)
    attempt = settings.ATTEMPTS[config.attempt] if config.attempt else None
    noted = {"attempt": config.attempt, "why": attempt.why} if config.attempt and attempt else None
    packages = ("torch", "transformers", "trl")
    open_study(config.out, "shortcuts", settings_digest(attempt), resume=config.resume, packages=packages, noted=noted)
    todo = wanted(config)
    left = [task for task in todo if missing(config.out, task, config.methods)]
    sizes = attempt.sizes if attempt else settings.Sizes()
    try:
        _backbones(config.out, config.teach)
        hold_inputs(config.out, inputs_of(config.out))
        with Counter("training (runs that share pairs)", len(todo), len(todo) - len(left)) as counter:
            for _ in run_tasks(config.out, left, sizes, config.workers, config.methods):
                counter.advance(1)
    except KeyboardInterrupt:
        say_interrupted("shortcuts", config, "runs")
        raise
    _report(config.out, attempt, noted)
    return 0


def _report(folder: Path, attempt: settings.Attempt | None, noted: dict[str, str] | None) -> None:
    """Write and print all that the folder holds, whatever part of it was asked for."""
    headline = attempt.place if attempt else settings.HEADLINE
    whole = tasks_at((attempt.place,), settings.SEEDS) if attempt else tasks()
    report = write_metrics(folder, whole, headline, noted)
    figures = write_figures(folder, report.summaries, headline)
    print_summaries(report.summaries)
    print_controls(report.controls)
    if report.verdict is not None:
        print_verdict(report.verdict, noted["attempt"] if noted else "")
    if figures:
        print(f"figures: {figures[0].parent}")
    if not report.unfinished:
        finish_study(folder)


def wanted(config: ShortcutsConfig) -> list[Task]:
    """The tasks of a config."""
    seeds = settings.SEEDS[: config.seeds]
    if config.attempt:
        return tasks_at((settings.ATTEMPTS[config.attempt].place,), seeds)
    return tasks(config.parts or tuple(settings.PLACES), seeds)


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


def inputs_of(folder: Path) -> dict[str, str]:
    """Digests of what runs are made from and the settings do not hold: backbones, pictures, objectives' defaults."""
    from probes.files import digest_of_folder
    from rewardmodels.objectives import make_objective
    from studies.bundled import BUNDLED_DATA

    groups = {"groups": ("+", "-")}
    objectives = {
        method.name: repr(
            make_objective(
                method.objective, **dict(method.options), **(groups if method.objective == "group-dro" else {})
            )
        )
        for method in EVERY_METHOD
    }
    return {
        "backbones": digest_of_folder(folder / "backbones"),
        "pictures": digest_of_folder(BUNDLED_DATA),
        "objectives": digest_of(objectives),
    }


def _check(config: ShortcutsConfig) -> None:
    check_study(config, settings.SEEDS)
    refuse_below(config, {"workers": 1})
    if config.quick and config != replace(ShortcutsConfig(), out=config.out, quick=True):
        raise InputError("--quick trains models of its own: of the other options it takes --out alone")
    if config.attempt and config.parts:
        raise InputError("--attempt is one place of its own: leave --parts out")
    if config.teach and (config.out / "backbones").is_dir():
        raise InputError(f"{config.out} holds backbones already, and its runs come from them: leave --teach out")
    methods = [method.name for method in EVERY_METHOD]
    strange = [name for name in config.methods if name not in methods]
    if strange:
        raise InputError(f"--methods {', '.join(map(repr, strange))}: there are {', '.join(map(repr, methods))}")


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
