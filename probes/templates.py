"""What chat templates want of content: typed blocks, or a text with the processor's image tokens inside.

Which it is, is found by rendering placeholder characters in place of texts and seeing whether all stays in its order.
This file knows nothing of questions, conversations, models or token ids.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal, NamedTuple

from probes.checkpoints import first_line
from probes.errors import InputError

Kind = Literal["text", "image", "video"]
Token = Callable[[Kind], str | None]
"""What the processor takes for an image or a video in the text; None where it does not say so."""
Content = list[dict[str, str]] | str

FORMS = ("blocks", "inline", "string")
"""How a template may want its content: typed blocks; one text block, or one string, with the image token inside."""
PLACEHOLDERS = "[\ue000-\uf8ff]"
"""Regular expression of the characters that stand for texts."""
_FIRST_PLACEHOLDER = 0xE000
_TOKENS: dict[Kind, tuple[str, ...]] = {"image": ("image_placeholder_token", "image_token"), "video": ("video_token",)}
"""What processors call what they take for an image or video in the text; Qianfan-OCR has another for features."""


class Block(NamedTuple):
    """One part of a message; only texts have words."""

    kind: Kind
    words: str = ""


def placeholder(place: int) -> str:
    """A character that stands for the text at a place."""
    return chr(_FIRST_PLACEHOLDER + place)


def media_token(processor: Any, kind: Kind) -> str | None:
    """What a processor takes for an image or a video in the text, if it says so."""
    names = _TOKENS.get(kind, ())
    return next((str(getattr(processor, name)) for name in names if hasattr(processor, name)), None)


def content(blocks: Sequence[Block], form: str, token: Token) -> Content:
    """Blocks as the content of one message, in one of ``FORMS``.

    >>> content([Block("image"), Block("text", "Which?")], "string", lambda kind: "<img>")
    '<img>Which?'
    """
    if form == "blocks":
        return [
            {"type": "text", "text": block.words} if block.kind == "text" else {"type": block.kind} for block in blocks
        ]
    joined = "".join(block.words or token(block.kind) or "" for block in blocks)
    return joined if form == "string" else [{"type": "text", "text": joined}]


def fitting_form(
    blocks: Sequence[Block],
    render: Callable[[str], str],
    token: Token,
    watched: Iterable[Kind],
    *,
    what: str,
    advice: str,
) -> tuple[str, str]:
    """Find the first form of content in which a template keeps every text, image and video in its place.

    Args:
        blocks: All parts that are rendered, in order; texts are placeholders.
        render: Renders them in a form.
        token: As of the processor.
        watched: Kinds whose tokens may stand where the blocks say, and nowhere else.
        what: How a message calls what is rendered.
        advice: What a message advises beside another template.

    Returns:
        The form, and what was rendered in it.

    Raises:
        InputError: If the template renders none, or keeps the order in none.
    """
    reason = f"it does not keep texts and images in the order of the {what}"
    for form in FORMS:
        try:
            rendered = render(form)
        # A template is a program of its own: it may raise anything, jinja's errors included.
        except Exception as error:
            reason = first_line(error)
            continue
        if _keeps_order(rendered, blocks, token, watched):
            return form, rendered
    raise InputError(f"the chat template cannot render this {what} ({reason}): {advice}")


def _keeps_order(rendered: str, blocks: Sequence[Block], token: Token, watched: Iterable[Kind]) -> bool:
    """Whether texts, and images and videos where their tokens are known, stand in the order of the blocks."""
    expected: list[str | None] = [block.words or token(block.kind) for block in blocks]
    tokens = {found for kind in watched if (found := token(kind))}
    seen: list[str] = re.findall("|".join([PLACEHOLDERS, *map(re.escape, sorted(tokens))]), rendered)
    return seen == [part for part in expected if part is not None]
