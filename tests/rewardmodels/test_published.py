"""Published tables: rows that users found inconsistent, rows that fit, rounding, and broken files."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewardmodels.published import VL_REWARD_BENCH_SIZES as SIZES
from rewardmodels.published import PublishedRow, Rounded, check_row, load_published_table


def row(general: str, hallucination: str, reasoning: str, overall: str | None, macro: str | None) -> PublishedRow:
    scores = {"general": general, "hallucination": hallucination, "reasoning": reasoning}
    return check_row("model", scores, SIZES, overall=overall, macro=macro)


def test_unified_reward_think() -> None:
    """Its groups give 71.8 over items; 72.3 is its macro average, which fits (UnifiedReward, issue 79)."""
    found = row("78.1", "72.7", "66.0", None, "72.3")
    assert found.overall.weighted.value == pytest.approx(71.786, abs=5e-4)
    assert f"{found.overall.weighted.value:.1f}" == "71.8"
    assert not found.problems and found.macro.is_unweighted
    swapped = row("78.1", "72.7", "66.0", "72.3", None)
    assert swapped.problems and "it is the unweighted mean, 72.27" in swapped.problems[0]
    assert not row("78.1", "72.7", "66.0", "71.8", "72.3").problems


def test_omni_reward() -> None:
    """The paper's groups give 83.7 and not its 76.3; its macro fits. The authors' second run fits (issue 3)."""
    paper = row("81.5", "94.2", "60.4", "76.3", "78.7")
    assert paper.overall.weighted.value == pytest.approx(83.742, abs=5e-4)
    assert len(paper.problems) == 1 and paper.problems[0].startswith("overall 76.3 is not the weighted mean")
    rerun = row("50.8", "89.3", "60.4", "76.3", "66.8")
    assert not rerun.problems and rerun.overall.is_weighted and rerun.macro.is_unweighted
    assert not row("0.514", "0.814", "0.615", "0.720", "0.648").problems


@pytest.mark.parametrize(
    ("general", "hallucination", "reasoning", "overall", "macro"),
    [
        ("0.535519", "0.753004", "0.676101", "0.7016", "0.654875"),
        ("0.4918032786885246", "0.7076101468624834", "0.6509433962264151", "0.6616", "0.616785607259141"),
        ("0.4371584699453552", "0.4552736982643525", "0.6477987421383647", "0.5016", "0.5134103034493575"),
    ],
)
def test_rows_of_vlmevalkit_fit(general: str, hallucination: str, reasoning: str, overall: str, macro: str) -> None:
    assert not row(general, hallucination, reasoning, overall, macro).problems


def test_rm_bench_by_domain() -> None:
    """RM-Bench averages its domains. On its page one model's overall row fits, and its hard row does not."""
    domains = dict.fromkeys(("chat", "code", "math", "safety"), 1)
    overall = dict(zip(domains, ("84.24", "72.66", "93.59", "90.65"), strict=True))
    assert not check_row("DPSK-R1", overall, domains, macro="85.28").problems
    hard = dict(zip(domains, ("72.61", "72.51", "93.01", "81.53"), strict=True))
    assert (
        "macro 80.24 is not the unweighted mean of its groups, 79.92"
        in check_row("", hard, domains, macro="80.24").problems[0]
    )


PERCENT = st.integers(0, 100_000).map(lambda value: value / 1000)


@given(PERCENT, PERCENT, PERCENT, st.integers(0, 3))
def test_rounding_of_a_true_row_is_forgiven(
    general: float, hallucination: float, reasoning: float, digits: int
) -> None:
    exact = {"general": general, "hallucination": hallucination, "reasoning": reasoning}
    weighted = sum(SIZES[group] * score for group, score in exact.items()) / 1250
    means = [f"{score:.{digits}f}" for score in (weighted, sum(exact.values()) / 3)]
    groups = [f"{score:.{digits}f}" for score in exact.values()]
    assert not row(groups[0], groups[1], groups[2], means[0], means[1]).problems


@given(PERCENT, PERCENT, PERCENT, st.floats(0.11, 5))
def test_a_wrong_overall_is_found(general: float, hallucination: float, reasoning: float, off: float) -> None:
    weighted = (183 * general + 749 * hallucination + 318 * reasoning) / 1250
    assert row(f"{general:.2f}", f"{hallucination:.2f}", f"{reasoning:.2f}", f"{weighted + off:.2f}", None).problems


def test_coarser_printing_forgives_more() -> None:
    assert row("70.0", "70.0", "70.0", "70.2", None).problems
    assert not row("70", "70", "70", "70.2", None).problems


def test_printed_numbers() -> None:
    assert Rounded.parse("71.8") == Rounded(71.8, 0.05)
    assert Rounded.parse(" 72% ") == Rounded(72.0, 0.5)
    assert Rounded.parse("0.720").half_unit == pytest.approx(0.0005)
    for text in ("", "n/a", "nan", "inf"):
        with pytest.raises(ValueError, match="is no"):
            Rounded.parse(text)


TABLE = """model,general,hallucination,reasoning,Overall,Macro
n,183,749,318,,
UnifiedReward-Think,78.1,72.7,66.0,,72.3
OmniReward,81.5,94.2,60.4,76.3,78.7
OmniReward again,50.8,89.3,60.4,76.3,66.8
"""


def test_a_table_is_checked_on_load(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text(TABLE)
    found = load_published_table(path)
    assert dict(found.sizes) == dict(SIZES)
    assert [entry.name for entry in found.rows] == ["UnifiedReward-Think", "OmniReward", "OmniReward again"]
    assert list(found.problems) == ["OmniReward"]
    record = json.loads(json.dumps(found.to_dict()))
    assert record["rows"][0]["overall"] is None and record["rows"][1]["problems"]


def test_tabs_and_sizes_by_hand(tmp_path: Path) -> None:
    path = tmp_path / "table.tsv"
    path.write_text("model\ta\tb\toverall\nx\t80\t60\t70\n")
    found = load_published_table(path, {"a": 300, "b": 100})
    assert found.rows[0].overall.is_unweighted and not found.rows[0].overall.is_weighted and found.problems


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "holds no table"),
        ("model,a\n", "holds no table"),
        ("model,a,a\nn,1,1\nx,1,1\n", "two columns have one name"),
        ("model,a\nx,1\n", "give the groups' sizes once"),
        ("model,a\nn,1\nn,2\nx,1\n", "give the groups' sizes once"),
        ("model,a\nn,many\nx,1\n", "size of 'a' must be a whole number, got 'many'"),
        ("model,a\nn,1\n", "holds no model"),
        ("model,a,b\nn,1,2\nx,1\n", "line 3: 2 cells under 3 columns"),
        ("model,a\nn,1\nx,abc\n", "x: 'abc' is no number"),
        ("model,a\nn,0\nx,1\n", "sizes of groups must be >= 1"),
        ("model,overall\nn,\nx,1\n", "scores are of the groups"),
    ],
)
def test_broken_tables_are_refused(text: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=words):
        load_published_table(path)


def test_wrong_sizes_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text(TABLE)
    with pytest.raises(ValueError, match="sizes once"):
        load_published_table(path, SIZES)
    with pytest.raises(ValueError, match=r"scores are of the groups \['a'\], sizes of \['b'\]"):
        check_row("x", {"a": "1"}, {"b": 1})
    with pytest.raises(FileNotFoundError):
        load_published_table(tmp_path / "none.csv")
