"""One audit: model and questions in, run folder out. Reads the config, prepares, and calls the parts in order.

It knows the order of the work and what a user did wrong. Batches are computed in `auditing.run`, numbers in `finalise`,
pictures in `auditing.figures`, the page in `report`. Importing it loads no torch.
"""

import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from probes.errors import counted
from studies.auditing.opening import open_folder
from studies.bundled import BUNDLED, data_source, model_source
from studies.options import ModelOptions, Precision, QuestionOptions

if TYPE_CHECKING:
    from probes.model import HookedModel
    from studies.auditing.processes import Processes
    from studies.auditing.run import Work
    from studies.runs import RunFolder

MAP_SAMPLE = 200
"""Samples whose maps are kept under `--maps sample`."""


@dataclass(frozen=True)
class AuditConfig(QuestionOptions, ModelOptions):
    """Audit a vision-language model: does it look at the right image before it answers?

    Writes a run folder with one row per sample, attention to each image in each layer, metrics with intervals,
    figures and a self-contained report.html. Without options it audits the bundled model on the bundled benchmark.
    """

    model: str = BUNDLED
    """Folder or hub id of the model, whose processor must lie beside it; bundled is the one that comes along."""
    data: str = BUNDLED
    """Folder, file or hub id of the questions; bundled is the benchmark that comes along."""
    out: Path = Path("runs/audit")
    """The run folder to write; it must be new, unless --resume is given."""
    split: str | None = None
    """Take only this split. The focus rule is chosen on the split `dev`; without it a fixed rule is used."""
    limit: int | None = None
    """Take at most this many samples, drawn evenly over splits and tasks."""
    batch_size: int = 32
    """Most samples in a batch; batches hold prompts of equal length."""
    max_new_tokens: int = 32
    """Longest answer, in tokens."""
    maps: Literal["errors", "sample", "all", "none"] = "errors"
    """Maps to keep: of wrong answers and where a rule's focus misses the target, of 200 samples, all, or none."""
    per_head: bool = False
    """Keep the attention factors of every head besides their mean."""
    mixers: bool = True
    """Read the hidden attention of layers without softmax (Mamba, gated delta nets), in the same pass."""
    position_study: bool = False
    """Ask every test question again with its target image at every place."""
    causal: int = 0
    """Test samples on which images are blanked, swapped and knocked out, to see how far the maps can be trusted."""
    answers: Path | None = None
    """File of answers made elsewhere (JSON, JSONL, CSV or TSV by sample id): score these, generate none."""
    resume: bool = False
    """Go on with a run that was interrupted."""
    dry_run: bool = False
    """Print batches, tokens per sample, memory, time and what would be recorded, and write nothing."""
    overwrite: bool = False
    """Replace the run that --out holds, once model and data have proved usable."""
    seed: int = 0
    """Seed of every draw; answers are generated greedily."""
    dtype: Precision = "auto"
    """Number format of the weights; auto takes the checkpoint's."""
    device_map: str | None = None
    """Spread a model larger than one device, as accelerate does: auto, balanced, balanced_low_0 or sequential."""


@dataclass(frozen=True)
class Prepared:
    """What an audit holds before its first batch: nothing has been written yet."""

    config: AuditConfig
    model: "HookedModel"
    work: "Work"
    identity: Mapping[str, Any]
    """What is read, by name and digest."""


def run(config: AuditConfig) -> int:
    """Audit a model and say what was found.

    Returns:
        0 if every sample went well, 1 if some failed (or would, under `dry_run`), 130 if interrupted.

    Raises:
        InputError: If arguments, model or data cannot be used; nothing has been written then.
    """
    from studies.auditing.processes import join
    from studies.options import say_interrupted
    from studies.overwrite import remove_run

    processes = join(config.device, config.device_map)
    with processes.together():
        check(config)
    with processes.together(), processes.one_voice():
        prepared = prepare(config, processes.device)
        moved = prepare_moved(prepared) if config.position_study else None
    processes.refuse_difference(model=prepared.identity["model_digest"], data=prepared.identity["data_digest"])
    if config.dry_run:
        from studies.auditing.dry_run import dry_run

        with processes.together():
            status = dry_run(prepared, moved) if processes.is_main else 0
        status = processes.agreed(status)
        processes.leave()
        return status
    with processes.together():
        if config.overwrite and processes.is_main:
            remove_run(config.out, "audit")
    with open_folder(prepared, processes) as folder:
        try:
            _compute(prepared, moved, folder, processes)
            with processes.together():
                status = _conclude(folder) if processes.is_main else 0
        except KeyboardInterrupt:
            if processes.is_main:
                say_interrupted("audit", config, "batches")
            return 130
    status = processes.agreed(status)
    processes.leave()
    return status


def _conclude(folder: "RunFolder") -> int:
    """Fix the rules, draw, write the report, and print the summary."""
    from studies.auditing.figures import draw_figures
    from studies.auditing.finalise import finalise
    from studies.auditing.report import write_report
    from studies.auditing.summary import failures, print_summary

    final = finalise(folder)
    write_report(folder, final, draw_figures(folder, final))
    failed = failures(folder)
    print_summary(folder.path, final.entries, failed)
    return 1 if failed else 0


def check(config: AuditConfig) -> None:
    """Refuse impossible options before anything is loaded.

    Raises:
        InputError: Naming the option and what it takes.
    """
    from probes.inputs import InputError
    from studies.options import refuse_below
    from studies.overwrite import check_out

    refuse_below(config, {"batch_size": 1, "max_new_tokens": 1, "limit": 1, "causal": 0, "seed": 0})
    if config.answers is not None and config.position_study:
        raise InputError("--position-study asks moved questions, which --answers has no answers to: leave one out")
    if config.answers is not None and not config.answers.is_file():
        raise InputError(f"--answers {config.answers}: no such file")
    check_out(config.out, "audit", resume=config.resume, overwrite=config.overwrite)


