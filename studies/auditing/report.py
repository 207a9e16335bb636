"""`report.html`: one file that opens offline and says what an audit asked, found, and how far to trust it.

It knows entries, figures and samples, and formats them. Everything that a model or a data file wrote is escaped, and
the page forbids scripts. No torch.
"""

import base64
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow.compute as pc
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from probes.errors import counted
from studies.auditing.causal_metrics import MIN_EFFECT, MIXERS_TOO, RIGHT_ON_TARGET, right_without_image
from studies.auditing.entries import Entry, find
from studies.auditing.figures import Figure
from studies.auditing.finalise import POSITION_FOLDER, Final
from studies.auditing.kinds import KIND_COLUMNS, MEASURE_NAMES, kind_rows, measures_of, named_kind
from studies.auditing.mixers import PART, Mixers, lines_of
from studies.auditing.summary import COLUMNS, Failure, failures, headline_split, percent, rule_lines, table_rows

if TYPE_CHECKING:
    from studies.runs import RunFolder

TEMPLATES = Path(__file__).resolve().parent / "templates"


def write_report(folder: "RunFolder", final: Final, figures: Sequence[Figure]) -> Path:
    """Write the report of a finalised run into its folder; returns its path."""
    return folder.write_file("report.html", render(folder, final, figures))


