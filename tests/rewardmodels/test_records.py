import math
import tempfile
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from probes.inputs import ImageRef, InputError, Turn
from rewardmodels import Preference, PreferencePair, Response, read_preferences, write_preferences
from rewardmodels.records import SKIPPED
from tests.studies.published import png

A, B = ImageRef(data=png("red")), ImageRef(data=png("blue"))
PROMPT = (Turn("user", "<image> Which?", (A,)),)
GOOD, POOR = Response("red"), Response("blue")


def preference(**changes: Any) -> Preference:
    values: dict[str, Any] = {"id": "a", "prompt": PROMPT, "responses": (GOOD, POOR), "ranks": (0, 1)}
    return Preference(**{**values, **changes})


class TestResponse:
    @pytest.mark.parametrize(
        ("values", "reason"),
        [
            ({"text": " \n"}, "empty"),
            ({"text": "a <image>"}, "1 <image> mark for 0 images"),
            ({"text": "<image><image>", "images": (A,)}, "2 <image> marks for 1 image"),
            ({"text": "a", "score": math.nan}, "no finite number"),
        ],
    )
    def test_nothing_unusable_is_one(self, values: dict[str, Any], reason: str) -> None:
        with pytest.raises(InputError, match=reason):
            Response(**values)

    def test_an_image_alone_is_an_answer(self) -> None:
        assert Response("", (A,)).parts() == (A,)
        assert Response("see <image>!", (A,)).parts() == ("see ", A, "!")

    def test_white_space_makes_no_difference_and_images_do(self) -> None:
        assert Response(" a  b\n").said() == Response("a b").said()
        assert Response("a b").said() != Response("ab").said()
        assert Response("a", (A,)).said() != Response("a", (B,)).said()


class TestPreference:
    @pytest.mark.parametrize(
        ("changes", "reason"),
        [
            ({"id": " "}, "id is empty"),
            ({"prompt": ()}, "prompt is empty"),
            ({"prompt": (Turn("user", " "),)}, "last turn of the prompt is empty"),
            ({"prompt": (Turn("user", "a"), Turn("assistant", "b"))}, "must be the user's"),
            ({"prompt": (Turn("tool", "a"), Turn("user", "b"))}, "by 'tool'"),
            ({"prompt": (Turn("user", "<image>"),)}, "1 <image> mark for 0 images"),
            ({"prompt": (Turn("user", "<image>", (A, B)),)}, "1 <image> mark for 2 images"),
            ({"responses": (GOOD,), "ranks": (0,)}, "needs two"),
            ({"ranks": (0, 1, 1)}, "3 ranks for 2 responses"),
            ({"ranks": (1, 2)}, "no best"),
            ({"ranks": (0, -1)}, "whole numbers"),
            ({"ranks": (0, True)}, "whole numbers"),
            ({"responses": (GOOD, Response(" red "))}, "say the same"),
            ({"target": 1}, "target"),
            ({"target": -1}, "target"),
            ({"boxes": ((0.0, 0.0, 1.0, 1.0),)}, "no target image"),
            ({"target": 0, "boxes": ((1.0, 0.0, 1.0, 1.0),)}, "not empty"),
            ({"target": 0, "boxes": ((0.0, math.nan, 1.0, 1.0),)}, "not empty"),
            ({"margin": math.inf}, "margin"),
            ({"weight": -1.0}, "weight"),
            ({"weight": math.nan}, "weight"),
        ],
    )
    def test_nothing_unusable_is_one(self, changes: dict[str, Any], reason: str) -> None:
        with pytest.raises(InputError, match=reason):
            preference(**changes)

    def test_equal_responses_may_tie(self) -> None:
        tied = preference(responses=(GOOD, GOOD, POOR), ranks=(0, 0, 1))
        assert (tied.ties, tied.pair_count) == (1, 2)

    def test_a_pair_carries_all_that_its_record_says(self) -> None:
        record = preference(group="g", source="s", base="b", margin=0.5, weight=2.0, target=0)
        assert record.pairs() == (
            PreferencePair("a", PROMPT, GOOD, POOR, "a", "g", "s", "b", margin=0.5, weight=2.0, target=0),
        )
        assert record.images == (A,)
        assert preference().cluster == "a"
        assert len({record, preference(meta={"a": 1})}) == 2

    def test_several_pairs_are_told_apart_by_places(self) -> None:
        record = preference(responses=(POOR, GOOD, Response("green")), ranks=(1, 0, 1))
        assert [pair.id for pair in record.pairs()] == ["a#1-0", "a#1-2"]
        assert {pair.record for pair in record.pairs()} == {"a"}


