"""The shared wrap leaves everything as found, and knock-outs equal masks made by hand on an eager twin."""

import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS, AttentionInterface

from probes.attention import AttentionRecorder, UnsupportedAttention, attention_factors
from probes.inputs import InputError
from probes.knockout import AttentionKnockout
from tests.probes.dense_reference import TOLERANCE, dense_factors, last_rows, worst
from tests.probes.tiny_models import FAMILIES, Tiny, build, build_model

RAGGED = ((3, 2, 6), (2, 9))
ORIGINAL = AttentionInterface.get_interface


@pytest.fixture(autouse=True)
def interface_is_left_as_found() -> Any:
    registered = dict(ALL_ATTENTION_FUNCTIONS._global_mapping)
    yield
    assert AttentionInterface.get_interface is ORIGINAL
    assert dict(ALL_ATTENTION_FUNCTIONS._global_mapping) == registered


def recorder(tiny: Tiny, count: int = 4) -> AttentionRecorder:
    return AttentionRecorder(tiny.model, tiny.spans, {"rows": last_rows(tiny, count)})


def snapshot(model: Any) -> Any:
    hooks = [(len(m._forward_hooks), len(m._forward_pre_hooks), m.forward) for m in model.modules()]
    state = {name: (value.data_ptr(), value.clone()) for name, value in model.state_dict().items()}
    return hooks, state, model.config.to_dict(), model.training


def test_the_model_is_left_as_found() -> None:
    tiny = build("gemma3", RAGGED)
    hooks, state, config, training = snapshot(tiny.model)
    attention_factors(tiny.model, tiny.inputs, last_rows(tiny, 3), tiny.spans)
    with AttentionKnockout(tiny.model, last_rows(tiny, 3), tiny.spans), torch.no_grad():
        tiny.model(**tiny.inputs)
    after = snapshot(tiny.model)
    assert (after[0], after[2], after[3]) == (hooks, config, training)
    assert all(
        pointer == after[1][name][0] and torch.equal(value, after[1][name][1])
        for name, (pointer, value) in state.items()
    )


def test_an_exception_inside_undoes_the_wrap_and_passes_through() -> None:
    tiny = build("llava")
    broken = recorder(tiny)
    with pytest.raises(ZeroDivisionError), broken:
        assert AttentionInterface.get_interface is not ORIGINAL
        raise ZeroDivisionError
    assert AttentionInterface.get_interface is ORIGINAL
    with pytest.raises(RuntimeError, match="ended without an error"):
        broken.factors("rows")
    with pytest.raises(RuntimeError, match="used once"), broken:
        pass
    with pytest.raises(ZeroDivisionError), AttentionKnockout(tiny.model, last_rows(tiny, 1), tiny.spans):
        raise ZeroDivisionError


def test_nested_recorders_each_hear_their_own_model() -> None:
    llava, gemma = build("llava"), build("gemma3", RAGGED, padding="left")
    outer, same, inner = recorder(llava), recorder(llava, 2), recorder(gemma)
    with torch.no_grad(), outer, same:
        with inner:
            gemma.model(**gemma.inputs)
        llava.model(**llava.inputs)
    for found, tiny, count in ((outer, llava, 4), (same, llava, 2), (inner, gemma, 4)):
        expected = attention_factors(tiny.model, tiny.inputs, last_rows(tiny, count), tiny.spans)
        assert torch.equal(found.factors("rows").nan_to_num(), expected.nan_to_num())


def test_a_foreign_wrap_put_on_meanwhile_is_left_in_place(monkeypatch: pytest.MonkeyPatch) -> None:
    tiny = build("llava")
    calls: list[str] = []
    entered = recorder(tiny)
    with torch.no_grad(), entered:
        ours = AttentionInterface.get_interface

        def foreign(self: Any, name: str, default: Callable[..., Any]) -> Any:
            calls.append(name)
            return ours(self, name, default)

        monkeypatch.setattr(AttentionInterface, "get_interface", foreign)
        tiny.model(**tiny.inputs)
    assert AttentionInterface.get_interface is foreign
    expected = entered.factors("rows")
    count = len(calls)
    again = attention_factors(tiny.model, tiny.inputs, last_rows(tiny, 4), tiny.spans)
    assert torch.equal(again, expected)
    assert len(calls) == 2 * count
    monkeypatch.undo()
    AttentionInterface.get_interface = ORIGINAL


