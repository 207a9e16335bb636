"""The folder of a run that scores: its manifest, its lock, scores saved as they come, and how it is gone on with.

    OUT/manifest.json   config, digests, versions, times
    OUT/shards/         scores as they come, one folder a scorer
    OUT/scores.jsonl    every score, one line each, when all are there

Knows nothing of models and metrics. No torch.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from probes.files import now, read_json, write_json
from probes.inputs import InputError
from rewardmodels.answers import Answers, digest_of_answers, score_answers
from rewardmodels.preferences import Preferences
from rewardmodels.questioning import question_count, score_preferences
from rewardmodels.score_files import read_scores
from rewardmodels.scorers import is_pair_judge
from rewardmodels.scores import AS_IS, Scores
from rewardmodels.shards import digest_of_records
from studies.auditing.progress import Counter
from studies.overwrite import remove_run
from studies.reward.asking import NOT_THE_RUN, Asked, AskOptions
from studies.run_folder.locking import WriterLock
from studies.run_folder.manifest import Manifest
from studies.run_folder.start import refuse_foreign, taken_up

SCORES, SHARDS, MANIFEST = "scores.jsonl", "shards", "manifest.json"


def manifest_of(
    study: str, config: Any, digests: Sequence[str | None], records: Sequence[Preferences | Answers]
) -> Manifest:
    """The identity of a run: what was asked of whom, on which data.

    Args:
        study: Its name.
        config: The options, a dataclass.
        digests: Of the scorers.
        records: What is scored.
    """
    settings = {name: value for name, value in asdict(config).items() if name not in NOT_THE_RUN}
    data = [
        digest_of_answers(each) if isinstance(each, Answers) else digest_of_records(each.records) for each in records
    ]
    return Manifest(
        config={"study": study, **settings},
        batches=max(1, sum(len(each.records) for each in records)),
        seeds={"seed": config.seed},
        model_digest=" ".join(digest or "unknown" for digest in digests) or None,
        data_digest=" ".join(data),
    )


@dataclass
class ScoreFolder:
    """One run's folder."""

    path: Path
    manifest: Manifest

    @classmethod
    @contextmanager
    def opened(cls, path: Path, manifest: Manifest, *, resume: bool, overwrite: bool) -> Iterator["ScoreFolder"]:
        """Open the folder of a new run, or of one that is gone on with.

        Raises:
            InputError: It holds a run of other settings or other files, or another process writes it.
        """
        if overwrite:
            remove_run(path, str(manifest.config["study"]))
        refuse_foreign(path)
        path.mkdir(parents=True, exist_ok=True)
        lock = WriterLock(path)
        try:
            there = (path / MANIFEST).is_file()
            folder = cls(path, taken_up(path, manifest, resume) if there else manifest)
            folder._write()
            yield folder
        finally:
            lock.release()

    def finish(self) -> None:
        """Note that all is there."""
        self.manifest = replace(self.manifest, finished=now())
        self._write()

    def _write(self) -> None:
        write_json(self.path / MANIFEST, self.manifest.as_json())


def is_finished(path: Path) -> bool:
    """Whether a folder's manifest says that its run ended."""
    content = read_json(path / MANIFEST) if (path / MANIFEST).is_file() else {}
    return isinstance(content, dict) and content.get("finished") is not None


def collect(
    asked: Asked,
    records: Preferences,
    options: AskOptions,
    folder: Path,
    views: Sequence[str] = (AS_IS,),
    label: str = "scoring",
) -> Scores:
    """Have every answer scored, shard by shard, with a bar; or read the scores from their file.

    Args:
        asked: Who scores.
        records: What is scored.
        options: How.
        folder: Where scores are kept as they come; a folder with a part of the same work is gone on with.
        views: Of `rewardmodels.questioning.ALL_VIEWS`.
        label: What the bar says.

    Raises:
        InputError: As `score_preferences` and `read_scores`.
    """
    skip = options.on_bad == "skip"
    if asked.scorer is None:
        assert options.scores is not None
        return read_scores(options.scores, records, skip=skip, scorer=asked.name)
    total = question_count(asked.scorer, records, views, options.seed)
    with Counter(label, total) as counter:
        return score_preferences(
            asked.scorer,
            records,
            views,
            folder=folder,
            name=asked.name,
            seed=options.seed,
            skip=skip,
            retry_failed=options.resume and options.endpoint is not None,
            shard=asked.shard,
            advance=counter.advance,
        )


def collect_answers(asked: Asked, answers: Answers, options: AskOptions, folder: Path) -> Scores:
    """Have answers without preferences scored, as `collect` does.

    Raises:
        InputError: As `score_answers`.
    """
    assert asked.scorer is not None and not is_pair_judge(asked.scorer)
    scorer: Any = asked.scorer
    with Counter("scoring", sum(len(record.responses) for record in answers.records)) as counter:
        return score_answers(
            scorer,
            answers,
            folder=folder,
            name=asked.name,
            skip=options.on_bad == "skip",
            retry_failed=options.resume and options.endpoint is not None,
            shard=asked.shard,
            advance=counter.advance,
        )


def left_out(scores: Scores, records: Preferences | Answers) -> dict[str, int]:
    """How much could not be used, by kind."""
    found = {"rows": len(records.bad), "answers without a score": len(scores.failed)}
    return {name: count for name, count in (found | {"rows of scores": len(scores.problems)}).items() if count}


def told(counts: Mapping[str, int]) -> str:
    """Counts in one line."""
    return ", ".join(f"{count:,} {name}" for name, count in counts.items())


def refuse_file_name(out: Path) -> None:
    """Refuse an --out that names a file to be.

    Raises:
        InputError: Saying where scores will lie.
    """
    if out.suffix in (".jsonl", ".json", ".parquet", ".csv"):
        raise InputError(f"--out {out} is a folder to write, which will hold {SCORES}: give it without {out.suffix}")
