"""Comparing two audits: shares by hand and from the files, pairing, the bar, what is written and what is refused."""

import json
import math
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from probes.inputs import InputError
from probes.scores import Rule
from studies.cli import main
from studies.comparing.audits import Audited, ByKind, Focused, Pair, audited, paired
from studies.comparing.differences import ALL, BOTH, OWN, Compared, compare, judge
from studies.comparing.showing import comparison_figure, comparison_page, notes, sides
from studies.runs import RunFolder
from tests.studies.small_audit import Small, changed, read_rows
from tests.studies.test_scaling import edited

pytestmark = pytest.mark.filterwarnings("ignore")

MANIFEST = {"data_digest": "d", "model_digest": "m", "config": {"model": "some/[/b] model", "max_new_tokens": 4}}


def made(name: str, focus: Sequence[int], correct: Sequence[float], target: Sequence[int], base: str = "") -> Audited:
    """An audit by hand; both row sets have the same focus."""
    ids = np.array([f"q{index}" for index in range(len(focus))])
    cluster = np.array(list(base)) if base else ids
    each = Focused(np.array(focus), Rule("LND", 1), "given")
    values = np.array(correct, dtype=np.float64)
    return Audited(
        Path(name), "test", MANIFEST, ids, cluster, np.array(target), values, {"paper": each, "predicting": each}
    )


NAN = math.nan
TARGET = [0, 1, 2, 0, 1, -1]
BEFORE = made("before", [0, 1, 0, 1, 0, 0], [1, 1, 1, 1, NAN, 1], TARGET, "aabbcc")
AFTER = made("after", [0, 0, 2, 1, 1, 1], [1, 1, 0, 1, 1, 1], TARGET, "aabbcc")


def found(pair: Pair, name: str, subset: str, rows: str | None = "predicting") -> Compared:
    return next(each for each in compare(pair) if (each.name, each.subset, each.rows) == (name, subset, rows))


def test_shares_by_hand() -> None:
    pair = paired(BEFORE, AFTER)
    # q4 is not scored before; q5 has no target, and counts among the answers alone.
    answers = found(pair, "answer_accuracy", ALL, None).found
    assert (answers.first, answers.second, answers.estimate.n, answers.estimate.clusters) == (0.8, 1.0, 5, 3)
    common = found(pair, "attention_accuracy", BOTH).found
    assert [common.first, common.second, common.estimate.n] == pytest.approx([1 / 3, 2 / 3, 3])
    own = found(pair, "attention_accuracy", OWN).found
    assert [own.first, own.second, own.first_n, own.second_n] == pytest.approx([1 / 3, 1 / 2, 3, 4])
    everything = found(pair, "attention_overall", ALL).found
    assert (everything.first, everything.second, everything.estimate.n) == (0.5, 0.5, 4)
    assert everything.estimate.clusters == 2


def test_samples_are_paired_by_id_and_not_by_place() -> None:
    order = np.array([3, 5, 0])
    shuffled = AFTER.only(AFTER.ids[order])
    pair = paired(BEFORE, shuffled)
    assert pair.baseline.ids.tolist() == pair.candidate.ids.tolist() == ["q0", "q3", "q5"]
    assert (pair.only_baseline, pair.only_candidate) == (3, 0)
    assert pair.candidate.focused["paper"].image.tolist() == [0, 1, 1]
    assert pair.baseline.target.tolist() == [0, 0, -1]


def test_an_audit_does_not_differ_from_itself_and_swapping_negates() -> None:
    for each in compare(paired(BEFORE, BEFORE)):
        assert each.found.estimate.value == 0.0 and each.found.estimate.low <= 0.0 <= each.found.estimate.high
    for there, back in zip(compare(paired(BEFORE, AFTER)), compare(paired(AFTER, BEFORE)), strict=True):
        ours, theirs = there.found.estimate, back.found.estimate
        assert [ours.value, ours.low, ours.high] == pytest.approx([-theirs.value, -theirs.high, -theirs.low])
        assert there.found.detectable == pytest.approx(back.found.detectable, nan_ok=True)


