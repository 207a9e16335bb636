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

from probes.clips import VIDEO_MARK, Video, is_video, video_list
from probes.inputs import IMAGE_MARK, ImageRef, InputError, check_marks, placed
from probes.templates import PLACEHOLDERS, Block, Content, Kind, content, fitting_form, media_token, placeholder

_REPLY = "\uf8ff"


class Question(tuple[Sequence[Any], str]):
    """What is asked, and about which images and videos. Unpacks as `images, text`, and `videos` where there are any.

    Args:
        images: The images in any form that ImageRef.of takes.
        text: The question. `<image>` marks, one per image, say where the images stand; without marks they come first.
            `<video>` marks do the same for videos, where there are any; without either, images come before videos.
        videos: The videos in any form that `probes.clips.Video.of` takes: an array (frames, height, width, 3) of uint8,
            a list of frames, a Video or the path of a video file.

    >>> Question(["a.png"], "Which?")
    Question(images=['a.png'], text='Which?')
    """

    __slots__ = ()

    def __new__(cls, images: Sequence[Any], text: str, videos: Sequence[Any] = ()) -> "Question":  # noqa: D102
        # Of two parts without videos, so that whoever unpacks a question of images goes on, and drops no video.
        none = isinstance(videos, list | tuple) and not videos
        return super().__new__(cls, (images, text) if none else (images, text, videos))

    @property
    def images(self) -> Sequence[Any]:
        """Images in any form."""
        return self[0]

    @property
    def text(self) -> str:
        """The question."""
        return self[1]

    @property
    def videos(self) -> Sequence[Any]:
        """Videos in any form."""
        parts: tuple[Any, ...] = self
        videos: Sequence[Any] = parts[2] if len(parts) > 2 else ()
        return videos

    def __repr__(self) -> str:
        videos = f", videos={self.videos!r}" if len(self) > 2 else ""
        return f"Question(images={self.images!r}, text={self.text!r}{videos})"

    def __getnewargs__(self) -> tuple[Any, ...]:
        return tuple(self)


class Prompt(NamedTuple):
    """One question as the processor takes it.

    Attributes:
        text: The rendered chat, up to and including the header of the reply.
        tail: What the template put after the user's last text, image or video; a suffix of `text`.
        gap: White space that the template puts between the header of the reply and a reply.
        images: Decoded images, in order.
        videos: Videos, in order.
    """

    text: str
    tail: str
    gap: str
    images: tuple[Image.Image, ...]
    videos: tuple[Video, ...] = ()


