"""Who scores what: the options that `reward score` and `reward eval` share, made into a scorer and into records.

A scorer is a reward model, a judge behind an endpoint, or a ruler that counts characters; scores made elsewhere are
read from a file instead. It scores nothing and writes nothing. Importing it loads no torch.
"""

import hashlib
import math
import random
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, cast

from probes.inputs import InputError, Turn
from rewardmodels.answers import Answers, read_answers
from rewardmodels.cards import CARD_FILE, FACTS_FILE
from rewardmodels.preferences import Preferences
from rewardmodels.records import Preference, Response
from rewardmodels.scorers import CallableScorer, PairJudge, Scorer
from rewardmodels.views import PAPER_VIEW, without_images
from studies.options import Precision, refuse_below
from studies.reward.data import judge_bad, read_records

if TYPE_CHECKING:
    from rewardmodels.model import RewardModel

View = Literal["blank", "shuffled", "removed", "text"]
ProxyView = Literal["blank", "removed", "shuffled", "blank-224", "text"]
"""What a proxy may have been trained on (`rewardmodels.views.PROXY_VIEWS`), or the text alone."""
VIEW_NAMES: dict[str, str] = {
    **{"blank": "blank", "shuffled": "shuffled", "removed": "removed", "text": "text alone"},
    PAPER_VIEW: PAPER_VIEW,
}
"""How each view is called in rows and reports."""
SHARD, JUDGED_SHARD = 64, 16
"""Questions between two saves; of a judge, which is slow and may cost money, fewer."""


@dataclass(frozen=True)
class AskOptions:
    """Who scores, what is scored, and what becomes of what cannot be."""

    scores: Path | None = None
    """Scores made elsewhere, instead of a model: a JSONL, JSON, CSV, TSV or Parquet file that names records by id."""
    endpoint: str | None = None
    """Base address of an OpenAI-compatible judge, such as http://127.0.0.1:8000/v1, instead of a model."""
    endpoint_model: str | None = None
    """The judge's name at the endpoint."""
    judge: Literal["points", "pairs"] = "points"
    """Whether the judge rates one answer at a time, or compares two, in both orders."""
    key_variable: str = "OPENAI_API_KEY"
    """Environment variable that holds the endpoint's API key."""
    timeout: float = 60.0
    """Seconds that one attempt at the endpoint may take."""
    retries: int = 4
    """Further attempts at the endpoint after a failure that may pass."""
    concurrency: int = 4
    """Questions to the endpoint that are under way at a time."""
    ruler: Literal["longer", "shorter", "random"] | None = None
    """Score by a ruler that sees no content, instead of a model."""
    format: str | None = None
    """Format of --data, such as vl-rewardbench or rm-bench; recognised by its columns if not given."""
    split: str | None = None
    """Split of --data."""
    subset: str | None = None
    """Configuration of a data set on the hub; by default all."""
    image_root: Path | None = None
    """Folder that relative image paths start from; by default the folder of the file that names them."""
    text_alone: bool = False
    """Leave all images out, for a model that reads text only or data whose images are not at hand."""
    limit: int | None = None
    """Take at most this many records, drawn by the seed."""
    on_bad: Literal["refuse", "skip"] = "refuse"
    """Rows that make no record, and answers that cannot be scored: stop, or leave them out and count them."""
    batch_size: int = 8
    """Answers in one forward pass."""
    max_length: int | None = None
    """Most tokens of a prompt with its answer; longer ones are bad, nothing is cut off."""
    seed: int = 0
    """Seed of every draw."""
    resume: bool = False
    """Go on with a run that was interrupted; what is scored stays."""
    overwrite: bool = False
    """Replace the run that --out holds, once model and data have proved usable."""
    dtype: Precision = "auto"
    """Number format of the model's weights."""
    device: str | None = None
    """Where the model runs, such as cuda:0; by default a GPU if there is one."""
    trust_remote_code: bool = False
    """Run Python code that the checkpoint brings along. Only for checkpoints that you trust."""
    allow_pickle: bool = False
    """Load pickled weights, which can run code. Only for checkpoints that you trust."""

    @property
    def needs_images(self) -> bool:
        """Whether anybody looks at the images."""
        return not (self.text_alone or self.scores is not None or self.ruler is not None)


