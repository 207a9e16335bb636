"""The figures of the study of decoders: three models side by side, what carries images, and how routing settles.

Gathers numbers for `viz.decoders`; computes nothing of its own. No torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from studies.auditing.kinds import ATTENTION
from studies.decoders.carrying import EVERY
from studies.decoders.findings import STATE_SPACE, RunFindings, shared_experts

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from viz.decoders import DecoderLook

SIDE_BY_SIDE = ("dense", "dots1", "nemotron-h")
"""The decoders of the first figure."""
PATHS = (ATTENTION, STATE_SPACE, EVERY)
NAMES = {
    "dense": "Llama (dense)",
    "dots1": "dots.llm1",
    "nemotron-h": "Nemotron-H",
    "nemotron-h-latent": "Nemotron-H, latent experts",
}
"""What readers know the architectures by."""


def draw(found: Sequence[RunFindings], out: Path) -> list[Path]:
    """Draw what the runs have numbers for; returns the files."""
    from viz import papers

    drawings = {"three-models": side_by_side(found), "carrying": carrying(found), "settling": settling(found)}
    return [papers.save(figure, out / f"{name}.png") for name, figure in drawings.items()]


def side_by_side(found: Sequence[RunFindings]) -> Figure:
    """Attention accuracy by layer: the first seed, which is bundled, with its interval, and the others faint."""
    from viz.decoders import accuracy_side_by_side

    there = [name for name in SIDE_BY_SIDE if any(run.name == name and _answers(run) for run in found)]
    return accuracy_side_by_side([_look([run for run in found if run.name == name]) for name in there])


def carrying(found: Sequence[RunFindings]) -> Figure:
    """What answers lose without the right image, by path and decoder."""
    from viz.decoders import carrying

    names = list(dict.fromkeys(run.name for run in found))
    most = max(sum(run.name == name for run in found) for name in names)
    table = np.full((len(names), len(PATHS), most), np.nan)
    for decoder, name in enumerate(names):
        for place, run in enumerate(each for each in found if each.name == name):
            for path, told in enumerate(PATHS):
                if told in run.carried:
                    table[decoder, path, place] = run.carried[told].value
    return carrying([NAMES[name].replace(", ", ",\n") for name in names], PATHS, table)


def settling(found: Sequence[RunFindings]) -> Figure:
    """Choices shared with the end, and bits about image or text, along training; means over layers."""
    from viz.decoders import settling

    courses = [(run, run.course) for run in found if run.course is not None]
    return settling(
        [NAMES[run.name] for run, _ in courses],
        [each.steps for _, each in courses],
        [np.stack([shared_experts(run), each.information.mean(1)]) for run, each in courses],
        ["experts shared with the end", "image or text, bits"],
        [np.stack([each.overlap_floor.mean(1), each.chance.mean(1)]) for _, each in courses],
    )


def _answers(run: RunFindings) -> bool:
    """Whether any answer is right: else there is no attention accuracy."""
    return run.answers.value > 0


def _look(runs: Sequence[RunFindings]) -> DecoderLook:
    from viz.decoders import DecoderLook

    first = runs[0]
    ends = np.full((3, len(first.parts)), np.nan)
    for layer, look in first.looks.items():
        if np.isfinite(look.estimate.value):
            ends[:, layer] = look.estimate.value, look.estimate.low, look.estimate.high
    others = np.full((len(runs) - 1, len(first.parts)), np.nan)
    for place, run in enumerate(runs[1:]):
        for layer, look in run.looks.items():
            others[place, layer] = look.estimate.value
    parts = [first.parts[layer] for layer in range(len(first.parts))]
    chance = float(np.nanmean([look.chance for look in first.looks.values()]))
    value, low, high = ends
    return DecoderLook(NAMES[first.name], parts, value, low, high, others, chance)
