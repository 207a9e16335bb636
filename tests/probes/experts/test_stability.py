"""Routings of two checkpoints: identical, unrelated and noisy ones, against closed forms and brute force."""

from itertools import combinations
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from probes.experts.load import expert_load
from probes.experts.stability import checkpoint_stability, jaccard_floor, overlap_counts, stability
from probes.inputs import InputError
from probes.routing import RoutingRecorder
from tests.probes import hybrid_models
from tests.probes.experts.test_load import choices
from tests.probes.hybrid_models import padded

EXPERTS, K = 7, 3


@given(st.integers(1, 30), st.integers(0, 1000))
def test_overlap_and_jaccard_equal_sets(tokens: int, seed: int) -> None:
    first, second = choices(tokens, seed=seed), choices(tokens, seed=seed + 1)
    for layer, found in enumerate(stability(first, second, EXPERTS)):
        pairs = list(zip(map(set, first[layer].tolist()), map(set, second[layer].tolist()), strict=True))
        assert found.overlap.value == pytest.approx(np.mean([len(a & b) / K for a, b in pairs]))
        assert found.jaccard.value == pytest.approx(np.mean([len(a & b) / len(a | b) for a, b in pairs]))
        loads = expert_load(first, EXPERTS)[layer], expert_load(second, EXPERTS)[layer]
        if np.ptp(loads[0]) > 1e-9 and np.ptp(loads[1]) > 1e-9:
            assert found.load_correlation.value == pytest.approx(np.corrcoef(*loads)[0, 1], abs=1e-9)
        else:
            assert np.isnan(found.load_correlation.value)


def test_the_same_checkpoint_is_wholly_stable_in_whatever_order_it_names_experts() -> None:
    first = choices(40)
    for found in stability(first, first[..., ::-1], EXPERTS):
        assert found.overlap.value == found.jaccard.value == 1 and found.load_correlation.value == pytest.approx(1)
        assert found.overlap.n == 40 and found.overlap_floor == pytest.approx(K / EXPERTS)


@pytest.mark.parametrize(("experts", "k"), [(8, 2), (16, 3), (64, 6), (4, 3)])
def test_unrelated_routings_lie_on_their_floors(experts: int, k: int) -> None:
    first, second = (choices(4000, experts, k, seed, layers=1) for seed in (1, 2))
    (found,) = stability(first, second, experts)
    assert found.overlap_floor == k / experts
    assert abs(found.overlap.value - k / experts) < 0.02
    assert abs(found.jaccard.value - found.jaccard_floor) < 0.02
    assert found.overlap_floor_of_loads == pytest.approx(k / experts, abs=0.01)
    assert found.load_correlation.low < 0.5


def test_the_floor_of_jaccard_is_the_mean_over_all_pairs_of_sets() -> None:
    for experts, k in ((4, 1), (5, 2), (6, 4)):
        sets = [set(each) for each in combinations(range(experts), k)]
        brute = np.mean([len(a & b) / len(a | b) for a in sets for b in sets])
        assert jaccard_floor(k, experts) == pytest.approx(brute)


def test_routings_that_share_only_their_favourites_lie_on_the_floor_of_loads_and_above_that_of_chance() -> None:
    rng = np.random.default_rng(0)
    favour = rng.normal(0, 1.5, EXPERTS)
    first, second = ((favour + rng.gumbel(size=(1, 4000, EXPERTS))).argsort(-1)[..., -K:] for _ in range(2))
    (found,) = stability(first, second, EXPERTS)
    assert abs(found.overlap.value - found.overlap_floor_of_loads) < 0.02
    assert found.overlap_floor_of_loads > found.overlap_floor + 0.05
    assert found.load_correlation.value > 0.95


def test_intervals_are_clustered_by_sample() -> None:
    first, second = choices(10, layers=1), choices(10, seed=5, layers=1)
    repeated = np.repeat(first, 20, axis=1), np.repeat(second, 20, axis=1)
    (alone,) = stability(*repeated, EXPERTS)
    (together,) = stability(*repeated, EXPERTS, np.repeat(np.arange(10), 20))
    for name in ("overlap", "jaccard", "load_correlation"):
        wide, narrow = getattr(together, name), getattr(alone, name)
        assert wide.value == narrow.value and wide.clusters == 10 and narrow.clusters is None
        assert wide.high - wide.low > 2 * (narrow.high - narrow.low)
    (one,) = stability(*repeated, EXPERTS, np.zeros(200))
    assert (one.overlap.low, one.overlap.high) == (0, 1) and one.load_correlation.low == -1


