"""The example of docs/token-reduction.md runs."""

from pathlib import Path
from typing import Any

import pytest

from probes.model import HookedModel
from probes.reduction.tiles import Tiling
from tests.probes.hooked import hooked, picture
from tests.probes.reduction.pruned import FAMILY, RATE, moving, rate

PAGE = Path(__file__).parents[3] / "docs" / "token-reduction.md"


def test_the_example_of_the_page_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(HookedModel, "from_pretrained", lambda _: hooked(FAMILY))
    code = PAGE.read_text().split("```python\n")[1].split("```")[0]
    assert code.count("side=512") == 1
    code = code.replace("side=512", "side=32")  # The tiny model's patches are small, and its tokens would be many.
    images = [picture(96, 64), picture(32, 32)]
    names: dict[str, Any] = {"frames": moving(), "box": (20, 10, 30, 20), "images": images}
    with rate(hooked(FAMILY), RATE), pytest.warns(UserWarning, match="only the first"):
        exec(code, names)
    assert names["trace"].retained(0, frame=4).sum() < 16
    assert names["scores"].board.attention_accuracy.n == 1 and names["scores"].lost.value == 0
    assert names["mask"].shape == (6, 16) and names["mask"].sum() == 48
    assert len(names["points"]) == 3 and [len(span.tiles) for span in names["seen"].spans] == [7, 1]
    assert Tiling() == Tiling(side=512, most=12), "what the page writes out is the default"
