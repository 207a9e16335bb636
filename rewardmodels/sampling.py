"""Several answers to each question, drawn from a vision-language model at a temperature: the pools of best-of-N.

Every question is drawn by itself, from a seed of its own, so that its answers do not depend on which others are asked.
Knows no rewards.
"""

import hashlib
from collections.abc import Callable, Sequence

from probes.encoding import Encoder
from probes.generation import sampled_ids
from probes.inputs import InputError
from probes.model import HookedModel
from probes.prompts import Question


def sample_answers(
    policy: HookedModel,
    questions: Sequence[Question],
    count: int,
    *,
    temperature: float = 1.0,
    seed: int = 0,
    max_new_tokens: int = 32,
    batch_size: int = 16,
    advance: Callable[[], object] | None = None,
) -> list[list[str]]:
    """Draw answers.

    Args:
        policy: Who answers.
        questions: What is asked.
        count: Answers to each question.
        temperature: What logits are divided by; the whole distribution is drawn from.
        seed: Of the draws, with the question's text and place in the list.
        max_new_tokens: Most tokens of an answer.
        batch_size: Answers drawn at a time; another size draws others.
        advance: Called after each question, for a progress bar.

    Returns:
        (questions, count) answers; some may be empty or the same.

    Raises:
        InputError: ``count`` or ``batch_size`` is below 1, or as `HookedModel.encode` and `sampled_ids`.
    """
    if count < 1 or batch_size < 1:
        raise InputError(f"count is {count} and batch_size {batch_size}: give 1 or more")
    tokenizer = policy.processor.tokenizer
    barred = Encoder(policy.model.config, policy.processor).placeholders
    pools = []
    for place, question in enumerate(questions):
        pool: list[str] = []
        for start in range(0, count, batch_size):
            # Copies of the whole question: transformers' own expansion of one row mixes up several images of a prompt.
            copies = [question] * min(batch_size, count - start)
            inputs = policy.encode(copies, reserve=max_new_tokens).inputs
            drawn = sampled_ids(
                policy.model,
                tokenizer,
                inputs,
                max_new_tokens,
                barred,
                temperature=temperature,
                seed=_seed(seed, place, question.text, start),
            )
            pool += [str(tokenizer.decode(list(ids), skip_special_tokens=True)).strip() for ids in drawn]
        pools.append(pool)
        if advance is not None:
            advance()
    return pools


def _seed(seed: int, place: int, text: str, start: int) -> int:
    digest = hashlib.sha256(f"{seed}:{place}:{start}:{text}".encode()).digest()
    return int.from_bytes(digest[:7], "big")
