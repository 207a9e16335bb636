"""One cell of the scale bench: its questions and model, and the processes that audit them and open the run.

Knows nothing of cells beside its own; imports torch only where a process runs.
"""

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from studies.bench_child import config_from, result_of, run_child
from studies.bench_process import resident

GENERATED, GIVEN = "generated", "given"
WORDS = ("cat", "dog", "ball", "tree")


@dataclass(frozen=True)
class ScaleBench:
    """Measure how time and memory of an audit grow with the number of questions.

    Every cell is an audit in a process of its own: short questions over one or two small images, a tiny random model.
    Results are written as JSON, cell by cell.
    """

    rows: tuple[int, ...] = (10_000, 30_000, 100_000)
    """Numbers of questions."""
    kinds: tuple[str, ...] = (GENERATED, GIVEN)
    """Whether the model generates its answers, or they are given (`audit --answers`)."""
    pictures: int = 10_000
    """Different images; questions share them when there are more."""
    pixels: int = 32
    """Side of an image."""
    batch_size: int = 128
    """Most questions in a batch."""
    max_new_tokens: int = 2
    """Longest answer, in tokens."""
    maps: Literal["errors", "sample", "all", "none"] = "sample"
    """Maps that the audit keeps; see `audit --help`."""
    threads: int = 1
    """torch threads."""
    seed: int = 0
    """Seed of images, questions and weights."""
    folder: Path = Path("runs/bench-scale")
    """Where questions, model and runs are made; a cell's are deleted when it is measured."""
    out: Path | None = None
    """Where results are written as JSON, anew after every cell; none writes nothing."""
    resume: bool = False
    """Go on from what an interrupted bench left in --out."""
    overwrite: bool = False
    """Replace what --out holds, cell by cell."""


def write_questions(config: ScaleBench, rows: int, folder: Path) -> Path:
    """Write questions of our own JSONL, their images, and a file of given answers; returns their folder.

    Odd questions have one image, even ones two; a tenth is the dev split. Half of the given answers are right.
    """
    import numpy as np
    from PIL import Image

    rng = np.random.default_rng(config.seed)
    pictures = min(config.pictures, 2 * rows)
    (folder / "images").mkdir(parents=True)
    for number in range(pictures):
        pixels = rng.integers(0, 255, (config.pixels, config.pixels, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "images" / f"{number}.png")
    with (folder / "questions.jsonl").open("w") as questions, (folder.with_suffix(".jsonl")).open("w") as answers:
        for index in range(rows):
            count = 1 + index % 2
            word = WORDS[index % len(WORDS)]
            row = {
                "id": f"sample-{index}",
                "question": f"What is in image {count}?",
                "images": [f"images/{number}.png" for number in rng.integers(0, pictures, count).tolist()],
                "answer": word,
                "target": count - 1,
                "task": f"task {index % 3}",
                "split": "dev" if index % 10 == 0 else "test",
            }
            questions.write(f"{json.dumps(row)}\n")
            given = word if index // 4 % 2 else WORDS[0]
            answers.write(f"{json.dumps({'id': row['id'], 'answer': given})}\n")
    return folder


def save_model(config: ScaleBench, folder: Path) -> Path:
    """Save a tiny random LLaVA and the bundled model's processor."""
    from transformers import AutoProcessor

    from studies.bundled import BUNDLED_MODEL
    from studies.dense.model import Size, build_model

    processor = AutoProcessor.from_pretrained(BUNDLED_MODEL)
    size = Size("tiny", 16, 1, 32, 2, 4, 2, 48)
    build_model(size, processor.tokenizer, config.seed).save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def in_process(config: ScaleBench, task: str, folder: Path, kind: str) -> dict[str, Any]:
    """Run `audit` or `open` over a cell's folder in a process of its own; returns what it measured, or its error."""
    given = {"config": {**asdict(config), "folder": str(config.folder), "out": None}, "task": task}
    done = run_child(__name__, {**given, "folder": str(folder), "kind": kind}, config.threads)
    if done.returncode:
        return {"error": f"{task} ended with exit status {done.returncode}"}
    measured: dict[str, Any] = result_of(done)
    return measured


def main(task: str) -> None:
    """Run one process's share of a cell here, and print it as a line of JSON."""
    given = json.loads(task)
    config, folder = config_from(ScaleBench, given["config"]), Path(given["folder"])
    measure: dict[str, Callable[[], dict[str, Any]]] = {
        "audit": lambda: audit_here(config, folder, given["kind"]),
        "open": lambda: open_here(folder),
    }
    print(json.dumps(measure[given["task"]]()))


def audit_here(config: ScaleBench, folder: Path, kind: str) -> dict[str, Any]:
    """Audit a cell's questions; wall-clock seconds, and resident bytes before and at the height."""
    import torch
    import transformers

    from studies.audit import AuditConfig, run

    torch.set_num_threads(config.threads)
    # What every audit loads is in the figure before, so that the difference is the questions' own.
    _ = transformers.AutoModelForImageTextToText, transformers.AutoProcessor
    before, start = resident("VmRSS"), time.perf_counter()
    maps: Any = config.maps
    status = run(
        AuditConfig(
            model=str(folder / "model"),
            data=str(folder / "data"),
            out=folder / "run",
            batch_size=config.batch_size,
            max_new_tokens=config.max_new_tokens,
            maps=maps,
            answers=folder / "data.jsonl" if kind == GIVEN else None,
            seed=config.seed,
            device="cpu",
        )
    )
    if status:
        raise SystemExit(status)
    return {"seconds": time.perf_counter() - start, "loaded": before, "peak": resident("VmHWM")}


def open_here(folder: Path) -> dict[str, Any]:
    """Open a run as the explorer does: what its Runs view shows first, and the page at the end of a filter."""
    from studies.explorer.run_pages import summary, table
    from studies.explorer.run_samples import PAGE, Filters, choices, page
    from studies.runs import RunFolder

    before, start = resident("VmRSS"), time.perf_counter()
    run = RunFolder.open(folder / "run")
    filters = Filters(rule=choices(run).rules[0])
    summary(run)
    first = page(run, filters)
    table(first)
    opened = time.perf_counter() - start
    table(page(run, filters, first.total - PAGE))
    last = time.perf_counter() - start - opened
    return {"opened": opened, "last_page": last, "open_loaded": before, "open_peak": resident("VmHWM")}
