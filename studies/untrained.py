"""The untrained control: random weights in the model's own architecture, asked the same questions.

An untrained model has no right answers, so P(focus = target | right) is undefined for it. Its control is P(focus =
target) with the right answer teacher-forced, over target places that are balanced, ties shared, over many seeds of
the weights. If the measure favoured any place or row by itself, it would show here. Image-to-image samples count under
the rows of their anchor only, over their candidates: under text rows the focus may fall on the anchor too, which is
never the target, so no line of chance holds there. Importing it loads no torch.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from probes.inputs import InputError
from probes.scores import RULES, chance_level, shared_focus_rate
from studies.auditing.evidence import FloatArray, IntArray
from studies.bundled import BUNDLED_DATA, BUNDLED_MODEL
from studies.multi_image import MultiImageQuestion
from studies.options import refuse_below, refuse_file
from studies.run_folder.files import write_json

if TYPE_CHECKING:
    from probes.model import HookedModel

TEXT_ROWS = ("paper", "predicting")
ANCHOR_ROWS = ("anchor",)
ROWS = (*TEXT_ROWS, *ANCHOR_ROWS)
LAST = 4
WRITTEN = ("untrained.json", "layers.png")
LEAST_SEEDS = 20
"""Seeds below which the control is not called one: its interval is over seeds."""


@dataclass(frozen=True)
class UntrainedConfig:
    """Ask an untrained copy of a model the same questions: the line that chance draws.

    The right answer is teacher-forced, every question is asked with its target at every place, ties are shared, and
    intervals are clustered by the seed of the weights. Writes untrained.json and layers.png.
    """

    model: str = str(BUNDLED_MODEL)
    """Folder or hub id of the model whose architecture and processor are used."""
    data: str = str(BUNDLED_DATA)
    """Folder, file or hub id of the questions."""
    out: Path = Path("runs/untrained")
    """The folder to write; earlier results in it stay, unless --overwrite is given."""
    overwrite: bool = False
    """Replace the results that --out holds, once the new ones are there."""
    seeds: int = LEAST_SEEDS
    """Seeds of the weights, at least 20."""
    samples: int = 40
    """Questions, drawn evenly over tasks; each is asked with its target at every place."""
    batch_size: int = 32
    """Most samples in a batch."""
    seed: int = 0
    """Seed of the draw, and of the first weights."""
    device: str | None = None
    """Where the model runs, such as cuda:0; by default a GPU if there is one. Weights are always float32."""


class Traced(NamedTuple):
    """Factors of all samples under all seeds, one row each."""

    layers: tuple[int, ...]
    factors: dict[str, FloatArray]
    """By row set (seeds * samples, layers, images), padded with NaN; all NaN where a sample has no such rows."""
    target: IntArray
    seed: IntArray


def run(config: UntrainedConfig) -> int:
    """Run the control, write its numbers and figure, and print them; returns 0.

    Raises:
        InputError: If an option is out of range, --out holds results, no sample can be moved, or the model cannot be
            used; nothing has been written then.
    """
    from studies.auditing.figures import untrained_figure
    from studies.run_folder.files import write_bytes

    check(config)
    records = balanced(config)
    trained = _load(config)
    traced = trace_seeds(lambda seed: reinitialised(trained, seed), records, config)
    entries = untrained_metrics(traced)
    write_json(config.out / WRITTEN[0], _record(config, len(records), entries))
    write_bytes(config.out / WRITTEN[1], untrained_figure(entries))
    for entry in entries:
        if entry["layer"] is None:
            estimate, chance = entry["estimate"], entry["chance"]
            print(
                f"{entry['rows']}, {entry['rule']} over the last {entry['last']}: P(focus = target) "
                f"{estimate['value']:.3f} [{estimate['low']:.3f}, {estimate['high']:.3f}], chance {chance:.3f} "
                f"({config.seeds} seeds, {estimate['n'] // config.seeds} samples)"
            )
    held = sum(_holds_chance(entry) for entry in entries)
    print(f"{held} of {len(entries)} intervals (rules and single layers) hold chance; 95 % of them should.")
    print(f"Written: {config.out / WRITTEN[0]}")
    return 0


def check(config: UntrainedConfig) -> None:
    """Refuse impossible options before anything is loaded.

    Raises:
        InputError: Naming the option and what it takes.
    """
    if config.seeds < LEAST_SEEDS:
        raise InputError(f"--seeds must be at least {LEAST_SEEDS}, not {config.seeds}: the interval is over seeds")
    refuse_below(config, {"samples": 1, "batch_size": 1, "seed": 0})
    refuse_file(config.out)
    held = next((name for name in WRITTEN if (config.out / name).exists()), None)
    if held is not None and not config.overwrite:
        raise InputError(f"--out {config.out} holds a {held}: give --overwrite to replace it, or another folder")


def balanced(config: UntrainedConfig) -> list[MultiImageQuestion]:
    """Draw questions and put each one's target at every place.

    Raises:
        InputError: If no sample of the data can be moved.
    """
    from studies.auditing.plan import draw_evenly
    from studies.multi_image import read_questions
    from studies.position import position_study, why_fixed

    found = [
        record for record in read_questions(config.data).records if record.split != "dev" and why_fixed(record) is None
    ]
    chosen = set(draw_evenly({record.id: record.task for record in found}, config.samples, config.seed))
    moved, _ = position_study(record for record in found if record.id in chosen)
    if not moved:
        raise InputError(f"{config.data} has no test sample whose target can be moved")
    return moved


def reinitialised(trained: "HookedModel", seed: int) -> "HookedModel":
    """The model's architecture with fresh weights, as transformers initialises them, and the same processor."""
    import torch
    from transformers import AutoModelForImageTextToText

    from probes.model import HookedModel

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = AutoModelForImageTextToText.from_config(trained.model.config, dtype=torch.float32)
    return HookedModel(model.to(trained.device), trained.processor)