class _Layout(NamedTuple):
    """What a template does with a certain sequence of texts, images and videos."""

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
        self._layouts: dict[tuple[Kind, ...], _Layout] = {}
        if not getattr(processor, "chat_template", None):
            raise InputError(
                f"this {type(processor).__name__} has no chat template, so the model's prompt format is unknown: "
                "set processor.chat_template"
            )

    def write(self, question: Question) -> Prompt:
        """Render one question and decode its images and videos.

        Content is given as typed blocks. A template that gathers all images in front of the text, or takes strings
        only, is given the processor's image and video tokens inside the text instead, so that the marks keep their
        places.

        Raises:
            InputError: If there are no images and videos or no words, the marks do not fit, an image or a video cannot
                be decoded, the processor takes no videos, or the template cannot keep the order.
        """
        parts = _split(question)
        blocks = [Block("text", part) if isinstance(part, str) else Block(_kind(part)) for part in parts]
        kinds = tuple(block.kind for block in blocks)
        if self._prepended and (kinds[0] != "image" or set(kinds[1:]) != {"text"}):
            raise InputError(
                f"{type(self._processor).__name__} puts one image before the text: ask about one, without marks"
            )
        if "video" in kinds and getattr(self._processor, "video_processor", None) is None:
            raise InputError(
                f"this {type(self._processor).__name__} has no video processor, so it takes no videos: give frames as "
                "images, or load a checkpoint that takes videos"
            )
        layout = self._layouts.get(kinds) or self._layouts.setdefault(kinds, self._layout(kinds))
        rendered = self._render(content(blocks, layout.form, self._token))
        if not rendered.endswith(layout.tail):
            raise InputError(
                f"the chat template ends this question differently from others (expected {layout.tail!r}), so its tail "
                "cannot be told from the question: set a processor.chat_template that does not depend on the text"
            )
        images = tuple(part.open() for part in parts if isinstance(part, ImageRef))
        return Prompt(
            rendered, layout.tail, layout.gap, images, tuple(part for part in parts if isinstance(part, Video))
        )

    def _layout(self, kinds: tuple[Kind, ...]) -> _Layout:
        ended: tuple[Kind, ...] = kinds if kinds[-1] == "text" else (*kinds, "text")
        blocks = [
            Block(kind, placeholder(place)) if kind == "text" else Block(kind) for place, kind in enumerate(ended)
        ]
        form, rendered = fitting_form(
            blocks,
            lambda form: self._render(content(blocks, form, self._token)),
            self._token,
            set(ended) - {"text"},
            what="question",
            advice="set another processor.chat_template, or put all images first by leaving out the <image> marks",
        )
        return _Layout(form, re.split(PLACEHOLDERS, rendered)[-1], self._gap(blocks, form, rendered))

    def _gap(self, blocks: Sequence[Block], form: str, rendered: str) -> str:
        """White space before a reply: some templates open it by "Assistant:" and write "Assistant: yes"."""
        try:
            reply = content([Block("text", _REPLY)], form, self._token)
            before = self._render(content(blocks, form, self._token), reply).split(_REPLY)[0]
        # A template made for prompts only may refuse replies; then there is no gap to learn of.
        except Exception:
            return ""
        gap = before[len(rendered) :] if before.startswith(rendered) else ""
        return gap if gap.isspace() else ""

    def _token(self, kind: Kind) -> str | None:
        """What the processor takes for an image or a video in the text, if it says so."""
        if self._prepended and kind == "image":
            return None
        return media_token(self._processor, kind)

    def _render(self, asked: Content, reply: Content | None = None) -> str:
        chat: list[dict[str, Any]] = [{"role": "user", "content": asked}]
        if reply is not None:
            chat.append({"role": "assistant", "content": reply})
        return str(self._processor.apply_chat_template(chat, tokenize=False, add_generation_prompt=reply is None))


def _kind(part: ImageRef | Video) -> Kind:
    return "image" if isinstance(part, ImageRef) else "video"


def _split(question: Question) -> list[str | ImageRef | Video]:
    if isinstance(question.images, str | bytes | PathLike | Mapping | ImageRef | Image.Image):
        raise InputError("a question takes a list of images: put the one image into a list")
    videos = video_list(question.videos)
    if not question.images and not videos:
        raise InputError("a question needs at least one image or video, and none is given")
    if not isinstance(question.text, str):
        raise InputError(f"a question's text must be a string, and is a {type(question.text).__name__}")
    if any(is_video(image) for image in question.images):
        raise InputError("a video is given among the images: give it as videos=[video]")
    refs = tuple(ImageRef.of(image) for image in question.images)
    return _placed_all(question.text, refs, videos)


def _placed_all(text: str, images: Sequence[ImageRef], videos: Sequence[Video]) -> list[str | ImageRef | Video]:
    """Texts, images and videos in order; without videos, their mark is a word like any other."""
    if videos and VIDEO_MARK not in text:
        text = VIDEO_MARK * len(videos) + text
    if videos:
        check_marks(text, VIDEO_MARK, len(videos))
    upcoming = iter(videos)
    parts: list[str | ImageRef | Video] = []
    for part in placed(text, IMAGE_MARK, images):
        if isinstance(part, str) and videos:
            parts += placed(part, VIDEO_MARK, [next(upcoming) for _ in range(part.count(VIDEO_MARK))])
        else:
            parts.append(part)
    if not any(isinstance(part, str) and part.strip() for part in parts):
        raise InputError("the question is empty: write what is asked about the images")
    return parts
