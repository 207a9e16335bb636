"""The report of scored pairs: its parts are those of their modules, and a lover of length is shown up."""

import json
import math

import numpy as np
import pytest

from rewardmodels.calibration import calibration
from rewardmodels.evaluation import accuracy_by_group
from rewardmodels.lengths import partial_correlation
from rewardmodels.pair_report import PairReport, pair_report


def planted(likes: float, n: int = 600, seed: int = 0) -> PairReport:
    """Pairs whose better answers are longer, scored by a model that sees quality and likes length by so much."""
    rng = np.random.default_rng(seed)
    lengths = rng.lognormal(4.2, 0.5, n) + 1, rng.lognormal(4.0, 0.5, n) + 1
    quality = rng.normal(1.0, 1.0, n), rng.normal(0.0, 1.0, n)
    scores = [own + likes * np.log2(long) for own, long in zip(quality, lengths, strict=True)]
    return pair_report(scores[0], scores[1], lengths[0], lengths[1], np.arange(n) % 3, np.arange(n) // 2)


def test_a_lover_of_length_and_a_fair_model() -> None:
    fair, lover = planted(0.0), planted(2.0)
    assert fair.length_slope.low < 0 < fair.length_slope.high
    assert lover.length_slope.low < 2.0 < lover.length_slope.high and lover.length_slope.low > 1.5
    assert fair.length_correlation.low < 0 < fair.length_correlation.high
    assert lover.length_correlation.low > 0.5
    assert lover.matched.chosen_longer.value - lover.matched.chosen_shorter.value > 0.4
    assert abs(fair.matched.chosen_longer.value - fair.matched.chosen_shorter.value) < 0.12
    assert fair.rulers.rulers["longer"] == lover.rulers.rulers["longer"]


def test_parts_are_those_of_their_modules() -> None:
    chosen, rejected = [2.0, 0.0, 3.0, 1.0], [1.0, 1.0, 1.0, 1.0]
    better, worse = [9, 5, 8, 6], [4, 7, 2, 6]
    found = pair_report(chosen, rejected, better, worse, ["a", "a", "b", "b"])
    assert found.accuracy == accuracy_by_group(chosen, rejected, ["a", "a", "b", "b"])
    assert found.rulers.score == found.accuracy.micro
    assert found.calibration.error == calibration(chosen, rejected).error
    expected = partial_correlation(chosen + rejected, better + worse, [1] * 4 + [0] * 4, [0, 1, 2, 3] * 2)
    assert found.length_correlation == expected
    assert list(pair_report(chosen, rejected, better, worse).accuracy.groups) == ["all"]


def test_an_empty_answer_has_no_slope() -> None:
    found = pair_report([1.0, 2.0], [0.0, 0.0], [3, 0], [2, 1])
    assert math.isnan(found.length_slope.value)
    record = json.loads(json.dumps(found.to_dict()))
    assert record["length_slope"]["value"] is None and record["rulers"]["score"]["value"] == 1.0


def test_broken_input_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one sample"):
        pair_report([], [], [], [])
    with pytest.raises(ValueError, match="same pairs"):
        pair_report([1.0, 2.0], [0.0, 0.0], [1], [2])