NOT_THE_RUN = (
    *("out", "resume", "overwrite", "device", "batch_size", "timeout", "retries", "concurrency", "key_variable"),
    *("trust_remote_code", "allow_pickle"),
)
"""Options that do not decide what is asked."""


class Asked(NamedTuple):
    """A scorer, and what is known of it.

    Attributes:
        scorer: None where scores come from a file.
        name: How reports call it.
        reward: The reward model, where it is one.
        digest: Of its weights, or of the file of scores.
        shard: Questions between two saves.
    """

    scorer: Scorer | PairJudge | None
    name: str
    reward: "RewardModel | None" = None
    digest: str | None = None
    shard: int = SHARD


class BatchedModel:
    """A reward model as a scorer that keeps to a batch size."""

    def __init__(self, reward: "RewardModel", name: str, batch_size: int) -> None:
        self.reward, self.name, self.batch_size = reward, name, batch_size

    def get_scores(self, prompts: Sequence[Sequence[Turn]], responses: Sequence[Response]) -> list[float]:
        """Score responses; see `RewardModel.get_scores`."""
        return self.reward.get_scores(prompts, responses, self.batch_size)

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """How many tokens each text has; see `RewardModel.count_tokens`."""
        return self.reward.count_tokens(texts)


def check_asking(options: AskOptions, model: str | None) -> None:
    """Refuse impossible options before anything is loaded.

    Raises:
        InputError: Naming the option and what it takes.
    """
    given = {"--model": model, "--scores": options.scores, "--endpoint": options.endpoint, "--ruler": options.ruler}
    named = [name for name, value in given.items() if value is not None]
    if len(named) != 1:
        told = f"{' and '.join(named)} are given" if named else "nothing says who scores"
        raise InputError(f"{told}: give one of {', '.join(given)}")
    if options.scores is not None and not options.scores.exists():
        raise InputError(f"--scores {options.scores} does not exist: give the file that holds the scores")
    if options.endpoint is not None and not options.endpoint_model:
        raise InputError("--endpoint needs the judge's name there: give --endpoint-model")
    if options.endpoint is None and options.endpoint_model:
        raise InputError("--endpoint-model names a judge: give its address as --endpoint")
    refuse_below(options, {"limit": 1, "batch_size": 1, "max_length": 1, "seed": 0, "retries": 0, "concurrency": 1})
    if not 0 < options.timeout < math.inf:
        raise InputError(f"--timeout is a number of seconds above 0, not {options.timeout}")


def scorer_of(options: AskOptions, model: str | None) -> Asked:
    """Make the scorer that the options name.

    Raises:
        InputError: The model cannot be loaded, or the endpoint's address is none.
    """
    if model is not None:
        reward, digest = load_scorer(options, model)
        return Asked(BatchedModel(reward, model, options.batch_size), model, reward, digest)
    if options.endpoint is not None:
        return _judge(options)
    if options.ruler is not None:
        return Asked(_ruler(options.ruler, options.seed), f"ruler: {options.ruler}")
    from probes.files import digest_of_folder

    assert options.scores is not None
    return Asked(None, options.scores.name, digest=digest_of_folder(options.scores))


def load_scorer(options: AskOptions, model: str) -> "tuple[RewardModel, str | None]":
    """Load a reward model, and the digest of its weights.

    Raises:
        InputError: As `RewardModel.from_pretrained`; a training run's folder is told where its model lies.
    """
    from transformers.utils.logging import disable_progress_bar

    from rewardmodels.model import RewardModel
    from studies.auditing.inputs import check_device, model_digest

    inside = Path(model) / "model"
    if inside.is_dir() and not (Path(model) / "config.json").is_file():
        raise InputError(f"{model} is a training run, and its reward model lies in {inside}: give that")
    check_device(options.device)
    disable_progress_bar()
    reward = RewardModel.from_pretrained(
        model,
        max_length=options.max_length,
        dtype=options.dtype,
        device=options.device,
        trust_remote_code=options.trust_remote_code,
        allow_pickle=options.allow_pickle,
    )
    # Numbers go into the card, and must not make the model another one.
    return reward, model_digest(model, cast(Any, reward), (CARD_FILE, FACTS_FILE))


