"""`report.html` of a routing study: one file that opens offline. Everything that others wrote is escaped. No torch."""

import base64
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from studies.auditing.entries import Entry
from studies.routing.measured import Measured
from studies.routing.table import EXPLAINED, HEADINGS, rows, saturation

if TYPE_CHECKING:
    from studies.runs import RunFolder

TEMPLATES = Path(__file__).resolve().parent / "templates"
NAMES = {
    "load_entropy": "entropy of the load",
    "load_gini": "Gini coefficient of the load",
    "largest_over_mean": "largest load over the mean",
    "margin": "margin of the choice",
    "margin_without_bias": "margin without bias",
    "moved_by_bias": "tokens moved by the bias",
    "specialisation": "information on",
    "largest_divergence": "largest Jensen-Shannon divergence, by",
    "strongest_pair": "strongest pair of experts",
}
"""Measures of the report's table by layer, in order."""


def write_report(
    folder: "RunFolder", found: Measured, figures: Sequence[tuple[str, bytes]], failed: Mapping[str, str]
) -> Path:
    """Write the report into the run folder; returns its path.

    Args:
        folder: The run.
        found: What was measured.
        figures: Captions and PNGs.
        failed: Questions that failed, with their reasons.
    """
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    manifest = folder.manifest.as_json()
    page = environment.get_template("routing.html.j2").render(
        title=f"Routing: {folder.path.name}",
        version=manifest["versions"].get("sightcheck", ""),
        created=manifest["created"],
        config=manifest["config"],
        questions=int(found.arrays["questions"]),
        experts=int(found.arrays["experts"]),
        k=int(found.arrays["k"]),
        headings=HEADINGS,
        rows=rows(found.entries),
        explained=EXPLAINED,
        saturation=saturation(found.entries),
        left_out=found.left_out,
        figures=[
            {"caption": caption, "source": f"data:image/png;base64,{base64.b64encode(content).decode()}"}
            for caption, content in figures
        ],
        numbers=[_number(entry) for entry in found.entries if entry["name"] in NAMES],
        failed=list(failed.items()),
        manifest=json.dumps(manifest, indent=2, ensure_ascii=False),
    )
    return folder.write_file("report.html", page)


def _number(entry: Entry) -> dict[str, Any]:
    estimate = entry["estimate"]
    ends = "" if estimate["low"] is None else f"[{estimate['low']:.3f}, {estimate['high']:.3f}]"
    beside = {
        "even": f"even: {entry['even']:.3f}" if entry.get("even") is not None else "",
        "chance": f"shuffled: {entry['chance']:.3f}, p = {entry['p_value']:.3f}" if "p_value" in entry else "",
        "between": " and ".join(entry.get("between", [])),
        "experts": " and ".join(map(str, entry.get("experts", []))),
    }
    return {
        "layer": entry["layer"],
        "name": " ".join([NAMES[entry["name"]], entry.get("label", "")]),
        "value": f"{estimate['value']:.3f}" if estimate["value"] is not None else "–",
        "interval": ends,
        "beside": "; ".join(text for text in beside.values() if text),
        "n": estimate["n"],
        "clusters": estimate["clusters"],
    }
