"""Families beyond the first ones, from a saved folder to a trace: loaded, asked, and told apart by their cells."""

from pathlib import Path

import numpy as np
import pytest

from probes.model import HookedModel
from tests.probes.hooked import FURTHER, picture
from tests.probes.processors import build_model, build_processor


@pytest.mark.parametrize("family", FURTHER)
def test_a_saved_checkpoint_is_loaded_and_traced(family: str, tmp_path: Path) -> None:
    processor = build_processor(family)
    build_model(family, processor).save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    model = HookedModel.from_pretrained(tmp_path, device="cpu")
    assert model.model.config.model_type == family
    images = [picture(40, 56, 1), picture(64, 32, 2)]
    trace = model.trace(images, "1 <image> 2 <image> Which image shows the red ball?", max_new_tokens=3)
    assert trace.factors.shape == (3, 2) and np.isfinite(trace.factors).all()
    for image, (width, height) in enumerate(each.size for each in images):
        fine = [cell for cell in trace.cells(image) if not cell.thumbnail]
        assert sum(cell.box.area for cell in fine) == pytest.approx(width * height)
        assert np.isfinite(trace.map(image, -1)).all()
