"""The verb `reward eval`: its numbers against independent ones, its files, its figures, and what it refuses."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from rewardmodels.model import RewardModel, as_turns
from rewardmodels.preferences import read_preferences, write_preferences
from rewardmodels.views import PAPER_BLANK, blanked
from studies.cli import command, main
from studies.reward.scoring import score_pairs
from tests.rewardmodels.judge_server import serving, texts_of
from tests.rewardmodels.published import examples
from tests.rewardmodels.shared_files import shared_file
from tests.studies.small_reward import lines_of, save_pairs, save_reward, save_texts, summary_of, write_lines


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("eval")
    save_reward(folder / "model")
    save_pairs(folder / "pairs.jsonl", 24)
    save_pairs(folder / "others.jsonl", 24, seed=1)
    save_texts(folder / "texts.jsonl")
    return folder


def words(home: Path, out: Path, *more: str, data: str = "pairs.jsonl") -> list[str]:
    return ["reward", "eval", "--data", str(home / data), "--out", str(out), *more]


def model(home: Path) -> list[str]:
    return ["--model", str(home / "model"), "--device", "cpu"]


@pytest.fixture(scope="module")
def asked(home: Path) -> Path:
    out = home / "runs" / "asked"
    assert main(words(home, out, *model(home), "--attention", "6")) == 0
    return out


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures take most of a small evaluation's time, and are looked at in one test."""
    for name in ("draw_report", "draw_shortcut"):
        monkeypatch.setattr(f"studies.reward.eval_figures.{name}", lambda *_: None)


def by_record(out: Path, view: str = "as it is") -> dict[tuple[str, int], float]:
    rows = lines_of(out / "scores.jsonl")
    return {(row["record"], row["place"]): row["score"] for row in rows if row["view"] == view}


def right(home: Path, out: Path, view: str = "as it is") -> "np.ndarray[Any, np.dtype[np.bool_]]":
    """By brute force: which pairs are ranked right."""
    scores = by_record(out, view)
    records = read_preferences(home / "pairs.jsonl")
    return np.array(
        [
            scores[record.id, record.ranks.index(0)] > scores[record.id, record.ranks.index(1)]
            for record in records
            if (record.id, 0) in scores
        ]
    )


def test_its_numbers_are_those_of_its_scores(home: Path, asked: Path) -> None:
    found = summary_of(asked)
    plain, blank = right(home, asked), right(home, asked, "blank")
    assert found["pair accuracy"]["value"] == pytest.approx(plain.mean()) and found["pair accuracy"]["n"] == 24
    assert found["accuracy with blank images"]["value"] == pytest.approx(blank.mean())
    drop = found["accuracy drop with blank images"]
    assert drop["value"] == pytest.approx(plain.mean() - blank.mean())
    assert drop["low"] <= drop["value"] <= drop["high"]
    lengths = [
        [len(record.responses[record.ranks.index(rank)].text) for rank in (0, 1)]
        for record in read_preferences(home / "pairs.jsonl")
    ]
    longer = np.mean([0.5 + 0.5 * np.sign(better - worse) for better, worse in lengths])
    assert found["longer ruler"]["value"] == pytest.approx(longer)
    degradation = found["shortcut-failure degradation (points)"]
    expected = 100 * (plain[blank].mean() - plain[~blank].mean())
    assert degradation["value"] == pytest.approx(expected)
    assert f"{blank.sum()} with the shortcut" in degradation["note"] and "itself" in degradation["note"]


def test_groups_have_their_own_numbers(home: Path, asked: Path) -> None:
    found, plain = summary_of(asked), right(home, asked)
    groups = np.array([record.group for record in read_preferences(home / "pairs.jsonl")])
    means = {name: plain[groups == name].mean() for name in set(groups)}
    for name, value in means.items():
        assert found[f"pair accuracy, {name}"]["value"] == pytest.approx(value)
    assert found["pair accuracy, macro"]["value"] == pytest.approx(np.mean(list(means.values())))


def test_it_leaves_a_run_and_figures(asked: Path) -> None:
    manifest = json.loads((asked / "manifest.json").read_text())
    assert manifest["finished"] and manifest["config"]["study"] == "reward eval"
    drawn = {path.name for path in (asked / "figures").iterdir()}
    assert drawn >= {"rulers.png", "reliability.png", "length.png", "shortcut.png", "attention.png", "attention.html"}


