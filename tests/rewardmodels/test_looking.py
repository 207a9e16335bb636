"""The scoring token's attention factor against the classifier's own eager attentions, padded or not, layer by layer."""

from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model

from probes.inputs import ImageRef, InputError
from rewardmodels.looking import scoring_attention
from rewardmodels.model import RewardModel, as_turns
from rewardmodels.records import Response
from tests.probes.hooked import picture
from tests.rewardmodels.small import reward_model, text_model, three_prompts

FAMILIES = ("llava", "qwen2_5_vl", "idefics3", "gemma3", "qwen3_5", "internvl")
RESPONSES = ["a cat", "the dog there on the grass", "owl"]


def image_token(model: RewardModel) -> int:
    config = model.model.config
    return int(getattr(config, "image_token_id", None) or config.image_token_index)


def eager(model: RewardModel, prompt: Any, response: str) -> tuple[list[np.ndarray], list[int], int]:
    """Per layer (heads, rows, columns), the columns of image tokens, and the row of the score; by transformers."""
    conversation = model.writer.write(prompt, response)
    inputs = model.inputs([conversation])
    before = model.model.config._attn_implementation
    model.model.set_attn_implementation("eager")
    try:
        with torch.no_grad():
            output = model.model(**inputs, output_attentions=True)
    finally:
        model.model.set_attn_implementation(before)
    columns = (inputs["input_ids"][0] == image_token(model)).nonzero().flatten().tolist()
    attentions = [layer[0].numpy() for layer in output.attentions if layer is not None]
    return attentions, columns, inputs["input_ids"].shape[1] - 1


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("family", FAMILIES)
def test_factors_are_those_of_the_classifiers_own_eager_attentions(family: str, side: str) -> None:
    model = reward_model(family)
    model = RewardModel(model.model, model.processor, padding_side=side)
    found = scoring_attention(model, three_prompts(), RESPONSES, maps=True)
    spread = []
    for prompt, response, each in zip(three_prompts(), RESPONSES, found, strict=True):
        attentions, columns, row = eager(model, prompt, response)
        assert len(attentions) == len(each.layers) == len(each.factors)
        images = np.array_split(np.array(columns), each.prompt_images)
        assert each.factors.shape == (len(attentions), each.prompt_images) == (len(attentions), len(images))
        for layer, attention in enumerate(attentions):
            for image, tokens in enumerate(images):
                expected = attention[:, row, tokens]
                assert each.factors[layer, image] == pytest.approx(expected.mean(), abs=1e-5)
                assert each.maps[image][layer] == pytest.approx(expected.mean(0), abs=1e-5)
                spread.append(abs(expected.mean() - attention[:, row - 1, tokens].mean()))
    assert max(spread) > 1e-3, "another row's attention would pass as well"


def test_scores_are_the_models_own_and_heads_can_be_kept() -> None:
    model = reward_model("llava")
    found = scoring_attention(model, three_prompts(), RESPONSES, per_head=True, batch_size=2)
    assert [each.score for each in found] == pytest.approx(model.get_scores(three_prompts(), RESPONSES), abs=1e-5)
    mean = scoring_attention(model, three_prompts(), RESPONSES)
    for one, other in zip(found, mean, strict=True):
        assert one.factors.shape == (3, 4, other.factors.shape[1])
        assert one.factors.mean(1) == pytest.approx(other.factors, abs=1e-6)


def test_an_adapter_is_looked_into_as_what_it_merges_to() -> None:
    model = reward_model("llava")
    plain = scoring_attention(model, three_prompts(), RESPONSES)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = LoraConfig(target_modules=["q_proj"], init_lora_weights=False, modules_to_save=["score"])
        adapted = get_peft_model(model.model, config)
    found = scoring_attention(RewardModel(adapted, model.processor), three_prompts(), RESPONSES)
    merged = scoring_attention(RewardModel(adapted.merge_and_unload(), model.processor), three_prompts(), RESPONSES)
    for one, other, before in zip(found, merged, plain, strict=True):
        assert one.factors == pytest.approx(other.factors, abs=1e-5)
        assert abs(one.factors - before.factors).max() > 1e-4


def test_an_image_of_the_response_is_told_from_the_prompts() -> None:
    model = reward_model("llava")
    response = Response("this one", (ImageRef.of(picture(seed=7)),))
    found = scoring_attention(model, [three_prompts()[1]], [response])[0]
    assert found.factors.shape == (3, 3) and found.prompt_images == 2


def test_what_has_no_image_is_refused_by_name() -> None:
    model = reward_model("llava")
    with pytest.raises(InputError, match="response 1: its prompt has no image"):
        scoring_attention(model, [three_prompts()[0], as_turns("Which?")], RESPONSES[:2])
    with pytest.raises(InputError, match="3 prompts need as many responses, and 1"):
        scoring_attention(model, three_prompts(), RESPONSES[:1])
    with pytest.raises(InputError, match=r"RewardModel\(LlamaForSequenceClassification.* reads text only"):
        scoring_attention(text_model(), three_prompts(), RESPONSES)
