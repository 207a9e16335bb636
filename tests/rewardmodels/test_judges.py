"""Judges behind an endpoint that answers well, nonsense, too busy, broken, never or half; and what they are told."""

import io
import threading
import time
from base64 import b64decode
from typing import Any

import numpy as np
import pytest
from PIL import Image

from probes.inputs import ImageRef, InputError, Turn
from rewardmodels.endpoints import Endpoint, EndpointError
from rewardmodels.judges import PairwiseJudge, PointwiseJudge, rating_of, verdict_of
from rewardmodels.records import Response
from rewardmodels.scorers import PairJudge, Scorer, is_pair_judge, verdicts
from tests.probes.hooked import picture
from tests.rewardmodels.judge_server import Act, Handler, JudgeServer, serving, texts_of

KEY = "sk-secret-of-the-test"


@pytest.fixture(autouse=True)
def no_proxy_and_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)


def endpoint(server: JudgeServer, **changes: Any) -> Endpoint:
    return Endpoint(server.url, "judge", **{"timeout": 5.0, "retries": 1, "backoff": 0.01, **changes})


def prompts(count: int) -> list[tuple[Turn, ...]]:
    return [(Turn("user", f"What is it, {place}?", (ImageRef.of(picture(seed=place)),)),) for place in range(count)]


def responses(count: int) -> list[Response]:
    return [Response(f"number {place}") for place in range(count)]


def saying(text: Any, finish_reason: str = "stop") -> Act:
    return lambda handler, _: handler.say(text, finish_reason)


def test_ratings_come_in_the_questions_order_and_hold_the_images_and_words() -> None:
    def act(handler: Handler, body: dict[str, Any]) -> None:
        number = int(texts_of(body).split("number ")[1].split()[0])
        time.sleep(0.03 * (3 - number))
        handler.say(f"Looks fine.\nRating: {number + 2}")

    with serving(act) as server:
        judge = PointwiseJudge(endpoint(server, concurrency=4))
        assert judge.get_scores(prompts(4), responses(4)) == [2.0, 3.0, 4.0, 5.0]
    assert {asked["path"] for asked in server.asked} == {"/v1/chat/completions"}
    assert all(asked["body"]["model"] == "judge" and asked["key"] is None for asked in server.asked)
    first = next(asked["body"] for asked in server.asked if "What is it, 0?" in texts_of(asked["body"]))
    images = [part["image_url"]["url"] for part in first["messages"][1]["content"] if part["type"] == "image_url"]
    head, _, data = images[0].partition(",")
    assert head == "data:image/png;base64" and len(images) == 1
    assert (np.asarray(Image.open(io.BytesIO(b64decode(data)))) == np.asarray(picture(seed=0))).all()


def test_only_pixels_are_sent_and_not_what_the_file_says_beside_them() -> None:
    buffer = io.BytesIO()
    exif = Image.Exif()
    exif[0x010E] = "taken at home"
    picture().save(buffer, "JPEG", exif=exif)
    assert b"taken at home" in buffer.getvalue()
    with serving(saying("Rating: 5")) as server:
        prompt = (Turn("user", "What?", (ImageRef(data=buffer.getvalue()),)),)
        PointwiseJudge(endpoint(server)).get_scores([prompt], responses(1))
    url = server.asked[0]["body"]["messages"][1]["content"][2]["image_url"]["url"]
    assert b"taken at home" not in b64decode(url.partition(",")[2])


def test_pairs_are_compared_in_the_order_in_which_they_are_given() -> None:
    def act(handler: Handler, body: dict[str, Any]) -> None:
        said = texts_of(body)
        handler.say("Verdict: A" if said.index("right") < said.index("wrong") else "**Verdict: B**")

    with serving(act) as server:
        judge = PairwiseJudge(endpoint(server))
        right, wrong = [Response("right")] * 2, [Response("wrong")] * 2
        assert [verdict.score for verdict in judge.compare_pairs(prompts(2), right, wrong)] == [1.0, 1.0]
        assert [verdict.score for verdict in judge.compare_pairs(prompts(2), wrong, right)] == [-1.0, -1.0]


@pytest.mark.parametrize("said", ["I like it.", "Rating: 11", "", None, "Rating: 3. Rating: 4", "Rating: 3/5"])
def test_nonsense_is_no_verdict_and_never_a_guess(said: str | None) -> None:
    with serving(saying(said)) as server:
        judge = PointwiseJudge(endpoint(server))
        found = judge.get_verdicts(prompts(3), responses(3), skip=True)
        with pytest.raises(EndpointError, match=r"question 0: (no verdict in the reply|an empty reply)"):
            judge.get_scores(prompts(3), responses(3))
    assert all(np.isnan(verdict.score) and verdict.error for verdict in found)


