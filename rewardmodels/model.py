"""A reward model that reads images: a bias-free scalar head on a transformers vision-language or language model.

Scores are raw logits: unbounded, and comparable within one model only. The checkpoint is transformers' own sequence
classifier where the family has one (Gemma 3, Qwen3.5), and loads there without this package; other families get the
small class of `rewardmodels.heads`, a copy of which is saved along. This file trains nothing.
"""

import json
import math
from collections.abc import Iterable, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass, fields
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import torch

from probes.checkpoints import read_json
from probes.files import write_bytes, write_json
from probes.inputs import ImageRef, InputError, Turn
from rewardmodels import heads
from rewardmodels.collating import Collator, tokenizer_of
from rewardmodels.fingerprints import weights_fingerprint
from rewardmodels.loading import AUTO_MAP, HEAD_FILE, load_base, load_reward, own_padding, reads_images
from rewardmodels.records import Response
from rewardmodels.rendering import Conversation, ConversationWriter

META_FILE = "reward_meta.json"

Prompt = str | Sequence[Turn]
"""What was asked: the user's words, with `<image>` marks or without, or a whole conversation."""


class Comparison(NamedTuple):
    """Two responses to one prompt.

    Attributes:
        first: Score of the first.
        second: Score of the second.
        margin: First minus second.
        probability: Of the first being preferred, by Bradley-Terry: sigmoid of the margin.
    """

    first: float
    second: float
    margin: float
    probability: float


class Ranking(NamedTuple):
    """Responses to one prompt, best first.

    Attributes:
        order: Places in the list that was given; of equal scores the earlier comes first.
        scores: The scores, in the list's own order.
    """

    order: tuple[int, ...]
    scores: tuple[float, ...]


@dataclass(frozen=True)
class RewardMeta:
    """What a checkpoint says about its scores, in `reward_meta.json`."""

    base: str = ""
    """The model that the head was put on."""
    template: str = ""
    """SHA-256 of the chat template in which responses are scored."""
    mean: float | None = None
    """Mean score over the training pairs' responses; subtract it outside the model."""
    deviation: float | None = None
    """Standard deviation there."""
    data: str = ""
    """Digest of the training records."""
    offset: float = 0.0
    """What the checkpoint that this one was converted from added to every score, and this one does not."""


