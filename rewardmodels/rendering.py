"""Conversations that end in a response, as the text and images that a processor takes: what a reward model scores.

The chat template is the processor's own, and is held to the order of texts and images by rendering, never by counting.
This file knows nothing of models, tensors or token ids.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from PIL import Image

from probes.inputs import ImageRef, InputError, Turn
from probes.templates import Block, Kind, content, fitting_form, media_token, placeholder

_ROLES = ("system", "user", "assistant")

_Layout = tuple[tuple[str, tuple[bool, ...]], ...]


class Conversation(NamedTuple):
    """A prompt and a response to it, as a processor takes them.

    Attributes:
        text: The rendered chat, up to and including what the template puts after the response.
        images: Decoded images, in the order of their marks.
    """

    text: str
    images: tuple[Image.Image, ...]


class ConversationWriter:
    """Renders prompts with responses by a chat template.

    Args:
        processor: A processor, or a tokenizer for models that read text only.

    Raises:
        InputError: If there is no chat template.
    """

    def __init__(self, processor: Any) -> None:
        self._processor = processor
        self._forms: dict[_Layout, str] = {}
        if not getattr(processor, "chat_template", None):
            raise InputError(
                f"this {type(processor).__name__} has no chat template, so the format in which responses are scored "
                "is unknown: set its chat_template"
            )

    @property
    def sees(self) -> bool:
        """Whether images can be given at all."""
        return getattr(self._processor, "image_processor", None) is not None

    def write(self, prompt: Sequence[Turn], response: str, images: Sequence[ImageRef] = ()) -> Conversation:
        """Render one prompt with one response, and decode the images.

        Args:
            prompt: Turns, of which the last is not the assistant's.
            response: What is scored.
            images: The response's own images; they stand before its text, or at its `<image>` marks.

        Raises:
            InputError: If the prompt or the response is empty, a turn's marks do not fit its images, there are images
                and the model reads text only, an image cannot be decoded, or the template cannot hold the order.
        """
        turns = _checked(prompt, Turn("assistant", response, tuple(images)))
        parts = [_parts(turn, self._token("image")) for turn in turns]
        found = [part for turn in parts for part in turn if isinstance(part, ImageRef)]
        if found and not self.sees:
            raise InputError(
                f"the prompt has {len(found)} images, and a {type(self._processor).__name__} reads text only: give a "
                "vision-language model, or take the images out"
            )
        layout = tuple(
            (turn.role, tuple(isinstance(part, ImageRef) for part in own))
            for turn, own in zip(turns, parts, strict=True)
        )
        form = self._forms.get(layout) or self._forms.setdefault(layout, self._form(layout))
        blocks = [[Block("text", part) if isinstance(part, str) else Block("image") for part in own] for own in parts]
        text = self._render([turn.role for turn in turns], blocks, form)
        return Conversation(text, tuple(image.open() for image in found))

    def _form(self, layout: _Layout) -> str:
        """The first form of content in which the template keeps each text and image in its place."""
        turns: list[list[Block]] = []
        count = 0
        for _, kinds in layout:
            own = [
                Block("image") if image else Block("text", placeholder(count + at)) for at, image in enumerate(kinds)
            ]
            turns.append(own)
            count += len(kinds)
        roles = [role for role, _ in layout]
        form, _ = fitting_form(
            [block for own in turns for block in own],
            lambda form: self._render(roles, turns, form),
            self._token,
            ("image",),
            what="conversation",
            advice="set another chat_template, or change the roles, or where the images stand",
        )
        return form

    def _render(self, roles: Sequence[str], turns: Sequence[Sequence[Block]], form: str) -> str:
        wanted = form if self.sees else "string"
        chat = [
            {"role": role, "content": content(own, wanted, self._token)} for role, own in zip(roles, turns, strict=True)
        ]
        return str(self._processor.apply_chat_template(chat, tokenize=False, add_generation_prompt=False))

    def _token(self, kind: Kind) -> str | None:
        return media_token(self._processor, kind)


def _checked(prompt: Sequence[Turn], response: Turn) -> list[Turn]:
    if not prompt:
        raise InputError("the prompt is empty: give at least one turn of the user's")
    if prompt[-1].role == "assistant":
        raise InputError("the prompt ends in the assistant's turn: the response belongs apart from it")
    for turn in prompt:
        if turn.role not in _ROLES:
            raise InputError(f"a turn's role is {turn.role!r}: use {', '.join(_ROLES)}")
    if not response.text.strip() and not response.images:
        raise InputError("the response is empty, so there is nothing to score")
    return [*prompt, response]


def _parts(turn: Turn, image_token: str | None) -> tuple[str | ImageRef, ...]:
    """Texts and images of a turn in order; words that stand for an image may not be said."""
    parts = turn.parts()
    if image_token is not None:
        for part in parts:
            if isinstance(part, str) and image_token in part:
                raise InputError(
                    f"the {turn.role}'s text holds {image_token!r}, which stands for an image that is not there: give "
                    "the image, or take the mark out of the text"
                )
    return parts
