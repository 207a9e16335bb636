"""A run folder made by hand: known verdicts, known maps, and hostile texts."""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from probes.inputs import ImageRef
from studies.runs import Manifest, RunFolder

LAYERS = (0, 1, 2, 3)
GRID = 4
SIDE = 64
HOSTILE = '<img src=x onerror="window.hacked=1"><script>window.hacked=1</script>${window.hacked=1}{{this.constructor}}'
COLOURS = ("crimson", "seagreen", "royalblue", "orange", "purple", "teal")


def make_image(seed: int) -> Image.Image:
    """A small picture that can be told from the others."""
    image = Image.new("RGB", (SIDE, SIDE), "white")
    draw = ImageDraw.Draw(image)
    at = 8 + (seed * 7) % 24
    draw.ellipse((at, at, at + 28, at + 28), fill=COLOURS[seed % len(COLOURS)])
    return image


def make_run(path: Path, samples: int = 40) -> RunFolder:
    """Write a finished run of two batches.

    Sample k has 2 + k % 3 images and its target at k % images. Verdicts by k % 5: 0 and 1 right and looking at the
    target, 2 right and looking elsewhere, 3 wrong, 4 wrong though looking at the target. The last sample is an error,
    the one before it has hostile texts.
    """
    run = RunFolder.create(path, Manifest(config={"model": "a/model", "data": "a/benchmark"}, batches=2, seeds={}))
    rng = np.random.default_rng(0)
    with run:
        focus: list[dict[str, Any]] = []
        half = samples // 2
        for batch, members in enumerate((range(half), range(half, samples))):
            tables: dict[str, list[dict[str, Any]]] = {
                name: [] for name in ("samples", "layers", "maps", "cells", "pairwise")
            }
            for index in members:
                _add_sample(run, tables, focus, index, samples, rng)
            run.write_batch(batch, tables)
        run.write_focus(focus)
        run.write_metrics([_metric("answer accuracy", 0.75), _metric("attention accuracy", 0.5)])
        run.write_file("figures/layers.png", _png())
        run.finish()
    return run


def verdict_of(index: int, samples: int) -> str:
    """What `make_run` makes of a sample."""
    if index == samples - 1:
        return "error"
    return ("right", "right", "lucky", "wrong", "saw")[index % 5]


def _add_sample(
    run: RunFolder,
    tables: dict[str, list[dict[str, Any]]],
    focus: list[dict[str, Any]],
    index: int,
    samples: int,
    rng: np.random.Generator,
) -> None:
    name, count = f"sample-{index:04d}", 2 + index % 3
    target, kind = index % count, verdict_of(index, samples)
    failed = kind == "error"
    digests = [run.save_image(ImageRef.of(make_image(index + image))) for image in range(count)]
    tables["samples"].append(
        {
            "sample_id": name,
            "cluster": name,
            "task": ("content", "needle")[index % 2],
            "split": "dev" if index % 4 == 0 else "test",
            "n_images": count,
            "target": target,
            "answer": None if failed else HOSTILE if index == samples - 2 else f"thing {index}",
            "gold": f"thing {index}",
            "correct": None if failed else kind in ("right", "lucky"),
            "log_probability": None if failed else -0.5,
            "answer_tokens": 2,
            "question": HOSTILE if index == samples - 2 else f"what is in image {target + 1} ?",
            "image_digests": digests,
            "image_widths": [SIDE] * count,
            "image_heights": [SIDE] * count,
            "boxes": [[0, 0, SIDE / 2, SIDE / 4]] if index % 2 else [],
            "error": "image 2 is truncated: save it again" if failed else None,
        }
    )
    if failed:
        return
    looked = target if kind in ("right", "saw") else (target + 1) % count
    for rows in ("paper", "predicting"):
        focus.append({"sample_id": name, "rows": rows, "rule": "M-LND", "last": 2, "focus": looked})
        for layer in LAYERS:
            for image in range(count):
                scores = rng.uniform(0.0, 0.01, GRID * GRID)
                scores[layer * GRID + layer] += 0.05 if image == looked else 0.0
                tables["maps"].append(
                    {"sample_id": name, "rows": rows, "layer": layer, "image": image, "map": scores.astype(np.float16)}
                )
                tables["layers"].append(
                    {
                        "sample_id": name,
                        "rows": rows,
                        "layer": layer,
                        "layer_kind": "attention",
                        "measure": "factor",
                        "image": image,
                        "head": -1,
                        "factor": float(scores.mean()),
                    }
                )
    for layer in LAYERS:
        for source in range(count + 1):
            for aim in range(count + 1):
                factor = None if source < aim < count else float(rng.uniform(0, 0.01))
                tables["pairwise"].append(
                    {"sample_id": name, "layer": layer, "from_image": source, "to_image": aim, "factor": factor}
                )
    step = SIDE / GRID
    for image in range(count):
        for cell in range(GRID * GRID):
            row, column = divmod(cell, GRID)
            tables["cells"].append(
                {
                    "sample_id": name,
                    "image": image,
                    "token": cell,
                    "tile": 0,
                    "frame": 0,
                    "row": row,
                    "column": column,
                    "thumbnail": False,
                    "left": column * step,
                    "top": row * step,
                    "right": (column + 1) * step,
                    "bottom": (row + 1) * step,
                    "kept": True,
                }
            )


def _metric(name: str, value: float) -> dict[str, Any]:
    estimate = {"value": value, "n": 38, "low": value - 0.1, "high": value + 0.1, "clusters": 38}
    return {
        "name": name,
        "rows": "paper",
        "rule": "M-LND",
        "last": 2,
        "task": None,
        "layer": None,
        "estimate": estimate,
    }


def _png() -> bytes:
    import io

    buffer = io.BytesIO()
    Image.new("RGB", (320, 200), "lightsteelblue").save(buffer, "PNG")
    return buffer.getvalue()
