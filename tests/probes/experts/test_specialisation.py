"""Specialisation: closed forms, planted experts that must be found, and shuffled labels that must not pass."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from scipy.spatial.distance import jensenshannon
from sklearn.metrics import mutual_info_score

from probes.experts.load import expert_load
from probes.experts.specialisation import jensen_shannon, specialisation
from probes.inputs import InputError
from tests.probes import hybrid_models
from tests.probes.experts.test_load import choices
from tests.probes.hooked import questions

EXPERTS, K = 8, 2
Choices = tuple[Any, Any, Any]


def drawn(preference: Any, tokens: int, rng: np.random.Generator) -> Any:
    """Choices of tokens that all prefer the same experts."""
    return (preference + rng.gumbel(size=(tokens, EXPERTS))).argsort(axis=-1)[:, -K:]


def clustered(rng: np.random.Generator, sizes: tuple[int, ...], samples: int = 16) -> Choices:
    """Samples with a taste of their own, and in each some segments with a taste of their own: labels mean nothing.

    With one size, labels are of whole samples, in turn; with several, each segment has its own.
    """
    indices, labels, owners = [], [], []
    for sample in range(samples):
        own = rng.normal(0, 1, EXPERTS)
        for segment, size in enumerate(sizes):
            indices.append(drawn(own + rng.normal(0, 1, EXPERTS), size, rng))
            labels += [segment if len(sizes) > 1 else sample % 2] * size
            owners += [sample] * size
    return np.concatenate(indices)[None], np.array(labels), np.array(owners)


def planted(rng: np.random.Generator, samples: int = 16) -> Choices:
    """The same, and images go to expert 5 more often."""
    indices, labels, owners = clustered(rng, (12, 6), samples)
    image = labels == 1
    moved = image & (rng.random(len(labels)) < 0.7) & ~(indices[0] == 5).any(axis=-1)
    indices[0, moved, 0] = 5
    return indices, labels, owners


@pytest.mark.parametrize(("sizes", "scheme"), [((9,), "between samples"), ((12, 12), "within samples")])
def test_p_values_of_labels_that_mean_nothing_are_uniform(sizes: tuple[int, ...], scheme: str) -> None:
    rng = np.random.default_rng(1)
    found = [specialisation(*clustered(rng, sizes), EXPERTS, permutations=99, seed=draw) for draw in range(150)]
    assert {each.scheme for each in found} == {scheme}
    p_values = np.array([each.p_value[0] for each in found])
    assert stats.kstest(p_values, "uniform").pvalue > 0.01
    assert (p_values <= 0.05).mean() < 0.12
    assert (np.array([each.expert_p_value.min() for each in found]) <= 0.05).mean() < 0.12
    assert (np.array([each.divergence_p_value[0] for each in found]) <= 0.05).mean() < 0.12
    apart = np.array([each.divergence.max() for each in found])
    chance, information = (np.array([getattr(each, name)[0] for each in found]) for name in ("chance", "information"))
    assert abs(chance.mean() - information.mean()) < 0.1 * information.mean()
    assert abs(np.mean([each.divergence_chance[0] for each in found]) - apart.mean()) < 0.1 * apart.mean()


def test_segments_of_unlike_length_stay_near_their_level() -> None:
    rng = np.random.default_rng(2)
    found = [specialisation(*clustered(rng, (20, 3)), EXPERTS, permutations=99, seed=draw) for draw in range(150)]
    assert (np.array([each.p_value[0] for each in found]) <= 0.05).mean() < 0.13
    assert (np.array([each.divergence_p_value[0] for each in found]) <= 0.05).mean() < 0.05


@pytest.mark.parametrize("sizes", [(9,), (12, 12)])
def test_shuffling_tokens_instead_finds_specialisation_in_nothing(sizes: tuple[int, ...]) -> None:
    """What clusters are for: with every token a sample of its own, labels that mean nothing pass."""
    rng = np.random.default_rng(3)
    passed = 0
    for draw in range(20):
        indices, labels, _ = clustered(rng, sizes)
        passed += specialisation(indices, labels, np.arange(len(labels)), EXPERTS, 99, draw).p_value[0] <= 0.05
    assert passed > 10


def test_a_planted_expert_is_found_and_its_neighbours_are_not() -> None:
    found = specialisation(*planted(np.random.default_rng(0)), EXPERTS)
    assert found.expert_information[0].argmax() == 5
    assert found.expert_p_value[0, 5] < 0.01
    assert np.median(found.expert_p_value[0]) > 0.05
    assert found.p_value[0] < 0.01 and found.information[0] > 2 * found.chance[0]
    assert found.divergence_p_value[0] < 0.01 and found.divergence.max() > 2 * found.divergence_chance[0]
    assert found.load[1, 0, 5] > found.load[0, 0, 5] + 0.3
    assert (found.tokens, found.clusters) == (16 * 18, 16)


def test_a_planted_expert_is_lost_when_its_labels_are_shuffled_within_samples() -> None:
    rng = np.random.default_rng(0)
    indices, labels, owners = planted(rng)
    shuffled = np.empty_like(labels)
    for sample in range(16):
        own, turn = owners == sample, rng.random() < 0.5
        shuffled[own] = 1 - labels[own] if turn else labels[own]
    assert specialisation(indices, shuffled, owners, EXPERTS).p_value[0] > 0.05


def test_information_is_that_of_the_plain_table_where_samples_weigh_alike() -> None:
    """Each sample one token of one label: scikit-learn's mutual information of expert and label."""
    rng = np.random.default_rng(0)
    indices, labels = choices(60, EXPERTS, K, seed=1), rng.integers(0, 3, 60)
    found = specialisation(indices, labels, np.arange(60), EXPERTS, permutations=9)
    for layer in range(2):
        whole = mutual_info_score(indices[layer].ravel(), np.repeat(labels, K)) / np.log(2)
        assert found.information[layer] == pytest.approx(whole)
        for expert in range(EXPERTS):
            single = mutual_info_score((indices[layer] == expert).any(axis=-1), labels) / np.log(2)
            assert found.expert_information[layer, expert] == pytest.approx(single, abs=1e-12)


