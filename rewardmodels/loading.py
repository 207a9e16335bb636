"""Checkpoints of reward models and of the models that they start from: found, checked, and loaded or refused by name.

safetensors only and no code of the checkpoint's own, unless the caller says otherwise. This file scores nothing.
"""

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch

from probes.checkpoints import check_weight_files, download_weights, find_folder, first_line, refuse_remote_code
from probes.inputs import InputError
from probes.loading import read_config
from rewardmodels.collating import tokenizer_of
from rewardmodels.heads import classifier_class

HEAD_FILE = "reward_head.py"
AUTO_MAP = {"AutoModelForSequenceClassification": "reward_head.VisionLanguageForSequenceClassification"}
"""What our checkpoints of families without a native classifier name; that copy is never run here."""


class Loaded(NamedTuple):
    """A sequence classifier with one output, and what makes its inputs.

    Attributes:
        model: In evaluation mode.
        processor: A processor, or the tokenizer of a model that reads text only.
        source: The path or hub id that it was loaded from.
        folder: Where its files are on this machine.
    """

    model: Any
    processor: Any
    source: str
    folder: Path


def load_reward(
    path_or_id: str | Path,
    *,
    dtype: str | torch.dtype = "auto",
    device: str | torch.device | None = None,
    device_map: Any = None,
    attn_implementation: str | None = None,
    trust_remote_code: bool = False,
    allow_pickle: bool = False,
    revision: str | None = None,
) -> Loaded:
    """Load a trained reward model.

    Args:
        path_or_id: A local folder or a hub id.
        dtype: "auto" for the checkpoint's own.
        device: Where the model goes; by default the GPU if there is one.
        device_map: As transformers takes it; instead of `device`.
        attn_implementation: As transformers takes it.
        trust_remote_code: Run the checkpoint's own code. The head that this package writes beside a checkpoint is
            recognised, and never run.
        allow_pickle: Take pickled weights where there are no safetensors.
        revision: Branch, tag or commit on the hub.

    Raises:
        InputError: If there is no such checkpoint, it is no sequence classifier, has another number of outputs than
            one, misses weights, is pickled or wants to run code of its own without leave, or is broken.
    """
    name = str(path_or_id)
    folder = find_folder(name, revision, trust_remote_code)
    raw = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    architectures = raw.get("architectures") or ["nothing"]
    if not str(architectures[0]).endswith("ForSequenceClassification"):
        hint = (
            "convert it by `sightcheck reward convert`"
            if (folder / "value_head.safetensors").is_file()
            else "train a head on it by `sightcheck reward train`, or start one by RewardModel.from_base"
        )
        raise InputError(f"model {name!r}: its config.json names {architectures[0]}, which is no reward model: {hint}")
    if raw.get("auto_map") != AUTO_MAP:
        refuse_remote_code(folder, name, trust_remote_code)
    config = _config(folder, name, trust_remote_code)
    if config.num_labels != 1:
        raise InputError(
            f"model {name!r}: its head has {config.num_labels} outputs, and a reward model has one: it is a "
            "classifier, or was saved without num_labels=1"
        )
    if not Path(name).expanduser().is_dir():
        download_weights(name, revision, allow_pickle)
    check_weight_files(folder, name, config, allow_pickle)
    settings = _settings(dtype, device_map, attn_implementation, trust_remote_code)
    model, report = _load(_classifier(config, name), folder, name, config, settings)
    missing = sorted(report["missing_keys"]) + [str(key) for key in sorted(report["mismatched_keys"])]
    if missing:
        raise InputError(
            f"model {name!r}: {len(missing)} weights are missing or of another shape ({missing[0]}, …), and would have "
            "been random; give the checkpoint that belongs to this configuration"
        )
    return Loaded(_placed(model, device, device_map), load_processor(folder, name, trust_remote_code), name, folder)


def load_base(
    path_or_id: str | Path,
    *,
    seed: int = 0,
    dtype: str | torch.dtype = "auto",
    device: str | torch.device | None = None,
    device_map: Any = None,
    attn_implementation: str | None = None,
    trust_remote_code: bool = False,
    allow_pickle: bool = False,
    revision: str | None = None,
) -> Loaded:
    """Load a language or vision-language model without its language-model head, and put a new scalar head on it.

    The head's weights are normal with standard deviation 1 / (hidden size + 1) (shortcut-aware reward model paper's
    released code), drawn from `seed` alone. Other arguments are as of `load_reward`.

    Raises:
        InputError: If there is no such checkpoint, its family can bear no head, weights of the backbone are missing, it
            is pickled or wants to run code of its own without leave, or is broken.
    """
    name = str(path_or_id)
    folder = find_folder(name, revision, trust_remote_code)
    refuse_remote_code(folder, name, trust_remote_code)
    config = _config(folder, name, trust_remote_code)
    config.num_labels = 1
    if not Path(name).expanduser().is_dir():
        download_weights(name, revision, allow_pickle)
    check_weight_files(folder, name, config, allow_pickle)
    processor = load_processor(folder, name, trust_remote_code)
    settings = _settings(dtype, device_map, attn_implementation, trust_remote_code)
    kind = _classifier(config, name)
    whole = _whole_model(config)
    model, report = _load(kind if whole is None else whole, folder, name, config, settings)
    missing = sorted(set(report["missing_keys"]) - {"score.weight"})
    if missing or report["mismatched_keys"]:
        first = (missing + [str(key) for key in report["mismatched_keys"]])[0]
        raise InputError(
            f"model {name!r}: weights of its backbone are missing or of another shape ({first}, …), and would have "
            "been random; give the checkpoint that belongs to this configuration"
        )
    if whole is not None:
        model = _headed(kind, model)
    draw_head(model, seed)
    return Loaded(_placed(model, device, device_map), processor, name, folder)


