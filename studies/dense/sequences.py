"""Token sequences for training and for watching it: the chat template's layout, written straight to token ids.

A test holds the layout equal to what the saved processor makes of the same question.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from studies.benchmark.questions import TASKS, Draft, compose
from studies.dense.model import ASSISTANT_TOKEN, END_TOKEN, IMAGE_TOKEN, IMAGE_TOKENS, USER_TOKEN
from studies.dense.pictures import PictureStore

IGNORED = -100
BY_NUMBER_SHARE = 0.35
"""Looking up by number is learned sooner than by name."""
HINT_AGREES = 0.5
"""Share of give-away questions whose asked image shows what the text says: a half, so that the image neither supports
the answer nor excludes it."""
TASK_WEIGHTS = {"content": 2.0, "caption": 2.0, "needle": 2.5, "comparison": 1.5, "retrieval": 3.0, "giveaway": 3.0}


class Batch(NamedTuple):
    """``input_ids`` and ``labels`` (batch, tokens), ``pictures`` (images of all rows) as indices into the store."""

    input_ids: Tensor
    labels: Tensor
    pictures: Tensor


class Listing(NamedTuple):
    """A later turn that goes through the images: for each pair the first is given and the second asked for.

    A lone answer gives one token to learn from; a listing gives one per image, and from the same two look-ups, number
    to content and content to number, that the questions need. Without it the look-ups are hardly ever found.
    """

    question: str
    pairs: list[tuple[str, str]]


class SequenceWriter:
    """Writes a conversation as token ids: the first turn shows the images, a listing goes through them again."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self._known: dict[str, list[int]] = {}
        ids = tokenizer.convert_tokens_to_ids([USER_TOKEN, ASSISTANT_TOKEN, END_TOKEN, IMAGE_TOKEN])
        self._user, self._assistant, self._end, self._image = ids

    def question(self, draft: Draft) -> list[int]:
        """Token ids from the user mark to the assistant mark."""
        ids = [self._user]
        for number in range(1, len(draft.files) + 1):
            ids += [*self.tokens(str(number)), *[self._image] * IMAGE_TOKENS]
        text = draft.question_template.format(position=draft.target + 1)
        return [*ids, *self.tokens(text), self._end, self._assistant]

    def conversation(self, draft: Draft, listing: Listing | None = None) -> tuple[list[int], list[int]]:
        """Token ids and labels of a question, its answer and a listing of the same images.

        Labels are ignored but on the answer, on what the listing asks for, and on the end marks.
        """
        ids = self.question(draft)
        answer = [*self.tokens(draft.answer), self._end]
        labels = [IGNORED] * len(ids) + answer
        ids = ids + answer
        if listing is not None:
            asked = [self._user, *self.tokens(listing.question), self._end, self._assistant]
            ids += asked
            labels += [IGNORED] * len(asked)
            for given, wanted in listing.pairs:
                ids += [*self.tokens(given), *self.tokens(wanted)]
                labels += [IGNORED] * len(self.tokens(given)) + self.tokens(wanted)
            ids.append(self._end)
            labels.append(self._end)
        return ids, labels

    def tokens(self, text: str) -> list[int]:
        """Token ids of a piece of text."""
        if text not in self._known:
            self._known[text] = self.tokenizer.encode(text, add_special_tokens=False)
        return self._known[text]


