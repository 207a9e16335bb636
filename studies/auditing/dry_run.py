"""`sightcheck audit --dry-run`: what an audit would do, from what it has prepared. It writes nothing."""

from collections import Counter
from typing import TYPE_CHECKING

from studies.doctor.command import Asked, examine
from studies.doctor.findings import Findings
from studies.doctor.layers import describe_layers, layer_paths

if TYPE_CHECKING:
    from studies.audit import Prepared


def dry_run(prepared: "Prepared", moved: "Prepared | None", done: frozenset[int]) -> int:
    """Print the plan of an audit; returns 1 if it would have failed samples or not fit, else 0.

    Args:
        prepared: The audit.
        moved: Its position study, if it has one.
        done: Batches that the run to go on with has.
    """
    config, work = prepared.config, prepared.work
    findings = Findings()
    sizes = [len(batch.ids) for batch in work.plan if batch.kind == "trace" and batch.index not in done]
    findings.section(f"audit of {config.model} on {config.data}, nothing is written", _plan(prepared, sizes))
    if config.resume:
        findings.add(f"it would go on: {len(done)} of {len(work.plan)} batches are there, the rest is told here")
    if work.refused:
        name, refusal = next(iter(work.refused.items()))
        findings.problem(f"{len(work.refused)} samples would have no trace; {name!r}: {refusal.error}")
    if moved is not None:
        findings.add(f"position study: {len(moved.work.records)} more samples, {len(moved.work.plan)} more batches")
    if config.causal:
        findings.add(
            f"causal check: {len(work.settings.pairing.lent)} samples with an answer again for each image blanked, "
            "swapped and knocked out; their time is not in the sum below"
        )
    paths = layer_paths(prepared.model.model)
    findings.section("what would be recorded", [*_recorded(prepared), *describe_layers(paths)])
    if moved is not None:
        sizes += [len(batch.ids) for batch in moved.work.plan]
    if sizes:
        asked = Asked(sum(sizes), max(sizes), round(sum(sizes) / len(sizes)))
        records = list(work.records.values())
        examine(prepared.model, paths, records, work.settings, findings, asked, config.seed)
    print(findings.text())
    return 1 if findings.problems else 0


def _plan(prepared: "Prepared", sizes: list[int]) -> list[str]:
    counts = Counter(sizes)
    shown = ", ".join(f"{count} of {samples}" for samples, count in sorted(counts.items(), reverse=True)[:4])
    more = "" if len(counts) <= 4 else f", {sum(dict(sorted(counts.items())[:-4]).values())} smaller"
    return [
        f"it would go to {prepared.config.out}",
        f"{sum(sizes)} samples in {len(sizes)} batches of at most {prepared.config.batch_size}, prompts of equal "
        f"length: {shown or 'none'}{more}",
    ]


def _recorded(prepared: "Prepared") -> list[str]:
    from studies.auditing.run import TEXT_ROWS

    settings = prepared.work.settings
    rows = ", ".join(TEXT_ROWS) + " (and anchor for image-to-image tasks)"
    answers = "given" if settings.answers is not None else f"generated, at most {settings.max_new_tokens} tokens"
    return [
        f"rows: {rows}; attention factors {'of every head' if settings.per_head else 'as means over heads'}",
        f"maps: {settings.maps}; answers: {answers}",
    ]