def test_a_reply_that_was_cut_off_says_so() -> None:
    with serving(saying("Let me think at length", "length")) as server:
        found = PointwiseJudge(endpoint(server)).get_verdicts(prompts(1), responses(1), skip=True)
    assert "cut off at max_tokens" in found[0].error


def test_a_busy_endpoint_is_asked_again() -> None:
    busy = iter([429, 503, 429])

    def act(handler: Handler, body: dict[str, Any]) -> None:
        status = next(busy, None)
        if status is None:
            handler.say("Rating: 7")
        else:
            handler.send(status, b"slow down", {"Retry-After": "0.01"})

    with serving(act) as server:
        assert PointwiseJudge(endpoint(server, retries=3)).get_scores(prompts(1), responses(1)) == [7.0]
    assert len(server.asked) == 4


def test_a_wait_that_the_endpoint_asks_for_is_kept() -> None:
    times = []

    def act(handler: Handler, body: dict[str, Any]) -> None:
        times.append(time.monotonic())
        if len(times) == 1:
            handler.send(429, b"", {"Retry-After": "0.3"})
        else:
            handler.say("Rating: 7")

    with serving(act) as server:
        PointwiseJudge(endpoint(server)).get_scores(prompts(1), responses(1))
    assert times[1] - times[0] >= 0.3


def test_a_broken_endpoint_is_a_clear_error_or_counted() -> None:
    with serving(lambda handler, _: handler.send(500, b"out of memory")) as server:
        judge = PointwiseJudge(endpoint(server, retries=2))
        with pytest.raises(EndpointError, match=r"127.0.0.1.* fails after 3 attempts: status 500 \(out of memory\)"):
            judge.get_scores(prompts(1), responses(1))
        assert len(server.asked) == 3
        found = verdicts(judge, prompts(2), responses(2), skip=True)
    assert all("status 500" in verdict.error for verdict in found)


def test_a_refusal_is_not_repeated_and_hides_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JUDGE_KEY", KEY)
    with serving(lambda handler, _: handler.send(401, f"bad key {KEY}".encode())) as server:
        judge = PointwiseJudge(endpoint(server, key_variable="JUDGE_KEY"))
        with pytest.raises(
            EndpointError, match=r"refuses with status 401 \(bad key \[key\]\): set the key in JUDGE_KEY"
        ):
            judge.get_scores(prompts(1), responses(1))
        assert [asked["key"] for asked in server.asked] == [f"Bearer {KEY}"]
    assert KEY not in repr(judge) + repr(judge.endpoint)


