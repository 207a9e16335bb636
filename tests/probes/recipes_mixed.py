"""Recipes of further families whose resampler mixes a picture into tokens. See `tests.probes.recipes`."""

import copy
from typing import Any

from tests.probes.recipes import LLAVA_MESSAGE, Ids, Message, Recipe, Settings
from tests.probes.recipes_cut import SAM_SPREAD
from tests.probes.recipes_zoo import zoo_config

_IDEFICS2_MARKS = ("<image>", "<fake_token_around_image>", "<end_of_utterance>")


def _idefics2(tokenizer: Any, template: str, settings: Settings) -> Any:
    from transformers import Idefics2ImageProcessor, Idefics2Processor

    small = {"size": {"shortest_edge": 16, "longest_edge": 32}, "do_image_splitting": True}
    return Idefics2Processor(
        image_processor=Idefics2ImageProcessor(**(small | settings)),
        tokenizer=tokenizer,
        image_seq_len=4,
        chat_template=template,
    )


def _idefics2_config(ids: Ids, text: Settings, tower: Settings) -> tuple[Any, Settings]:
    from transformers import Idefics2Config

    resampler = {
        "hidden_size": 32,
        "resampler_n_latents": 4,
        "resampler_depth": 1,
        "resampler_n_heads": 2,
        "resampler_head_dim": 8,
        "num_key_value_heads": 1,
    }
    return Idefics2Config, {
        "text_config": {"model_type": "mistral", **text},
        "vision_config": tower,
        "perceiver_config": resampler,
        "image_token_id": ids("<image>"),
    }


def _aria(tokenizer: Any, template: str, settings: Settings) -> Any:
    from transformers import AriaImageProcessor, AriaProcessor

    processor = AriaProcessor(
        image_processor=AriaImageProcessor(),
        tokenizer=tokenizer,
        chat_template=template,
        size_conversion={490: 4},
    )
    # The processor's own defaults come before those of its image processor, which takes 490 or 980 pixels only.
    processor.images_kwargs = {"max_image_size": 490, "split_image": False, **settings}
    return processor


def _aria_config(ids: Ids, text: Settings, tower: Settings) -> tuple[Any, Settings]:
    from transformers import AriaConfig

    experts = {"moe_num_experts": 4, "moe_topk": 2, "moe_num_shared_experts": 1}
    return AriaConfig, {
        "text_config": {**text, **experts},
        "vision_config": {**tower, "image_size": 490, "patch_size": 70},
        "projector_patch_to_query_dict": {7 * 7: 4},
        "image_token_index": ids("<image>"),
    }


def _deepseek_ocr2(tokenizer: Any, template: str, settings: Settings) -> Any:
    from transformers import DeepseekOcr2ImageProcessor, DeepseekOcr2Processor

    # The model's queries are 144 for a tile and 256 for the whole, whatever the configuration.
    small = {"size": {"height": 64, "width": 64}, "tile_size": 48}
    return DeepseekOcr2Processor(
        image_processor=DeepseekOcr2ImageProcessor(**(small | settings)),
        tokenizer=tokenizer,
        patch_size=1,
        downsample_ratio=4,
        chat_template=template,
    )


def _deepseek_ocr2_config(ids: Ids, text: Settings, tower: Settings) -> tuple[Any, Settings]:
    from transformers import DeepseekOcr2Config

    sam: Settings = {**SAM_SPREAD, "hidden_size": 8, "output_channels": 8, "num_hidden_layers": 1, "mlp_dim": 16}
    sam |= {"num_attention_heads": 2, "image_size": 64, "patch_size": 1, "global_attn_indexes": []}
    sam |= {"downsample_channels": [16, 32]}
    encoder = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    experts = {"mlp_layer_types": ["dense", "sparse", "sparse"], "n_routed_experts": 4, "num_experts_per_tok": 2}
    return DeepseekOcr2Config, {
        "text_config": {**text, **experts, "moe_intermediate_size": 16},
        "vision_config": {"sam_config": sam, "encoder_config": {**encoder, "num_key_value_heads": 2}},
        "image_token_id": ids("<image>"),
    }


def _with_queries(kind: str) -> Any:
    """A recipe's function for a processor of the named class, which writes four tokens."""

    def make(tokenizer: Any, template: str, settings: Settings) -> Any:
        import transformers

        # The Q-Former has a tokenizer of its own, a BERT's in checkpoints.
        own = {"qformer_tokenizer": copy.deepcopy(tokenizer)} if kind == "InstructBlip" else {}
        processor = getattr(transformers, f"{kind}Processor")(
            image_processor=transformers.BlipImageProcessor(**({"size": {"height": 16, "width": 16}} | settings)),
            tokenizer=tokenizer,
            num_query_tokens=4,
            **own,
        )
        processor.chat_template = template
        return processor

    return make


_ASKED = Message("{{ 'Question: ' }}", "", "", "{{ ' Answer:' }}")
"""As the checkpoints' model cards ask: they have no template, and their processors write the image's tokens."""

MIXED: dict[str, Recipe] = {
    "deepseek_ocr2": Recipe(("<image>",), "</s>", LLAVA_MESSAGE, _deepseek_ocr2, _deepseek_ocr2_config),
    "idefics2": Recipe(_IDEFICS2_MARKS, "</s>", LLAVA_MESSAGE, _idefics2, _idefics2_config),
    "aria": Recipe(("<image>",), "</s>", LLAVA_MESSAGE, _aria, _aria_config, {"image_token": "<image>"}),
}
"""By family, as `tests.probes.recipes.RECIPES`."""
QUERIED: dict[str, Recipe] = {
    "blip-2": Recipe(
        ("<image>",), "</s>", _ASKED, _with_queries("Blip2"), zoo_config("blip-2", {"image_token_index": "<image>"})
    ),
    "instructblip": Recipe(
        ("<image>",),
        "</s>",
        _ASKED,
        _with_queries("InstructBlip"),
        zoo_config("instructblip", {"image_token_index": "<image>"}, {"qformer_config.vocab_size": 320}),
    ),
}
"""Families whose processor puts the queries of one image before the text."""
