"""Hooked tiny models with real processors, pictures and an eager reference, for the tests of models and interventions.

Weights are enlarged until attention is sharp: near-uniform attention would pass any formula.
"""

from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image

from probes.families import UNBATCHED
from probes.model import HookedModel, Question
from tests.probes import processors, tiny_models
from tests.probes.recipes_codes import CODES
from tests.probes.recipes_grids import GRIDS
from tests.probes.recipes_squares import SQUARES
from tests.probes.recipes_tiles import TILES
from tests.probes.recipes_timm import TIMM
from tests.probes.recipes_zoo import ZOO

FAMILIES = ("llava", "qwen2_5_vl", "idefics3", "smolvlm", "gemma3")
NOT_GENERATING = ("qwen4_exp",)
"""Families whose generation transformers itself does not manage yet."""
UNSTACKED = ("perception_lm",)
"""Families whose processor takes no images together that it cuts into unequal numbers of tiles."""
INTERVENED = (
    "qwen2_vl",
    "qwen3_vl",
    "qwen3_vl_moe",
    "glm4v",
    "glm46v",
    "llava_next",
    "llava_next_video",
    "llava_onevision",
    "internvl",
    "aya_vision",
    "cohere2_vision",
    "mistral3",
    "pixtral",
    "glm4v_moe",
    "qwen3_5",
    "qwen3_5_moe",
    "vipllava",
    "gemma4",
    "llama4",
    "lfm2_vl",
    "paligemma",
)
"""Families that go through the main tests of interventions only."""
FURTHER = (
    *INTERVENED,
    *(
        family
        for family in (*GRIDS, *SQUARES, *TILES, *ZOO, *CODES, *TIMM)
        if family not in (*UNBATCHED, *NOT_GENERATING, *INTERVENED, *UNSTACKED)
    ),
)
"""Families that go through the main tests of traces only."""
EAGER_ONLY = ("inkling2",)
"""Families for which transformers has no other attention."""
SHARPER = {"glm5_next": 9.0, "inkling_mm_model": 9.0}
"""Families that would be too dull; see `tests.probes.tiny_models.enlarge_weights`."""
NEVER = -1
"""An end of sequence that no model writes."""


@cache
def hooked(family: str, attention: str = "sdpa", seed: int = 0) -> HookedModel:
    """One family's sharp tiny model with its processor; answers end at their length only. Shared: leave it as found."""
    model = HookedModel(sharp_model(family, seed), processors.build_processor(family))
    model.model.set_attn_implementation("eager" if family in EAGER_ONLY else attention)
    model.model.generation_config.eos_token_id = NEVER
    return model


def sharp_model(family: str, seed: int = 0) -> Any:
    """The bare model, with weights of the seed."""
    processor = processors.build_processor(family)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        changes = {"tie_word_embeddings": False} if family == "gemma3" else {}
        model = processors.build_model(family, processor, seed, **changes)
        tiny_models.enlarge_weights(model, SHARPER.get(family, tiny_models.SHARPNESS))
    for name, parameter in model.named_parameters():
        # Both norm queries and keys; Gemma divides by a fixed scalar meant for heads of 256 besides.
        normed = family == "gemma3" or family.startswith("qwen3")
        if normed and name.endswith(("q_norm.weight", "k_norm.weight")) and "language" in name:
            torch.nn.init.constant_(parameter, 3.0)
    return model


def picture(width: int = 32, height: int = 32, seed: int = 0) -> Image.Image:
    """A picture of random colours."""
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def questions() -> list[Question]:
    """Three questions of unequal length: marks between words, no marks, and an image as the last thing said."""
    first, second, third = picture(32, 32, 1), picture(64, 32, 2), picture(32, 64, 3)
    return [
        Question([first, second, third], "1 <image> 2 <image> 3 <image> Which image shows the red ball?"),
        Question([second], "How many digits?"),
        Question([third, first], "Which is it: <image> or <image>"),
    ]


class Reference(NamedTuple):
    """One question alone, through eager attention, by a path of its own."""

    attentions: list[np.ndarray[Any, np.dtype[np.float32]]]
    """Per layer (heads, rows, columns)."""
    logits: torch.Tensor
    """(tokens, vocabulary)."""
    images: list[list[int]]
    """Per image, its token columns."""
    prompt: int
    """Length of the prompt."""


def reference(family: str, question: Question, answer_ids: Sequence[int], seed: int = 0) -> Reference:
    """Attention as transformers itself returns it, for prompt and answer in one unpadded eager forward."""
    eager = hooked(family, "eager", seed)
    processor, model = eager.processor, eager.model
    text = processors.chat(processor, question.images, question.text)
    special = not text.startswith(processor.tokenizer.bos_token)
    images = processors.batched(family, [question.images])
    inputs = dict(processor(text=[text], images=images, return_tensors="pt", add_special_tokens=special))
    inputs.pop("labels", None)
    inputs = {
        key: value.float() if torch.is_tensor(value) and value.is_floating_point() else value
        for key, value in inputs.items()
    }
    prompt = inputs["input_ids"].shape[1]
    answer = torch.tensor([list(answer_ids)], dtype=torch.long)
    for key, new in (("input_ids", answer), ("attention_mask", torch.ones_like(answer))):
        inputs[key] = torch.cat([inputs[key], new], dim=1)
    for key in {"mm_token_type_ids", "moe_mm_token_type_ids", "token_type_ids"} & set(inputs):
        kind = torch.full_like(answer, 1 if family == "paligemma" else 0)
        inputs[key] = torch.cat([inputs[key], kind], dim=1)
    with torch.no_grad():
        output = model(**inputs, output_attentions=True, use_cache=False)
    # BLIP-2 keeps what its decoder gave one level further down.
    decoder = getattr(output, "language_model_outputs", output)
    attentions = [layer[0].numpy() for layer in decoder.attentions]
    return Reference(attentions, output.logits[0], _image_columns(eager, question, inputs["input_ids"][0]), prompt)


def _image_columns(model: HookedModel, question: Question, ids: torch.Tensor) -> list[list[int]]:
    """Columns of each image: as many image tokens as it makes when it is asked about alone, or twice in one prompt
    where images that share a prompt are made otherwise.
    """
    config = model.model.config
    token = getattr(config, "image_token_id", None) or config.image_token_index
    columns = (ids == token).nonzero().flatten().tolist()
    found = []
    for image in question.images:
        copies = 2 if config.model_type == "llava_onevision" and len(question.images) > 1 else 1
        text = processors.chat(model.processor, [image] * copies, "<image> it" * copies)
        images = processors.batched(config.model_type, [[image] * copies])
        alone = model.processor(text=[text], images=images, return_tensors="pt")
        count = int((alone["input_ids"] == token).sum()) // copies
        found.append(columns[:count])
        columns = columns[count:]
    assert not columns
    return found
