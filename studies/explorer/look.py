"""The Look view: images and a question in; the answer, where the model looked, and what blanking an image changes.

Lays out the page and words the results; what is computed is in `looking`, what is redrawn is in `panel`.
"""

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING, Any

import gradio as gr

from probes.inputs import InputError
from studies.explorer.charts import common_limits, factors_chart
from studies.explorer.examples import Example, example_card
from studies.explorer.gallery import make_examples, make_gallery, opened
from studies.explorer.looking import (
    LONGEST,
    LONGEST_ALLOWED,
    Blanked,
    Looked,
    blank,
    look,
    open_images,
    prompt_of,
)
from studies.explorer.panel import draw, make_panel
from studies.explorer.shown import in_nats
from studies.explorer.style import facts, notice

if TYPE_CHECKING:
    from probes.model import HookedModel

_REST = 60.0 * 60.0
_WORK: dict[str, Any] = {"concurrency_id": "model", "concurrency_limit": 1, "api_visibility": "private"}
_WELCOME = '<div class="sc-empty">Click an example, or add images and ask a question.</div>'


def make_look(model: "HookedModel | None", why_not: str, examples: Sequence[Example]) -> None:
    """Lay out the view inside the current `gr.Blocks`.

    Args:
        model: The model to ask; None leaves the view explaining why there is none.
        why_not: One line that says why there is no model.
        examples: Questions ready to click.
    """
    with gr.Row(equal_height=False):
        with gr.Column(scale=4, min_width=340):
            gallery = make_gallery("look")
            question = gr.Textbox(
                label="Question", placeholder="What is in image 2?", lines=1, max_lines=5, elem_id="look-question"
            )
            ask = gr.Button("Ask", variant="primary", elem_id="look-ask")
            with gr.Accordion("Options", open=False, elem_id="look-options"), gr.Row(equal_height=True):
                numbered = gr.Checkbox(
                    True,
                    label="Number the images",
                    info="1 <image> 2 <image> …",
                    elem_id="look-numbered",
                    min_width=190,
                )
                longest = gr.Number(
                    LONGEST,
                    minimum=1,
                    maximum=LONGEST_ALLOWED,
                    precision=0,
                    label="Longest answer, tokens",
                    elem_id="look-longest",
                    min_width=150,
                )
            if examples:
                picked = make_examples([example_card(example) for example in examples], "look")
        with gr.Column(scale=7, min_width=560):
            status = gr.HTML(notice(why_not) if model is None else "", elem_id="look-status", apply_default_css=False)
            answer = gr.HTML(_WELCOME, elem_id="look-answer", apply_default_css=False)
            panel = make_panel("look")
            looked = gr.State(None, time_to_live=_REST)
            with gr.Row(visible=False, elem_classes="sc-ask") as blanking:
                which = gr.Radio([("Image 1", 0)], value=0, label="Blank an image", elem_id="look-which", scale=5)
                go = gr.Button("Blank it, see what changes", elem_id="look-blank", size="md", scale=2, min_width=220)
            change = gr.HTML("", elem_id="look-change", apply_default_css=False)
            with gr.Row():
                before = gr.Plot(show_label=False, visible=False, elem_id="look-before", min_width=260)
                after = gr.Plot(show_label=False, visible=False, elem_id="look-after", min_width=260)
    results = [status, answer, looked, blanking, which, change, before, after, *panel.outputs]

    def on_ask(files: Any, text: str | None, number: bool, most: Any, rows: str, scale: str) -> list[Any]:
        try:
            found = _ask(model, why_not, files, text, number, most)
        except InputError as error:
            return _failed(str(error), rows, scale)
        return _answered(found, rows, scale)

    def on_example(index: int) -> tuple[Any, str]:
        return opened(examples, index)

    def on_blank(found: Any, image: Any, rows: str) -> list[Any]:
        if model is None or not isinstance(found, Looked):
            return [notice("Nothing to blank yet: ask a question first."), *_no_plots()]
        try:
            return _changed(found, blank(model, found, int(image)), rows)
        except InputError as error:
            return [notice(str(error)), *_no_plots()]

    inputs = [gallery, question, numbered, longest, *panel.controls]
    ask.click(on_ask, inputs, results, show_progress_on=answer, **_WORK)
    question.submit(on_ask, inputs, results, show_progress_on=answer, **_WORK)
    go.click(on_blank, [looked, which, panel.rows], [change, before, after], show_progress_on=which, **_WORK)
    if examples:
        chosen = picked.click(on_example, picked, [gallery, question], api_visibility="private")
        chosen.success(on_ask, inputs, results, show_progress_on=answer, **_WORK)


def _ask(model: "HookedModel | None", why_not: str, files: Any, text: str | None, number: bool, longest: Any) -> Looked:
    if model is None:
        raise InputError(why_not)
    images = open_images([path for path, _ in files or []])
    if not isinstance(longest, int) or not 1 <= longest <= LONGEST_ALLOWED:
        raise InputError(f"The longest answer must be 1 to {LONGEST_ALLOWED} tokens.")
    return look(model, images, prompt_of(text or "", len(images), number), longest)


def _failed(message: str, rows: str, scale: str) -> list[Any]:
    return [notice(message), "", None, gr.update(visible=False), gr.skip(), "", *_no_plots(), *draw(None, rows, scale)]


def _answered(found: Looked, rows: str, scale: str) -> list[Any]:
    panel = draw(found.shown, rows, scale)
    count = len(found.images)
    focus = found.shown.focus.get(rows) or 0
    choices = [(f"Image {number}", number - 1) for number in range(1, count + 1)]
    which = gr.update(choices=choices, value=focus)
    return ["", _answer_card(found), found, gr.update(visible=True), which, "", *_no_plots(), *panel]


def _no_plots() -> list[Any]:
    return [gr.update(value=None, visible=False)] * 2


def _answer_card(found: Looked) -> str:
    shown = found.shown
    looks = {name: f"image {index + 1}" for name, index in shown.focus.items() if index is not None}
    pairs = {"Focus": looks.get("paper", "none")}
    if looks.get("predicting") != looks.get("paper"):
        pairs["Focus while predicting"] = looks.get("predicting", "none")
    pairs |= {
        "Rule": shown.rule,
        "Log-probability": in_nats(found.log_probability, len(found.answer_ids)),
    }
    said = escape(found.answer) or "<i>(an empty answer)</i>"
    return f'<div class="sc-answer"><div class="sc-said">{said}</div>{facts(pairs)}</div>'


def _changed(found: Looked, now: Blanked, rows: str) -> list[Any]:
    same = now.looked.answer.strip() == found.answer.strip()
    focus = now.looked.shown.focus.get(rows)
    pairs = {
        f"With image {now.image + 1} blank": "the same answer" if same else f"“{now.looked.answer}”",
        f"Log-probability of “{_short(found.answer)}”": f"{found.log_probability:z.3f} → {now.log_probability:z.3f}",
        "Drop": f"{now.drop:z.3f} nats" if found.answer_ids else "none: the first answer is empty",
        "Focus": "none" if focus is None else f"image {focus + 1}",
    }
    limits = common_limits([found.shown, now.looked.shown], rows)
    charts = [
        factors_chart(found.shown, rows, "Factors before", limits),
        factors_chart(now.looked.shown, rows, f"Factors with image {now.image + 1} blank", limits),
    ]
    return [facts(pairs), *(gr.update(value=chart, visible=chart is not None) for chart in charts)]


def _short(text: str, most: int = 60) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"
