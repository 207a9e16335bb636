"""The Inside view: a model's layers and what each kind did with a question's images; expert routing from a run folder.

Lays out the page and wires it; reading is in `insight` and `routing_runs`, wording and drawing in `inside_pages`.
"""

from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr

from probes.inputs import InputError
from studies.explorer.examples import Example, example_card
from studies.explorer.gallery import make_examples, make_gallery, opened, plot_update
from studies.explorer.inside_pages import experts_figure, factors_figure, insight_card, row_choices, run_card, strip
from studies.explorer.insight import FORMS, MIXER_NAMES, Insight, kinds_of, look_inside
from studies.explorer.looking import open_images, prompt_of
from studies.explorer.routing_runs import read_routing_run, routing_run_names
from studies.explorer.style import notice

if TYPE_CHECKING:
    from probes.model import HookedModel

HIDDEN_KINDS = len(MIXER_NAMES)
"""Kinds of mixers that there is a plot for: every kind that is read, so that none of a decoder's is left out."""
RUN_FIGURES = 6
"""Most figures of a routing run."""
_REST = 60.0 * 60.0
_WORK: dict[str, Any] = {"concurrency_id": "model", "concurrency_limit": 1, "api_visibility": "private"}
_QUICK: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
_WELCOME = '<div class="sc-empty">Click an example, or add images and ask a question.</div>'
_TROUBLE = (InputError, OSError, ValueError)


def make_inside(
    model: "HookedModel | None", why_not: str, examples: Sequence[Example], root: Path, blocks: gr.Blocks
) -> None:
    """Lay out the view inside the current `gr.Blocks`.

    Args:
        model: The model to look into; None leaves the view explaining why there is none.
        why_not: One line that says why there is no model.
        examples: Questions ready to click.
        root: Only routing runs below it are opened.
        blocks: The page, whose loading fills the list of runs.
    """
    gr.HTML(_strip_of(model, why_not), elem_id="inside-strip", apply_default_css=False)
    with gr.Tabs(elem_classes="sc-inner"):
        with gr.Tab("A question"):
            _make_question(model, why_not, examples)
        with gr.Tab("A routing run"):
            _make_runs(root, blocks)


def _strip_of(model: "HookedModel | None", why_not: str) -> str:
    if model is None:
        return notice(why_not)
    try:
        return strip(kinds_of(model))
    except InputError as error:
        return notice(str(error))


def _make_question(model: "HookedModel | None", why_not: str, examples: Sequence[Example]) -> None:
    held = gr.State(None, time_to_live=_REST)
    with gr.Row(equal_height=False):
        with gr.Column(scale=4, min_width=340):
            gallery = make_gallery("inside")
            question = gr.Textbox(
                label="Question", placeholder="What is in image 2?", lines=1, max_lines=5, elem_id="inside-question"
            )
            ask = gr.Button("Look inside", variant="primary", elem_id="inside-ask")
            if examples:
                picked = make_examples([example_card(example) for example in examples], "inside")
        with gr.Column(scale=7, min_width=560):
            card = gr.HTML(_WELCOME, elem_id="inside-answer", apply_default_css=False)
            with gr.Row(visible=False, equal_height=True, elem_classes="sc-controls") as controls:
                row_set = gr.Dropdown(
                    row_choices(), value="predicting", label="Rows that look", filterable=False, elem_id="inside-rows"
                )
                form = gr.Dropdown(
                    [(words, name) for name, words in FORMS.items()],
                    value="absolute",
                    label="Hidden attention as",
                    filterable=False,
                    elem_id="inside-form",
                )
            with gr.Row():
                softmax = _plot("inside-softmax")
                hidden = [_plot(f"inside-hidden-{place}") for place in range(HIDDEN_KINDS)]
            experts = _plot("inside-experts")
    plots = [softmax, *hidden]

    def on_ask(files: Any, text: str | None, wanted: str, shape: str) -> list[Any]:
        try:
            if model is None:
                raise InputError(why_not)
            images = open_images([path for path, _ in files or []])
            found = look_inside(model, images, prompt_of(text or "", len(images)))
        except InputError as error:
            nothing = gr.update(value=None, visible=False)
            return [notice(str(error)), None, gr.update(visible=False), *[nothing] * (len(plots) + 1)]
        drawn = [*_factors(found, wanted, shape), plot_update(experts_figure(found))]
        return [insight_card(found), found, gr.update(visible=True), *drawn]

    def on_example(index: int) -> tuple[Any, str]:
        return opened(examples, index)

    def on_control(found: Any, wanted: str, shape: str) -> list[Any]:
        return _factors(found if isinstance(found, Insight) else None, wanted, shape)

    inputs, results = [gallery, question, row_set, form], [card, held, controls, *plots, experts]
    ask.click(on_ask, inputs, results, show_progress_on=card, **_WORK)
    question.submit(on_ask, inputs, results, show_progress_on=card, **_WORK)
    for control in (row_set, form):
        control.input(on_control, [held, row_set, form], plots, **_QUICK)
    if examples:
        chosen = picked.click(on_example, picked, [gallery, question], api_visibility="private")
        chosen.success(on_ask, inputs, results, show_progress_on=card, **_WORK)


