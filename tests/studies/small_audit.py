"""A tiny model on disk and a tiny set of questions, for tests that audit end to end."""

import json
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
from PIL import Image

NOUNS = ("cat", "dog", "ball", "grass")


class Small:
    """A model, questions, and a finished audit of both with everything that an audit can do."""

    def __init__(self, root: Path) -> None:
        from studies.runs import RunFolder

        self.model, self.data, self.out = root / "model", root / "data", root / "run"
        save_model(self.model)
        save_questions(self.data)
        make_answerable(self.model, self.data)
        everything = ("--maps", "all", "--causal", "3", "--position-study", "--per-head")
        self.status = self.audit(self.out, *everything, figures=True)
        self.run = RunFolder.open(self.out)

    def audit(self, out: Path, *words: str, data: Path | None = None, figures: bool = False) -> int:
        """Run the command in this process and return its exit status; figures take most of the time."""
        from studies.cli import main

        named = ["--model", str(self.model), "--data", str(data or self.data), "--out", str(out)]
        with nullcontext() if figures else patch("studies.auditing.figures.draw_figures", return_value=[]):
            return main(["audit", *named, "--max-new-tokens", "4", "--batch-size", "4", *words])


def changed(small: Small, folder: Path, changes: Mapping[str, dict[str, Any]]) -> Path:
    """A copy of the questions with some rows changed."""
    folder.mkdir()
    rows = [row | changes.get(row["id"], {}) for row in read_rows(small.data / "questions.jsonl")]
    for row in rows:
        row["images"] = [name if "/" in name else str(small.data / name) for name in row["images"]]
    write_rows(folder / "questions.jsonl", rows)
    return folder


def save_model(folder: Path, seed: int = 0) -> Path:
    """A random LLaVA with sharpened attention and its processor; answers are nonsense, and always the same."""
    import torch

    from tests.probes.processors import build_model, build_processor

    processor = build_processor("llava")
    model = build_model("llava", processor, seed=seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "language_model" in name and name.endswith(("q_proj.weight", "k_proj.weight")):
                parameter.mul_(12.0)
            elif "language_model" in name and parameter.dim() >= 2:
                parameter.mul_(4.0)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def save_questions(folder: Path, count: int = 12, dev: int = 4, **changes: Any) -> Path:
    """Questions over 2 or 3 coloured images, content and retrieval tasks; `changes` go into every row."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    rows = []
    for index in range(count):
        images = 2 + index % 2
        names = []
        for image in range(images):
            name = f"{index}-{image}.png"
            pixels = rng.integers(0, 255, (32, 32, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name)
            names.append(name)
        rows.append(_row(index, names, "dev" if index < dev else "test") | changes)
    write_rows(folder / "questions.jsonl", rows)
    return folder


def write_rows(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write rows of our own JSONL."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Read rows of our own JSONL."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def make_answerable(model_folder: Path, data: Path, every: int = 4, max_new_tokens: int = 4) -> None:
    """Make the model's own answers the right ones, except for every n-th sample."""
    from probes.model import HookedModel
    from studies.multi_image import read_questions

    model = HookedModel.from_pretrained(model_folder)
    rows = read_rows(data / "questions.jsonl")
    records = {record.id: record for record in read_questions(data).records}
    for index, row in enumerate(rows):
        record = records[row["id"]]
        answer = model.generate(record.images, record.question, max_new_tokens)
        row["answer"] = "something else" if index % every == every - 1 or not answer.strip() else answer
    write_rows(data / "questions.jsonl", rows)


def _row(index: int, names: list[str], split: str) -> dict[str, Any]:
    marks = " ".join(f"{number} <image>" for number in range(1, len(names) + 1))
    target = index // 2 % 2 if len(names) == 3 else index % 2
    retrieval = len(names) == 3
    text = "Which image shows the same as the last?" if retrieval else f"What is in image {target + 1}?"
    row = {
        "id": f"q{index}",
        "question": f"{marks} {text}",
        "images": names,
        "answer": str(target + 1) if retrieval else NOUNS[index % len(NOUNS)],
        "target": target,
        "task": "retrieval" if retrieval else "content",
        "split": split,
    }
    return row if retrieval else {**row, "boxes": [[0, 0, 16, 16]]}
