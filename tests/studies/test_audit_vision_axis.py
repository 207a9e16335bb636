"""An audit of Mllama, whose images are on a vision axis: only layers that reach it carry factors."""

from pathlib import Path

import numpy as np
import pytest

from studies.runs import RunFolder
from tests.probes.test_vision_axis import model, processor
from tests.studies.small_audit import Small, save_questions

pytestmark = pytest.mark.filterwarnings("ignore")


class Crossing(Small):
    """Questions, and a tiny Mllama beside them."""

    def __init__(self, root: Path) -> None:
        self.model, self.data = root / "model", root / "data"
        model().save_pretrained(self.model)
        processor().save_pretrained(self.model)
        save_questions(self.data, count=6, dev=2)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Small:
    return Crossing(tmp_path_factory.mktemp("crossing"))


def test_rows_of_the_cross_attention_layer_are_written(small: Small, tmp_path: Path) -> None:
    """Image-to-image questions fail one by one: an image is no row there."""
    assert small.audit(tmp_path / "run") == 1
    run = RunFolder.open(tmp_path / "run")
    assert run.verify().ok
    errors = [error for error in run.read("samples").column("error").to_pylist() if error]
    assert len(errors) == 3 and all("rows='anchor' needs tokens that hold images" in error for error in errors)
    layers = run.read("layers")
    assert set(layers.column("layer").to_pylist()) == {1}
    assert np.isfinite(layers.column("factor").to_numpy()).all()


def test_knock_outs_are_refused_before_anything_is_asked(
    small: Small, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert small.audit(tmp_path / "run", "--causal", "2") == 2
    assert "--causal knocks out images' tokens, and mllama has none" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
