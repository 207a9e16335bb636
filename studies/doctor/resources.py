"""Memory and time to expect, reported: closed forms for the one, a few questions really asked for the other."""

from dataclasses import replace
from typing import TYPE_CHECKING

from probes.inputs import InputError
from studies.auditing.mixers import MEASURES, followed, lines_of
from studies.auditing.progress import duration
from studies.auditing.run import recorded_rows, trace_records
from studies.doctor.findings import Findings
from studies.doctor.layers import LayerPath
from studies.doctor.lengths import Length, Lengths
from studies.doctor.machine import free_bytes
from studies.doctor.memory import Batch, Memory, expected, readable
from studies.doctor.timing import QUESTIONS, TOGETHER, expected_seconds, time_questions, tracer

if TYPE_CHECKING:
    from probes.model import HookedModel
    from studies.auditing.run import Settings


def batch_of(length: Length, settings: "Settings", samples: int) -> Batch:
    """A batch of prompts of one length, as an audit records it."""
    return Batch(
        samples=samples,
        tokens=length.total,
        images=len(length.image_tokens),
        image_tokens=sum(length.image_tokens),
        answer_tokens=length.answer_tokens,
        row_sets=len(recorded_rows(length.record)),
        per_head=settings.per_head,
        maps=settings.maps != "none",
        forms=len(MEASURES) if settings.mixers.read else 0,
    )


def report_memory(
    findings: Findings,
    model: "HookedModel",
    paths: list[LayerPath],
    lengths: Lengths,
    settings: "Settings",
    batch_size: int,
) -> Memory:
    """Report what a batch of the longest prompts takes, and whether it is free."""
    memory = expected(model.model, paths, batch_of(lengths.longest, settings, batch_size))
    findings.section(f"memory to expect, {batch_size} of the longest prompts at once")
    findings.add(str(memory), "activations of the forward pass come on top; sizes are closed forms")
    unseen = sum(path.unseen is not None for path in paths)
    if unseen:
        findings.add(f"without the keys, values and recorded attention of {unseen} layers, whose sizes are not known")
    free = free_bytes(model.device)
    # The weights are loaded, so that what is free has to hold the rest.
    if free is not None and memory.total - memory.weights > free:
        findings.problem(
            f"{readable(memory.total - memory.weights)} besides the weights, and {readable(free)} free on "
            f"{model.device}: take a smaller --batch-size"
        )
    return memory


def report_time(
    findings: Findings,
    model: "HookedModel",
    lengths: Lengths,
    settings: "Settings",
    batch_size: int,
    samples: int,
) -> float | None:
    """Report what a few questions took, and what all samples would; returns these seconds, None if one failed."""
    findings.section("time to expect")
    copies = min(batch_size, TOGETHER)
    try:
        settings = _followed(findings, model, lengths.found[0], settings)
        timed = time_questions(tracer(model, settings), lengths.spread(QUESTIONS), copies)
    except InputError as error:
        findings.problem(f"a question that the processor takes fails in the model: {error}")
        return None
    except MemoryError:
        findings.problem(f"out of memory with {copies} samples at once: take a smaller --batch-size")
        return None
    seconds = expected_seconds(timed, [each.tokens for each in lengths.found], samples)
    shown = ", ".join(f"{each.tokens} tokens {each.seconds:.3f} s" for each in timed)
    findings.add(
        f"{duration(seconds)} for {samples} samples; numbers and figures at the end come on top",
        f"measured on n = {len(timed)} questions, each once in a batch of {copies} copies, so take it as an order of "
        f"magnitude; per sample: {shown}",
    )
    return seconds


def _followed(findings: Findings, model: "HookedModel", length: Length, settings: "Settings") -> "Settings":
    """The settings without layers whose hidden attention turns out not to be followed, each of which is reported."""
    if not settings.mixers.read:
        return settings
    kept = followed(
        lambda mixers: trace_records(model, [length.record], replace(settings, mixers=mixers)), settings.mixers
    )
    if kept != settings.mixers:
        findings.add(*lines_of(kept))
    return replace(settings, mixers=kept)
