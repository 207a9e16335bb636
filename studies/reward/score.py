"""`sightcheck reward score`: answers in, one line with its score each out. Importing it loads no torch."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from studies.bundled import BUNDLED
from studies.reward.asking import AskOptions, View

if TYPE_CHECKING:
    from rewardmodels.answers import Answers

STUDY = "reward score"


@dataclass(frozen=True)
class ScoreConfig(AskOptions):
    """Score every answer of a set of preferences, or of plain rows with prompt and response, and keep every score.

    Writes OUT/scores.jsonl, a line for each answer (or, of a judge of pairs, for each order of each pair) with its
    record, its place there, its score or why there is none, and its length. `reward eval --scores` reads it back.
    """

    model: str | None = None
    """Folder or hub id of the reward model."""
    data: str = BUNDLED
    """Preferences: a file, folder or hub id in any format that is read; bundled is the test pairs that come along. Or
    a file of rows with prompt, images, and response or responses, of which none is called better."""
    out: Path = Path("runs/scores")
    """The folder to write; it must be new, unless --resume is given."""
    views: tuple[View, ...] = ()
    """Score the same answers as well with images blank, shuffled or removed, or with the text alone."""


def run(config: ScoreConfig) -> int:
    """Score, write and say how many.

    Returns:
        0 if everything has a score, 1 if some was left out, 130 if interrupted.

    Raises:
        InputError: If arguments, model or data cannot be used, or an answer cannot be scored and is not skipped; what
            was scored before stays.
    """
    from rewardmodels.answers import Answers, holds_answers
    from rewardmodels.scores import AS_IS
    from studies.options import say_interrupted
    from studies.overwrite import check_out
    from studies.reward.asking import VIEW_NAMES, check_asking, records_of, refuse_blind, scorer_of
    from studies.reward.score_folder import (
        SCORES,
        SHARDS,
        ScoreFolder,
        collect,
        collect_answers,
        left_out,
        manifest_of,
        refuse_file_name,
        told,
    )

    check_asking(config, config.model)
    refuse_file_name(config.out)
    check_out(config.out, STUDY, resume=config.resume, overwrite=config.overwrite)
    plain = config.data != BUNDLED and config.format is None and holds_answers(config.data)
    records = _plain_answers(config) if plain else records_of(config, config.data)
    asked = scorer_of(config, config.model)
    refuse_blind(asked, records)
    manifest = manifest_of(STUDY, config, [asked.digest], [records])
    with ScoreFolder.opened(config.out, manifest, resume=config.resume, overwrite=config.overwrite) as folder:
        views = (AS_IS, *(VIEW_NAMES[view] for view in config.views))
        try:
            if isinstance(records, Answers):
                scores = collect_answers(asked, records, config, config.out / SHARDS)
            else:
                scores = collect(asked, records, config, config.out / SHARDS, views)
        except KeyboardInterrupt:
            say_interrupted(STUDY, config, "scores")
            return 130
        scores.write(config.out / SCORES)
        folder.finish()
    missing = left_out(scores, records)
    print(f"{len(scores.rows) - len(scores.failed):,} scores by {asked.name} of {len(records.records):,} records")
    if missing:
        print(f"Left out: {told(missing)}")
    print(f"Written: {config.out / SCORES}")
    return 1 if missing else 0


def _plain_answers(config: ScoreConfig) -> "Answers":
    """Read answers without preferences.

    Raises:
        InputError: Something is asked that needs preferences, or as `answers_of`.
    """
    from probes.inputs import InputError
    from studies.reward.asking import answers_of

    why = f"{config.data} holds answers without preferences"
    if config.scores is not None or (config.endpoint is not None and config.judge == "pairs"):
        raise InputError(f"{why}: give --model, --ruler, or an endpoint that judges by points")
    if config.views:
        raise InputError(f"{why}, which are scored as they are: leave --views out")
    return answers_of(config, config.data)