def render(folder: "RunFolder", final: Final, figures: Sequence[Figure]) -> str:
    """The report's HTML."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.globals["counted"] = counted
    entries = final.entries
    split = headline_split(entries)
    manifest = folder.manifest.as_json()
    failed = failures(folder)
    shown = [_inline(folder.path, figure) for figure in figures]
    context = {
        "title": f"Audit: {folder.path.name}",
        "version": manifest["versions"].get("sightcheck", ""),
        "created": manifest["created"],
        "asked": _asked(folder, final),
        "rule_lines": rule_lines(entries, split),
        "default_rule": _default_rule(final),
        "split": split or "none",
        "headline": _headline(entries, split),
        "headline_sentence": _headline_sentence(entries, split),
        "headings": [heading for heading, _ in COLUMNS],
        "task_rows": _task_rows(entries, split),
        "kinds": _kinds(folder, entries, split, failed),
        "regions": _regions(entries, split),
        "examples": _examples(folder, shown),
        "image_to_image": [figure for figure in shown if figure["kind"] == "image-to-image"],
        "positions": _positions(entries),
        "unmoved": _unmoved(folder),
        "trust": _trust(entries, split),
        "errors": [failure for failure in failed if not failure.answered],
        "unchecked": [failure for failure in failed if failure.answered and not failure.part],
        "manifest": json.dumps(manifest, indent=2, ensure_ascii=False),
        "figures": {
            kind: [figure for figure in shown if figure["kind"] == kind]
            for kind in ("layers", "kinds", "overlays", "positions", "causal")
        },
    }
    return environment.get_template("report.html.j2").render(context)


def _inline(path: Path, figure: Figure) -> dict[str, str]:
    data = base64.b64encode((path / figure.file).read_bytes()).decode()
    return {
        "kind": figure.kind,
        "sample": figure.sample,
        "caption": figure.caption,
        "source": f"data:image/png;base64,{data}",
    }


def _asked(folder: "RunFolder", final: Final) -> dict[str, Any]:
    config = folder.manifest.config
    counts = final.evidence.n_images.tolist() or [0]
    given = config.get("answers_digest")
    return {
        "samples": folder.count("samples"),
        "least": min(counts),
        "most": max(counts),
        "targets": int((final.evidence.target >= 0).sum()),
        "model": config.get("model", ""),
        "data": config.get("data", ""),
        "answers": "given in a file and teacher-forced" if given else "generated greedily by the model itself",
    }


def _default_rule(final: Final) -> str | None:
    lines = [
        f"{rows}: {choice.rule} ({choice.source})"
        for rows, choice in final.choices.items()
        if choice.source.startswith("default")
    ]
    return "; ".join(lines) or None


def _headline(entries: Sequence[Entry], split: str | None) -> list[dict[str, str]]:
    named = [
        ("answers right", "answer_accuracy", None),
        ("attention accuracy", "attention_accuracy", "paper"),
        ("attention accuracy, predicting rows", "attention_accuracy", "predicting"),
        ("IVM rate", "ivm_rate", "paper"),
        ("oracle maximum", "oracle_maximum", "paper"),
    ]
    found = []
    for label, name, rows in named:
        entry = next(iter(find(entries, name, split=split, rows=rows)), None)
        if entry is not None:
            chance = entry.get("chance")
            beside = "" if chance is None else f", chance {100 * chance:.1f} %"
            estimate = entry["estimate"]
            detail = f"{percent(entry)}, n = {estimate['n']}{beside}"
            found.append({"name": label, "value": percent(entry, interval=False), "detail": detail})
    return found if len(found) > 1 else []


def _headline_sentence(entries: Sequence[Entry], split: str | None) -> str:
    right = next(iter(find(entries, "attention_accuracy", split=split, rows="paper")), None)
    wrong = next(iter(find(entries, "attention_when_wrong", split=split, rows="paper")), None)
    if right is None or right["estimate"]["value"] is None:
        return "No answer was right, so there is no attention accuracy; see P(focus = target) by layer."
    text = (
        f"When the model was right, its focus was the target image in {percent(right)} of {right['estimate']['n']} "
        f"samples (chance {100 * right['chance']:.1f} %)"
    )
    if wrong is None or wrong["estimate"]["value"] is None:
        return f"{text}; it was never wrong."
    return f"{text}; when it was wrong, in {percent(wrong)} of {wrong['estimate']['n']}."


def _task_rows(entries: Sequence[Entry], split: str | None) -> list[dict[str, Any]]:
    return [
        {
            "rows": row["rows"],
            "task": row["task"] or "all",
            "n": row["attention_overall"]["estimate"]["n"],
            "cells": [_cell(row[name]) for _, name in COLUMNS],
        }
        for row in table_rows(entries, split)
    ]


def _cell(entry: Entry | None) -> dict[str, str]:
    value, _, interval = percent(entry).partition(" [")
    return {"value": value, "interval": f"[{interval}" if interval else ""}


def _kinds(
    folder: "RunFolder", entries: Sequence[Entry], split: str | None, failed: Sequence[Failure]
) -> dict[str, Any] | None:
    """Measures beside the attention factor, by kind of layer; None for a model that has no layer without softmax."""
    told = folder.manifest.config.get("mixers")
    rows = [
        {
            **{key: getattr(row, key) for key in ("layer_kind", "measure", "rows", "rule", "source")},
            "n": (row.entries["attention_overall"] or {"estimate": {"n": 0}})["estimate"]["n"],
            "cells": [_cell(row.entries[name]) for _, name in KIND_COLUMNS],
        }
        for row in kind_rows(entries, split)
    ]
    if told is None and not rows:
        return None
    return {
        "headings": [heading for heading, _ in KIND_COLUMNS],
        "rows": rows,
        "lines": lines_of(Mixers.from_json(told or {})),
        "unread": [failure for failure in failed if failure.part == PART],
    }


def _regions(entries: Sequence[Entry], split: str | None) -> dict[str, str] | None:
    for entry in find(entries, "region_attention_accuracy", split=split):
        if entry["rule"] is not None:
            chance = f"{100 * entry['chance']:.1f} %"
            layer = entry["rule"].removeprefix("layer ")
            return {"accuracy": percent(entry), "layer": layer, "source": entry["rule_source"], "chance": chance}
    return None


def _examples(folder: "RunFolder", figures: Sequence[dict[str, str]]) -> list[dict[str, Any]]:
    """The samples that have a heat map of factors, with their texts."""
    names = [figure["sample"] for figure in figures if figure["kind"] == "factors"]
    if not names:
        return []
    columns = ["sample_id", "question", "answer", "gold", "target"]
    rows = folder.read("samples", columns=columns, filter=pc.field("sample_id").isin(names)).to_pylist()
    by_id = {row["sample_id"]: row for row in rows}
    focus = folder.read("focus", filter=pc.field("sample_id").isin(names) & (pc.field("rows") == "paper")).to_pylist()
    focused = {row["sample_id"]: row["focus"] for row in focus}
    return [
        {
            "id": name,
            **{key: by_id[name][key] for key in ("question", "answer", "gold")},
            "target": by_id[name]["target"] + 1,
            "focus": focused[name] + 1,
            "figures": [figure for figure in figures if figure["kind"] == "factors" and figure["sample"] == name],
        }
        for name in names
    ]


def _positions(entries: Sequence[Entry]) -> list[dict[str, Any]]:
    found = []
    for answer in find(entries, "answer_spread", places=...):
        key = {"rows": answer["rows"], "places": answer["places"]}
        attention = find(entries, "attention_spread", **key)[0]
        gap = find(entries, "spread_gap", **key)[0]
        found.append(
            {
                **key,
                "n": answer["estimate"]["n"],
                "left_out": answer["left_out"],
                "answer": percent(answer),
                "attention": percent(attention),
                "gap": percent(gap),
                "answer_noise": _share(answer.get("noise")),
                "attention_noise": _share(attention.get("noise")),
            }
        )
    return found


def _unmoved(folder: "RunFolder") -> dict[str, int]:
    """Why samples were left out of the position study before it began, with their numbers."""
    from studies.runs import RunFolder

    inner = folder.path / POSITION_FOLDER
    if not (inner / "manifest.json").is_file():
        return {}
    return dict(RunFolder.open(inner).manifest.config.get("left_out", {}))


def _trust(entries: Sequence[Entry], split: str | None) -> dict[str, Any] | None:
    found = [
        entry
        for entry in find(entries, "causal_agreement", split=split, intervention=..., window=...)
        if entry["rows"] in ("paper", "predicting")
    ]
    if not found:
        return None
    rows = []
    for entry in found:
        key = {"intervention": entry["intervention"], "window": entry["window"]}
        target = next(iter(find(entries, "target_has_largest_effect", split=split, **key)), None)
        nothing = next(iter(find(entries, "no_image_matters", split=split, **key)), None)
        rows.append(
            {
                **key,
                "rows": entry["rows"],
                "n": entry["estimate"]["n"],
                "left_out": entry["left_out"],
                "nothing": percent(nothing),
                "agreement": percent(entry),
                "chance": _share(entry["chance"]),
                "target": percent(target),
            }
        )
    verdict = _verdict(found)
    return {
        "rows": rows,
        "sentence": verdict,
        "by_kind": _trust_by_kind(entries, split),
        "without_image": _without_image_by_task(entries, split),
        "on_target": _without_image_on_target(entries, split),
        "elsewhere": _elsewhere(entries, split),
        "least": MIN_EFFECT,
    }


def _trust_by_kind(entries: Sequence[Entry], split: str | None) -> list[dict[str, Any]]:
    """How often each kind's focus has the largest effect where attention and mixers are cut at once."""
    return [
        {
            "layer_kind": layer_kind,
            "measure": MEASURE_NAMES.get(measure, measure),
            "rows": entry["rows"],
            "n": entry["estimate"]["n"],
            "agreement": percent(entry),
            "chance": _share(entry["chance"]),
        }
        for measure, layer_kind in measures_of(entries)
        for entry in find(
            entries,
            "causal_agreement",
            split=split,
            intervention=MIXERS_TOO,
            window="all",
            **named_kind(measure, layer_kind),
        )
        if entry["rows"] in ("paper", "predicting")
    ]


