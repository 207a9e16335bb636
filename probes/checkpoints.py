"""The files of a checkpoint: where they are, and whether it is safe to read them. Loads none of them.

Everything that can be refused is refused from small JSON files, before any weight is read and before any code that a
checkpoint brings along could run. Knows nothing of models. No torch.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from probes.inputs import InputError

CONFIG = "config.json"
SAFE_WEIGHTS = ["*.safetensors"]
"""Patterns of weights that run no code when they are read."""
_INDEX = "model.safetensors.index.json"
_SMALL_FILES = ["*.json", "*.jinja", "*.txt", "*.model", "*.tiktoken"]
_PICKLED_WEIGHTS = ["*.bin", "*.pt", "*.pth", "*.pkl", "*.ckpt"]
_OTHER_COPIES = ["*/*.safetensors", "*/*.bin", "*/*.pth", "*/*.pt"]


def first_line(error: BaseException) -> str:
    """What an exception says, on one line and cut to a readable length."""
    text = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return text if len(text) <= 300 else text[:299] + "…"


def find_folder(name: str, revision: str | None, trust_remote_code: bool) -> Path:
    """The folder of a checkpoint; of one on the hub, with its small files alone.

    Args:
        name: Folder, or `owner/name` on the hub.
        revision: Branch, tag or commit on the hub.
        trust_remote_code: Whether the checkpoint's Python files are fetched too.

    Raises:
        InputError: If there is none, or it holds no configuration.
    """
    path = Path(name).expanduser()
    if name and path.is_dir():
        if not (path / CONFIG).is_file():
            raise InputError(f"model {name!r}: the folder holds no {CONFIG}; give the folder of a saved checkpoint")
        return path
    if path.is_file():
        raise InputError(f"model {name!r}: this is a file; give the folder that holds it")
    if not name or path.is_absolute() or name.startswith((".", "~")) or name.count("/") > 1 or "\\" in name:
        raise InputError(f"model {name!r}: no such folder; check the path")
    patterns = _SMALL_FILES + (["*.py"] if trust_remote_code else [])
    folder = _download(name, revision, patterns)
    if not (folder / CONFIG).is_file():
        raise InputError(f"model {name!r}: the repository holds no {CONFIG}; give a transformers checkpoint")
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


def download_weights(name: str, revision: str | None, allow_pickle: bool) -> None:
    """Fetch the weights of a checkpoint on the hub; pickled ones only with leave, and where there are no others.

    Raises:
        InputError: If the hub does not give them.
    """
    folder = _download(name, revision, _SMALL_FILES + SAFE_WEIGHTS)
    if allow_pickle and not any(folder.glob(SAFE_WEIGHTS[0])):
        _download(name, revision, _PICKLED_WEIGHTS)


def read_json(path: Path, name: str) -> dict[str, Any]:
    """Read a configuration file of the model `name`.

    Raises:
        InputError: If it cannot be read, or holds no object.
    """
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


def refuse_remote_code(folder: Path, name: str, trust_remote_code: bool) -> None:
    """Refuse a checkpoint that would run Python code of its own, without leave.

    Raises:
        InputError: Naming the file that asks for it.
    """
    if trust_remote_code:
        return
    for path in sorted(folder.glob("*config*.json")):
        if next(_auto_maps(read_json(path, name)), None) is not None:
            raise InputError(
                f"model {name!r}: {path.name} asks to run Python code of the checkpoint's own (auto_map); nothing was "
                "run. Read that code, then pass trust_remote_code=True (--trust-remote-code on the command line), or "
                "take a checkpoint without it"
            )


def check_weight_files(folder: Path, name: str, config: Any, allow_pickle: bool) -> None:
    """Refuse a checkpoint without weights, or whose weights are pickled, without leave.

    Raises:
        InputError: Saying which.
    """
    named = getattr(config, "transformers_weights", None)
    shards = read_json(folder / _INDEX, name).get("weight_map", {}) if (folder / _INDEX).is_file() else {}
    mentioned = [*shards.values(), *([named] if named else [])]
    stray = [file for file in mentioned if not str(file).endswith((".safetensors", ".safetensors.index.json"))]
    pickled = sorted(path.name for pattern in _PICKLED_WEIGHTS for path in folder.glob(pattern)) + stray
    if not stray and any(folder.glob(SAFE_WEIGHTS[0])):
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
