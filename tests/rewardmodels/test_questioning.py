"""Every response is scored under every view, kept shard by shard, and gone on with where it stopped."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from probes.inputs import ImageRef, InputError, Turn
from rewardmodels.model import as_turns
from rewardmodels.questioning import ALL_VIEWS, TEXT, question_count, score_preferences
from rewardmodels.records import Preference, Response
from rewardmodels.scorers import CallableScorer, Scorer, verdicts
from rewardmodels.scores import AS_IS, Scores, count_reasons, read_rows
from rewardmodels.views import PAPER_BLANK, PAPER_VIEW, VIEWS, blanked, without_images
from tests.probes.hooked import picture
from tests.rewardmodels.asked import FirstJudge, by_length, drawn_preferences, looking
from tests.rewardmodels.small import reward_model


class Counting:
    """Scores by length, remembers what it saw, and can fail or stop."""

    name = "counting"

    def __init__(self, refuses: str = "", stops_after: int | None = None) -> None:
        self.seen: list[tuple[Sequence[Turn], Response]] = []
        self.refuses = refuses
        self.stops_after = stops_after

    def get_scores(self, prompts: Sequence[Sequence[Turn]], responses: Sequence[Response]) -> list[float]:
        if self.stops_after is not None and len(self.seen) >= self.stops_after:
            raise KeyboardInterrupt
        for response in responses:
            if self.refuses and self.refuses in response.text:
                raise InputError(f"{self.refuses}: not to be said")
        self.seen += zip(prompts, responses, strict=True)
        return [float(len(response.text)) for response in responses]


def test_a_reward_model_is_a_scorer_and_its_scores_are_kept_with_what_they_are_of() -> None:
    model: Scorer = reward_model()
    data = drawn_preferences(4)
    found = score_preferences(model, data, [AS_IS, "blank", "removed"])
    assert found.views == (AS_IS, "blank", "removed") and not found.failed and not found.left_out
    for view, changed in ((AS_IS, tuple), ("blank", blanked), ("removed", without_images)):
        for record in data:
            for place, response in enumerate(record.responses):
                expected = model.get_scores([changed(record.prompt)], [response])[0]
                assert found.under(view)[record.id, place] == pytest.approx(expected, abs=1e-5)
    assert len({round(score, 4) for score in found.under(AS_IS).values()}) == len(found.under(AS_IS))
    row = next(row for row in found.rows if row.record == "pair-1" and row.place == 1)
    record = data.records[1]
    tokenizer = reward_model().processor.tokenizer
    assert row.characters == len(record.responses[1].text)
    assert row.tokens == len(tokenizer(record.responses[1].text, add_special_tokens=False)["input_ids"])
    assert (row.group, row.source, row.cluster) == (record.group, "drawn", "pair-1")
    assert row.image_digests == (record.images[0].digest,)


def test_views_show_what_they_say() -> None:
    data = drawn_preferences(6)
    scorer = Counting()
    found = score_preferences(scorer, data, VIEWS, seed=3)
    assert len(scorer.seen) == len(found.rows) == 36
    shown = dict(zip([(row.view, row.record, row.place) for row in found.rows], scorer.seen, strict=True))
    for (view, name, place), (prompt, response) in shown.items():
        record = next(record for record in data if record.id == name)
        assert response == record.responses[place]
        images = [image for turn in prompt for image in turn.images]
        if view == "blank":
            assert (np.asarray(images[0].open()) == 255).all() and images[0].size() == record.images[0].size()
        elif view == "removed":
            assert not images and prompt[-1].text == "What colour is this?"
        else:
            assert images[0] in [other.images[0] for other in data if other.id != name]
    digests = {row.image_digests for row in found.rows if row.view == "removed"}
    assert digests == {()}
    both = [row.image_digests for row in found.rows if row.view == "shuffled" and row.record == "pair-0"]
    assert both[0] == both[1] != (data.records[0].images[0].digest,)
    again = score_preferences(Counting(), data, ["shuffled"], seed=4)
    assert {row.image_digests for row in again.rows} == {
        row.image_digests for row in found.rows if row.view == "shuffled"
    }


def test_the_paper_s_blank_images_have_its_size() -> None:
    data = drawn_preferences(3)
    assert all(image.size() != PAPER_BLANK for record in data for image in record.images)
    scorer = Counting()
    found = score_preferences(scorer, data, [PAPER_VIEW])
    assert len(found.under(PAPER_VIEW)) == 6 and not found.left_out
    for prompt, _ in scorer.seen:
        (image,) = [image for turn in prompt for image in turn.images]
        assert image.size() == PAPER_BLANK and (np.asarray(image.open()) == 255).all()


def test_what_cannot_be_shown_is_left_out_by_name() -> None:
    data = drawn_preferences(3)
    lone = replace(data.records[0], id="two", prompt=as_turns("Which?", [picture(seed=1), picture(seed=2)]))
    wordless = replace(data.records[0], id="wordless", prompt=as_turns("<image>", [picture(seed=3)]))
    bare = replace(data.records[0], id="bare", prompt=as_turns("Which?"))
    data = replace(data, records=(*data.records, lone, wordless, bare))
    found = score_preferences(by_length, data, (AS_IS, *VIEWS))
    told = {view: {bad.id: bad.error for bad in left} for view, left in found.left_out.items()}
    assert told == {
        "blank": {"bare": "it has no image"},
        "removed": {"bare": "it has no image", "wordless": "the prompt is an image without words"},
        "shuffled": {"bare": "it has no image", "two": "no record of another cluster has as many images"},
    }
    assert len(found.under(AS_IS)) == 12 and len(found.under("shuffled")) == 8
    assert question_count(by_length, data, (AS_IS, *VIEWS)) == len(found.rows)


def test_records_of_one_thing_do_not_lend_each_other_images() -> None:
    found = score_preferences(by_length, drawn_preferences(3, base="one"), ["shuffled"])
    assert not found.rows and len(found.left_out["shuffled"]) == 3


def test_text_alone_takes_the_images_of_responses_too() -> None:
    image = ImageRef.of(picture(seed=5))
    words = Response("<image> this one", (image,))
    record = Preference("a", as_turns("Draw <image> again", [picture()]), (words, Response("none")), (0, 1))
    data = replace(
        drawn_preferences(1), records=(record, replace(record, id="b", responses=(words, Response("", (image,)))))
    )
    scorer = Counting()
    found = score_preferences(scorer, data, [TEXT, "removed"])
    assert [bad.id for bad in found.left_out[TEXT]] == ["b"] and "removed" not in found.left_out
    assert scorer.seen[0] == (as_turns("Draw again"), Response("this one"))
    assert scorer.seen[2] == (as_turns("Draw again"), words)


def test_a_stopped_run_goes_on_where_it_stopped(tmp_path: Path) -> None:
    data = drawn_preferences(8)
    whole = score_preferences(Counting(), data, folder=tmp_path / "whole", shard=5)
    stopping = Counting(stops_after=15)
    with pytest.raises(KeyboardInterrupt):
        score_preferences(stopping, data, folder=tmp_path / "run", shard=5)
    assert len(list((tmp_path / "run" / "scores").glob("part-*.parquet"))) == 3
    rest = Counting()
    steps: list[int] = []
    again = score_preferences(rest, data, folder=tmp_path / "run", shard=5, advance=steps.append)
    assert again == whole and len(rest.seen) == len(whole.rows) - 15 and sum(steps) == len(whole.rows) == 64
    for part in (tmp_path / "whole" / "scores").iterdir():
        assert read_rows(part) == read_rows(tmp_path / "run" / "scores" / part.name)
    idle = Counting()
    assert score_preferences(idle, data, folder=tmp_path / "run", shard=5) == whole and not idle.seen


@pytest.mark.parametrize(
    ("changes", "named"),
    [({"name": "other"}, "scorer"), ({"seed": 1}, "seed"), ({"views": [AS_IS]}, "views"), ({"shard": 4}, "shard")],
)
def test_other_work_in_a_folder_is_refused(tmp_path: Path, changes: dict[str, Any], named: str) -> None:
    data = drawn_preferences(2)
    score_preferences(by_length, data, folder=tmp_path / "run")
    with pytest.raises(InputError, match=rf"holds other work: .*{named}"):
        score_preferences(by_length, data, **{"folder": tmp_path / "run", **changes})


def test_other_weights_are_other_work(tmp_path: Path) -> None:
    data = drawn_preferences(2)
    first = score_preferences(reward_model(), data, [AS_IS], folder=tmp_path / "run")
    assert score_preferences(reward_model(), data, [AS_IS], folder=tmp_path / "run") == first
    other = reward_model(seed=1)
    assert repr(other) == repr(reward_model()), "their names do not tell them apart"
    with pytest.raises(InputError, match="holds other work: weights differ"):
        score_preferences(other, data, [AS_IS], folder=tmp_path / "run")


def test_other_words_or_pixels_are_other_work_and_a_strange_folder_is_left_alone(tmp_path: Path) -> None:
    data = drawn_preferences(2)
    score_preferences(by_length, data, folder=tmp_path / "run")
    first = data.records[0]
    for changed in (
        replace(first, responses=(Response("pink"), first.responses[1])),
        replace(first, prompt=as_turns(first.prompt[0].text, [picture(seed=9)])),
    ):
        with pytest.raises(InputError, match="data differ"):
            score_preferences(by_length, replace(data, records=(changed, data.records[1])), folder=tmp_path / "run")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").write_text("")
    with pytest.raises(InputError, match=r"is not empty and holds no plan\.json"):
        score_preferences(by_length, data, folder=tmp_path / "other")
    part = next((tmp_path / "run" / "scores").iterdir())
    part.write_bytes(b"half")
    with pytest.raises(InputError, match=r"part-000000.parquet cannot be read .*: delete it"):
        score_preferences(by_length, data, folder=tmp_path / "run")


def test_a_response_that_cannot_be_scored_is_named_or_counted_and_asked_again(tmp_path: Path) -> None:
    data = drawn_preferences(8)
    with pytest.raises(InputError, match=r"records pair-0 \(as it is\) to pair-7: green: not to be said"):
        score_preferences(Counting(refuses="green"), data, [AS_IS])
    found = score_preferences(Counting(refuses="green"), data, [AS_IS], folder=tmp_path / "run", skip=True)
    expected = {(record.id, at) for record in data for at, said in enumerate(record.responses) if "green" in said.text}
    assert {(row.record, row.place) for row in found.failed} == expected and 0 < len(expected) < 16
    assert {row.error for row in found.failed} == {"green: not to be said"}
    mended = Counting()
    again = score_preferences(mended, data, [AS_IS], folder=tmp_path / "run", skip=True, retry_failed=True)
    assert len(mended.seen) == len(expected) and not again.failed
    assert again.under(AS_IS) == score_preferences(Counting(), data, [AS_IS]).under(AS_IS)


def test_what_a_model_cannot_read_is_counted_by_reason() -> None:
    prompts = [as_turns("What?", [ImageRef(data=data)]) for data in (b"broken", b"broken too")]
    prompts.append(as_turns("What?", [picture(seed=0)]))
    found = verdicts(
        reward_model(max_length=60), prompts, [Response("a"), Response("b"), Response("w " * 99)], skip=True
    )
    reasons = count_reasons(verdict.error for verdict in found)
    assert reasons == {"no image, or one broken at its start": 2, "too long": 1}


def test_an_image_that_cannot_be_shown_is_counted() -> None:
    data = drawn_preferences(3)
    broken = replace(data.records[0], prompt=as_turns("What?", [ImageRef(data=b"broken")]))
    data = replace(data, records=(broken, *data.records[1:]))
    found = score_preferences(looking, data, [AS_IS, "blank"], skip=True)
    assert {(row.record, row.view) for row in found.failed} == {("pair-0", AS_IS), ("pair-0", "blank")}
    with pytest.raises(InputError, match=r"record pair-0, blank: image"):
        score_preferences(looking, data, ["blank"])


def test_a_judge_of_pairs_sees_both_orders_and_margins_are_the_better_answers() -> None:
    data = drawn_preferences(5)
    judge = FirstJudge(looks=False)
    found = score_preferences(judge, data, [AS_IS])
    assert found.compared and judge.asked == 10 == question_count(judge, data, [AS_IS])
    assert {(row.place, row.score) for row in found.rows} == {(0, 1.0), (1, -1.0)}
    right = score_preferences(FirstJudge(looks=True), data, [AS_IS, "blank"])
    assert {(row.place, row.score) for row in right.rows if row.view == AS_IS} == {(0, 1.0), (1, 1.0)}


def test_scores_are_written_and_read_again(tmp_path: Path) -> None:
    found = score_preferences(Counting(refuses="red"), drawn_preferences(3), skip=True)
    found.write(tmp_path / "scores.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "scores.jsonl").read_text().splitlines()]
    assert [row["score"] for row in rows] == [row.score for row in found.rows]
    found.write(tmp_path / "scores.parquet")
    assert tuple(read_rows(tmp_path / "scores.parquet")) == found.rows
    with pytest.raises(InputError, match=r"written as .jsonl or .parquet"):
        found.write(tmp_path / "scores.csv")


def test_questions_that_make_no_sense_are_refused() -> None:
    data = drawn_preferences(1)
    for views in ([], ["upside down"], [AS_IS, AS_IS]):
        with pytest.raises(InputError, match=f"give each once, of {', '.join(ALL_VIEWS)}"):
            score_preferences(by_length, data, views)
    with pytest.raises(InputError, match="there is no record to score: drawn here"):
        score_preferences(by_length, replace(data, records=()))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "high", None])
def test_what_a_callable_gives_must_be_a_finite_number(value: Any) -> None:
    scorer = CallableScorer(lambda *_: value, "odd")
    with pytest.raises(InputError, match=r"odd gives .*, which is no (finite )?number"):
        scorer.get_scores([as_turns("Q")], [Response("a")])


def test_scores_of_another_number_or_none_are_refused() -> None:
    class Giving:
        name = "giving"

        def __init__(self, *scores: float) -> None:
            self.scores = scores

        def get_scores(self, *_: object) -> list[float]:
            return list(self.scores)

    missing = Giving(1.0, float("nan"))
    two = [as_turns("Q")] * 2, [Response("a"), Response("b")]
    with pytest.raises(InputError, match="giving gives 1 scores for 2 responses"):
        verdicts(Giving(1.0), *two)
    with pytest.raises(InputError, match="response 1: its score is nan"):
        verdicts(missing, *two)
    assert [verdict.error for verdict in verdicts(missing, *two, skip=True)] == ["", "its score is nan"]


def test_a_repr_says_what_there_is() -> None:
    found = score_preferences(Counting(refuses="red"), drawn_preferences(3), [AS_IS, "blank"], skip=True)
    assert repr(found).startswith("Scores(counting: 6 as it is, 6 blank;") and isinstance(found, Scores)