def trace_seeds(
    build: Callable[[int], "HookedModel"], records: Sequence[MultiImageQuestion], config: UntrainedConfig
) -> Traced:
    """Trace all samples, right answers teacher-forced, under every seed.

    Args:
        build: Makes the model of a seed.
        records: Samples with balanced target places.
        config: Number of seeds and batch size.
    """
    from studies.auditing.image_facts import ImageFacts
    from studies.auditing.inputs import items
    from studies.auditing.plan import plan_batches
    from studies.auditing.progress import Counter

    by_id = {record.id: record for record in records}
    plan = plan_batches(items(build(config.seed), records, ImageFacts()), config.batch_size)
    widest = max(len(record.images) for record in records)
    parts: dict[str, list[FloatArray]] = {rows: [] for rows in ROWS}
    layers: tuple[int, ...] = ()
    order = [by_id[name] for batch in plan for name in batch.ids]
    with Counter("untrained control", config.seeds * len(records)) as counter:
        for number in range(config.seeds):
            model = build(config.seed + number)
            for batch in plan:
                traces = _traces(model, [by_id[name] for name in batch.ids])
                layers = tuple(traces[0].layers)
                for rows, part in parts.items():
                    part += [_padded(trace.factors_by_rows.get(rows), len(layers), widest) for trace in traces]
                counter.advance(len(batch.ids))
    return Traced(
        layers=layers,
        factors={rows: table for rows, part in parts.items() if not np.isnan(table := np.stack(part)).all()},
        target=np.tile([record.target or 0 for record in order], config.seeds).astype(np.int64),
        seed=np.repeat(np.arange(config.seeds), len(order)).astype(np.int64),
    )


def untrained_metrics(traced: Traced) -> list[dict[str, Any]]:
    """P(focus = target), ties shared, by rule and by layer, clustered by weight seed, with the chance line."""
    entries: list[dict[str, Any]] = []
    for rows, recorded in traced.factors.items():
        has_rows = ~np.isnan(recorded).all(axis=(1, 2))
        factors, target, seed = recorded[has_rows], traced.target[has_rows], traced.seed[has_rows]
        chance = chance_level((~np.isnan(factors).all(axis=1)).sum(axis=-1))
        for rule, last, layer, table in _views(factors, traced.layers):
            estimate = shared_focus_rate(table, target, rule, last, seed)
            entries.append(
                {
                    "name": "untrained_focus_on_target",
                    "rows": rows,
                    "rule": None if layer is not None else rule,
                    "last": None if layer is not None else last,
                    "layer": layer,
                    "estimate": estimate.to_dict(),
                    "chance": chance,
                }
            )
    return entries


def _holds_chance(entry: dict[str, Any]) -> bool:
    return bool(entry["estimate"]["low"] <= entry["chance"] <= entry["estimate"]["high"])


def _views(factors: FloatArray, layers: Sequence[int]) -> Iterator[tuple[str, int, int | None, FloatArray]]:
    for rule in RULES:
        yield rule, min(LAST, len(layers)), None, factors
    for index, layer in enumerate(layers):
        yield RULES[0], 1, layer, factors[:, [index]]


def _traces(model: "HookedModel", records: Sequence[MultiImageQuestion]) -> list[Any]:
    """Traces of a batch, whose samples are all image-to-image ones or none of them."""
    from probes.model import Question
    from studies.position import is_anchored

    questions = [Question(record.images, record.question) for record in records]
    rows = ANCHOR_ROWS if is_anchored(records[0]) else TEXT_ROWS
    return list(model.trace_batch(questions, answers=[record.answer for record in records], rows=rows, maps=False))


def _padded(factors: Any, layers: int, widest: int) -> FloatArray:
    table = np.full((layers, widest), np.nan)
    if factors is not None:
        table[:, : factors.shape[1]] = factors
    return table


def _load(config: UntrainedConfig) -> "HookedModel":
    from transformers.utils.logging import disable_progress_bar

    from probes.model import HookedModel
    from studies.auditing.inputs import check_device

    disable_progress_bar()
    check_device(config.device)
    return HookedModel.from_pretrained(config.model, device=config.device)


def _record(config: UntrainedConfig, samples: int, entries: list[dict[str, Any]]) -> dict[str, Any]:
    """What `untrained.json` holds."""
    from studies.run_folder.files import now
    from studies.run_folder.manifest import package_versions, plain_config

    made = {"config": plain_config(config), "versions": package_versions(), "created": now()}
    return {**made, "samples": samples, "entries": entries}
