"""Which rows are padding is known from the forward's own mask, and is what sparse attentions need."""

import dataclasses
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from probes.attention import attention_factors
from probes.attention_calls import UnsupportedAttention
from probes.attention_rows import RowMask
from probes.padding import PaddingWatch
from tests.probes.dense_reference import TOLERANCE
from tests.probes.zoo.verifying import SPANS, Family

MASK = torch.tensor([[0, 1, 1], [1, 1, 1]])


class Decoder(nn.Module):
    """Takes whatever it is given."""

    def forward(self, input_ids: Tensor, attention_mask: Any = None) -> tuple[Tensor, Any]:
        return input_ids, attention_mask


class Model(nn.Module):
    """Gives its decoder masks by row, as models with several kinds of layers do, or the mask as it came."""

    def __init__(self, by_row: bool, encoder_decoder: bool = False) -> None:
        super().__init__()
        self.decoder, self.by_row = Decoder(), by_row
        self.config = type("Config", (), {"is_encoder_decoder": encoder_decoder})()

    def forward(self, input_ids: Tensor, attention_mask: Any = None, decoder_attention_mask: Any = None) -> Any:
        mask = decoder_attention_mask if self.config.is_encoder_decoder else attention_mask
        return self.decoder(input_ids, attention_mask={"full_attention": None} if self.by_row else mask)


def watched(model: Model, *args: Any, **keywords: Any) -> Tensor | None:
    watch = PaddingWatch(model, model.decoder)
    watch.start()
    model(*args, **keywords)
    watch.stop()
    return watch.tokens(0, 3, 2)


@pytest.mark.parametrize("by_row", [True, False])
def test_a_models_mask_is_read_by_keyword_or_place(by_row: bool) -> None:
    for found in (watched(Model(by_row), MASK, attention_mask=MASK), watched(Model(by_row), MASK, MASK)):
        assert found is not None and torch.equal(found, MASK.bool())


@pytest.mark.parametrize("by_row", [True, False])
def test_an_encoders_mask_is_not_taken_for_the_decoders(by_row: bool) -> None:
    model = Model(by_row, encoder_decoder=True)
    found = watched(model, MASK, attention_mask=MASK)
    assert found is not None and bool(found.all())
    found = watched(model, MASK, attention_mask=MASK[:, :2], decoder_attention_mask=MASK)
    assert found is not None and torch.equal(found, MASK.bool())


def test_a_decoder_called_alone_is_heard_and_forgets_the_models_mask() -> None:
    model = Model(by_row=True)
    watch = PaddingWatch(model, model.decoder)
    watch.start()
    model(MASK, attention_mask=MASK)
    model.decoder(MASK, attention_mask={"full_attention": None})
    assert watch.tokens(0, 3, 2) is None
    model.decoder(MASK, attention_mask=MASK)
    found = watch.tokens(1, 2, 2)
    assert found is not None and torch.equal(found, MASK[:, 1:].bool())
    assert watch.tokens(1, 3, 2) is None and watch.tokens(0, 3, 1) is None
    watch.stop()
    model(MASK, attention_mask=MASK * 0)
    found = watch.tokens(0, 3, 2)
    assert found is not None and bool(found.any())


def test_forwards_of_other_threads_are_not_heard() -> None:
    model = Model(by_row=False)
    watch = PaddingWatch(model, model.decoder)
    watch.start()
    thread = threading.Thread(target=model, args=(MASK, MASK))
    thread.start()
    thread.join()
    assert watch.tokens(0, 3, 2) is None
    watch.stop()


def test_another_thread_may_run_while_hooks_are_being_added() -> None:
    """What torch has noted of a hook by then: the hook itself, and not yet that it takes keywords."""
    model = Model(by_row=False)
    watch = PaddingWatch(model, model.decoder)
    watch.start()
    for module in (model, model.decoder):
        module._forward_pre_hooks_with_kwargs.clear()
    with ThreadPoolExecutor(1) as other:
        other.submit(model, MASK, MASK).result()
    assert watch.tokens(0, 3, 2) is None
    watch.stop()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("model_type", ["dots3_note", "mistral_large4"])
def test_tokens_that_a_sparse_attention_never_chooses_are_no_padding(
    model_type: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    family = Family(model_type)
    recorder = family.recorder(family.inputs(padded=True))
    with torch.no_grad(), recorder:
        family.model(**family.inputs(padded=True), use_cache=False)
    assert recorder.row_counts("rows").tolist() == [[5] * 3] * 2
    real = RowMask.real
    monkeypatch.setattr(PaddingWatch, "tokens", lambda *_: None)
    with pytest.raises(UnsupportedAttention, match=r"which rows are padding cannot be told .*attention_mask \(batch"):
        family.compare(padded=True)
    monkeypatch.setattr(RowMask, "real", lambda mask, rows, bias, _: real(_without_indexer(mask), rows, bias))
    assert Family(model_type).compare(padded=True).error > 100 * TOLERANCE


def _without_indexer(mask: RowMask) -> RowMask:
    """The mask of a module that is not known to choose columns."""
    module = nn.Module()
    return RowMask(dataclasses.replace(mask._call, module=module), mask._place)


@pytest.mark.filterwarnings("ignore")
def test_a_forward_without_a_mask_has_no_padding() -> None:
    family = Family("mistral_large4")
    with_mask, without = (family.inputs(padded=False) for _ in range(2))
    del without["attention_mask"]
    found = [attention_factors(family.model, inputs, [10, -1], list(SPANS)) for inputs in (with_mask, without)]
    assert torch.equal(found[0], found[1])
