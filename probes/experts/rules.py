"""How routers choose: what they make of their logits, which bias they add, and which groups of experts they shut out.

A rule is needed for the scores that a choice was made by; the choice itself, and its weights, come from the router.
Every rule is held against the choices that it should explain, so that a wrong one is refused and never believed. Knows
arrays only, and imports no torch.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]
Affinity = Literal["softmax", "sigmoid", "logits"]

SLACK = 1e-6
"""By how much a chosen expert's score may fall behind one that was not chosen: rounding, on scores of order one."""


class Grouping(NamedTuple):
    """Experts in equal, neighbouring groups, of which only the best take part in the choice (DeepSeek-V3's report).

    A group ranks by the sum of its `best` highest scores: two of them there, and one in DeepSeek-V2.
    """

    groups: int = 1
    kept: int = 1
    best: int = 2


NO_GROUPS = Grouping()


@dataclass(frozen=True)
class RouterRule:
    """How routers of one class choose.

    Attributes:
        affinity: What is made of the logits: "softmax" over all experts, "sigmoid" of each, or the "logits" themselves.
        bias: Name of the router's own tensor that is added to affinities for the choice alone, (experts,); None if
            there is none.
        groups: Names of the router's own numbers of groups and of groups kept; None if it knows no groups.
        best: How many of a group's highest scores are summed to rank it.
        groups_if: Name of the router's own attribute, and its value where groups take part; None where they always do.
    """

    affinity: Affinity
    bias: str | None = None
    groups: tuple[str, str] | None = None
    best: int = 2
    groups_if: tuple[str, str] | None = None


_SOFTMAX = RouterRule("softmax")
_GROUPED_SOFTMAX = RouterRule("softmax", groups=("num_group", "topk_group"))
_GREEDY_GROUPS = RouterRule(
    "softmax", groups=("num_group", "topk_group"), best=1, groups_if=("topk_method", "group_limited_greedy")
)
_BIASED = RouterRule("sigmoid", bias="e_score_correction_bias")
_GROUPED = RouterRule("sigmoid", bias="e_score_correction_bias", groups=("num_group", "topk_group"))

RULES: Mapping[str, RouterRule] = {
    "AXK1TopkRouter": _GROUPED,
    "AriaTextTopKRouter": _SOFTMAX,
    "BailingHybridTopkRouter": _GROUPED,
    "BeamTopKRouter": _GROUPED,
    "Cohere2MoeTopKRouter": RouterRule("logits"),
    "DeepseekOcr2TextTopkRouter": _GREEDY_GROUPS,
    "DeepseekV2TopkRouter": _GREEDY_GROUPS,
    "DeepseekV32TopkRouter": _GROUPED,
    "DeepseekV3TopkRouter": _GROUPED,
    "Dots1TopkRouter": _GROUPED,
    "Dots3NoteTextTopkRouter": _GROUPED,
    "ExaoneMoeTopkRouter": _GROUPED,
    "FlexOlmoTopKRouter": _SOFTMAX,
    "Glm4MoeLiteTopkRouter": _GROUPED,
    "Glm4MoeTopkRouter": _GROUPED,
    "Glm4vMoeTextTopkRouter": _GROUPED,
    "Glm5NextTextTopkRouter": _GROUPED,
    "GlmMoeDsaTopkRouter": _GROUPED,
    "GptOssTopKRouter": _SOFTMAX,
    "GraniteMoeHybridTopKRouter": _SOFTMAX,
    "GraniteMoeSWATopKRouter": _SOFTMAX,
    "GraniteMoeSharedTopKRouter": _SOFTMAX,
    "GraniteMoeTopKRouter": _SOFTMAX,
    "HYV4TopkRouter": _GROUPED,
    "HunYuanMoEV1Gate": _SOFTMAX,
    "JambaTopKRouter": _SOFTMAX,
    "KimiLinearTopkRouter": _GROUPED,
    "Kolibri1TopKRouter": RouterRule("logits", bias="e_score_correction_bias"),
    "LagunaTopKRouter": _BIASED,
    "MellumTopKRouter": _SOFTMAX,
    "MiMoV2FlashTopkRouter": _GROUPED,
    "MiniMaxM3VLTopKRouter": _BIASED,
    "MiniMaxTopKRouter": _SOFTMAX,
    "Mistral4TopkRouter": _GROUPED_SOFTMAX,
    "MistralLarge4TextTopkRouter": _GROUPED_SOFTMAX,
    "MixtralTopKRouter": _SOFTMAX,
    "MuseSparkTopkRouter": _BIASED,
    "NemotronHTopkRouter": _GROUPED,
    "OlmoeTopKRouter": _SOFTMAX,
    "Qwen2MoeTopKRouter": _SOFTMAX,
    "Qwen3MoeTopKRouter": _SOFTMAX,
    "Qwen3NextTopKRouter": _SOFTMAX,
    "Qwen3OmniMoeThinkerTextTopKRouter": _SOFTMAX,
    "Qwen3VLMoeTextTopKRouter": _SOFTMAX,
    "Qwen3_5MoeTopKRouter": _SOFTMAX,
    "Qwen4ExpTextTopKRouter": _SOFTMAX,
    "SolarOpenTopkRouter": _GROUPED,
    "Step3p7TopKRouter": _BIASED,
    "UnlimitedOcrTextTopkRouter": _GREEDY_GROUPS,
}
"""By the router's class in transformers. All return logits (tokens, experts), weights and indices (tokens, k)."""


