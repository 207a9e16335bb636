"""Questions and answers into model inputs.

A batch is laid out as [left padding, prompt, answer, right padding], so every prompt ends at the same column and the
columns are those of generation. This file builds inputs; it runs no model and reads no attention.
"""

import operator
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch

from probes.axes import MARKED, check_batch, check_marked, marks
from probes.clips import ShownVideo
from probes.errors import counted
from probes.families import (
    ANSWER_TYPES,
    ASKED,
    FLAT,
    LISTS,
    ONE_VIDEO,
    OTHER_READERS,
    OWN_QUESTIONS,
    PREPENDED,
    TEXT_ENDS,
    UNBATCHED,
)
from probes.inputs import InputError
from probes.loading import context_length, image_token_ids
from probes.prompts import Prompt, PromptWriter, Question
from probes.query_rows import ROW_SETS as ROW_SETS
from probes.query_rows import place
from probes.query_rows import row_sets as row_sets
from probes.spans import ImageSpan, find_spans
from probes.video_inputs import check_one_video, refusal, shown_videos, video_arguments
from probes.videos import find_all_spans
from probes.vision_axis import find_vision_spans

Item = TypeVar("Item")
Result = TypeVar("Result")

Answer = str | Sequence[int]
"""An answer as text, or as the token ids of one that was generated."""

EXACT_INPUTS = frozenset({"second_per_grid_ts"})
"""Inputs that positions are counted from: half precision would move a video's groups of frames."""


@dataclass(frozen=True)
class Encoded:
    """A batch of questions, with or without answers, ready for a model.

    Attributes:
        inputs: What `model(**inputs)` takes, tensors but for a few lists of numbers, and features that were made before
            (`probes.reduction.videos`); `input_ids` is (batch, tokens).
        spans: Per batch row, the span of each image, then of each video (a `VideoSpan`); columns of `input_ids`. Where
            images are on a vision axis (Mllama), the token that marks each.
        image_sizes: Per batch row, the (width, height) of each image in pixels.
        prompt_stop: The column at which every prompt ends and every answer begins.
        prompt_lengths: Per batch row, the prompt's tokens without padding, as the decoder reads it.
        tail_lengths: Per batch row, how many tokens the chat template put after the user's last content.
        answer_ids: Per batch row, the answer's tokens; the end-of-sequence token is not among them.
        videos: Per batch row, what the model is shown of each video.
        cross_spans: Where images are on a vision axis, per batch row the span of each; columns of that axis. Else None.
    """

    inputs: dict[str, Any]
    spans: list[list[ImageSpan]]
    image_sizes: tuple[tuple[tuple[int, int], ...], ...]
    prompt_stop: int
    prompt_lengths: tuple[int, ...]
    tail_lengths: tuple[int, ...]
    answer_ids: tuple[tuple[int, ...], ...]
    videos: tuple[tuple[ShownVideo, ...], ...]
    cross_spans: list[list[ImageSpan]] | None = None

    def __len__(self) -> int:
        return len(self.prompt_lengths)

    @property
    def answer_lengths(self) -> tuple[int, ...]:
        """Per batch row, the number of answer tokens."""
        return tuple(map(len, self.answer_ids))

    @property
    def columns(self) -> int:
        """Width of `input_ids`, padding included."""
        return int(self.inputs["input_ids"].shape[1])

    @property
    def shown(self) -> list[list[ImageSpan]]:
        """Per batch row, per image, the columns that hold what the image shows, of whichever axis they are."""
        return self.spans if self.cross_spans is None else self.cross_spans

    def need_image_tokens(self, wanted: str) -> None:
        """Refuse what is done to images' tokens where the prompt has none.

        Raises:
            InputError: If images are on a vision axis.
        """
        if self.cross_spans is not None:
            raise InputError(
                f"{wanted} needs tokens that hold images, and this model's images are on a vision axis of their own: "
                "blank or swap images instead (probes.interventions), or use a model that reads them in its prompt"
            )


