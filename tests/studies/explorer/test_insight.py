"""What the Inside view reads: a question's layers against the model's own traces, and routing runs, broken ones too."""

import io
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from probes.experts.load import expert_load
from probes.inputs import InputError
from probes.mixers.readers import READERS
from probes.model import Question
from probes.state_space import trace_mixers
from studies.explorer.inside_pages import experts_figure, factors_figure, insight_card, run_card, strip
from studies.explorer.inside_view import HIDDEN_KINDS, RUN_FIGURES, _factors
from studies.explorer.insight import MIXER_NAMES, Insight, look_inside
from studies.explorer.looking import prompt_of
from studies.explorer.routing_runs import read_routing_run, routing_run_names
from studies.routing.along import along_training
from studies.routing.measures import measures
from studies.routing.shards import read_shard, shard_bytes
from tests.probes import hybrid_models
from tests.probes.hooked import hooked
from tests.studies.explorer.routing_factory import EXPERTS, LAYERS, QUESTIONS, K, make_evidence, make_routing_run
from tests.studies.explorer.run_factory import HOSTILE, make_image, make_run

IMAGES = [make_image(0), make_image(1)]


def without_content(name: str, count: int) -> bytes:
    """An archive whose array promises any number of empty texts, in a few bytes."""
    inner, outer = io.BytesIO(), io.BytesIO()
    np.lib.format.write_array_header_1_0(inner, {"descr": "<U0", "fortran_order": False, "shape": (count,)})
    with zipfile.ZipFile(outer, "w") as archive:
        archive.writestr(f"{name}.npy", inner.getvalue())
    return outer.getvalue()


PROMPT = prompt_of("Which image shows the red ball?", 2)


@pytest.fixture(scope="module")
def insight() -> Insight:
    return look_inside(hybrid_models.hooked("nemotron"), IMAGES, PROMPT, 3)


def test_every_kind_of_layer_is_read_and_none_is_averaged_with_another(insight: Insight) -> None:
    model = hybrid_models.hooked("nemotron")
    question = Question(tuple(IMAGES), PROMPT)
    (trace,) = model.trace_batch([question], max_new_tokens=3)
    assert insight.answer == trace.answer and insight.softmax.layers == (3,)
    np.testing.assert_allclose(insight.softmax.table["paper", ""], trace.factors, rtol=1e-5)
    (found,) = trace_mixers(model, [question], [trace.answer_ids])
    (hidden,) = insight.hidden
    assert hidden.kind == "Mamba-2" and hidden.layers == (0, 2)
    for form in ("signed", "absolute", "value"):
        np.testing.assert_allclose(hidden.table["predicting", form], found.factors(form, "predicting"), rtol=1e-5)
    routing = model.routing(model.encode([question], [trace.answer_ids]))
    assert insight.experts is not None and insight.experts.layers == (1, 4)
    shown = routing.is_image
    loads = [expert_load(routing.indices[:, mask], 16) for mask in (shown, ~shown)]
    np.testing.assert_allclose(insight.experts.difference, loads[0] - loads[1])
    assert not insight.notes


def test_what_is_drawn_bears_true_layers(insight: Insight) -> None:
    figure = factors_figure(insight.hidden[0], "paper", "absolute")
    assert list(figure.layout.yaxis.ticktext) == ["0", "2"] and figure.layout.title.text.startswith("Mamba-2: size")
    table = np.array(insight.hidden[0].table["paper", "signed"])
    turned = insight.hidden[0]._replace(table={("paper", "signed"): table - table.max()})
    signed, plain = (factors_figure(each, "paper", "signed").data[0] for each in (turned, insight.hidden[0]))
    assert signed.zmin == -signed.zmax == (table - table.max()).min()
    assert plain.zmin is None or plain.zmin >= 0
    assert factors_figure(insight.softmax, "anchor") is None
    assert list(experts_figure(insight).layout.yaxis.ticktext) == ["1", "4"]
    page = strip(hybrid_models.hooked("nemotron").layer_kinds)
    assert [page.count(f"sc-kind sc-{name}") for name in ("state_space", "experts", "attention", "mlp")] == [2, 2, 1, 1]
    assert '<b>3</b><i class="sc-kind sc-attention">' in page


def test_every_kind_of_mixer_has_a_name_and_a_plot(insight: Insight) -> None:
    assert set(MIXER_NAMES) == {reader.kind for reader in READERS.values()} and len(MIXER_NAMES) == HIDDEN_KINDS
    several = replace(insight, hidden=insight.hidden * HIDDEN_KINDS)
    drawn = _factors(several, "paper", "absolute")
    assert [bool(update["visible"]) for update in drawn] == [True] * (1 + HIDDEN_KINDS)
    assert [bool(update["visible"]) for update in _factors(insight, "paper", "absolute")] == [True, True, False, False]


def test_a_dense_model_says_what_it_has_not() -> None:
    found = look_inside(hooked("llava"), IMAGES, PROMPT, 2)
    assert not found.hidden and experts_figure(found) is None
    assert "no hidden attention" in insight_card(found) and "No layer has experts" in insight_card(found)