def _make_runs(root: Path, blocks: gr.Blocks) -> None:
    with gr.Row(equal_height=True, elem_classes="sc-controls"):
        name = gr.Dropdown([], label="Routing run", elem_id="inside-run", scale=3, min_width=170)
        refresh = gr.Button("↻", elem_id="inside-refresh", scale=0, min_width=44, size="sm")
    card = gr.HTML("", elem_id="inside-run-card", apply_default_css=False)
    places = []
    for place in range(RUN_FIGURES):
        caption = gr.HTML("", elem_id=f"inside-caption-{place}", apply_default_css=False)
        places += [caption, _plot(f"inside-figure-{place}")]

    def on_load(chosen: str | None) -> Any:
        names = routing_run_names(root)
        value = chosen if chosen in names else names[0] if names else None
        none = f"No routing run below {root} yet: make one with `sightcheck routing --out {root}/NAME`, then press ↻."
        return gr.update(choices=names, value=value), "" if names else notice(none)

    def on_run(chosen: str | None) -> list[Any]:
        nothing = ["", gr.update(value=None, visible=False)]
        if not chosen:
            return [gr.skip(), *nothing * RUN_FIGURES]
        try:
            found = read_routing_run(root, chosen)
        except _TROUBLE as error:
            return [notice(str(error)), *nothing * RUN_FIGURES]
        drawn: list[Any] = []
        for caption, figure in found.figures[:RUN_FIGURES]:
            drawn += [f'<p class="sc-note">{escape(caption)}</p>', plot_update(figure)]
        left = RUN_FIGURES - len(found.figures[:RUN_FIGURES])
        return [run_card(found), *drawn, *nothing * left]

    blocks.load(on_load, name, [name, card], **_QUICK)
    refresh.click(on_load, name, [name, card], **_QUICK).then(on_run, name, [card, *places], **_QUICK)
    name.change(on_run, name, [card, *places], **_QUICK)


def _factors(found: Insight | None, row_set: str, form: str) -> list[Any]:
    """Updates of the plots of softmax and of each kind of mixer."""
    if found is None:
        return [plot_update(None)] * (1 + HIDDEN_KINDS)
    hidden = [factors_figure(each, row_set, form) for each in found.hidden]
    drawn = [factors_figure(found.softmax, row_set), *hidden]
    return [plot_update(figure) for figure in [*drawn, *[None] * (1 + HIDDEN_KINDS - len(drawn))]]


def _plot(name: str) -> gr.Plot:
    return gr.Plot(show_label=False, visible=False, elem_id=name, min_width=260)