def test_information_of_two_labels_alike_is_the_divergence_of_their_loads() -> None:
    indices, labels, owners = clustered(np.random.default_rng(0), (12, 12))
    found = specialisation(indices, labels, owners, EXPERTS, permutations=9)
    assert found.information[0] == pytest.approx(found.divergence[0, 1, 0])
    assert found.divergence.shape == (2, 2, 1) and found.divergence[0, 0, 0] == 0
    np.testing.assert_allclose(found.load[0], expert_load(indices[:, labels == 0], EXPERTS))


def test_labels_that_decide_the_expert_tell_all_that_they_hold() -> None:
    labels = np.arange(24) % 4
    indices = np.stack([2 * labels, 2 * labels + 1], axis=-1)[None]
    found = specialisation(indices, labels, np.arange(24), EXPERTS, permutations=99)
    assert found.information[0] == pytest.approx(2.0) and found.p_value[0] == pytest.approx(0.01)
    np.testing.assert_allclose(found.divergence[..., 0], 1 - np.eye(4))
    assert found.expert_information.max() == pytest.approx(-(0.25 * np.log2(0.25) + 0.75 * np.log2(0.75)))


@given(st.integers(0, 1000), st.integers(2, 6))
def test_divergence_equals_scipys(seed: int, experts: int) -> None:
    shares = np.random.default_rng(seed).dirichlet(np.ones(experts), size=3)
    found = jensen_shannon(shares)
    for left in range(3):
        for right in range(3):
            expected = float(jensenshannon(shares[left], shares[right], base=2)) ** 2
            assert found[left, right] == pytest.approx(0.0 if np.isnan(expected) else expected, abs=1e-9)


def test_one_sample_of_two_labels_leaves_the_others_where_they_are_and_that_is_told() -> None:
    labels = np.repeat([0, 1], 40)
    samples = np.concatenate([[0], np.arange(79)])
    indices = labels[None, :, None]
    apart = specialisation(indices, labels, np.arange(80), 2, permutations=99)
    assert apart.scheme == "between samples" and apart.moved == 80 and apart.p_value[0] == 0.01
    samples[40] = 0
    mixed = specialisation(indices, labels, samples, 2, permutations=99)
    assert mixed.scheme == "within samples" and mixed.moved == 1 < mixed.clusters and mixed.p_value[0] > 0.3


def test_images_of_a_prompt_are_told_apart_by_their_number() -> None:
    """Of a random model p-values are whatever they are: forms are what is checked."""
    model = hybrid_models.hooked("dots1")
    routing = model.routing(model.encode(questions()))
    found = specialisation(routing.indices, routing.images, routing.samples, routing.experts, permutations=19)
    assert found.scheme == "within samples" and found.moved == found.clusters
    assert found.labels.tolist() == [-1, 0, 1, 2] and found.load.shape == (4, 2, 16)
    by_modality = specialisation(routing.indices, routing.is_image, routing.samples, routing.experts, 19)
    assert by_modality.labels.tolist() == [False, True]
    np.testing.assert_allclose(by_modality.load.sum(axis=-1), routing.k)
    assert (found.p_value >= 1 / 20).all() and (found.p_value <= 1).all()


@pytest.mark.parametrize(
    ("indices", "labels", "samples", "options", "message"),
    [
        (choices(4), [0, 1, 0], [0, 1, 2, 3], {}, r"with a label for each token: got \(2, 4, 3\) and \(3,\)"),
        (choices(4)[0], [0, 1, 0, 1], [0, 1, 2, 3], {}, "with a label for each token"),
        (choices(4), [1, 1, 1, 1], [0, 1, 2, 3], {}, "two labels or more to tell apart, and there are 1"),
        (choices(4), [0, 1, 0, 1], [0, 1, 2], {}, "one label for each of the 4 samples"),
        (choices(4) + 5, [0, 1, 0, 1], [0, 1, 2, 3], {}, "is none of the 8 experts"),
        (choices(4), [0, 1, 0, 1], [0, 1, 2, 3], {"permutations": 0}, "needs permutations, and 0"),
    ],
)
def test_what_cannot_be_told_is_refused(
    indices: Any, labels: Any, samples: Any, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        specialisation(indices, labels, samples, EXPERTS, **options)


def test_distributions_that_are_none_are_refused() -> None:
    given: list[Any] = [[[0.5, 0.4], [1, 0]], [[1.5, -0.5], [1, 0]], [1.0, 0.0]]
    for shares in given:
        with pytest.raises(InputError, match="each summing to 1"):
            jensen_shannon(shares)