@pytest.mark.parametrize("key", [f"{KEY}\nHost: other", f"{KEY}é"])
def test_a_key_that_no_header_may_hold_is_refused_without_saying_it(monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", key)
    with serving(saying("Rating: 5")) as server:
        with pytest.raises(EndpointError, match="the key in OPENAI_API_KEY holds characters") as refused:
            PointwiseJudge(endpoint(server)).get_scores(prompts(1), responses(1))
        assert KEY not in str(refused.value) and not server.asked


def test_an_endpoint_that_hangs_is_left_after_the_timeout() -> None:
    def act(handler: Handler, body: dict[str, Any]) -> None:
        handler.server.released.wait(10)

    with serving(act) as server:
        judge = PointwiseJudge(endpoint(server, timeout=0.2, retries=0))
        with pytest.raises(EndpointError, match=r"fails at the only attempt: no reply within 0.2 s"):
            judge.get_scores(prompts(1), responses(1))


def test_an_endpoint_that_drips_is_left_after_the_timeout() -> None:
    def act(handler: Handler, body: dict[str, Any]) -> None:
        handler.send(200, b"", length=10_000)
        while not handler.server.released.wait(0.05):
            handler.wfile.write(b" ")
            handler.wfile.flush()

    with serving(act) as server:
        judge = PointwiseJudge(endpoint(server, timeout=0.3, retries=0))
        with pytest.raises(EndpointError, match=r"no whole reply within 0.3 s"):
            judge.get_scores(prompts(1), responses(1))


@pytest.mark.parametrize(("content", "length"), [(b'{"choices": [{"mess', None), (b'{"choices": [', 500)])
def test_truncated_replies_are_asked_for_again(content: bytes, length: int | None) -> None:
    def act(handler: Handler, body: dict[str, Any]) -> None:
        if len(handler.server.asked) == 1:
            handler.send(200, content, length=length)
            handler.close_connection = True
        else:
            handler.say("Rating: 2")

    with serving(act) as server:
        assert PointwiseJudge(endpoint(server)).get_scores(prompts(1), responses(1)) == [2.0]
        assert len(server.asked) == 2


def test_a_reply_of_another_form_is_refused() -> None:
    with serving(lambda handler, _: handler.send(200, b'{"object": "list"}')) as server:
        with pytest.raises(EndpointError, match=r"has no choices\[0\].message.content"):
            PointwiseJudge(endpoint(server)).get_scores(prompts(1), responses(1))
        assert len(server.asked) == 1


def test_nothing_is_sent_to_where_a_redirect_points(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with serving(saying("Rating: 9")) as other:
        moved = {"Location": f"{other.url}/chat/completions"}
        with serving(lambda handler, _: handler.send(307, b"", moved)) as server:
            judge = PointwiseJudge(endpoint(server))
            with pytest.raises(EndpointError, match="redirects are not followed"):
                judge.get_scores(prompts(1), responses(1))
        assert not other.asked and len(server.asked) == 1


def test_an_endpoint_that_is_not_there_is_named() -> None:
    with serving(saying("")) as server:
        gone = endpoint(server, retries=0)
    with pytest.raises(EndpointError, match=r"127.0.0.1:\d+/v1/chat/completions fails .* ConnectionRefusedError"):
        PointwiseJudge(gone).get_scores(prompts(1), responses(1))


@pytest.mark.parametrize("most", [1, 3])
def test_no_more_questions_are_under_way_than_allowed(most: int) -> None:
    together = threading.Barrier(most)

    def act(handler: Handler, body: dict[str, Any]) -> None:
        together.wait(4)
        handler.say("Rating: 5")

    with serving(act) as server:
        PointwiseJudge(endpoint(server, concurrency=most)).get_scores(prompts(6), responses(6))
    assert server.most_under_way == most


def test_a_failure_stops_the_questions_that_wait() -> None:
    with serving(lambda handler, _: handler.send(400, b"no")) as server:
        with pytest.raises(EndpointError):
            PointwiseJudge(endpoint(server, concurrency=1)).get_scores(prompts(20), responses(20))
        assert len(server.asked) == 1


def test_an_image_that_cannot_be_read_is_counted_and_the_others_judged() -> None:
    broken = (Turn("user", "What?", (ImageRef(data=b"no image"),)),)
    with serving(saying("Rating: 5")) as server:
        judge = PointwiseJudge(endpoint(server))
        found = judge.get_verdicts([prompts(1)[0], broken], responses(2), skip=True)
        assert found[0].score == 5.0 and "no image" in found[1].error and len(server.asked) == 1
        with pytest.raises(InputError, match="question 1: image"):
            judge.get_scores([prompts(1)[0], broken], responses(2))


@pytest.mark.parametrize("url", ["ftp://host/v1", "host/v1", "http://user:word@host/v1", ""])
def test_addresses_that_cannot_be_meant_are_refused(url: str) -> None:
    with pytest.raises(InputError, match="endpoint"):
        Endpoint(url, "judge")


def test_numbers_out_of_range_are_refused() -> None:
    wrong: dict[str, Any] = {"timeout": 0, "retries": -1, "concurrency": 0, "max_tokens": 0, "backoff": -1}
    for name, value in wrong.items():
        with pytest.raises(InputError, match=name):
            Endpoint("http://host/v1", "judge", **{name: value})
    assert Endpoint("http://host/v1/chat/completions/", "judge").address == "http://host/v1/chat/completions"


def test_judges_have_the_forms_that_questions_are_put_to() -> None:
    pointwise: Scorer = PointwiseJudge(Endpoint("http://host/v1", "judge"))
    pairwise: PairJudge = PairwiseJudge(Endpoint("http://host/v1", "judge"))
    assert not is_pair_judge(pointwise) and is_pair_judge(pairwise)


def test_replies_are_read_strictly() -> None:
    ratings = {
        "<think>Rating: 2</think> Rating: 9": 9.0, "Rating: **7.5**": 7.5, "The rating is 4": 4.0, "8 / 10.": 8.0,
        "8 out of 10": 8.0, "Rating: 0": None, "Rating: -3": None, "Rating: 10": 10.0, "Rating: 1000": None,
        "I give it 8": None, "Ratings vary: 8": None,
        "Rating: 7-8": None, "Rating: 7 to 8": None, "Rating: 9,5": None, "Rating: 1e1": None, "Rating: 7 - good": 7.0,
    }  # fmt: skip
    assert {text: rating_of(text) for text in ratings} == ratings
    replies = {
        "Verdict: Answer A": 1.0, "verdict is B.": -1.0, "A": 1.0, "**B**": -1.0, "[[B]]": -1.0, "Verdict: tie": 0.0,
        "[[C]]": 0.0, "Verdict: Absolutely": None, "A or B": None, "Verdict: A\nVerdict: B": None,
        "Answer B is it": None, "Verdict: b": -1.0, "Verdict: A is better": 1.0, "Verdict: B (A is wrong)": -1.0,
        "Verdict: a tie": 0.0, "VERDICT: A TIE": 0.0, "The verdict is a draw.": 0.0,
        "The verdict is a clear win for B": None, "Verdict: a bit better is B": None,
        "<think>Verdict: A</think>Verdict: B": -1.0,
    }  # fmt: skip
    assert {text: verdict_of(text) for text in replies} == replies
