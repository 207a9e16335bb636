"""The causal check: who is drawn, who lends images, and that effects are those of the interventions."""

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL.PngImagePlugin import PngInfo

from probes.inputs import ImageRef, InputError, same_picture
from probes.interventions import knockout_effects
from probes.prompts import Question
from studies.auditing.causal import Pairing, measure_effects, pair_up, windows
from studies.multi_image import MultiImageQuestion, read_questions
from tests.studies.small_audit import save_model, save_questions

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> list[MultiImageQuestion]:
    return list(read_questions(save_questions(tmp_path_factory.mktemp("data") / "data")).records)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Any:
    from probes.model import HookedModel

    return HookedModel.from_pretrained(save_model(tmp_path_factory.mktemp("model")))


def test_lenders_are_other_test_samples(records: list[MultiImageQuestion]) -> None:
    pairing = pair_up(records, 5, seed=0)
    assert len(pairing.lent) == 5 and not pairing.unpaired and pairing == pair_up(records, 5, seed=0)
    by_id = {record.id: record for record in records}
    for name, lent in pairing.lent.items():
        record = by_id[name]
        owners = [other for other in records if {image.name for image in lent} <= {i.name for i in other.images}]
        assert len(lent) == len(record.images)
        assert record.split == "test" and any(o.split == "test" and o.cluster != record.cluster for o in owners)
        assert all(not same_picture(a.open(), b.open()) for a, b in zip(record.images, lent, strict=True))
    assert len(set(pairing.lent.values())) > 1
    assert pair_up(records, 0, seed=0) == Pairing({}, {})
    assert set(pair_up(records, 3, seed=0).lent) <= set(pairing.lent)


def test_samples_that_cannot_be_checked_are_refused(records: list[MultiImageQuestion]) -> None:
    with pytest.raises(InputError, match="two different test samples"):
        pair_up([record for record in records if record.split == "dev"], 2, seed=0)
    with pytest.raises(InputError, match="two different test samples"):
        pair_up(records[-1:], 1, seed=0)


def test_a_sample_with_a_broken_image_lends_none(records: list[MultiImageQuestion], tmp_path: Path) -> None:
    whole = records[-1].images[0].read()
    fields: dict[str, Any] = {"question": "What?", "answer": "a", "target": 0}
    broken = [MultiImageQuestion(id=f"b{i}", images=(ImageRef(data=whole[:90]),) * 2, **fields) for i in range(20)]
    pairing = pair_up([*broken, *records[-2:]], 22, seed=0)
    assert set(pairing.lent) == {records[-1].id, records[-2].id} and not pairing.unpaired


@pytest.mark.parametrize(
    ("layers", "names"),
    [
        ([4], ["all"]),
        ([0, 1], ["all", "0", "1"]),
        ([0, 1, 2, 3, 4, 5, 6], ["all", "0-2", "3-4", "5-6"]),
        ([1, 5, 9], ["all", "1", "5", "9"]),
    ],
)
def test_windows_cover_every_layer_once(layers: list[int], names: list[str]) -> None:
    named = windows(layers)
    assert list(named) == names
    parts = [layer for name, part in named.items() if name != "all" for layer in part]
    assert parts == (layers if len(names) > 1 else [])
    assert named["all"] == layers


def test_effects_name_every_intervention_and_hide_nothing_of_the_answer(
    model: Any, records: list[MultiImageQuestion]
) -> None:
    record, partner = records[-1], records[-2]
    trace = model.trace(record.images, record.question, max_new_tokens=3)
    lent = partner.images
    effects = measure_effects(model, record, trace, lent)
    assert set(effects) == {("blank", "all"), ("swap", "all")} | {("knockout", name) for name in ("all", "0", "1", "2")}
    for values in effects.values():
        assert values.shape == (len(record.images),) and np.isfinite(values).all() and np.abs(values).max() > 1e-4
    again = measure_effects(model, record, trace, lent)
    assert all((again[key] == values).all() for key, values in effects.items())


def test_a_sample_that_nobody_can_lend_to_says_so(records: list[MultiImageQuestion]) -> None:
    """`poor` shows one picture over and over, saved again with other bytes: it has nothing else to lend its twin."""
    record = next(each for each in records if each.split == "test" and each.task == "content")
    stream = io.BytesIO()
    record.images[0].open().save(stream, format="PNG", pnginfo=_note())
    poor = replace(record, id="poor", base=None, images=(ImageRef(data=stream.getvalue()),) * len(record.images))
    poorer = replace(poor, id="poorer", images=record.images[:1] * len(record.images))
    pairing = pair_up([poor, poorer, record], 3, seed=0)
    assert set(pairing.lent) == {"poor", "poorer"} and set(pairing.unpaired) == {record.id}
    assert "show something else" in pairing.unpaired[record.id]
    with pytest.raises(InputError, match="no other sample has images that open and show something else"):
        pair_up([poor, poorer], 2, seed=0)


def _note() -> PngInfo:
    note = PngInfo()
    note.add_text("Software", "another program")
    return note


def test_the_knock_out_of_an_image_to_image_sample_blinds_the_anchors_rows_too(
    model: Any, records: list[MultiImageQuestion]
) -> None:
    for task, rows in (("retrieval", ["after", "anchor"]), ("content", ["after"])):
        record = next(each for each in records if each.split == "test" and each.task == task)
        lent = pair_up(records, len(records), seed=0).lent[record.id]
        trace = model.trace(record.images, record.question, max_new_tokens=3)
        found = measure_effects(model, record, trace, lent)["knockout", "all"]
        question = Question(record.images, record.question)
        by_hand: dict[tuple[str, ...], Any] = {
            names: knockout_effects(model, question, trace.answer_ids, rows=names)[0]
            for names in (("after",), ("after", "anchor"))
        }
        np.testing.assert_allclose(found, by_hand[tuple(rows)], atol=1e-5)
        assert np.abs(by_hand["after",] - by_hand["after", "anchor"]).max() > 1e-3
