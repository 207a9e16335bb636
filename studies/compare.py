"""The comparison of two finished audits over the same questions, paired by sample: what changed, and by how much.

It reads run folders and nothing else; it audits nothing, and each run keeps its own focus rule. How a difference gets
its interval is `probes.paired`. Importing it loads no torch.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from probes.files import write_bytes, write_json
from probes.inputs import InputError
from probes.paired import POWER, RESAMPLES
from studies.comparing.audits import Pair, audited, paired
from studies.comparing.differences import Compared, Verdict, compare, judge
from studies.comparing.showing import comparison_figure, comparison_page, print_comparison
from studies.options import refuse_below, refuse_file


@dataclass(frozen=True)
class CompareConfig:
    """Compare two finished audits over the same questions, A before and B after, by sample: B - A, with intervals.

    Attention accuracy is compared on the samples that both answer right, and on each run's own right answers; each run
    keeps its own focus rule. Hidden attention is compared too, where both recorded it in layers of the same kind.
    Intervals are a bootstrap over base samples. "Detectable" is the smallest true difference that so many base samples
    would show at 80 % power (two-sided 5 %, normal approximation: 2.8 standard errors).
    """

    baseline: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="A")]
    """The run folder that B is compared with."""
    candidate: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="B")]
    """The run folder in question."""
    out: Path | None = None
    """The folder to write compare.json, compare.png and compare.html into; without it the table is printed and nothing
    written."""
    fail_under: float | None = None
    """Points, 0 or more. Exit with status 1 if B - A of attention accuracy, on the samples that both answer right, is
    below minus this. The difference itself decides, not its interval; what the interval leaves open is printed beside
    it."""
    rows: Literal["predicting", "paper"] = "predicting"
    """The row set that --fail-under looks at."""
    seed: int = 0
    """Seed of the bootstrap."""


def run(config: CompareConfig) -> int:
    """Read both audits, print and write what differs; returns 1 if the bar of --fail-under was missed, else 0.

    Raises:
        InputError: If a run is not finished, is no audit or has no target, or the two asked differently or share no
            sample; nothing has been written then.
    """
    from studies.runs import RunFolder

    check(config)
    pair = paired(*(audited(RunFolder.open(path)) for path in (config.baseline, config.candidate)))
    compared = list(compare(pair, config.seed))
    bar = config.fail_under
    verdict = None if bar is None else judge(compared, config.rows, bar, pair.only_baseline)
    print_comparison(pair, compared)
    if config.out is not None:
        write(config.out, config, pair, compared, verdict)
    if verdict is not None:
        print(verdict.line)
    return 1 if verdict is not None and verdict.failed else 0


def check(config: CompareConfig) -> None:
    """Refuse impossible options before anything is read.

    Raises:
        InputError: Naming the option and what it takes.
    """
    refuse_below(config, {"seed": 0})
    if config.fail_under is not None and not 0.0 <= config.fail_under < math.inf:
        raise InputError(f"--fail-under is a number of points, 0 or more, not {config.fail_under}")
    if config.out is not None:
        refuse_file(config.out)


def write(out: Path, config: CompareConfig, pair: Pair, compared: Sequence[Compared], verdict: Verdict | None) -> None:
    """Write numbers, figure and page into a folder, and print where."""
    from studies.auditing.figures import png

    figure = png(comparison_figure(compared))
    page = comparison_page(pair, compared, verdict, figure)
    write_json(out / "compare.json", as_json(config, pair, compared, verdict))
    write_bytes(out / "compare.png", figure)
    write_bytes(out / "compare.html", page.encode())
    print("Written: " + ", ".join(str(out / f"compare.{kind}") for kind in ("json", "png", "html")))


def as_json(config: CompareConfig, pair: Pair, compared: Sequence[Compared], verdict: Verdict | None) -> dict[str, Any]:
    """Everything that the comparison found, and what it was made from."""
    bar = {"points": config.fail_under, "rows": config.rows}
    return {
        "baseline": pair.baseline.as_json(),
        "candidate": pair.candidate.as_json(),
        "split": pair.baseline.split,
        "samples": len(pair.baseline.ids),
        "only_baseline": pair.only_baseline,
        "only_candidate": pair.only_candidate,
        "bootstrap": {"resamples": RESAMPLES, "seed": config.seed, "level": 0.95, "power": POWER},
        "entries": [each.as_json() for each in compared],
        "fail_under": None if verdict is None else {**bar, "failed": verdict.failed, "said": verdict.line},
    }
