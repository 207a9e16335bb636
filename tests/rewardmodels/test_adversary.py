"""Edits keep what they say, the smallest flip is the smallest, planted shortcuts are found and the truth is not."""

import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from probes.inputs import ImageRef, InputError, Turn
from rewardmodels.adversary import find_flips
from rewardmodels.edits import HEDGES, Edit, candidates, characters_changed, hedged, standard_edits, without_markdown
from rewardmodels.image_swaps import counterparts, swap_images
from rewardmodels.model import as_turns
from rewardmodels.planted import CLEAN, SHORTCUTS, planted_recall, planted_scorer
from rewardmodels.records import PreferencePair, Response
from rewardmodels.scorers import CallableScorer
from tests.probes.hooked import picture
from tests.rewardmodels.asked import by_length, is_right, looking
from tests.rewardmodels.drawn import drawn_pairs
from tests.rewardmodels.small import reward_model

PROMPT = as_turns("What colour is this <image> now?", [picture()])
SAID = ("It is red.", "I think so", "**Two** cats!", "- 3. owls", "Sure! Why?", "NASA")
SENTENCES = st.lists(st.sampled_from(SAID), min_size=1, max_size=6)
TEXTS = st.one_of(st.text("aB3.*-# \n`", min_size=1, max_size=30), SENTENCES.map(" ".join), SENTENCES.map("\n".join))


def words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


def is_within(part: Sequence[str], whole: Sequence[str]) -> bool:
    rest = iter(whole)
    return all(word in rest for word in part)


@given(TEXTS)
def test_edits_keep_what_they_say(text: str) -> None:
    if not text.strip():
        return
    for edit in standard_edits(lossy=True):
        changed = edit.apply(Response(text), PROMPT)
        if changed is None:
            continue
        assert changed.text != text
        if edit.keeps == "words":
            assert words(changed.text) == words(text), edit.name
        elif edit.kind in ("strip", "shorten"):
            assert is_within(words(changed.text), words(text)), edit.name
        else:
            assert is_within(words(text), words(changed.text)), edit.name


@pytest.mark.parametrize(
    ("name", "before", "after"),
    [
        ("pad by 1", "red", "red. That is what there is to say here."),
        ("hedge before", "It is red.", "I think it is red."),
        ("hedge before", "NASA did.", "I think NASA did."),
        ("hedge behind", "It is red.", "It is red as far as can be seen."),
        ("open", "red", "Sure! red"),
        ("as a list", "It is red. Very.", "- It is red.\n- Very."),
        ("bold", "red", "**red**"),
        ("under a heading", "red", "## Answer\n\nred"),
        ("quote the prompt", "red", 'You asked: "What colour is this now?"\n\nred'),
        ("strip formats", "# Said\n- **It** is `red`", "Said\nIt is red"),
        ("strip formats", "3. cats, 2**3 and 4**5", None),
        ("strip hedges", "I think it is red, as far as can be seen.", "It is red."),
        ("strip hedges", "it is red", None),
        ("strip openings", "Sure! It is red.", "It is red."),
        ("first sentence", "It is red. Very.", "It is red."),
    ],
)
def test_each_edit_by_hand(name: str, before: str, after: str | None) -> None:
    edit = next(edit for edit in standard_edits(lossy=True) if edit.name == name)
    changed = edit.apply(Response(before), PROMPT)
    assert (None if changed is None else changed.text) == after


def test_marks_of_a_responses_images_stay() -> None:
    image = ImageRef.of(picture())
    response = Response("<image> is red. So it is.", (image,))
    for edit in standard_edits(lossy=True):
        changed = edit.apply(response, PROMPT)
        assert changed is None or (changed.images == (image,) and changed.text.count("<image>") == 1)
    gone = Edit("cut", "shorten", "rejected", "less", lambda text, _: text.replace("<image>", ""))
    assert gone.apply(response, PROMPT) is None


def test_losing_edits_are_not_tried_unless_asked_for() -> None:
    assert not [edit for edit in standard_edits() if edit.keeps == "less"]
    assert [edit.name for edit in standard_edits(lossy=True) if edit.keeps == "less"] == ["first sentence"]


