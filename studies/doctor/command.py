"""`sightcheck doctor`: what an engineer runs before a long audit. It writes nothing. Importing it loads no torch."""

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from probes.errors import counted
from studies.bundled import data_source, model_source
from studies.doctor.findings import Findings
from studies.options import ModelOptions, Precision, QuestionOptions, refuse_below

if TYPE_CHECKING:
    from probes.model import HookedModel
    from studies.auditing.run import Settings
    from studies.doctor.layers import LayerPath
    from studies.multi_image import MultiImageQuestion


@dataclass(frozen=True)
class DoctorConfig(QuestionOptions, ModelOptions):
    """Look at this machine, a model and its questions before a long audit; writes nothing.

    Reports library versions, bridges and devices; with --model its family and the attention path of each layer; with
    --data the number of questions; with both tokens per sample, memory and time to expect. Exits with 1 if something
    was found that would keep an audit from going well.
    """

    split: str | None = None
    """Take only this split."""
    batch_size: int = 32
    """Samples in a batch whose memory is told."""
    max_new_tokens: int = 32
    """Longest answer, in tokens."""
    attn_implementation: str | None = None
    """Attention implementation to load the model with, such as sdpa, eager or flash_attention_2; transformers' choice
    if not given."""
    seed: int = 0
    """Of the draw of questions that are encoded."""
    dtype: Precision = "auto"
    """Number format of the weights; auto takes the checkpoint's."""


class Asked(NamedTuple):
    """How many samples an audit asks, and how many of them at once."""

    samples: int
    largest_batch: int
    mean_batch: int


def run(config: DoctorConfig) -> int:
    """Check everything that is named, print what was found; returns 1 if there were problems, else 0.

    Raises:
        InputError: If an option is impossible, or the model or the data cannot be found or read.
    """
    from studies.auditing.inputs import check_device
    from studies.doctor.machine import check_machine

    refuse_below(config, {"batch_size": 1, "max_new_tokens": 1, "seed": 0})
    check_device(config.device)
    findings = Findings()
    check_machine(findings)
    records = None if config.data is None else _check_data(config, findings)
    if config.model is not None:
        _check_model(config, findings, records)
    print(findings.text())
    return 1 if findings.problems else 0


def _check_data(config: DoctorConfig, findings: Findings) -> "list[MultiImageQuestion]":
    from probes.inputs import InputError
    from studies.auditing.image_facts import ImageFacts
    from studies.auditing.inputs import check_samples
    from studies.multi_image import read_questions

    assert config.data is not None
    questions = read_questions(
        data_source(config.data),
        split=config.split,
        **config.reading(),
    )
    records, refused = check_samples(questions.records, questions.bad, ImageFacts())
    if not records and not refused:
        raise InputError(f"{config.data} holds no sample: give other data")
    findings.section(f"data {config.data}", [f"{len(records)} questions; {questions.why}"])
    if refused:
        name, refusal = next(iter(refused.items()))
        findings.problem(f"{counted(len(refused), 'sample')} cannot be read; {name!r}: {refusal.error}")
    return records


def _check_model(config: DoctorConfig, findings: Findings, records: "list[MultiImageQuestion] | None") -> None:
    from studies.auditing.run import Settings
    from studies.doctor.model import check_model, load_pair

    assert config.model is not None
    findings.section(f"model {config.model}")
    pair = load_pair(
        model_source(config.model),
        findings,
        dtype=config.dtype,
        attn_implementation=config.attn_implementation,
        **config.loading(),
    )
    if pair is None:
        return
    checked = check_model(pair, findings)
    if checked is None or not records:
        return
    settings = Settings(max_new_tokens=config.max_new_tokens, mixers=checked.mixers)
    asked = Asked(len(records), config.batch_size, config.batch_size)
    examine(checked.model, checked.paths, records, settings, findings, asked, config.seed)


def examine(
    model: "HookedModel",
    paths: "list[LayerPath]",
    records: "list[MultiImageQuestion]",
    settings: "Settings",
    findings: Findings,
    asked: "Asked",
    seed: int,
) -> None:
    """Report tokens, memory and time for questions put to a model; what fails is a problem.

    Args:
        model: The model.
        paths: Its layers.
        records: The questions.
        settings: How an audit asks.
        findings: Where to report.
        asked: How many samples, and how many at once.
        seed: Of the draw of questions that are encoded.
    """
    from studies.auditing.plan import draw
    from studies.doctor.lengths import SAMPLE, measure_lengths, report_lengths
    from studies.doctor.resources import report_memory, report_time

    kept = set(draw([record.id for record in records], SAMPLE, seed))
    print("encoding questions", file=sys.stderr)
    encoded = [each for each in records if each.id in kept]
    lengths = measure_lengths(model, encoded, settings.max_new_tokens, settings.answers)
    report_lengths(findings, lengths, model, len(records))
    if not lengths.found:
        return
    report_memory(findings, model, paths, lengths, settings, asked.largest_batch)
    print("timing a few questions", file=sys.stderr)
    report_time(findings, model, lengths, settings, asked.mean_batch, asked.samples)
