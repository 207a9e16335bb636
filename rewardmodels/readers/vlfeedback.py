"""VLFeedback, and the two JSONL forms of Generalizable-MM-RM, one of which is VLFeedback's. No torch.

A response's score is the mean of its ratings, as in the code released with shortcut-aware reward models; responses are
ranked by it, and equal means tie. A rating that is no number, which VLFeedback has, leaves its response out.
"""

import math
from collections import defaultdict
from collections.abc import Mapping
from typing import Any, NamedTuple

from probes.inputs import InputError
from probes.reading.rows import Row, items, mapping, shown, text
from probes.reading.sources import RawRow
from rewardmodels.readers.parts import BETTER_AND_WORSE, needed_images, question, row_id, two
from rewardmodels.records import SKIPPED, Preference, Response

WHY = "rows with prompt, img_path and rated completions"
WHY_PAIR = "rows with prompt, img_path, chosen and rejected"
ASPECTS = ("Helpfulness", "Ethical Considerations", "Visual Faithfulness")


class _Completion(NamedTuple):
    annotations: Any
    response: str
    model: str


def matches(row: Row) -> bool:
    """Return whether a row has rated completions."""
    return {"prompt", "completions"} <= row.keys()


def matches_pair(row: Row) -> bool:
    """Return whether a row has a chosen and a rejected response, and its image under ``img_path``."""
    return {"prompt", "img_path", "chosen", "rejected"} <= row.keys()


def read(raw: RawRow) -> Preference:
    """Read one row of rated completions; what could not be ranked is told in ``meta``.

    Raises:
        InputError: a value is missing or of the wrong type, the image does not exist, or fewer than two responses can
            be ranked.
    """
    row = raw.values
    rated, skipped = [], []
    for place, completion in enumerate(_completions(row), start=1):
        try:
            rated.append(Response(completion.response, (), completion.model, _mean_rating(completion.annotations)))
        except InputError as error:
            skipped.append(f"response {place}{f' by {completion.model}' if completion.model else ''}: {error}")
    rated = _without_contradictions(rated, skipped)
    if len(rated) < 2:
        raise InputError(f"{len(rated)} of {len(rated) + len(skipped)} responses can be ranked; {'; '.join(skipped)}")
    scores = sorted({response.score for response in rated if response.score is not None}, reverse=True)
    return Preference(
        id=row_id(raw, "id"),
        prompt=question(text(row, "prompt"), needed_images(row, raw.root, "img_path", "image")),
        responses=tuple(rated),
        ranks=tuple(scores.index(response.score) for response in rated if response.score is not None),
        source="VLFeedback",
        meta={SKIPPED: skipped} if skipped else {},
    )


def read_pair(raw: RawRow) -> Preference:
    """Read one row with a chosen and a rejected response, or with rated completions where it has those.

    Raises:
        InputError: a value is missing or of the wrong type, or the image does not exist.
    """
    row = raw.values
    if row.get("completions"):
        return read(raw)
    return Preference(
        id=row_id(raw, "id"),
        prompt=question(text(row, "prompt"), needed_images(row, raw.root, "img_path")),
        responses=two(text(row, "chosen"), text(row, "rejected")),
        ranks=BETTER_AND_WORSE,
        source=raw.source,
    )


def _completions(row: Row) -> list[_Completion]:
    """Completions come as a list of mappings, or as one mapping of lists."""
    given = row.get("completions")
    if isinstance(given, Mapping):
        columns = mapping(row, "completions")
        annotations, responses = items(columns, "annotations"), items(columns, "response")
        models = items(columns, "model") or [""] * len(responses)
        if not len(annotations) == len(responses) == len(models):
            counts = f"{len(annotations)} annotations, {len(responses)} responses and {len(models)} models"
            raise InputError(f"completions has {counts}")
        rows: list[Any] = [
            {"annotations": annotation, "response": response, "model": model}
            for annotation, response, model in zip(annotations, responses, models, strict=True)
        ]
    else:
        rows = items(row, "completions")
    return [_completion(value) for value in rows]


def _completion(value: Any) -> _Completion:
    if not isinstance(value, Mapping):
        raise InputError(f"a completion is a {type(value).__name__}, and must be a mapping")
    return _Completion(value.get("annotations"), text(value, "response"), text(value, "model", ""))


def _mean_rating(annotations: Any) -> float:
    if not isinstance(annotations, Mapping):
        raise InputError("it has no annotations")
    return math.fsum(_rating(annotations.get(aspect), aspect) for aspect in ASPECTS) / len(ASPECTS)


def _rating(annotation: Any, aspect: str) -> float:
    rating = annotation.get("Rating") if isinstance(annotation, Mapping) else None
    try:
        found = math.nan if isinstance(rating, bool) or not isinstance(rating, int | float | str) else float(rating)
    except (ValueError, OverflowError):
        found = math.nan
    if not math.isfinite(found):
        raise InputError(f"its rating for {aspect} is {shown(rating)}, which is no number")
    return found


def _without_contradictions(rated: list[Response], skipped: list[str]) -> list[Response]:
    """Leave out responses that say the same and are rated differently: there is no telling which rating holds."""
    scores: dict[object, set[float | None]] = defaultdict(set)
    for response in rated:
        scores[response.said()].add(response.score)
    kept = []
    for response in rated:
        if len(scores[response.said()]) > 1:
            skipped.append(f"{response.model or 'a response'}: another says the same and is rated differently")
        else:
            kept.append(response)
    return kept