def test_measures_beside_attention_factors_are_compared_where_both_have_them() -> None:
    """Hidden attention picks what the other run's attention factors pick; each has a kind of its own beside."""
    shared, mine, other = (ByKind("hidden_attention_value", kind, "paper") for kind in ("state space", "a", "b"))
    hidden = [
        replace(side, by_kind={shared: twin.focused["paper"], own: side.focused["paper"]})
        for side, twin, own in ((BEFORE, AFTER, mine), (AFTER, BEFORE, other))
    ]
    pair = paired(*hidden)
    assert pair.by_kind == [shared]
    softmax = [each for each in compare(paired(AFTER, BEFORE)) if each.rows == "paper"]
    found = [each for each in compare(pair) if each.by_kind is not None]
    assert next(each.label for each in found) == (
        "attention accuracy, right in both, paper, state space: hidden attention, value-weighted"
    )
    assert len(found) == 3 and {each.by_kind for each in found} == {shared}
    # Answers are those of the runs: only of the samples that both answer right, and of all, hits merely swap.
    for ours, theirs in zip(found[::2], softmax[::2], strict=True):
        assert (ours.found.first, ours.found.second) == (theirs.found.first, theirs.found.second)
        assert ours.as_json() | {"measure": "hidden_attention_value", "layer_kind": "state space"} == ours.as_json()
    assert [each for each in compare(pair) if each.by_kind is None] == list(compare(paired(BEFORE, AFTER)))
    lines = list(notes(pair))
    assert "not compared, as only A has it: paper, a: hidden attention, value-weighted" in lines
    assert "not compared, as only B has it: paper, b: hidden attention, value-weighted" in lines
    with_it, without = (side.as_json() for side in (pair.baseline, BEFORE))
    assert [each["layer_kind"] for each in with_it["rules_by_kind"]] == ["state space", "a"]
    assert "rules_by_kind" not in without
    assert all("hidden" in who.rules for who in sides(pair))


def halves(n: int, missed: int) -> list[Compared]:
    """Comparisons of n samples on which the candidate misses some targets that the baseline hits."""
    baseline = made("a", [0] * n, [1] * n, [0] * n)
    return list(compare(paired(baseline, made("b", [1] * missed + [0] * (n - missed), [1] * n, [0] * n))))


@pytest.mark.parametrize(
    ("n", "missed", "points", "failed", "said"),
    [
        (100, 0, 0.0, False, "is not below 0; the interval does not exclude a larger drop"),
        (100, 5, 5.0, False, "is not below -5"),
        (100, 6, 5.0, True, "is below -5; the interval reaches up to it, so chance alone"),
        (100, 30, 5.0, True, "lies wholly below it"),
        (1000, 5, 5.0, False, "the interval excludes a larger drop"),
        (7, 1, 100 / 7, False, "is not below"),
    ],
)
def test_the_bar(n: int, missed: int, points: float, failed: bool, said: str) -> None:
    verdict = judge(halves(n, missed), "predicting", points)
    assert verdict.failed == failed and said in verdict.line and f"n = {n}" in verdict.line


def test_a_gain_passes_every_bar() -> None:
    pair = paired(made("a", [1] * 50, [1] * 50, [0] * 50), made("b", [0] * 50, [1] * 50, [0] * 50))
    assert not judge(list(compare(pair)), "paper", 0.0).failed


