"""Have a scorer score every response, as it is and with other images or none, and keep every score.

Whatever fits `rewardmodels.scorers` is asked: a reward model, a callable, a judge. What the scores say is worked out in
`rewardmodels.reports`. Knows no model. No torch.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from probes.inputs import ImageRef, InputError
from probes.reading.sources import BadRecord
from rewardmodels.preferences import Preferences
from rewardmodels.records import Preference, Response
from rewardmodels.scorers import PairJudge, Scorer, Verdict, is_pair_judge, name_of, verdicts
from rewardmodels.scores import AS_IS, ScoreRow, Scores
from rewardmodels.shards import digest_of_records, run_in_shards
from rewardmodels.views import (
    PAPER_BLANK,
    PAPER_VIEW,
    PROXY_VIEWS,
    VIEWS,
    Turns,
    blanked,
    partners,
    with_images_of,
    without_images,
    without_marks,
)

TEXT = "text alone"
"""The view without the images of the prompt and of the responses; "removed" takes those of the prompt only."""
ALL_VIEWS = (AS_IS, *PROXY_VIEWS, TEXT)


class _Asked(NamedTuple):
    """One question: a response, or the two of a pair, under one view."""

    record: Preference
    first: int
    second: int | None
    id: str
    place: int
    view: str
    other: Preference | None
    """Whose images are shown instead."""


class _Shown(NamedTuple):
    prompt: Turns
    responses: tuple[Response, ...]


def score_preferences(
    scorer: Scorer | PairJudge,
    preferences: Preferences,
    views: Sequence[str] = (AS_IS, *VIEWS),
    *,
    folder: str | Path | None = None,
    name: str = "",
    seed: int = 0,
    skip: bool = False,
    retry_failed: bool = False,
    shard: int = 256,
    advance: Callable[[int], object] | None = None,
) -> Scores:
    """Score every response of every record under every view; a judge of pairs compares every pair in both orders.

    Args:
        scorer: Who scores.
        preferences: What is scored.
        views: Of ``ALL_VIEWS``. A record that cannot be shown under a view, as it has no image or no other record has
            as many, is left out there and counted in ``left_out``.
        folder: Where scores are kept as they come; a folder with a part of the same work is gone on with.
        name: How reports call the scorer. A changed name stops a folder from mixing two scorers; so do other weights,
            where the scorer has a ``fingerprint`` of them, as a `rewardmodels.RewardModel` has.
        seed: Draws whose images are shown where they are shuffled.
        skip: Count responses that cannot be scored, instead of stopping at the first.
        retry_failed: Ask again what failed in an earlier run.
        shard: Questions between two saves.
        advance: Called with the number of questions done, for a progress bar; see `question_count`.

    Raises:
        InputError: A view is unknown, there is no record, the folder holds other work, or a response cannot be scored
            and is not skipped.
    """
    asked, left_out = _questions(preferences, views, seed, is_pair_judge(scorer))
    called = name or name_of(scorer)
    plan: dict[str, Any] = {
        "version": 1,
        "scorer": called,
        "compared": is_pair_judge(scorer),
        "views": list(views),
        "seed": seed,
        "data": digest_of_records(preferences.records) if folder is not None else "",
    }
    weights = getattr(scorer, "fingerprint", None) if folder is not None else None
    if weights is not None:
        plan["weights"] = weights
    place = None if folder is None else Path(folder)
    score = partial(_score, scorer, skip)
    rows = run_in_shards(asked, score, place, plan, size=shard, retry_failed=retry_failed, advance=advance)
    return Scores(tuple(rows), called, is_pair_judge(scorer), left_out)


def question_count(scorer: Scorer | PairJudge, preferences: Preferences, views: Sequence[str], seed: int = 0) -> int:
    """How many questions `score_preferences` asks."""
    return len(_questions(preferences, views, seed, is_pair_judge(scorer))[0])


def _questions(
    preferences: Preferences, views: Sequence[str], seed: int, compared: bool
) -> tuple[list[_Asked], dict[str, tuple[BadRecord, ...]]]:
    unknown = [view for view in views if view not in ALL_VIEWS]
    if unknown or not views or len(set(views)) != len(views):
        raise InputError(f"views are {list(views)}: give each once, of {', '.join(ALL_VIEWS)}")
    records = preferences.records
    if not records:
        raise InputError(f"there is no record to score: {preferences.why}")
    others = partners([len(record.images) for record in records], [record.cluster for record in records], seed)
    asked: list[_Asked] = []
    left_out: dict[str, tuple[BadRecord, ...]] = {}
    for view in views:
        missing: list[BadRecord] = []
        for record, other in zip(records, others, strict=True):
            reason = _impossible(record, view, other)
            if reason:
                missing.append(BadRecord(record.id, reason))
                continue
            shown = records[other] if view == "shuffled" and other is not None else None
            asked += _of_record(record, view, shown, compared)
        if missing:
            left_out[view] = tuple(missing)
    return asked, left_out


def _impossible(record: Preference, view: str, other: int | None) -> str:
    if view == AS_IS:
        return ""
    own = bool(record.images)
    if view == TEXT:
        own = own or any(response.images for response in record.responses)
        if not all(_words(response) for response in record.responses):
            return "a response is an image without words"
        if not without_images(record.prompt)[-1].text.strip():
            return "the prompt is an image without words"
    if not own:
        return "it has no image"
    if view == "removed" and not without_images(record.prompt)[-1].text.strip():
        return "the prompt is an image without words"
    if view == "shuffled" and other is None:
        return "no record of another cluster has as many images"
    return ""


def _of_record(record: Preference, view: str, other: Preference | None, compared: bool) -> list[_Asked]:
    if not compared:
        return [_Asked(record, at, None, record.id, at, view, other) for at in range(len(record.responses))]
    found = []
    for pair, (better, worse) in zip(record.pairs(), record.pair_places(), strict=True):
        found.append(_Asked(record, better, worse, pair.id, 0, view, other))
        found.append(_Asked(record, worse, better, pair.id, 1, view, other))
    return found


def _score(scorer: Scorer | PairJudge, skip: bool, asked: Sequence[_Asked]) -> list[ScoreRow]:
    """One row per question; what cannot even be shown is a failure of its own."""
    shown: dict[int, _Shown] = {}
    found: dict[int, Verdict] = {}
    for at, question in enumerate(asked):
        try:
            shown[at] = _shown(question)
        except InputError as error:
            if not skip:
                raise InputError(f"record {question.record.id}, {question.view}: {error}") from error
            found[at] = Verdict.missing(str(error))
    try:
        given = _verdicts(scorer, list(shown.values()), skip)
    except InputError as error:
        first, last = asked[0], asked[-1]
        raise InputError(f"records {first.record.id} ({first.view}) to {last.record.id}: {error}") from error
    for at, verdict in zip(shown, given, strict=True):
        found[at] = verdict
    lengths = _token_counts(scorer, asked)
    return [
        _row(question, shown.get(at), found[at], lengths[at] if lengths else None) for at, question in enumerate(asked)
    ]


def _shown(question: _Asked) -> _Shown:
    record, view = question.record, question.view
    places = (question.first,) if question.second is None else (question.first, question.second)
    responses = tuple(record.responses[place] for place in places)
    if view in ("blank", PAPER_VIEW):
        return _Shown(blanked(record.prompt, PAPER_BLANK if view == PAPER_VIEW else None), responses)
    if question.other is not None:
        return _Shown(with_images_of(record.prompt, question.other.prompt), responses)
    if view in ("removed", TEXT):
        if view == TEXT:
            responses = tuple(replace(response, text=_words(response), images=()) for response in responses)
        return _Shown(without_images(record.prompt), responses)
    return _Shown(record.prompt, responses)


def _words(response: Response) -> str:
    """A response's text without the marks of its images."""
    return without_marks(response.text) if response.images else response.text


