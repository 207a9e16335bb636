"""`sightcheck audit --dry-run`: what an audit would do, from what it has prepared. It writes nothing."""

from collections import Counter
from typing import TYPE_CHECKING

from studies.doctor.command import examine
from studies.doctor.findings import Findings
from studies.doctor.layers import describe_layers, layer_paths

if TYPE_CHECKING:
    from studies.audit import Prepared


def dry_run(prepared: "Prepared", moved: "Prepared | None") -> int:
    """Print the plan of an audit; returns 1 if it would have failed samples or not fit, else 0.

    Args:
        prepared: The audit.
        moved: Its position study, if it has one.
    """
    config, work = prepared.config, prepared.work
    findings = Findings()
    findings.section(f"audit of {config.model} on {config.data}, nothing is written", _plan(prepared))
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
    if work.records:
        records = list(work.records.values())
        samples = len(records) + (0 if moved is None else len(moved.work.records))
        examine(prepared.model, paths, records, config, findings, work.settings, samples)
    print(findings.text())
    return 1 if findings.problems else 0


def _plan(prepared: "Prepared") -> list[str]:
    work, size = prepared.work, prepared.config.batch_size
    traced = [len(batch.ids) for batch in work.plan if batch.kind == "trace"]
    sizes = Counter(traced)
    shown = ", ".join(f"{count} of {samples}" for samples, count in sorted(sizes.items(), reverse=True)[:4])
    more = "" if len(sizes) <= 4 else f", {sum(dict(sorted(sizes.items())[:-4]).values())} smaller"
    return [
        f"it would go to {prepared.config.out}",
        f"{sum(traced)} samples in {len(traced)} batches of at most {size}, prompts of equal length: {shown}{more}",
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
