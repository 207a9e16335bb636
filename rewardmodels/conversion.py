"""Value-head checkpoints into this package's layout: a backbone, and one bias-free row called `score.weight`.

Known are `value_head.safetensors` (or, with leave, `value_head.bin`) beside a backbone as LLaMA-Factory writes it,
TRL's old `AutoModelForCausalLMWithValueHead` with `v_head.summary` in one file with the backbone, under
`pretrained_model.` or not, and OpenRLHF's `value_head` or `score`. This file trains nothing and scores nothing.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from shutil import copy2
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import torch
from torch import Tensor

from probes.checkpoints import download_weights, find_folder, first_line
from probes.files import read_json, write_json
from probes.inputs import InputError
from rewardmodels.model import RewardModel

HEAD_FILES = ("value_head.safetensors", "value_head.bin")
"""Where LLaMA-Factory keeps a head apart from its backbone."""
_WRAPPER = "pretrained_model."
_HEADS = ("v_head.summary", "v_head", "value_head", "score")
"""TRL and LLaMA-Factory, a bare linear layer of the same name, and OpenRLHF's two."""


class ValueHead(NamedTuple):
    """A linear head with one output.

    Attributes:
        weight: (1, hidden size).
        bias: What it adds to every score; 0 without one.
        source: The file and the name that it was found under.
    """

    weight: Tensor
    bias: float
    source: str


@dataclass(frozen=True)
class Conversion:
    """A converted reward model, and what became of its head."""

    reward: RewardModel
    """Not saved yet; its ``meta.offset`` holds what the old model added to every score."""
    source: str
    """Where the head was found."""
    rounded: float
    """Largest change of a weight of the head by the backbone's number format, relative to the head's largest."""


def convert(
    path_or_id: str | Path,
    *,
    dtype: str | torch.dtype = "auto",
    device: str | torch.device | None = None,
    trust_remote_code: bool = False,
    allow_pickle: bool = False,
) -> Conversion:
    """Read a value-head checkpoint.

    The old model's score of a conversation is the new one's plus ``meta.offset``, its head's bias: a constant, so
    margins, ranks and accuracies stay. OpenRLHF's normalisation is kept as ``meta.mean`` and ``meta.deviation``, and as
    everywhere here applied outside the model. Responses are rendered by the chat template of the processor that lies
    there: where the old tool scored in another one, scores differ by that.

    Args:
        path_or_id: A local folder or a hub id.
        dtype: Number format of backbone and head; "auto" is the backbone's own, to which the head is rounded.
        device: As of `rewardmodels.loading.load_base`.
        trust_remote_code: Run the checkpoint's own code.
        allow_pickle: Read pickled weights and heads.

    Raises:
        InputError: If there is no head or more than one, it has several layers or outputs or does not fit the backbone,
            the checkpoint is an adapter or a reward model already, or as `RewardModel.from_base`.
    """
    name = str(path_or_id)
    folder = find_folder(name, None, trust_remote_code)
    config = read_json(folder / "config.json")
    _refuse_others(folder, config, name)
    if not Path(name).expanduser().is_dir():
        download_weights(name, None, allow_pickle)
    head = read_head(folder, name, str(config.get("value_head_prefix") or ""), allow_pickle)
    with _plain_backbone(folder, name, allow_pickle) as backbone:
        reward = RewardModel.from_base(
            backbone,
            dtype=dtype,
            device=device,
            trust_remote_code=trust_remote_code,
            allow_pickle=allow_pickle,
        )
    rounded = _put(reward.model.score.weight, head, name)
    mean, deviation = _normalisation(config, name)
    reward.meta = replace(reward.meta, base=name, offset=head.bias, mean=mean, deviation=deviation)
    return Conversion(reward, head.source, rounded)


