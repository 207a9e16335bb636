"""The questions that are asked of every trained decoder, the same ones of each: models then differ in nothing else."""

from __future__ import annotations

from collections.abc import Callable

from studies.auditing.plan import draw_evenly
from studies.bundled import BUNDLED_DATA
from studies.multi_image import MultiImageQuestion, read_questions


def drawn_questions(count: int, able: Callable[[MultiImageQuestion], bool] | None = None) -> list[MultiImageQuestion]:
    """Test questions of the bundled benchmark that name their target image, drawn evenly over tasks.

    Args:
        count: How many.
        able: Which of them may be drawn; None takes all.
    """
    found = [
        record
        for record in read_questions(BUNDLED_DATA, split="test").records
        if record.target is not None and (able is None or able(record))
    ]
    chosen = set(draw_evenly({record.id: record.task for record in found}, count, seed=0))
    return [record for record in found if record.id in chosen]
