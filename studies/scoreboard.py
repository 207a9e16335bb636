"""The scoreboard: instruments beside the attention factor, ranked by whether they name the image that matters.

Each image in turn is knocked out, and the one whose loss hurts the answer most is what every instrument should have
named. Rule and layers of each are chosen on the dev split and scored on the test samples. Attention is held in full, so
this is for short samples. Importing it loads no torch.
"""

import sys
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from probes.errors import counted
from probes.inputs import InputError
from studies.bundled import BUNDLED, data_source, model_source
from studies.options import ModelOptions, Precision, QuestionOptions, refuse_below, say_interrupted
from studies.overwrite import check_out, remove_run

if TYPE_CHECKING:
    from probes.model import HookedModel
    from studies.auditing.image_facts import ImageFacts
    from studies.auditing.plan import Batch
    from studies.multi_image import MultiImageQuestion
    from studies.runs import RunFolder

BATCH = 16
"""Samples that are written together."""
_NOT_IDENTITY = ("out", "resume", "overwrite", "trust_remote_code", "allow_pickle", "device")


@dataclass(frozen=True)
class ScoreboardConfig(QuestionOptions, ModelOptions):
    """Rank the attention factor and eight other instruments by agreement with knock-out.

    Sinks removed, relative to a generic prompt, value-norm-weighted, rollout, gradient x attention, logit lens, linear
    probes and localisation heads. Needs questions with a dev and a test split. Writes a run folder with every score,
    metrics.json and figures.
    """

    model: str = BUNDLED
    """Folder or hub id of the model, whose processor must lie beside it; bundled is the one that comes along."""
    data: str = BUNDLED
    """Folder, file or hub id of the questions; bundled is the benchmark that comes along."""
    out: Path = Path("runs/scoreboard")
    """The run folder to write; it must be new, unless --resume is given."""
    resume: bool = False
    """Go on with a run that was interrupted."""
    overwrite: bool = False
    """Replace the run that --out holds, once model and data have proved usable."""
    samples: int = 480
    """Test questions, drawn evenly over tasks."""
    dev: int = 300
    """Questions of the dev split, drawn evenly over tasks, on which rules, layers, heads and probes are chosen."""
    max_new_tokens: int = 32
    """Longest answer, in tokens."""
    generic: str = "Describe the images."
    """The question that says nothing of any one image; the relative factor divides by it."""
    sink_threshold: float = 0.3
    """Mean attention from the rows behind it above which a column is a sink."""
    limit_mib: int = 1024
    """Most MiB of attention that one sample may take, over all layers and heads; larger samples are refused."""
    seed: int = 0
    """Seed of the draw, and of the shuffled control of the probes."""
    dtype: Precision = "float32"
    """Number format of the weights; auto takes the checkpoint's."""


class _Prepared(NamedTuple):
    """What a scoreboard holds before its first batch: nothing has been written yet."""

    model: "HookedModel"
    records: dict[str, "MultiImageQuestion"]
    plan: list["Batch"]
    facts: "ImageFacts"
    unusable: int
    """Questions that could not be read, so that none of them could be drawn."""


class Drawn(NamedTuple):
    """The questions of a scoreboard."""

    records: list["MultiImageQuestion"]
    unusable: int
    """Questions of the data that could not be read, so that none of them could be drawn."""


def run(config: ScoreboardConfig) -> int:
    """Measure, rank and draw; prints the ranks.

    Returns:
        0 if every sample went well, 1 if some failed or questions were unusable, 130 if interrupted.

    Raises:
        InputError: If an option is out of range, model or data cannot be used, or no sample is left to rank by.
    """
    from studies.auditing.summary import failures
    from studies.instruments.beside import beside
    from studies.instruments.evidence import read_evidence
    from studies.instruments.figures import draw_figures
    from studies.instruments.measuring import measure
    from studies.instruments.ranking import rank
    from studies.instruments.report import print_ranks

    check(config)
    prepared = _prepare(config)
    if config.overwrite:
        remove_run(config.out, "scoreboard")
    with _open_folder(config, prepared) as folder:
        try:
            measure(prepared.model, prepared.plan, prepared.records, _settings(config), folder, prepared.facts)
        except KeyboardInterrupt:
            say_interrupted("scoreboard", config, "batches")
            return 130
        folder.compact()
        evidence = read_evidence(folder)
        entries = [*rank(evidence), *beside(evidence, config.seed)]
        folder.write_metrics(entries)
        draw_figures(folder, entries)
        folder.finish()
        failed = failures(folder)
    print_ranks(entries)
    print(f"Written: {config.out}")
    if failed:
        first = failed[0]
        print(f"{counted(len(failed), 'sample')} failed; the first, {first.sample}: {first.error}", file=sys.stderr)
    if prepared.unusable:
        print(f"{counted(prepared.unusable, 'question')} unusable, and not among those drawn from", file=sys.stderr)
    return 1 if failed or prepared.unusable else 0


