"""Audits of every tiny model of `tests.probes.inside`: attention and hidden attention, each kind of layer by itself."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pytest

from probes.model import Question
from probes.state_space import trace_mixers
from studies.auditing.entries import find
from studies.auditing.mixers import MEASURES
from studies.multi_image import read_questions
from studies.runs import RunFolder
from tests.probes.inside.cases import KINDS, STATE_SPACE, VIDEO, layers_of, model_of
from tests.studies.small_audit import Small, make_answerable, read_rows, save_questions, write_rows

pytestmark = pytest.mark.filterwarnings("ignore")
IMAGES = [name for name in KINDS if name != VIDEO]


class Audited(Small):
    """One model of the table on disk, a dev and a test question, and the audit of both, one token an answer."""

    def __init__(self, root: Path, name: str) -> None:
        self.model, self.data, self.out = root / "model", root / "data", root / "run"
        model_of(name).model.save_pretrained(self.model)
        model_of(name).processor.save_pretrained(self.model)
        save_questions(self.data, count=2, dev=1)
        make_answerable(self.model, self.data, max_new_tokens=1)
        self.status = self.audit(self.out, "--max-new-tokens", "1")
        self.run = RunFolder.open(self.out)


def recorded(run: RunFolder, measure: str, name: str) -> dict[tuple[int, int], float]:
    """By layer and image, of one question's predicting rows."""
    wanted = (pc.field("measure") == measure) & (pc.field("sample_id") == name) & (pc.field("rows") == "predicting")
    rows = run.read("layers", filter=wanted).to_pylist()
    return {(row["layer"], row["image"]): row["factor"] for row in rows if row["head"] == -1}


@pytest.mark.parametrize("name", IMAGES)
def test_every_measure_is_recorded_for_its_own_kind_of_layer(name: str, tmp_path: Path) -> None:
    audited, model = Audited(tmp_path, name), model_of(name)
    run, mixing = audited.run, layers_of(name, STATE_SPACE)
    assert audited.status == 0
    kinds = {(row["layer"], str(row["layer_kind"])) for row in run.read("layers").to_pylist()}
    assert kinds == {(layer, str(part)) for layer, parts in enumerate(KINDS[name]) for part in parts
                     if part in ("attention", "state space")}  # fmt: skip
    record = read_questions(audited.data).records[0]
    answer = run.sample(record.id)["answer"]
    asked = Question(record.images, record.question)
    trace = model.trace(*asked[:2], max_new_tokens=1, rows="predicting")
    assert trace.answer == answer
    assert_table(recorded(run, "factor", record.id), trace.layers, trace.factors)
    measures = {entry["measure"] for entry in run.read_metrics() if entry.get("measure")}
    if not mixing:
        assert not measures and "mixers" not in run.manifest.config
        return
    assert measures == set(MEASURES.values())
    hidden = trace_mixers(model, [asked], [trace.answer_ids], rows=("predicting",))[0]
    for form, measure in MEASURES.items():
        assert list(hidden.layers) == mixing
        assert_table(recorded(run, measure, record.id), hidden.layers, hidden.factors(form))
        named = {"measure": measure, "rows": "predicting", "split": "test"}
        (found,) = find(run.read_metrics(), "attention_accuracy", layer_kind="state space", **named)
        assert found["last"] <= len(mixing), "never over layers of another kind"


def assert_table(found: dict[tuple[int, int], float], layers: Any, table: Any) -> None:
    """Rows of the audit are the table's numbers, up to the company that a question had in its batch."""
    right = {(layer, image): value for layer, row in zip(layers, table, strict=True) for image, value in enumerate(row)}
    assert set(found) == set(right)
    np.testing.assert_allclose([found[key] for key in right], list(right.values()), rtol=1e-3, atol=1e-6)
    assert len(set(right.values())) > 1


def test_a_question_about_a_video_alone_is_refused_by_name(tmp_path: Path, capsys: Any) -> None:
    audited = Small.__new__(Small)
    audited.model, audited.data = tmp_path / "model", save_questions(tmp_path / "data", count=2, dev=0)
    model_of(VIDEO).model.save_pretrained(audited.model)
    model_of(VIDEO).processor.save_pretrained(audited.model)
    rows = read_rows(audited.data / "questions.jsonl")
    write_rows(audited.data / "questions.jsonl", [row | {"images": [], "videos": ["a.mp4"]} for row in rows])
    assert audited.audit(tmp_path / "run") == 1
    said = capsys.readouterr().err
    assert re.search(r"2 samples failed; .*line 1: it has videos, .* frames as images, or trace videos from Py", said)
