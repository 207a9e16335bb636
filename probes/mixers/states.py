"""The state that a prompt leaves in layers without softmax: all that such a layer still knows of it.

A state view says how large each layer's recurrent state is, in how many directions it spreads, and how much of it
changes when an image is blanked. States come from the model's own cache after one prefill. Knows nothing of hidden
attention.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from probes.attention_calls import refusal
from probes.errors import counted
from probes.inputs import InputError
from probes.interventions import blanked, decoded, replaced_one_by_one, unchanged
from probes.mixers.modules import mixer_modules
from probes.mixers.readers import reader_of
from probes.model import HookedModel
from probes.prompts import Question

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False, repr=False)
class StateView:
    """The recurrent states after one prompt.

    Attributes:
        layers: Decoder layers with a mixer, true indices.
        kinds: What each layer's mixer is.
        norms: Per layer (heads,): the Frobenius norm of each head's state. Mamba's channels make up one head.
        ranks: Per layer (heads,): its effective rank (Roy and Vetterli 2007), the exponential of the entropy of its
            singular values over their sum: 1 where one direction holds all, 0 for a state of zeros.
        changes: (layers, images): the norm of what blanking an image changes in a layer's state, over the state's norm;
            NaN for an image that is the neutral one itself.
    """

    layers: tuple[int, ...]
    kinds: tuple[str, ...]
    norms: tuple[FloatArray, ...]
    ranks: tuple[FloatArray, ...]
    changes: FloatArray

    def __repr__(self) -> str:
        return f"StateView({counted(len(self.layers), 'layer')} of {', '.join(dict.fromkeys(self.kinds))})"


def recurrent_states(
    model: nn.Module, inputs: Mapping[str, Any], layers: Sequence[int] | None = None
) -> dict[int, Tensor]:
    """Each mixer's recurrent state behind a prompt, from the cache of one forward.

    Args:
        model: A transformers model, or its decoder.
        inputs: What `model(**inputs)` takes, a batch. Padding on the left leaves states as they are; on the right it
            would be part of what they hold.
        layers: True indices; None is every layer with a mixer.

    Returns:
        Per layer fp32 (batch, heads, ..., ...) on the CPU: Mamba-2 (head size, state), gated delta nets (key size,
        value size), Mamba (channels, state) as one head.

    Raises:
        InputError: If a batch row is padded on the right, or layers do not fit.
        UnsupportedAttention: If there is no mixer, one is of a class that is not known, or keeps no state in the cache.
    """
    modules = mixer_modules(model, layers)
    mask = inputs.get("attention_mask")
    if isinstance(mask, Tensor) and mask.dim() == 2 and not bool((mask[:, -1] != 0).all()):
        raise InputError("a batch row is padded on the right, and its state would hold the padding: pad on the left")
    with torch.no_grad():
        output = model(**{**inputs, "use_cache": True})
    cache: Any = getattr(output, "past_key_values", None)
    cache = getattr(output, "cache_params", None) if cache is None else cache
    found = {}
    for layer, module in modules.items():
        state = None if cache is None else cache.get_recurrent_state(layer)
        if state is None:
            raise refusal(module, layer, "it left no recurrent state in the cache", "use a model with use_cache")
        found[layer] = (state if state.dim() == 4 else state[:, None]).float().cpu()
    return found


def state_view(
    model: HookedModel, question: Question, neutral: str = "gray", layers: Sequence[int] | None = None
) -> StateView:
    """What states a question leaves, and what they owe to each of its images.

    Args:
        model: The model. One forward for the question, and one for each image.
        question: Images and text.
        neutral: What an image is blanked with; see `probes.interventions.NEUTRALS`.
        layers: True indices; None is every layer with a mixer.

    Raises:
        InputError: If the question has no image (a video is none), one cannot be read, the neutral or a layer is
            unknown, or the model cannot take the question.
        UnsupportedAttention: As `recurrent_states`.
    """
    if question.videos and not question.images:
        raise InputError(
            "a video is not blanked, so that nothing tells what states owe to it: read what they are with a video by "
            "recurrent_states, or what it gives to the answer by contributions"
        )
    images = decoded(question)
    replacements = [blanked(each, neutral) for each in images]
    modules = mixer_modules(model.model, layers)
    own = _after(model, question, layers)
    changes = np.full((len(modules), len(images)), np.nan)
    same = unchanged(images, replacements)
    for image, variant in enumerate(replaced_one_by_one(question, images, replacements)):
        if image not in same:
            other = _after(model, variant, layers)
            changes[:, image] = [relative_change(own[layer], other[layer]) for layer in modules]
    return StateView(
        layers=tuple(modules),
        kinds=tuple(reader_of(module).kind for module in modules.values()),
        norms=tuple(state[0].double().flatten(1).norm(dim=-1).numpy() for state in own.values()),
        ranks=tuple(effective_rank(state[0]).numpy() for state in own.values()),
        changes=changes,
    )


def relative_change(state: Tensor, other: Tensor) -> float:
    """The norm of two states' difference, over that of the first; infinite where only the second is more than zero.

    >>> relative_change(torch.tensor([3.0, 4.0]), torch.tensor([3.0, 4.0]))
    0.0
    """
    change, size = float((state - other).double().norm()), float(state.double().norm())
    if size:
        return change / size
    return float("inf") if change else 0.0


def effective_rank(state: Tensor) -> Tensor:
    """Effective rank of each matrix of (..., rows, columns), fp64 (...): see `StateView.ranks`.

    >>> round(float(effective_rank(torch.eye(3))), 4)
    3.0
    """
    values = torch.linalg.svdvals(state.double())
    total = values.sum(-1, keepdim=True)
    shares = values / torch.where(total > 0, total, torch.ones_like(total))
    return torch.where(total[..., 0] > 0, torch.special.entr(shares).sum(-1).exp(), 0.0)


def _after(model: HookedModel, question: Question, layers: Sequence[int] | None) -> dict[int, Tensor]:
    encoded = model.encode([question])
    return recurrent_states(model.model, encoded.inputs, layers)