RANKS = st.lists(st.integers(0, 3), min_size=2, max_size=6).map(
    lambda ranks: tuple(rank - min(ranks) for rank in ranks)
)


def numbered(ranks: tuple[int, ...]) -> Preference:
    return preference(responses=tuple(Response(str(place)) for place in range(len(ranks))), ranks=ranks)


@given(RANKS)
def test_pairs_are_those_of_brute_force(ranks: tuple[int, ...]) -> None:
    record = numbered(ranks)
    wanted = set()
    ties = 0
    for first, second in combinations(range(len(ranks)), 2):
        if ranks[first] == ranks[second]:
            ties += 1
        else:
            wanted.add((first, second) if ranks[first] < ranks[second] else (second, first))
    pairs = record.pairs()
    assert {(int(pair.chosen.text), int(pair.rejected.text)) for pair in pairs} == wanted
    assert len({pair.id for pair in pairs}) == len(pairs) == len(wanted) == record.pair_count
    assert record.ties == ties


@given(st.data())
def test_the_order_of_responses_changes_no_pair(data: st.DataObject) -> None:
    record = numbered(data.draw(RANKS))
    order = data.draw(st.permutations(range(len(record.ranks))))
    moved = preference(
        responses=tuple(record.responses[place] for place in order), ranks=tuple(record.ranks[place] for place in order)
    )

    def said(record: Preference) -> set[tuple[str, str]]:
        return {(pair.chosen.text, pair.rejected.text) for pair in record.pairs()}

    assert said(moved) == said(record)
    assert moved.ties == record.ties


WORDS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="<>"), max_size=9)
NAME = WORDS.filter(lambda text: text.strip() != "")
IMAGES = st.lists(st.sampled_from([A, B]) | st.binary(min_size=1).map(lambda data: ImageRef(data=data)), max_size=2)
FINITE = st.floats(-1e6, 1e6)
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | FINITE | WORDS,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(WORDS, inner, max_size=2),
    max_leaves=4,
)


@st.composite
def turns(draw: st.DrawFn, role: str) -> Turn:
    images = tuple(draw(IMAGES))
    return Turn(role, ("<image>" * len(images) if draw(st.booleans()) else "") + "T" + draw(WORDS), images)


@st.composite
def records(draw: st.DrawFn) -> Preference:
    ranks = draw(RANKS)
    before = draw(st.sampled_from([(), ("system",), ("user", "assistant")]))
    prompt = tuple(draw(turns(role)) for role in (*before, "user"))
    images = sum(len(turn.images) for turn in prompt)
    target = draw(st.none() | st.integers(0, images - 1)) if images else None
    left, top = draw(FINITE), draw(FINITE)
    return Preference(
        id=draw(NAME),
        prompt=prompt,
        responses=tuple(
            Response(f"{place} {draw(WORDS)}", tuple(draw(IMAGES)), draw(WORDS), draw(st.none() | FINITE))
            for place in range(len(ranks))
        ),
        ranks=ranks,
        target=target,
        boxes=() if target is None else ((left, top, left + 1.5, top + 2),),
        group=draw(WORDS),
        source=draw(WORDS),
        base=draw(st.none() | NAME),
        margin=draw(st.none() | FINITE),
        weight=draw(st.floats(0, 1e6)),
        meta=draw(st.dictionaries(WORDS, PLAIN, max_size=2)),
    )


@given(st.lists(records(), min_size=1, max_size=4, unique_by=lambda record: record.id))
def test_records_come_back_from_our_own_lines(written: list[Preference]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "preferences.jsonl"
        write_preferences(path, written)
        read = read_preferences(path)
        write_preferences(path, read)
        again = read_preferences(path)
    assert read.bad == ()
    # Records that show one image are clustered as they are read, and then come back as they are.
    assert [replace(record, base=None) for record in read] == [replace(record, base=None) for record in written]
    images = [image for record in written for turn in record.prompt for image in set(turn.images)]
    if len(set(images)) == len(images):
        assert list(read) == written
    assert list(again) == list(read)
    assert read.format == "sightcheck"


def test_what_json_cannot_say_is_not_half_written(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="record a cannot"):
        write_preferences(tmp_path / "a.jsonl", [preference(meta={"a": object()})])
    assert not list(tmp_path.iterdir())


def test_remarks_of_another_kind_are_no_remarks() -> None:
    assert preference(meta={SKIPPED: "x"}).noted(SKIPPED) == ()
    assert preference(meta={SKIPPED: ["x", 1]}).noted(SKIPPED) == ("x", "1")
