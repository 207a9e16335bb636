"""How long prompts are: exact tokens of a sample of questions, and what does not fit the model. Runs no model."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from probes.inputs import InputError
from probes.loading import context_length
from studies.doctor.findings import Findings
from studies.multi_image import MultiImageQuestion

if TYPE_CHECKING:
    from probes.model import HookedModel

SAMPLE = 200
"""Questions that are encoded."""


@dataclass(frozen=True)
class Length:
    """The tokens of one prompt."""

    record: MultiImageQuestion
    tokens: int
    image_tokens: tuple[int, ...]
    """Of each image."""
    answer_tokens: int = 0
    """Of the answer that is given, or the room for one that is generated."""

    @property
    def total(self) -> int:
        """Prompt and answer."""
        return self.tokens + self.answer_tokens


@dataclass(frozen=True)
class Lengths:
    """Prompts that fit with their answers, shortest first, and why the others do not."""

    found: list[Length]
    refused: dict[str, str]
    """Reason by sample id."""

    @property
    def longest(self) -> Length:
        """The prompt and answer with most tokens."""
        return self.found[-1]

    def spread(self, count: int) -> list[Length]:
        """Prompts of differing length, shortest and longest among them."""
        places = np.unique(np.linspace(0, len(self.found) - 1, count).round().astype(int))
        return [self.found[place] for place in places.tolist()]


def measure_lengths(
    model: "HookedModel",
    records: Sequence[MultiImageQuestion],
    reserve: int,
    answers: Mapping[str, str] | None = None,
) -> Lengths:
    """Encode questions one at a time.

    Args:
        model: Its processor is used, its weights are not.
        records: The questions.
        reserve: Tokens that a generated answer may take.
        answers: Given answers by sample id; None generates them.
    """
    from probes.model import Question

    found, refused = [], {}
    for record in records:
        try:
            question = Question(record.images, record.question)
            if answers is None:
                encoded = model.encode([question], reserve=reserve)
            else:
                encoded = model.encode([question], [answers[record.id]])
        except InputError as error:
            refused[record.id] = str(error)
            continue
        images = tuple(len(span.tokens) for span in encoded.spans[0])
        answer_tokens = reserve if answers is None else len(encoded.answer_ids[0])
        found.append(Length(record, encoded.prompt_lengths[0], images, answer_tokens))
    return Lengths(sorted(found, key=lambda length: length.total), refused)


def report_lengths(findings: Findings, lengths: Lengths, model: "HookedModel", total: int) -> None:
    """Report the distribution of lengths, and prompts that do not fit."""
    n = len(lengths.found) + len(lengths.refused)
    findings.section("tokens per sample")
    findings.add(f"{n} of {total} questions encoded" if n < total else f"all {total} questions encoded")
    if lengths.found:
        findings.add(f"prompt: {_distribution([each.tokens for each in lengths.found])}")
        per_image = [count for each in lengths.found for count in each.image_tokens]
        findings.add(f"image tokens per image: {_distribution(per_image)}")
        context = context_length(model.model.config)
        room = "the model does not say how many it has positions for" if context is None else f"{context} positions"
        findings.add(f"longest prompt and answer: {lengths.longest.total} tokens; {room}")
    if lengths.refused:
        name, reason = next(iter(lengths.refused.items()))
        findings.problem(f"{len(lengths.refused)} of {n} questions cannot be put to the model; {name!r}: {reason}")


def _distribution(counts: Sequence[int]) -> str:
    middle, high = np.quantile(counts, [0.5, 0.95])
    return f"median {middle:.0f}, 95th percentile {high:.0f}, max {max(counts)}"
