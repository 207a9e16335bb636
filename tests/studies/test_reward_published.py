"""`sightcheck reward published` on small made files of each kind: what it writes, what it finds, what it refuses."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from probes.inputs import InputError, Turn
from rewardmodels.preferences import write_preferences
from rewardmodels.readers.rm_bench import read_style_scores
from rewardmodels.records import Preference, Response
from rewardmodels.rulers import length_matched_accuracy
from studies.cli import main
from studies.reward.published_files import ask

STYLES = ("It is {}.", "Well, it is {}, as one can see.", "**It is {}**, as one can see:\n- {}\n- really, {}")


def style_rows(count: int = 12, texts: bool = False, domains: bool = False) -> list[dict[str, Any]]:
    rng = np.random.default_rng(0)
    rows = []
    for at in range(count):
        base = rng.normal()
        scores = {side: (base + gain + np.arange(3) + rng.normal(0, 0.1, 3)).tolist() for side, gain in SIDES}
        row: dict[str, Any] = {f"score_{side}": scores[side] for side in scores}
        if texts:
            words = {side: [style.format(*[f"{side}{at}"] * 3) for style in STYLES] for side, _ in SIDES}
            row |= {"id": at, "prompt": f"What is {at}?", **words}
        if texts or domains:
            row |= {"domain": ("chat", "code", "safety-refuse")[at % 3]}
        rows.append(row)
    return rows


SIDES = (("chosen", 1.5), ("rejected", 0.0))


def saved(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text(json.dumps(rows))
    return path


def preferences(path: Path, longer: int = 8, count: int = 10) -> Path:
    """Pairs of which so many have a longer better answer."""
    records = []
    for at in range(count):
        better, worse = ("a long good answer", "bad") if at < longer else ("good", "a long bad answer")
        texts = (Response(f"{better} {at}"), Response(f"{worse} {at}"))
        records.append(Preference(f"p{at}", (Turn("user", "Which?"),), texts, (0, 1), group="ab"[at % 2]))
    write_preferences(path, records)
    return path


def run(out: Path, *files: Path) -> tuple[int, dict[str, Any]]:
    status = main(["reward", "published", *map(str, files), "--out", str(out)])
    return status, json.loads((out / "metrics.json").read_text())


def test_every_kind_in_one_call(tmp_path: Path, capsys: Any) -> None:
    table = tmp_path / "table.csv"
    table.write_text("model,a,b,overall\nn,300,100,\njudge,80,60,75\n")
    files = (
        saved(tmp_path / "scores.json", style_rows()),
        preferences(tmp_path / "pairs.jsonl"),
        saved(tmp_path / "bench.json", style_rows(texts=True)),
        table,
    )
    status, found = run(tmp_path / "out", *files)
    assert status == 0
    assert [each["kind"] for each in found["files"]] == ["scores by style", "preferences", "preferences", "table"]
    assert str(tmp_path) not in (tmp_path / "out" / "metrics.json").read_text()
    drawn = {path.name for path in (tmp_path / "out" / "figures").iterdir()}
    assert drawn == {
        *(f"scores-{name}.png" for name in ("styles", "styles-centred")),
        *(f"pairs-{name}.png" for name in ("rulers", "groups")),
        *(f"bench-{name}.png" for name in ("styles", "styles-centred", "rulers", "groups", "length")),
    }
    shown = capsys.readouterr().out
    assert "markdown over concise" in shown and "all cues together, held out" in shown


def test_the_longer_answer_is_counted_by_group(tmp_path: Path) -> None:
    _, found = run(tmp_path / "out", preferences(tmp_path / "pairs.jsonl", longer=7))
    numbers = found["files"][0]["numbers"]
    assert numbers["rulers"]["longer"]["value"] == 0.7 and numbers["rulers"]["shorter"]["value"] == pytest.approx(0.3)
    by_group = {name: each["value"] for name, each in numbers["longer_by_group"]["groups"].items()}
    assert by_group == {"a": 0.8, "b": pytest.approx(0.6)}
    assert numbers["alike_in_length"]["n"] == 0 and numbers["alike_in_length"]["value"] is None


def test_texts_and_scores_together_give_true_lengths(tmp_path: Path) -> None:
    rows = style_rows(texts=True)
    numbers = ask(saved(tmp_path / "bench.json", rows)).answers.numbers
    assert {"styles", "scores", "length_correlations", "cues"} <= set(numbers)
    assert set(numbers["styles"]["domains"]) == {"chat", "code", "safety"}
    flat = [
        (chosen, rejected, len(better), len(worse))
        for row in rows
        for chosen, better in zip(row["score_chosen"], row["chosen"], strict=True)
        for rejected, worse in zip(row["score_rejected"], row["rejected"], strict=True)
    ]
    matched = length_matched_accuracy(*np.array(flat).T)
    assert numbers["scores"]["matched"]["matched"]["value"] == matched.matched.value
    right = sum(chosen > rejected for chosen, rejected, _, _ in flat) / len(flat)
    assert numbers["scores"]["accuracy"]["micro"]["value"] == pytest.approx(right)
    assert numbers["length_correlations"]["within_prompt"]["value"] > 0.9


def test_ratings_that_make_the_ranks_are_not_taken_for_a_models_scores(tmp_path: Path) -> None:
    texts = [(Response(f"good {at}", score=5.0), Response(f"bad {at}", score=1.0)) for at in range(4)]
    records = [Preference(str(at), (Turn("user", "?"),), pair, (0, 1)) for at, pair in enumerate(texts)]
    write_preferences(tmp_path / "rated.jsonl", records)
    assert "scores" not in ask(tmp_path / "rated.jsonl").answers.numbers


def test_domains_of_scores_without_texts(tmp_path: Path) -> None:
    scores = read_style_scores(saved(tmp_path / "scores.json", style_rows(domains=True)))
    assert scores.domains == ("chat", "code", "safety") * 4
    answers = ask(tmp_path / "scores.json").answers
    assert "macro means over 3 domains" in answers.why and "domain code" in answers.told
    rows = style_rows(domains=True)
    del rows[3]["domain"]
    with pytest.raises(InputError, match="11 of 12 items name a domain"):
        ask(saved(tmp_path / "some.json", rows))


def test_a_mean_that_is_none_of_its_groups_is_told_and_counts(tmp_path: Path, capsys: Any) -> None:
    table = tmp_path / "table.tsv"
    table.write_text("model\tgeneral\thallucination\treasoning\toverall\nmine\t78.1\t72.7\t66.0\t72.3\n")
    status, found = run(tmp_path / "out", table)
    assert status == 1
    assert "72.3 is not the weighted mean of its groups, 71.79" in found["files"][0]["problems"][0]
    assert "it is the unweighted mean" in capsys.readouterr().err


def test_unusable_rows_are_told_and_count(tmp_path: Path) -> None:
    path = preferences(tmp_path / "pairs.jsonl")
    path.write_text(path.read_text() + '{"id": "x", "prompt": [], "responses": ["a", "b"], "ranks": [0, 1]}\n')
    status, found = run(tmp_path / "out", path)
    assert status == 1 and found["files"][0]["problems"][0].startswith("x:")
    assert found["files"][0]["numbers"]["counts"]["bad"] == 1


def test_bad_input_is_refused_and_writes_nothing(tmp_path: Path, capsys: Any) -> None:
    twice = tmp_path / "other" / "pairs.jsonl"
    twice.parent.mkdir()
    one_question = preferences(tmp_path / "one.jsonl", count=1)
    good = preferences(tmp_path / "pairs.jsonl")
    unknown = saved(tmp_path / "unknown.json", [{"a": 1}])
    (tmp_path / "sizes.csv").write_text("model,a,b\nn,many,100\nx,1,2\n")
    refused = {
        (): "give one or more",
        (tmp_path / "none.json",): "does not exist",
        (good, preferences(twice)): "two files are called pairs",
        (good, unknown): "unknown.json",
        (one_question,): "two clusters",
        (saved(tmp_path / "single.json", style_rows(1)),): "two items or more",
        (tmp_path / "sizes.csv",): "must be a whole number",
    }
    for files, words in refused.items():
        assert main(["reward", "published", *map(str, files), "--out", str(tmp_path / "out")]) == 2
        assert words in capsys.readouterr().err
    assert main(["reward", "published", str(good), "--out", str(good)]) == 2
    assert not (tmp_path / "out").exists()


def test_the_same_files_give_the_same_bytes(tmp_path: Path) -> None:
    files = (saved(tmp_path / "scores.json", style_rows()), preferences(tmp_path / "pairs.jsonl"))
    for name in ("first", "second"):
        run(tmp_path / name, *files)
    first, second = (sorted((tmp_path / name).rglob("*.*")) for name in ("first", "second"))
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]


def test_the_page_says_what_its_numbers_say() -> None:
    docs = Path(__file__).parents[2] / "docs"
    page = (docs / "published-files.md").read_text(encoding="utf-8")
    for link in re.findall(r"\]\((?!http)([^)]+)\)", page):
        assert (docs / link).is_file(), link
    files = json.loads((docs / "study" / "published" / "metrics.json").read_text())["files"]
    styles, pairs = (each["numbers"] for each in files[:2])
    hard = styles["styles"]["matrix"]["hard"], styles["styles"]["centred"]["hard"]
    for share in (*hard, pairs["rulers"]["longer"], pairs["cues"]["together"]["micro"]):
        value, low, high = (100 * share[name] for name in ("value", "low", "high"))
        assert f"{value:.1f} % [{low:.1f}, {high:.1f}]" in page.replace("**", "").replace("\n", " ")
    assert f"{1 - styles['styles']['matrix']['accuracy'][0][2]['value']:.1%}".replace("%", " %") in page
    assert files[2]["problems"] and "83.74" in files[2]["problems"][0] and "83.74" in page