class Encoder:
    """Turns questions and answers into `Encoded` batches for one model and its processor.

    Raises:
        InputError: If the processor has no chat template, or the model's prompt does not hold its images' places.
    """

    def __init__(self, config: Any, processor: Any) -> None:
        check_marked(config.model_type)
        self._config = config
        self._processor = processor
        self._writer = PromptWriter(processor, config.model_type in PREPENDED)
        self._context = context_length(config)
        names = ("video_token_id", "video_token_index", "audio_token_id", "audio_token_index")
        others = {value for name in names if isinstance(value := getattr(config, name, None), int)}
        self.placeholders = frozenset(image_token_ids(config) | others)
        """Ids that stand for image, video or sound features, and that no answer can hold."""

    def encode(self, questions: Sequence[Question], answers: Sequence[Answer] | None = None) -> Encoded:
        """Encode questions, followed by their answers where given, whatever their length.

        Args:
            questions: At least one.
            answers: One per question, or None.

        Raises:
            InputError: If a question cannot be asked, an image read, or an answer tokenized, or if image tokens are
                truncated. Of several questions the message names the one at fault.
        """
        encoded, prompts = self._encode_prompts(_listed(questions))
        if answers is not None:
            if isinstance(answers, str) or not isinstance(answers, Sequence):
                raise InputError(f"answers are {answers!r}: give a list with one answer per question")
            if len(answers) != len(questions):
                raise InputError(f"{len(questions)} questions need as many answers, and {len(answers)} are given")
            ids = _each(zip(prompts, answers, strict=True), lambda pair: self.answer_ids(*pair))
            encoded = self.append(encoded, ids)
        return encoded

    def answer_ids(self, prompt: Prompt, answer: Answer) -> tuple[int, ...]:
        """Tokens of an answer as they follow its prompt.

        Text, stripped, is tokenized together with the prompt, after the white space that the template puts before a
        reply; should prompt and answer fuse at their border, the answer is tokenized alone. Ids are taken as they are.

        Raises:
            InputError: If the answer is neither text nor token ids of this model, the text is blank, or an id stands
                for an image.
        """
        if isinstance(answer, str):
            if not answer.strip():
                raise InputError("the answer is empty, so it has no token to score")
            reply = prompt.gap + answer.strip()
            before = self._tokens(prompt.text)
            whole = self._tokens(prompt.text + reply)
            fused = whole[: len(before)] != before
            ids = self._tokens(reply, special=False) if fused else whole[len(before) :]
        else:
            ids = self._own_ids(answer)
        if self.placeholders & set(ids):
            raise InputError("the answer holds a token that stands for an image: take it out of the text")
        return tuple(ids)

    def _own_ids(self, answer: Any) -> list[int]:
        """Token ids as given, each within the vocabulary."""
        try:
            ids = [operator.index(token) for token in answer]
        except TypeError:
            raise InputError(f"the answer is {answer!r}: give text, or a list of token ids") from None
        size = getattr(self._config.get_text_config(decoder=True), "vocab_size", None)
        outside = [token for token in ids if token < 0 or (size is not None and token >= size)]
        if outside:
            raise InputError(f"the answer holds the token ids {outside}, and the model's are 0 to {(size or 0) - 1}")
        return ids

    def append(self, encoded: Encoded, answer_ids: Sequence[Sequence[int]]) -> Encoded:
        """Put answers behind the prompts, padded on the right."""
        width = max(map(len, answer_ids))
        ids = encoded.inputs["input_ids"]
        if encoded.columns != encoded.prompt_stop:
            raise ValueError("this batch has answers already")
        added = torch.full((len(encoded), width), self._padding_id(), dtype=ids.dtype, device=ids.device)
        filled = torch.zeros_like(added)
        for row, answer in enumerate(answer_ids):
            added[row, : len(answer)] = torch.tensor(answer, dtype=ids.dtype, device=ids.device)
            filled[row, : len(answer)] = 1
        types = torch.full_like(added, ANSWER_TYPES.get(self._config.model_type, 0))
        own = {"input_ids": added, "attention_mask": filled, "token_type_ids": types}
        inputs = dict(encoded.inputs)
        for key, value in encoded.inputs.items():
            if key in OTHER_READERS or not torch.is_tensor(value):
                continue
            if value.shape == ids.shape and not value.is_floating_point():
                new = own.get(key, torch.zeros_like(added))
                inputs[key] = torch.cat([value, new.to(value.dtype)], dim=1)
        for key in MARKED.get(self._config.model_type, ()):
            seen = encoded.inputs[key]
            inputs[key] = torch.cat([seen, seen[:, -1:].expand(-1, width, *seen.shape[2:])], dim=1)
        return replace(encoded, inputs=inputs, answer_ids=tuple(map(tuple, answer_ids)))

    def _encode_prompts(self, questions: Sequence[Question]) -> tuple[Encoded, list[Prompt]]:
        if not questions:
            raise InputError("no questions are given")
        kind = self._config.model_type
        if len(questions) > 1 and kind in UNBATCHED:
            raise InputError(f"{kind} {UNBATCHED[kind]}: ask one at a time, or give batch_size=1")
        if kind in OWN_QUESTIONS:
            raise InputError(
                f"{kind} cannot be asked: {OWN_QUESTIONS[kind]}; give spans to attention_factors(image_spans=...)"
            )
        prompts = _each(questions, self._writer.write)
        check_batch(kind, [len(prompt.images) for prompt in prompts])
        if kind in ONE_VIDEO:
            check_one_video(kind, [(len(prompt.images), prompt.videos) for prompt in prompts])
        inputs, videos = self._process(prompts)
        sizes = tuple(tuple(image.size for image in prompt.images) for prompt in prompts)
        cross_spans = None
        if kind in MARKED:
            spans = find_spans(marks, inputs, self._config, self._processor, sizes)
            cross_spans = find_vision_spans(inputs, self._config, sizes, self._processor)
        else:
            moving = [[(len(video.frames), video.width, video.height) for video in row] for row in videos]
            spans = find_all_spans(inputs, self._config, self._processor, sizes, moving)
        encoded = Encoded(
            inputs=inputs,
            spans=spans,
            cross_spans=cross_spans,
            image_sizes=sizes,
            prompt_stop=int(inputs["input_ids"].shape[1]),
            prompt_lengths=tuple(inputs["attention_mask"].sum(dim=1).tolist()),
            tail_lengths=tuple(map(self._tail_length, prompts)),
            answer_ids=((),) * len(prompts),
            videos=videos,
        )
        return encoded, prompts

    def _process(self, prompts: Sequence[Prompt]) -> tuple[dict[str, Any], tuple[tuple[ShownVideo, ...], ...]]:
        """What the processor makes of prompts, and what it keeps of their videos."""
        kind = self._config.model_type
        images: list[Any] = [list(prompt.images) for prompt in prompts]
        if kind in FLAT:
            images = [image for row in images for image in row]
        moving = video_arguments([prompt.videos for prompt in prompts], single=kind in ONE_VIDEO)
        try:
            batch = self._processor(
                text=[prompt.text for prompt in prompts],
                images=images if any(images) else None,
                return_tensors="pt",
                padding=len(prompts) > 1,
                padding_side="left",
                truncation=False,
                add_special_tokens=self._adds_special_tokens(prompts[0].text),
                **ASKED.get(kind, {}),
                **moving,
            )
        # Processors differ in what they raise for images or texts that they cannot take.
        except (ValueError, TypeError, KeyError, IndexError, AttributeError, RuntimeError) as error:
            raise refusal(error, [prompt.videos for prompt in prompts]) from error
        lists = LISTS.get(kind, ())
        inputs = {
            key: value
            for key, value in batch.items()
            if key in lists or (isinstance(value, torch.Tensor) and key != "labels")
        }
        inputs.setdefault("attention_mask", torch.ones_like(inputs["input_ids"]))
        return inputs, shown_videos([prompt.videos for prompt in prompts], batch)

    def _adds_special_tokens(self, text: str) -> bool:
        start = self._processor.tokenizer.bos_token
        return not (start and text.startswith(start))

    def _tokens(self, text: str, special: bool | None = None) -> list[int]:
        special = self._adds_special_tokens(text) if special is None else special
        return list(self._processor.tokenizer(text, add_special_tokens=special)["input_ids"])

    def _tail_length(self, prompt: Prompt) -> int:
        """Tokens that hold template only; one fused with the end of the question is not among them."""
        content = prompt.text[: len(prompt.text) - len(prompt.tail)]
        before = self._tokens(content, self._adds_special_tokens(prompt.text))
        added = self._tokens(TEXT_ENDS.get(self._config.model_type, ""), special=False)
        return len(self._tokens(prompt.text)) - len(before) + len(added)

    def _padding_id(self) -> int:
        given = self._processor.tokenizer.pad_token_id
        return 0 if given is None or given in self.placeholders else int(given)

    def check_length(self, encoded: Encoded, reserve: int = 0) -> None:
        """Refuse a batch for which the model has no positions.

        Args:
            encoded: Prompts as the decoder reads them, with or without answers.
            reserve: Tokens that must still fit into the context behind prompt and answer.

        Raises:
            InputError: If prompt and answer are longer than the context; of several, the message names which.
        """
        for row, (prompt, answer) in enumerate(zip(encoded.prompt_lengths, encoded.answer_lengths, strict=True)):
            if self._context is None or prompt + answer + reserve <= self._context:
                continue
            spent = sum(len(span.tokens) for span in encoded.spans[row])
            room = f", {reserve} for the new tokens" if reserve else ""
            raise InputError(
                f"{place(row, len(encoded))}the prompt takes {prompt} tokens ({_counted(encoded, row)}: "
                f"{spent}), the answer {answer}{room}, and the model has positions for {self._context}: "
                f"give fewer or smaller images{', or fewer frames' if encoded.videos[row] else ''}, a shorter text, "
                "or fewer new tokens"
            )