def test_other_threads_are_neither_heard_nor_changed() -> None:
    tiny = build("llava")
    plain = tiny.model(**tiny.inputs).logits
    seen: list[torch.Tensor] = []
    thread = threading.Thread(target=lambda: seen.append(tiny.model(**tiny.inputs).logits))
    with torch.no_grad(), AttentionKnockout(tiny.model, last_rows(tiny, 4), tiny.spans), recorder(tiny) as entered:
        thread.start()
        thread.join()
        tiny.model(**tiny.inputs)
    torch.testing.assert_close(seen[0], plain)
    assert entered.row_counts("rows").tolist() == [[4, 4, 4]]


def test_many_threads_record_one_model_at_once() -> None:
    tiny = build("llava")
    expected = attention_factors(tiny.model, tiny.inputs, last_rows(tiny, 4), tiny.spans)
    found: list[torch.Tensor] = []

    def work() -> None:
        for _ in range(5):
            found.append(attention_factors(tiny.model, tiny.inputs, last_rows(tiny, 4), tiny.spans))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 20
    assert all(torch.equal(one, expected) for one in found)


def test_a_block_without_a_call_is_refused() -> None:
    tiny = build("llava")
    with pytest.raises(UnsupportedAttention, match="call the model inside the block"), recorder(tiny):
        pass
    with (
        pytest.raises(UnsupportedAttention, match="call the model inside the block"),
        AttentionKnockout(tiny.model, last_rows(tiny, 2), tiny.spans),
    ):
        pass


def test_gradients_flow_through_a_recorded_and_a_knocked_out_forward() -> None:
    tiny = build("llava")
    with AttentionKnockout(tiny.model, last_rows(tiny, 2), tiny.spans), recorder(tiny) as entered:
        tiny.model(**tiny.inputs).logits[:, -1].sum().backward()
    assert not entered.factors("rows").requires_grad
    weight = tiny.model.get_decoder().layers[0].self_attn.q_proj.weight
    assert float(weight.grad.abs().sum()) > 0


class HandMasked:
    """An eager twin whose chosen layers get the knock-out added to their 4-D mask by a hook."""

    def __init__(self, family: str, rows: torch.Tensor, columns: Any, layers: list[int], generated: bool) -> None:
        self.model = build_model(family, attention="eager")
        self.rows, self.columns, self.generated = rows, columns, generated
        self.passed = dict.fromkeys(range(3), 0)
        for layer in layers:
            self.model.get_decoder().layers[layer].self_attn.register_forward_pre_hook(
                lambda module, _, kwargs: self.mask(module.layer_idx, kwargs), with_kwargs=True
            )

    def mask(self, layer: int, kwargs: dict[str, Any]) -> Any:
        mask = kwargs["attention_mask"].clone()
        batch, _, queries, keys = mask.shape
        first = self.passed[layer]
        self.passed[layer] += queries
        cut = max(0, first + queries - keys)
        for sample in range(batch):
            for query in range(queries):
                row = first + query
                chosen = self.rows[sample, row] if row < self.rows.shape[1] else self.generated
                for start, stop in self.columns[sample] if chosen else ():
                    mask[sample, :, query, max(0, start - cut) : max(0, stop - cut)] = torch.finfo(mask.dtype).min
        return (), {**kwargs, "attention_mask": mask}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("samples", "padding"), [(RAGGED[:1], "right"), (RAGGED, "left"), (RAGGED, "right")])
