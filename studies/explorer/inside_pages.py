"""The Inside view in HTML and figures: the strip of layers, what a question showed, a routing run. Texts are escaped.

Pure: records in, text or figures out. Knows nothing of Gradio or of how records are made.
"""

from collections.abc import Mapping
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

from probes.layer_kinds import LayerKind
from studies.explorer.charts import sized
from studies.explorer.insight import FORMS, Factors, Insight
from studies.explorer.shown import ROW_NAMES, in_nats
from studies.explorer.style import facts
from studies.routing.table import EXPLAINED, HEADINGS

if TYPE_CHECKING:
    from probes.layer_kinds import LayerKinds
    from studies.explorer.routing_runs import RoutingRun

SHORT = {
    LayerKind.ATTENTION: "attention",
    LayerKind.STATE_SPACE: "state space",
    LayerKind.LINEAR_ATTENTION: "linear",
    LayerKind.CONVOLUTION: "convolution",
    LayerKind.EXPERTS: "experts",
    LayerKind.MLP: "mlp",
}
_LEAST, _PER_LAYER, _MOST = 230, 22, 520


def strip(kinds: "Mapping[int, LayerKinds]") -> str:
    """Every layer of a decoder with its true index and its parts, in order."""
    cells = "".join(
        f'<li title="{escape(str(each))}"><b>{layer}</b>{"".join(map(_part, each.all))}</li>'
        for layer, each in kinds.items()
    )
    return f'<ol class="sc-strip" aria-label="Layers and their kinds">{cells}</ol>'


def _part(kind: LayerKind) -> str:
    return f'<i class="sc-kind sc-{escape(kind.name.lower())}">{escape(SHORT[kind])}</i>'


def insight_card(found: Insight) -> str:
    """The answer, and what could not be read."""
    said = escape(found.answer) or "<i>(an empty answer)</i>"
    pairs = {"Log-probability": in_nats(found.log_probability, found.answer_tokens)}
    notes = "".join(f'<p class="sc-note">{escape(note)}</p>' for note in found.notes)
    return f'<div class="sc-answer"><div class="sc-said">{said}</div>{facts(pairs)}</div>{notes}'


def factors_figure(factors: Factors, row_set: str, form: str = "") -> Any:
    """Heat map of what one kind of layer gave each image; None where there is nothing to draw.

    Args:
        factors: Of one kind of layer.
        row_set: The rows that look.
        form: The form of hidden attention; empty for softmax.
    """
    from viz import screens

    table = factors.table.get((row_set, form))
    if table is None or not np.isfinite(table).any():
        return None
    figure = screens.factor_heatmap(table, list(factors.layers))
    numbers = [str(number) for number in range(1, table.shape[1] + 1)]
    figure.update_xaxes(ticktext=numbers, title={"text": "image", "standoff": 4})
    if float(np.nanmin(table)) < 0:
        end = float(np.nanmax(np.abs(table)))
        figure.update_traces(zmin=-end, zmax=end, colorscale="RdBu", selector={"type": "heatmap"})
    name = f"{factors.kind}: {FORMS[form].lower()}" if form else factors.kind
    return sized(figure, f"{name[0].upper()}{name[1:]}", _height(len(factors.layers)))


def experts_figure(found: Insight) -> Any:
    """Expert load of the question, and what image tokens add to it; None without experts."""
    from viz import screens

    if found.experts is None:
        return None
    layers, load, difference, even = found.experts
    figure = screens.expert_load(load, list(layers), difference, even=even)
    title = "Share of tokens that go to each expert; right: tokens of images minus the others"
    return sized(figure, title, _height(len(layers)))


def run_card(found: "RoutingRun") -> str:
    """What a routing run asked, one line a layer, and how far its checkpoints were from the model."""
    asked = ("model", "data", "samples", "knockout")
    named = {name: str(found.config[name]) for name in asked if found.config.get(name)}
    head = "".join(f'<th class="sc-num">{escape(heading)}</th>' for heading in HEADINGS)
    body = "".join(
        "<tr>" + "".join(f'<td class="sc-num">{escape(cell)}</td>' for cell in row) + "</tr>" for row in found.rows
    )
    lines = "".join(f'<p class="sc-note">{escape(line)}</p>' for line in [*found.saturation, f"{EXPLAINED}."])
    table = f'<table class="sc-table"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'
    return f"{facts(named)}{table}{lines}"


def row_choices() -> list[tuple[str, str]]:
    """The row sets that hidden attention is read of, in words."""
    return [(ROW_NAMES[name], name) for name in ("paper", "predicting")]


def _height(layers: int) -> int:
    return min(_MOST, _LEAST + _PER_LAYER * layers)
