"""Find a checkpoint, decide whether it is safe and fit to load, and load it: weights, configuration and processor.

Everything that can be refused is refused from small JSON files, before any weight is read and before any code that a
checkpoint brings along could run. This file knows nothing of questions, images or attention.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch

from probes.families import PATCH_TOKENS
from probes.implementations import check_implementation
from probes.inputs import InputError

_CONFIG = "config.json"
_INDEX = "model.safetensors.index.json"
_SMALL_FILES = ["*.json", "*.jinja", "*.txt", "*.model", "*.tiktoken"]
_SAFE_WEIGHTS = ["*.safetensors"]
_PICKLED_WEIGHTS = ["*.bin", "*.pt", "*.pth", "*.pkl", "*.ckpt"]
_OTHER_COPIES = ["*/*.safetensors", "*/*.bin", "*/*.pth", "*/*.pt"]


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
    folder = _find_folder(name, revision, trust_remote_code)
    _refuse_remote_code(folder, name, trust_remote_code)
    config = _read_config(folder, name, trust_remote_code)
    _refuse_text_only(config, name, trust_remote_code)
    processor = _load_processor(folder, name, trust_remote_code)
    if not Path(name).expanduser().is_dir():
        _download_weights(name, revision, allow_pickle)
    _check_weight_files(folder, name, config, allow_pickle)
    model = _load_weights(folder, name, config, dtype, device, attn_implementation, trust_remote_code, device_map)
    return Loaded(model, processor)


def load_processor(path_or_id: str | Path, *, trust_remote_code: bool = False, revision: str | None = None) -> Any:
    """Load the processor of an image-text-to-text checkpoint, and none of its weights.

    Raises:
        InputError: As `load`, of everything but the weights.
    """
    name = str(path_or_id)
    folder = _find_folder(name, revision, trust_remote_code)
    _refuse_remote_code(folder, name, trust_remote_code)
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


def first_line(error: BaseException) -> str:
    """What an exception says, on one line and cut to a readable length."""
    text = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return text if len(text) <= 300 else text[:299] + "…"


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


def _find_folder(name: str, revision: str | None, trust_remote_code: bool) -> Path:
    path = Path(name).expanduser()
    if name and path.is_dir():
        if not (path / _CONFIG).is_file():
            raise InputError(f"model {name!r}: the folder holds no {_CONFIG}; give the folder of a saved checkpoint")
        return path
    if path.is_file():
        raise InputError(f"model {name!r}: this is a file; give the folder that holds it")
    if not name or path.is_absolute() or name.startswith((".", "~")) or name.count("/") > 1 or "\\" in name:
        raise InputError(f"model {name!r}: no such folder; check the path")
    patterns = _SMALL_FILES + (["*.py"] if trust_remote_code else [])
    folder = _download(name, revision, patterns)
    if not (folder / _CONFIG).is_file():
        raise InputError(f"model {name!r}: the repository holds no {_CONFIG}; give a transformers checkpoint")
    return folder


def _download(name: str, revision: str | None, patterns: list[str]) -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=patterns, ignore_patterns=_OTHER_COPIES))
    except (OSError, ValueError) as error:
        raise InputError(
            f"model {name!r}: no such folder here, and the hub does not give it ({first_line(error)}); "
            "check the name, or download it and give the folder"
        ) from error


def _download_weights(name: str, revision: str | None, allow_pickle: bool) -> None:
    folder = _download(name, revision, _SMALL_FILES + _SAFE_WEIGHTS)
    if allow_pickle and not any(folder.glob(_SAFE_WEIGHTS[0])):
        _download(name, revision, _PICKLED_WEIGHTS)


def _read_json(path: Path, name: str) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"model {name!r}: {path.name} cannot be read ({first_line(error)}); save it anew") from error
    if not isinstance(content, dict):
        raise InputError(f"model {name!r}: {path.name} holds no JSON object; save the checkpoint anew")
    return content


def _auto_maps(content: Any) -> Iterator[str]:
    """Every class that a configuration file would have imported from the checkpoint, at any depth."""
    if isinstance(content, dict):
        for key, value in content.items():
            if key == "auto_map" and value:
                yield str(value)
            else:
                yield from _auto_maps(value)
    elif isinstance(content, list):
        for value in content:
            yield from _auto_maps(value)


def _refuse_remote_code(folder: Path, name: str, trust_remote_code: bool) -> None:
    if trust_remote_code:
        return
    for path in sorted(folder.glob("*config*.json")):
        if next(_auto_maps(_read_json(path, name)), None) is not None:
            raise InputError(
                f"model {name!r}: {path.name} asks to run Python code of the checkpoint's own (auto_map); nothing was "
                "run. Read that code, then pass trust_remote_code=True (--trust-remote-code on the command line), or "
                "take a checkpoint without it"
            )


def _read_config(folder: Path, name: str, trust_remote_code: bool) -> Any:
    from transformers import AutoConfig

    if not _read_json(folder / _CONFIG, name).get("model_type"):
        raise InputError(f"model {name!r}: {_CONFIG} names no model_type; give a transformers checkpoint")
    try:
        return AutoConfig.from_pretrained(folder, trust_remote_code=trust_remote_code)
    # Configurations validate themselves in as many ways as there are families; the reader needs one line for each.
    except Exception as error:
        raise InputError(f"model {name!r}: {_CONFIG} is not understood ({first_line(error)})") from error


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


def _check_weight_files(folder: Path, name: str, config: Any, allow_pickle: bool) -> None:
    named = getattr(config, "transformers_weights", None)
    shards = _read_json(folder / _INDEX, name).get("weight_map", {}) if (folder / _INDEX).is_file() else {}
    mentioned = [*shards.values(), *([named] if named else [])]
    stray = [file for file in mentioned if not str(file).endswith((".safetensors", ".safetensors.index.json"))]
    pickled = sorted(path.name for pattern in _PICKLED_WEIGHTS for path in folder.glob(pattern)) + stray
    if not stray and any(folder.glob(_SAFE_WEIGHTS[0])):
        return
    if pickled and not allow_pickle:
        raise InputError(
            f"model {name!r}: its weights are pickled ({pickled[0]}), and a pickle can run code when it is read; "
            "convert it to safetensors, or pass allow_pickle=True (--allow-pickle on the command line) if you trust it"
        )
    if not pickled:
        leave = (
            ""
            if allow_pickle
            else ", or pass allow_pickle=True (--allow-pickle on the command line) if its weights are pickled and you "
            "trust them"
        )
        raise InputError(f"model {name!r}: no weights in *.safetensors; give a checkpoint that has them{leave}")


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
    if any(folder.glob(_SAFE_WEIGHTS[0])):
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
            wanted = wanted if attn_implementation else f"the attn_implementation that its {_CONFIG} asks for"
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