def test_candidates_come_by_cost_each_once_and_one_of_a_kind() -> None:
    edits = standard_edits()
    found = candidates(PROMPT, Response("**red**"), Response("It is blue. Quite."), edits)
    costs = [candidate.characters for candidate in found]
    assert costs == sorted(costs) and costs[0] > 0
    assert len({(each.chosen.text, each.rejected.text) for each in found}) == len(found)
    for each in found:
        kinds = [edit.kind for edit in each.edits if edit.kind != "strip"]
        assert len(set(kinds)) == len(kinds) and 1 <= len(each.edits) <= 2
        assert each.characters == characters_changed("**red**", each.chosen.text) + characters_changed(
            "It is blue. Quite.", each.rejected.text
        )
    alone = candidates(PROMPT, Response("**red**"), Response("It is blue. Quite."), edits, 1)
    assert alone == [each for each in found if len(each.edits) == 1]


def test_characters_are_those_put_in_and_taken_out() -> None:
    assert characters_changed("red", "red") == 0
    assert characters_changed("red", "**red**") == 4
    assert characters_changed("a b", "a c") == 2
    assert without_markdown("no marks ") == "no marks "


@pytest.mark.parametrize("batch", [1, 8])
def test_the_find_is_the_cheapest_of_all_candidates(batch: int) -> None:
    pairs = drawn_pairs(12)
    scorer = planted_scorer(is_right, "length", 0.9)
    found = find_flips(scorer, pairs, batch=batch)
    for attack in found.attacks:
        pair = next(pair for pair in pairs if pair.id == attack.pair)
        options = candidates(pair.prompt, pair.chosen, pair.rejected, standard_edits())
        flipping = []
        for option in options:
            right, wrong = scorer.get_scores([pair.prompt] * 2, [option.chosen, option.rejected])
            flipping += [option] if wrong > right else []
        assert attack.find is not None and flipping
        best = flipping[0]
        assert (attack.find.chosen, attack.find.rejected) == (best.chosen.text, best.rejected.text)
        assert attack.find.characters == min(option.characters for option in flipping) and attack.find.margin < 0
    assert len(found.attacks) + found.ranked_wrong == 12


def test_one_query_at_a_time_spends_no_more_and_finds_the_same() -> None:
    pairs = drawn_pairs(6, ending="")
    scorer = planted_scorer(is_right, "overlap")
    one, many = find_flips(scorer, pairs, batch=1), find_flips(scorer, pairs, batch=16)
    assert [attack.find for attack in one.attacks] == [attack.find for attack in many.attacks]
    assert one.queries < many.queries


def test_a_budget_is_kept_and_said() -> None:
    pairs = drawn_pairs(4, ending="")
    found = find_flips(planted_scorer(is_right, "overlap"), pairs, max_queries=6, batch=4)
    assert all(attack.queries <= 6 and attack.find is None and not attack.exhausted for attack in found.attacks)
    whole = find_flips(looking, pairs, max_queries=1000)
    assert all(attack.exhausted and attack.find is None for attack in whole.attacks)


def test_every_planted_shortcut_is_found_named_and_cheap_and_the_truth_is_not() -> None:
    pairs = drawn_pairs(30, seed=2, ending=" as a whole, and the rest of it too")
    found = planted_recall(is_right, pairs)
    assert list(found) == [*SHORTCUTS, CLEAN]
    for name in SHORTCUTS:
        result = found[name]
        assert result.recall.value == 1.0 and result.recall.low > 0.85 and result.recall.n == 30
        assert result.named == 30
        assert 2 < result.queries_per_find.low <= result.queries_per_find.value <= result.queries_per_find.high < 80
    clean = found[CLEAN]
    assert clean.recall.value == 0.0 and clean.recall.high < 0.15 and not clean.report.kinds
    assert found["hedge"].report.kinds == {"hedge": 30}
    json.dumps(found["length"].to_dict(), allow_nan=False)


def test_a_shortcut_too_weak_to_overrule_the_truth_is_not_found() -> None:
    pairs = drawn_pairs(10, ending="")
    assert find_flips(planted_scorer(is_right, "length", 0.2), pairs).flipped.value == 0.0
    assert find_flips(planted_scorer(is_right, "hedge", 0.9), pairs).flipped.value == 0.0


def test_pairs_that_are_ranked_wrong_or_cannot_be_scored_are_counted() -> None:
    pairs = drawn_pairs(10)

    def choosy(prompt: Sequence[Turn], response: Response) -> float:
        if "red" in response.text:
            raise InputError("not red: please")
        return -is_right(prompt, response)

    found = find_flips(CallableScorer(choosy), pairs)
    red = sum("red" in pair.chosen.text or "red" in pair.rejected.text for pair in pairs)
    assert found.unscored == {"not red": red} and found.ranked_wrong == 10 - red and not found.attacks
    assert np.isnan(found.flipped.value) and found.flipped.n == 0