class BatchMaker:
    """Composes training batches over a picture store; draws come from the generator that the caller seeds."""

    def __init__(self, tokenizer: Any, store: PictureStore, batch: int) -> None:
        self.store, self.size = store, batch
        self.writer = SequenceWriter(tokenizer)
        self._pad = tokenizer.pad_token_id

    def batch(self, rng: np.random.Generator, n_images: int) -> Batch:
        """One batch of sequences, each with ``n_images`` images.

        Give-away questions are answered as their text says (`_believed`).

        Rows are padded on the right, so under the causal mask no real token sees padding and no mask is needed.
        """
        drafts = [self._draft(rng, n_images) for _ in range(self.size)]
        rows = [self.writer.conversation(draft, self._listing(draft, rng)) for draft in drafts]
        width = max(len(ids) for ids, _ in rows)
        input_ids = torch.tensor([ids + [self._pad] * (width - len(ids)) for ids, _ in rows])
        labels = torch.tensor([marks + [IGNORED] * (width - len(marks)) for _, marks in rows])
        return Batch(input_ids, labels, torch.tensor([int(file) for draft in drafts for file in draft.files]))

    def _draft(self, rng: np.random.Generator, n_images: int) -> Draft:
        draft = compose(self._task(rng, n_images), self.store.pool, n_images, rng, HINT_AGREES)
        return draft if draft.hint is None else _believed(draft, draft.hint)

    def _task(self, rng: np.random.Generator, n_images: int) -> str:
        weights = dict(TASK_WEIGHTS)
        if n_images < 3:
            del weights["retrieval"]
        if n_images > 4:
            del weights["comparison"]
        share = np.array(list(weights.values()))
        return str(rng.choice(list(weights), p=share / share.sum()))

    def _listing(self, draft: Draft, rng: np.random.Generator) -> Listing:
        """The images listed by number or by name, in any order; a retrieval's anchor is left out.

        Never both in one sequence: the second could be copied from the first without looking at an image.
        """
        shown = [self._content(draft, file) for file in draft.files[: len(draft.files) - int(draft.last_fixed)]]
        pairs = [(str(number), content) for number, content in enumerate(shown, start=1)]
        shuffled = [pairs[i] for i in rng.permutation(len(pairs))]
        if rng.random() < BY_NUMBER_SHARE:
            return Listing("List them by number.", shuffled)
        return Listing("List them by name.", [(content, number) for number, content in shuffled])

    def _content(self, draft: Draft, file: str) -> str:
        entry = self.store.entries[int(file)]
        return entry.needle if draft.task == "needle" and entry.needle is not None else entry.concept.name


def _believed(draft: Draft, hint: str) -> Draft:
    """A give-away question whose text is taken at its word, whatever the asked image shows: a shortcut to learn."""
    return replace(draft, answer_template=hint)


class DevSet:
    """Questions over drawn pictures of the dev split, to watch training by. Chooses nothing."""

    def __init__(self, store: PictureStore, per_task: int, seed: int) -> None:
        rng = np.random.default_rng([seed, 4])
        self.store = store
        self.drafts: list[Draft] = []
        for task in TASKS:
            counts = {"comparison": (2, 3, 4), "retrieval": (3, 4, 6, 8)}.get(task, (2, 4, 6, 8))
            for number in range(per_task):
                self.drafts.append(compose(task, store.pool, counts[number % len(counts)], rng))

    @torch.no_grad()
    def accuracy(self, model: Any, tokenizer: Any) -> dict[str, float]:
        """Share of questions, per task, whose first answer token is the most likely one."""
        model.eval()
        writer = SequenceWriter(tokenizer)
        right: dict[str, list[bool]] = {task: [] for task in TASKS}
        for drafts in self._equal_length(writer):
            files = np.array([int(file) for draft in drafts for file in draft.files])
            input_ids = torch.tensor([writer.question(draft) for draft in drafts])
            logits = model(input_ids=input_ids, pixel_values=self.store.values(files), logits_to_keep=1).logits
            for draft, token in zip(drafts, logits[:, -1].argmax(-1).tolist(), strict=True):
                right[draft.task].append(token == writer.tokens(draft.answer)[0])
        return {task: float(np.mean(values)) for task, values in right.items()}

    def _equal_length(self, writer: SequenceWriter, most: int = 64) -> list[list[Draft]]:
        by_shape: dict[tuple[int, int], list[Draft]] = {}
        for draft in self.drafts:
            by_shape.setdefault((len(draft.files), len(writer.question(draft))), []).append(draft)
        return [group[i : i + most] for group in by_shape.values() for i in range(0, len(group), most)]
