"""What a training run leaves along its way, and how it goes on from there: weights, adapters, proxy, objective.

Weights are read by the class that wrote them. transformers' own trainer loads the file's tensors by the names that the
module has in memory, and leaves a model as it was, without a word, where its family is saved under older names.
"""

from pathlib import Path
from typing import Any

from probes.files import read_json, write_json
from probes.inputs import InputError
from rewardmodels.bradley_terry import Objective
from rewardmodels.proxies import PROXY_ADAPTER, Branches, saved_proxy

STATE_FILE = "objective.json"


def write_state(folder: Path, objective: Objective) -> None:
    """Note an objective and what it has gathered so far."""
    write_json(folder / STATE_FILE, {"objective": objective.name, "state": objective.state_dict()})


def read_state(folder: Path, objective: Objective) -> None:
    """Give an objective back what it had gathered.

    Raises:
        InputError: If the checkpoint is another objective's, or none of this trainer's.
    """
    stored = read_json(folder / STATE_FILE)
    if stored["objective"] != objective.name:
        raise InputError(
            f"{folder} was trained by {stored['objective']!r}, and this run by {objective.name!r}: resume it with its "
            "own objective, or start anew"
        )
    objective.load_state_dict(stored["state"])


def save_branches(branches: Branches, folder: Path) -> None:
    """Save main model and proxy; the proxy goes below the main model's folder."""
    # peft writes the adapter "default" here and "proxy" below it.
    branches.main.save_pretrained(folder)
    if not branches.shared:
        branches.proxy_classifier().save_pretrained(saved_proxy(folder))


def load_branches(branches: Branches, folder: Path) -> None:
    """Put a checkpoint's weights back into main model and proxy.

    Raises:
        InputError: If weights are missing there.
    """
    if branches.shared:
        for name, place in (("default", folder), (PROXY_ADAPTER, saved_proxy(folder))):
            _load_adapter(branches.main, place, name)
    else:
        load_model(branches.main, folder)
        load_model(branches.proxy_classifier(), saved_proxy(folder))


def load_model(model: Any, folder: Path) -> None:
    """Put a checkpoint's weights back into a classifier, or into the adapter of one.

    Raises:
        InputError: If weights are missing there.
    """
    if hasattr(model, "peft_config"):
        _load_adapter(model, folder, "default")
    else:
        _load_weights(model, folder)


def _load_weights(model: Any, folder: Path) -> None:
    if not list(folder.glob("model*.safetensors")):
        raise InputError(f"{folder} holds no model.safetensors to resume from")
    loaded, report = type(model).from_pretrained(
        folder, config=model.config, dtype=model.dtype, output_loading_info=True
    )
    _refuse_missing(folder, sorted(report["missing_keys"]))
    model.load_state_dict(loaded.state_dict())


def _load_adapter(model: Any, folder: Path, name: str) -> None:
    from peft import get_peft_model_state_dict, set_peft_model_state_dict
    from safetensors.torch import load_file

    path = folder / "adapter_model.safetensors"
    if not path.is_file():
        raise InputError(f"{folder} holds no adapter_model.safetensors to resume from")
    weights = load_file(path)
    _refuse_missing(path, sorted(get_peft_model_state_dict(model, adapter_name=name).keys() - weights.keys()))
    report = set_peft_model_state_dict(model, weights, adapter_name=name)
    if report.unexpected_keys:
        raise InputError(f"{path} holds weights that this adapter has no place for ({report.unexpected_keys[0]}, …)")


def _refuse_missing(path: Path, missing: list[str]) -> None:
    """Weights that a checkpoint lacks would be random, or stay what they were."""
    if missing:
        raise InputError(
            f"{path} lacks {len(missing)} weights ({missing[0]}, …): resume from a checkpoint that is whole, or start "
            "anew"
        )
