"""VL-RewardBench and MM-RLHF-RewardBench: groups by id, averages by hand, questions right as a whole."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewardmodels.benchmarks import mm_rlhf_reward_bench, vl_reward_bench, vl_reward_bench_group

GROUP_OF = {
    "hallucination_pair-1003": "hallucination",
    "RLAIF-V-101": "hallucination",
    "RLHF-V-7": "hallucination",
    "rlhf-v-7": "hallucination",
    "mathverse_1522": "reasoning",
    "mmmu_pro_test_Art_14": "reasoning",
    "mmmu_pro_validation_Physics_2": "reasoning",
    "wildvision-battle-3": "general",
    "jailbreak-typo-Physical_Harm-1": "general",
    "LRVInstruction-000000": "general",
    "svit-conversation-1": "general",
}


@pytest.mark.parametrize(("record_id", "group"), GROUP_OF.items())
def test_groups_of_ids(record_id: str, group: str) -> None:
    assert vl_reward_bench_group(record_id) == group


def test_a_rule_in_lower_case_misplaces_ids() -> None:
    def released(record_id: str) -> str:
        if "mmmu" in record_id or "mathverse" in record_id:
            return "reasoning"
        words = ("hallucination", "rlhf", "rlaif")
        return "hallucination" if any(word in record_id for word in words) else "general"

    wrong = {record_id for record_id, group in GROUP_OF.items() if released(record_id) != group}
    assert wrong == {"RLAIF-V-101", "RLHF-V-7"}


def test_vl_reward_bench_overall_and_macro_by_hand() -> None:
    """VLMEvalKit's published run of gpt-4o-2024-11-20: its group scores, macro accuracy and overall."""
    right = {"general-": (98, 183), "RLAIF-V-": (564, 749), "mmmu": (215, 318)}
    ids = [f"{start}{number}" for start, (_, size) in right.items() for number in range(size)]
    wins = [number < hits for hits, size in right.values() for number in range(size)]
    found = vl_reward_bench(ids, wins, [not win for win in wins])
    assert found.groups["hallucination"].value == pytest.approx(0.753004, abs=5e-7)
    assert found.groups["reasoning"].value == pytest.approx(0.676101, abs=5e-7)
    assert found.groups["general"].value == pytest.approx(0.535519, abs=5e-7)
    assert found.macro.value == pytest.approx(0.654875, abs=5e-7)
    assert found.micro.value == pytest.approx(0.7016, abs=5e-5)


PAIRS = st.lists(st.tuples(st.sampled_from("qrst"), st.integers(0, 2), st.integers(0, 2)), min_size=1, max_size=20)


@given(PAIRS)
def test_plus_needs_every_pair_of_a_question(pairs: list[tuple[str, int, int]]) -> None:
    ids = [question for question, _, _ in pairs]
    found = mm_rlhf_reward_bench(ids, ["mcq"] * len(ids), [pair[1] for pair in pairs], [pair[2] for pair in pairs])
    whole = [all(better > worse for q, better, worse in pairs if q == question) for question in set(ids)]
    assert found.plus.micro.value == pytest.approx(sum(whole) / len(whole))
    assert found.plus.micro.n == len(set(ids)) == found.accuracy.micro.clusters
    assert found.plus.micro.value < 1.0 or found.accuracy.micro.value == 1.0


def test_plus_is_over_questions_and_a_tie_is_not_right() -> None:
    ids, categories = ["q", "q", "q", "r", "s"], ["mcq", "mcq", "mcq", "long", "long"]
    found = mm_rlhf_reward_bench(ids, categories, [2, 2, 1, 3, 5], [1, 1, 1, 1, 6])
    assert found.accuracy.micro.value == pytest.approx(3.5 / 5)
    assert found.accuracy.groups["mcq"].value == pytest.approx(2.5 / 3)
    assert found.plus.micro.value == pytest.approx(1 / 3)
    assert (found.plus.groups["mcq"].value, found.plus.groups["long"].value) == (0.0, 0.5)
    assert mm_rlhf_reward_bench(ids, categories, [2, 2, 1, 3, 5], [1, 1, 1, 1, 6], ties=0.0).accuracy.micro.value == 0.6
    assert json.loads(json.dumps(found.to_dict()))["plus"]["micro"]["n"] == 3


def test_broken_input_is_refused() -> None:
    with pytest.raises(ValueError, match="'q' has two categories, 'mcq' and 'long'"):
        mm_rlhf_reward_bench(["q", "q"], ["mcq", "long"], [1, 1], [0, 0])
    with pytest.raises(ValueError, match="one label"):
        vl_reward_bench(["mmmu"], [1, 1], [0, 0])
