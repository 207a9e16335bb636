"""Tiny random models of each family, with inputs and image spans, built without a hub.

Weights are enlarged until attention is sharp: near-uniform attention would pass any formula. Nothing here knows how
attention is recorded; the tests of several parts build their models with `build`.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import nn

FAMILIES = ("llava", "llava_qwen2", "qwen2_5_vl", "idefics3", "smolvlm", "gemma3")
VOCABULARY = 96
PAD, IMAGE, BEFORE_IMAGE, AFTER_IMAGE, VIDEO = 0, 90, 91, 92, 93
TEXT_IDS = range(4, 88)
SHARPNESS = 3.0
"""Standard deviation of the attention logits that the enlarged weights aim at."""


class Tiny(NamedTuple):
    """A model, the inputs of `model(**inputs)`, and per batch row the (start, stop) of each image's tokens."""

    model: Any
    inputs: dict[str, torch.Tensor]
    spans: list[list[tuple[int, int]]]


def build(
    family: str,
    samples: Sequence[Sequence[int]] = ((3, 2, 6),),
    *,
    padding: str = "right",
    layers: int = 3,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    attention: str = "sdpa",
    sliding_window: int = 12,
) -> Tiny:
    """Build one family's model and a batch.

    Args:
        family: One of `FAMILIES`.
        samples: Per sample the numbers of text tokens before, between and after its images: `(3, 2, 6)` is three text
            tokens, an image, two text tokens, an image, six text tokens; `(5,)` has no image.
        padding: "left" or "right", where shorter samples are filled up.
        layers: Decoder layers.
        seed: Seed of weights, pixels and text.
        dtype: Of the weights and pixels.
        attention: The implementation's name, "sdpa" or "eager".
        sliding_window: Window of Gemma 3's first layers; its last layer is always full.
    """
    model = build_model(family, layers=layers, seed=seed, attention=attention, sliding_window=sliding_window)
    model = model.to(dtype)
    inputs, spans = build_inputs(family, samples, padding=padding, seed=seed, dtype=dtype)
    return Tiny(model, inputs, spans)


