"""Build the small LLaVA of the bundled benchmark: tokenizer, chat template, processor and random weights, by size.

Trains nothing and reads no data; `studies.dense.training` does both.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from studies.benchmark.questions import MOST_IMAGES, TASKS, Pool, compose, image_count
from studies.benchmark.rendering import CONCEPTS, PIXELS
from studies.benchmark.sources import NEEDLES

if TYPE_CHECKING:
    import numpy as np

IMAGE_TOKEN, PAD_TOKEN = "<image>", "<|pad|>"
USER_TOKEN, ASSISTANT_TOKEN, END_TOKEN = "<|user|>", "<|assistant|>", "<|end|>"
CONTEXT = 512
VOCABULARY = 640
PATCH = 16
IMAGE_TOKENS = (PIXELS // PATCH) ** 2
CHAT_TEMPLATE = (
    "{%- for message in messages -%}"
    "{{ '<|user|>' if message['role'] == 'user' else '<|assistant|>' }}"
    "{%- if message['content'] is string -%}{{ message['content'] | trim }}{%- else -%}"
    "{%- for block in message['content'] -%}"
    "{{ '<image>' if block['type'] == 'image' else block['text'] | trim }}"
    "{%- endfor -%}{%- endif -%}<|end|>"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}<|assistant|>{%- endif -%}"
)


@dataclass(frozen=True)
class Size:
    """Widths and depths of one model: tower and decoder."""

    name: str
    tower_hidden: int
    tower_layers: int
    hidden: int
    layers: int
    heads: int
    key_value_heads: int
    intermediate: int


SIZES = {
    size.name: size
    for size in (
        Size("small", 48, 2, 64, 5, 4, 2, 128),
        Size("medium", 96, 3, 128, 6, 4, 2, 320),
        Size("large", 160, 4, 224, 6, 8, 4, 576),
    )
}


def build_tokenizer(pool: Pool, rng: np.random.Generator) -> Any:
    """Train a byte-level BPE tokenizer on the benchmark's wording; any other text still has tokens (bytes)."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    special = [PAD_TOKEN, IMAGE_TOKEN, USER_TOKEN, ASSISTANT_TOKEN, END_TOKEN]
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    tokenizer.train_from_iterator(_wording(pool, rng), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD_TOKEN,
        eos_token=END_TOKEN,
        additional_special_tokens=[IMAGE_TOKEN, USER_TOKEN, ASSISTANT_TOKEN],
        model_max_length=CONTEXT,
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )


def _wording(pool: Pool, rng: np.random.Generator) -> list[str]:
    words = [concept.name for concept in CONCEPTS] + list(NEEDLES) + [str(n) for n in range(1, MOST_IMAGES + 1)]
    questions = []
    for task in TASKS:
        for _ in range(400):
            questions.append(compose(task, pool, image_count(task, rng), rng).question.split(IMAGE_TOKEN)[-1])
    return words * 20 + questions + ["List them by number.", "List them by name."] * 20


def build_processor(tokenizer: Any) -> Any:
    """The `LlavaProcessor` that goes with the tokenizer: 64-pixel images, patches of 16, 16 image tokens each."""
    from transformers import CLIPImageProcessor, LlavaProcessor

    images = CLIPImageProcessor(
        size={"shortest_edge": PIXELS},
        crop_size={"height": PIXELS, "width": PIXELS},
        image_mean=[0.5, 0.5, 0.5],
        image_std=[0.5, 0.5, 0.5],
    )
    return LlavaProcessor(
        image_processor=images,
        tokenizer=tokenizer,
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        chat_template=CHAT_TEMPLATE,
        image_token=IMAGE_TOKEN,
        num_additional_image_tokens=1,
    )


def build_model(size: Size, tokenizer: Any, seed: int) -> Any:
    """A `LlavaForConditionalGeneration` with random weights: CLIP tower, Llama decoder.

    Every size sees 64-pixel images as 4 x 4 tokens. Weights depend on ``seed`` only.
    """
    import torch
    from transformers import CLIPVisionConfig, GenerationConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

    vision = CLIPVisionConfig(
        hidden_size=size.tower_hidden,
        intermediate_size=4 * size.tower_hidden,
        num_hidden_layers=size.tower_layers,
        num_attention_heads=4,
        image_size=PIXELS,
        patch_size=PATCH,
    )
    text = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=size.hidden,
        intermediate_size=size.intermediate,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        num_key_value_heads=size.key_value_heads,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    config = LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_id=tokenizer.convert_tokens_to_ids(IMAGE_TOKEN),
        vision_feature_layer=-1,
        vision_feature_select_strategy="default",
        image_seq_length=IMAGE_TOKENS,
        tie_word_embeddings=True,
    )
    torch.manual_seed(seed)
    model = LlavaForConditionalGeneration(config)
    model.generation_config = GenerationConfig(
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id, do_sample=False, max_new_tokens=8
    )
    return model