def test_a_bar_that_is_held_because_samples_failed_says_so(
    small: Small, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    worse = missing_the_target(small.out, tmp_path / "worse")
    hits = from_files(small.out, "predicting")
    held = hits[hits["focus"].ne(hits["target"]) & hits["correct"].eq(True)].index
    assert 0 < len(held) < len(hits)
    fail_all_but(worse, set(held))
    capsys.readouterr()
    assert main(["compare", str(small.out), str(worse), "--fail-under", "0"]) == 0
    assert (
        f"(without {len(hits) - len(held)} samples that failed in B alone)" in capsys.readouterr().out.splitlines()[-1]
    )


def fail_all_but(run: Path, kept: set[str]) -> None:
    """Give every test sample of a run but some an error."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    for path in (run / "samples").glob("*.parquet"):
        table = pq.read_table(path)
        place = table.schema.get_field_index("error")
        names, splits = (table.column(name).to_pylist() for name in ("sample_id", "split"))
        errors = ["broken" if s == "test" and n not in kept else None for n, s in zip(names, splits, strict=True)]
        pq.write_table(table.set_column(place, table.schema.field("error"), pa.array(errors, pa.string())), path)


def test_a_bar_over_no_common_right_answer_is_refused() -> None:
    pair = paired(made("a", [0, 0], [1, 0], [0, 0]), made("b", [0, 0], [0, 1], [0, 0]))
    with pytest.raises(InputError, match="no sample with paper rows was answered right in both"):
        judge(list(compare(pair)), "paper", 1.0)


def test_the_page_escapes_names_and_says_what_was_left_out() -> None:
    hostile = replace(BEFORE, manifest={**MANIFEST, "config": {"model": "<script>alert(1)</script>"}})
    pair = Pair(hostile, AFTER, 2, 1)
    compared = list(compare(pair))
    page = comparison_page(pair, compared, judge(compared, "paper", 5.0), b"png")
    assert "<script>" not in page and "&lt;script&gt;" in page and "FAILED --fail-under 5" in page
    assert "2 samples that went well in A alone, 1 in B alone" in page


def test_the_figure_draws_every_difference_in_points() -> None:
    compared = list(compare(paired(BEFORE, AFTER)))
    axes = comparison_figure(compared).axes[0]
    assert [tick.get_text() for tick in axes.get_yticklabels()] == [each.label for each in compared]
    drawn = np.asarray(axes.get_lines()[1].get_xdata(), dtype=float)
    assert drawn == pytest.approx([100 * each.found.estimate.value for each in compared])


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Small:
    one = Small(tmp_path_factory.mktemp("small"))
    one.audit(one.out.parent / "after", "--model", str(blunter(one.model, one.out.parent / "changed")))
    return one


def blunter(model: Path, out: Path) -> Path:
    """The model with blunter attention in its last layer."""
    from transformers import AutoModelForImageTextToText, AutoProcessor

    loaded = AutoModelForImageTextToText.from_pretrained(model)
    loaded.model.language_model.layers[-1].self_attn.q_proj.weight.data.mul_(0.5)
    loaded.save_pretrained(out)
    AutoProcessor.from_pretrained(model).save_pretrained(out)
    return out


def from_files(path: Path, rows: str) -> pd.DataFrame:
    """Focus, target and correctness of the test split, straight from the files."""
    samples = pd.concat(map(pd.read_parquet, sorted((path / "samples").glob("*.parquet"))))
    focus = pd.read_parquet(path / "focus.parquet")
    joined = samples.merge(focus[focus["rows"] == rows], on="sample_id", suffixes=("", "_focus"))
    return joined[joined["split"] == "test"].set_index("sample_id").sort_index()


def test_numbers_are_those_of_the_files(small: Small, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    after = small.out.parent / "after"
    assert main(["compare", str(small.out), str(after), "--out", str(tmp_path), "--fail-under", "100"]) == 0
    shown = capsys.readouterr().out
    assert "B - A" in shown and "passed --fail-under 100" in shown and str(small.model) in shown
    record = json.loads((tmp_path / "compare.json").read_text())
    assert record["fail_under"] == {"points": 100.0, "rows": "predicting", "failed": False} | {
        "said": record["fail_under"]["said"]
    }
    for rows in ("paper", "predicting"):
        before, later = from_files(small.out, rows), from_files(after, rows)
        assert len(before) == len(later) == 8
        right = before["correct"].eq(True) & later["correct"].eq(True)
        hit = [each["focus"].eq(each["target"]) for each in (before, later)]
        entry = {each["subset"]: each for each in record["entries"] if each["rows"] == rows}
        assert entry[ALL]["estimate"]["value"] == pytest.approx(hit[1].mean() - hit[0].mean())
        assert 0 < right.sum() < 8 and not hit[0].equals(hit[1])
        assert [entry[BOTH]["baseline"], entry[BOTH]["candidate"]] == pytest.approx(
            [side[right].mean() for side in hit]
        )
        assert entry[BOTH]["estimate"]["n"] == right.sum()
        own = [side[each["correct"].eq(True)] for side, each in zip(hit, (before, later), strict=True)]
        assert [entry[OWN]["baseline_n"], entry[OWN]["candidate_n"]] == [len(side) for side in own]
    assert record["baseline"]["run"] == str(small.out) and record["candidate"]["run"] == str(after)
    assert (tmp_path / "compare.png").read_bytes().startswith(b"\x89PNG")
    assert "data:image/png;base64" in (tmp_path / "compare.html").read_text()


def test_without_out_nothing_is_written(small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["compare", str(small.out), str(small.out)]) == 0
    assert not list(tmp_path.iterdir())


def missing_the_target(source: Path, out: Path) -> Path:
    """A copy of a run whose focus is never the target."""
    shutil.copytree(source, out)
    samples = pd.concat(map(pd.read_parquet, sorted((out / "samples").glob("*.parquet")))).set_index("sample_id")
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pq.read_table(out / "focus.parquet")
    wrong = [int(samples.loc[name, "target"] == 0) for name in table.column("sample_id").to_pylist()]
    place = table.schema.get_field_index("focus")
    moved = table.set_column(place, table.schema.field("focus"), pa.array(wrong, table.schema.field("focus").type))
    pq.write_table(moved, out / "focus.parquet")
    return out


def test_a_missed_bar_is_status_1(small: Small, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    worse = missing_the_target(small.out, tmp_path / "worse")
    for rows in ("paper", "predicting"):
        words = ["compare", str(small.out), str(worse), "--fail-under", "0", "--rows", rows]
        hits = from_files(small.out, rows)
        hit = hits["focus"].eq(hits["target"])[hits["correct"].eq(True)]
        assert hit.any() or rows == "paper"
        assert main([*words, "--out", str(tmp_path / "out")]) == (1 if hit.any() else 0)
        record = json.loads((tmp_path / "out" / "compare.json").read_text())
        assert record["fail_under"]["failed"] == bool(hit.any())
    assert "FAILED --fail-under 0" in capsys.readouterr().out
    assert main(["compare", str(worse), str(small.out), "--fail-under", "0"]) == 0


def refused(words: Sequence[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert main(["compare", *words]) == 2
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    return line


def test_other_questions_are_refused_by_name(small: Small, tmp_path: Path, capsys: Any) -> None:
    small.audit(tmp_path / "other", data=changed(small, tmp_path / "data", {"q0": {"answer": "another"}}))
    capsys.readouterr()
    said = refused([str(small.out), str(tmp_path / "other"), "--out", str(tmp_path / "out")], capsys)
    assert "different questions" in said and str(small.out) in said and str(tmp_path / "other") in said
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("key", "value"), [("answers_digest", "0" * 64), ("max_new_tokens", 99)])
def test_answers_made_differently_are_refused(small: Small, tmp_path: Path, capsys: Any, key: str, value: Any) -> None:
    other = edited(small.out, tmp_path / "other", **{key: value})
    said = refused([str(small.out), str(other)], capsys)
    assert str(other) in said and str(small.out) in said
    reason = "each with its own file" if key == "answers_digest" else "max_new_tokens (4 and 99)"
    assert reason in said


def test_answers_given_by_two_files_are_compared_and_said_to_be(small: Small, tmp_path: Path, capsys: Any) -> None:
    rows = RunFolder.open(small.out).read("samples", columns=["sample_id", "answer"]).to_pylist()
    right = {row["id"]: row["answer"] for row in read_rows(small.data / "questions.jsonl")}
    own = {row["sample_id"]: row["answer"].strip() or "none" for row in rows}
    for name, answers in (("own", own), ("right", right)):
        (tmp_path / f"{name}.json").write_text(json.dumps(answers))
        small.audit(tmp_path / name, "--answers", str(tmp_path / f"{name}.json"))
    assert main(["compare", str(tmp_path / "own"), str(tmp_path / "right"), "--out", str(tmp_path / "out")]) == 0
    assert "A's and B's from different files" in capsys.readouterr().out
    found = json.loads((tmp_path / "out" / "compare.json").read_text())
    accuracy = next(each for each in found["entries"] if each["name"] == "answer_accuracy")
    wrong = from_files(tmp_path / "own", "predicting")["correct"].eq(False).sum()
    assert wrong and accuracy["candidate"] == 1.0
    assert accuracy["estimate"]["value"] == pytest.approx(wrong / accuracy["estimate"]["n"])
    assert main(["compare", str(tmp_path / "own"), str(tmp_path / "own")]) == 0
    assert "different files" not in capsys.readouterr().out


def rewritten(source: Path, out: Path, **changes: Any) -> Path:
    shutil.copytree(source, out)
    manifest = json.loads((out / "manifest.json").read_text())
    (out / "manifest.json").write_text(json.dumps(manifest | changes))
    return out


def test_runs_that_cannot_be_read_are_refused(small: Small, tmp_path: Path, capsys: Any) -> None:
    newer = rewritten(small.out, tmp_path / "newer", schema_version=99)
    assert "schema 99" in refused([str(small.out), str(newer)], capsys)
    open_run = rewritten(small.out, tmp_path / "open", finished=None)
    assert "is not finished" in refused([str(open_run), str(small.out)], capsys)
    assert str(tmp_path / "absent") in refused([str(small.out), str(tmp_path / "absent")], capsys)
    study = edited(small.out, tmp_path / "study", study="untrained")
    assert "is no audit" in refused([str(small.out), str(study)], capsys)


def test_audits_without_targets_are_refused(small: Small, tmp_path: Path) -> None:
    every: dict[str, dict[str, Any]] = {f"q{index}": {"target": None, "boxes": []} for index in range(12)}
    small.audit(tmp_path / "run", data=changed(small, tmp_path / "data", every))
    with pytest.raises(InputError, match="no sample with a target image"):
        audited(RunFolder.open(tmp_path / "run"))


def test_bad_options_are_refused(small: Small, tmp_path: Path, capsys: Any) -> None:
    both = [str(small.out), str(small.out)]
    for value in ("-1", "nan", "inf"):
        assert "--fail-under" in refused([*both, "--fail-under", value], capsys)
    (tmp_path / "file").write_text("")
    assert "is a file" in refused([*both, "--out", str(tmp_path / "file")], capsys)
    assert "--seed" in refused([*both, "--seed", "-1"], capsys)
    assert refused([str(small.out)], capsys)


def test_audits_without_a_sample_in_common_are_refused() -> None:
    alone = replace(AFTER, ids=np.array([f"z{index}" for index in range(6)]))
    with pytest.raises(InputError, match="before and after have no sample in common"):
        paired(BEFORE, alone)
