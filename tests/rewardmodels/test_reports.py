"""What scores say: against hand counts, the numbers' own functions, and habits that are known."""

import json
from dataclasses import replace

import numpy as np
import pytest

from probes.inputs import InputError
from probes.reading.sources import BadRecord
from rewardmodels.benchmarks import AccuracyAndPlus
from rewardmodels.evaluation import GroupedAccuracy
from rewardmodels.judged_pairs import JudgedPairs
from rewardmodels.model import as_turns
from rewardmodels.pair_report import PairReport, pair_report
from rewardmodels.preferences import Preferences
from rewardmodels.questioning import score_preferences
from rewardmodels.records import SKIPPED, Preference, Response
from rewardmodels.reports import Report, reward_report
from rewardmodels.reward_bench_2 import RewardBench2Score, best_of_four
from rewardmodels.scorers import CallableScorer
from rewardmodels.scores import AS_IS, ScoreRow, Scores
from rewardmodels.styles import StyleMatrix
from rewardmodels.transfer_scores import transfer_of_scores
from rewardmodels.views import VIEWS
from tests.rewardmodels.asked import FirstJudge, by_length, drawn_preferences, looking

PROMPT = as_turns("Q")


def given(data: Preferences, scores: dict[tuple[str, int], float], name: str = "given") -> Scores:
    rows = tuple(ScoreRow(record, place, AS_IS, score) for (record, place), score in scores.items())
    return Scores(rows, name)


def listed(records: list[Preference], format: str = "sightcheck") -> Preferences:
    return Preferences(tuple(records), (), format, "made here")


def test_pairs_are_those_of_the_records_and_numbers_those_of_the_pair_report() -> None:
    words = tuple(Response(word) for word in ("a", "bb", "ccc", "dd"))
    first = Preference("x", PROMPT, words, (0, 1, 2, 1), group="g", base="one")
    second = Preference("y", PROMPT, words[:2], (1, 0), group="h")
    scores = {("x", 0): 3.0, ("x", 1): 1.0, ("x", 2): 2.0, ("x", 3): 0.5, ("y", 0): 5.0, ("y", 1): 4.0}
    data = listed([first, second])
    found = reward_report(data, given(data, scores))
    # By hand: 0>1, 0>2, 0>3, 1>2 wrong, 3>2 wrong; y wrong.
    expected = pair_report(
        [3, 3, 3, 1, 0.5, 4],
        [1, 2, 0.5, 2, 2, 5],
        [1, 1, 1, 2, 2, 2],
        [2, 3, 2, 3, 3, 1],
        ["g"] * 5 + ["h"],
        ["one"] * 5 + ["y"],
    )
    assert isinstance(found.pairs, PairReport)
    assert found.pairs.to_dict() == expected.to_dict() and found.pairs.accuracy.micro.value == 0.5
    assert (found.counts.pairs, found.counts.scored, found.counts.ties) == (6, 6, 1)
    assert found.benchmark is None and found.sources is None and found.degradation is None


def test_a_scorer_that_looks_falls_without_its_image_and_one_that_does_not_stays() -> None:
    data = drawn_preferences(40, seed=1)
    seeing = reward_report(data, score_preferences(looking, data, (AS_IS, *VIEWS)))
    assert seeing.pairs.accuracy.micro.value == 1.0
    drops = {view: found.change.drop for view, found in seeing.views.items() if found.change is not None}
    assert set(drops) == set(VIEWS) and all(drop.low > 0.2 for drop in drops.values())
    assert drops["removed"].value == 0.5, "without a picture both answers are wrong alike"
    blind = reward_report(data, score_preferences(by_length, data, (AS_IS, *VIEWS)))
    for found in blind.views.values():
        assert found.change is not None
        assert found.change.drop.value == 0.0 and found.change.flipped.value == 0.0 and found.change.moved.value == 0.0
    assert blind.pairs.accuracy.micro.value == pytest.approx(blind.pairs.rulers.rulers["longer"].value)


def test_what_was_left_out_failed_or_tied_is_counted() -> None:
    data = drawn_preferences(6)
    alone = replace(data.records[0], id="bare", prompt=PROMPT)
    tied = replace(data.records[1], id="tied", ranks=(0, 0), meta={SKIPPED: ["response 3: N/A"]})
    data = replace(data, records=(*data.records, alone, tied), bad=(BadRecord("line 9", "no id"),))

    def choosy(_: object, response: Response) -> float:
        if "red" in response.text:
            raise InputError("not red: please")
        return float(len(response.text))

    scores = score_preferences(CallableScorer(choosy), data, (AS_IS, "blank", "shuffled"), skip=True)
    found = reward_report(data, scores)
    red = [any("red" in response.text for response in record.responses) for record in data if record.id != "tied"]
    assert (found.counts.records, found.counts.bad, found.counts.ties) == (8, 1, 1)
    assert (found.counts.pairs, found.counts.scored, found.counts.skipped_ratings) == (7, 7 - sum(red), 1)
    assert found.counts.failed == {"not red": len(scores.failed)} and 0 < sum(red) < 7
    assert found.views["blank"].left_out == {"it has no image": 1}
    assert found.views["blank"].pairs == 6 - sum(red[:6])


