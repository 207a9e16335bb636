"""Real processors and tiny random models, built offline, one pair per family; for tests only.

The processors are transformers' own with small settings; only the tokenizers are made here, trained on a few
sentences and given the family's special tokens and a chat template that keeps the order of texts and images.
"""

from collections.abc import Sequence
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from probes.families import FLAT
from tests.probes.recipes import RECIPES as FIRST
from tests.probes.recipes_codes import CODES
from tests.probes.recipes_grids import GRIDS
from tests.probes.recipes_hybrid import HYBRIDS
from tests.probes.recipes_llava import LLAVAS
from tests.probes.recipes_mixed import MIXED, QUERIED
from tests.probes.recipes_single import SINGLE
from tests.probes.recipes_squares import SQUARES
from tests.probes.recipes_tiles import TILES
from tests.probes.recipes_timm import TIMM
from tests.probes.recipes_zoo import ZOO

_PARTS = (FIRST, LLAVAS, HYBRIDS, GRIDS, SQUARES, TILES, MIXED, QUERIED, ZOO, CODES, SINGLE, TIMM)
RECIPES = {family: recipe for part in _PARTS for family, recipe in part.items()}

FAMILIES = ("llava", "qwen2_vl", "qwen2_5_vl", "idefics3", "smolvlm", "gemma3", *RECIPES)
"""Names that `build_processor` and `build_model` take."""

_CORPUS = (
    "Which image shows the red ball? Image 1 shows the cat, image 2 shows a dog on the grass.",
    "user assistant system User Assistant model USER ASSISTANT: : \n\n",
    "How many digits are in image 3? There are 0 1 2 3 4 5 6 7 8 9 of them. Answer with one word or number.",
    "Here is the original image and here are some crops to help you see better",
)
_TAGS = tuple(f"<row_{row}_col_{column}>" for row in range(1, 7) for column in range(1, 7))
_IDEFICS_TOKENS = ("<fake_token_around_image>", "<global-img>", "<end_of_utterance>", "<|im_start|>", *_TAGS)
_SPECIAL: dict[str, tuple[str, ...]] = {
    "llava": ("<image>",),
    "qwen2_vl": ("<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"),
    "idefics3": ("<image>", *_IDEFICS_TOKENS),
    "smolvlm": ("<image>", "<video>", *_IDEFICS_TOKENS),
    "gemma3": ("<start_of_turn>", "<end_of_turn>", "<start_of_image>", "<image_soft_token>", "<end_of_image>"),
}
_SPECIAL["mllama"] = ("<|image|>", "<|python_tag|>")
_SPECIAL["idefics"] = ("<image>", "<fake_token_around_image>", "<end_of_utterance>")
_SPECIAL["florence2"] = ("<image>",)
_SPECIAL["pix2struct"] = ()
_SPECIAL["qwen2_5_vl"] = _SPECIAL["qwen2_vl"]
_SPECIAL |= {family: recipe.special for family, recipe in RECIPES.items()}
_NAMED: dict[str, dict[str, str]] = {
    "llava": {"image_token": "<image>"},
    "florence2": {"image_token": "<image>"},
    "gemma3": {
        "image_token": "<image_soft_token>",
        "boi_token": "<start_of_image>",
        "eoi_token": "<end_of_image>",
    },
    **{family: dict(recipe.named) for family, recipe in RECIPES.items() if recipe.named},
}
_END = {
    "llava": "</s>",
    **dict.fromkeys(("florence2", "idefics", "mllama", "pix2struct"), "</s>"),
    "qwen2_vl": "<|im_end|>",
    "qwen2_5_vl": "<|im_end|>",
    "idefics3": "<end_of_utterance>",
    "smolvlm": "<end_of_utterance>",
    "gemma3": "<end_of_turn>",
    **{family: recipe.end for family, recipe in RECIPES.items()},
}


def _template(before: str, image: str, after: str, opening: str, video: str = "") -> str:
    """A chat template: `before` and `after` messages, `image` and `video` for their blocks, `opening` for the reply."""
    content = (
        "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
        "{% for block in message['content'] %}"
        "{% if block['type'] == 'image' %}" + image + "{% elif block['type'] == 'video' %}" + video + "{% else %}"
        "{{ block['text'] }}{% endif %}{% endfor %}{% endif %}"
    )
    return (
        "{% for message in messages %}" + before + content + after + "{% endfor %}"
        "{% if add_generation_prompt %}" + opening + "{% endif %}"
    )