def test_attention_of_the_scoring_token_is_kept(home: Path, asked: Path) -> None:
    rows = lines_of(asked / "attention.jsonl")
    assert len(rows) == 12
    scores = by_record(asked)
    records = {record.id: record for record in read_preferences(home / "pairs.jsonl")}
    for row in rows:
        place = records[row["pair"]].ranks.index(0 if row["side"] == "chosen" else 1)
        assert row["score"] == pytest.approx(scores[row["pair"], place], abs=1e-4)
        assert np.array(row["factors"]).shape == (len(row["layers"]), 1)
    share = summary_of(asked)
    name = next(name for name in share if name.startswith("most attention on images"))
    layers = np.array([[np.dot(layer, row["tokens"]) for layer in row["factors"]] for row in rows])
    assert share[name]["value"] == pytest.approx(layers.mean(0).max(), rel=1e-5)


@pytest.mark.usefixtures("undrawn")
def test_a_resumed_evaluation_scores_nothing_again(home: Path, asked: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise AssertionError("it is scored already")

    before = (asked / "scores.jsonl").read_bytes()
    monkeypatch.setattr(RewardModel, "get_scores", fail)
    assert main([*words(home, asked, *model(home), "--attention", "6"), "--resume"]) == 0
    assert (asked / "scores.jsonl").read_bytes() == before


@pytest.mark.usefixtures("undrawn")
def test_degradation_rests_on_a_proxy_s_scores_where_given(home: Path, asked: Path, tmp_path: Path) -> None:
    rows = lines_of(asked / "scores.jsonl")
    ids = sorted({row["record"] for row in rows})
    records = {record.id: record for record in read_preferences(home / "pairs.jsonl")}
    # The proxy ranks every second pair right.
    text = [
        {"id": name, "place": place, "score": float(records[name].ranks[place] == number % 2)}
        for number, name in enumerate(ids)
        for place in (0, 1)
    ]
    write_lines(tmp_path / "text.jsonl", text)
    plain = [row for row in rows if row["view"] == "as it is"]
    write_lines(tmp_path / "own.jsonl", plain)
    more = ["--scores", str(tmp_path / "own.jsonl"), "--proxy-scores", str(tmp_path / "text.jsonl")]
    assert main(words(home, tmp_path / "out", *more)) == 0
    found = summary_of(tmp_path / "out")
    scores = by_record(asked)
    hits = {
        name: scores[name, record.ranks.index(0)] > scores[name, record.ranks.index(1)]
        for name, record in records.items()
    }
    sides = [[hits[name] for number, name in enumerate(ids) if number % 2 == odd] for odd in (0, 1)]
    expected = 100 * (np.mean(sides[0]) - np.mean(sides[1]))
    assert found["shortcut-failure degradation (points)"]["value"] == pytest.approx(expected)


@pytest.mark.usefixtures("undrawn")
def test_a_proxy_model_is_shown_no_images(home: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    proxy = ["--proxy-model", str(home / "model"), "--proxy-sees", "blank"]
    assert main(words(home, out, *model(home), *proxy)) == 0
    # The proxy is the model, so that its ranking is the model's own on blank images.
    mine, others = summary_of(out), summary_of(home / "runs" / "asked")
    name = "shortcut-failure degradation (points)"
    assert mine[name]["value"] == pytest.approx(others[name]["value"])
    assert "the proxy" in mine[name]["note"]


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("view", ["blank-224", "shuffled"])
def test_a_proxy_is_shown_what_training_shows_it(home: Path, asked: Path, tmp_path: Path, view: str) -> None:
    out = tmp_path / "out"
    proxy = ["--proxy-model", str(home / "model"), "--proxy-sees", view, "--views"]
    assert main(words(home, out, *model(home), *proxy)) == 0
    reward = RewardModel.from_pretrained(home / "model", device="cpu")
    text = score_pairs(reward, read_preferences(home / "pairs.jsonl").pairs(), 8, "as training measures it", view=view)
    by_text, own = text.chosen > text.rejected, right(home, asked)
    assert 0 < by_text.sum() < len(by_text)
    found = summary_of(out)["shortcut-failure degradation (points)"]
    assert found["value"] == pytest.approx(100 * (own[by_text].mean() - own[~by_text].mean()))
    assert f"images {view}" in found["note"]
    rows = pq.read_table(out / "shards" / "proxy" / "scores").to_pylist()
    assert {row["view"] for row in rows} == {view}
    records = read_preferences(home / "pairs.jsonl")
    whites = {blanked(record.prompt, PAPER_BLANK)[0].images[0].digest for record in records}
    shown = {digest for row in rows for digest in row["image_digests"]}
    assert (shown == whites) == (view == "blank-224")


@pytest.mark.usefixtures("undrawn")
def test_what_the_proxy_cannot_be_shown_is_said(home: Path, tmp_path: Path) -> None:
    records = list(read_preferences(home / "pairs.jsonl"))[:6]
    two = replace(records[0], id="two", prompt=as_turns("Which?", [*records[0].images, *records[1].images]))
    write_preferences(tmp_path / "mixed.jsonl", [*records, two])
    out = tmp_path / "out"
    proxy = ["--proxy-model", str(home / "model"), "--proxy-sees", "shuffled", "--views"]
    given = ["reward", "eval", "--data", str(tmp_path / "mixed.jsonl"), "--out", str(out), *model(home), *proxy]
    assert main(given) == 0
    notes = json.loads((out / "metrics.json").read_text())["notes"]
    assert any("1 records are not in the shortcut-failure degradation" in note for note in notes)


@pytest.mark.usefixtures("undrawn")
def test_rulers_are_scorers_of_texts(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words(home, tmp_path / "out", "--ruler", "longer", data="texts.jsonl")) == 0
    found = summary_of(tmp_path / "out")
    assert found["pair accuracy"]["value"] == pytest.approx(0.75)
    assert found["accuracy above the longer ruler"]["value"] == 0
    assert found["length correlation at fixed quality"]["value"] == pytest.approx(1.0)
    assert "No record has an image" in capsys.readouterr().out


@pytest.mark.usefixtures("undrawn")
def test_a_judge_of_pairs_is_asked_in_both_orders(home: Path, tmp_path: Path) -> None:
    def first(handler: Any, body: Any) -> None:
        assert "answer A" in texts_of(body)
        handler.say("Verdict: A")

    with serving(first) as server:
        judge = ["--endpoint", server.url, "--endpoint-model", "judge", "--judge", "pairs", "--limit", "8", "--views"]
        assert main(words(home, tmp_path / "out", *judge)) == 0
        assert len(server.asked) == 16
    found = summary_of(tmp_path / "out")
    assert found["position bias"]["value"] == 1.0 and found["same verdict in both orders"]["value"] == 0.0
    assert found["pair accuracy"]["value"] == 0.5


@pytest.mark.usefixtures("undrawn")
def test_several_models_and_sets_make_a_transfer_matrix(home: Path, tmp_path: Path) -> None:
    save_reward(tmp_path / "second")
    out = tmp_path / "out"
    given = [
        "reward",
        "eval",
        "--model",
        str(home / "model"),
        str(tmp_path / "second"),
        "--device",
        "cpu",
        "--limit",
        "8",
        "--views",
    ]
    given += ["--data", str(home / "pairs.jsonl"), str(home / "others.jsonl"), "--out", str(out)]
    assert main(given) == 0
    content = json.loads((out / "metrics.json").read_text())
    cells = {
        (row, column): summary_of(out / f"{row}-{column}")["pair accuracy"]["value"]
        for row in (0, 1)
        for column in (0, 1)
    }
    assert [entry["value"] for entry in content["summary"]] == list(cells.values())
    assert content["transfer"]["iid"] == pytest.approx((cells[0, 0] + cells[1, 1]) / 2)
    assert content["transfer"]["ood"] == pytest.approx((cells[0, 1] + cells[1, 0]) / 2)
    assert (out / "figures" / "transfer.png").is_file()


@pytest.mark.usefixtures("undrawn")
def test_the_real_pairs_by_the_longer_answer(tmp_path: Path) -> None:
    data = shared_file("mm_rlhf_reward_bench.jsonl")
    assert main(["reward", "eval", "--ruler", "longer", "--data", str(data), "--out", str(tmp_path / "out")]) == 0
    found = summary_of(tmp_path / "out")
    assert round(100 * found["pair accuracy"]["value"], 1) == 72.4
    assert found["MM-RLHF-RewardBench ACC+"]["n"] == 46


def test_the_real_scores_of_a_published_model(tmp_path: Path) -> None:
    scores = shared_file("ixc_rm_bench_scores.json")
    assert main(["reward", "eval", "--scores", str(scores), "--out", str(tmp_path / "out")]) == 0
    found = summary_of(tmp_path / "out")
    shown = [round(100 * found[f"{name} accuracy"]["value"], 1) for name in ("easy", "normal", "hard")]
    assert shown == [87.5, 71.3, 47.5]
    assert round(found["mean score of right answers, markdown"]["value"], 3) == 6.753
    assert (tmp_path / "out" / "figures" / "styles.png").is_file()


@pytest.mark.parametrize(
    ("more", "why"),
    [
        (["--ruler", "longer", "--attention", "3"], "give --model"),
        (["--ruler", "longer", "--attention", "-1"], "--attention"),
        (["--model", "a", "b", "c"], "as many --data"),
        (["--scores", "nowhere.jsonl"], "nowhere.jsonl"),
        (["--ruler", "longer", "--proxy-scores", "nowhere.jsonl"], "nowhere.jsonl"),
        (["--ruler", "longer", "--resume"], "no run to go on with"),
        (["--model", "a", "--views", "seen"], "--views"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], why: str
) -> None:
    assert command(words(home, tmp_path / "out", *more)) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("sightcheck:") and why in error
    assert not (tmp_path / "out").exists()


def test_attention_without_images_is_refused(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = words(home, tmp_path / "out", *model(home), "--attention", "3", "--limit", "4", data="texts.jsonl")
    assert command(given) == 2
    assert "no pair has an image" in capsys.readouterr().err


def test_a_training_run_is_told_where_its_model_lies(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "run" / "model").mkdir(parents=True)
    assert command(words(home, tmp_path / "out", "--model", str(tmp_path / "run"))) == 2
    assert str(tmp_path / "run" / "model") in capsys.readouterr().err


@pytest.mark.usefixtures("undrawn")
def test_best_of_n_is_drawn_on_bundled_questions(home: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert main(words(home, out, "--ruler", "shorter", "--best-of-n", "2", data="texts.jsonl")) == 0
    pools = json.loads((out / "metrics.json").read_text())["best_of_n"]["pools"]
    quality = np.mean([pool["quality"] for pool in pools], axis=1)
    assert summary_of(out)["right picks at N = 1"]["value"] == pytest.approx(quality.mean())
    # Out of all answers the one of the fewest characters is picked; the shortest share the pick.
    last = []
    for pool in pools:
        lengths = [len(answer) if answer else np.inf for answer in pool["answers"]]
        last.append(
            np.mean([worth for worth, length in zip(pool["quality"], lengths, strict=True) if length == min(lengths)])
        )
    assert summary_of(out)["right picks at N = 16"]["value"] == pytest.approx(np.mean(last))
    assert (out / "figures" / "best-of-n.png").is_file()


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize(
    ("name", "own"),
    [
        ("vl-rewardbench", "VL-RewardBench accuracy"),
        ("mm-rlhf-rewardbench", "MM-RLHF-RewardBench ACC+"),
        ("rm-bench", "RM-Bench hard accuracy"),
        ("rewardbench-2", "RewardBench 2 average"),
        ("multimodal-rewardbench", "pair accuracy"),
    ],
)
def test_published_benchmarks_have_their_own_numbers(name: str, own: str, tmp_path: Path) -> None:
    data, out = examples(tmp_path)[name], tmp_path / "out"
    assert main(["reward", "eval", "--ruler", "longer", "--data", str(data), "--out", str(out)]) == 0
    found = summary_of(out)
    assert found["pair accuracy"]["value"] == found["longer ruler"]["value"] and own in found