def test_degradation_is_accuracy_where_text_fails_taken_from_where_it_does_not() -> None:
    records = [Preference(str(number), PROMPT, (Response("a"), Response("b")), (0, 1)) for number in range(6)]
    data = listed(records)

    def won(wins: str) -> dict[tuple[str, int], float]:
        return {(str(at), place): float(place == 0) * int(win) for at, win in enumerate(wins) for place in (0, 1)}

    own, text = given(data, won("111010")), given(data, won("111100"), "text only")
    found = reward_report(data, own, text)
    assert found.degradation is not None and found.text_only == "text only"
    assert found.degradation.value == pytest.approx(100 * (3 / 4 - 1 / 2))
    assert (found.degradation.n_plus, found.degradation.n_minus) == (4, 2)
    short = given(data, {key: score for key, score in won("111100").items() if key[0] != "0"})
    fewer = reward_report(data, own, short).degradation
    assert fewer is not None and fewer.n == 5
    with pytest.raises(InputError, match="has scores of none of these 6 pairs"):
        reward_report(data, own, Scores((), "text only"))


def test_a_judge_that_prefers_the_first_is_seen_through_by_both_orders() -> None:
    data = drawn_preferences(20)
    found = reward_report(data, score_preferences(FirstJudge(looks=False), data, [AS_IS, "blank"]))
    assert isinstance(found.pairs, JudgedPairs)
    assert found.pairs.accuracy.micro.value == 0.5 and found.pairs.accuracy.ties == 20
    assert found.pairs.position.bias.value == 1.0 and found.pairs.position.consistent.value == 0.0
    seeing = reward_report(data, score_preferences(FirstJudge(looks=True), data, [AS_IS, "blank"]))
    assert isinstance(seeing.pairs, JudgedPairs)
    assert seeing.pairs.accuracy.micro.value == 1.0 and seeing.pairs.position.bias.value == 0.0
    change = seeing.views["blank"].change
    assert change is not None and change.drop.low > 0 and seeing.benchmark is None


def rm_bench(scores: np.ndarray) -> tuple[Preferences, Scores]:
    texts = tuple(Response(f"{side}{style}") for side in "cr" for style in range(3))
    domains = ("chat", "code", "safety/refuse", "safety/comply")
    records = [
        Preference(str(at), PROMPT, texts, (0,) * 3 + (1,) * 3, group=domains[at % 4]) for at in range(len(scores))
    ]
    data = listed(records, "rm-bench")
    return data, given(
        data, {(str(at), place): float(scores[at, place]) for at in range(len(scores)) for place in range(6)}
    )


def test_rm_bench_is_a_mean_over_domains_of_its_style_matrix() -> None:
    scores = np.random.default_rng(0).normal(size=(11, 6)).round(1)
    found = reward_report(*rm_bench(scores)).benchmark
    assert found is not None and found.name == "RM-Bench" and isinstance(found.numbers, StyleMatrix)
    domain = np.array([0, 1, 2, 2] * 3)[:11]
    for one in range(3):
        for other in range(3):
            wins = scores[:, one] > scores[:, 3 + other]
            expected = np.mean([wins[domain == number].mean() for number in range(3)])
            assert found.numbers.accuracy[one][other].value == pytest.approx(expected)


def test_reward_bench_2_is_best_of_four_and_half_of_a_tied_pair_is_left_out() -> None:
    words = tuple(Response(word) for word in "abcd")
    factual = [Preference(f"f{at}", PROMPT, words, (0, 1, 1, 1), group="Factuality") for at in range(3)]
    ties = [
        Preference(f"{kind}:{number}", PROMPT, words, ranks, group="Ties")
        for number in (1, 2)
        for kind, ranks in (("tied", (0, 0, 1, 1)), ("ref", (0, 1, 1, 1)))
    ]
    data = listed([*factual, *ties], "rewardbench-2")
    values = {(record.id, at): float((at * 7 + len(record.id)) % 4) for record in data for at in range(4)}
    values |= {("f0", at): 4.0 - at for at in range(4)}
    whole = reward_report(data, given(data, values)).benchmark
    assert whole is not None and isinstance(whole.numbers, RewardBench2Score) and whole.left_out == 0
    wins = [best_of_four([values[record.id, at] for at in range(4)]) for record in factual]
    assert whole.numbers.subsets["Factuality"].value == pytest.approx(np.mean(wins))
    del values["ref:2", 3]
    half = reward_report(data, given(data, values)).benchmark
    assert half is not None and isinstance(half.numbers, RewardBench2Score)
    assert half.left_out == 2 and half.numbers.ties is not None and half.numbers.ties.score.n == 1