def draw_head(model: Any, seed: int) -> None:
    """Draw a classifier's head anew: normal, standard deviation 1 / (hidden size + 1), by `seed` alone."""
    weight = model.score.weight
    drawn = torch.empty(weight.shape, dtype=torch.float32).normal_(
        std=1 / (weight.shape[1] + 1), generator=torch.Generator().manual_seed(seed)
    )
    with torch.no_grad():
        weight.copy_(drawn)


def reads_images(config: Any) -> bool:
    """Whether models of a configuration take pixels."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES as SEEING

    return config.model_type in SEEING and config.get_text_config() is not config


def load_processor(folder: Path, name: str, trust_remote_code: bool = False) -> Any:
    """The processor saved beside a model, or its tokenizer where there is no image processor.

    Raises:
        InputError: If neither can be loaded.
    """
    from transformers import AutoProcessor, AutoTokenizer

    errors = []
    for auto in (AutoProcessor, AutoTokenizer):
        try:
            return auto.from_pretrained(folder, trust_remote_code=trust_remote_code)
        # Both let through whatever their parts raise, import errors of their dependencies among them.
        except Exception as error:
            errors.append(first_line(error))
    raise InputError(f"model {name!r}: no usable processor or tokenizer beside the weights ({errors[0]})")


def _config(folder: Path, name: str, trust_remote_code: bool) -> Any:
    config = read_config(folder, name, trust_remote_code)
    text, outer = config.get_text_config(), getattr(config, "pad_token_id", None)
    if text is not config and outer is not None and text.pad_token_id is None:
        text.pad_token_id = outer
    return config


def _classifier(config: Any, name: str) -> Any:
    """transformers' own class where there is one, the family's from `rewardmodels.heads` elsewhere."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING as NATIVE

    if type(config) in NATIVE:
        return NATIVE[type(config)]
    try:
        kind: Any = type(config)
        return classifier_class(kind)
    except ValueError as error:
        raise InputError(f"model {name!r}: {error}; give a checkpoint of another family") from error


def _whole_model(config: Any) -> Any | None:
    """The class that a vision-language checkpoint was saved from; only it knows all older names of its weights."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING as SEEING

    return SEEING[type(config)] if reads_images(config) and type(config) in SEEING else None


def _headed(kind: Any, whole: Any) -> Any:
    """A classifier around the backbone of a vision-language model, whose language-model head is left behind."""
    with torch.device("meta"):
        model = kind(whole.config)
    model.model = whole.model
    reference = whole.get_input_embeddings().weight
    model.score = torch.nn.Linear(
        model.score.in_features, 1, bias=False, device=reference.device, dtype=reference.dtype
    )
    return model


def _settings(dtype: Any, device_map: Any, attn_implementation: str | None, trust_remote_code: bool) -> dict[str, Any]:
    settings = {"dtype": dtype, "trust_remote_code": trust_remote_code, "output_loading_info": True}
    if device_map is not None:
        settings["device_map"] = device_map
    if attn_implementation is not None:
        settings["attn_implementation"] = attn_implementation
    return settings


def _load(kind: Any, folder: Path, name: str, config: Any, settings: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    settings = dict(settings)
    if any(folder.glob("*.safetensors")):
        settings["use_safetensors"] = True
    try:
        with _quiet():
            model, report = kind.from_pretrained(folder, config=config, **settings)
    # Broken files surface as errors of safetensors, torch, json or transformers: one line for each.
    except Exception as error:
        raise InputError(f"model {name!r}: cannot be loaded ({first_line(error)})") from error
    return model, report


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep back transformers' report of the new head and the dropped language-model head: both are meant."""
    logger = logging.getLogger("transformers.modeling_utils")

    def is_no_report(record: logging.LogRecord) -> bool:
        return "LOAD REPORT" not in record.getMessage()

    logger.addFilter(is_no_report)
    try:
        yield
    finally:
        logger.removeFilter(is_no_report)


def _placed(model: Any, device: Any, device_map: Any) -> Any:
    if device_map is None:
        model = model.to(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    return model.eval()


def own_padding(model: Any, processor: Any, last_ids: set[int]) -> None:
    """Give tokenizer and model a padding token that no conversation ends in.

    transformers' classifiers find the end of a row as its last token that is not padding, so a padding token that ends
    an answer would move the score to the token before it.

    Args:
        model: A classifier; its configuration is changed, and its embeddings where a token has to be added.
        processor: Its processor or tokenizer.
        last_ids: Ids in which rendered conversations end.
    """
    tokenizer = tokenizer_of(processor)
    taken = {*last_ids, *(getattr(model.config, key, None) for key in ("image_token_id", "video_token_id"))}
    if tokenizer.pad_token_id is None or tokenizer.pad_token_id in taken:
        names = (tokenizer.unk_token, tokenizer.bos_token, "<|pad|>")
        spare = next(name for name in names if name and tokenizer.convert_tokens_to_ids(name) not in taken)
        if spare == "<|pad|>" and spare not in tokenizer.get_vocab():
            tokenizer.add_special_tokens({"pad_token": spare})
            if len(tokenizer) > model.get_input_embeddings().num_embeddings:
                model.resize_token_embeddings(len(tokenizer))
        tokenizer.pad_token = spare
    for config in (model.config, model.config.get_text_config()):
        config.pad_token_id = tokenizer.pad_token_id
