"""The Reward view: two answers to one prompt, how a reward model scores them, and whether it looks before it does.

Lays out the page and wires it; what is computed is in `judging`, what is said is in `reward_cards`.
"""

from html import escape
from typing import TYPE_CHECKING, Any

import gradio as gr

from probes.inputs import InputError
from rewardmodels.edits import HEDGES
from studies.explorer.examples import images_of
from studies.explorer.gallery import make_examples, make_gallery
from studies.explorer.judging import MOST_SENTENCES, Judged, answers_of, judge, pad
from studies.explorer.looking import open_images, prompt_of
from studies.explorer.pair_examples import PairExamples, pair_card
from studies.explorer.panel import QUICK, draw, make_panel
from studies.explorer.reward_cards import padding_chart, padding_words, verdict_card, views_table
from studies.explorer.style import note, notice

if TYPE_CHECKING:
    from rewardmodels.model import RewardModel

NO_MODEL = (
    "No reward model is loaded. Train one on the bundled pairs, in a few minutes: `sightcheck reward train --out "
    "runs/reward --epochs 4`. Then start the explorer with it: `sightcheck app --reward runs/reward`."
)
_REST = 60.0 * 60.0
_WORK: dict[str, Any] = {"concurrency_id": "model", "concurrency_limit": 1, "api_visibility": "private"}
_WELCOME = '<div class="sc-empty">Click an example, or add images, ask a question and write two answers.</div>'
_KINDS = [("Filler sentences", "sentences"), ("Hedges", "hedges")]


def make_reward(model: "RewardModel | None", examples: PairExamples, why_not: str = NO_MODEL) -> None:
    """Lay out the view inside the current `gr.Blocks`.

    Args:
        model: The reward model; None leaves the view saying how to make one.
        examples: Pairs ready to click, and other pictures to show instead of a prompt's.
        why_not: One line that says why there is no model.
    """
    with gr.Row(equal_height=False):
        with gr.Column(scale=4, min_width=340):
            gallery = make_gallery("reward")
            question = gr.Textbox(
                label="Question", placeholder="What is in image 2?", lines=1, max_lines=5, elem_id="reward-question"
            )
            first, second = (
                gr.Textbox(label=f"Answer {name}", lines=2, max_lines=8, elem_id=f"reward-{name.lower()}")
                for name in "AB"
            )
            number = gr.Checkbox(True, label="Number the images", elem_id="reward-numbered", container=False)
            go = gr.Button("Score both", variant="primary", elem_id="reward-go")
            if examples.pairs:
                label = "Examples: the right answer becomes A"
                picked = make_examples([pair_card(example) for example in examples.pairs], "reward", label)
        with gr.Column(scale=7, min_width=560):
            status = gr.HTML(notice(why_not) if model is None else "", elem_id="reward-status", apply_default_css=False)
            verdict = gr.HTML(_WELCOME, elem_id="reward-verdict", apply_default_css=False)
            table = gr.HTML("", elem_id="reward-views", apply_default_css=False)
            unseen = gr.HTML("", elem_id="reward-unseen", apply_default_css=False)
            panel = make_panel("reward")
            judged = gr.State(None, time_to_live=_REST)
            with gr.Column(visible=False, elem_id="reward-padding") as padding:
                with gr.Row(equal_height=True, elem_classes="sc-controls"):
                    side = gr.Radio([("A", 0), ("B", 1)], value=1, label="Pad answer", elem_id="reward-side", scale=2,
                                    min_width=130)  # fmt: skip
                    kind = gr.Dropdown(_KINDS, value="sentences", label="With", filterable=False, scale=4,
                                       elem_id="reward-kind", min_width=200)  # fmt: skip
                    most = gr.Slider(1, MOST_SENTENCES, value=8, step=1, label="Up to", elem_id="reward-most", scale=3,
                                     min_width=150)  # fmt: skip
                    grow = gr.Button("Pad and watch", elem_id="reward-pad", size="md", scale=2, min_width=150)
                said = gr.HTML("", elem_id="reward-said", apply_default_css=False)
                chart = gr.Plot(show_label=False, visible=False, elem_id="reward-chart", min_width=260)
    results = [status, verdict, table, unseen, judged, padding, said, chart, *panel.outputs]

    def on_go(
        files: Any, text: str | None, one: str | None, two: str | None, numbered: bool, rows: str, scale: str
    ) -> list[Any]:
        try:
            found = _judged(model, why_not, files, text, (one, two), numbered, examples)
        except InputError as error:
            return _failed(str(error), rows, scale)
        return _shown(found, rows, scale)

    def on_example(index: int) -> tuple[Any, Any, Any, Any]:
        try:
            images = images_of([example.asked for example in examples.pairs], index)
        except InputError as error:
            raise gr.Error(escape(str(error)), print_exception=False) from error
        chosen = examples.pairs[index]
        return [(image, None) for image in images], chosen.asked.question, *chosen.answers

    def on_pad(held: Any, which: Any, words: Any, steps: Any) -> tuple[Any, Any]:
        if model is None or not isinstance(held, Judged):
            return notice("Nothing to pad yet: score two answers first."), gr.update(value=None, visible=False)
        try:
            found = pad(model, held, 1 if which == 1 else 0, "hedges" if words == "hedges" else "sentences", int(steps))
        except InputError as error:
            return notice(str(error)), gr.update(value=None, visible=False)
        return padding_words(found), gr.update(value=padding_chart(found), visible=True)

    _wire(kind, most)
    inputs = [gallery, question, first, second, number, *panel.controls]
    go.click(on_go, inputs, results, show_progress_on=verdict, **_WORK)
    question.submit(on_go, inputs, results, show_progress_on=verdict, **_WORK)
    grow.click(on_pad, [judged, side, kind, most], [said, chart], show_progress_on=said, **_WORK)
    if examples.pairs:
        filled = picked.click(on_example, picked, [gallery, question, first, second], api_visibility="private")
        filled.success(on_go, inputs, results, show_progress_on=verdict, **_WORK)


def _wire(kind: gr.Dropdown, most: gr.Slider) -> None:
    def on_kind(words: str) -> Any:
        limit = len(HEDGES) if words == "hedges" else MOST_SENTENCES
        return gr.update(maximum=limit, value=min(8, limit))

    kind.input(on_kind, kind, most, **QUICK)


def _judged(
    model: "RewardModel | None",
    why_not: str,
    files: Any,
    text: str | None,
    answers: tuple[str | None, str | None],
    numbered: bool,
    examples: PairExamples,
) -> Judged:
    if model is None:
        raise InputError(why_not)
    paths = [path for path, _ in files or []]
    if paths and not model.sees:
        raise InputError("This reward model reads text only: take the images away.")
    images = open_images(paths) if model.sees else ()
    return judge(model, images, prompt_of(text or "", len(images), numbered), answers_of(*answers), examples.pictures)


def _failed(message: str, rows: str, scale: str) -> list[Any]:
    hidden = gr.update(visible=False)
    return [notice(message), "", "", "", None, hidden, "", _no_chart(), *draw(None, rows, scale)]


def _shown(found: Judged, rows: str, scale: str) -> list[Any]:
    panel = draw(found.shown, rows, scale)
    unseen = note(found.why_not_shown) if found.why_not_shown else ""
    return [
        "",
        verdict_card(found),
        views_table(found),
        unseen,
        found,
        gr.update(visible=True),
        "",
        _no_chart(),
        *panel,
    ]


def _no_chart() -> Any:
    return gr.update(value=None, visible=False)
