"""Best-of-N on the bundled prompts: the bundled model is the policy, the benchmark's exact answers are the truth.

The policy is sampled at a temperature at which it is often wrong, so that there is something to pick from.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from probes.inputs import InputError, Turn
from rewardmodels.answer_pools import ScoredPools, score_pools
from rewardmodels.scorers import Scorer
from studies.bundled import BUNDLED_DATA, BUNDLED_MODEL
from studies.multi_image import answer_correct, read_questions
from studies.questions import MultiImageQuestion


@dataclass(frozen=True)
class Sampling:
    """What is drawn."""

    questions: int = 64
    """Of the split, evenly spread over it and so over its tasks."""
    samples: int = 16
    """Answers to each question: the largest N."""
    temperature: float = 3.0
    """About 4 in 10 answers of the bundled model are right at 3."""
    split: str = "test"
    seed: int = 0
    max_new_tokens: int = 4
    most_images: int = 8
    """Questions of more images are left out."""


@dataclass(frozen=True)
class BundledBestOfN:
    """A curve, and what it was drawn from."""

    sampling: Sampling
    ids: tuple[str, ...]
    pools: ScoredPools

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {"sampling": asdict(self.sampling), "ids": list(self.ids), **self.pools.to_dict()}


def chosen_questions(sampling: Sampling) -> list[MultiImageQuestion]:
    """The bundled questions that are asked.

    Raises:
        InputError: The split has fewer questions than asked for.
    """
    records = [
        record
        for record in read_questions(BUNDLED_DATA, split=sampling.split).records
        if len(record.images) <= sampling.most_images
    ]
    if not 1 <= sampling.questions <= len(records):
        raise InputError(f"{sampling.questions} questions are asked for, and there are {len(records)} of the kind")
    return [records[place * len(records) // sampling.questions] for place in range(sampling.questions)]


def bundled_best_of_n(
    scorer: Scorer, sampling: Sampling | None = None, advance: Callable[[], object] | None = None
) -> BundledBestOfN:
    """Sample the bundled model, let a scorer pick, and estimate the best-of-N curve of right answers.

    Args:
        scorer: Who picks.
        sampling: What is drawn.
        advance: Called after each question's answers, for a progress bar.

    Raises:
        InputError: The split has fewer questions than asked for, or an answer cannot be scored.
    """
    from probes.model import HookedModel, Question
    from rewardmodels.sampling import sample_answers

    drawn = sampling or Sampling()
    records = chosen_questions(drawn)
    answers = sample_answers(
        HookedModel.from_pretrained(BUNDLED_MODEL),
        [Question(record.images, record.question) for record in records],
        drawn.samples,
        temperature=drawn.temperature,
        seed=drawn.seed,
        max_new_tokens=drawn.max_new_tokens,
        advance=advance,
    )
    pools = score_pools(
        scorer,
        [(Turn("user", record.question, record.images),) for record in records],
        answers,
        lambda place, text: float(answer_correct(records[place], text)),
        clusters=[record.cluster for record in records],
    )
    return BundledBestOfN(drawn, tuple(record.id for record in records), pools)
