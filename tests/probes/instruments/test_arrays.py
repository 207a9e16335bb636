"""Sinks, probes and heads on tables made by hand, where the right answer is known."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from probes.inputs import InputError
from probes.instruments import attention_scores as scores
from probes.instruments.arrays import HeadOutputs, Reading
from probes.instruments.heads import LocalisationHeads, choose_heads, head_agreement
from probes.instruments.linear_probes import LinearProbe, held_out_scores

# One head; two images of two tokens (columns 1-2 and 3-4); column 1 is a sink, row 5 asks.
ROWS = [
    [1.0, 0.0, 0.0, 0.0, 0.0, 0.0],
    [0.2, 0.8, 0.0, 0.0, 0.0, 0.0],
    [0.1, 0.7, 0.2, 0.0, 0.0, 0.0],
    [0.1, 0.6, 0.1, 0.2, 0.0, 0.0],
    [0.1, 0.5, 0.1, 0.1, 0.2, 0.0],
    [0.1, 0.4, 0.05, 0.15, 0.2, 0.1],
]


def by_hand(*tables: list[list[float]]) -> Reading:
    attention = np.array(tables, dtype=np.float32)
    heads, tokens, _ = attention.shape
    empty = np.zeros((heads, tokens, 1), dtype=np.float32)
    return Reading(
        layers=(0,),
        heads=(HeadOutputs(attention, empty, np.zeros((2, heads, 1), dtype=np.float32), empty),),
        depths=(0,),
        residuals=np.zeros((1, tokens, 2), dtype=np.float32),
        images=(np.array([1, 2]), np.array([3, 4])),
        rows={"paper": np.array([5])},
        predicting=np.array([5]),
        answer_ids=(1,),
        log_probability=-1.0,
    )


def test_a_sink_is_left_out_and_the_rest_renormalised() -> None:
    reading = by_hand(ROWS)
    # Importances: (1 + .2 + .1 + .1 + .1 + .1) / 6 = .267, (.8 + .7 + .6 + .5 + .4) / 5 = .6, .1125, .15, .2, -.
    assert scores.sink_columns(reading.heads[0].attention, 5).tolist() == [[False, True, False, False, False, False]]
    raw = scores.raw_factor(reading, "paper")
    assert raw.tolist()[0] == pytest.approx([0.225, 0.175])
    # Without column 1 row 5 sums to 0.6; image 0 has one token left, image 1 both.
    removed = scores.sinks_removed(reading, "paper")
    assert removed.tolist()[0] == pytest.approx([0.05 / 0.6, 0.175 / 0.6])
    assert raw.argmax() == 0 and removed.argmax() == 1
    assert scores.sink_share(reading, "paper").tolist() == [0.25]


def test_without_a_sink_nothing_changes_and_all_sinks_leave_nothing() -> None:
    reading = by_hand(ROWS)
    np.testing.assert_allclose(
        scores.sinks_removed(reading, "paper", 0.9), scores.raw_factor(reading, "paper"), rtol=1e-6
    )
    assert scores.sinks_removed(reading, "paper", 0.01).tolist() == [[0.0, 0.0]]
    for threshold in (0.0, 1.0, 2.0):
        with pytest.raises(InputError, match="between 0 and 1"):
            scores.sinks_removed(reading, "paper", threshold)


def test_sinks_are_found_head_by_head() -> None:
    even = np.tril(np.ones((6, 6))) / np.arange(1, 7)[:, None]
    both = scores.sink_columns(np.stack([np.array(ROWS), even]).astype(np.float32), 5)
    assert both[0].tolist() == [False, True, False, False, False, False]
    # Even attention: column 0 has (1 + 1/2 + ... + 1/6) / 6 = 0.408, the next ones 0.29 and less.
    assert both[1].tolist() == [True, False, False, False, False, False]


def test_an_image_that_nobody_sees_is_relative_to_nothing() -> None:
    relative = scores.relative_factor(np.array([[0.0, 0.2]], np.float32), np.array([[0.0, 0.1]], np.float32))
    assert relative.tolist() == [[0.0, 2.0]]
    with pytest.raises(InputError, match="generic prompt has factors"):
        scores.relative_factor(np.zeros((1, 2), np.float32), np.zeros((1, 3), np.float32))


@given(st.integers(2, 5), st.integers(0, 99))
def test_rollout_of_even_attention_and_of_none(tokens: int, seed: int) -> None:
    """Attention to oneself alone rolls out to oneself; scores of a causal model never pass its causal mask."""
    rng = np.random.default_rng(seed)
    table = np.tril(rng.random((6, 6)) + 0.1)
    reading = by_hand((table / table.sum(1, keepdims=True)).tolist())
    alone = by_hand(np.eye(6).tolist())
    assert scores.rollout(alone, "paper").tolist() == [[0.0, 0.0]]
    half = 0.5 * scores.raw_factor(reading, "paper")
    np.testing.assert_allclose(scores.rollout(reading, "paper"), half, rtol=1e-5)


def planted(samples: int, seed: int, strength: float = 4.0) -> tuple[np.ndarray, np.ndarray]:
    """Features whose second layer holds the target's place, and whose first holds nothing."""
    rng = np.random.default_rng(seed)
    target = rng.integers(0, 3, samples)
    features = rng.normal(size=(samples, 2, 8))
    features[np.arange(samples), 1, target] += strength
    return features, target


def accuracy(found: np.ndarray, target: np.ndarray, layer: int) -> float:
    return float((np.nanargmax(found[:, layer], axis=-1) == target).mean())


