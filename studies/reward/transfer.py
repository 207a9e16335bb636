"""Several evaluations side by side: one scorer on several sets, or a transfer matrix of as many models as sets.

Knows finished evaluations, and nothing of how they came about. No torch.
"""

from collections.abc import Sequence
from pathlib import Path

from probes.estimates import Estimate
from probes.files import without_nan, write_json
from studies.reward.evaluating import METRICS, Evaluated


def short_names(names: Sequence[str]) -> list[str]:
    """Names of sets for a figure: the last part of a path, where those differ.

    >>> short_names(["a/pairs.jsonl", "b/other.jsonl"]), short_names(["a/x.jsonl", "b/x.jsonl"])
    (['pairs', 'other'], ['a/x.jsonl', 'b/x.jsonl'])
    """
    last = [Path(name).stem for name in names]
    return last if len(set(last)) == len(last) else list(names)


def write_transfer(out: Path, scorers: Sequence[str], sets: Sequence[str], found: Sequence[Evaluated]) -> None:
    """Write OUT/metrics.json over all evaluations, with a figure, and print the accuracies.

    Args:
        out: The folder.
        scorers: Their names; as many as sets, each trained on the set at its place, or one.
        sets: Their names.
        found: Evaluations, scorer by scorer and within one set by set.
    """
    from studies.reward.eval_figures import draw_sets, draw_transfer

    width = len(sets)
    rows = [found[start : start + width] for start in range(0, len(found), width)]
    cells = [[each.report.pairs.accuracy.micro for each in row] for row in rows]
    names = short_names(sets)
    content = {
        "scorers": list(scorers),
        "sets": list(sets),
        "summary": [
            {"section": "accuracy", "name": f"pair accuracy of {scorer}", "where": data, "unit": "share", "note": ""}
            | cell.to_dict()
            for scorer, row in zip(scorers, cells, strict=True)
            for data, cell in zip(sets, row, strict=True)
        ],
    }
    if len(scorers) == 1:
        draw_sets(out, names, cells[0])
    else:
        content["transfer"] = {
            "note": "one model a set: intervals of cells are over pairs, and training seeds are not in them",
            "iid": _mean([cells[place][place] for place in range(width)]),
            "ood": _mean([cells[row][column] for row in range(width) for column in range(width) if row != column]),
        }
        draw_transfer(out, names, cells)
    write_json(out / METRICS, without_nan(content))
    _print(scorers, names, cells)


def _mean(cells: Sequence[Estimate]) -> float:
    return sum(cell.value for cell in cells) / len(cells)


def _print(scorers: Sequence[str], sets: Sequence[str], cells: Sequence[Sequence[Estimate]]) -> None:
    for scorer, row in zip(scorers, cells, strict=True):
        told = ", ".join(f"{100 * cell.value:.1f} % on {name}" for name, cell in zip(sets, row, strict=True))
        print(f"{scorer}: {told}")