def read_head(folder: Path, name: str, prefix: str = "", allow_pickle: bool = False) -> ValueHead:
    """Find and check the head of a value-head checkpoint.

    Args:
        folder: Local folder.
        name: How messages call it.
        prefix: A further name that the head may have, as OpenRLHF's configurations say.
        allow_pickle: Read `value_head.bin` and pickled weights.

    Raises:
        InputError: If there is none, more than one, or one that is not a single linear layer with one output.
    """
    names = tuple(dict.fromkeys([*([prefix] if prefix else []), *_HEADS]))
    file, tensors = _head_tensors(folder, name, names, allow_pickle)
    found = {head for key in tensors if (head := _linear(key, names))}
    deeper = sorted(key for key in tensors if not _linear(key, names))
    if deeper:
        raise InputError(
            f"model {name!r}: its value head has more than one layer ({', '.join(sorted(tensors)[:4])}), and a "
            "sequence classifier has one: it cannot be converted without changing its scores"
        )
    if len(found) != 1:
        raise InputError(f"model {name!r}: {file} holds {len(found)} value heads ({', '.join(sorted(found))}), not one")
    head = found.pop()
    weight, bias = tensors.get(f"{head}.weight"), tensors.get(f"{head}.bias")
    if weight is None or weight.ndim != 2:
        raise InputError(f"model {name!r}: {file} holds no matrix {head}.weight; give the checkpoint that was trained")
    if weight.shape[0] != 1 or (bias is not None and bias.numel() != 1):
        raise InputError(
            f"model {name!r}: its value head {head} has {weight.shape[0]} outputs, and a reward model has one"
        )
    value = 0.0 if bias is None else float(bias)
    if not bool(torch.isfinite(weight).all()) or not torch.isfinite(torch.tensor(value)):
        raise InputError(f"model {name!r}: {head} in {file} holds values that are no numbers")
    return ValueHead(weight, value, f"{head} in {file}")


def _refuse_others(folder: Path, config: Mapping[str, Any], name: str) -> None:
    if (folder / "adapter_config.json").is_file():
        raise InputError(
            f"model {name!r}: this is an adapter with a head beside it: merge it into its base model first "
            "(peft's merge_and_unload, or LLaMA-Factory's export), and keep value_head.safetensors beside the result"
        )
    kind = str((config.get("architectures") or ["nothing"])[0])
    if kind.endswith("ForSequenceClassification") and not any((folder / file).is_file() for file in HEAD_FILES):
        raise InputError(f"model {name!r}: it is a {kind} already, so there is nothing to convert")


def _head_tensors(folder: Path, name: str, names: tuple[str, ...], allow_pickle: bool) -> tuple[str, dict[str, Tensor]]:
    """The file that holds the head, and its tensors under their names without a wrapper's."""
    apart, pickled = (folder / file for file in HEAD_FILES)
    if apart.is_file():
        return apart.name, _unwrapped(_read_safe(apart, name))
    if pickled.is_file():
        return pickled.name, _unwrapped(_read_pickle(pickled, name, allow_pickle))
    for path in [*sorted(folder.glob("*.safetensors")), *sorted(folder.glob("pytorch_model*.bin"))]:
        read = _read_safe(path, name, names) if path.suffix == ".safetensors" else None
        tensors = _unwrapped(_read_pickle(path, name, allow_pickle) if read is None else read)
        inside = {key: value for key, value in tensors.items() if key.startswith(tuple(f"{head}." for head in names))}
        if inside:
            return path.name, inside
    raise InputError(
        f"model {name!r}: no value head in {' or '.join(HEAD_FILES)} or beside the weights under {', '.join(names)}; "
        "for a model without one, train it by `sightcheck reward train`"
    )


def _read_safe(path: Path, name: str, names: tuple[str, ...] | None = None) -> dict[str, Tensor]:
    """Tensors of a file; with names, only those of a head."""
    from safetensors import SafetensorError, safe_open

    starts = None if names is None else tuple(f"{before}{head}." for before in ("", _WRAPPER) for head in names)
    try:
        with safe_open(path, framework="pt") as file:
            return {key: file.get_tensor(key) for key in file.keys() if starts is None or key.startswith(starts)}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise InputError(f"model {name!r}: {path.name} cannot be read ({first_line(error)})") from error