def test_vl_reward_bench_groups_by_id_whatever_the_records_say() -> None:
    names = ("mathverse_1", "RLAIF-V-2", "wildvision-3")
    records = [Preference(name, PROMPT, (Response("a"), Response("b")), (1, 0)) for name in names]
    data = listed(records, "vl-rewardbench")
    found = reward_report(data, given(data, {(name, at): float(at) for name in names for at in (0, 1)})).benchmark
    assert found is not None and isinstance(found.numbers, GroupedAccuracy)
    assert set(found.numbers.groups) == {"reasoning", "hallucination", "general"} and found.numbers.macro.value == 1.0


def test_vl_reward_bench_as_a_table_has_its_groups_in_a_column() -> None:
    groups = ("reasoning", "hallucination", "hallucination", "general")
    records = [
        Preference(str(at), PROMPT, (Response("a"), Response("b")), (1, 0), group=group)
        for at, group in enumerate(groups)
    ]
    data = listed(records, "vl-rewardbench-tsv")
    scores = {(str(row), at): float(at if row else -at) for row in range(4) for at in (0, 1)}
    found = reward_report(data, given(data, scores)).benchmark
    assert found is not None and isinstance(found.numbers, GroupedAccuracy)
    assert {name: group.value for name, group in found.numbers.groups.items()} == {
        "reasoning": 0.0,
        "hallucination": 1.0,
        "general": 1.0,
    }
    assert found.numbers.macro.value == pytest.approx(2 / 3)


def test_a_question_with_an_unscored_pair_is_not_right_as_a_whole() -> None:
    records = [
        Preference(name, PROMPT, (Response("a"), Response("b")), (1, 0), group="mcq", base=name[0])
        for name in ("q1", "q2", "r1")
    ]
    data = listed(records, "mm-rlhf-rewardbench")
    scores = {(name, at): float(at if name == "q1" else -at) for name in ("q1", "r1") for at in (0, 1)}
    found = reward_report(data, given(data, scores)).benchmark
    assert found is not None and isinstance(found.numbers, AccuracyAndPlus)
    assert found.left_out == 2 and found.numbers.plus.micro.n == 1 and found.numbers.plus.micro.value == 0.0


def test_sources_are_told_apart_and_the_report_is_plain_json() -> None:
    data = drawn_preferences(6)
    other = tuple(replace(record, id=f"o-{record.id}", source="other") for record in data)
    data = replace(data, records=(*data.records, *other))
    scores = score_preferences(looking, data, (AS_IS, *VIEWS))
    found = reward_report(data, scores, score_preferences(by_length, data, [AS_IS], name="text only"))
    assert found.sources is not None and set(found.sources.groups) == {"drawn", "other"}
    plain = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert plain["scorer"] == "looking" and plain["views"]["blank"]["change"]["drop"]["n"] == 12
    assert plain["pairs"]["rulers"]["rulers"]["longer"]["n"] == 12 and plain["degradation"]["n_plus"] >= 0
    assert repr(found).startswith("Report(looking: accuracy 1.000") and isinstance(found, Report)


def test_without_any_scored_pair_the_reason_is_said() -> None:
    data = drawn_preferences(2)

    def never(*_: object) -> float:
        raise InputError("out of order: come back")

    with pytest.raises(InputError, match="none of 2 pairs has a score on both sides: out of order"):
        reward_report(data, score_preferences(CallableScorer(never), data, [AS_IS], skip=True))


def test_transfer_is_the_accuracy_of_each_cell() -> None:
    tests = {"colour": drawn_preferences(10), "length": drawn_preferences(10, seed=5)}
    scorers = {"colour": looking, "length": by_length}
    scores = {
        (train, test): [score_preferences(scorers[train], tests[test], [AS_IS])] * 2
        for train in tests
        for test in tests
    }
    found = transfer_of_scores(scores, tests)
    for train, test, cell in found:
        report = reward_report(tests[test], scores[train, test][0])
        assert cell.value == pytest.approx(report.pairs.accuracy.micro.value) and cell.n == 2
    assert found.values()[0].tolist() == [1.0, 1.0] and found.values()[1, 0] < 1.0


def test_a_transfer_matrix_with_holes_is_refused() -> None:
    tests = {"a": drawn_preferences(2), "b": drawn_preferences(2, seed=1)}
    whole = {(one, two): [score_preferences(looking, tests[two], [AS_IS])] for one in tests for two in tests}
    with pytest.raises(InputError, match=r"needs each cell: missing \[\('a', 'b'\)\]"):
        transfer_of_scores({key: value for key, value in whole.items() if key != ("a", "b")}, tests)
    with pytest.raises(InputError, match=r"cells have \[1, 2\] seeds"):
        transfer_of_scores({**whole, ("a", "b"): whole["a", "b"] * 2}, tests)
    holed = replace(whole["a", "b"][0], rows=whole["a", "b"][0].rows[1:])
    with pytest.raises(InputError, match=r"a on b: 1 of 2 pairs have no score on both sides \(the first: pair-0\)"):
        transfer_of_scores({**whole, ("a", "b"): [holed]}, tests)