def _counted(encoded: Encoded, row: int) -> str:
    """How many images and videos a question has, in words."""
    images, videos = len(encoded.image_sizes[row]), len(encoded.videos[row])
    return " and ".join(counted(number, of) for number, of in ((images, "image"), (videos, "video")) if number)


def _listed(questions: Any) -> list[Question]:
    """Questions as given, each an (images, text) pair."""
    if isinstance(questions, str | Question) or not isinstance(questions, Sequence):
        raise InputError("questions are a list of Question(images, text): put a single one into a list")
    for row, question in enumerate(questions):
        if not (isinstance(question, tuple | list) and len(question) in (2, 3)):
            raise InputError(f"question {row} is {type(question).__name__}: give Question(images, text)")
    return [Question(*question) for question in questions]


def _each(items: Iterable[Item], make: Callable[[Item], Result]) -> list[Result]:
    """Apply `make` to each; of several items, an error names the one that it came from."""
    todo = list(items)
    done: list[Result] = []
    for row, item in enumerate(todo):
        try:
            done.append(make(item))
        except InputError as error:
            raise InputError(f"{place(row, len(todo))}{error}") from error
    return done


def to_device(encoded: Encoded, device: torch.device, dtype: torch.dtype) -> Encoded:
    """Move the inputs to a device; pixel values take the model's dtype, ids, grids and times keep theirs."""

    def move(key: str, value: Any) -> Any:
        if not torch.is_tensor(value):
            return value
        keeps = key in EXACT_INPUTS or not value.is_floating_point()
        return value.to(device) if keeps else value.to(device, dtype)

    return replace(encoded, inputs={key: move(key, value) for key, value in encoded.inputs.items()})
