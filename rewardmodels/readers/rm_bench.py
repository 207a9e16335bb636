"""RM-Bench: three right and three wrong answers, one in each style, and the scores that were published for them.

Text only. No torch.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from probes.inputs import InputError
from probes.reading.rows import Row, items, number, text, texts
from probes.reading.sources import RawRow, read_source
from rewardmodels.readers.parts import is_texts, question, row_id
from rewardmodels.records import Preference, Response
from rewardmodels.styles import STYLES as STYLES

WHY = "rows with prompt, domain, and three texts each as chosen and rejected"


class StyleScores(NamedTuple):
    """What a reward model gave the answers of each item: (items, styles), in the order of ``STYLES``."""

    chosen: NDArray[np.float64]
    rejected: NDArray[np.float64]
    domains: tuple[str, ...] = ()
    """The domain of each item, the parts of safety as one; empty where the file does not tell them."""


def matches(row: Row) -> bool:
    """Return whether a row has the keys of this format."""
    return {"prompt", "domain"} <= row.keys() and is_texts(row.get("chosen")) and is_texts(row.get("rejected"))


def holds_scores_only(row: Row) -> bool:
    """Return whether a row has the scores of an item and none of its texts."""
    return {"score_chosen", "score_rejected"} <= row.keys() and not {"prompt", "chosen", "rejected"} & row.keys()


def read(raw: RawRow) -> Preference:
    """Read one item: the right answers first, each side in the order of ``STYLES``, named in ``meta["styles"]``.

    The domain is the group, with the parts of safety behind a slash. Scores that a row carries go to its responses.

    Raises:
        InputError: a value is missing or of the wrong type, or a side has not three answers.
    """
    row = raw.values
    responses: list[Response] = []
    for side in ("chosen", "rejected"):
        words = texts(row, side)
        if len(words) != len(STYLES):
            raise InputError(f"{side} must be {len(STYLES)} answers ({', '.join(STYLES)}), and there are {len(words)}")
        scores = _scores(row, f"score_{side}") if f"score_{side}" in row else [None] * len(STYLES)
        responses += [Response(answer, score=score) for answer, score in zip(words, scores, strict=True)]
    return Preference(
        id=row_id(raw, "id"),
        prompt=question(text(row, "prompt"), ()),
        responses=tuple(responses),
        ranks=(0,) * len(STYLES) + (1,) * len(STYLES),
        group=text(row, "domain").replace("safety-", "safety/"),
        source="RM-Bench",
        meta={"styles": [*STYLES, *STYLES]},
    )


def read_style_scores(path: str | Path) -> StyleScores:
    """Read the scores of all items, as the released evaluations of RM-Bench write them; texts are not needed.

    Raises:
        InputError: the file cannot be read, or an item has not one finite score for each answer.
    """
    sides: dict[str, list[list[float]]] = {"score_chosen": [], "score_rejected": []}
    domains: list[str] = []
    for raw in read_source(Path(path)).rows:
        try:
            if raw.error is not None:
                raise InputError(raw.error)
            for side, kept in sides.items():
                kept.append([score for score in _scores(raw.values, side) if score is not None])
            if raw.values.get("domain"):
                domains.append(text(raw.values, "domain").split("-")[0])
        except InputError as error:
            raise InputError(f"{raw.place}: {error}") from error
    if not sides["score_chosen"]:
        raise InputError(f"{path} holds no item")
    if domains and len(domains) < len(sides["score_chosen"]):
        raise InputError(
            f"{path}: {len(domains)} of {len(sides['score_chosen'])} items name a domain: give all or none"
        )
    return StyleScores(np.array(sides["score_chosen"]), np.array(sides["score_rejected"]), tuple(domains))


def _scores(row: Row, key: str) -> list[float | None]:
    given = {f"{key}[{place}]": value for place, value in enumerate(items(row, key))}
    scores = [number(given, place) for place in given]
    if len(scores) != len(STYLES) or None in scores:
        raise InputError(f"{key} must be {len(STYLES)} numbers, one for each style")
    return scores