def selection_scores(affinities: FloatArray, bias: FloatArray, grouping: Grouping = NO_GROUPS) -> FloatArray:
    """The scores by which experts are chosen: the k highest are.

    Args:
        affinities: (..., experts).
        bias: (experts,), or of as many leading axes as affinities.
        grouping: Groups of experts.

    Returns:
        (..., experts), minus infinity for experts of groups that are shut out; of groups that tie for the last place
        that is kept, none is.

    >>> selection_scores(np.float32([0.9, 0.2, 0.5, 0.6]), np.float32([0, 0, 0, 0]), Grouping(2, 1, 1))
    array([ 0.9,  0.2, -inf, -inf], dtype=float32)
    """
    scores = (affinities + bias).astype(np.float32)
    if grouping.kept >= grouping.groups:
        return scores
    ranks = _group_ranks(scores, grouping)
    last = np.sort(ranks, axis=-1)[..., -grouping.kept, None]
    shut = np.repeat(ranks < last, scores.shape[-1] // grouping.groups, axis=-1)
    return np.where(shut, np.float32(-np.inf), scores)


def _group_ranks(scores: FloatArray, grouping: Grouping) -> FloatArray:
    """(..., groups): the sum of each group's highest scores."""
    size = scores.shape[-1] // grouping.groups
    grouped = np.sort(scores.reshape(*scores.shape[:-1], grouping.groups, size), axis=-1)
    ranks: FloatArray = grouped[..., -min(grouping.best, size) :].sum(axis=-1, dtype=np.float32)
    return ranks


def choose(scores: FloatArray, k: int) -> IntArray:
    """The k highest of the last axis, (..., k), in ascending order of their index; the lower index of equal ones.

    >>> choose(np.float32([0.1, 0.7, 0.3, 0.7]), 2)
    array([1, 3])
    """
    order = np.argsort(-scores, axis=-1, kind="stable")[..., :k]
    return np.sort(order, axis=-1).astype(np.int64)


def unexplained(scores: FloatArray, indices: IntArray) -> npt.NDArray[np.bool_]:
    """Which choices are not of the highest scores, (...).

    Args:
        scores: (..., experts).
        indices: (..., k): what was chosen.
    """
    chosen = np.take_along_axis(scores, indices, axis=-1)
    others = scores.copy()
    np.put_along_axis(others, indices, np.float32(-np.inf), axis=-1)
    falls: npt.NDArray[np.bool_] = chosen.min(axis=-1) < others.max(axis=-1) - SLACK
    return falls | np.isneginf(chosen).any(axis=-1)