class RewardModel:
    """A sequence classifier with one output, and the processor that makes its inputs.

    Args:
        model: A transformers sequence classifier with `num_labels` 1, or a peft model around one.
        processor: Its processor; the tokenizer, for a model that reads text only.
        meta: What is known of its scores.
        max_length: Most tokens of a prompt with its response; by default what the model has positions for.
        padding_side: Where rows of a batch are padded; scores do not depend on it.

    Raises:
        InputError: If the head has not one output, the processor has no chat template or is none for images while the
            model reads them, or the padding token could be mistaken for the end of a response.
    """

    def __init__(
        self,
        model: Any,
        processor: Any,
        meta: RewardMeta | None = None,
        max_length: int | None = None,
        padding_side: str = "right",
    ) -> None:
        if getattr(model.config, "num_labels", None) != 1:
            raise InputError(
                f"the head of {type(model).__name__} has {getattr(model.config, 'num_labels', 'no')} outputs, and a "
                "reward model has one: set num_labels=1"
            )
        self.model = model
        self.processor = processor
        self.writer = ConversationWriter(processor)
        if self.writer.sees and not reads_images(model.config):
            raise InputError(
                f"{type(model).__name__} takes no images, and its {type(processor).__name__} does: give its tokenizer"
            )
        self.collator = Collator(processor, model.config, max_length, padding_side)
        self.meta = meta or RewardMeta(template=_digest(processor))

    @classmethod
    def from_pretrained(cls, path_or_id: str | Path, max_length: int | None = None, **settings: Any) -> "RewardModel":
        """Load a trained reward model; `settings` as of `rewardmodels.loading.load_reward`.

        Raises:
            InputError: As `load_reward`, and as this class.
        """
        loaded = load_reward(path_or_id, **settings)
        return cls(loaded.model, loaded.processor, _read_meta(loaded.folder, loaded.source), max_length)

    @classmethod
    def from_base(cls, path_or_id: str | Path, max_length: int | None = None, **settings: Any) -> "RewardModel":
        """Put a new head on a language or vision-language model; `settings` as of `rewardmodels.loading.load_base`.

        Tokenizer and model get a padding token that no response ends in, where theirs is one that does.

        Raises:
            InputError: As `load_base`, and as this class.
        """
        loaded = load_base(path_or_id, **settings)
        own_padding(loaded.model, loaded.processor, _last_ids(loaded.processor))
        meta = RewardMeta(base=loaded.source, template=_digest(loaded.processor))
        return cls(loaded.model, loaded.processor, meta, max_length)

    @property
    def sees(self) -> bool:
        """Whether the model reads images."""
        return self.writer.sees

    @property
    def device(self) -> torch.device:
        """Where inputs go."""
        return torch.device(self.model.get_input_embeddings().weight.device)

    @property
    def fingerprint(self) -> str:
        """Tells these weights from others; see `rewardmodels.fingerprints`."""
        return weights_fingerprint(self.model)

    def __repr__(self) -> str:
        count = sum(parameter.numel() for parameter in self.model.parameters())
        precision = str(self.model.dtype).removeprefix("torch.")
        reads = "images and text" if self.sees else "text only"
        base = self.model.get_base_model() if hasattr(self.model, "get_base_model") else self.model
        return f"RewardModel({type(base).__name__}, {count / 1e6:,.1f} M parameters, {reads}, {precision})"

    def get_score(self, prompt: Prompt, response: str, images: Iterable[Any] = ()) -> float:
        """Score one response.

        Args:
            prompt: What was asked.
            response: The answer to score.
            images: The prompt's images in any form that ImageRef.of takes, where the prompt is a string.

        Raises:
            InputError: As `get_scores`.
        """
        return self.get_scores([as_turns(prompt, images)], [Response(response)])[0]

    def get_scores(
        self, prompts: Sequence[Prompt], responses: Sequence[Response | str], batch_size: int = 8
    ) -> list[float]:
        """Score responses, each to its own prompt.

        Args:
            prompts: One per response.
            responses: Texts, or responses with images of their own.
            batch_size: Rows per forward pass; one where rows would change each other. Scores do not depend on it.

        Raises:
            InputError: If the numbers differ, a conversation cannot be rendered, read or held by the model, or a score
                is not a number. Of several rows the message names the one at fault.
        """
        if len(prompts) != len(responses):
            raise InputError(f"{len(prompts)} prompts need as many responses, and {len(responses)} are given")
        if batch_size < 1:
            raise InputError(f"batch_size is {batch_size}: give 1 or more")
        conversations = [
            self._conversation(*pair, row) for row, pair in enumerate(zip(prompts, responses, strict=True))
        ]
        batch_size = batch_size if self.collator.takes_several else 1
        # Rows with and without images go apart, as not every processor takes both in one batch.
        scores = [math.nan] * len(conversations)
        for seen in (True, False):
            rows = [row for row, conversation in enumerate(conversations) if bool(conversation.images) is seen]
            rows.sort(key=lambda row: len(conversations[row].text))
            for start in range(0, len(rows), batch_size):
                some = rows[start : start + batch_size]
                for row, score in zip(some, self._scores([conversations[row] for row in some]), strict=True):
                    scores[row] = score
        for row, score in enumerate(scores):
            if not math.isfinite(score):
                raise InputError(f"response {row}: its score is {score}, so weights or images hold no numbers")
        return scores

    def compare(self, prompt: Prompt, first: str, second: str, images: Iterable[Any] = ()) -> Comparison:
        """Score two responses to one prompt.

        Raises:
            InputError: As `get_scores`.
        """
        turns = as_turns(prompt, images)
        one, two = self.get_scores([turns, turns], [first, second])
        return Comparison(one, two, one - two, _sigmoid(one - two))

    def rank(self, prompt: Prompt, responses: Sequence[str], images: Iterable[Any] = ()) -> Ranking:
        """Rank responses to one prompt, best first.

        Raises:
            InputError: As `get_scores`, and if there is none.
        """
        if not responses:
            raise InputError("there is no response to rank")
        scores = self.get_scores([as_turns(prompt, images)] * len(responses), list(responses))
        return Ranking(tuple(sorted(range(len(scores)), key=lambda place: -scores[place])), tuple(scores))

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """How many tokens each text has by itself, special ones aside."""
        tokenizer = tokenizer_of(self.processor)
        return [len(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in texts]

    def inputs(self, conversations: Sequence[Conversation]) -> dict[str, torch.Tensor]:
        """Tensors of a batch, where the model is and in its precision.

        Raises:
            InputError: As `Collator`.
        """
        dtype = self.model.dtype
        return {
            key: value.to(self.device, dtype) if value.is_floating_point() else value.to(self.device)
            for key, value in self.collator(conversations).items()
        }

    def save_pretrained(self, folder: str | Path) -> None:
        """Save a checkpoint that others load: adapters merged, processor and `reward_meta.json` beside the weights.

        Args:
            folder: Made where it does not exist.
        """
        target = Path(folder)
        model = _merged(self.model)
        model.config.problem_type = "regression"
        model.save_pretrained(target)
        self.save_beside(target)

    def save_beside(self, folder: str | Path) -> None:
        """Save what belongs beside the weights: processor, `reward_meta.json`, and the head's class where it is ours.

        Args:
            folder: Where weights and `config.json` are already, or an adapter.
        """
        target = Path(folder)
        self.processor.save_pretrained(target)
        write_json(target / META_FILE, asdict(self.meta))
        path = target / "config.json"
        if path.is_file() and not is_native(self.model.config):
            write_bytes(target / HEAD_FILE, Path(heads.__file__).read_bytes())
            config = json.loads(path.read_text(encoding="utf-8"))
            write_json(path, config | {"auto_map": AUTO_MAP})

    def _conversation(self, prompt: Prompt, response: Response | str, row: int) -> Conversation:
        given = Response(response) if isinstance(response, str) else response
        try:
            return self.writer.write(as_turns(prompt), given.text, given.images)
        except InputError as error:
            raise InputError(f"response {row}: {error}") from error

    def _scores(self, conversations: Sequence[Conversation]) -> list[float]:
        was_training = self.model.training
        self.model.eval()
        try:
            with torch.inference_mode():
                logits = self.model(**self.inputs(conversations)).logits
        finally:
            self.model.train(was_training)
        return [float(score) for score in logits.squeeze(-1).float()]


def as_turns(prompt: Prompt, images: Iterable[Any] = ()) -> tuple[Turn, ...]:
    """A prompt as turns.

    Args:
        prompt: The user's words, or turns.
        images: Images of the words, in any form that ImageRef.of takes.

    Raises:
        InputError: If images are given beside turns, which hold their own, or one cannot be taken.
    """
    found = tuple(ImageRef.of(image) for image in images)
    if isinstance(prompt, str):
        return (Turn("user", prompt, found),)
    if found:
        raise InputError("images are given beside turns: put them into the turns that they belong to")
    return tuple(prompt)


def is_native(config: Any) -> bool:
    """Whether transformers has a sequence classifier of its own for a configuration."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING as NATIVE

    return type(config) in NATIVE


def _merged(model: Any) -> Any:
    """The classifier with its adapter folded in; a copy, so that training can go on."""
    return deepcopy(model).merge_and_unload() if hasattr(model, "merge_and_unload") else model


def _sigmoid(margin: float) -> float:
    return 1 / (1 + math.exp(-margin)) if margin >= 0 else math.exp(margin) / (1 + math.exp(margin))


def _digest(processor: Any) -> str:
    return sha256(str(getattr(processor, "chat_template", "")).encode()).hexdigest()


def _last_ids(processor: Any) -> set[int]:
    """Ids in which conversations end, by rendering two."""
    writer = ConversationWriter(processor)
    tokenizer = tokenizer_of(processor)
    texts = [writer.write((Turn("user", "a"),), response).text for response in ("b", "c")]
    return {tokenizer(text, add_special_tokens=False)["input_ids"][-1] for text in texts}


def _read_meta(folder: Path, name: str) -> RewardMeta | None:
    if not (folder / META_FILE).is_file():
        return None
    content = read_json(folder / META_FILE, name)
    known = {field.name for field in fields(RewardMeta)}
    return RewardMeta(**{key: value for key, value in content.items() if key in known})
