"""A tiny reward model, and preferences about drawn pictures as files, for the tests of reward verbs."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from probes.inputs import Turn
from rewardmodels.preferences import write_preferences
from rewardmodels.records import Preference, Response
from tests.rewardmodels.asked import drawn_preferences
from tests.rewardmodels.small import reward_model


def save_reward(folder: Path) -> Path:
    """A random head on a tiny vision-language model."""
    reward_model().save_pretrained(folder)
    return folder


def save_pairs(path: Path, count: int = 40, seed: int = 0) -> Path:
    """Which colour a picture has; one pair a picture."""
    write_preferences(path, drawn_preferences(count, seed).records)
    return path


def save_texts(path: Path, count: int = 100) -> Path:
    """Pairs of words only; the better answer is the longer one in three of four."""
    records = [
        Preference(
            id=f"text-{number}",
            prompt=(Turn("user", f"Question {number}?"),),
            responses=(Response("a" * (9 if number % 4 else 3)), Response("b" * 6)),
            ranks=(0, 1),
            group="even" if number % 2 == 0 else "odd",
        )
        for number in range(count)
    ]
    write_preferences(path, records)
    return path


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def write_lines(path: Path, rows: Iterable[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def summary_of(out: Path) -> dict[str, dict[str, Any]]:
    """The named numbers of an evaluation."""
    return {entry["name"]: entry for entry in json.loads((out / "metrics.json").read_text())["summary"]}
