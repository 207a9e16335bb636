"""Families whose images lie on a vision axis: real processors, tiny models, and what their encoders give out.

A model that mixes nothing has an encoder without layers: each column then holds what its own pixels, and the text at
its own place, put there. For tests only.
"""

from collections.abc import Callable, Mapping
from functools import cache, partial
from typing import Any, NamedTuple

import torch
from PIL import Image
from torch import nn

from probes.decoder import find_decoder
from probes.spans import ImageSpan
from probes.vision_axis import find_vision_spans
from tests.probes.processors import build_processor, build_tokenizer
from tests.probes.tiny_models import enlarge_weights
from tests.probes.zoo.verifying import config_of, model_class

Rows = list[list[Image.Image]]
TOKENS = 400
"""Room for every id of a tokenizer."""
WORDS = "Which image shows the red ball?"


class AxisCase(NamedTuple):
    """A family under one setting."""

    model_type: str
    encode: Callable[[Rows], dict[str, Any]]
    processor: Callable[[], Any]
    config: Callable[[], Any]
    layers: tuple[str, ...]
    """Paths of the settings that number the encoder's layers."""
    several: bool = False
    """Whether a row takes more than one image."""
    call: Mapping[str, Any] = {}


def spans_of(case: AxisCase, rows: Rows, inputs: Mapping[str, Any]) -> list[list[ImageSpan]]:
    sizes = [[image.size for image in images] for images in rows]
    return find_vision_spans(inputs, case.config(), sizes, case.processor(), case.call)


def build(case: AxisCase, mixing: bool) -> Any:
    """The case's tiny random model, with or without the layers of its encoder."""
    config = case.config()
    for path in () if mixing else case.layers:
        *parts, name = path.split(".")
        place = config
        for part in parts:
            place = getattr(place, part)
        setattr(place, name, 0)
        if getattr(place, "layer_types", None):
            place.layer_types = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = model_class(case.model_type)(config)
        enlarge_weights(model)
        for name, parameter in model.named_parameters():
            if "projection_weight" in name:  # starts at zero, which would hide every image
                nn.init.normal_(parameter, std=0.2)
    if not mixing:
        _unmix(model)
    return model.eval()


def _unmix(model: Any) -> None:
    """Take out the layers that no setting takes out."""
    encoder: Any = getattr(model, "encoder", None)
    if model.config.model_type == "florence2":
        model.model.vision_tower.blocks = nn.ModuleList(nn.ModuleList() for _ in model.config.vision_config.depths)
    elif model.config.model_type == "udop":
        encoder.block = nn.ModuleList()
    elif encoder is not None and encoder.config.model_type.endswith("swin"):
        for stage in encoder.encoder.layers:
            stage.blocks = nn.ModuleList()