def _read_pickle(path: Path, name: str, allow_pickle: bool) -> dict[str, Tensor]:
    if not allow_pickle:
        raise InputError(
            f"model {name!r}: {path.name} is pickled, and a pickle can run code when it is read; convert it to "
            "safetensors, or pass allow_pickle=True (--allow-pickle on the command line) if you trust it"
        )
    try:
        tensors: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    # A broken or hostile pickle raises nearly anything.
    except Exception as error:
        raise InputError(f"model {name!r}: {path.name} cannot be read ({first_line(error)})") from error
    return tensors


def _unwrapped(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {key.removeprefix(_WRAPPER): value for key, value in tensors.items()}


def _linear(key: str, names: tuple[str, ...]) -> str | None:
    """The head that a tensor is weight or bias of, where it is a linear layer of a known name."""
    match = re.fullmatch(rf"({'|'.join(map(re.escape, names))})\.(weight|bias)", key)
    return match[1] if match else None


@contextmanager
def _plain_backbone(folder: Path, name: str, allow_pickle: bool) -> Iterator[Path]:
    """The folder, or a copy whose weights have lost a wrapper's prefix."""
    shards = [path for path in sorted(folder.glob("*.safetensors")) if path.name not in HEAD_FILES]
    shards = shards or (sorted(folder.glob("pytorch_model*.bin")) if allow_pickle else [])
    if not any(key.startswith(_WRAPPER) for path in shards for key in _names(path, name)):
        yield folder
        return
    from safetensors.torch import load_file, save_file

    with TemporaryDirectory() as made:
        target = Path(made)
        for path in folder.iterdir():
            if path.is_file() and path.suffix not in (".safetensors", ".bin") and not path.name.endswith(".index.json"):
                copy2(path, target)
        places: dict[str, str] = {}
        for number, path in enumerate(shards, start=1):
            read = load_file(path) if path.suffix == ".safetensors" else _read_pickle(path, name, allow_pickle)
            # Tied weights are one tensor under two names in a pickle, which safetensors does not take.
            tensors = {key: value.clone() for key, value in _unwrapped(read).items()}
            file = _shard_name(number, len(shards))
            save_file(tensors, target / file, metadata={"format": "pt"})
            places |= dict.fromkeys(tensors, file)
        if len(shards) > 1:
            write_json(target / "model.safetensors.index.json", {"metadata": {}, "weight_map": places})
        yield target


def _names(path: Path, name: str) -> list[str]:
    from safetensors import SafetensorError, safe_open

    if path.suffix != ".safetensors":
        return list(_read_pickle(path, name, allow_pickle=True))
    try:
        with safe_open(path, framework="pt") as file:
            return list(file.keys())
    except (OSError, SafetensorError) as error:
        raise InputError(f"model {name!r}: {path.name} cannot be read ({first_line(error)})") from error


def _shard_name(number: int, count: int) -> str:
    return "model.safetensors" if count == 1 else f"model-{number:05d}-of-{count:05d}.safetensors"


def _put(weight: Tensor, head: ValueHead, name: str) -> float:
    """Copy a head in; returns its largest change by rounding, relative to its largest weight."""
    if weight.shape != head.weight.shape:
        raise InputError(
            f"model {name!r}: its value head reads {head.weight.shape[1]} numbers and its backbone gives "
            f"{weight.shape[1]}: they are of different models"
        )
    with torch.no_grad():
        weight.copy_(head.weight)
        largest = float(head.weight.abs().max())
        change = float((weight.float().cpu() - head.weight.float()).abs().max())
    return change / largest if largest else 0.0


def _normalisation(config: Mapping[str, Any], name: str) -> tuple[float | None, float | None]:
    """Mean and deviation of OpenRLHF's configurations, where scores were normalised by them."""
    if not config.get("normalize_reward") or "mean" not in config:
        return None, None
    mean, deviation = float(config["mean"]), float(config.get("std", 1.0))
    if not deviation > 0:
        raise InputError(f"model {name!r}: its config.json normalises scores by a deviation of {deviation}")
    return mean, deviation