def build_model(
    family: str, *, layers: int = 3, seed: int = 0, attention: str = "sdpa", sliding_window: int = 12
) -> Any:
    """The family's model alone, in evaluation mode and fp32; the same seed gives the same weights."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = _BUILDERS[family](layers, sliding_window)
        enlarge_weights(model)
    model.set_attn_implementation(attention)
    model.generation_config.eos_token_id = None
    model.generation_config.pad_token_id = PAD
    return model.eval()


_QUERY_KEY_NORMS = tuple(
    f"{name}.weight" for name in ("q_norm", "k_norm", "q_layernorm", "k_layernorm", "query_layernorm", "key_layernorm")
)
_QUERY_KEY_MAPS = tuple(
    f"{name}.weight"
    for name in ("q_proj", "k_proj", "q_b_proj", "kv_b_proj", "query", "key", "query_key_value", "qkv_proj", "att_proj")
)


def enlarge_weights(model: nn.Module, sharpness: float = SHARPNESS) -> None:
    """Redraw every weight with unit gain, and the decoder's query and key maps so that logits spread by `sharpness`.

    So do sinks and relative biases.
    """
    for name, parameter in model.named_parameters():
        with torch.no_grad():
            decoder = not ("vision" in name or "visual" in name)
            if decoder and name.endswith(_QUERY_KEY_NORMS):
                # Gemma's norms multiply by one plus their weight, which starts at zero.
                parameter.fill_(sharpness**0.5 - (0 if parameter.any() else 1))
            elif decoder and name.endswith(_QUERY_KEY_MAPS):
                parameter.normal_(0, sharpness**0.5 / parameter.shape[-1] ** 0.5)
            elif decoder and name.endswith("sinks"):
                parameter.normal_(0, sharpness)
            elif (decoder and name.endswith("rel_logits_proj.proj")) or ("embed" in name and parameter.dim() == 2):
                parameter.normal_(0, 1)
            elif parameter.dim() >= 2:
                parameter.normal_(0, 1 / fan_in(name, parameter) ** 0.5)


def fan_in(name: str, weight: torch.Tensor) -> float:
    """How many numbers each output of a weight sums.

    Stacked experts are (experts, out, in), or (experts, in, out): the mean of both on a log scale serves either.
    """
    each = weight[0].numel()
    return float(each**0.5 if weight.dim() == 3 and "experts" in name else each)


def build_inputs(
    family: str,
    samples: Sequence[Sequence[int]],
    *,
    padding: str = "right",
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
) -> tuple[dict[str, torch.Tensor], list[list[tuple[int, int]]]]:
    """Ids, attention mask, pixels and whatever else the family's forward wants, with the spans per batch row."""
    generator = torch.Generator().manual_seed(seed + 1)
    rows = [_row(family, sample, generator) for sample in samples]
    length = max(len(ids) for ids, _ in rows)
    input_ids = torch.full((len(rows), length), PAD)
    attention_mask = torch.zeros_like(input_ids)
    spans: list[list[tuple[int, int]]] = []
    for index, (ids, row_spans) in enumerate(rows):
        shift = length - len(ids) if padding == "left" else 0
        input_ids[index, shift : shift + len(ids)] = torch.tensor(ids)
        attention_mask[index, shift : shift + len(ids)] = 1
        spans.append([(start + shift, stop + shift) for start, stop in row_spans])
    inputs = {"input_ids": input_ids, "attention_mask": attention_mask}
    inputs |= _pixels(family, [len(row_spans) for row_spans in spans], generator, dtype)
    if family == "qwen2_5_vl":
        inputs["mm_token_type_ids"] = (input_ids == IMAGE).int()
    if family == "gemma3":
        inputs["token_type_ids"] = (input_ids == IMAGE).int()
    return inputs, spans


def image_tokens(family: str, image: int) -> int:
    """How many tokens the image at this place in its sample takes; Qwen2.5-VL's images differ in size."""
    if family == "qwen2_5_vl":
        height, width = _grid(image)
        return height * width // 4
    return 16


def _grid(image: int) -> tuple[int, int]:
    return ((8, 8), (4, 8), (8, 6))[image % 3]


def _row(family: str, sample: Sequence[int], generator: torch.Generator) -> tuple[list[int], list[tuple[int, int]]]:
    def text(count: int) -> list[int]:
        return torch.randint(TEXT_IDS.start, TEXT_IDS.stop, (count,), generator=generator).tolist()

    framed = not family.startswith("llava")
    ids, spans = text(sample[0]), []
    for image, count in enumerate(sample[1:]):
        ids += [BEFORE_IMAGE] if framed else []
        tokens = image_tokens(family, image)
        spans.append((len(ids), len(ids) + tokens))
        ids += [IMAGE] * tokens + ([AFTER_IMAGE] if framed else []) + text(count)
    return ids, spans