def check(config: ScoreboardConfig) -> None:
    """Refuse impossible options before anything is loaded.

    Raises:
        InputError: Naming the option and what it takes.
    """
    refuse_below(config, {"samples": 1, "dev": 2, "max_new_tokens": 1, "limit_mib": 1, "seed": 0})
    if not 0 < config.sink_threshold < 1:
        raise InputError(f"--sink-threshold is a share between 0 and 1, not {config.sink_threshold}")
    if not config.generic.strip():
        raise InputError("--generic is empty: give a question that says nothing of any one image")
    check_out(config.out, "scoreboard", resume=config.resume, overwrite=config.overwrite)


def draw_records(config: ScoreboardConfig) -> Drawn:
    """Draw questions of two images and more, evenly over tasks, from the dev split and from the others.

    Raises:
        InputError: If the data have none on either side.
    """
    from studies.auditing.choices import DEV
    from studies.auditing.plan import draw_evenly
    from studies.multi_image import read_questions

    source = data_source(config.data)
    found = read_questions(source, **config.reading())
    read = [each for each in found.records if len(each.images) > 1]
    first = f" (the first, {found.bad[0].id}: {found.bad[0].error})" if found.bad else ""
    print(
        f"{config.data}: {counted(len(found), 'question')}, {len(found.bad)} unusable{first}, "
        f"{len(found.records) - len(read)} with one image left out",
        file=sys.stderr,
    )
    chosen: list[MultiImageQuestion] = []
    for count, in_dev in ((config.dev, True), (config.samples, False)):
        side = {each.id: each for each in read if (each.split == DEV) == in_dev}
        names = draw_evenly({name: each.task for name, each in side.items()}, count, config.seed)
        if not names:
            raise InputError(
                f"{config.data} has no {'dev' if in_dev else 'test'} question with two images: instruments are chosen "
                "on the split `dev` and scored on the others"
            )
        chosen += [side[name] for name in names]
    if len({each.target for each in chosen if each.split == DEV and each.target is not None}) < 2:
        raise InputError(
            f"{config.data}: the dev questions name their target at fewer than two places, so no probe and no head can "
            "be chosen on them; give others, or a larger --dev"
        )
    return Drawn(chosen, len(found.bad))


def _prepare(config: ScoreboardConfig) -> _Prepared:
    from transformers.utils.logging import disable_progress_bar

    from probes.model import HookedModel
    from studies.auditing.image_facts import ImageFacts
    from studies.auditing.inputs import check_device, items
    from studies.auditing.plan import plan_batches
    from studies.instruments.measuring import preflight

    check_device(config.device)
    records, unusable = draw_records(config)
    disable_progress_bar()
    model = HookedModel.from_pretrained(
        model_source(config.model),
        dtype=config.dtype,
        **config.loading(),
    )
    preflight(model, records, _settings(config))
    facts = ImageFacts()
    plan = plan_batches(items(model, records, facts), BATCH)
    return _Prepared(model, {each.id: each for each in records}, plan, facts, unusable)


def _settings(config: ScoreboardConfig) -> Any:
    from studies.instruments.measuring import Settings

    return Settings(config.max_new_tokens, config.generic, config.sink_threshold, config.limit_mib * 2**20)


def _open_folder(config: ScoreboardConfig, prepared: _Prepared) -> "RunFolder":
    from studies.auditing.inputs import data_digest, model_digest
    from studies.runs import Manifest, RunFolder

    shown = {entry.name: getattr(config, entry.name) for entry in fields(config) if entry.name not in _NOT_IDENTITY}
    parameters = sum(weight.numel() for weight in prepared.model.model.parameters())
    manifest = Manifest(
        config={"study": "scoreboard", **shown, "parameters": parameters},
        batches=len(prepared.plan),
        seeds={"seed": config.seed},
        model_digest=model_digest(model_source(config.model), prepared.model),
        data_digest=data_digest(prepared.records.values(), {}, prepared.facts),
    )
    return RunFolder.create(config.out, manifest, resume=config.resume)
