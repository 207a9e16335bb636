"""Build the bundled benchmark: draw the pictures, compose the questions, write the folder that readers open.

Run as ``python -m studies.benchmark.build --emoji FOLDER --out FOLDER``; see the data card for where the pictures come
from. Same sources, same bytes: every draw comes from the seed. Knows nothing of models.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

from probes.files import write_bytes
from studies.benchmark.questions import TASKS, Draft, Pool, PoolEntry, compose, image_count
from studies.benchmark.rendering import CONCEPTS, Picture, draw
from studies.benchmark.sources import FASHION_FOLDER, NEEDLES, load_sources

HeldOut = Literal["dev", "test"]
WEBP_QUALITY = 92
FIXED_TIME = (2000, 1, 1, 0, 0, 0)


@dataclass(frozen=True)
class SplitSize:
    """How many pictures and questions one split has."""

    emoji: int
    digits: int
    clothes: int
    needles: int
    questions_per_task: int


SPLITS: dict[HeldOut, SplitSize] = {
    "dev": SplitSize(emoji=4, digits=8, clothes=8, needles=24, questions_per_task=100),
    "test": SplitSize(emoji=9, digits=20, clothes=20, needles=60, questions_per_task=400),
}


def build(emoji: Path, out: Path, fashion: Path = FASHION_FOLDER, seed: int = 20) -> dict[str, int]:
    """Write ``questions.jsonl`` and ``images.zip`` into ``out``; returns how many of each there are.

    Raises:
        FileNotFoundError: A source package is absent; the message says how to install it.
    """
    out.mkdir(parents=True, exist_ok=True)
    files: dict[str, bytes] = {}
    rows: list[dict[str, Any]] = []
    for number, (split, size) in enumerate(SPLITS.items()):
        rng = np.random.default_rng([seed, number])
        pictures = _draw_split(split, size, emoji, fashion, rng)
        entries = _name(split, pictures)
        files.update({entry.file: _webp(picture) for entry, picture in zip(entries, pictures, strict=True)})
        rows.extend(_compose_split(split, size, Pool(entries), rng))
    _write_zip(files, out / "images.zip")
    write_bytes(out / "questions.jsonl", "".join(json.dumps(row) + "\n" for row in rows).encode())
    return {"images": len(files), "questions": len(rows)}


def _draw_split(split: HeldOut, size: SplitSize, emoji: Path, fashion: Path, rng: np.random.Generator) -> list[Picture]:
    sources = load_sources(split, emoji, fashion)
    counts = {"emoji": size.emoji, "digit": size.digits, "clothes": size.clothes}
    pictures = [draw(concept, sources, rng) for concept in CONCEPTS for _ in range(counts[concept.kind])]
    hosts = [concept for concept in CONCEPTS if concept.kind == "emoji"]
    for needle in NEEDLES:
        for _ in range(size.needles):
            pictures.append(draw(hosts[int(rng.integers(len(hosts)))], sources, rng, needle))
    return pictures


def _name(split: HeldOut, pictures: Sequence[Picture]) -> list[PoolEntry]:
    """File names are running numbers: a name must not give the content away."""
    return [
        PoolEntry(f"{split}/{index:04d}.webp", picture.concept, picture.needle, picture.needle_box)
        for index, picture in enumerate(pictures)
    ]


def _compose_split(split: HeldOut, size: SplitSize, pool: Pool, rng: np.random.Generator) -> list[dict[str, Any]]:
    rows = []
    for task in TASKS:
        for number in range(size.questions_per_task):
            draft = compose(task, pool, image_count(task, rng), rng)
            rows.append(_row(f"{split}-{task}-{number:04d}", split, draft))
    return rows


def _row(identifier: str, split: HeldOut, draft: Draft) -> dict[str, Any]:
    meta: dict[str, Any] = {
        "question_template": draft.question_template,
        "answer_template": draft.answer_template,
        "last_fixed": draft.last_fixed,
    }
    if draft.hint_right is not None:
        meta["hint_right"] = draft.hint_right
    return {
        "id": identifier,
        "question": draft.question,
        "images": [f"images.zip/{file}" for file in draft.files],
        "answer": draft.answer,
        "target": draft.target,
        "task": draft.task,
        "split": split,
        "boxes": [] if draft.box is None else [list(draft.box)],
        "base": identifier,
        "scoring": "exact",
        "meta": meta,
    }


def _webp(picture: Picture) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture.pixels).save(buffer, "WEBP", quality=WEBP_QUALITY, method=6)
    return buffer.getvalue()


def _write_zip(files: dict[str, bytes], path: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, data in sorted(files.items()):
            archive.writestr(zipfile.ZipInfo(name, FIXED_TIME), data)
    write_bytes(path, buffer.getvalue())


def main() -> None:
    """Command line: ``python -m studies.benchmark.build --emoji FOLDER --out FOLDER``."""
    import tyro

    print(tyro.cli(build))


if __name__ == "__main__":
    main()