def test_routing_runs_are_found_read_and_escaped(tmp_path: Path) -> None:
    make_routing_run(tmp_path / "runs" / "mixture")
    make_run(tmp_path / "runs" / "audit", 4)
    (tmp_path / "runs" / "bad").mkdir()
    (tmp_path / "runs" / "bad" / "manifest.json").write_text("{}")
    root = tmp_path / "runs"
    assert routing_run_names(root) == ["mixture"]
    found = read_routing_run(root, "mixture")
    assert len(found.figures) == RUN_FIGURES, "the page has a place for every figure of a whole run"
    page = run_card(found)
    assert HOSTILE not in page and "&lt;script&gt;" in page and "<script" not in page
    for name, message in (("audit", "no routing run"), ("../..", "not below"), ("bad", "not a run manifest")):
        with pytest.raises(InputError, match=message):
            read_routing_run(root, name)


def test_points_along_training_are_of_the_same_questions() -> None:
    """A checkpoint that lacks questions takes them from every point; they are counted, and nothing is left blank."""
    whole = make_evidence()
    first, second = whole.checkpoints
    names = whole.saved.names
    fewer = replace(whole, checkpoints=(first, second._replace(saved=second.saved.of_questions(names[:8]))))
    found = along_training(fewer, permutations=9, seed=0)
    assert found.left_out and found.left_out[0].startswith(f"{QUESTIONS - 8} of {QUESTIONS} questions along training")
    same = replace(
        whole,
        saved=whole.saved.of_questions(names[:8]),
        clusters=whole.clusters[:8],
        checkpoints=tuple(each._replace(saved=each.saved.of_questions(names[:8])) for each in whole.checkpoints),
    )
    expected = along_training(same, permutations=9, seed=0)
    assert not expected.left_out and found.entries == expected.entries
    np.testing.assert_array_equal(found.arrays["entropy_along"], expected.arrays["entropy_along"])
    apart = replace(
        whole,
        checkpoints=(
            first._replace(saved=first.saved.of_questions(names[:5])),
            second._replace(saved=second.saved.of_questions(names[5:])),
        ),
    )
    nothing = along_training(apart, permutations=9, seed=0)
    assert not nothing.entries and "no question is in every checkpoint" in nothing.left_out[0]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"no archive", "cannot be read"),
        (shard_bytes({"layers": np.zeros(10**6, dtype=np.int8)}), "more than the 4096 of any model"),
        (shard_bytes({"load": np.zeros((2, 10**4, 300), dtype=np.int8)}), "more than the 4194304 of any model"),
        (shard_bytes({"pairs": np.zeros((6, 900, 900), dtype=np.int8)}), "pairs holds 4860000 numbers"),
        (without_content("checkpoints", 10**12), "elements without content"),
        (shard_bytes({"layers": np.array([1, 2])}), "not what `sightcheck routing` writes"),
        (shard_bytes({"layers": np.array([{"a": 1}], dtype=object)}), "cannot be read"),
    ],
)
def test_broken_measures_are_named(tmp_path: Path, content: bytes, message: str) -> None:
    run = make_routing_run(tmp_path / "run")
    (run.path / "measures.npz").write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_routing_run(tmp_path, "run")


def test_measures_of_known_routing() -> None:
    """Loads and specialists by plain counting; a shuffled label finds none."""
    evidence = make_evidence()
    found = measures(evidence, permutations=99, seed=0)
    named: dict[tuple[Any, ...], Any] = {
        (each["name"], each["layer"], each.get("label")): each for each in found.entries if "expert" not in each
    }
    for at, layer in enumerate(LAYERS):
        entry = named["specialisation", layer, "modality"]
        assert entry["p_value"] == 0.01 and entry["specialists"][0] == 0
        assert named["specialisation", layer, "task"]["p_value"] > 0.01
        counts = np.bincount(evidence.saved.indices[at].ravel(), minlength=EXPERTS)
        np.testing.assert_allclose(found.arrays["load"][at, :, 0], counts / evidence.saved.indices.shape[1])
        assert found.arrays["load"][at, :, 0].sum() == pytest.approx(K)
        margin = named["margin", layer, None]["estimate"]
        assert margin["value"] == pytest.approx(float(evidence.margins[at].mean()), rel=1e-5)
        moved = named["moved_by_bias", layer, None]["estimate"]
        assert moved["value"] == pytest.approx(evidence.moved[at].mean()) and moved["low"] < moved["value"]
        np.testing.assert_allclose(
            found.arrays["knockout"][at, :, 0], evidence.knockouts.effects[:, at].mean(axis=0), rtol=1e-6
        )
    assert np.isnan(found.arrays["knockout_shared"][1, 0])
    assert found.arrays["overlap"][-1, :, 0].tolist() == [1, 1, 1]
    assert (found.arrays["overlap"][0, :, 0] < found.arrays["overlap"][1, :, 0]).all()


@pytest.mark.parametrize(
    "content", [b"{}", b'["x"]', b'[{"name": "load_entropy"}]',
                b'[{"name": "load_entropy", "layer": 1, "estimate": {"value": null}}]']
)  # fmt: skip
def test_strange_metrics_are_named(tmp_path: Path, content: bytes) -> None:
    run = make_routing_run(tmp_path / "run")
    (run.path / "metrics.json").write_bytes(content)
    if content == b"{}":
        assert read_routing_run(tmp_path, "run").rows == []
        return
    with pytest.raises(InputError, match=r"its metrics\.json is not what `sightcheck routing` writes"):
        read_routing_run(tmp_path, "run")


def test_shards_that_are_too_large_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.npz"
    path.write_bytes(shard_bytes({"a": np.zeros(1000)}))
    assert read_shard(path)["a"].shape == (1000,)
    monkeypatch.setattr("studies.routing.shards.LARGEST_BYTES", 100)
    with pytest.raises(InputError, match="more than any such file has"):
        read_shard(path)