def test_a_constant_load_has_no_correlation() -> None:
    even = np.stack([(np.arange(2) + token) % 4 for token in range(4)])[None]
    (found,) = stability(even, even, 4)
    assert np.isnan(found.load_correlation.value)
    assert (found.load_correlation.low, found.load_correlation.high) == (-1, 1)


def test_a_model_is_nearer_to_itself_a_little_trained_than_to_another_seed() -> None:
    def routed(seed: int, noise: float) -> Any:
        model = hybrid_models.build("dots1", seed)
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(1)
            for weight in model.parameters():
                weight += noise * weight.std() * torch.randn_like(weight) if weight.dim() > 1 else 0
        recorder = RoutingRecorder(model)
        with torch.no_grad(), recorder:
            model(**padded())
        return recorder.routing()

    start, near, other = routed(0, 0.0), routed(0, 0.02), routed(7, 0.0)
    assert np.array_equal(np.sort(start.indices), np.sort(routed(0, 0.0).indices))
    nearby = stability(start.indices, near.indices, 16, start.samples)
    far = stability(start.indices, other.indices, 16, start.samples)
    for close, apart in zip(nearby, far, strict=True):
        assert close.overlap.value > 0.8 > apart.overlap.value


def test_models_of_other_seeds_lie_on_the_floor_of_their_loads_and_not_on_that_of_chance() -> None:
    def routed(seed: int) -> Any:
        recorder = RoutingRecorder(model := hybrid_models.build("dots1", seed))
        with torch.no_grad(), recorder:
            model(**padded(6, 60))
        return recorder.routing()

    first = routed(0)
    found = [each for seed in (7, 8, 9, 10) for each in checkpoint_stability(first, routed(seed)).values()]
    assert max(abs(each.overlap.value - each.overlap_floor_of_loads) for each in found) < 0.03
    assert max(abs(each.overlap.value - each.overlap_floor) for each in found) > 0.1
    assert {each.overlap.value for each in checkpoint_stability(first, routed(0)).values()} == {1.0}


def test_routings_of_checkpoints_are_compared_by_true_layer_and_refused_where_they_are_of_unlike_shape() -> None:
    def routed(name: str, layers: list[int] | None = None, batch: int = 3, **changes: Any) -> Any:
        model = hybrid_models.build(name, **changes)
        recorder = RoutingRecorder(model, layers)
        with torch.no_grad(), recorder:
            model(**padded(batch))
        return recorder.routing()

    start, other = routed("dots1"), routed("dots1", seed=7)
    assert {layer: each.overlap.value for layer, each in checkpoint_stability(start, start).items()} == {1: 1.0, 2: 1.0}
    found = checkpoint_stability(start, other)
    bare = stability(start.indices, other.indices, 16, start.samples)
    assert found == dict(zip((1, 2), bare, strict=True))
    assert found[1].overlap.clusters == 3
    fewer = routed("dots1", layers=[2])
    with pytest.raises(
        InputError, match=r"layers \[1, 2\] with 3 of 16 .* layers \[2\] with 3 of 16.*record layers that"
    ):
        checkpoint_stability(start, fewer)
    # Indices of both fit each other's experts, so that arrays alone would be compared in silence.
    with pytest.raises(InputError, match=r"3 of 16 experts and .* 3 of 12 experts: .* compare loads"):
        checkpoint_stability(start, routed("dots1", n_routed_experts=12))
    with pytest.raises(InputError, match=r"of 42 and 31 tokens of other samples, .* encode the same questions"):
        checkpoint_stability(start, routed("dots1", batch=2))


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        (choices(4), choices(5), "on the same layers, tokens and k"),
        (choices(4), choices(4, k=2), "on the same layers, tokens and k"),
        (choices(4)[0], choices(4)[0], "is needed twice"),
        (choices(4), choices(4, experts=9, seed=3) + 2, "is none of the 7 experts"),
        (choices(0), choices(0), "there are none"),
    ],
)
def test_checkpoints_that_do_not_compare_are_refused(first: Any, second: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        stability(first, second, EXPERTS)


def test_overlaps_of_unlike_forms_are_refused() -> None:
    with pytest.raises(InputError, match="unlike form"):
        overlap_counts(choices(4), choices(4, k=2), EXPERTS)
