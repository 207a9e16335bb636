"""The study's figure: estimates in, a figure out."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from studies.language.summary import Summary

SERIES = {
    "i.i.d.: longer right on 95 %": "iid",
    "o.o.d.: on half": "ood",
    "cue reversed: on 5 %": "reversed",
    "answers of one form": "matched",
}


def overview(found: Sequence[Summary]) -> Any:
    """Accuracies of each method, with intervals over seeds."""
    from viz import papers

    value, low, high = (
        np.array([[getattr(getattr(each, name), end) for each in found] for name in SERIES.values()])
        for end in ("value", "low", "high")
    )
    names = [each.method for each in found]
    return papers.ranking(names, value, low, high, 0.5, list(SERIES), quantity="test pairs ranked right")
