"""Questions into prompt text, by the processor's own chat template, and what the template adds around them.

A question becomes one user message of typed blocks. The template's tail is found by rendering, never by counting: the
same blocks are rendered with placeholder characters in place of their texts, and whatever follows the last of these is
the tail. This file knows nothing of models, tensors or token ids.
"""

import re
from collections.abc import Mapping, Sequence
from os import PathLike
from typing import Any, NamedTuple

from PIL import Image

from probes.inputs import ImageRef, InputError, Turn
from probes.loading import first_line

_FIRST_PLACEHOLDER = 0xE000
_PLACEHOLDERS = "[\ue000-\uf8ff]"
_VIDEO_FILES = (".mp4", ".webm", ".mkv", ".mov", ".avi")
_REPLY = "\uf8ff"
_FORMS = ("blocks", "inline", "string")
"""How a template may want its content: typed blocks; one text block, or one string, with the image token inside."""


class Question(NamedTuple):
    """What is asked, and about which images.

    Attributes:
        images: The images in any form that ImageRef.of takes.
        text: The question. `<image>` marks, one per image, say where the images stand; without marks they come first.
    """

    images: Sequence[Any]
    text: str


class Prompt(NamedTuple):
    """One question as the processor takes it.

    Attributes:
        text: The rendered chat, up to and including the header of the reply.
        tail: What the template put after the user's last text or image; a suffix of `text`.
        gap: White space that the template puts between the header of the reply and a reply.
        images: Decoded images, in order.
    """

    text: str
    tail: str
    gap: str
    images: tuple[Image.Image, ...]


class _Frame(NamedTuple):
    """What a template does with a certain sequence of texts and images."""

    form: str
    tail: str
    gap: str


class PromptWriter:
    """Renders questions by a processor's chat template.

    Args:
        processor: The model's processor.
        prepended: Whether the processor itself puts the prompt's one image before the text, which has no mark of it.

    Raises:
        InputError: If the processor has no chat template.
    """

    def __init__(self, processor: Any, prepended: bool = False) -> None:
        self._processor = processor
        self._prepended = prepended
        self._frames: dict[tuple[bool, ...], _Frame] = {}
        if not getattr(processor, "chat_template", None):
            raise InputError(
                f"this {type(processor).__name__} has no chat template, so the model's prompt format is unknown: "
                "set processor.chat_template"
            )

    def write(self, question: Question) -> Prompt:
        """Render one question and decode its images.

        Content is given as typed blocks. A template that gathers all images in front of the text, or takes strings
        only, is given the processor's image token inside the text instead, so that the marks keep their places.

        Raises:
            InputError: If there are no images or no words, the marks do not fit the images, an image cannot be
                decoded, or the template cannot keep the order.
        """
        parts = _split(question)
        kinds = tuple(isinstance(part, ImageRef) for part in parts)
        if self._prepended and (sum(kinds) > 1 or not kinds[0]):
            raise InputError(
                f"{type(self._processor).__name__} puts one image before the text: ask about one, without marks"
            )
        frame = self._frames.get(kinds) or self._frames.setdefault(kinds, self._frame(kinds))
        texts = [None if isinstance(part, ImageRef) else part for part in parts]
        rendered = self._render(self._content(texts, frame.form))
        if not rendered.endswith(frame.tail):
            raise InputError(
                f"the chat template ends this question differently from others (expected {frame.tail!r}), so its tail "
                "cannot be told from the question: set a processor.chat_template that does not depend on the text"
            )
        images = tuple(part.open() for part in parts if isinstance(part, ImageRef))
        return Prompt(rendered, frame.tail, frame.gap, images)

    def _frame(self, kinds: tuple[bool, ...]) -> _Frame:
        texts = [None if image else chr(_FIRST_PLACEHOLDER + place) for place, image in enumerate(kinds)]
        if kinds[-1]:
            texts.append(chr(_FIRST_PLACEHOLDER + len(kinds)))
        reason = "it does not keep texts and images in the order of the question"
        for form in _FORMS:
            content = self._content(texts, form)
            try:
                rendered = self._render(content)
            # A template is a program of its own: it may raise anything, jinja's errors included.
            except Exception as error:
                reason = first_line(error)
                continue
            if self._keeps_order(rendered, texts):
                tail = re.split(_PLACEHOLDERS, rendered)[-1]
                return _Frame(form, tail, self._gap(texts, form, rendered))
        raise InputError(
            f"the chat template cannot render this question ({reason}): set another processor.chat_template, or put "
            "all images first by leaving out the <image> marks"
        )

    def _keeps_order(self, rendered: str, texts: Sequence[str | None]) -> bool:
        token = self._image_token()
        if token is None:
            return [text for text in texts if text] == re.findall(_PLACEHOLDERS, rendered)
        found = re.findall(f"{_PLACEHOLDERS}|{re.escape(token)}", rendered)
        return found == [token if text is None else text for text in texts]

    def _gap(self, texts: Sequence[str | None], form: str, rendered: str) -> str:
        """White space before a reply: some templates open it by "Assistant:" and write "Assistant: yes"."""
        try:
            before = self._render(self._content(texts, form), self._content([_REPLY], form)).split(_REPLY)[0]
        # A template made for prompts only may refuse replies; then there is no gap to learn of.
        except Exception:
            return ""
        gap = before[len(rendered) :] if before.startswith(rendered) else ""
        return gap if gap.isspace() else ""

    def _content(self, texts: Sequence[str | None], form: str) -> list[dict[str, str]] | str:
        if form == "blocks":
            return [{"type": "image"} if text is None else {"type": "text", "text": text} for text in texts]
        token = self._image_token() or ""
        joined = "".join(token if text is None else text for text in texts)
        return joined if form == "string" else [{"type": "text", "text": joined}]

    def _image_token(self) -> str | None:
        """What the processor takes for an image in the text; Qianfan-OCR's token of image features is another."""
        if self._prepended:
            return None
        names = ("image_placeholder_token", "image_token")
        return next((str(getattr(self._processor, name)) for name in names if hasattr(self._processor, name)), None)

    def _render(self, content: list[dict[str, str]] | str, reply: list[dict[str, str]] | str | None = None) -> str:
        chat: list[dict[str, Any]] = [{"role": "user", "content": content}]
        if reply is not None:
            chat.append({"role": "assistant", "content": reply})
        return str(self._processor.apply_chat_template(chat, tokenize=False, add_generation_prompt=reply is None))


def _is_video(image: Any) -> bool:
    """Frames in a list or an array, or a file by its name."""
    if isinstance(image, str | PathLike):
        return str(image).lower().endswith(_VIDEO_FILES)
    return isinstance(image, list | tuple) or len(getattr(image, "shape", ())) == 4


def _split(question: Question) -> tuple[str | ImageRef, ...]:
    if isinstance(question.images, str | bytes | PathLike | Mapping | ImageRef | Image.Image):
        raise InputError("a question takes a list of images: put the one image into a list")
    if not question.images:
        raise InputError("a question needs at least one image, and none is given")
    if not isinstance(question.text, str):
        raise InputError(f"a question's text must be a string, and is a {type(question.text).__name__}")
    if any(_is_video(image) for image in question.images):
        raise InputError(
            "videos are not traced: find their tokens by probes.find_video_spans and give those to "
            "attention_factors, or give frames as images"
        )
    refs = tuple(ImageRef.of(image) for image in question.images)
    parts = Turn("user", question.text, refs).parts()
    if not any(isinstance(part, str) and part.strip() for part in parts):
        raise InputError("the question is empty: write what is asked about the images")
    return parts