def _judge(options: AskOptions) -> Asked:
    from rewardmodels.endpoints import Endpoint
    from rewardmodels.judges import PairwiseJudge, PointwiseJudge

    assert options.endpoint is not None and options.endpoint_model is not None
    endpoint = Endpoint(
        options.endpoint,
        options.endpoint_model,
        key_variable=options.key_variable,
        timeout=options.timeout,
        retries=options.retries,
        concurrency=options.concurrency,
    )
    judge = PairwiseJudge(endpoint) if options.judge == "pairs" else PointwiseJudge(endpoint)
    return Asked(judge, judge.name, shard=JUDGED_SHARD)


def _ruler(kind: str, seed: int) -> CallableScorer:
    def coin(prompt: Sequence[Turn], response: Response) -> float:
        said = "\0".join([str(seed), *(turn.text for turn in prompt), response.text])
        return random.Random(hashlib.sha256(said.encode()).digest()).random()

    if kind == "random":
        return CallableScorer(coin, "ruler: random")
    sign = 1 if kind == "longer" else -1
    return CallableScorer(lambda _, response: sign * len(response.text), f"ruler: {kind}")


def records_of(options: AskOptions, data: str) -> Preferences:
    """Read what is scored, and say on stderr what was read.

    Raises:
        InputError: It cannot be read, has no usable record, or rows are bad and are refused.
    """
    read = read_records(
        data,
        "test",
        format=options.format,
        chosen_split=options.split,
        subset=options.subset,
        image_root=options.image_root,
        limit=options.limit,
        seed=options.seed,
        allow_missing_images=not options.needs_images,
    )
    if options.text_alone:
        read = replace(read, records=tuple(map(_without_images, read.records)), why=f"{read.why}; images left out")
    print(f"{data}: {read!r}; {read.why}", file=sys.stderr)
    judge_bad([(row.id, row.error) for row in read.bad], options.on_bad, "rows")
    if not read.records:
        raise InputError(f"{data} holds no usable record ({read.why})")
    return read


def answers_of(options: AskOptions, data: str) -> Answers:
    """Read answers without preferences, and say on stderr what was read.

    Raises:
        InputError: It cannot be read, has no usable row, or rows are bad and are refused.
    """
    from studies.auditing.plan import draw

    read = read_answers(data, options.image_root, not options.needs_images)
    kept = set(draw([record.id for record in read.records], options.limit, options.seed))
    records = tuple(record for record in read.records if record.id in kept)
    if options.text_alone:
        records = tuple(record._replace(prompt=without_images(record.prompt)) for record in records)
    count = sum(len(record.responses) for record in records)
    print(
        f"{data}: {count:,} answers to {len(records):,} prompts, no preferences; {len(read.bad)} bad", file=sys.stderr
    )
    judge_bad([(row.id, row.error) for row in read.bad], options.on_bad, "rows")
    if not records:
        raise InputError(f"{data} holds no usable row")
    return Answers(records, read.bad)


def _without_images(record: Preference) -> Preference:
    if any(response.images for response in record.responses):
        raise InputError(f"record {record.id}: a response holds an image, so --text-alone cannot leave it out")
    return replace(record, prompt=without_images(record.prompt), target=None, boxes=())


def refuse_blind(asked: Asked, read: Preferences | Answers) -> None:
    """Refuse images to a model that reads text only.

    Raises:
        InputError: Saying how many records have some.
    """
    with_images = sum(bool(record.images) for record in read.records)
    if asked.reward is not None and not asked.reward.sees and with_images:
        raise InputError(
            f"{asked.name} reads text only, and {with_images:,} of {len(read.records):,} records have images: give "
            "--text-alone to leave them out, or a model that sees"
        )
