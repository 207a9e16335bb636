"""The example of docs/token-reduction.md runs."""

from pathlib import Path
from typing import Any

import pytest

from probes.model import HookedModel
from tests.probes.hooked import hooked
from tests.probes.reduction.pruned import FAMILY, RATE, moving, rate

PAGE = Path(__file__).parents[3] / "docs" / "token-reduction.md"


def test_the_example_of_the_page_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(HookedModel, "from_pretrained", lambda _: hooked(FAMILY))
    code = PAGE.read_text().split("```python\n")[1].split("```")[0]
    names: dict[str, Any] = {"frames": moving(), "box": (20, 10, 30, 20)}
    with rate(hooked(FAMILY), RATE), pytest.warns(UserWarning, match="only the first"):
        exec(code, names)
    assert names["trace"].retained(0, frame=4).sum() < 16
    assert len(names["points"]) == 3 and names["tiled"].processor.tiling.side == 512
