"""The study's tables and sentences on the screen. Computes nothing of its own. No torch."""

from collections.abc import Mapping, Sequence

from probes.estimates import Estimate
from studies.shortcuts.settings import (
    GAIN_BAR,
    LARGEST_CONTROL_CHANGE,
    LARGEST_LOSS_CHOSEN,
    LARGEST_LOSS_PUBLISHED,
    PLACES,
)
from studies.shortcuts.summary import Condition, Summary
from studies.shortcuts.verdict import Gain, Verdict


def print_summaries(summaries: Sequence[Summary]) -> None:
    """Print a table for each place of the map; shares in percent, over seeds. The file has every interval."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    console = Console()
    for condition in dict.fromkeys(each.condition for each in summaries):
        here = [each for each in summaries if each.condition == condition]
        title = f"{condition.label}; image-only ceiling {percent(here[0].ceiling)}"
        table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
        headings = ("method", "i.i.d.", "o.o.d.", "turned", "blank", "SFD", "below", "n")
        for heading in headings:
            table.add_column(heading, justify="left" if heading == "method" else "right", no_wrap=True)
        for each in here:
            table.add_row(
                each.method,
                give_or_take(each.iid),
                give_or_take(each.ood),
                f"{100 * each.reversed.value:.1f}",
                f"{100 * each.blank.value:.1f}",
                f"{each.degradation.value:.1f}",
                "-" if each.below_frontier is None else f"{100 * each.below_frontier.value:.1f}",
                str(len(each.seeds)),
            )
        console.print(table)
    if summaries:
        print(
            "o.o.d.: the cue tells nothing; turned: it is wrong as often as it was right; blank: i.i.d. points lost "
            "without the image;\nbelow: o.o.d. points below the two-cue frontier; n: seeds"
        )


def print_verdict(judged: Verdict, attempt: str = "") -> None:
    """Print the headline, and the share of the map's places where it holds; or an attempt, and that it is one."""
    here = judged.headline
    judged_by = (
        (here.published, LARGEST_LOSS_PUBLISHED, ""),
        (here.chosen, LARGEST_LOSS_CHOSEN, " (chosen on dev)"),
        (here.chosen_finer, LARGEST_LOSS_CHOSEN, " (chosen on dev among more exponents, not fixed beforehand)"),
    )
    if attempt:
        print(f"attempt {attempt!r}, not fixed beforehand:")
    for change, bar, note in judged_by:
        if change is not None:
            reached = "reached" if change.reaches(bar) else "not reached"
            bars = f"bars (+{100 * GAIN_BAR:.0f} at the lower end, -{100 * bar:.0f}) {reached}"
            print(f"{change.method}{note} against plain: {_changes(change)}; {bars}")
    if here.chosen_without_proxy is not None:
        change = here.chosen_without_proxy
        print(f"without a proxy, by the same rule on dev: {change.method} against plain: {_changes(change)}")
    for change in here.against_stopped:
        print(f"{change.method} against {change.against}: {_changes(change)}")
    print(
        f"SFD {points(here.degradation_plain)} plain, {points(here.degradation_published)} SFC: "
        f"{'' if here.halves else 'not '}halved at the upper end of its interval"
    )
    if not attempt:
        places = sum(place.strength < 1.0 for place in PLACES["map"])
        print(
            f"SFC helps in {sum(judged.helping.values())} of {len(judged.helping)} places with a cue that sometimes "
            f"fails and two seeds or more (the map has {places}); it reaches the bars in "
            f"{sum(judged.reaching.values())}"
        )


def print_controls(found: Mapping[Condition, Sequence[Gain]]) -> None:
    """Print what methods change where none can help."""
    for condition, changes in found.items():
        print(f"control: {condition.label}")
        for change in changes:
            small = "small" if change.is_small else "NOT small"
            print(f"  {change.method}: {_changes(change)}; {small} (under {100 * LARGEST_CONTROL_CHANGE:.0f})")


def points(estimate: Estimate) -> str:
    """Percentage points, with their interval."""
    return f"{estimate.value:.1f} [{estimate.low:.1f}, {estimate.high:.1f}]"


def percent(estimate: Estimate) -> str:
    """A share in percent, with its interval."""
    return f"{100 * estimate.value:.1f} [{100 * estimate.low:.1f}, {100 * estimate.high:.1f}]"


def give_or_take(estimate: Estimate) -> str:
    """A share in percent, and how far its interval reaches on its longer side."""
    reach = max(estimate.high - estimate.value, estimate.value - estimate.low)
    return f"{100 * estimate.value:.1f} ± {100 * reach:.1f}"


def _changes(change: Gain) -> str:
    return f"o.o.d. {percent(change.ood)}, i.i.d. {percent(change.iid)} points"