_QWEN_TEMPLATE = _template(
    "<|im_start|>{{ message['role'] + '\n' }}",
    "<|vision_start|><|image_pad|><|vision_end|>",
    "{{ '<|im_end|>\n' }}",
    "{{ '<|im_start|>assistant\n' }}",
    "<|vision_start|><|video_pad|><|vision_end|>",
)
_IDEFICS_TEMPLATE = _template(
    "<|im_start|>{{ message['role'] | capitalize }}: ", "<image>", "{{ '<end_of_utterance>\n' }}", "Assistant:"
)
TEMPLATES = {
    "llava": _template("{{ message['role'].upper() + ': ' }}", "<image>", "{{ ' ' }}", "ASSISTANT:"),
    "qwen2_vl": _QWEN_TEMPLATE,
    "qwen2_5_vl": _QWEN_TEMPLATE,
    "idefics3": _IDEFICS_TEMPLATE,
    "smolvlm": _IDEFICS_TEMPLATE,
    "mllama": _template("{{ message['role'] + ': ' }}", "<|image|>", "{{ '\n' }}", "{{ 'assistant: ' }}"),
    "gemma3": "<s>"
    + _template(
        "<start_of_turn>{{ ('model' if message['role'] == 'assistant' else message['role']) + '\n' }}",
        "<start_of_image>",
        "{{ '<end_of_turn>\n' }}",
        "{{ '<start_of_turn>model\n' }}",
    ),
    **{family: _template(*recipe.message) for family, recipe in RECIPES.items()},
}


def build_tokenizer(family: str, padding_side: str = "left") -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer of about 400 entries with the family's special tokens."""
    special = ["<pad>", "<s>", "</s>", *_SPECIAL[family]]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300 + len(special),
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_CORPUS, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token=_END[family],
        padding_side=padding_side,
        additional_special_tokens=list(_SPECIAL[family]),
        **({"extra_special_tokens": _NAMED[family]} if family in _NAMED else {}),
    )


def build_processor(family: str, padding_side: str = "left", **image_settings: Any) -> Any:
    """The family's real processor; `image_settings` override those of its image processor.

    Image tokens by default: LLaVA 16 per image (4 x 4); Qwen 2 to 64 (one per 8 x 8 pixels); Idefics3 and SmolVLM
    16 per tile, up to 2 x 2 tiles and a thumbnail; Gemma 3 16 (4 x 4).
    """
    tokenizer = build_tokenizer(family, padding_side)
    template = TEMPLATES[family]
    if family in RECIPES:
        return RECIPES[family].processor(tokenizer, template, image_settings)
    match family:
        case "llava":
            from transformers import CLIPImageProcessor, LlavaProcessor

            settings = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}} | image_settings
            return LlavaProcessor(
                image_processor=CLIPImageProcessor(**settings),
                tokenizer=tokenizer,
                patch_size=8,
                vision_feature_select_strategy="default",
                num_additional_image_tokens=1,
                chat_template=template,
            )
        case "qwen2_vl" | "qwen2_5_vl":
            from transformers import Qwen2_5_VLProcessor, Qwen2VLImageProcessor, Qwen2VLProcessor, Qwen2VLVideoProcessor

            settings = {
                "patch_size": 4,
                "merge_size": 2,
                "temporal_patch_size": 2,
                "size": {"shortest_edge": 16 * 16, "longest_edge": 64 * 64},
            } | image_settings
            kind = Qwen2VLProcessor if family == "qwen2_vl" else Qwen2_5_VLProcessor
            return kind(
                image_processor=Qwen2VLImageProcessor(**settings),
                tokenizer=tokenizer,
                video_processor=Qwen2VLVideoProcessor(**settings),
                chat_template=template,
            )
        case "idefics3":
            from transformers import Idefics3ImageProcessor, Idefics3Processor

            settings = {"size": {"longest_edge": 64}, "max_image_size": {"longest_edge": 32}} | image_settings
            return Idefics3Processor(
                image_processor=Idefics3ImageProcessor(**settings),
                tokenizer=tokenizer,
                image_seq_len=16,
                chat_template=template,
            )
        case "smolvlm":
            return _smolvlm(tokenizer, template, image_settings)
        case "gemma3":
            from transformers import Gemma3ImageProcessor, Gemma3Processor

            settings = {
                "size": {"height": 32, "width": 32},
                "do_pan_and_scan": False,
                "pan_and_scan_min_crop_size": 16,
                "pan_and_scan_max_num_crops": 4,
                "pan_and_scan_min_ratio_to_activate": 1.2,
            } | image_settings
            return Gemma3Processor(
                image_processor=Gemma3ImageProcessor(**settings),
                tokenizer=tokenizer,
                image_seq_length=16,
                chat_template=template,
            )
    raise ValueError(f"no test processor for {family!r}; there are {FAMILIES}")


def _smolvlm(tokenizer: PreTrainedTokenizerFast, template: str, image_settings: dict[str, Any]) -> Any:
    from transformers import SmolVLMImageProcessor, SmolVLMProcessor, SmolVLMVideoProcessor
    from transformers.models.smolvlm import processing_smolvlm

    # The processor refuses to start without num2words, which it needs for videos only.
    processing_smolvlm.num2words = processing_smolvlm.num2words or str
    settings = {"size": {"longest_edge": 64}, "max_image_size": {"longest_edge": 32}} | image_settings
    return SmolVLMProcessor(
        image_processor=SmolVLMImageProcessor(**settings),
        tokenizer=tokenizer,
        video_processor=SmolVLMVideoProcessor(),
        image_seq_len=16,
        chat_template=template,
    )


