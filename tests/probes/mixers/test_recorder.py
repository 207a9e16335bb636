"""The recorder and the factors made with it, against the whole hidden attention of each layer's own input."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from probes.attention import UnsupportedAttention, attention_factors, attention_layers
from probes.inputs import InputError
from probes.mixers import readers
from probes.mixers.knockout import MixerKnockout
from probes.mixers.modules import mixer_modules
from probes.mixers.sums import FORMS
from probes.state_space import MixerRecorder, hidden_attention, hidden_attention_factors, mixer_layers
from tests.probes import hybrid_models
from tests.probes.mixers.models import BUILDERS, build, tokens

LENGTH = 40
SPANS = [(2, 9), (14, 30)]
ROWS = [33, 36, 39]


def mask_of(rows: list[int], batch: int = 2, length: int = LENGTH) -> Tensor:
    mask = torch.zeros(batch, length, dtype=torch.bool)
    mask[:, rows] = True
    return mask


def whole(model: Any, ids: Tensor, form: str, attention_mask: Tensor | None = None) -> dict[int, Tensor]:
    """Per layer the hidden attention of all rows, from what entered the layer in a forward of its own."""
    entered: dict[int, tuple[Any, Tensor]] = {}

    def enter(mixer: Any, args: tuple[Any, ...], named: dict[str, Any]) -> None:
        entered[mixer.layer_idx] = (mixer, args[0] if args else named["hidden_states"])

    layers = mixer_layers(model)
    mixers = [each for each in model.modules() if type(each).__name__ in readers.READERS]
    handles = [mixer.register_forward_pre_hook(enter, with_kwargs=True) for mixer in mixers]
    with torch.no_grad():
        model(ids, attention_mask=attention_mask, use_cache=False)
    for handle in handles:
        handle.remove()
    everyone = list(range(ids.shape[1]))
    return {layer: hidden_attention(*entered[layer], everyone, attention_mask, form=form) for layer in layers}


def means(maps: dict[int, Tensor], rows: list[int], spans: list[tuple[int, int]]) -> Tensor:
    """(batch, layers, images)."""
    by_layer = [
        torch.stack([each[:, :, rows, start:stop].mean((1, 2, 3)) for start, stop in spans], dim=-1)
        for each in maps.values()
    ]
    return torch.stack(by_layer, dim=1)


def close(found: Tensor, right: Tensor) -> None:
    torch.testing.assert_close(found, right, rtol=1e-4, atol=1e-5 * float(right.nan_to_num().abs().max()))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("family", BUILDERS)
def test_factors_are_means_over_heads_rows_and_tokens(family: str, form: str) -> None:
    model, ids = build(family), tokens(2, LENGTH)
    found = hidden_attention_factors(model, {"input_ids": ids}, ROWS, SPANS, form)
    close(found, means(whole(model, ids, form), ROWS, SPANS))


@pytest.mark.parametrize("family", ["nemotron_h", "mamba", "qwen3_5"])
def test_heads_maps_and_row_sets_belong_together(family: str) -> None:
    model, ids = build(family), tokens(2, LENGTH)
    sets = {"late": mask_of(ROWS), "last": mask_of([LENGTH - 1]), "none": mask_of([])}
    spans: list[Any] = [SPANS, [(0, 5)]]
    with torch.no_grad(), MixerRecorder(model, spans, sets, per_head=True, cells=True) as recorder:
        model(ids, use_cache=False)
    for form in FORMS:
        right = whole(model, ids, form)
        heads = recorder.factors("late", form)
        for place, layer in enumerate(recorder.layers):
            mean = right[layer][0, :, ROWS, 2:9].mean((1, 2))
            close(heads[0, place, :, 0], mean)
            for row, images in enumerate(spans):
                for image, (start, stop) in enumerate(images):
                    cells = right[layer][row, :, -1, start:stop].mean(0)
                    close(recorder.maps("last", form)[row][image][place], cells)
        assert heads[1, :, :, 1].isnan().all(), "the second batch row has one image"
        assert recorder.factors("none", form).isnan().all()
    assert recorder.row_counts("late").tolist() == [3, 3]
    assert recorder.row_counts("none").tolist() == [0, 0]


@pytest.mark.parametrize("family", BUILDERS)
def test_a_left_padded_batch_equals_its_rows_alone(family: str) -> None:
    model, pad = build(family), 9
    ids = tokens(2, LENGTH)
    ids[1, :pad] = 0
    mask = (torch.arange(LENGTH) >= torch.tensor([[0], [pad]])).long()
    spans = [SPANS, [(12, 20), (25, 31)]]
    rows = mask_of([3, *ROWS])
    for form in FORMS:
        found = hidden_attention_factors(model, {"input_ids": ids, "attention_mask": mask}, rows, spans, form)
        first = hidden_attention_factors(model, {"input_ids": ids[:1]}, [3, *ROWS], SPANS, form)
        second = hidden_attention_factors(
            model,
            {"input_ids": ids[1:, pad:]},
            [row - pad for row in ROWS],
            [(start - pad, stop - pad) for start, stop in spans[1]],
            form,
        )
        close(found, torch.cat([first, second]))


def test_the_model_answers_as_it_does_alone() -> None:
    model, ids = build("nemotron_h"), tokens(2, LENGTH)
    with torch.no_grad():
        alone = model(ids, use_cache=False).logits
        with MixerRecorder(model, SPANS, {"rows": mask_of(ROWS)}, leaks=True, cells=True):
            beside = model(ids, use_cache=False).logits
        after = model(ids, use_cache=False).logits
    assert torch.equal(alone, beside)
    assert torch.equal(alone, after)
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in model.modules())


def test_layers_are_chosen_by_their_true_index() -> None:
    model, ids = build("nemotron_h"), tokens(2, LENGTH)
    inputs = {"input_ids": ids}
    assert list(mixer_layers(model)) == [0, 2]
    assert attention_layers(model) == [3]
    both = hidden_attention_factors(model, inputs, ROWS, SPANS)
    close(hidden_attention_factors(model, inputs, ROWS, SPANS, layers=[2]), both[:, 1:])
    assert attention_factors(model, inputs, ROWS, SPANS).shape == (2, 1, 2)
    with pytest.raises(InputError, match=r"no mixer in layers \[3\]: state-space and delta mixers are in \[0, 2\]"):
        hidden_attention_factors(model, inputs, ROWS, SPANS, layers=[2, 3])
    with pytest.raises(InputError, match="layers names none"):
        hidden_attention_factors(model, inputs, ROWS, SPANS, layers=[])
    with pytest.raises(UnsupportedAttention, match="no decoder layer has a state-space or delta mixer"):
        mixer_modules(hybrid_models.build("dots1"), [2])


def test_both_recorders_hear_the_same_forward() -> None:
    from probes.recorder import AttentionRecorder

    model, ids = build("falcon_h1"), tokens(2, LENGTH)
    rows = {"rows": mask_of(ROWS)}
    mixers, attention = MixerRecorder(model, SPANS, rows), AttentionRecorder(model, SPANS, rows)
    with torch.no_grad(), mixers, attention:
        model(ids, use_cache=False)
    close(mixers.factors("rows", "value"), hidden_attention_factors(model, {"input_ids": ids}, ROWS, SPANS, "value"))
    close(attention.factors("rows"), attention_factors(model, {"input_ids": ids}, ROWS, SPANS))


def test_a_prefill_with_a_cache_is_read_and_its_continuation_refused() -> None:
    model, ids = build("nemotron_h"), tokens(2, LENGTH)
    recorder = MixerRecorder(model, SPANS, {"rows": mask_of(ROWS)})
    with torch.no_grad(), recorder:
        cache = model(ids, use_cache=True).past_key_values
    close(recorder.factors("rows", "signed"), means(whole(model, ids, "signed"), ROWS, SPANS))
    with (
        pytest.raises(
            UnsupportedAttention, match=r"layer 0 .NemotronHMamba2Mixer.: it goes on from a cache.*one forwa"
        ),
        torch.no_grad(),
        MixerRecorder(model, [(0, 1)], {"rows": mask_of([0], length=1)}),
    ):
        model(ids[:, :1], past_key_values=cache, use_cache=True)


@pytest.mark.parametrize("family", BUILDERS)
def test_decode_steps_are_refused_with_the_way_round_them(family: str) -> None:
    """A step's scan takes the state of all earlier tokens, and they themselves are gone; the prefill's is read."""
    model, ids = build(family), tokens(2, LENGTH)
    message = r"it goes on from a cache, whose earlier tokens are gone; generate first, and then run prompt and answer"
    recorder = MixerRecorder(model, SPANS, {"rows": mask_of(ROWS)})
    knockout = MixerKnockout(model, mask_of(ROWS), [SPANS, SPANS])
    for each in (recorder, knockout):
        with pytest.raises(UnsupportedAttention, match=message), torch.no_grad(), each:
            model.generate(ids, max_new_tokens=3, do_sample=False, eos_token_id=None)
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in model.modules())


@pytest.mark.parametrize("family", ["nemotron_h", "mamba", "qwen3_5"])
def test_a_right_padded_batch_equals_its_rows_alone(family: str) -> None:
    model, length = build(family), 31
    ids = tokens(2, LENGTH)
    ids[1, length:] = 0
    mask = (torch.arange(LENGTH) < torch.tensor([[LENGTH], [length]])).long()
    rows = mask_of([])
    rows[0, ROWS] = rows[1, [28, 30]] = rows[1, 33] = True
    found = hidden_attention_factors(model, {"input_ids": ids, "attention_mask": mask}, rows, [SPANS, SPANS])
    alone = hidden_attention_factors(model, {"input_ids": ids[1:, :length]}, [28, 30], SPANS)
    close(found[1:], alone)


@pytest.mark.parametrize("family", ["nemotron_h", "mamba", "falcon_h1_without_norm", "qwen3_5"])
def test_a_layer_that_does_something_else_is_refused(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a later version of transformers might: nobody would notice without holding rows to the layer's output."""
    model, ids = build(family), tokens(2, LENGTH)
    mixer = next(each for each in model.modules() if type(each).__name__ in readers.READERS)
    reader = readers.reader_of(mixer)
    own = reader.scan

    def otherwise(*given: Any) -> Any:
        scan = own(*given)
        return replace(scan, values=1.01 * scan.values)

    monkeypatch.setattr(reader, "scan", otherwise)
    with pytest.raises(UnsupportedAttention, match="its output is not what its hidden attention rebuilds"):
        hidden_attention_factors(model, {"input_ids": ids}, ROWS, SPANS)


