"""The Runs view in HTML: table of samples, card of one sample, summary of a run. Every text is escaped here.

Pure: records in, text out. Knows nothing of Gradio or of how records are read.
"""

import base64
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from probes.inputs import InputError
from studies.auditing.entries import BY_KIND
from studies.explorer.looking import plain_question
from studies.explorer.run_samples import FocusRule, Page, Sample
from studies.explorer.shown import ROW_NAMES, in_nats
from studies.explorer.style import facts
from studies.runs import RunFolder

PICK = """
const pick = (event) => {
  const row = event.target.closest('tr[data-sample]');
  if (!row) return;
  element.querySelectorAll('tr.sc-open').forEach((other) => other.classList.remove('sc-open'));
  row.classList.add('sc-open');
  trigger('select', {index: 0, value: row.dataset.sample});
};
element.addEventListener('click', pick);
element.addEventListener('keydown', (event) => {
  if (event.key === 'Enter' || event.key === ' ') { event.preventDefault(); pick(event); }
});
"""
"""What makes the table's rows answer to a click, to Enter and to the space bar."""

_COLUMNS = (
    ("", "5%", ""),
    ("Sample", "25%", ""),
    ("Task", "15%", ""),
    ("Images", "11%", "sc-num"),
    ("Answer", "15%", ""),
    ("Gold", "10%", ""),
    ("Target", "10%", "sc-num"),
    ("Focus", "9%", "sc-num"),
)
_METRIC_COLUMNS = (
    ("Metric", "25%", ""),
    ("Split", "9%", ""),
    ("Task", "10%", ""),
    ("Rows", "12%", ""),
    ("Rule", "12%", ""),
    ("Value", "8%", "sc-num"),
    ("95 % interval", "12%", "sc-num"),
    ("Chance", "6%", "sc-num"),
    ("n", "6%", "sc-num"),
)
_PARTS = ("n_images", "places", "position", "intervention", "window", "subset", *BY_KIND)
_MOST_FIGURES, _LARGEST_FIGURE = 24, 6_000_000


def table(page: Page) -> str:
    """Rows to pick from; each carries its sample's id."""
    if not page.checked:
        return '<div class="sc-empty">This run has no causal check: audit with --causal for one.</div>'
    if not page.rows:
        return '<div class="sc-empty">No sample passes these filters.</div>'
    head = "".join(f'<th style="width:{width}" class="{style}">{name}</th>' for name, width, style in _COLUMNS)
    body = "".join(_table_row(row) for row in page.rows)
    return f'<table class="sc-table sc-pick"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'


def _table_row(row: Mapping[str, Any]) -> str:
    mark, style, words = verdict(row)
    cells = (
        (row["sample_id"], ""),
        (row["task"] or "", ""),
        (_plain(row["n_images"]), "sc-num"),
        (row["answer"] if row["error"] is None else row["error"], ""),
        (row["gold"] or "", ""),
        (_number(row["target"]), "sc-num"),
        (_number(row["focus"]), "sc-num"),
    )
    drawn = "".join(f'<td class="{style}" title="{_text(text)}">{_text(text)}</td>' for text, style in cells)
    first = f'<td class="sc-verdict {style}" title="{words}"><span aria-label="{words}">{mark}</span></td>'
    return f'<tr tabindex="0" role="button" data-sample="{_text(row["sample_id"])}">{first}{drawn}</tr>'


def verdict(row: Mapping[str, Any]) -> tuple[str, str, str]:
    """A sample's mark, style and words.

    >>> verdict({"error": None, "correct": True, "target": 0, "focus": 1})[2]
    'right for the wrong reason'
    """
    if row["error"] is not None:
        return "!", "sc-wrong", "error"
    if row["correct"] is None:
        return "?", "", "not scored"
    if not row["correct"]:
        return "✗", "sc-wrong", "wrong"
    target, focus = row["target"], row.get("focus")
    if target is not None and focus is not None and target != focus:
        return "◐", "sc-lucky", "right for the wrong reason"
    return "✓", "sc-right", "right"


def sample_card(sample: Sample, focus: int | None) -> str:
    """Question, answer, gold and what else is known of one sample."""
    row = sample.row
    pairs = {"Sample": str(row["sample_id"]), "Task": row["task"] or "none", "Split": row["split"] or "none"}
    if row["error"] is not None:
        said = f'<div class="sc-said sc-wrong">{_text(row["error"])}</div>'
        return f'<div class="sc-answer">{said}{facts({**pairs, "Question": row["question"] or ""})}</div>'
    _, style, words = verdict({**row, "focus": focus})
    pairs = {
        "Question": plain_question(row["question"] or "", row["n_images"] or 0),
        "Gold": row["gold"] or "none",
        "Target": _image_name(row["target"]),
        "Focus": _image_name(focus),
        **pairs,
    }
    if row["log_probability"] is not None:
        pairs["Log-probability"] = in_nats(row["log_probability"], row["answer_tokens"] or 0)
    mark = f'<span class="sc-verdict {style}">{words}</span>'
    return (
        f'<div class="sc-answer"><div class="sc-said">{_text(row["answer"]) or "(an empty answer)"}</div>{mark}'
        f"{facts(pairs)}{_effects(sample)}</div>"
    )


