"""What an audit checks before it computes: digests that tell runs apart, given answers, images by their headers."""

import json
import struct
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from probes.inputs import ImageRef, InputError
from studies.audit import AuditConfig, check
from studies.auditing import inputs
from studies.auditing.image_facts import ImageFacts
from studies.auditing.inputs import check_answers, data_digest, model_digest
from studies.multi_image import MultiImageQuestion


@pytest.fixture
def records(tmp_path: Path) -> list[MultiImageQuestion]:
    Image.new("RGB", (8, 6), "teal").save(tmp_path / "a.png")
    images = (ImageRef(path=str(tmp_path / "a.png")),) * 2
    return [MultiImageQuestion(id=f"q{index}", question="What?", images=images, answer="a") for index in range(3)]


@pytest.mark.parametrize(
    "meta", [{"last_fixed": True}, {"question_template": "Image {position}?"}, {"path": Path("a")}]
)
def test_what_changes_the_questions_changes_the_digest_of_the_data(
    records: list[MultiImageQuestion], meta: dict[str, Any]
) -> None:
    facts = ImageFacts()
    plain = data_digest(records, {}, facts)
    assert plain == data_digest(records, {}, facts)
    assert plain != data_digest([replace(records[0], meta=meta), *records[1:]], {}, facts)


def model_from(commit: str | None) -> Any:
    return SimpleNamespace(model=SimpleNamespace(config=SimpleNamespace(_commit_hash=commit)))


@pytest.mark.parametrize("changed", ["head", "start", "middle", "end", "size"])
def test_large_weights_are_told_apart_by_head_and_chunks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changed: str
) -> None:
    monkeypatch.setattr(inputs, "WHOLE_BYTES", 4096)
    monkeypatch.setattr(inputs, "CHUNK_BYTES", 64)
    monkeypatch.setattr(inputs, "CHUNKS", 5)
    head = json.dumps({"weight": {"dtype": "F32", "shape": [1000], "data_offsets": [0, 8000]}}).encode().ljust(300)
    content = bytearray(struct.pack("<Q", len(head)) + head + bytes(8000))
    file = tmp_path / "model.safetensors"
    file.write_bytes(content)
    before = model_digest(str(tmp_path), model_from(None))
    places = {"head": 200, "start": 10, "middle": (len(content) - 64) * 2 // 4 + 30, "end": -1}
    if changed == "size":
        content += b"\0"
    else:
        content[places[changed]] ^= 1
    file.write_bytes(content)
    assert before is not None and model_digest(str(tmp_path), model_from(None)) != before


def test_a_name_without_a_commit_is_no_digest(capsys: pytest.CaptureFixture[str]) -> None:
    assert model_digest("owner/name", model_from("abc")) == "commit abc"
    assert capsys.readouterr().err == ""
    assert model_digest("owner/name", model_from(None)) is None
    assert "owner/name" in capsys.readouterr().err


def test_answers_of_other_samples_are_refused(records: list[MultiImageQuestion]) -> None:
    with pytest.raises(InputError) as error:
        check_answers(records, {"1": "a", "2": "b", "3": "c"})
    assert "'1', '2'" in str(error.value) and "'q0', 'q1'" in str(error.value) and "'3'" not in str(error.value)


def test_unused_answers_are_counted(records: list[MultiImageQuestion], capsys: pytest.CaptureFixture[str]) -> None:
    good, refused = check_answers(records, {"q0": "a", "q1": " ", "x": "b", "y": "c"})
    assert [record.id for record in good] == ["q0"] and set(refused) == {"q1", "q2"}
    assert "2 answers" in capsys.readouterr().err
    check_answers(records, {"q0": "a"})
    assert capsys.readouterr().err == ""


def test_images_without_bytes_have_no_digest_and_others_their_own_reason(tmp_path: Path) -> None:
    facts = ImageFacts()
    (tmp_path / "empty.png").write_bytes(b"")
    Image.new("RGB", (4, 4)).save(tmp_path / "a.pcx")
    assert facts.of(ImageRef(path=str(tmp_path / "empty.png"))).digest is None
    assert facts.of(ImageRef(path=str(tmp_path / "nowhere.png"))).digest is None
    other = facts.of(ImageRef(path=str(tmp_path / "a.pcx")))
    assert other.digest is not None and "kinds read" in (other.error or "") and "gigantic" not in (other.error or "")
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.new("RGB", (30, 20)).save(tmp_path / "turned.jpg", exif=turned)
    assert facts.of(ImageRef(path=str(tmp_path / "turned.jpg"))).size == (20, 30)


def test_resuming_needs_a_run(tmp_path: Path) -> None:
    for out in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(InputError, match=f"--resume: {out} holds no run"):
            check(AuditConfig(out=out, resume=True))
    (tmp_path / "manifest.json").write_text("{}")
    check(AuditConfig(out=tmp_path, resume=True))
