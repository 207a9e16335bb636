"""The verb `reward score`: what it leaves, how it goes on after a kill, and what it refuses."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from rewardmodels.model import RewardModel
from rewardmodels.preferences import read_preferences
from studies.cli import command, main
from tests.probes.hooked import picture
from tests.rewardmodels.judge_server import serving
from tests.studies.small_reward import lines_of, save_pairs, save_reward, save_texts, write_lines

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("score")
    save_reward(folder / "model")
    save_pairs(folder / "pairs.jsonl", 40)
    save_texts(folder / "texts.jsonl")
    return folder


def words(home: Path, out: Path, *more: str, data: str = "pairs.jsonl") -> list[str]:
    return ["reward", "score", "--data", str(home / data), "--out", str(out), *more]


def model(home: Path) -> list[str]:
    return ["--model", str(home / "model"), "--device", "cpu"]


def last_line(capsys: pytest.CaptureFixture[str]) -> str:
    return capsys.readouterr().err.strip().splitlines()[-1]


def test_every_answer_has_the_model_s_own_score(home: Path, tmp_path: Path) -> None:
    assert main(words(home, tmp_path / "out", *model(home), "--views", "blank")) == 0
    rows = lines_of(tmp_path / "out" / "scores.jsonl")
    assert len(rows) == 2 * 2 * 40
    reward = RewardModel.from_pretrained(home / "model", device="cpu")
    records = {record.id: record for record in read_preferences(home / "pairs.jsonl")}
    for row in [row for row in rows if row["view"] == "as it is"][:6]:
        record = records[row["record"]]
        response = record.responses[row["place"]]
        assert row["score"] == pytest.approx(reward.get_scores([record.prompt], [response])[0], abs=1e-4)
        assert row["characters"] == len(response.text)


def test_an_interrupted_run_goes_on_and_scores_nothing_twice(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    asked: list[int] = []
    own = RewardModel.get_scores

    def counted(self: RewardModel, prompts: Any, responses: Any, batch_size: int = 8) -> list[float]:
        if len(asked) == 1:
            asked.append(0)
            raise KeyboardInterrupt
        asked.append(len(responses))
        return own(self, prompts, responses, batch_size)

    monkeypatch.setattr(RewardModel, "get_scores", counted)
    given = words(home, out, *model(home))
    assert main(given) == 130
    assert "--resume" in capsys.readouterr().err and not (out / "scores.jsonl").exists()
    assert main(given) == 2, "a begun run is not written over"
    assert main([*given, "--resume"]) == 0
    assert sum(asked) == 80
    assert main(words(home, tmp_path / "whole", *model(home))) == 0
    assert lines_of(out / "scores.jsonl") == lines_of(tmp_path / "whole" / "scores.jsonl")


def test_a_killed_run_goes_on(home: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    given = words(home, out, "--ruler", "random", data="texts.jsonl")
    code = (
        "import os, signal, sys\nfrom rewardmodels.scorers import CallableScorer\nscore = CallableScorer.get_scores\n"
        "calls = []\ndef stop(self, *args):\n    calls.append(1)\n"
        "    if len(calls) == 3:\n        os.kill(os.getpid(), signal.SIGKILL)\n    return score(self, *args)\n"
        "CallableScorer.get_scores = stop\nfrom studies.cli import command\nsys.exit(command(sys.argv[1:]))"
    )
    killed = subprocess.run([sys.executable, "-c", code, *given], cwd=ROOT, capture_output=True, check=False)
    assert killed.returncode == -9, killed.stderr
    assert len(list((out / "shards" / "scores").glob("part-*.parquet"))) == 2
    assert main([*given, "--resume"]) == 0
    assert main(words(home, tmp_path / "whole", "--ruler", "random", data="texts.jsonl")) == 0
    assert lines_of(out / "scores.jsonl") == lines_of(tmp_path / "whole" / "scores.jsonl")


def test_another_seed_is_another_run(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = words(home, tmp_path / "out", "--ruler", "random", data="texts.jsonl")
    assert main(given) == 0
    assert command([*given, "--resume", "--seed", "1"]) == 2
    assert "seed" in last_line(capsys)
    assert main([*given, "--overwrite", "--seed", "1"]) == 0


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ([], "nothing says who scores"),
        (["--ruler", "longer", "--model", "x"], "give one of"),
        (["--model", "nowhere/at/all"], "nowhere/at/all"),
        (["--scores", "nowhere.jsonl"], "nowhere.jsonl does not exist"),
        (["--ruler", "longer", "--resume"], "no run to go on with"),
        (["--endpoint", "http://127.0.0.1:9"], "--endpoint-model"),
        (["--endpoint", "ftp://x", "--endpoint-model", "judge"], "no http"),
        (["--ruler", "longer", "--limit", "0"], "--limit"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], why: str
) -> None:
    assert command(words(home, tmp_path / "out", *more)) == 2
    error = last_line(capsys)
    assert error.startswith("sightcheck:") and why in error
    assert not (tmp_path / "out").exists()


def test_the_data_s_path_and_a_file_as_out_are_refused(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(["reward", "score", "--ruler", "longer", "--data", "nowhere.jsonl", "--out", str(tmp_path)]) == 2
    assert "nowhere.jsonl" in last_line(capsys)
    assert command(words(home, tmp_path / "out.jsonl", "--ruler", "longer")) == 2
    assert "folder" in last_line(capsys)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"responses": ["same", "same"]}, "say the same"),
        ({"responses": ["", "b"]}, "empty"),
        ({"prompt": "what?", "images": ["gone.png"]}, "gone.png"),
        ({"prompt": "<image> what?"}, "image"),
    ],
)
def test_bad_rows_are_refused_or_counted(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], change: dict[str, Any], why: str
) -> None:
    rows = lines_of(home / "pairs.jsonl")[:6]
    rows[2] |= change
    write_lines(tmp_path / "bad.jsonl", rows)
    given = words(tmp_path, tmp_path / "out", *model(home), data="bad.jsonl")
    assert command(given) == 2
    assert why in last_line(capsys)
    assert command([*given, "--on-bad", "skip"]) == 1
    assert "1 rows" in capsys.readouterr().out
    assert len(lines_of(tmp_path / "out" / "scores.jsonl")) == 10


def test_an_image_that_does_not_decode_is_refused_or_counted(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "broken.png").write_bytes(b"no image")
    rows = lines_of(home / "pairs.jsonl")[:6]
    rows[1]["prompt"][0]["images"] = ["broken.png"]
    write_lines(tmp_path / "bad.jsonl", rows)
    given = words(tmp_path, tmp_path / "out", *model(home), data="bad.jsonl")
    assert command(given) == 2
    assert "broken.png" in last_line(capsys)
    assert command([*given, "--on-bad", "skip", "--overwrite"]) == 1
    found = lines_of(tmp_path / "out" / "scores.jsonl")
    assert sum(row["score"] is None and "broken.png" in row["error"] for row in found) == 2


def test_a_judge_that_talks_nonsense_is_refused_or_counted(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JUDGE_KEY", "secret-key")
    said = iter(["Rating: 7", "no idea", *["Rating: 3"] * 99])
    with serving(lambda handler, _: handler.say(next(said))) as server:
        judge = ["--endpoint", server.url, "--endpoint-model", "judge", "--key-variable", "JUDGE_KEY"]
        judge += ["--concurrency", "1", "--limit", "4"]
        assert command(words(home, tmp_path / "first", *judge)) == 2
        assert "no idea" in last_line(capsys)
        said = iter(["Rating: 7", "no idea", *["Rating: 3"] * 99])
        assert command(words(home, tmp_path / "second", *judge, "--on-bad", "skip")) == 1
        assert server.asked[0]["key"] == "Bearer secret-key"
    rows = lines_of(tmp_path / "second" / "scores.jsonl")
    assert [row["score"] for row in rows].count(None) == 1 and len(rows) == 8
    assert "secret-key" not in "".join(path.read_text() for path in (tmp_path / "second").glob("*.json*"))


def test_a_judge_that_fails_is_one_line(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with serving(lambda handler, _: handler.send(401, b"no")) as server:
        judge = ["--endpoint", server.url, "--endpoint-model", "judge"]
        assert command(words(home, tmp_path / "out", *judge)) == 2
    assert "401" in last_line(capsys)


def test_scores_are_read_back_and_missing_rows_are_refused(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words(home, tmp_path / "first", "--ruler", "longer")) == 0
    again = words(home, tmp_path / "second", "--scores", str(tmp_path / "first" / "scores.jsonl"))
    assert main(again) == 0
    kept = [
        {(row["record"], row["place"]): row["score"] for row in lines_of(tmp_path / name / "scores.jsonl")}
        for name in ("first", "second")
    ]
    assert kept[0] == kept[1] and len(kept[0]) == 80
    write_lines(tmp_path / "few.jsonl", lines_of(tmp_path / "first" / "scores.jsonl")[:-3])
    few = words(home, tmp_path / "third", "--scores", str(tmp_path / "few.jsonl"))
    assert command(few) == 2
    assert "missing" in last_line(capsys)
    assert command([*few, "--on-bad", "skip", "--overwrite"]) == 1


def save_answers(folder: Path) -> Path:
    picture(seed=0).save(folder / "a.png")
    rows: list[dict[str, Any]] = [
        {"id": "one", "prompt": "What is this?", "images": ["a.png"], "response": "a cat"},
        {"id": "two", "prompt": "1 + 1?", "responses": ["two", "three three"]},
    ]
    return write_lines(folder / "answers.jsonl", rows)


def test_answers_without_preferences_are_scored(home: Path, tmp_path: Path) -> None:
    save_answers(tmp_path)
    out = tmp_path / "out"
    assert main(words(tmp_path, out, *model(home), data="answers.jsonl")) == 0
    rows = {(row["record"], row["place"]): row["score"] for row in lines_of(out / "scores.jsonl")}
    reward = RewardModel.from_pretrained(home / "model", device="cpu")
    assert rows["one", 0] == pytest.approx(reward.get_score("What is this?", "a cat", [tmp_path / "a.png"]), abs=1e-4)
    assert rows["two", 1] == pytest.approx(reward.get_score("1 + 1?", "three three"), abs=1e-4)
    assert main([*words(tmp_path, out, *model(home), data="answers.jsonl"), "--resume"]) == 0


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"response": ""}, "empty"),
        ({"images": ["gone.png"]}, "gone.png"),
        ({"id": "two"}, "second row"),
        ({"response": 3}, "response"),
        ({"images": []}, None),
    ],
)
def test_bad_rows_of_answers_are_refused_or_counted(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], change: dict[str, Any], why: str | None
) -> None:
    rows = lines_of(save_answers(tmp_path))
    rows[0] |= change
    write_lines(tmp_path / "answers.jsonl", rows[::-1])
    if "images" in change and why is not None:
        given = words(tmp_path, tmp_path / "out", *model(home), data="answers.jsonl")
    else:
        given = words(tmp_path, tmp_path / "out", "--ruler", "longer", data="answers.jsonl")
    if why is None:
        assert main(given) == 0
        return
    assert command(given) == 2
    assert why in last_line(capsys)
    assert command([*given, "--on-bad", "skip"]) == 1
    assert len(lines_of(tmp_path / "out" / "scores.jsonl")) == 2


def test_what_needs_preferences_is_refused_of_answers(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_answers(tmp_path)
    given = words(tmp_path, tmp_path / "out", *model(home), "--views", "blank", data="answers.jsonl")
    assert command(given) == 2
    assert "leave --views out" in last_line(capsys)
