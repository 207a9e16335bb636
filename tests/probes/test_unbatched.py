"""Families whose batches are not their questions side by side: traced one question at a time, refused otherwise."""

import numpy as np
import pytest
import torch

from probes.families import PREPENDED, UNBATCHED
from probes.inputs import InputError
from probes.model import Question
from tests.probes.hooked import hooked, picture, reference

MARKED = ("emu3", "hunyuan_vl")
"""Families with image tokens that show no pixels."""
ANSWER = (300, 120, 77, 250)


def question(seed: int) -> Question:
    return Question([picture(32, 32, seed), picture(64, 32, seed + 1)], "1 <image> 2 <image> Which image?")


@pytest.mark.parametrize("family", [family for family in UNBATCHED if family not in PREPENDED])
def test_a_question_alone_equals_eager_attentions(family: str) -> None:
    asked = question(1)
    trace = hooked(family).trace(asked.images, asked.text, ANSWER, rows="predicting")
    seen = reference(family, asked, ANSWER)
    rows = [seen.prompt - 1, *range(seen.prompt, seen.prompt + len(ANSWER) - 1)]
    for place, attention in enumerate(seen.attentions):
        by_column = attention[:, rows].astype(np.float64).mean((0, 1))
        np.testing.assert_allclose(trace.factors[place], [by_column[each].mean() for each in seen.images], atol=1e-6)
        assert abs(trace.factors[place, 0] - trace.factors[place, 1]) > 1e-5
        for image, columns in enumerate(seen.images):
            np.testing.assert_allclose(trace.scores(image, place), by_column[columns], atol=1e-6)
            cells = trace.cells(image)
            assert len(cells) < len(columns) if family in MARKED else len(cells) == len(columns)
            shown = [by_column[columns[cell.token]] for cell in cells]
            np.testing.assert_allclose(trace.map(image, place).flatten(), shown, atol=1e-6)


@pytest.mark.parametrize("family", UNBATCHED)
def test_batches_are_refused_by_name(family: str) -> None:
    with pytest.raises(InputError, match=f"{family} .*: ask one at a time") as error:
        hooked(family).trace_batch([question(1), question(3)], [ANSWER] * 2)
    assert "\n" not in str(error.value)


def test_the_reason_still_holds() -> None:
    """Once transformers numbers images within their prompt, the family belongs among the others."""
    model = hooked("hunyuan_vl")
    alone, image = model.encode([question(1)]).inputs, model.encode([question(3)]).inputs
    both = {key: torch.cat([image[key], alone[key]]) for key in alone}
    with torch.no_grad():
        single = model.model(**alone, use_cache=False).logits[0]
        batched = model.model(**both, use_cache=False).logits[1]
    assert float((single - batched).abs().max()) > 1e-3
