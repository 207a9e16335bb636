"""The Runs view's reading and wording, against the verdicts that the made-up run was built with."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from probes.inputs import InputError
from studies.explorer.run_pages import metrics_table, sample_card, summary, table
from studies.explorer.run_samples import Filters, FocusRule, choices, page, read_sample
from studies.runs import Manifest, RunFolder
from tests.studies.explorer.run_factory import HOSTILE, LAYERS, SIDE, make_run, verdict_of

SAMPLES = 40
RULE = FocusRule("paper", "M-LND", 2)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    path: Path = tmp_path_factory.mktemp("runs") / "one"
    make_run(path, SAMPLES)
    return RunFolder.open(path)


def _expected(*verdicts: str) -> list[str]:
    return [f"sample-{index:04d}" for index in range(SAMPLES) if verdict_of(index, SAMPLES) in verdicts]


@pytest.mark.parametrize(
    ("verdict", "kinds"),
    [
        ("all", ("right", "lucky", "wrong", "saw", "error")),
        ("lucky", ("lucky",)),
        ("right", ("right", "lucky")),
        ("wrong", ("wrong", "saw")),
        ("saw", ("saw",)),
        ("errors", ("error",)),
    ],
)
def test_filters_keep_exactly_the_verdicts(run: RunFolder, verdict: str, kinds: tuple[str, ...]) -> None:
    found = page(run, Filters(verdict=verdict, rule=RULE), size=100)
    assert [row["sample_id"] for row in found.rows] == _expected(*kinds)
    assert found.total == len(found.rows)


def test_right_answers_that_no_image_moves_are_found(tmp_path: Path) -> None:
    """Of five checked samples two lose nothing, one of them wrong, and one gains when its second image goes."""
    drops = {"a": (0.004, -0.3), "b": (0.0, -0.01), "c": (0.004, 0.02), "d": (0.0, 0.0), "e": (0.002, float("nan"))}
    image = {"n_images": 2, "image_digests": [None, None], "question": "what?"}
    samples = [{**image, "sample_id": name, "correct": name != "d"} for name in (*drops, "unchecked")]
    effects = [
        {"sample_id": name, "intervention": kind, "window": window, "image": place, "effect": effect + more}
        for name, both in drops.items()
        for place, effect in enumerate(both)
        for kind, window, more in (("knockout", "all", 0.0), ("knockout", "0-1", -5.0), ("blank", "all", 5.0))
    ]
    with RunFolder.create(tmp_path / "run", Manifest(config={}, batches=1)) as made:
        made.write_batch(0, {"samples": samples, "effects": effects})
        made.finish()
        found = page(made, Filters("without_image"))
    assert found.checked and [row["sample_id"] for row in found.rows] == ["b", "e"]


def test_a_run_without_causal_check_says_so_where_it_is_asked_for(tmp_path: Path) -> None:
    with RunFolder.create(tmp_path / "run", Manifest(config={}, batches=1)) as made:
        made.write_batch(0, {"samples": [{"sample_id": "a", "n_images": 1, "question": "what?", "correct": True}]})
        made.finish()
        found = page(made, Filters("without_image"))
    assert not found.rows and not found.checked and "audit with --causal" in table(found)


def test_filters_combine(run: RunFolder) -> None:
    found = page(run, Filters("right", task="needle", images=3, split="test", rule=RULE), size=100)
    expected = [
        index
        for index in range(SAMPLES)
        if verdict_of(index, SAMPLES) in ("right", "lucky") and index % 2 == 1 and 2 + index % 3 == 3 and index % 4
    ]
    assert [row["sample_id"] for row in found.rows] == [f"sample-{index:04d}" for index in expected]
    assert expected


def test_pages_add_up(run: RunFolder) -> None:
    pages = [page(run, Filters(rule=RULE), offset, 12).rows for offset in range(0, SAMPLES, 12)]
    ids = [row["sample_id"] for rows in pages for row in rows]
    assert [len(rows) for rows in pages] == [12, 12, 12, 4] and ids == sorted(set(ids))


def test_without_a_rule_nothing_counts_as_lucky(run: RunFolder) -> None:
    assert page(run, Filters("lucky")).total == 0


def test_unknown_verdict_is_refused(run: RunFolder) -> None:
    with pytest.raises(InputError, match="choose one of All samples"):
        page(run, Filters("correct) OR (true"))


@pytest.mark.parametrize("task", ["needle' OR '1'='1", "x'; DROP VIEW samples; --"])
def test_filter_values_are_never_sql(run: RunFolder, task: str) -> None:
    assert page(run, Filters(task=task, rule=RULE)).total == 0


def test_choices(run: RunFolder) -> None:
    found = choices(run)
    assert (found.tasks, found.images, found.splits) == (["content", "needle"], [2, 3, 4], ["dev", "test"])
    assert found.rules == [RULE, FocusRule("predicting", "M-LND", 2)]


def test_a_sample_has_its_own_arrays(run: RunFolder) -> None:
    sample = read_sample(run, "sample-0002", [RULE])
    shown = sample.shown
    assert shown is not None and shown.layers == LAYERS and len(shown.pictures) == 4
    assert (shown.target, shown.focus, shown.regions) == (2, {"paper": 3}, ())
    needle = read_sample(run, "sample-0003", [RULE]).shown
    assert needle is not None and needle.regions == ((0.0, 0.0, 0.5, 0.25),)
    maps = shown.maps["paper"]
    for image, scores in enumerate(maps):
        assert scores is not None and scores.shape == (len(LAYERS), 16)
        assert scores.mean(axis=1) == pytest.approx(shown.factors["paper"][:, image], rel=2e-3), "float16 maps"
    focused = maps[3]
    assert focused is not None and focused.argmax(axis=1).tolist() == [layer * 4 + layer for layer in LAYERS]
    assert shown.pairwise is not None and np.isnan(shown.pairwise[:, 0, 1]).all(), "image 1 comes before image 2"
    assert np.isfinite(shown.pairwise[:, 1, 0]).all()
    raster = shown.pictures[0].raster
    assert np.array_equal(np.unique(raster), np.arange(16)) and raster[0, -1] == 3, "the top right cell is the fourth"


def test_an_error_is_shown_as_one(run: RunFolder) -> None:
    sample = read_sample(run, f"sample-{SAMPLES - 1:04d}", [RULE])
    assert "image 2 is truncated: save it again" in sample_card(sample, None)
    assert sample.shown is not None and not sample.shown.maps


def test_missing_images_are_marked(run: RunFolder, tmp_path: Path) -> None:
    copy = make_run(tmp_path / "copy", 10)
    for path in (copy.path / "images").glob("*.webp"):
        path.unlink()
    shown = read_sample(RunFolder.open(copy.path), "sample-0000", [RULE]).shown
    assert shown is not None and all(picture.missing for picture in shown.pictures)
    assert shown.pictures[0].size == (224, 224) and SIDE == 64


def test_unknown_sample_is_named(run: RunFolder) -> None:
    with pytest.raises(InputError, match="no sample 'nothing'"):
        read_sample(run, "nothing")


def test_texts_are_escaped_everywhere(run: RunFolder) -> None:
    name = f"sample-{SAMPLES - 2:04d}"
    card = sample_card(read_sample(run, name, [RULE]), 0)
    rows = table(page(run, Filters(rule=RULE), SAMPLES - 4, 12))
    hostile_metric: list[dict[str, Any]] = [
        {"name": HOSTILE, "task": HOSTILE, "rule": HOSTILE, "estimate": {"value": 1.0}}
    ]
    for html in (card, rows, metrics_table(hostile_metric)):
        assert "<script" not in html and "<img src=x" not in html and "&lt;script&gt;" in html


def test_summary_shows_metrics_and_figures(run: RunFolder) -> None:
    html = summary(run)
    assert "answer accuracy" in html and "0.650 to 0.850" in html and "a/model" in html and "data:image/png" in html


def test_summary_folds_parts_away_and_leaves_layers_to_the_figures() -> None:
    estimate = {"value": 0.25, "low": 0.2, "high": 0.3, "n": 9}
    entries: list[dict[str, Any]] = [
        {"name": "ivm_rate", "layer": None, "task": None, "estimate": estimate},
        {"name": "ivm_rate", "layer": None, "task": "needle", "estimate": estimate},
        {"name": "focus_share", "layer": None, "task": None, "places": 3, "position": 0, "estimate": estimate},
        {"name": "of a layer", "layer": 2, "task": None, "estimate": estimate},
    ]
    whole, parts = metrics_table(entries).split("<details>")
    assert whole.count("ivm rate</td>") == 1 and "needle" not in whole
    assert "2 numbers" in parts and "position 1" in parts and "of a layer" not in whole + parts


def test_an_unfinished_run_says_so(tmp_path: Path) -> None:
    from studies.runs import Manifest

    run = RunFolder.create(tmp_path / "new", Manifest(config={"model": "m"}, batches=3))
    run.close()
    assert "no metrics.json yet" in summary(run) and "0 of 3" in summary(run)
    assert page(run, Filters()).total == 0 and choices(run).rules == []


def test_an_error_sample_without_readable_images_opens(tmp_path: Path) -> None:
    row = {"sample_id": "a", "n_images": 2, "target": 1, "question": "what?", "error": "image 1: no bytes in it"}
    with RunFolder.create(tmp_path / "run", Manifest(config={}, batches=1)) as made:
        made.write_batch(0, {"samples": [{**row, "image_digests": [None, "0" * 64]}]})
        made.finish()
        found = made.verify()
    assert found.ok and found.images_missing == 1
    sample = read_sample(made, "a", [RULE])
    assert sample.shown is not None and all(each.missing for each in sample.shown.pictures)
    assert "no bytes in it" in sample_card(sample, None)


def test_answer_accuracy_is_listed_once() -> None:
    estimate = {"value": 0.5, "low": 0.4, "high": 0.6, "n": 10}
    entry: dict[str, Any] = {"name": "answer_accuracy", "split": "test", "task": None, "estimate": estimate}
    ruled: dict[str, Any] = {"rule": "LND", "last": 1}
    entries = [
        {**entry, "rows": None},
        {**entry, "rows": "paper"},
        {**entry, "rows": "predicting"},
        {**entry, "rows": "paper", "places": 4, "position": 0, **ruled},
        {**entry, "rows": "predicting", "places": 4, "position": 0, **ruled},
        {**entry, "rows": "paper", "places": 4, "position": 1, **ruled},
        {**entry, "rows": "paper", "name": "ivm_rate"},
        {**entry, "rows": "predicting", "name": "ivm_rate"},
    ]
    whole, parts = metrics_table(entries).split("<details>")
    assert whole.count(">answer accuracy<") == 1 and whole.count(">ivm rate<") == 2
    assert parts.count("answer accuracy (") == 2 * 2 and "LND" not in parts
