"""Load a checkpoint that is safe and fit to load: weights, configuration and processor.

Whether its files are safe is told by `probes.checkpoints`. This file knows nothing of questions, images or attention.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch

from probes.checkpoints import (
    CONFIG,
    SAFE_WEIGHTS,
    check_weight_files,
    download_weights,
    find_folder,
    first_line,
    read_json,
    refuse_remote_code,
)
from probes.families import PATCH_TOKENS
from probes.implementations import check_implementation
from probes.inputs import InputError

__all__ = [
    "SPREADS",
    "DeviceMap",
    "Loaded",
    "check_pair",
    "context_length",
    "first_line",
    "image_token_ids",
    "load",
    "load_processor",
]

DeviceMap = str | Mapping[str, str | int | torch.device]
"""A way to spread a model over devices, or a device for each module name."""

SPREADS = ("auto", "balanced", "balanced_low_0", "sequential")
"""Device maps that accelerate works out from the memory there is."""


class Loaded(NamedTuple):
    """A model in evaluation mode and the processor that belongs to it."""

    model: Any
    processor: Any


def load(
    path_or_id: str | Path,
    *,
    dtype: str | torch.dtype = "auto",
    device: str | torch.device | None = None,
    attn_implementation: str | None = None,
    trust_remote_code: bool = False,
    allow_pickle: bool = False,
    revision: str | None = None,
    device_map: DeviceMap | None = None,
) -> Loaded:
    """Load an image-text-to-text checkpoint from a local folder or from the hub.

    Args:
        path_or_id: Folder, or `owner/name` on the hub (or in its cache).
        dtype: "auto" keeps the checkpoint's own.
        device: None takes the first GPU, or else the CPU; "auto" spreads the model over all devices.
        attn_implementation: As transformers names them; None lets transformers choose.
        trust_remote_code: Run Python files that the checkpoint brings along.
        allow_pickle: Take pickled weights where there are no safetensors.
        revision: Branch, tag or commit on the hub.
        device_map: Where accelerate puts which part of a model that is larger than one device: "auto", "balanced",
            "balanced_low_0", "sequential", or a device ("cpu" and "disk" included) for each module name.

    Raises:
        InputError: If the attention implementation is not installed, if there is no such checkpoint, it is text-only,
            has no processor, is pickled or wants to run code of its own without leave, misses weights, or is broken; if
            device and device_map are both given, or the device map is none.
    """
    name = str(path_or_id)
    _refuse_device_map(device, device_map)
    if attn_implementation is not None:
        check_implementation(attn_implementation)
    folder = find_folder(name, revision, trust_remote_code)
    refuse_remote_code(folder, name, trust_remote_code)
    config = _read_config(folder, name, trust_remote_code)
    _refuse_text_only(config, name, trust_remote_code)
    processor = _load_processor(folder, name, trust_remote_code)
    if not Path(name).expanduser().is_dir():
        download_weights(name, revision, allow_pickle)
    check_weight_files(folder, name, config, allow_pickle)
    model = _load_weights(folder, name, config, dtype, device, attn_implementation, trust_remote_code, device_map)
    return Loaded(model, processor)


def load_processor(path_or_id: str | Path, *, trust_remote_code: bool = False, revision: str | None = None) -> Any:
    """Load the processor of an image-text-to-text checkpoint, and none of its weights.

    Raises:
        InputError: As `load`, of everything but the weights.
    """
    name = str(path_or_id)
    folder = find_folder(name, revision, trust_remote_code)
    refuse_remote_code(folder, name, trust_remote_code)
    _refuse_text_only(_read_config(folder, name, trust_remote_code), name, trust_remote_code)
    return _load_processor(folder, name, trust_remote_code)


def check_pair(model: Any, processor: Any) -> None:
    """Refuse a model and a processor that cannot work together.

    Raises:
        InputError: If the model takes no images, the processor lacks a tokenizer or an image processor, it can give
            ids for which the model has no embedding, or the two mark images by different tokens.
    """
    if not isinstance(model, torch.nn.Module) or not hasattr(model, "config"):
        raise InputError(
            f"cannot take a {type(model).__name__} as the model: give a transformers model, or use from_pretrained"
        )
    network: Any = model
    kind = type(model).__name__
    if "image" not in network.input_modalities or not network.can_generate():
        raise InputError(f"{kind} takes no images or writes no text: give an image-text-to-text model")
    for part, what in (("tokenizer", "tokenizer"), ("image_processor", "image processor")):
        if getattr(processor, part, None) is None:
            raise InputError(
                f"a {type(processor).__name__} is no processor for {kind}: it has no {what}; "
                "give what AutoProcessor.from_pretrained returns for this checkpoint"
            )
    rows = network.get_input_embeddings().num_embeddings
    largest = max(processor.tokenizer.get_vocab().values(), default=0)
    if largest >= rows:
        raise InputError(
            f"model and processor do not match: the tokenizer has ids up to {largest} and {kind} has embeddings for "
            f"{rows}; load both from one checkpoint"
        )
    known = image_token_ids(network.config)
    given = {token for token in getattr(processor, "image_token_ids", []) if token is not None}
    if patch := PATCH_TOKENS.get(network.config.model_type):
        given.add(processor.tokenizer.convert_tokens_to_ids(patch))
    if known and given and not known & given:
        raise InputError(
            f"model and processor do not match: {kind} marks images by token {_listing(known)}, the processor by "
            f"{_listing(given)}; load both from one checkpoint"
        )


def image_token_ids(config: Any) -> set[int]:
    """The ids by which a configuration marks the places of image features."""
    names = ("image_token_id", "image_token_index")
    return {value for name in names if isinstance(value := getattr(config, name, None), int)}


def context_length(config: Any) -> int | None:
    """How many tokens the decoder has positions for; None if the configuration does not say."""
    length = getattr(config.get_text_config(decoder=True), "max_position_embeddings", None)
    return length if isinstance(length, int) else None


def _refuse_device_map(device: str | torch.device | None, device_map: DeviceMap | None) -> None:
    if device_map is None:
        return
    if device is not None:
        raise InputError(
            f"both device ({device}) and device_map ({device_map}) are given: a device holds the whole model, a device "
            "map spreads it; give one of them"
        )
    places = [] if device_map in SPREADS else [device_map] if isinstance(device_map, str) else [*device_map.values()]
    for place in places:
        try:
            _ = place == "disk" or torch.device(place)
        except (RuntimeError, TypeError):
            raise InputError(
                f"device_map: {place!r} is no device; give {', '.join(SPREADS)}, or a mapping from module names to "
                "devices such as cuda:0, cpu and disk"
            ) from None


def _is_about_attention(error: Exception, wanted: str | None) -> bool:
    """Whether loading failed for an attention implementation that is unknown or not installed."""
    text = str(error).lower()
    return isinstance(error, ImportError | ValueError) and bool(
        (wanted not in (None, "eager", "sdpa") and isinstance(error, ImportError))
        or "flashattention" in text
        or "attn_implementation" in text
    )


def _listing(values: set[int]) -> str:
    return ", ".join(map(str, sorted(values)))


def _read_config(folder: Path, name: str, trust_remote_code: bool) -> Any:
    from transformers import AutoConfig

    if not read_json(folder / CONFIG, name).get("model_type"):
        raise InputError(f"model {name!r}: {CONFIG} names no model_type; give a transformers checkpoint")
    try:
        return AutoConfig.from_pretrained(folder, trust_remote_code=trust_remote_code)
    # Configurations validate themselves in as many ways as there are families; the reader needs one line for each.
    except Exception as error:
        raise InputError(f"model {name!r}: {CONFIG} is not understood ({first_line(error)})") from error


def _refuse_text_only(config: Any, name: str, trust_remote_code: bool) -> None:
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES as KNOWN

    if config.model_type in KNOWN or (trust_remote_code and getattr(config, "auto_map", None)):
        return
    raise InputError(
        f"model {name!r}: a {config.model_type!r} model is text-only or no image-text-to-text model; "
        "give a vision-language checkpoint"
    )


def _load_processor(folder: Path, name: str, trust_remote_code: bool) -> Any:
    from transformers import AutoProcessor

    try:
        processor = AutoProcessor.from_pretrained(folder, trust_remote_code=trust_remote_code)
    # AutoProcessor lets through whatever its parts raise, import errors of their dependencies among them.
    except Exception as error:
        raise InputError(
            f"model {name!r}: no usable processor beside the weights ({first_line(error)}); save the processor into "
            "the same folder, or build HookedModel(model, processor)"
        ) from error
    if getattr(processor, "image_processor", None) is None:
        raise InputError(
            f"model {name!r}: it has no processor for images, only a {type(processor).__name__}; save the processor "
            "into the same folder, or build HookedModel(model, processor)"
        )
    return processor


def _load_weights(
    folder: Path,
    name: str,
    config: Any,
    dtype: str | torch.dtype,
    device: str | torch.device | None,
    attn_implementation: str | None,
    trust_remote_code: bool,
    device_map: DeviceMap | None,
) -> Any:
    from transformers import AutoModelForImageTextToText

    settings: dict[str, Any] = {"dtype": dtype, "trust_remote_code": trust_remote_code, "output_loading_info": True}
    if any(folder.glob(SAFE_WEIGHTS[0])):
        settings["use_safetensors"] = True
    if attn_implementation is not None:
        settings["attn_implementation"] = attn_implementation
    spread = "auto" if device == "auto" else device_map
    if spread is not None:
        settings["device_map"] = spread if isinstance(spread, str) else dict(spread)
    try:
        model, report = AutoModelForImageTextToText.from_pretrained(folder, config=config, **settings)
    # Broken files surface as errors of safetensors, torch, json or transformers: one line for each.
    except Exception as error:
        if _is_about_attention(error, attn_implementation):
            wanted = f"attn_implementation {attn_implementation!r}"
            wanted = wanted if attn_implementation else f"the attn_implementation that its {CONFIG} asks for"
            raise InputError(
                f"model {name!r}: {wanted} cannot be used here ({first_line(error)}); install what it needs, or give "
                "attn_implementation='sdpa' or 'eager'"
            ) from error
        raise InputError(f"model {name!r}: cannot be loaded ({first_line(error)})") from error
    missing = sorted(report["missing_keys"]) + [str(key) for key in sorted(report["mismatched_keys"])]
    if missing:
        raise InputError(
            f"model {name!r}: {len(missing)} weights are missing or of another shape ({missing[0]}, …), and would "
            "have been random; give the checkpoint that belongs to this configuration"
        )
    if spread is None:
        model = model.to(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    return model.eval()
