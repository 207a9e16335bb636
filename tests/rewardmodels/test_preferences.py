"""Which format is taken and why, splits, ids, images, and hostile input."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from probes.inputs import InputError
from probes.reading.hub import read_hub
from probes.reading.sources import Source
from rewardmodels import Preferences, read_preferences, write_preferences
from rewardmodels.preferences import FORMATS, KNOWN
from tests.rewardmodels import published
from tests.rewardmodels.published import save_images, write_json, write_lines, write_parquet

ROOT = Path(__file__).parents[2]


def test_every_format_is_recognised_and_says_why(tmp_path: Path) -> None:
    examples = published.examples(tmp_path)
    assert tuple(examples) == FORMATS
    for name, path in examples.items():
        read = read_preferences(path)
        assert (read.format, read.bad, len(read)) == (name, (), 1), read.bad
        assert f"file {path.name}; format {name}: {KNOWN[name].why}" in read.why
        assert read_preferences(path, name).records == read.records


def test_what_is_read_comes_back_from_our_own_lines(tmp_path: Path) -> None:
    for name, path in published.examples(tmp_path).items():
        first = read_preferences(path)
        write_preferences(tmp_path / f"{name}-again.jsonl", first)
        again = read_preferences(tmp_path / f"{name}-again.jsonl")
        assert (again.format, again.records) == ("sightcheck", first.records)
        assert (again.ties, again.skipped) == (first.ties, first.skipped)
    row = json.loads((tmp_path / "mmrb2-again.jsonl").read_text())
    assert row["responses"][0]["images"] == ["images/blue.png"]


def test_what_fits_two_formats_is_refused_with_both_names(tmp_path: Path) -> None:
    save_images(tmp_path / "mcq", "red")
    row = {key: value for key, value in published.mm_rlhf_row().items() if not key.endswith("_reason")}
    path = write_lines(tmp_path / "a.jsonl", [row])
    with pytest.raises(InputError, match=r"several formats, trl \(.*\) or mm-rlhf-rewardbench \(.*\): say which"):
        read_preferences(path)
    assert read_preferences(path, "mm-rlhf-rewardbench").records[0].group == "mcq"
    assert read_preferences(path, "trl").records[0].group == ""


def test_unknown_columns_and_formats_are_named(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "a.jsonl", [{"text": "a", "label": 1}])
    with pytest.raises(InputError, match=r"columns are text, label; known formats: sightcheck \(rows with prompt"):
        read_preferences(path)
    with pytest.raises(InputError, match="format 'TRL' is not known; known: sightcheck"):
        read_preferences(path, "TRL")


def test_scores_without_texts_are_no_preferences(tmp_path: Path) -> None:
    path = write_json(tmp_path / "scores.json", [{"score_chosen": [1, 2, 3], "score_rejected": [1, 2, 3]}])
    with pytest.raises(InputError, match="read_style_scores"):
        read_preferences(path)


def test_several_splits_must_be_told_apart(tmp_path: Path) -> None:
    for split, name in (("train", "a"), ("test", "b")):
        row = published.rewardbench_row(id=name)
        write_parquet(tmp_path / "data" / f"{split}-00000-of-00001.parquet", [row])
    with pytest.raises(InputError, match="has the splits test, train: choose one"):
        read_preferences(tmp_path)
    read = read_preferences(tmp_path, split="train")
    assert [record.id for record in read] == ["a"]
    assert "split train, 1 row of other splits left out" in read.why
    with pytest.raises(InputError, match="no preference in the split 'dev'; its splits: test, train"):
        read_preferences(tmp_path, split="dev")


def test_parts_of_one_split_are_all_read(tmp_path: Path) -> None:
    for part in range(2):
        row = published.trl_row(images=None, prompt=[published.said("user", f"{part}?")])
        write_parquet(tmp_path / "data" / f"train-0000{part}-of-00002.parquet", [row])
    read = read_preferences(tmp_path)
    assert [record.id for record in read] == [f"data/train-0000{part}-of-00002.parquet row 1" for part in range(2)]


def test_a_hub_set_with_several_splits_is_not_chosen_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for split in ("train", "test"):
        write_parquet(tmp_path / "set" / f"{split}-0.parquet", [published.rewardbench_row()])

    def read_local(name: str, *rest: Any) -> Source:
        assert name == "owner/name"
        return read_hub(str(tmp_path / "set"), *rest)

    monkeypatch.setattr("probes.reading.formats.read_hub", read_local)
    with pytest.raises(InputError, match="has the splits train, test: choose one"):
        read_preferences("owner/name")
    assert len(read_preferences("owner/name", split="test")) == 1


def test_places_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist: give a file, a folder, or a hub id such as openbmb"):
        read_preferences(tmp_path / "none.jsonl")
    path = write_lines(tmp_path / "a.jsonl", [published.own_row()])
    with pytest.raises(InputError, match="nowhere is no folder"):
        read_preferences(path, image_root=tmp_path / "nowhere")
    with pytest.raises(InputError, match="no subset 'x'"):
        read_preferences(path, subset="x")
    (tmp_path / "empty.jsonl").write_text("")
    with pytest.raises(InputError, match="holds no row"):
        read_preferences(tmp_path / "empty.jsonl")


def test_image_root_and_images_kept_on_disk(tmp_path: Path) -> None:
    save_images(tmp_path / "elsewhere", "red", "blue")
    path = write_lines(tmp_path / "a.jsonl", [published.own_row()])
    assert len(read_preferences(path).bad) == 1
    assert len(read_preferences(path, image_root=tmp_path / "elsewhere")) == 1

    rows = [published.trl_row(chosen=[published.said("assistant", text)]) for text in ("One.", "Two.")]
    inside = read_preferences(write_parquet(tmp_path / "trl.parquet", rows))
    kept = read_preferences(tmp_path / "trl.parquet", keep_images_in=tmp_path / "kept")
    assert [image.data for record in kept for image in record.images] == [None, None]
    assert [record.images[0].digest for record in kept] == [record.images[0].digest for record in inside]
    assert len(list((tmp_path / "kept").iterdir())) == 1


def test_one_bad_row_is_named_and_the_rest_go_on(tmp_path: Path) -> None:
    save_images(tmp_path, "red", "blue")
    rows = ["{", published.own_row("b", ranks=[0]), published.own_row("c"), 3]
    read = read_preferences(write_lines(tmp_path / "a.jsonl", [*rows]))
    assert [record.id for record in read] == ["c"]
    assert [bad.id for bad in read.bad] == ["a.jsonl line 1", "b", "a.jsonl line 4"]
    assert "line 2: there are 1 ranks for 3 responses" in read.bad[1].error
    assert repr(read) == (
        "Preferences(1 record, 2 pairs, 1 tie, 0 ratings skipped, 3 bad, format 'sightcheck', groups: colour)"
    )


def test_an_id_that_a_later_row_takes_by_name(tmp_path: Path) -> None:
    rows = [{"id": name, "prompt": "p", "responses": [str(k), "x"], "ranks": [0, 1]} for k, name in enumerate("aba")]
    rows.append({**rows[1], "id": "a~2"})
    read = read_preferences(write_lines(tmp_path / "a.jsonl", rows))
    assert [(record.id, record.cluster) for record in read] == [("a", "a"), ("b", "b"), ("a~2", "a"), ("a~2~2", "a")]


def test_records_about_one_image_are_clustered_with_the_first(tmp_path: Path) -> None:
    save_images(tmp_path, "red", "blue")
    images = ("red.png", "blue.png", "red.png", None, "red.png", None)
    rows = [
        {"id": name, "prompt": f"Say {name}", "images": [image] if image else [], "responses": ["x", name]}
        for name, image in zip("abcdef", images, strict=True)
    ]
    rows[4] |= {"base": "g"}
    read = read_preferences(write_lines(tmp_path / "a.jsonl", [{**row, "ranks": [0, 1]} for row in rows]))
    assert [record.cluster for record in read] == ["a", "b", "a", "d", "g", "f"], "what the source gives stays"
    assert {pair.cluster for pair in read.pairs() if pair.record == "c"} == {"a"}
    assert "1 record asks about an image of an earlier one" in read.why


def test_ids_that_repeat_and_images_that_repeat_make_one_cluster(tmp_path: Path) -> None:
    save_images(tmp_path, "red", "blue", "green")
    shown = [
        ("a", ["red"]),
        ("b", ["red"]),
        ("b", ["blue"]),
        ("b", ["red"]),
        ("c", ["green", "blue"]),
        ("d", ["green"]),
    ]
    rows = [
        {"id": name, "prompt": "Say it", "images": [f"{image}.png" for image in images], "responses": [str(at), "x"]}
        for at, (name, images) in enumerate([*shown, ("e", [])])
    ]
    read = read_preferences(write_lines(tmp_path / "a.jsonl", [{**row, "ranks": [0, 1]} for row in rows]))
    assert [record.cluster for record in read] == ["a"] * 6 + ["e"]


def test_the_documented_table_is_the_table_of_formats() -> None:
    page = (ROOT / "docs" / "preferences.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([^`]+)` \| [^|]+ \| ([^|]+) \|", page, flags=re.MULTILINE)
    assert [(name, why.strip()) for name, why in rows] == [(name, form.why) for name, form in KNOWN.items()]


KEYS = sorted(
    {key for row in (published.own_row(), published.vlfeedback_row(True), published.rlhf_v_row(dict)) for key in row}
    | {key for row in (published.rlhf_v_row(), published.povid_row(), published.implicit_row()) for key in row}
    | {key for row in (published.ms_swift_row(), published.mmrb2_row(), published.mm_rlhf_row()) for key in row}
    | {key for row in (published.vl_rewardbench_row(), published.vl_rewardbench_tsv_row()) for key in row}
    | {key for row in (published.multimodal_rewardbench_row(), published.rm_bench_row()) for key in row}
    | {"rejected_messages", "rejected_images", "video", "system", "score_chosen", "subset", "model_name", "text"}
)
INNER = [*KEYS, "role", "content", "from", "value", "type", "Rating", "Helpfulness", "response_content", "annotations"]
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["red.png", "images.zip/red.png", "data:image/png;base64,AA", "[[[", "['a'", "{", ".", "../x"])
    | st.sampled_from(["user", "assistant", "human", "gpt", "image", "text", "Output1", "A", "Ties", "tied:1"])
    | st.sampled_from(["\ud800", "a\0b", "<image>", "x" * 5000, "~", "[" * 3000, "1e400", "N/A", "[0, 1]"]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*INNER, "bytes", "path"]), inner, max_size=3)
    ),
    max_leaves=8,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("hostile")
    save_images(made, "red")
    return made


@given(
    rows=st.lists(st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=9) | VALUES, min_size=1, max_size=4),
    format=st.sampled_from(FORMATS),
    allow=st.booleans(),
)
@settings(max_examples=250, suppress_health_check=[HealthCheck.too_slow])
def test_hostile_rows_become_bad_records_and_nothing_is_lost(
    folder: Path, rows: list[Any], format: str, allow: bool
) -> None:
    path = folder / "rows.jsonl"
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    try:
        read = read_preferences(path, format, allow_missing_images=allow)
    except InputError as error:
        assert "splits" in str(error) or "scores" in str(error)
        return
    assert len(read.records) + len(read.bad) == len(rows)
    assert all(bad.id for bad in read.bad)


BASES: dict[str, published.Row] = {
    "sightcheck": published.own_row(),
    "vlfeedback": published.vlfeedback_row(False),
    "generalizable-mm-rm": published.generalizable_row(),
    "rlhf-v": published.rlhf_v_row(dict, image="red.png"),
    "rlaif-v": published.rlhf_v_row(image="red.png"),
    "povid": published.povid_row(image="red.png"),
    "trl": published.trl_row(images=["red.png"]),
    "ms-swift": published.ms_swift_row(),
    "llama-factory": published.llama_factory_row(),
    "vl-rewardbench": published.vl_rewardbench_row(image="red.png"),
    "vl-rewardbench-tsv": published.vl_rewardbench_tsv_row(),
    "multimodal-rewardbench": published.multimodal_rewardbench_row(Image="red.png"),
    "mmrb2": published.mmrb2_row(prompt_content=[["text", "a"]]),
    "mm-rlhf-rewardbench": published.mm_rlhf_row(image="red.png"),
    "rewardbench": published.rewardbench_row(),
    "rewardbench-2": published.rewardbench_2_row(),
    "rm-bench": published.rm_bench_row(),
}


@given(format=st.sampled_from(FORMATS), data=st.data())
@settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow])
def test_a_good_row_with_one_broken_value_is_a_record_or_a_bad_one(
    folder: Path, format: str, data: st.DataObject
) -> None:
    row = dict(BASES[format])
    row[data.draw(st.sampled_from(sorted(row)))] = data.draw(VALUES)
    path = folder / "row.jsonl"
    path.write_text(json.dumps(row) + "\n")
    read = read_preferences(path, format)
    assert len(read.records) + len(read.bad) == 1
    for record in read:
        write_preferences(folder / "again.jsonl", [record])
        assert read_preferences(folder / "again.jsonl").records == (record,)


@given(
    st.binary(max_size=200), st.sampled_from([".json", ".jsonl", ".tsv", ".csv", ".parquet"]), st.sampled_from(FORMATS)
)
@settings(max_examples=150)
def test_hostile_bytes_raise_one_kind_of_error(folder: Path, content: bytes, kind: str, format: str) -> None:
    path = folder / f"bytes{kind}"
    path.write_bytes(content)
    try:
        read = read_preferences(path, format)
    except InputError:
        return
    assert isinstance(read, Preferences)
