"""The untrained control: random weights in the model's own architecture, asked the same questions.

An untrained model has no right answers, so P(focus = target | right) is undefined for it. Its control is P(focus =
target) with the right answer teacher-forced, over target places that are balanced, ties shared, over many seeds of
the weights. If the measure favoured any place or row by itself, it would show here. Image-to-image samples count under
the rows of their anchor only, over their candidates: under text rows the focus may fall on the anchor too, which is
never the target, so no line of chance holds there. Importing it loads no torch.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from probes.inputs import InputError
from probes.scores import RULES, chance_level, shared_focus_rate
from studies.auditing.evidence import FloatArray
from studies.bundled import BUNDLED, data_source, model_source
from studies.multi_image import MultiImageQuestion
from studies.options import ModelOptions, refuse_below, refuse_file, say_interrupted
from studies.run_folder.files import write_json
from studies.untrained_seeds import FinishedSeeds, Traced, holds_seeds, trace_seeds

if TYPE_CHECKING:
    from probes.model import HookedModel

LAST = 4
WRITTEN = ("untrained.json", "layers.png")
SEEDS_FOLDER = "seeds"
LEAST_SEEDS = 20
"""Seeds below which the control is not called one: its interval is over seeds."""


@dataclass(frozen=True)
class UntrainedConfig(ModelOptions):
    """Ask an untrained copy of a model the same questions: the line that chance draws.

    The right answer is teacher-forced, every question is asked with its target at every place, ties are shared, and
    intervals are clustered by the seed of the weights, which are always float32. Writes untrained.json and layers.png.
    """

    model: str = BUNDLED
    """Folder or hub id of the model whose architecture and processor are used; bundled is the one that comes along."""
    data: str = BUNDLED
    """Folder, file or hub id of the questions; bundled is the benchmark that comes along."""
    out: Path = Path("runs/untrained")
    """The folder to write; earlier results in it stay, unless --overwrite is given."""
    overwrite: bool = False
    """Replace the results that --out holds, once the new ones are there."""
    resume: bool = False
    """Go on after the last seed that an interrupted run with the same options finished."""
    seeds: int = LEAST_SEEDS
    """Seeds of the weights, at least 20."""
    samples: int = 40
    """Questions, drawn evenly over tasks; each is asked with its target at every place."""
    batch_size: int = 32
    """Most samples in a batch."""
    seed: int = 0
    """Seed of the draw, and of the first weights."""


def run(config: UntrainedConfig) -> int:
    """Run the control, write its numbers and figure, and print them; returns 0, or 130 if it was interrupted.

    Raises:
        InputError: If an option is out of range, --out holds results or half of some, no sample can be moved, or the
            model cannot be used; nothing has been written then.
    """
    from studies.auditing.figures import untrained_figure
    from studies.run_folder.files import write_bytes

    check(config)
    records = balanced(config)
    trained = _load(config)
    finished = FinishedSeeds(config.out / SEEDS_FOLDER, _identity(config, trained, records), config.resume)
    try:
        traced = trace_seeds(lambda seed: reinitialised(trained, seed), records, config, finished)
    except KeyboardInterrupt:
        if holds_seeds(finished.folder):
            say_interrupted("untrained", config, "seeds")
        return 130
    entries = untrained_metrics(traced)
    write_json(config.out / WRITTEN[0], _record(config, len(records), entries))
    write_bytes(config.out / WRITTEN[1], untrained_figure(entries))
    finished.remove()
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
    if config.resume and config.overwrite:
        raise InputError("--resume goes on with a control and --overwrite replaces it: leave one out")
    if config.resume or config.overwrite:
        return
    if holds_seeds(config.out / SEEDS_FOLDER):
        raise InputError(f"--out {config.out} holds finished seeds: give --resume to go on, --overwrite to start again")
    held = next((name for name in WRITTEN if (config.out / name).exists()), None)
    if held is not None:
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
        record
        for record in read_questions(data_source(config.data)).records
        if record.split != "dev" and why_fixed(record) is None
    ]
    chosen = set(draw_evenly({record.id: record.task for record in found}, config.samples, config.seed))
    moved, _ = position_study(record for record in found if record.id in chosen)
    if not moved:
        raise InputError(f"{config.data} has no test sample whose target can be moved")
    return moved


def reinitialised(trained: "HookedModel", seed: int) -> "HookedModel":
    """The model's architecture with fresh weights, as transformers initialises them, and the same processor."""
    import torch

    from probes.model import HookedModel

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = type(trained.model)._from_config(trained.model.config, dtype=torch.float32)
    return HookedModel(model.to(trained.device), trained.processor)


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


def _load(config: UntrainedConfig) -> "HookedModel":
    from transformers.utils.logging import disable_progress_bar

    from probes.model import HookedModel
    from studies.auditing.inputs import check_device

    disable_progress_bar()
    check_device(config.device)
    return HookedModel.from_pretrained(
        model_source(config.model),
        **config.loading(),
    )


def _identity(config: UntrainedConfig, trained: "HookedModel", records: Sequence[MultiImageQuestion]) -> dict[str, Any]:
    """What the factors of a seed depend on."""
    from studies.auditing.image_facts import ImageFacts
    from studies.auditing.inputs import data_digest, model_digest
    from studies.run_folder.manifest import package_versions

    return {
        "model_digest": model_digest(model_source(config.model), trained),
        "data_digest": data_digest(records, {}, ImageFacts()),
        "batch_size": config.batch_size,
        "device": str(trained.device),
        "versions": package_versions(),
    }


def _record(config: UntrainedConfig, samples: int, entries: list[dict[str, Any]]) -> dict[str, Any]:
    """What `untrained.json` holds."""
    from studies.run_folder.files import now
    from studies.run_folder.manifest import package_versions, plain_config

    made = {"config": plain_config(config), "versions": package_versions(), "created": now()}
    return {**made, "samples": samples, "entries": entries}
