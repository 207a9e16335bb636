"""`sightcheck reward published`: files that others published, and what the text alone tells in them.

It knows options, what is printed and what is written; the questions are in `published_files`. Importing it loads no
torch, and no model is run.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

if TYPE_CHECKING:
    from studies.reward.published_files import Asked


@dataclass(frozen=True)
class PublishedConfig:
    """What does the text alone tell in published scores, preferences and tables?

    Takes files as they were published: RM-Bench scores by style, with or without the texts; preferences in any format
    that is read (their images need not be there); and CSV or TSV tables of group scores, whose means are checked.
    Writes OUT/metrics.json and OUT/figures.
    """

    files: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """One or more files or folders."""
    out: Path = Path("runs/published")
    """The folder to write."""
    format: str | None = None
    """Format of preferences, such as vlfeedback; recognised by the columns if not given."""
    seed: int = 0
    """Seed of bootstraps, coins and folds."""


def run(config: PublishedConfig) -> int:
    """Ask every file, write numbers and figures, and print them.

    Returns:
        0; 1 if rows could not be used, or a published mean is none of its groups.

    Raises:
        InputError: If there is no file, one cannot be used or is given twice, or --out is a file; nothing has been
            written then.
    """
    from probes.inputs import InputError
    from studies.options import refuse_below, refuse_file
    from studies.reward.published_files import ask

    refuse_file(config.out)
    refuse_below(config, {"seed": 0})
    names = [path.stem for path in config.files]
    if not names:
        raise InputError("give one or more published files: sightcheck reward published scores.json pairs.jsonl")
    if len(set(names)) < len(names):
        raise InputError(f"two files are called {max(names, key=names.count)}: rename one, as their figures would mix")
    asked = [ask(path, format=config.format, seed=config.seed) for path in config.files]
    write(config.out, config.seed, asked)
    for each in asked:
        show(each)
    print(f"Written: {config.out / 'metrics.json'}, {config.out / 'figures'}")
    return 1 if any(each.answers.problems for each in asked) else 0


def write(out: Path, seed: int, asked: Sequence["Asked"]) -> None:
    """Write numbers and figures."""
    from probes.files import without_nan, write_bytes, write_json
    from studies.auditing.figures import png
    from studies.run_folder.manifest import package_versions

    for each in asked:
        for name, figure in each.answers.figures.items():
            write_bytes(out / "figures" / f"{Path(each.file).stem}-{name}.png", png(figure))
    content: dict[str, Any] = {
        "seed": seed,
        "versions": package_versions(),
        "files": [each.to_dict() for each in asked],
    }
    write_json(out / "metrics.json", without_nan(content))


def show(asked: "Asked") -> None:
    """Print what a file told, and on stderr what is wrong with it."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    console.print(f"{asked.file}: {asked.answers.kind}; {asked.answers.why}", markup=False, highlight=False)
    if asked.answers.told:
        table = Table(box=None, pad_edge=False)
        for heading in ("", "value", "95 % interval", "n", "clusters"):
            table.add_column(heading, justify="right" if heading else "left", no_wrap=True)
        for question, estimates in asked.answers.told.items():
            table.add_row(f"[bold]{question}[/bold]")
            for name, found in estimates.items():
                interval = f"{found.low:.3f} to {found.high:.3f}"
                clusters = "" if found.clusters is None else str(found.clusters)
                table.add_row(f"  {name.replace('_', ' ')}", f"{found.value:.3f}", interval, str(found.n), clusters)
        console.print(table)
    for problem in asked.answers.problems[:10]:
        print(f"  {problem}", file=sys.stderr)
    if len(asked.answers.problems) > 10:
        print(f"  and {len(asked.answers.problems) - 10} more, all in metrics.json", file=sys.stderr)