def _without_image_by_task(entries: Sequence[Entry], split: str | None) -> dict[str, Any]:
    """By task and intervention: right answers to which no image mattered."""
    found = right_without_image(entries, split, intervention=...)
    kinds = list(dict.fromkeys(entry["intervention"] for entry in found))
    by_both = {(entry["task"], entry["intervention"]): entry for entry in found}
    return {
        "kinds": kinds,
        "rows": [
            {
                "task": task or "all",
                "n": max(entry["estimate"]["n"] for entry in found if entry["task"] == task),
                "cells": [_cell(by_both.get((task, kind))) for kind in kinds],
            }
            for task in dict.fromkeys(entry["task"] for entry in found)
        ],
    }


def _without_image_on_target(entries: Sequence[Entry], split: str | None) -> list[str]:
    """For right answers with the focus on the target: did any image matter at all?"""
    found = right_without_image(entries, split, task=None, subset=RIGHT_ON_TARGET, intervention=..., rows=...)
    return [
        f"Of {entry['estimate']['n']} right answers with the focus of rows {entry['rows']} on the target, no single "
        f"image mattered to {percent(entry)}, by {entry['intervention']}."
        for entry in found
    ]


def _verdict(found: Sequence[Entry]) -> str:
    parts = []
    for entry in found:
        if entry["rows"] == "paper" and entry["window"] == "all":
            low, high, chance = entry["estimate"]["low"], entry["estimate"]["high"], entry["chance"]
            if chance is None:
                parts.append(f"{entry['intervention']}: no sample to which any image mattered")
                continue
            level = "above" if low > chance else "below" if high < chance else "not distinguishable from"
            parts.append(f"{entry['intervention']}: {percent(entry)}, {level} the chance of {_share(chance)}")
    return (
        "How often the image that the maps point at (rows paper, the run's rule) is the image whose loss hurts the "
        f"answer most: {'; '.join(parts)}. The maps are evidence of what an answer depends on only as far as these "
        "numbers reach, for this model and these questions."
    )


def _elsewhere(entries: Sequence[Entry], split: str | None) -> list[str]:
    """For right answers with their focus elsewhere: does the answer depend on the focus or on the target?"""
    lines = []
    for entry in find(
        entries, "causal_agreement", split=split, intervention=..., window="all", subset="right, focus elsewhere"
    ):
        if entry["rows"] != "paper" or not entry["estimate"]["n"]:
            continue
        subset = "right, focus elsewhere: target"
        target = find(
            entries,
            "causal_agreement",
            split=split,
            rows="paper",
            intervention=entry["intervention"],
            window="all",
            subset=subset,
        )
        lines.append(
            f"Of {entry['estimate']['n']} right answers with their focus elsewhere, by {entry['intervention']}: the "
            f"image in focus had the largest effect in {percent(entry)}, the target in {percent(target[0])}."
        )
    return lines


def _share(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f} %"