def _verdicts(scorer: Scorer | PairJudge, shown: Sequence[_Shown], skip: bool) -> list[Verdict]:
    prompts = [each.prompt for each in shown]
    if not isinstance(scorer, PairJudge):
        return verdicts(scorer, prompts, [each.responses[0] for each in shown], skip)
    if not shown:
        return []
    given = scorer.compare_pairs(
        prompts, [each.responses[0] for each in shown], [each.responses[1] for each in shown], skip
    )
    if len(given) != len(shown):
        raise InputError(f"{name_of(scorer)} gives {len(given)} verdicts for {len(shown)} pairs")
    return list(given)


def _token_counts(scorer: object, asked: Sequence[_Asked]) -> list[int] | None:
    """Tokens of each response, where the scorer can count them."""
    count = getattr(scorer, "count_tokens", None)
    if count is None or any(question.second is not None for question in asked):
        return None
    return [int(tokens) for tokens in count([question.record.responses[question.first].text for question in asked])]


def _row(question: _Asked, shown: _Shown | None, verdict: Verdict, tokens: int | None) -> ScoreRow:
    record, compared = question.record, question.second is not None
    # A margin belongs to the better response, which stands second in every second comparison.
    sign = -1.0 if compared and question.place == 1 else 1.0
    images: list[ImageRef] = []
    if shown is not None:
        images = [image for turn in shown.prompt for image in turn.images]
        images += [image for response in shown.responses for image in response.images]
    return ScoreRow(
        record=question.id,
        place=question.place,
        view=question.view,
        score=None if verdict.error else sign * verdict.score,
        error=verdict.error or None,
        characters=None if compared else len(record.responses[question.first].text),
        tokens=tokens,
        group=record.group,
        source=record.source,
        cluster=record.cluster,
        prompt_digest=None if shown is None else _digest(shown.prompt),
        image_digests=tuple(map(_image_digest, images)),
    )


def _digest(prompt: Turns) -> str:
    said = json.dumps([[turn.role, turn.text] for turn in prompt], ensure_ascii=False)
    return hashlib.sha256(said.encode()).hexdigest()


def _image_digest(image: ImageRef) -> str | None:
    try:
        return image.digest
    except InputError:
        return None
