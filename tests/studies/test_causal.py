"""The causal check: who is drawn, who lends images, and that effects are those of the interventions."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from probes.inputs import ImageRef, InputError
from studies.auditing.causal import measure_effects, pair_up, windows
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


def test_partners_are_other_test_samples(records: list[MultiImageQuestion]) -> None:
    partners = pair_up(records, 5, seed=0)
    assert len(partners) == 5 and partners == pair_up(records, 5, seed=0)
    by_id = {record.id: record for record in records}
    for name, partner in partners.items():
        assert by_id[name].split == partner.split == "test"
        assert partner.cluster != by_id[name].cluster
    assert len({partner.id for partner in partners.values()}) > 1
    assert pair_up(records, 0, seed=0) == {}
    assert set(pair_up(records, 3, seed=0)) <= set(partners)


def test_samples_that_cannot_be_checked_are_refused(records: list[MultiImageQuestion]) -> None:
    with pytest.raises(InputError, match="two different test samples"):
        pair_up([record for record in records if record.split == "dev"], 2, seed=0)
    with pytest.raises(InputError, match="two different test samples"):
        pair_up(records[-1:], 1, seed=0)


def test_a_sample_with_a_broken_image_lends_none(records: list[MultiImageQuestion], tmp_path: Path) -> None:
    whole = records[-1].images[0].read()
    fields: dict[str, Any] = {"question": "What?", "answer": "a", "target": 0}
    broken = [MultiImageQuestion(id=f"b{i}", images=(ImageRef(data=whole[:90]),) * 2, **fields) for i in range(20)]
    partners = pair_up([*broken, *records[-2:]], 22, seed=0)
    assert {partner.id for partner in partners.values()} <= {records[-1].id, records[-2].id}


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
    effects = measure_effects(model, record, trace, partner)
    assert set(effects) == {("blank", "all"), ("swap", "all")} | {("knockout", name) for name in ("all", "0", "1", "2")}
    for values in effects.values():
        assert values.shape == (len(record.images),) and np.isfinite(values).all() and np.abs(values).max() > 1e-4
    again = measure_effects(model, record, trace, partner)
    assert all((again[key] == values).all() for key, values in effects.items())


def test_a_lender_of_the_same_pictures_lends_nothing(model: Any, records: list[MultiImageQuestion]) -> None:
    record = records[-1]
    trace = model.trace(record.images, record.question, max_new_tokens=3)
    poor = replace(record, id="poor", base=None, images=record.images[:1] * len(record.images))
    with pytest.raises(InputError, match="has none to lend"):
        measure_effects(model, record, trace, poor)
    assert pair_up([record, poor, records[-2]], 3, seed=0)[record.id] == records[-2]
