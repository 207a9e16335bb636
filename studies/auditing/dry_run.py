"""`sightcheck audit --dry-run`: what an audit would do, from what it has prepared. It writes nothing."""

from collections import Counter
from typing import TYPE_CHECKING

from probes.errors import counted
from studies.auditing.finalise import POSITION_FOLDER
from studies.auditing.mixers import MEASURES
from studies.auditing.opening import done_batches
from studies.doctor.command import Asked, examine
from studies.doctor.findings import Findings
from studies.doctor.layers import describe_layers, layer_paths

if TYPE_CHECKING:
    from studies.audit import Prepared
    from studies.auditing.mixers import Mixers
    from studies.auditing.run import Work


def dry_run(prepared: "Prepared", moved: "Prepared | None") -> int:
    """Print the plan of an audit; returns 1 if it would have failed samples or not fit, else 0.

    Args:
        prepared: The audit.
        moved: Its position study, if it has one.

    Raises:
        InputError: If --out holds other files, or a run that this one cannot go on with.
    """
    config, work = prepared.config, prepared.work
    findings = Findings()
    done = done_batches(prepared)
    sizes = _left(work, done)
    findings.section(f"audit of {config.model} on {config.data}, nothing is written", _plan(prepared, sizes))
    if config.resume:
        findings.add(f"it would go on: {len(done)} of {len(work.plan)} batches are there, the rest is told here")
    if work.refused:
        name, refusal = next(iter(work.refused.items()))
        findings.problem(f"{counted(len(work.refused), 'sample')} would have no trace; {name!r}: {refusal.error}")
    if moved is not None:
        moved_done = done_batches(moved, config.out / POSITION_FOLDER) if config.resume else frozenset()
        more = _left(moved.work, moved_done)
        there = f"; {len(moved_done)} of {len(moved.work.plan)} are there" if config.resume else ""
        findings.add(f"position study: {counted(sum(more), 'more sample')}, {counted(len(more), 'more batch')}{there}")
        sizes += more
    if config.causal:
        findings.add(
            f"causal check: {counted(len(work.settings.pairing.lent), 'sample')} with an answer again for each image "
            f"blanked, swapped and knocked out{_mixers_too(work.settings.mixers)}; their time is not in the sum below"
        )
    paths = layer_paths(prepared.model.model, work.settings.mixers)
    findings.section("what would be recorded", [*_recorded(prepared), *describe_layers(paths)])
    if sizes:
        asked = Asked(sum(sizes), max(sizes), round(sum(sizes) / len(sizes)))
        records = list(work.records.values())
        examine(prepared.model, paths, records, work.settings, findings, asked, config.seed)
    print(findings.text())
    return 1 if findings.problems else 0


def _mixers_too(mixers: "Mixers") -> str:
    return ", and knocked out of attention and mixers at once" if mixers.cuttable else ""


def _left(work: "Work", done: frozenset[int]) -> list[int]:
    """Samples of each batch that is still to be traced."""
    return [len(batch.ids) for batch in work.plan if batch.kind == "trace" and batch.index not in done]


def _plan(prepared: "Prepared", sizes: list[int]) -> list[str]:
    counts = Counter(sizes)
    shown = ", ".join(f"{count} of {samples}" for samples, count in sorted(counts.items(), reverse=True)[:4])
    more = "" if len(counts) <= 4 else f", {sum(dict(sorted(counts.items())[:-4]).values())} smaller"
    return [
        f"it would go to {prepared.config.out}",
        f"{counted(sum(sizes), 'sample')} in {counted(len(sizes), 'batch')} of at most {prepared.config.batch_size}, "
        f"prompts of equal length: {shown or 'none'}{more}",
    ]


def _recorded(prepared: "Prepared") -> list[str]:
    from studies.auditing.run import TEXT_ROWS

    settings = prepared.work.settings
    rows = ", ".join(TEXT_ROWS) + " (and anchor for image-to-image tasks)"
    answers = "given" if settings.answers is not None else f"generated, at most {settings.max_new_tokens} tokens"
    lines = [
        f"rows: {rows}; attention factors {'of every head' if settings.per_head else 'as means over heads'}",
        f"maps: {settings.maps}; answers: {answers}",
    ]
    if settings.mixers.read:
        lines.append(f"{', '.join(MEASURES.values())}: in the same pass, as means over heads")
    return lines if prepared.config.mixers else [*lines, "no hidden attention: left out by --no-mixers"]
