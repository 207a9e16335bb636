"""Numbers known from real benchmark files: a length ruler that wins, and a published model that loves style."""

import json
from typing import Any

import numpy as np
import pytest

from rewardmodels.benchmarks import AccuracyAndPlus, mm_rlhf_reward_bench
from rewardmodels.evaluation import accuracy_by_group
from rewardmodels.lengths import partial_correlation
from rewardmodels.preferences import read_preferences
from rewardmodels.questioning import score_preferences
from rewardmodels.reports import reward_report
from rewardmodels.rulers import beside_rulers, ruler_credits
from rewardmodels.scores import AS_IS
from rewardmodels.style_scores import style_report
from rewardmodels.styles import style_matrix
from rewardmodels.text_cues import text_cues
from tests.rewardmodels.asked import by_length
from tests.rewardmodels.shared_files import shared_file


@pytest.fixture(scope="module")
def pairs() -> list[dict[str, Any]]:
    lines = shared_file("mm_rlhf_reward_bench.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


@pytest.fixture(scope="module")
def scores() -> tuple[Any, Any]:
    items = json.loads(shared_file("ixc_rm_bench_scores.json").read_text())
    chosen, rejected = (np.array([item[name] for item in items]) for name in ("score_chosen", "score_rejected"))
    return chosen, rejected


def lengths_of(pairs: list[dict[str, Any]]) -> tuple[list[int], list[int]]:
    return [len(pair["chosen"]) for pair in pairs], [len(pair["rejected"]) for pair in pairs]


def test_the_longer_answer_wins_on_122_of_170_pairs(pairs: list[dict[str, Any]]) -> None:
    longer = ruler_credits(*lengths_of(pairs))["longer"]
    assert [int((longer == credit).sum()) for credit in (1.0, 0.0, 0.5)] == [122, 46, 2]
    found = beside_rulers(*lengths_of(pairs), *lengths_of(pairs), [pair["id"] for pair in pairs])
    assert round(100 * found.rulers["longer"].value, 1) == 72.4
    assert found.best == "longer" and found.rulers["longer"].low > 0.6
    assert found.rulers["longer"].clusters == len({pair["id"] for pair in pairs}) == 46


def test_by_category_the_longer_answer_wins_most_in_videos(pairs: list[dict[str, Any]]) -> None:
    categories = [(pair.get("image") or pair["video"]).split("/")[0] for pair in pairs]
    found = accuracy_by_group(*lengths_of(pairs), categories)
    assert {name: round(100 * found.groups[name].value) for name in ("long", "video")} == {"long": 81, "video": 94}
    both = mm_rlhf_reward_bench([pair["id"] for pair in pairs], categories, *lengths_of(pairs))
    assert both.accuracy.micro.value == pytest.approx(123 / 170) and both.plus.micro.n == 46
    assert both.plus.micro.value < both.accuracy.micro.value


def test_a_published_model_scores_styles(scores: tuple[Any, Any]) -> None:
    found = style_matrix(*scores)
    assert [round(estimate.value, 3) for estimate in found.chosen] == [2.589, 4.016, 6.753]
    assert [round(estimate.value, 3) for estimate in found.rejected] == [0.496, 1.306, 3.623]
    assert [round(100 * part.value, 1) for part in (found.easy, found.normal, found.hard)] == [87.5, 71.4, 47.5]
    strict = style_matrix(*scores, ties=0.0)
    assert [round(100 * part.value, 1) for part in (strict.easy, strict.normal, strict.hard)] == [87.5, 71.3, 47.5]
    assert round(100 * strict.average.value, 1) == 68.8
    assert found.rejected[2].low > found.chosen[0].high
    assert found.chosen[0].n == 1327


def test_its_style_holds_at_fixed_quality(scores: tuple[Any, Any]) -> None:
    flat = np.concatenate([table.ravel() for table in scores])
    style = np.tile(np.arange(3), 2 * len(scores[0]))
    right = np.repeat([1.0, 0.0], 3 * len(scores[0]))
    item = np.tile(np.repeat(np.arange(len(scores[0])), 3), 2)
    found = partial_correlation(flat, style, right, item, within=item, resamples=200)
    assert found.low > 0.45 and found.clusters == 1327
    shuffled = np.random.default_rng(0).permutation(style)
    assert abs(partial_correlation(flat, shuffled, right, item, within=item, resamples=50).value) < 0.05


def test_style_is_worth_more_than_being_right_and_a_constant_takes_most_of_it_off(scores: tuple[Any, Any]) -> None:
    found = style_report(*scores, resamples=50)
    assert round(found.right_is_worth.value, 3) == 2.645 and round(found.rich_is_worth.value, 3) == 3.645
    assert found.rich_is_worth.low > found.right_is_worth.high
    by_hand = np.mean([table[:, 2] - table[:, 0] for table in scores])
    assert found.rich_is_worth.value == pytest.approx(by_hand)
    assert found.centred.hard.low > found.matrix.hard.high + 0.1
    assert abs(found.centred.average.value - found.matrix.average.value) < 0.01


def test_surface_cues_rank_no_better_together_than_length_alone(pairs: list[dict[str, Any]]) -> None:
    categories = [(pair.get("image") or pair["video"]).split("/")[0] for pair in pairs]
    chosen, rejected = ([pair[side] for pair in pairs] for side in ("chosen", "rejected"))
    found = text_cues(chosen, rejected, categories, [pair["id"] for pair in pairs])
    assert found.cues["longer"].value == pytest.approx(123 / 170) and found.tied["longer"] == 2
    assert max(found.cues, key=lambda name: found.cues[name].value) == "longer"
    assert found.together.micro.low > 0.5 and found.together.micro.value < found.cues["longer"].value
    lines = [np.sign(pair["chosen"].count("\n") - pair["rejected"].count("\n")) for pair in pairs]
    assert found.cues["more lines"].value == pytest.approx((np.mean(lines) + 1) / 2)


def test_the_real_pairs_are_read_scored_and_reported() -> None:
    data = read_preferences(shared_file("mm_rlhf_reward_bench.jsonl"), allow_missing_images=True)
    found = reward_report(data, score_preferences(by_length, data, [AS_IS]))
    assert found.benchmark is not None and isinstance(found.benchmark.numbers, AccuracyAndPlus)
    assert round(100 * found.benchmark.numbers.accuracy.micro.value, 1) == 72.4
    assert found.counts.scored == 170 and found.benchmark.numbers.plus.micro.n == 46
