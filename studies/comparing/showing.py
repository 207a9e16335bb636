"""How a comparison is shown: a table on the screen, a figure, and a page. It formats; it computes nothing. No torch."""

import base64
import math
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from probes.paired import POWER
from studies.comparing.audits import Pair
from studies.comparing.differences import OWN, Compared, Verdict, in_points

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing


HEADINGS = ("metric", "A", "B", "B - A", "detectable", "n", "clusters")
DETECTABLE = (
    f"detectable: smallest true difference that so many clusters would show at {100 * POWER:.0f} % power, two-sided "
    "5 %, (1.96 + 0.84) standard errors"
)


class Who(NamedTuple):
    """One side of a comparison, in words."""

    letter: str
    run: str
    model: str
    rules: str


def print_comparison(pair: Pair, compared: Sequence[Compared]) -> None:
    """Print the table of differences on stdout, and below it who A and B are and by which rules they were read."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title(pair))
    for heading in HEADINGS:
        table.add_column(heading, justify="left" if heading == "metric" else "right")
    for row in table_rows(compared):
        table.add_row(*row)
    # Model names are texts of the user: one like "[/b]" would be read as a style, and end the run.
    console = Console(width=None if sys.stdout.isatty() else 120, markup=False, emoji=False)
    console.print(table)
    for who in sides(pair):
        console.print(f"{who.letter}: {who.run}, {who.model}", highlight=False, soft_wrap=True)
        console.print(f"   {who.rules}", highlight=False, soft_wrap=True)
    for line in notes(pair):
        console.print(line, highlight=False, soft_wrap=True)


def title(pair: Pair) -> str:
    """What the table's numbers are."""
    return (
        f"B - A in points, split {pair.baseline.split!r}, {len(pair.baseline.ids)} samples in both; "
        "95 % intervals, bootstrap over base samples"
    )


def table_rows(compared: Sequence[Compared]) -> Iterator[tuple[str, ...]]:
    """One row of texts for each difference, under `HEADINGS`."""
    for each in compared:
        found = each.found
        yield (
            each.label,
            _share(found.second),
            _share(found.first),
            in_points(each),
            "–" if math.isnan(found.detectable) else f"{100 * found.detectable:.1f}",
            f"{found.second_n}, {found.first_n}" if each.subset == OWN else str(found.estimate.n),
            str(found.estimate.clusters),
        )


def sides(pair: Pair) -> Iterator[Who]:
    """Who A and B are, and by which rules they were read."""
    for letter, each in (("A", pair.baseline), ("B", pair.candidate)):
        named = [*each.focused.items(), *((where.label, each.by_kind[where]) for where in pair.by_kind)]
        rules = "; ".join(f"{name}: {found.rule} ({found.source})" for name, found in named)
        yield Who(letter, str(each.path), str(each.manifest["config"]["model"]), rules)


def notes(pair: Pair) -> Iterator[str]:
    """What stands below the table."""
    yield DETECTABLE
    files = [each.manifest["config"].get("answers_digest") for each in (pair.baseline, pair.candidate)]
    if files[0] != files[1]:
        yield (
            "answers: given, A's and B's from different files; a difference in how they were made (prompt, sampling, "
            "length) counts as one between A and B"
        )
    for letter, each in (("A", pair.baseline), ("B", pair.candidate)):
        alone = [where.label for where in each.by_kind if where not in pair.by_kind]
        if alone:
            yield f"not compared, as only {letter} has it: {'; '.join(alone)}"
    if pair.only_baseline or pair.only_candidate:
        yield (
            f"left out: {pair.only_baseline} samples that went well in A alone, {pair.only_candidate} in B alone; "
            "what is left may be easier or harder than the whole"
        )


def comparison_figure(compared: Sequence[Compared]) -> "Drawing":
    """Each difference with its interval, in points, around a line at zero."""
    from viz import papers

    estimates = [each.found.estimate for each in compared]
    return papers.differences(
        [each.label for each in compared],
        [100 * estimate.value for estimate in estimates],
        [100 * estimate.low for estimate in estimates],
        [100 * estimate.high for estimate in estimates],
        quantity="B − A, points",
    )


def comparison_page(pair: Pair, compared: Sequence[Compared], verdict: Verdict | None, figure: bytes) -> str:
    """One HTML file that opens offline: who was compared, the table, the figure and the verdict. Names are escaped."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).resolve().parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    return environment.get_template("compare.html.j2").render(
        title=title(pair),
        headings=HEADINGS,
        rows=list(table_rows(compared)),
        sides=list(sides(pair)),
        notes=list(notes(pair)),
        verdict=verdict,
        figure=f"data:image/png;base64,{base64.b64encode(figure).decode()}",
    )


def _share(value: float) -> str:
    return "–" if math.isnan(value) else f"{100 * value:.1f} %"