def test_what_cannot_be_followed_is_refused() -> None:
    model, ids = build("nemotron_h"), tokens(2, LENGTH)
    sets = {"rows": mask_of(ROWS)}

    def run(*, again: bool = False, **inputs: Any) -> None:
        with torch.no_grad(), MixerRecorder(model, SPANS, sets):
            for _ in range(1 + again):
                model(**{"input_ids": ids, "use_cache": False} | inputs)

    with pytest.raises(UnsupportedAttention, match=r"layer 0 .* ran a second time; use one recorder for each forward"):
        run(again=True)
    with pytest.raises(InputError, match=r"for 2 sequences of 40 tokens, the model runs \(2, 12\)"):
        run(input_ids=ids[:, :12])
    with pytest.raises(UnsupportedAttention, match=r"which rows are padding cannot be told; pass the model an attenti"):
        run(attention_mask=torch.zeros(2, 1, LENGTH, LENGTH))
    with pytest.raises(UnsupportedAttention, match=r"packed into one row .seq_idx."):
        build_packed(model, ids, sets)
    with pytest.raises(InputError, match=r"mixers of layers \[0, 2\] never ran"), MixerRecorder(model, SPANS, sets):
        pass
    with pytest.raises(InputError, match="unknown forms"):
        MixerRecorder(model, SPANS, sets, forms=("softmax",))
    with pytest.raises(InputError, match="no row sets given"):
        MixerRecorder(model, SPANS, {})
    with pytest.raises(InputError, match="have no row outside padding"):
        mask = torch.ones(2, LENGTH).long()
        mask[:, 33:] = 0
        run(attention_mask=mask)
    recorder = MixerRecorder(model, SPANS, sets, forms=("signed",))
    with pytest.raises(RuntimeError, match="after the recorder's with block"):
        recorder.factors("rows", "signed")
    with torch.no_grad(), recorder:
        model(ids, use_cache=False)
    with pytest.raises(InputError, match="no form 'value'; recorded were signed"):
        recorder.factors("rows", "value")
    with pytest.raises(InputError, match="no row set 'paper'; recorded were rows"):
        recorder.factors("paper", "signed")
    with pytest.raises(RuntimeError, match="cells=True"):
        recorder.maps("rows", "signed")
    with pytest.raises(RuntimeError, match="leaks=True"):
        recorder.leaks()
    with pytest.raises(RuntimeError, match="used once"), recorder:
        pass


def build_packed(model: Any, ids: Tensor, sets: dict[str, Tensor]) -> None:
    with torch.no_grad(), MixerRecorder(model, SPANS, sets):
        model(ids, use_cache=False, seq_idx=torch.zeros_like(ids).int())


def test_a_model_in_training_mode_is_read_where_its_scan_is_seen() -> None:
    model, ids = build("mamba2"), tokens(2, LENGTH)
    right = hidden_attention_factors(model, {"input_ids": ids}, ROWS, SPANS)
    close(hidden_attention_factors(model.train(), {"input_ids": ids}, ROWS, SPANS), right)


def test_a_scan_that_is_not_seen_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """As with kernels that scan, norm and project at once in training mode."""
    model, ids = build("mamba2"), tokens(2, LENGTH)
    mixer = next(each for each in model.modules() if type(each).__name__ in readers.READERS)
    name = f"{type(mixer).__module__}.mamba2_split_conv1d_scan_combined"
    monkeypatch.setattr(name, lambda states, *_, **__: states[..., : mixer.hidden_size])
    with pytest.raises(UnsupportedAttention, match=r"its scan was not seen.*call model.eval"):
        hidden_attention_factors(model.train(), {"input_ids": ids}, ROWS, SPANS)
