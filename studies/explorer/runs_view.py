"""The Runs view: choose a run folder, filter its samples, open one with its maps; the run's metrics and figures.

Lays out the page and wires it; reading is in `run_samples`, wording in `run_pages`, redrawing in `panel`.
"""

from pathlib import Path
from typing import Any

import gradio as gr
import pyarrow as pa

from probes.inputs import InputError
from studies.explorer.guard import run_names, run_path
from studies.explorer.panel import draw, make_panel
from studies.explorer.run_pages import PICK, sample_card, summary, table
from studies.explorer.run_samples import PAGE, VERDICTS, Choices, Filters, FocusRule, choices, page, read_sample
from studies.explorer.shown import ROW_NAMES
from studies.explorer.style import note, notice
from studies.runs import RunFolder

ANY = "any"
_TROUBLE = (InputError, OSError, pa.ArrowException)
_EVENT: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
_OPEN_ONE = '<div class="sc-empty">Click a row, or press Enter on it, to open the sample.</div>'


def make_runs(root: Path, blocks: gr.Blocks) -> None:
    """Lay out the view inside the current `gr.Blocks`.

    Args:
        root: Only run folders below it are opened.
        blocks: The page, whose loading fills the list of runs.
    """
    with gr.Row(equal_height=True, elem_classes="sc-controls"):
        name = gr.Dropdown([], label="Run", elem_id="runs-name", scale=3, min_width=170)
        filters = _make_filters()
        refresh = gr.Button("↻", elem_id="runs-refresh", scale=0, min_width=44, size="sm")
    status = _html("", "runs-status")
    with gr.Tabs(elem_classes="sc-inner"):
        with gr.Tab("Samples"), gr.Row(equal_height=False):
            with gr.Column(scale=5, min_width=460):
                rows = _html("", "runs-table", js_on_load=PICK)
                with gr.Row(elem_classes="sc-pager"):
                    back = gr.Button("← Previous", elem_id="runs-back", size="sm", min_width=90)
                    where = _html("", "runs-where")
                    forward = gr.Button("Next →", elem_id="runs-forward", size="sm", min_width=90)
            with gr.Column(scale=6, min_width=480):
                card = _html(_OPEN_ONE, "runs-sample")
                panel = make_panel("runs")
        with gr.Tab("Summary"):
            about = _html("", "runs-summary")
    offset = gr.State(0)
    listed = [status, rows, where, offset]
    opened = [card, *panel.outputs]

    def on_load(chosen: str | None) -> Any:
        names = run_names(root)
        value = chosen if chosen in names else names[0] if names else None
        none = f"No run folder below {root} yet: make one with `sightcheck audit --out {root}/NAME`, then press ↻."
        return gr.update(choices=names, value=value), "" if names else notice(none)

    def on_run(chosen: str | None) -> list[Any]:
        closed = [_OPEN_ONE, *draw(None, "paper", "")]
        try:
            run = RunFolder.open(run_path(root, chosen))
            found = choices(run)
            first = Filters(rule=found.rules[0] if found.rules else None)
            return [*_filter_updates(found), summary(run), *_listed(run, first, 0), *closed]
        except _TROUBLE as error:
            return [*_filter_updates(Choices([], [], [], [])), "", *_not_listed(error), *closed]

    def on_page(step: int) -> Any:
        def turn(chosen: str | None, start: int, *values: Any) -> list[Any]:
            try:
                run = RunFolder.open(run_path(root, chosen))
                return _listed(run, _filters(values), max(0, start + step) if step else 0)
            except _TROUBLE as error:
                return _not_listed(error)

        return turn

    def on_open(chosen: str | None, rule: Any, wanted: str, scale: str, event: gr.EventData) -> list[Any]:
        try:
            return _opened(RunFolder.open(run_path(root, chosen)), str(event.value), rule, wanted, scale)
        except _TROUBLE as error:
            return [notice(str(error)), *draw(None, wanted, scale)]

    blocks.load(on_load, name, [name, status], **_EVENT)
    loaded = refresh.click(on_load, name, [name, status], **_EVENT)
    loaded.then(on_run, name, [*filters, about, *listed, *opened], **_EVENT)
    name.change(on_run, name, [*filters, about, *listed, *opened], **_EVENT)
    asked = [name, offset, *filters]
    for control in filters:
        control.input(on_page(0), asked, listed, **_EVENT)
    back.click(on_page(-PAGE), asked, listed, **_EVENT)
    forward.click(on_page(PAGE), asked, listed, **_EVENT)
    rows.select(on_open, [name, filters[-1], *panel.controls], opened, **_EVENT)


