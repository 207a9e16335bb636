"""Hidden attention beside softmax attention in one pass: equal to either alone, and no forward more."""

import numpy as np
import pytest

from probes.errors import InputError
from probes.layer_kinds import layers_with
from probes.mixers.modules import refused_mixers
from probes.mixers.readers import READERS
from probes.mixers.trace import layer_kind
from probes.state_space import mixer_layers, trace_mixers
from tests.probes.hooked import hooked, questions
from tests.probes.mixers.hooked import hybrid

FORMS = ("absolute", "value")
ROWS = ("paper", "predicting", "anchor")


@pytest.mark.parametrize("family", ["nemotron_h", "qwen3_5"])
def test_both_are_what_each_is_alone_to_the_bit(family: str) -> None:
    model, asked = hybrid(family), [question for question in questions() if len(question.images) > 1]
    together = model.trace_batch(asked, max_new_tokens=3, rows=ROWS, mixer_forms=FORMS)
    answers = [trace.answer_ids for trace in together]
    plain = model.trace_batch(asked, max_new_tokens=3, rows=ROWS)
    alone = trace_mixers(model, asked, answers, ROWS, FORMS)
    for both, softmax, hidden in zip(together, plain, alone, strict=True):
        assert softmax.mixers is None and both.mixers is not None
        assert both.answer_ids == softmax.answer_ids and both.log_probability == softmax.log_probability
        for rows in ROWS:
            np.testing.assert_array_equal(both.factors_by_rows[rows], softmax.factors_by_rows[rows])
            for form in FORMS:
                np.testing.assert_array_equal(both.mixers.factors(form, rows), hidden.factors(form, rows))
        assert not np.allclose(both.mixers.factors("absolute"), both.mixers.factors("value"))
        assert both.mixers.layers == tuple(mixer_layers(model.model))


def test_it_takes_no_forward_more() -> None:
    model = hybrid("nemotron_h")
    calls: list[int] = []
    handle = model.model.register_forward_pre_hook(lambda *_: calls.append(1))
    model.trace_batch(questions(), max_new_tokens=3)
    plain = len(calls)
    model.trace_batch(questions(), max_new_tokens=3, mixer_forms=FORMS)
    handle.remove()
    assert plain and len(calls) == 2 * plain


def test_the_anchor_is_no_image_of_its_own_rows() -> None:
    model, question = hybrid("nemotron_h"), questions()[0]
    (trace,) = model.trace_batch([question], [[120, 121]], rows=("anchor",), mixer_forms=("absolute",))
    assert trace.mixers is not None
    hidden = trace.mixers.factors("absolute", "anchor")
    np.testing.assert_array_equal(np.isnan(hidden), np.tile([False, False, True], (len(trace.mixers.layers), 1)))


def test_some_layers_and_what_is_refused() -> None:
    model, question = hybrid("nemotron_h"), questions()[0]
    (trace,) = model.trace_batch([question], [[120]], mixer_forms=("value",), mixer_layers=[2])
    assert trace.mixers is not None and trace.mixers.layers == (2,) and trace.mixers.forms == ("value",)
    with pytest.raises(InputError, match=r"no mixer in layers \[3\]"):
        model.trace_batch([question], [[120]], mixer_forms=("value",), mixer_layers=[3])
    with pytest.raises(InputError, match="unknown forms"):
        model.trace_batch([question], [[120]], mixer_forms=("softmax",))


def test_refused_mixers_are_told_by_layer_and_class() -> None:
    assert refused_mixers(hybrid("nemotron_h").model) == refused_mixers(hooked("llava").model) == {}
    model = hooked("lfm2_vl").model
    refused = refused_mixers(model)
    assert list(refused) == layers_with(hooked("lfm2_vl").layer_kinds, "convolution")
    assert all(f"decoder layer {layer} (Lfm2ShortConv): " in reason for layer, reason in refused.items())


def test_kinds_of_mixers_are_the_kinds_of_their_layers() -> None:
    for family in ("nemotron_h", "qwen3_5", "jamba"):
        model = hybrid(family)
        for layer, mixer in mixer_layers(model.model).items():
            assert layer in layers_with(model.layer_kinds, layer_kind(mixer))
    assert {layer_kind(reader.kind) for reader in READERS.values()} == {"state space", "linear attention"}
    with pytest.raises(InputError, match="unknown kind of mixer 'softmax'"):
        layer_kind("softmax")