@pytest.mark.parametrize("layers", [None, [1]])
def test_knocking_out_equals_a_mask_made_by_hand(
    family: str, samples: tuple[tuple[int, ...], ...], padding: str, layers: list[int] | None
) -> None:
    tiny = build(family, samples, padding=padding)
    rows = last_rows(tiny, 3)
    columns = [spans[-1:] for spans in tiny.spans]
    twin = HandMasked(family, rows, columns, layers or [0, 1, 2], generated=False)
    entered = recorder(tiny)
    with torch.no_grad():
        expected = twin.model(**tiny.inputs, output_attentions=True)
        plain = tiny.model(**tiny.inputs).logits
        with AttentionKnockout(tiny.model, rows, columns, layers), entered:
            found = tiny.model(**tiny.inputs).logits
    real = tiny.inputs["attention_mask"].bool()
    torch.testing.assert_close(found[real], expected.logits[real], atol=1e-4, rtol=1e-4)
    assert float((found - plain)[real].abs().max()) > 1e-2
    dense = torch.stack(expected.attentions, 1).double().numpy()
    reference = dense_factors(dense, last_rows(tiny, 4).numpy(), tiny.spans).mean(axis=2)
    assert worst(entered.factors("rows"), reference) < TOLERANCE


@pytest.mark.parametrize("family", ["llava", "gemma3"])
@pytest.mark.parametrize("generated", [False, True])
def test_knocking_out_through_generation(family: str, generated: bool) -> None:
    tiny = build(family, RAGGED, padding="left")
    rows = last_rows(tiny, 3)
    twin = HandMasked(family, rows, tiny.spans, [0, 1, 2], generated)
    options = {"max_new_tokens": 6, "do_sample": False, "output_logits": True, "return_dict_in_generate": True}
    expected = twin.model.generate(**tiny.inputs, **options)
    with AttentionKnockout(tiny.model, rows, tiny.spans, generated=generated):
        found = tiny.model.generate(**tiny.inputs, **options)
    assert torch.equal(found.sequences, expected.sequences)
    torch.testing.assert_close(torch.stack(found.logits), torch.stack(expected.logits), atol=1e-4, rtol=1e-4)


def test_knock_outs_add_up_and_eager_and_sdpa_agree() -> None:
    logits = []
    for attention in ("sdpa", "eager"):
        tiny = build("llava", attention=attention)
        rows, (first, second) = last_rows(tiny, 3), tiny.spans[0]
        with torch.no_grad():
            with AttentionKnockout(tiny.model, rows, [[first]]), AttentionKnockout(tiny.model, rows, [[second]]):
                logits.append(tiny.model(**tiny.inputs).logits)
            with AttentionKnockout(tiny.model, rows, [[first, second]]):
                logits.append(tiny.model(**tiny.inputs).logits)
    for other in logits[1:]:
        torch.testing.assert_close(other, logits[0], atol=1e-4, rtol=1e-4)


def test_knocked_out_factors_are_zero_and_the_rest_sums_to_one() -> None:
    tiny = build("llava", attention="eager")
    rows = last_rows(tiny, 3)
    entered = AttentionRecorder(tiny.model, tiny.spans, {"rows": rows}, per_head=True)
    with torch.no_grad(), AttentionKnockout(tiny.model, rows, [tiny.spans[0][:1]], [0, 2]), entered:
        attentions = tiny.model(**tiny.inputs, output_attentions=True).attentions
    factors = entered.factors("rows")
    assert float(factors[:, [0, 2], :, 0].abs().max()) == 0
    assert float(factors[:, 1, :, 0].min()) > 0
    for attention in attentions:
        torch.testing.assert_close(attention.sum(-1), torch.ones_like(attention.sum(-1)))
    dense = torch.stack(attentions, 1).double().numpy()
    assert worst(factors, dense_factors(dense, rows.numpy(), tiny.spans)) < TOLERANCE


def test_chunked_masks_of_a_knock_out_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    tiny = build("gemma3", RAGGED, padding="left")
    rows = last_rows(tiny, 6)
    logits = []
    for size in (2**24, 1):
        monkeypatch.setattr("probes.attention_blocking.MASK_BYTES", size)
        with torch.no_grad(), AttentionKnockout(tiny.model, rows, tiny.spans):
            logits.append(tiny.model(**tiny.inputs).logits[tiny.inputs["attention_mask"].bool()])
    torch.testing.assert_close(logits[0], logits[1], atol=1e-5, rtol=1e-5)