def _effects(sample: Sample) -> str:
    whole = [line for line in sample.effects if line[1] == "all"]
    if not whole:
        return ""
    drops: dict[str, list[str]] = {}
    for kind, _, image, effect in whole:
        drops.setdefault(f"Drop on {kind}", []).append(f"image {image + 1}: {effect:z.2f}")
    return facts({name: ", ".join(values) for name, values in drops.items()})


def summary(run: RunFolder) -> str:
    """What a run is, its metrics with their intervals, and its figures.

    Args:
        run: The run, finished or not.
    """
    manifest = run.manifest
    config = manifest.config
    pairs = {name: str(config[name]) for name in ("model", "data", "dtype", "split", "limit") if config.get(name)}
    pairs["Batches"] = f"{len(run.done_batches())} of {manifest.batches}"
    pairs["Started"] = manifest.created
    pairs["Finished"] = manifest.finished or "not yet"
    try:
        metrics = run.read_metrics()
    except InputError as error:
        body = f'<div class="sc-empty">{escape(str(error))}</div>'
    else:
        body = f'<div class="sc-scroll">{metrics_table(metrics)}</div>'
    return f"{facts(pairs)}{body}{_figures(run.path / 'figures')}"


def metrics_table(metrics: Sequence[Mapping[str, Any]]) -> str:
    """The numbers of the whole run, with intervals and counts; those of its parts fold away below.

    Numbers of single layers are in the figures and are left out here.
    """
    entries = _once([entry for entry in metrics if entry.get("layer") is None])
    whole = [entry for entry in entries if entry.get("task") is None and not _part(entry)]
    parts = [entry for entry in entries if entry not in whole]
    if not entries:
        single = "All numbers of this run are of single layers: see its figures."
        return f'<div class="sc-empty">{single if metrics else "This run has no metrics."}</div>'
    folded = f"<details><summary>By task and other parts: {len(parts)} numbers</summary>{_metrics(parts)}</details>"
    return _metrics(whole) + (folded if parts else "")


def _once(entries: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The entries with each answer accuracy once: it depends on no rule, and every row set names it."""
    kept: list[Mapping[str, Any]] = []
    seen: set[tuple[Any, ...]] = set()
    for entry in entries:
        if entry.get("name") == "answer_accuracy":
            key = (entry.get("split"), entry.get("task"), *(entry.get(part) for part in _PARTS))
            if key in seen:
                continue
            seen.add(key)
            entry = {**entry, "rows": None, "rule": None, "last": None}
        kept.append(entry)
    return kept


def _metrics(entries: Sequence[Mapping[str, Any]]) -> str:
    head = "".join(f'<th style="width:{width}" class="{style}">{name}</th>' for name, width, style in _METRIC_COLUMNS)
    lines = "".join(map(_metric_row, entries))
    return f'<table class="sc-table"><thead><tr>{head}</tr></thead><tbody>{lines}</tbody></table>'


def _part(entry: Mapping[str, Any]) -> str:
    named = {name.replace("_", " "): entry[name] for name in _PARTS if entry.get(name) is not None}
    if "position" in entry:
        named["position"] = entry["position"] + 1
    return ", ".join(f"{name} {value}" for name, value in named.items())


def _metric_row(entry: Mapping[str, Any]) -> str:
    estimate = entry.get("estimate") or {}
    rule = FocusRule("", entry["rule"], entry["last"]).words if entry.get("last") else entry.get("rule") or ""
    value, low, high = (_decimal(estimate.get(name)) for name in ("value", "low", "high"))
    name, part = str(entry.get("name", "")).replace("_", " "), _part(entry)
    cells = [
        (f"{name} ({part})" if part else name, ""),
        (entry.get("split") or "", ""),
        (entry.get("task") or "all", ""),
    ]
    cells += [(ROW_NAMES.get(entry.get("rows") or "", ""), ""), (rule, ""), (value, "sc-num")]
    cells += [
        (f"{low} to {high}", "sc-num"),
        (_decimal(entry.get("chance")), "sc-num"),
        (_plain(estimate.get("n")), "sc-num"),
    ]
    drawn = "".join(f'<td class="{style}" title="{_text(text)}">{_text(text)}</td>' for text, style in cells)
    return f"<tr>{drawn}</tr>"


def _figures(folder: Path) -> str:
    files = sorted(folder.glob("*.png"))[:_MOST_FIGURES] if folder.is_dir() else []
    drawn = "".join(_figure(path) for path in files if path.is_file() and not path.is_symlink())
    return f'<div class="sc-figures">{drawn}</div>'


def _figure(path: Path) -> str:
    name = escape(path.stem.replace("_", " ").replace("-", " "))
    if path.stat().st_size > _LARGEST_FIGURE:
        return f"<figure><figcaption>{name}: too large to show here</figcaption></figure>"
    data = base64.b64encode(path.read_bytes()).decode()
    return f'<figure><figcaption>{name}</figcaption><img alt="{name}" src="data:image/png;base64,{data}"></figure>'


def _text(value: Any) -> str:
    return escape("" if value is None else str(value))


def _plain(value: Any) -> str:
    return "" if value is None else f"{value}"


def _number(index: int | None) -> str:
    return "" if index is None else str(index + 1)


def _image_name(index: int | None) -> str:
    return "none" if index is None else f"image {index + 1}"


def _decimal(value: Any) -> str:
    return "–" if value is None else f"{value:.3f}"
