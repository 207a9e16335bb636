"""A taste of the study in about a minute: three small reward models, one shortcut, one seed. Makes no claim.

The runs are the study's own, shorter; what is printed is over pairs, and says nothing about another seed.
"""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from probes.estimates import Estimate, proportion
from probes.files import now, write_json
from studies.bundled import BUNDLED_BACKBONES
from studies.shortcuts.printing import give_or_take
from studies.shortcuts.settings import METHODS, TEXT_ONLY, Sizes, noise_of
from studies.shortcuts.summary import ranked_right

RESULT = "quick.json"
ENVIRONMENT, STRENGTH, STEPS, SEED = "length", 0.98, 120, 0
SIZES = Sizes(train_pairs=1200, dev_pairs=20, test_pairs=300)
COMPARED = ("plain", "SFC", "SFC^0.7")
COLUMNS = {
    ENVIRONMENT: "as in training",
    "neutral": "shortcut tells nothing",
    "reversed": "shortcut reversed",
    "blank": "as in training, images blank",
}
"""Test sets, and what the table calls them."""


def run_quick(out: Path, sizes: Sizes = SIZES, steps: int = STEPS) -> int:
    """Train, print a table and write it to `OUT/quick.json`; returns 0.

    Args:
        out: A folder; an earlier result in it is replaced.
        sizes: How much data.
        steps: Of each training.
    """
    import torch
    from transformers.utils.logging import disable_progress_bar

    from rewardmodels.model import RewardModel
    from studies.shortcuts.runs import RunResult, prepare, train_method, train_proxy

    disable_progress_bar()
    torch.set_num_threads(1)
    start = RewardModel.from_pretrained(BUNDLED_BACKBONES / "seeing", device="cpu")
    print(f"drawing {sizes.train_pairs} pairs in which the longer answer is better {STRENGTH:.0%} of the time")
    data = prepare(start, ENVIRONMENT, STRENGTH, noise_of("noisier"), SEED, sizes)
    print(f"training {TEXT_ONLY}, {', '.join(COMPARED)}: {steps} steps each, one seed")
    proxy: RunResult = train_proxy(start, data, SEED, sizes, steps)
    rows: dict[str, RunResult] = {TEXT_ONLY: proxy}
    for name in COMPARED:
        method = next(each for each in METHODS if each.name == name)
        rows[name] = train_method(start, data, method, SEED, sizes, proxy, steps)
    clusters = {test: [pair.cluster for pair in data.tests[test].pairs] for test in COLUMNS}
    found = {
        name: {test: _accuracy(result.tests[test][-1], clusters[test]) for test in COLUMNS}
        for name, result in rows.items()
    }
    _print(found)
    content: dict[str, Any] = {
        "finished": now(),
        "environment": ENVIRONMENT,
        "strength": STRENGTH,
        "steps": steps,
        "seed": SEED,
        "accuracy": {
            name: {COLUMNS[test]: each.to_dict() for test, each in row.items()} for name, row in found.items()
        },
        "margins": {
            name: {COLUMNS[test]: result.tests[test][-1].tolist() for test in COLUMNS} for name, result in rows.items()
        },
    }
    write_json(out / RESULT, content)
    print(f"one seed of one setting, and no claim; every margin is in {out / RESULT}")
    return 0


def _accuracy(margins: npt.NDArray[np.float32], clusters: list[str]) -> Estimate:
    return proportion(ranked_right(margins), clusters)


def _print(found: dict[str, dict[str, Estimate]]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    title = "Pairs about unseen pictures ranked right, %"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("trained by", no_wrap=True)
    for name in COLUMNS.values():
        table.add_column(name.replace(", ", ",\n").replace("shortcut ", "shortcut\n"), justify="right", no_wrap=True)
    for method, row in found.items():
        table.add_row(method, *map(give_or_take, row.values()))
    Console().print(table)
