"""Families whose decoder reaches images by cross-attention: sizes, and inputs with which those layers run.

Knows configurations and inputs only; models are built in `verifying`.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import PretrainedConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from tests.probes.zoo.shrinking import IMAGE_TOKEN, VOCABULARY

FEATURES = 14
"""Length of the text that an encoder reads."""
Spans = tuple[tuple[int, int], ...]


class Crossing(NamedTuple):
    """What such a family needs: as in `tests.probes.zoo.catalogue.Entry`."""

    changes: Mapping[str, Any]
    more_inputs: Callable[[Tensor, torch.Generator], dict[str, Tensor]]
    cross_spans: Spans
    config: Callable[[], PretrainedConfig] | None = None
    only_crossing: bool = True


def _mllama(input_ids: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
    """Two images, hidden from the rows before them; of the second one tile is hidden from all."""
    batch, tokens = input_ids.shape
    visible = torch.zeros(batch, tokens, 2, 4, dtype=torch.long)
    visible[:, 8:, 0] = 1
    visible[:, 14:, 1, :3] = 1
    return {
        "pixel_values": torch.randn(batch, 2, 4, 3, 16, 16, generator=generator),
        "aspect_ratio_ids": torch.ones(batch, 2, dtype=torch.long),
        "aspect_ratio_mask": torch.ones(batch, 2, 4, dtype=torch.long),
        "cross_attention_mask": visible,
    }


def _idefics(input_ids: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
    """Two images, the second hidden from the rows before it."""
    batch, tokens = input_ids.shape
    visible = torch.ones(batch, tokens, 2, dtype=torch.long)
    visible[:, :14, 1] = 0
    return {
        "pixel_values": torch.randn(batch, 2, 3, 16, 16, generator=generator),
        "image_attention_mask": visible,
    }


def _as_decoder(input_ids: Tensor) -> dict[str, Tensor]:
    return {"decoder_input_ids": input_ids, "decoder_attention_mask": (input_ids != 0).long()}


def _read(input_ids: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
    """A text for the encoder, of which the second sequence's starts with padding."""
    batch = len(input_ids)
    text = torch.randint(4, 88, (batch, FEATURES), generator=generator)
    mask = torch.ones_like(text)
    text[1:, :2] = 0
    mask[1:, :2] = 0
    return {**_as_decoder(input_ids), "input_ids": text, "attention_mask": mask}


def _florence(input_ids: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
    made = _read(input_ids, generator)
    made["input_ids"][:, 3:8] = IMAGE_TOKEN
    return {**made, "pixel_values": torch.randn(len(input_ids), 3, 64, 64, generator=generator)}


def _udop(input_ids: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
    made = _read(input_ids, generator)
    corners = torch.rand(len(input_ids), FEATURES, 2, generator=generator) * 0.5
    boxes = torch.cat([corners, corners + 0.1], dim=-1)
    return {**made, "bbox": boxes, "pixel_values": torch.randn(len(input_ids), 3, 16, 16, generator=generator)}


def _patches(input_ids: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
    batch = len(input_ids)
    places = torch.cartesian_prod(torch.arange(1, 5), torch.arange(1, 5)).expand(batch, -1, -1)
    pixels = torch.randn(batch, 16, 48, generator=generator)
    mask = torch.ones(batch, 16, dtype=torch.long)
    mask[1:, -2:] = 0
    return {
        **_as_decoder(input_ids),
        "input_ids": torch.empty(0),
        "flattened_patches": torch.cat([places.float(), pixels], dim=-1),
        "attention_mask": mask,
    }


def _pixels(size: int) -> Callable[[Tensor, torch.Generator], dict[str, Tensor]]:
    def make(input_ids: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        pixels = torch.randn(len(input_ids), 3, size, size, generator=generator)
        empty = torch.empty(0)
        return {**_as_decoder(input_ids), "input_ids": empty, "attention_mask": empty, "pixel_values": pixels}

    return make


def _donut() -> PretrainedConfig:
    """A vision transformer before an MBart decoder."""
    decoder = CONFIG_MAPPING["mbart"](is_decoder=True, add_cross_attention=True)
    config: PretrainedConfig = CONFIG_MAPPING["vision-encoder-decoder"](
        encoder=CONFIG_MAPPING["vit"]().to_dict(), decoder=decoder.to_dict()
    )
    return config


_BART = {"d_model": 32, "vocab_size": VOCABULARY, "decoder_start_token_id": 1, "forced_eos_token_id": None}
_BART |= {f"{part}_layers": 3 for part in ("encoder", "decoder")}
_BART |= {f"{part}_ffn_dim": 48 for part in ("encoder", "decoder")}
_BART |= {f"{part}_attention_heads": 4 for part in ("encoder", "decoder")}


def _bart(part: str) -> dict[str, Any]:
    return {f"{part}.{name}": value for name, value in _BART.items()}


CROSSING: dict[str, Crossing] = {
    "florence2": Crossing(
        {
            **_bart("text_config"),
            "vision_config.depths": [1, 1, 1, 1],
            "vision_config.embed_dim": [16, 16, 16, 32],
            "vision_config.num_heads": [2, 2, 2, 2],
            "vision_config.num_groups": [2, 2, 2, 2],
            "vision_config.patch_size": [7, 3, 3, 3],
            "vision_config.projection_dim": 32,
        },
        _florence,
        ((3, 8), (9, 13)),
    ),
    "idefics": Crossing(
        {"alpha_initializer": "ones", "vision_config.embed_dim": 32},
        _idefics,
        ((0, 17), (17, 34)),
    ),
    "mllama": Crossing(
        {
            "text_config.cross_attention_layers": [1],
            "vision_config.intermediate_layers_indices": [0],
            "vision_config.vision_output_dim": 64,
            "vision_config.num_global_layers": 1,
        },
        _mllama,
        ((0, 68), (68, 136)),
        only_crossing=False,
    ),
    "pix2struct": Crossing(
        {
            "text_config.d_kv": 8,
            "text_config.d_ff": 48,
            "vision_config.d_kv": 8,
            "vision_config.d_ff": 48,
            "vision_config.patch_embed_hidden_size": 48,
            "vision_config.seq_len": 32,
        },
        _patches,
        ((1, 7), (8, 13)),
    ),
    "pp_formulanet": Crossing(
        {
            **_bart("text_config"),
            "vision_config.image_size": 64,
            "vision_config.output_channels": 16,
            "vision_config.post_conv_in_channels": 16,
            "vision_config.post_conv_mid_channels": 16,
            "vision_config.post_conv_out_channels": 32,
            "vision_config.decoder_hidden_size": 32,
        },
        _pixels(64),
        ((1, 7), (8, 14)),
    ),
    "t5gemma2": Crossing(
        {
            **{f"{part}.query_pre_attn_scalar": 8 for part in ("encoder.text_config", "decoder")},
            "encoder.mm_tokens_per_image": 16,
        },
        _read,
        ((3, 8), (9, 13)),
    ),
    "udop": Crossing(
        {"d_kv": 8, "d_ff": 48, "num_decoder_layers": 3, "max_2d_position_embeddings": 64},
        _udop,
        ((3, 8), (9, 13)),
    ),
    "vision-encoder-decoder": Crossing(_bart("decoder"), _pixels(16), ((1, 8), (9, 16)), config=_donut),
}