def test_a_probe_finds_what_is_there_and_nothing_else() -> None:
    features, target = planted(300, 0)
    unseen, wanted = planted(300, 1)
    images = np.full(300, 3)
    found = LinearProbe(features, target).scores(unseen, images)
    assert found.shape == (300, 2, 3) and accuracy(found, wanted, 1) > 0.9
    assert abs(accuracy(found, wanted, 0) - 1 / 3) < 0.12
    shuffled = LinearProbe(features, np.random.default_rng(2).permutation(target)).scores(unseen, images)
    assert accuracy(shuffled, wanted, 1) < 0.6
    held = held_out_scores(features, target, images, [str(index) for index in range(300)])
    assert accuracy(held, target, 1) > 0.9 and abs(accuracy(held, target, 0) - 1 / 3) < 0.12
    # Scored on what they were trained on, probes would flatter themselves.
    assert (
        accuracy(LinearProbe(features[:40], target[:40], 100).scores(features[:40], images[:40]), target[:40], 0) > 0.6
    )


def test_held_out_probes_never_see_a_sample_of_the_same_cluster() -> None:
    rng = np.random.default_rng(0)
    features = np.repeat(rng.normal(size=(60, 1, 200)), 2, axis=0)
    target = np.repeat(rng.integers(0, 3, 60), 2)
    images, twins = np.full(120, 3), np.repeat(np.arange(60).astype(str), 2)
    apart = held_out_scores(features, target, images, twins, 100)
    together = held_out_scores(features, target, images, np.arange(120).astype(str), 100)
    assert accuracy(together, target, 0) > 0.7 > accuracy(apart, target, 0)


def test_a_probe_scores_only_the_images_there_are() -> None:
    features, target = planted(60, 0)
    found = LinearProbe(features, target).scores(features[:3], [2, 3, 4])
    assert np.isnan(found[0, :, 2:]).all() and found.shape == (3, 2, 4)
    assert found[2, :, 3].tolist() == [0.0, 0.0]
    assert np.nansum(found[1], axis=-1) == pytest.approx([1, 1])


def test_probes_refuse_what_they_cannot_learn_from() -> None:
    features, target = planted(20, 0)
    with pytest.raises(InputError, match="two places"):
        LinearProbe(features, np.zeros(20))
    with pytest.raises(InputError, match="finite"):
        LinearProbe(features * np.nan, target)
    with pytest.raises(InputError, match="features of 1"):
        LinearProbe(features, target).scores(features[:, :1], np.full(20, 3))
    with pytest.raises(InputError, match="two base samples"):
        held_out_scores(features, target, np.full(20, 3), ["a"] * 20)


def planted_heads(
    samples: int, seed: int, good: tuple[tuple[int, int], ...] = ((1, 2),)
) -> tuple[np.ndarray, np.ndarray]:
    """Per-head factors (samples, 2 layers, 3 heads, 4 images); good heads lean to the wanted image."""
    rng = np.random.default_rng(seed)
    wanted = rng.integers(0, 4, samples)
    factors = rng.random((samples, 2, 3, 4))
    for layer, head in good:
        factors[np.arange(samples), layer, head, wanted] += 0.6
    return factors, wanted


def test_the_heads_that_localise_are_chosen_and_carry_over() -> None:
    factors, wanted = planted_heads(200, 0)
    chosen = choose_heads(factors, wanted, (1,))
    assert chosen.heads == ((1, 2),)
    other, goal = planted_heads(200, 1)
    found = chosen.scores(other)
    assert found.shape == (200, 1, 4)
    assert (found[:, 0].argmax(-1) == goal).mean() > 0.7
    assert head_agreement(other, goal)[1, 2] == (other[:, 1, 2].argmax(-1) == goal).mean()
    assert head_agreement(other, np.random.default_rng(5).permutation(goal)).max() < 0.4


def test_several_heads_together_beat_one_and_loud_heads_do_not_drown_them() -> None:
    good = ((0, 1), (1, 0), (1, 2))
    factors, wanted = planted_heads(400, 0, good)
    factors[:, 0, 0] *= 1000
    chosen = choose_heads(factors, wanted)
    assert chosen.heads[:3] and set(chosen.heads[:3]) == set(good) and len(chosen.heads) >= 2
    loud = LocalisationHeads(((0, 0), *good), 0.0).scores(factors)
    assert (loud[:, 0].argmax(-1) == wanted).mean() > 0.8


def test_equal_heads_give_the_fewest_and_ties_are_shared() -> None:
    even = np.ones((10, 1, 2, 4))
    assert head_agreement(even, np.zeros(10)).tolist() == [[0.25, 0.25]]
    assert choose_heads(even, np.zeros(10)).heads == ((0, 0),)
    nothing = LocalisationHeads(((0, 0),), 0.0).scores(np.where(np.arange(4) < 2, 0.0, np.nan) * np.ones((1, 1, 1, 4)))
    assert nothing[0, 0, :2].tolist() == [0.0, 0.0] and np.isnan(nothing[0, 0, 2:]).all()


def test_heads_refuse_what_they_cannot_be_chosen_on() -> None:
    with pytest.raises(InputError, match="there are none"):
        choose_heads(np.zeros((0, 1, 1, 2)), [])
    with pytest.raises(InputError, match="no number of heads"):
        choose_heads(np.ones((2, 1, 2, 2)), [0, 1], (5,))
    with pytest.raises(InputError, match="got the shape"):
        head_agreement(np.ones((2, 1, 2)), [0, 1])