def _pixels(family: str, counts: list[int], generator: torch.Generator, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    if not sum(counts):
        return {}
    if family == "qwen2_5_vl":
        grids = [_grid(image) for count in counts for image in range(count)]
        patches = sum(height * width for height, width in grids)
        return {
            "pixel_values": torch.randn(patches, 3 * 2 * 4 * 4, generator=generator).to(dtype),
            "image_grid_thw": torch.tensor([(1, height, width) for height, width in grids]),
        }
    if family in ("idefics3", "smolvlm"):
        pixels = torch.zeros(len(counts), max(counts), 3, 32, 32)
        for row, count in enumerate(counts):
            pixels[row, :count] = torch.randn(count, 3, 32, 32, generator=generator)
        return {"pixel_values": pixels.to(dtype)}
    return {"pixel_values": torch.randn(sum(counts), 3, 16, 16, generator=generator).to(dtype)}


def decoder_settings(layers: int) -> dict[str, Any]:
    """The settings that every tiny decoder shares: hidden 32, four heads over two key-value heads."""
    return {
        "vocab_size": VOCABULARY,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": layers,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        "pad_token_id": PAD,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "tie_word_embeddings": False,
    }


def _tower(image_size: int) -> dict[str, Any]:
    return {
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": image_size,
        "patch_size": 4,
    }


def _llava(layers: int, decoder: Callable[..., Any]) -> Any:
    from transformers import CLIPVisionConfig, LlavaConfig, LlavaForConditionalGeneration

    config = LlavaConfig(
        vision_config=CLIPVisionConfig(**_tower(16), projection_dim=16),
        text_config=decoder(**decoder_settings(layers)),
        image_token_index=IMAGE,
        image_seq_length=16,
        vision_feature_select_strategy="default",
        vision_feature_layer=-1,
    )
    return LlavaForConditionalGeneration(config)


def _llava_llama(layers: int, _: int) -> Any:
    from transformers import LlamaConfig

    return _llava(layers, LlamaConfig)


def _llava_qwen2(layers: int, _: int) -> Any:
    from transformers import Qwen2Config

    return _llava(layers, Qwen2Config)


def _qwen2_5_vl(layers: int, _: int) -> Any:
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    config = Qwen2_5_VLConfig(
        text_config={
            **decoder_settings(layers),
            "rope_parameters": {"rope_type": "default", "mrope_section": [2, 1, 1], "rope_theta": 10000.0},
        },
        vision_config={
            "depth": 2,
            "hidden_size": 16,
            "intermediate_size": 24,
            "num_heads": 2,
            "patch_size": 4,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
            "window_size": 16,
            "out_hidden_size": 32,
            "fullatt_block_indexes": [1],
        },
        image_token_id=IMAGE,
        video_token_id=VIDEO,
        vision_start_token_id=BEFORE_IMAGE,
        vision_end_token_id=AFTER_IMAGE,
    )
    return Qwen2_5_VLForConditionalGeneration(config)


def _idefics3(layers: int, _: int) -> Any:
    from transformers import Idefics3Config, Idefics3ForConditionalGeneration, LlamaConfig

    config = Idefics3Config(
        text_config=LlamaConfig(**decoder_settings(layers)),
        vision_config=_tower(32),
        image_token_id=IMAGE,
        scale_factor=2,
    )
    return Idefics3ForConditionalGeneration(config)


def _smolvlm(layers: int, _: int) -> Any:
    from transformers import LlamaConfig, SmolVLMConfig, SmolVLMForConditionalGeneration

    config = SmolVLMConfig(
        text_config=LlamaConfig(**decoder_settings(layers)),
        vision_config=_tower(32),
        image_token_id=IMAGE,
        scale_factor=2,
    )
    return SmolVLMForConditionalGeneration(config)


def _gemma3(layers: int, sliding_window: int) -> Any:
    from transformers import Gemma3Config, Gemma3ForConditionalGeneration, SiglipVisionConfig

    config = Gemma3Config(
        text_config={
            **decoder_settings(layers),
            "head_dim": 8,
            "query_pre_attn_scalar": 8,
            "sliding_window": sliding_window,
            "layer_types": ["sliding_attention"] * (layers - 1) + ["full_attention"],
        },
        vision_config=SiglipVisionConfig(**_tower(16), vision_use_head=False),
        mm_tokens_per_image=16,
        image_token_index=IMAGE,
        boi_token_index=BEFORE_IMAGE,
        eoi_token_index=AFTER_IMAGE,
    )
    return Gemma3ForConditionalGeneration(config)


_BUILDERS: dict[str, Callable[[int, int], Any]] = {
    "llava": _llava_llama,
    "llava_qwen2": _llava_qwen2,
    "qwen2_5_vl": _qwen2_5_vl,
    "idefics3": _idefics3,
    "smolvlm": _smolvlm,
    "gemma3": _gemma3,
}