def _html(value: str, name: str, **settings: Any) -> gr.HTML:
    return gr.HTML(value, elem_id=name, apply_default_css=False, **settings)


def _make_filters() -> list[Any]:
    shown = [(words, key) for key, words in VERDICTS.items()]
    return [
        gr.Dropdown(shown, value="all", label="Show", elem_id="runs-show", filterable=False, scale=3, min_width=250),
        gr.Dropdown([ANY], value=ANY, label="Task", elem_id="runs-task", scale=2, min_width=110),
        gr.Dropdown([ANY], value=ANY, label="Images", elem_id="runs-images", filterable=False, scale=1, min_width=85),
        gr.Dropdown([ANY], value=ANY, label="Split", elem_id="runs-split", filterable=False, scale=1, min_width=85),
        gr.Dropdown([], label="Focus by", elem_id="runs-rule", filterable=False, scale=4, min_width=255),
    ]


def _filter_updates(found: Choices) -> list[Any]:
    rules = [(f"{ROW_NAMES.get(rule.rows, rule.rows)}, {rule.words}", _rule_key(rule)) for rule in found.rules]
    return [
        gr.update(value="all"),
        gr.update(choices=[ANY, *found.tasks], value=ANY),
        gr.update(choices=[ANY, *map(str, found.images)], value=ANY),
        gr.update(choices=[ANY, *found.splits], value=ANY),
        gr.update(choices=rules, value=rules[0][1] if rules else None),
    ]


def _rule_key(rule: FocusRule) -> str:
    return f"{rule.rows}|{rule.rule}|{rule.last}"


def _rule_of(key: Any) -> FocusRule | None:
    parts = str(key or "").split("|")
    return FocusRule(parts[0], parts[1], int(parts[2])) if len(parts) == 3 and parts[2].isdigit() else None


def _filters(values: tuple[Any, ...]) -> Filters:
    verdict, task, images, split, rule = values
    return Filters(
        verdict=verdict or "all",
        task=None if task in (ANY, None) else task,
        images=None if images in (ANY, None) else int(images),
        split=None if split in (ANY, None) else split,
        rule=_rule_of(rule),
    )


def _listed(run: RunFolder, filters: Filters, start: int) -> list[Any]:
    found = page(run, filters, start)
    if start >= found.total > 0:
        start = (found.total - 1) // PAGE * PAGE
        found = page(run, filters, start)
    last = min(start + PAGE, found.total)
    place = f"{start + 1:,}–{last:,} of {found.total:,} samples" if found.total else "no samples"
    return ["", table(found), note(place), start]


def _not_listed(error: Exception) -> list[Any]:
    return [notice(str(error)), "", "", 0]


def _opened(run: RunFolder, sample_id: str, key: Any, wanted: str, scale: str) -> list[Any]:
    chosen = _rule_of(key)
    rules = [] if chosen is None else [chosen]
    for rule in choices(run).rules:
        if rule.rows not in {held.rows for held in rules}:
            rules.append(rule)
    sample = read_sample(run, sample_id, rules)
    focus = sample.shown.focus.get(chosen.rows) if sample.shown is not None and chosen is not None else None
    return [sample_card(sample, focus), *draw(sample.shown, wanted, scale)]