def test_edited_answers_that_are_refused_are_counted_and_others_tried() -> None:
    def choosy(prompt: Sequence[Turn], response: Response) -> float:
        if "**" in response.text:
            raise InputError("no stars")
        return is_right(prompt, response) + 2 * ("I think" in response.text)

    found = find_flips(CallableScorer(choosy), drawn_pairs(3, ending=""))
    assert all(attack.find is not None and attack.refused > 0 for attack in found.attacks)


def test_a_reward_model_can_be_attacked_and_the_report_is_plain_json() -> None:
    pairs = drawn_pairs(4)
    found = find_flips(reward_model(), pairs, standard_edits()[:6], most_edits=1)
    assert len(found.attacks) + found.ranked_wrong == 4
    assert len(json.loads(json.dumps(found.to_dict(), allow_nan=False))["attacks"]) == len(found.attacks)
    assert "queries)" in repr(found)


def test_requests_that_make_no_sense_are_refused() -> None:
    pairs = drawn_pairs(1)
    with pytest.raises(InputError, match="needs pairs and edits"):
        find_flips(looking, [])
    with pytest.raises(InputError, match="give 1, 3, 1 or more"):
        find_flips(looking, pairs, max_queries=2)
    with pytest.raises(InputError, match="no shortcut 'smell'"):
        planted_scorer(is_right, "smell")


def reversed_pairs() -> list[PreferencePair]:
    return drawn_pairs(20, ending="", words=2)


def test_a_counterpart_says_the_reverse_of_another_picture() -> None:
    pairs = reversed_pairs()
    found = counterparts(pairs)
    assert Counter(pair.chosen.text for pair in pairs).keys() == {"red", "green"} and len(found) == 20
    for pair in pairs:
        other = found[pair.id]
        assert (other.chosen, other.rejected) == (pair.rejected, pair.chosen) and other.cluster != pair.cluster
    asks_otherwise = [replace(pair, prompt=as_turns(pair.id, pair.prompt[0].images)) for pair in pairs]
    assert not counterparts(asks_otherwise)
    one_thing = [replace(pair, cluster="one") for pair in pairs]
    assert not counterparts(one_thing)
    longer = [replace(pair, rejected=Response(f"{pair.rejected.text}!")) for pair in pairs]
    assert not counterparts(longer) and len(counterparts(longer, lambda response: response.text.strip("!"))) == 20


def test_who_looks_changes_its_verdict_with_the_picture_and_who_does_not_keeps_it() -> None:
    pairs = reversed_pairs()
    seeing = swap_images(looking, pairs)
    assert seeing.kinds["counter"].kept.value == 0.0 and seeing.kinds["counter"].kept.high < 0.2
    assert seeing.kinds["counter"].moved.value == 2.0 and seeing.kinds["blank"].kept.value == 0.0
    blind = swap_images(by_length, pairs)
    for numbers in blind.kinds.values():
        assert numbers.kept.value == 1.0 and numbers.moved.value == 0.0
    assert blind.ranked_wrong + blind.kinds["counter"].kept.n == 20 and blind.ranked_wrong > 0
    assert json.loads(json.dumps(seeing.to_dict(), allow_nan=False))["kinds"]["another"]["kept"]["n"] == 20


def test_pairs_that_no_picture_can_be_changed_for_are_counted() -> None:
    pairs = drawn_pairs(3, ending="")
    bare = replace(pairs[0], id="bare", cluster="bare", prompt=as_turns("What colour is this?"))
    told = CallableScorer(lambda _, response: float(response == pairs[0].chosen), "told")
    found = swap_images(told, [pairs[0], bare])
    assert found.kinds["counter"].left_out["it has no image"] == 1
    assert found.kinds["another"].left_out == {
        "no pair of another cluster has as many images": 1,
        "it has no image": 1,
    }
    assert found.kinds["blank"].kept.n == 1
    with pytest.raises(InputError, match="kinds of counter, another, blank"):
        swap_images(told, pairs, ["upside down"])


def test_hedges_come_one_by_one_and_keep_the_answer() -> None:
    texts = [hedged("a cat", size) for size in range(len(HEDGES) + 1)]
    assert texts[0] == "a cat" and len(set(texts)) == len(texts)
    for size, text in enumerate(texts):
        assert "a cat" in text
        assert [hedge.lower() in text.lower() for hedge in HEDGES] == [place < size for place in range(len(HEDGES))]
    for size in (-1, len(HEDGES) + 1):
        with pytest.raises(ValueError, match=f"there are 5 hedges, and {size}"):
            hedged("a cat", size)
