"""Refused families, what the engine says of them and which parts are read; rows that are blinded with their terms."""

import numpy as np
import pytest
import torch

from probes.attention import AttentionRecorder, attention_factors
from probes.attention_calls import UnsupportedAttention
from probes.families.support import REFUSED
from probes.knockout import AttentionKnockout
from tests.probes.dense_reference import TOLERANCE
from tests.probes.zoo.catalogue import ENTRIES, Entry
from tests.probes.zoo.verifying import LENGTHS, ROWS, SPANS, build_model, inputs_of, means_of, numbers

pytestmark = pytest.mark.filterwarnings("ignore")

SAID = {
    "blip": "never called transformers' attention interface|called transformers' attention interface in this thread",
    "diffusion_gemma": "its cache was filled before",
    "git": "called transformers' attention interface",
    "pi0": "it holds several attentions",
}
"""What the engine says of each."""


@pytest.mark.parametrize("model_type", sorted(REFUSED))
def test_refused_families_are_refused_by_layer(model_type: str) -> None:
    entry = ENTRIES.get(model_type, Entry())
    model = build_model(model_type, entry.attention)
    inputs = inputs_of(model, entry, padded=False)
    with pytest.raises(UnsupportedAttention, match=f"decoder layer .*({SAID[model_type]})"):
        attention_factors(model, inputs, [-1], list(SPANS))


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("model_type", ["inkling2", "inkling_mm_model"])
def test_knocked_out_rows_keep_their_own_biases_and_sinks(model_type: str, count: int) -> None:
    """In the first layer, whose input is untouched, what is left to see keeps its shares of what is left."""
    model = build_model(model_type, "eager")
    inputs = inputs_of(model, ENTRIES[model_type], padded=False)
    rows = torch.zeros_like(inputs["input_ids"], dtype=torch.bool)
    rows[:, -count:] = True
    hidden = (20, 23)
    kept = [column for column in range(LENGTHS[0]) if not hidden[0] <= column < hidden[1]]
    with torch.no_grad():
        before = model(**inputs, use_cache=False, output_attentions=True).attentions[0][:, :, -count:]
        with AttentionKnockout(model, rows, [[hidden]]):
            output = model(**inputs, use_cache=False, output_attentions=True)
    after = output.attentions[0][:, :, -count:]
    assert float(after[..., hidden[0] : hidden[1]].abs().max()) == 0
    assert float(before[..., hidden[0] : hidden[1]].sum(-1).max()) > 0.05
    shares = [each[..., kept] / each[..., kept].sum(-1, keepdim=True) for each in (before, after)]
    torch.testing.assert_close(shares[1], shares[0], atol=TOLERANCE, rtol=0)
    if model_type == "inkling_mm_model":
        model.set_attn_implementation("sdpa")
        with torch.no_grad(), AttentionKnockout(model, rows, [[hidden]]):
            again = model(**inputs, use_cache=False).logits
        torch.testing.assert_close(again, output.logits, atol=1e-4, rtol=1e-4)


def test_pi0s_language_model_is_read_inside_the_whole() -> None:
    model, twin = (build_model("pi0", attention) for attention in ("sdpa", "eager"))
    generator = torch.Generator().manual_seed(0)
    image_token = model.config.vlm_config.image_token_id
    input_ids = torch.randint(4, 88, (1, LENGTHS[0]), generator=generator)
    input_ids[:, 2:18] = image_token
    inputs = {
        "input_ids": input_ids,
        "attention_mask": torch.ones_like(input_ids),
        "pixel_values": torch.randn(1, 1, 3, 16, 16, generator=generator),
        "pixel_attention_mask": torch.ones(1, 1, dtype=torch.bool),
        "state": torch.randn(1, model.config.max_state_dim, generator=generator),
    }
    rows = torch.zeros(1, LENGTHS[0], dtype=torch.bool)
    rows[:, list(ROWS)] = True
    recorder = AttentionRecorder(model.model.vlm, list(SPANS), {"rows": rows})
    with torch.no_grad(), recorder:
        model(**inputs)
        prefix = {name: inputs[name] for name in ("input_ids", "pixel_values", "pixel_attention_mask")}
        embedded = twin.model.embed_prefix(**prefix)
        alike = {"token_type_ids": torch.zeros_like(input_ids), "position_ids": torch.arange(LENGTHS[0])[None]}
        dense = twin.model.vlm(inputs_embeds=embedded, **alike, output_attentions=True).attentions
    reference = means_of([each.double().numpy() for each in dense], Entry())
    assert np.abs(numbers(recorder.factors("rows")) - reference).max() < TOLERANCE


def test_diffusion_gemmas_encoder_is_read_inside_the_whole() -> None:
    model, twin = (build_model("diffusion_gemma", attention) for attention in ("sdpa", "eager"))
    inputs = inputs_of(model, Entry(), padded=True)
    rows = torch.zeros(2, LENGTHS[0], dtype=torch.bool)
    rows[:, list(ROWS)] = True
    recorder = AttentionRecorder(model.model.encoder, list(SPANS), {"rows": rows})
    with torch.no_grad(), recorder:
        model(**inputs)
        dense = twin.model.encoder(**inputs, output_attentions=True).attentions
    reference = means_of([each.double().numpy() for each in dense], Entry())
    assert np.abs(numbers(recorder.factors("rows")) - reference).max() < TOLERANCE
