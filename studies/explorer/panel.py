"""The panel that both views share: layer slider, rows, maps over the images, and the two heat maps.

It keeps one `Shown` per session and redraws from it; nothing is computed on a model or read from a disk here.
"""

from dataclasses import dataclass
from typing import Any

import gradio as gr

from studies.explorer.charts import factors_chart, pairwise_chart
from studies.explorer.gallery import plot_update
from studies.explorer.overlays import OWN, SHARED, cards
from studies.explorer.shown import ROW_NAMES, Shown

QUICK: dict[str, Any] = {
    "queue": False,
    "show_progress": "hidden",
    "trigger_mode": "always_last",
    "api_visibility": "private",
}
"""How events are wired that only redraw: at once, and without a spinner."""

_REST = 60.0 * 60.0


@dataclass(frozen=True)
class Panel:
    """The components, in the order in which `draw` fills them. `room` holds the others, and hides while empty."""

    room: gr.Column
    state: gr.State
    slider: gr.Slider
    rows: gr.Dropdown
    scale: gr.Dropdown
    cards: gr.HTML
    factors: gr.Plot
    pairwise: gr.Plot

    @property
    def outputs(self) -> list[Any]:
        """What an event that changes the sample must list as its outputs."""
        return [self.room, self.state, self.slider, self.rows, self.cards, self.factors, self.pairwise]

    @property
    def controls(self) -> list[Any]:
        """The rows and the colour scale, which an event that changes the sample needs as inputs."""
        return [self.rows, self.scale]


def make_panel(prefix: str) -> Panel:
    """Lay out the panel and wire its own controls.

    Args:
        prefix: Start of the elements' ids on the page.
    """
    state = gr.State(None, time_to_live=_REST)
    with gr.Column(visible=False, elem_id=f"{prefix}-panel") as room:
        with gr.Row(equal_height=True, elem_classes="sc-controls"):
            slider = gr.Slider(
                0,
                1,
                value=0,
                step=1,
                label="Layer",
                elem_id=f"{prefix}-layer",
                interactive=False,
                scale=4,
                min_width=190,
            )
            rows = gr.Dropdown(
                [(ROW_NAMES["paper"], "paper")],
                value="paper",
                label="Rows that look",
                elem_id=f"{prefix}-rows",
                filterable=False,
                scale=3,
                min_width=170,
            )
            scale = gr.Dropdown(
                [SHARED, OWN], value=SHARED, label="Colour scale", filterable=False, elem_id=f"{prefix}-scale", scale=3,
                min_width=150,
            )  # fmt: skip
        maps = gr.HTML("", elem_id=f"{prefix}-maps", apply_default_css=False)
        with gr.Row():
            factors = gr.Plot(
                label="Attention factors", show_label=False, elem_id=f"{prefix}-factors", visible=False, min_width=260
            )
            pairwise = gr.Plot(
                label="Image to image", show_label=False, elem_id=f"{prefix}-pairwise", visible=False, min_width=260
            )
    panel = Panel(room, state, slider, rows, scale, maps, factors, pairwise)
    controls = [state, slider, rows, scale]
    slider.input(_on_layer, controls, [maps, pairwise], **QUICK)
    scale.input(_on_scale, controls, maps, **QUICK)
    rows.input(_on_rows, controls, [maps, factors], **QUICK)
    return panel


def draw(shown: Shown | None, rows: str, scale: str) -> list[Any]:
    """Updates of `Panel.outputs` for a new sample; the slider goes to the last layer, or to the mean behind it.

    Args:
        shown: The sample; None empties the panel.
        rows: The row set chosen so far; kept where the sample has it.
        scale: The colour scale chosen.
    """
    if shown is None:
        return [gr.update(visible=False), None, gr.skip(), gr.skip(), "", *[gr.update(value=None, visible=False)] * 2]
    offered = [name for name in ROW_NAMES if name in shown.factors]
    chosen = rows if rows in offered else offered[0] if offered else "paper"
    last = max(0, len(shown.steps) - 1)
    return [
        gr.update(visible=True),
        shown,
        gr.update(maximum=max(1, last), value=last, interactive=last > 0, label=_layer_label(shown)),
        gr.update(choices=[(ROW_NAMES[name], name) for name in offered or ["paper"]], value=chosen),
        cards(shown, chosen, last, scale),
        plot_update(factors_chart(shown, chosen)),
        plot_update(pairwise_chart(shown, last)),
    ]


def _shown(value: Any) -> Shown | None:
    return value if isinstance(value, Shown) else None


def _position(shown: Shown | None, value: float) -> int:
    count = len(shown.steps) if shown is not None else 1
    return min(max(0, int(value)), max(0, count - 1))


def _on_layer(held: Any, value: float, rows: str, scale: str) -> tuple[Any, Any]:
    shown = _shown(held)
    position = _position(shown, value)
    return cards(shown, rows, position, scale), plot_update(pairwise_chart(shown, position))


def _on_scale(held: Any, value: float, rows: str, scale: str) -> str:
    shown = _shown(held)
    return cards(shown, rows, _position(shown, value), scale)


def _on_rows(held: Any, value: float, rows: str, scale: str) -> tuple[Any, Any]:
    shown = _shown(held)
    return cards(shown, rows, _position(shown, value), scale), plot_update(factors_chart(shown, rows))


def _layer_label(shown: Shown) -> str:
    if shown.averaged:
        return f"Layer; {len(shown.layers)}: mean"
    if tuple(shown.layers) == tuple(range(len(shown.layers))):
        return f"Layer, 0 to {len(shown.layers) - 1}"
    return "Layer (place among those with attention)"