def asked(model: Any, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """The inputs, with tokens to decode where the text is not the decoder's own."""
    if not model.config.is_encoder_decoder:
        return dict(inputs)
    batch = len(next(iter(inputs.values())))
    return {**inputs, "decoder_input_ids": torch.tensor([[1, 5, 6]]).expand(batch, -1)}


def features(model: Any, inputs: Mapping[str, Any]) -> torch.Tensor:
    """(batch, columns, hidden): what the decoder's cross-attentions read."""
    seen: list[torch.Tensor] = []

    def keep(_module: Any, _args: Any, kwargs: dict[str, Any]) -> None:
        seen.append(kwargs["encoder_hidden_states"].detach())

    crossing = model.config.is_encoder_decoder
    handle = find_decoder(model).register_forward_pre_hook(keep, with_kwargs=True) if crossing else None
    with torch.no_grad():
        output = model(**asked(model, inputs), use_cache=False)
    if handle is None:
        images: torch.Tensor = output.image_hidden_states
        return images.flatten(1, 2)
    handle.remove()
    return seen[0]


def _idefics_processor() -> Any:
    from transformers import IdeficsImageProcessor, IdeficsProcessor

    return IdeficsProcessor(IdeficsImageProcessor(image_size=16), build_tokenizer("idefics"))


def _idefics(rows: Rows) -> dict[str, Any]:
    prompts = [[part for image in images for part in ("Image:", image)] + [WORDS] for images in rows]
    return dict(IDEFICS.processor()(text=prompts, return_tensors="pt"))


def _idefics_config(resampled: bool) -> Any:
    config = config_of("idefics")
    config.vocab_size, config.use_resampler = TOKENS, resampled
    config.perceiver_config.resampler_n_latents = 5
    config.perceiver_config.resampler_head_dim = 8
    return config


def _florence_processor() -> Any:
    from transformers import CLIPImageProcessor, Florence2Processor

    images = CLIPImageProcessor(size={"height": 128, "width": 128}, do_center_crop=False)
    images.image_seq_length = 17
    return Florence2Processor(images, build_tokenizer("florence2"))


def _florence_config() -> Any:
    config = config_of("florence2")
    config.text_config.vocab_size = TOKENS
    config.image_token_id = FLORENCE.processor().image_token_id
    return config


def _florence(rows: Rows) -> dict[str, Any]:
    texts = [WORDS + "?" * 3 * row for row in range(len(rows))]
    flat = [image for images in rows for image in images]
    return dict(FLORENCE.processor()(text=texts, images=flat, return_tensors="pt", padding=True))


def _gemma_config() -> Any:
    config = config_of("t5gemma2")
    ids = GEMMA.processor().tokenizer.convert_tokens_to_ids
    for part in (config.encoder.text_config, config.decoder):
        part.vocab_size = TOKENS
    config.encoder.vision_config.image_size = 32
    config.encoder.image_token_id = ids("<image_soft_token>")
    return config


def _gemma(call: Mapping[str, Any], rows: Rows) -> dict[str, Any]:
    texts = ["and ".join(["<start_of_image>"] * len(images)) + WORDS for images in rows]
    inputs = GEMMA.processor()(text=texts, images=rows, return_tensors="pt", padding=True, **call)
    return {name: inputs[name] for name in ("input_ids", "attention_mask", "pixel_values")}


def _pix2struct_processor() -> Any:
    from transformers import Pix2StructImageProcessor, Pix2StructProcessor

    images = Pix2StructImageProcessor(patch_size={"height": 4, "width": 4}, max_patches=24)
    return Pix2StructProcessor(images, build_tokenizer("pix2struct"))


def _pix2struct(rows: Rows) -> dict[str, Any]:
    return dict(PIX2STRUCT.processor()(images=[row[0] for row in rows], return_tensors="pt", max_patches=24))


def _formulas_processor() -> Any:
    from transformers import PPFormulaNetImageProcessor

    return PPFormulaNetImageProcessor(size={"height": 64, "width": 64})


def _one_each(case: Callable[[], AxisCase], rows: Rows) -> dict[str, Any]:
    own = case()
    return dict(own.processor()([row[0] for row in rows], return_tensors="pt", **own.call))


def _formulas_config() -> Any:
    config = config_of("pp_formulanet")
    config.vision_config.patch_size = 4
    return config


def _udop_processor() -> Any:
    from transformers import LayoutLMv3ImageProcessor

    return LayoutLMv3ImageProcessor(apply_ocr=False, size={"height": 16, "width": 16})


def _udop(rows: Rows) -> dict[str, Any]:
    pixels = UDOP.processor()([row[0] for row in rows], return_tensors="pt")["pixel_values"]
    ids = torch.tensor([[5, 6, 7, 0], [8, 9, 10, 11]])[: len(rows)]
    boxes = torch.tensor(
        [
            [[0.3, 0.3, 0.45, 0.45], [0.5, 0.3, 0.7, 0.45], [0.9, 0.9, 1.0, 1.0], [0.0, 0.0, 0.0, 0.0]],
            [[0.0, 0.8, 0.2, 0.9], [0.05, 0.8, 0.15, 0.9], [0.6, 0.1, 0.8, 0.2], [1.0, 1.0, 1.0, 1.0]],
        ]
    )[: len(rows)]
    return {"input_ids": ids, "attention_mask": (ids != 0).long(), "bbox": boxes, "pixel_values": pixels}


def _vit_processor(side: int = 16) -> Any:
    from transformers import ViTImageProcessor

    return ViTImageProcessor(size={"height": side, "width": side})


def _donut_processor() -> Any:
    from transformers import DonutImageProcessor

    return DonutImageProcessor(size={"height": 48, "width": 32})


def _with_encoder(kind: str, **settings: Any) -> Any:
    """A vision encoder-decoder over another encoder."""
    from transformers import VisionEncoderDecoderConfig
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    decoder = config_of("vision-encoder-decoder").decoder
    encoder = CONFIG_MAPPING[kind](**settings)
    return VisionEncoderDecoderConfig(encoder=encoder.to_dict(), decoder=decoder.to_dict())


def _named(name: str, rows: Rows) -> dict[str, Any]:
    return _one_each(lambda: CASES[name], rows)


IDEFICS = AxisCase(
    "idefics",
    _idefics,
    cache(_idefics_processor),
    partial(_idefics_config, False),
    ("vision_config.num_hidden_layers",),
    several=True,
)
FLORENCE = AxisCase(
    "florence2",
    _florence,
    cache(_florence_processor),
    _florence_config,
    ("text_config.encoder_layers",),
)
GEMMA = AxisCase(
    "t5gemma2",
    partial(_gemma, {}),
    cache(partial(build_processor, "gemma3")),
    _gemma_config,
    ("encoder.vision_config.num_hidden_layers", "encoder.text_config.num_hidden_layers"),
    several=True,
)
PIX2STRUCT = AxisCase(
    "pix2struct",
    _pix2struct,
    cache(_pix2struct_processor),
    partial(config_of, "pix2struct"),
    ("vision_config.num_hidden_layers",),
)
UDOP = AxisCase("udop", _udop, cache(_udop_processor), partial(config_of, "udop"), ())
SWIN = {"patch_size": 4, "embed_dim": 16, "depths": [1, 1], "num_heads": [2, 2], "window_size": 2}
FLAT = {"image_size": 16, "patch_size": 4, "hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4}
SCAN = {"do_pan_and_scan": True, "pan_and_scan_min_crop_size": 16}
WHOLE = {"do_crop_margin": False}
CASES: dict[str, AxisCase] = {
    "idefics": IDEFICS,
    "florence2": FLORENCE,
    "t5gemma2": GEMMA,
    "t5gemma2, pan and scan": GEMMA._replace(encode=partial(_gemma, SCAN), call=SCAN),
    "pix2struct": PIX2STRUCT,
    "pp_formulanet": AxisCase(
        "pp_formulanet",
        partial(_named, "pp_formulanet"),
        cache(_formulas_processor),
        _formulas_config,
        ("vision_config.num_hidden_layers",),
        call=WHOLE,
    ),
    "udop": UDOP,
    "vision-encoder-decoder": AxisCase(
        "vision-encoder-decoder",
        partial(_named, "vision-encoder-decoder"),
        cache(_vit_processor),
        partial(config_of, "vision-encoder-decoder"),
        ("encoder.num_hidden_layers",),
    ),
    "donut": AxisCase(
        "vision-encoder-decoder",
        partial(_named, "donut"),
        cache(_donut_processor),
        partial(_with_encoder, "donut-swin", **SWIN, image_size=[48, 32]),
        (),
    ),
    **{
        kind: AxisCase(
            "vision-encoder-decoder",
            partial(_named, kind),
            cache(_vit_processor),
            partial(_with_encoder, kind, **FLAT, num_hidden_layers=2),
            ("encoder.num_hidden_layers",),
        )
        for kind in ("beit", "deit")
    },
    "swin": AxisCase(
        "vision-encoder-decoder",
        partial(_named, "swin"),
        cache(partial(_vit_processor, 24)),
        partial(_with_encoder, "swin", **SWIN, image_size=24),
        (),
    ),
}
RESAMPLED = IDEFICS._replace(config=partial(_idefics_config, True))
