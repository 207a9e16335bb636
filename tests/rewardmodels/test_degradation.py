"""Shortcut-failure degradation: by hand, empty sides, clusters, JSON."""

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import rewardmodels
from probes.estimates import Estimate
from probes.paired import share_difference
from rewardmodels.degradation import ShortcutFailureDegradation, shortcut_failure_degradation


@given(st.lists(st.tuples(st.booleans(), st.booleans()), max_size=40))
def test_by_counting(pairs: list[tuple[bool, bool]]) -> None:
    plus = [right for right, by_text in pairs if by_text]
    minus = [right for right, by_text in pairs if not by_text]
    found = shortcut_failure_degradation([right for right, _ in pairs], [by_text for _, by_text in pairs])
    assert (found.n_plus, found.n_minus, found.n) == (len(plus), len(minus), len(pairs))
    if plus and minus:
        assert found.value == pytest.approx(100 * (sum(plus) / len(plus) - sum(minus) / len(minus)))
        assert -100 <= found.low <= found.value + 1e-9 and found.value <= found.high + 1e-9 <= 100 + 1e-8
    else:
        assert math.isnan(found.value) and (found.low, found.high) == (-100, 100)


def test_the_interval_is_newcombes() -> None:
    found = shortcut_failure_degradation([1] * 56 + [0] * 14 + [1] * 48 + [0] * 32, [1] * 70 + [0] * 80)
    assert found.value == pytest.approx(20.0)
    assert (found.low, found.high) == pytest.approx((5.24, 33.39), abs=0.006)
    assert isinstance(found, Estimate)


def test_clusters_agree_with_a_bootstrap_that_draws_them() -> None:
    rng = np.random.default_rng(0)
    cluster = np.repeat(np.arange(300), 4)
    level = rng.beta(3, 1.5, 300)[cluster]
    by_text = rng.random(1200) < 0.7
    right = rng.random(1200) < np.where(by_text, level, 0.6 * level)
    found = shortcut_failure_degradation(right, by_text, cluster)
    drawn = share_difference(right, right, cluster, first_counted=by_text, second_counted=~by_text).estimate
    assert found.value == pytest.approx(100 * drawn.value)
    assert found.clusters == 300
    assert found.high - found.low == pytest.approx(100 * (drawn.high - drawn.low), rel=0.08)
    assert found.low == pytest.approx(100 * drawn.low, abs=1.0)


def test_json_and_repr() -> None:
    found = shortcut_failure_degradation([True, True, False], [True, True, False])
    again = ShortcutFailureDegradation.from_dict(json.loads(json.dumps(found.to_dict())))
    assert again == found and again.n_minus == 1
    assert "2 with the shortcut, 1 against it" in repr(found)
    with pytest.raises(ValueError, match="n_plus, n_minus"):
        ShortcutFailureDegradation.from_dict(Estimate(1.0, 2, 0.0, 2.0).to_dict())


def test_it_is_public() -> None:
    assert rewardmodels.shortcut_failure_degradation is shortcut_failure_degradation
    assert {"shortcut_aware_loss", "shortcut_failure_coefficient"} <= set(dir(rewardmodels))
    with pytest.raises(AttributeError, match="no_such"):
        _ = rewardmodels.no_such


def test_broken_input_is_refused() -> None:
    with pytest.raises(ValueError, match="same pairs"):
        shortcut_failure_degradation([True], [True, False])
    with pytest.raises(ValueError, match="True or False"):
        shortcut_failure_degradation([0.5], [1])
    with pytest.raises(ValueError, match="missing"):
        shortcut_failure_degradation([math.nan], [1])
