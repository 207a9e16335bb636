"""Hidden attention of whole hybrid models: traces against each question alone and against layers read by hand."""

from dataclasses import replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from probes.encoding import row_sets
from probes.errors import InputError
from probes.mixers.sums import FORMS
from probes.mixers.trace import Leak, MixerTrace
from probes.model import HookedModel
from probes.state_space import mixer_layers, trace_mixers
from tests.probes.hooked import hooked, questions
from tests.probes.mixers.hooked import hybrid
from tests.probes.mixers.test_recorder import whole

FAMILIES = ("nemotron_h_omni", "qwen3_5", "nemotron_h", "jamba", "falcon_h1")
ANSWERS = [[120, 121], [122], [123, 124, 125]]
ROWS = ("paper", "predicting", "after")
KINDS = {"qwen3_5": "delta", "jamba": "mamba"}


@cache
def traces(family: str) -> list[MixerTrace]:
    return trace_mixers(hybrid(family), questions(), ANSWERS, ROWS, maps=True, leaks=True)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_batch_equals_its_questions_alone(family: str) -> None:
    model = hybrid(family)
    for question, answer, found in zip(questions(), ANSWERS, traces(family), strict=True):
        alone = trace_mixers(model, [question], [answer], ROWS, maps=True)[0]
        assert found.layers == alone.layers == tuple(mixer_layers(model.model))
        assert set(found.kinds) == {KINDS.get(family, "mamba2")}
        assert found.log_probability == pytest.approx(alone.log_probability, abs=2e-3)
        scores = model.log_probability([question], [answer])
        assert alone.log_probability == pytest.approx(float(scores.log_probability[0]), abs=1e-5)
        for key, table in alone.factors_by_rows.items():
            assert table.shape == (len(alone.layers), len(question.images))
            np.testing.assert_allclose(found.factors_by_rows[key], table, rtol=2e-3, atol=2e-4 * np.abs(table).max())
            for image, map_ in enumerate(alone.maps_by_rows[key]):
                np.testing.assert_allclose(map_.mean(axis=1), table[:, image], rtol=1e-4, atol=1e-9)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("family", ["nemotron_h_omni", "qwen3_5"])
def test_factors_are_those_of_the_layers_read_by_hand(family: str, form: str) -> None:
    model = hybrid(family)
    encoded = model.encode([questions()[0]], [ANSWERS[0]])
    hidden: Any = whole(_Called(model.model, encoded.inputs), encoded.inputs["input_ids"], form)
    sets = row_sets(encoded, ROWS)
    for name in ROWS:
        found = traces(family)[0].factors(form, name)
        for place, layer in enumerate(traces(family)[0].layers):
            rows = hidden[layer][0][:, sets[name][0]].mean((0, 1))
            right = [float(rows[list(span.tokens)].mean()) for span in encoded.spans[0]]
            np.testing.assert_allclose(found[place], right, rtol=5e-3, atol=2e-4 * np.abs(found).max())


class _Called:
    """A model that is given its images besides the ids that a test names."""

    def __init__(self, model: Any, inputs: dict[str, torch.Tensor]) -> None:
        self._model, self._inputs = model, inputs

    def __call__(self, ids: torch.Tensor, **keywords: Any) -> Any:  # noqa: ARG002
        return self._model(**{**self._inputs, **keywords, "attention_mask": self._inputs["attention_mask"]})

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)


def test_kinds_stand_apart() -> None:
    found = traces("nemotron_h")[0]
    assert found.layers == (0, 2)
    assert hybrid("nemotron_h").layers == [3]
    assert repr(found) == "MixerTrace(2 layers of mamba2, rows='paper')"
    assert found.forms == FORMS
    assert found.focus() == int(found.factors().mean(0).argmax())
    assert found.focus(form="value", rows="after") == int(found.factors("value", "after").mean(0).argmax())
    mixed = replace(found, kinds=("mamba2", "delta"))
    with pytest.raises(InputError, match="layers of several kinds are not averaged: give kind, one of mamba2, delta"):
        mixed.focus()
    np.testing.assert_array_equal(mixed.factors(kind="delta"), found.factors()[1:])
    assert mixed.focus(kind="delta") == int(found.factors()[1].argmax())
    with pytest.raises(InputError, match="no 'softmax' layer in this trace; it has mamba2"):
        found.factors(kind="softmax")
    with pytest.raises(InputError, match="no form 'softmax' of rows 'paper'"):
        found.factors("softmax")


def test_heads_are_kept_apart_where_asked() -> None:
    model, question = hybrid("nemotron_h"), questions()[0]
    found = trace_mixers(model, [question], [ANSWERS[0]], "paper", ("signed",), per_head=True, layers=[2])[0]
    assert found.factors("signed").shape == (1, 8, 3)
    np.testing.assert_allclose(
        found.factors("signed").mean(1), traces("nemotron_h")[0].factors("signed")[1:], rtol=1e-3
    )
    assert found.focus(form="signed") == int(found.factors("signed").mean(1)[0].argmax())


@pytest.mark.parametrize("family", FAMILIES)
def test_leaks_end_within_the_kernel(family: str) -> None:
    for question, found in zip(questions(), traces(family), strict=True):
        leak = found.leak
        assert leak is not None
        assert leak.reach == 3
        for side in (leak.entering, leak.leaving):
            for shares in side.values():
                assert shares.shape == (len(found.layers), len(question.images), 4)
                assert not np.nan_to_num(shares[..., 3]).any()
        assert (leak.leaving["all"][:, :, :2] > 0).all()


def test_no_leak_reaches_nowhere() -> None:
    nothing = {"x": np.zeros((1, 2, 4), dtype=np.float32)}
    assert Leak(nothing, nothing).reach == 0


def test_the_examples_of_the_docs_run(monkeypatch: pytest.MonkeyPatch) -> None:
    text = (Path(__file__).parents[3] / "docs" / "hybrids.md").read_text()
    model, asked = hybrid("nemotron_h"), questions()[0]
    monkeypatch.setattr(HookedModel, "from_pretrained", lambda _: model)
    monkeypatch.setattr("probes.Question", lambda *_: asked)
    monkeypatch.setattr(HookedModel, "trace", lambda *_: SimpleNamespace(answer_ids=tuple(ANSWERS[0])))
    names: dict[str, Any] = {}
    examples = [block.split("```")[0] for block in text.split("```python\n")[1:]]
    assert len(examples) == 2
    for example in examples:
        exec(example, names)
    assert names["trace"].factors("absolute").shape == (2, 3)
    assert names["found"].by_expert(1).routed.shape == (4, 3)
    assert set(names["cut"]) == set(names["found"].kinds)


def test_what_cannot_be_traced_is_refused() -> None:
    model = hybrid("nemotron_h")
    with pytest.raises(InputError, match="needs at least one row set"):
        trace_mixers(model, questions(), ANSWERS, ())
    with pytest.raises(InputError, match="unknown rows 'all'"):
        trace_mixers(model, questions(), ANSWERS, ("all",))
    with pytest.raises(InputError, match="no decoder layer has a state-space or delta mixer"):
        trace_mixers(hooked("llava"), questions()[:1], ANSWERS[:1])