def test_impossible_knock_outs_are_refused() -> None:
    tiny = build("llava")
    rows = last_rows(tiny, 2)
    with pytest.raises(InputError, match=r"layers \[7\] have no attention.*\[0, 1, 2\]"):
        AttentionKnockout(tiny.model, rows, tiny.spans, [7])
    with pytest.raises(InputError, match="bool mask"):
        AttentionKnockout(tiny.model, rows.int(), tiny.spans)
    with pytest.raises(InputError, match="column range"):
        AttentionKnockout(tiny.model, rows, [[3]])
    everything = AttentionKnockout(tiny.model, rows, [[(0, rows.shape[1])]])
    with pytest.raises(InputError, match="see nothing"), torch.no_grad(), everything:
        tiny.model(**tiny.inputs)
    batch = AttentionKnockout(tiny.model, rows.expand(2, -1), tiny.spans * 2)
    with pytest.raises(InputError, match="2 sequences"), torch.no_grad(), batch:
        tiny.model(**tiny.inputs)


def test_knock_outs_that_would_do_nothing_are_refused() -> None:
    tiny = build("llava")
    rows = last_rows(tiny, 2)
    tokens = rows.shape[1]
    with pytest.raises(InputError, match=f"batch row 0 end at {tokens + 5}, past the prompt's {tokens} tokens"):
        AttentionKnockout(tiny.model, rows, [[(tokens, tokens + 5)]])
    with pytest.raises(InputError, match="does nothing"):
        AttentionKnockout(tiny.model, rows, [[]])
    with pytest.raises(InputError, match="without layers"):
        AttentionKnockout(tiny.model, rows, tiny.spans, [])
    with pytest.raises(InputError, match="does nothing"):
        AttentionKnockout(tiny.model, torch.zeros_like(rows), tiny.spans)
    apart = torch.cat([rows, torch.zeros_like(rows)])
    with pytest.raises(InputError, match="does nothing"):
        AttentionKnockout(tiny.model, apart, [[], tiny.spans[0]])
    AttentionKnockout(tiny.model, torch.zeros_like(rows), tiny.spans, generated=True)


def test_a_knock_out_that_did_nothing_says_so_on_leaving() -> None:
    tiny = build("llava")
    beyond = torch.zeros(1, 100, dtype=torch.bool)
    beyond[:, 90:] = True
    with (
        pytest.raises(InputError, match="none of those to be blinded"),
        torch.no_grad(),
        AttentionKnockout(tiny.model, beyond, tiny.spans),
    ):
        tiny.model(**tiny.inputs)
    none = torch.zeros_like(tiny.inputs["input_ids"], dtype=torch.bool)
    for new_tokens in (1, 2):
        with AttentionKnockout(tiny.model, none, tiny.spans, generated=True):
            tiny.model.generate(**tiny.inputs, max_new_tokens=new_tokens, do_sample=False)
    with pytest.raises(ZeroDivisionError), AttentionKnockout(tiny.model, beyond, tiny.spans):
        raise ZeroDivisionError


def test_a_knock_out_under_an_implementation_without_row_masks_is_refused() -> None:
    AttentionInterface.register("some_flash", ALL_ATTENTION_FUNCTIONS["sdpa"])
    try:
        tiny = build("llava")
        tiny.model.get_decoder().config._attn_implementation = "some_flash"
        knockout = AttentionKnockout(tiny.model, last_rows(tiny, 2), tiny.spans)
        refused = pytest.raises(UnsupportedAttention, match=r"'some_flash' takes no mask by row.*sdpa")
        with refused, torch.no_grad(), knockout:
            tiny.model(**tiny.inputs)
    finally:
        del AttentionInterface._global_mapping["some_flash"]