def prepare(config: AuditConfig, device: str | None = None) -> Prepared:
    """Read questions and model, check every sample, and plan the batches. Writes nothing.

    Args:
        config: What is asked for.
        device: Where the model runs; None takes the config's.

    Raises:
        InputError: If the data hold no sample, or the model cannot be used.
    """
    from transformers.utils.logging import disable_progress_bar

    from probes.axes import MARKED, images_known_by
    from probes.inputs import InputError
    from probes.model import HookedModel
    from studies.auditing.causal import pair_up
    from studies.auditing.image_facts import ImageFacts
    from studies.auditing.inputs import (
        check_answers,
        check_device,
        check_samples,
        data_digest,
        file_digest,
        items,
        model_digest,
    )
    from studies.auditing.mixers import Mixers, described, find_mixers
    from studies.auditing.plan import draw, draw_evenly, plan_batches
    from studies.auditing.run import Settings, Work, preflight
    from studies.multi_image import read_answers, read_questions

    questions = read_questions(
        data_source(config.data),
        split=config.split,
        **config.reading(),
    )
    groups = {record.id: f"{record.split}\0{record.task}" for record in questions.records}
    kept = set(draw_evenly(groups, config.limit, config.seed))
    answers = None if config.answers is None else read_answers(config.answers)
    disable_progress_bar()
    device = config.device if device is None or config.device_map is not None else device
    check_device(device)
    model = HookedModel.from_pretrained(
        model_source(config.model),
        dtype=config.dtype,
        device_map=config.device_map,
        **config.loading() | {"device": device},
    )
    # Without spans no sample can be asked: better said now than after the last image was read.
    kind = str(model.model.config.model_type)
    images_known_by(kind)
    if config.causal and kind in MARKED:
        raise InputError(
            f"--causal knocks out images' tokens, and {kind} has none in its prompt: leave it out, and blank or swap "
            "images by probes.interventions"
        )
    facts = ImageFacts()
    records, refused = check_samples((each for each in questions.records if each.id in kept), questions.bad, facts)
    if answers is not None:
        records, unanswered = check_answers(records, answers)
        refused |= unanswered
    if not records and not refused:
        raise InputError(f"{config.data} holds no sample: give other data")
    settings = Settings(
        max_new_tokens=config.max_new_tokens,
        per_head=config.per_head,
        maps=config.maps,
        map_ids=frozenset(draw([record.id for record in records], MAP_SAMPLE, config.seed)),
        pairing=pair_up(records, config.causal, config.seed),
        answers=answers,
        mixers=find_mixers(model.model) if config.mixers else Mixers(),
    )
    settings = replace(settings, mixers=preflight(model, records, settings))
    identity = {
        "model": config.model,
        "model_digest": model_digest(model_source(config.model), model),
        "parameters": sum(weight.numel() for weight in model.model.parameters()),
        "data": config.data,
        "data_digest": data_digest(records, {name: refusal.error for name, refusal in refused.items()}, facts),
        "answers_digest": None if config.answers is None else file_digest(config.answers),
        **described(model.model, settings.mixers),
    }
    plan = plan_batches(items(model, records, facts), config.batch_size, list(refused))
    work = Work(plan, {record.id: record for record in records}, refused, settings, facts)
    print(
        f"{config.data}: {counted(len(questions), 'question')}, {len(questions.bad)} unusable; {questions.why}",
        file=sys.stderr,
    )
    return Prepared(config, model, work, identity)


def _compute(prepared: Prepared, moved: Prepared | None, folder: "RunFolder", processes: "Processes") -> None:
    from studies.auditing.finalise import POSITION_FOLDER
    from studies.auditing.run import run_batches

    run_batches(prepared.model, prepared.work, folder, "audit", processes)
    if moved is not None:
        with open_folder(moved, processes, folder.path / POSITION_FOLDER) as inner:
            run_batches(moved.model, moved.work, inner, "position study", processes)
            with processes.together():
                if processes.is_main:
                    inner.finish()
    with processes.together():
        if processes.is_main:
            folder.finish()


def prepare_moved(prepared: Prepared) -> Prepared:
    """Plan the position study of an audit: its test samples, their targets at every place.

    Raises:
        InputError: If no test sample can be moved; says why.
    """
    from probes.inputs import InputError
    from studies.auditing.causal import NOTHING
    from studies.auditing.inputs import data_digest, items
    from studies.auditing.plan import plan_batches
    from studies.auditing.run import Work
    from studies.position import position_study

    work = prepared.work
    moved, left_out = position_study(record for record in work.records.values() if record.split != "dev")
    if not moved:
        why = next(iter(left_out.values()), "the data have no test sample")
        raise InputError(f"--position-study: no sample can be moved ({why})")
    settings = replace(work.settings, maps="none", per_head=False, pairing=NOTHING)
    plan = plan_batches(items(prepared.model, moved, work.facts), prepared.config.batch_size)
    identity = {
        **prepared.identity,
        "data_digest": data_digest(moved, left_out, work.facts),
        "left_out": dict(Counter(left_out.values())),
    }
    return Prepared(
        config=replace(prepared.config, resume=True),
        model=prepared.model,
        work=Work(plan, {record.id: record for record in moved}, {}, settings, work.facts),
        identity=identity,
    )