def build_config(family: str, processor: Any, **changes: Any) -> Any:
    """A tiny configuration that fits the processor; `changes` replace top-level arguments."""
    import transformers

    if family in TIMM:
        pytest.importorskip("timm", reason="this family's vision tower needs timm")

    ids = processor.tokenizer.convert_tokens_to_ids
    text = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": len(processor.tokenizer),
        "max_position_embeddings": 4096,
        "pad_token_id": ids("<pad>"),
        "bos_token_id": ids("<s>"),
        "eos_token_id": processor.tokenizer.eos_token_id,
    }
    tower = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": 32,
        "patch_size": 4,
    }
    arguments: dict[str, Any]
    match family:
        case "llava":
            arguments = {
                "text_config": {"model_type": "llama", **text},
                "vision_config": {"model_type": "clip_vision_model", **tower, "patch_size": 8, "projection_dim": 32},
                "image_token_index": ids("<image>"),
                "image_seq_length": 16,
            }
            kind = transformers.LlavaConfig
        case "qwen2_vl" | "qwen2_5_vl":
            rope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [1, 1, 2]}
            vision: dict[str, Any] = {
                "depth": 2,
                "num_heads": 2,
                "patch_size": 4,
                "spatial_merge_size": 2,
                "temporal_patch_size": 2,
            }
            if family == "qwen2_vl":
                vision |= {"embed_dim": 32, "hidden_size": 32, "mlp_ratio": 2}
            else:
                vision |= {"hidden_size": 32, "out_hidden_size": 32, "intermediate_size": 64, "window_size": 16}
                vision |= {"fullatt_block_indexes": [1]}
            arguments = {
                "text_config": {**text, "rope_parameters": rope},
                "vision_config": vision,
                "image_token_id": ids("<|image_pad|>"),
                "video_token_id": ids("<|video_pad|>"),
                "vision_start_token_id": ids("<|vision_start|>"),
                "vision_end_token_id": ids("<|vision_end|>"),
            }
            kind = transformers.Qwen2VLConfig if family == "qwen2_vl" else transformers.Qwen2_5_VLConfig
        case "idefics3" | "smolvlm":
            arguments = {
                "text_config": {"model_type": "llama", **text},
                "vision_config": tower,
                "image_token_id": ids("<image>"),
                "scale_factor": 2,
            }
            kind = transformers.Idefics3Config if family == "idefics3" else transformers.SmolVLMConfig
        case "gemma3":
            arguments = {
                "text_config": {**text, "head_dim": 8, "sliding_window": 64},
                "vision_config": {**tower, "vision_use_head": False},
                "image_token_index": ids("<image_soft_token>"),
                "boi_token_index": ids("<start_of_image>"),
                "eoi_token_index": ids("<end_of_image>"),
                "mm_tokens_per_image": 16,
            }
            kind = transformers.Gemma3Config
        case _ if family in RECIPES:
            kind, arguments = RECIPES[family].config(ids, text, tower)
        case _:
            raise ValueError(f"no test configuration for {family!r}; there are {FAMILIES}")
    return kind(**(arguments | changes))


def build_model(family: str, processor: Any, seed: int = 0, **changes: Any) -> Any:
    """The family's real model with tiny random weights, in evaluation mode, float32."""
    import torch
    from transformers import AutoModelForImageTextToText

    config = build_config(family, processor, **changes)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModelForImageTextToText.from_config(config)
        for name, parameter in model.named_parameters():
            # Gemma's projection starts at zero, which would hide every image.
            if "projection_weight" in name:
                torch.nn.init.normal_(parameter, std=0.2)
            # Folded convolutions start so small that FastVLM's tower would hardly see an image.
            elif "reparam_conv.weight" in name:
                torch.nn.init.kaiming_normal_(parameter)
    return model.eval()


def chat(processor: Any, images: Sequence[Any], text: str) -> str:
    """One user message as prompt text: images at the `<image>` marks, or all first without marks."""
    texts = text.split("<image>") if "<image>" in text else [""] * len(images) + [text]
    content: list[dict[str, Any]] = [{"type": "text", "text": texts[0]}] if texts[0] else []
    for image, words in zip(images, texts[1:], strict=True):
        content += [{"type": "image", "image": image}, {"type": "text", "text": words}]
    messages = [{"role": "user", "content": content}]
    return str(processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))


def batched(family: str, rows: Sequence[Sequence[Any]]) -> list[Any]:
    """The images of a batch as the family's processor takes them: a list for each prompt, or one of all images."""
    return [image for row in rows for image in row] if family in FLAT else [list(row) for row in rows]
