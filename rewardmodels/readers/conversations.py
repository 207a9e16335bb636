"""Conversations as chat formats hold them, split into a prompt and a last answer, with images where marks stand.

Knows the two ways of naming a message, ``role`` with ``content`` and ``from`` with ``value``; no format. No torch.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from probes.errors import counted
from probes.inputs import IMAGE_MARK, ImageRef, InputError, Turn
from probes.reading.rows import Row, items, shown, text
from rewardmodels.records import Response

_ROLES = {
    "system": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "model": "assistant",
}


@dataclass(frozen=True)
class Message:
    """Who says it, and a text or a list of blocks."""

    role: str
    content: str | tuple[Mapping[str, Any], ...]

    def is_plain(self) -> bool:
        """Return whether the content is a text."""
        return isinstance(self.content, str)


def is_message(value: Any) -> bool:
    """Return whether a value is one message of a conversation."""
    return isinstance(value, Mapping) and ({"role", "content"} <= value.keys() or {"from", "value"} <= value.keys())


def is_conversation(value: Any) -> bool:
    """Return whether a value is a list of messages."""
    return isinstance(value, list | tuple) and bool(value) and all(is_message(message) for message in value)


def message(value: Any, key: str) -> Message:
    """Read one message.

    Raises:
        InputError: it is none, or its role or content is of another kind.
    """
    if not is_message(value):
        raise InputError(f"{key} must be a message with role and content, or from and value, not {shown(value)}")
    named = ("role", "content") if "role" in value else ("from", "value")
    role = text(value, named[0])
    if role not in _ROLES:
        raise InputError(f"{key} has a message by {shown(role)}: {', '.join(_ROLES)} are read")
    content = value[named[1]]
    if isinstance(content, list | tuple):
        if not all(isinstance(block, Mapping) for block in content):
            raise InputError(f"{key} has a message with parts that are no mappings")
        return Message(_ROLES[role], tuple(content))
    return Message(_ROLES[role], text(value, named[1]))


def conversation(row: Row, key: str) -> list[Message]:
    """Read a list of messages.

    Raises:
        InputError: it is no list of messages, or empty.
    """
    messages = [message(value, key) for value in items(row, key)]
    if not messages:
        raise InputError(f"{key} is missing or empty")
    return messages


def answer(messages: Sequence[Message], key: str) -> Message:
    """Return the only message left after the prompt.

    Raises:
        InputError: there is none, there are more, or it is not the assistant's.
    """
    if len(messages) != 1 or messages[0].role != "assistant":
        roles = ", ".join(found.role for found in messages) or "nobody"
        raise InputError(f"{key} must end the prompt with one answer by the assistant, and goes on with {roles}")
    return messages[0]


def split_common(chosen: Sequence[Message], rejected: Sequence[Message]) -> tuple[list[Message], Message, Message]:
    """Split two conversations into the turns that they share and one answer each.

    Raises:
        InputError: they are the same throughout, or differ in more than the last answer.
    """
    shared = 0
    while shared < min(len(chosen), len(rejected)) and chosen[shared] == rejected[shared]:
        shared += 1
    if shared == len(chosen) == len(rejected):
        raise InputError("chosen and rejected say the same")
    return list(chosen[:shared]), answer(chosen[shared:], "chosen"), answer(rejected[shared:], "rejected")


def turns_by_marks(messages: Sequence[Message], images: Sequence[ImageRef]) -> tuple[Turn, ...]:
    """Give each turn the images whose marks its text holds; without any mark, the first user's turn has them all.

    Raises:
        InputError: the number of marks differs from that of the images, or there is no user's turn for them.
    """
    plain = [(found.role, plain_text(found)) for found in messages]
    marks = sum(words.count(IMAGE_MARK) for _, words in plain)
    if marks == 0 and images:
        first = next((place for place, (role, _) in enumerate(plain) if role == "user"), None)
        if first is None:
            raise InputError("there are images and no user's turn that they could stand in")
        return tuple(Turn(role, words, tuple(images) if k == first else ()) for k, (role, words) in enumerate(plain))
    if marks != len(images):
        raise InputError(f"the prompt has {counted(marks, f'{IMAGE_MARK} mark')} for {counted(len(images), 'image')}")
    left = list(images)
    turns = []
    for role, words in plain:
        count = words.count(IMAGE_MARK)
        turns.append(Turn(role, words, tuple(left[:count])))
        del left[:count]
    return tuple(turns)


def plain_text(found: Message) -> str:
    """Return the text of a message whose blocks, if it has any, are all text.

    Raises:
        InputError: a block is of another kind.
    """
    if isinstance(found.content, str):
        return found.content
    kinds = sorted({str(block.get("type")) for block in found.content} - {"text"})
    if kinds:
        raise InputError(f"a message by the {found.role} has parts of kind {', '.join(kinds):.60}: give texts")
    return "".join(text(block, "text", "") for block in found.content)


def spoken(found: Message) -> Response:
    """Return an answer of text only as a response."""
    return Response(plain_text(found))
