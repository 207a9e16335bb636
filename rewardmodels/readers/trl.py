"""TRL's preference format: conversations with images, the prompt explicit or shared by both answers, or plain texts.

Placeholders follow ``trl.data_utils.prepare_multimodal_messages`` of TRL 1.16: blocks of type image stand for the
images in order; a user's turn that is a plain text has all of them in front. Besides, ``<image>`` marks in plain texts
say where images stand, where there are as many. No torch.
"""

from collections.abc import Sequence
from pathlib import Path

from probes.errors import counted
from probes.inputs import IMAGE_MARK, ImageRef, InputError, Turn
from probes.reading.rows import Row, items, number, text
from probes.reading.sources import RawRow
from rewardmodels.readers.conversations import (
    Message,
    answer,
    conversation,
    is_conversation,
    split_common,
    turns_by_marks,
)
from rewardmodels.readers.parts import BETTER_AND_WORSE, interleaved, listed_images, question, row_id, two
from rewardmodels.records import Preference, Response

WHY = "rows with chosen and rejected as conversations, or with prompt, chosen and rejected as texts"
_ELSEWHERE = {"img_path", "video", "chosen_reason", "rejected_reason", "subset"}


def matches(row: Row) -> bool:
    """Return whether a row holds two conversations, or a prompt and two texts and no column of another format."""
    if is_conversation(row.get("chosen")) and is_conversation(row.get("rejected")):
        return True
    texts = all(isinstance(row.get(key), str) for key in ("prompt", "chosen", "rejected"))
    return texts and not _ELSEWHERE & row.keys()


def read(raw: RawRow) -> Preference:
    """Read one row.

    Raises:
        InputError: a value is missing or of the wrong type, an image does not exist, placeholders and images differ
            in number, or the answers differ in more than the last turn.
    """
    row = raw.values
    images = listed_images(row, raw.root, "images", "image")
    if is_conversation(_list(row, "chosen")):
        prompt, chosen, rejected = _conversations(row)
        turns = _turns(prompt, images, raw.root)
        responses = (_response(chosen, raw.root), _response(rejected, raw.root))
    else:
        turns, responses = question(text(row, "prompt"), images), two(text(row, "chosen"), text(row, "rejected"))
    return Preference(
        id=row_id(raw, "id", "idx"),
        prompt=turns,
        responses=responses,
        ranks=BETTER_AND_WORSE,
        source=raw.source,
        margin=number(row, "margin"),
    )


def _list(row: Row, key: str) -> object:
    return items(row, key) if isinstance(row.get(key), str) and row[key].lstrip().startswith("[") else row.get(key)


def _conversations(row: Row) -> tuple[list[Message], Message, Message]:
    chosen, rejected = conversation(row, "chosen"), conversation(row, "rejected")
    if not is_conversation(_list(row, "prompt")):
        return split_common(chosen, rejected)
    return conversation(row, "prompt"), answer(chosen, "chosen"), answer(rejected, "rejected")


def _turns(messages: Sequence[Message], images: Sequence[ImageRef], root: Path) -> tuple[Turn, ...]:
    if all(found.is_plain() for found in messages):
        return turns_by_marks(messages, images)
    first_plain = next((k for k, found in enumerate(messages) if found.is_plain() and found.role == "user"), None)
    holders = sum(_is_holder(block) for found in messages for block in _blocks(found))
    holders += len(images) if first_plain is not None else 0
    if holders != len(images):
        raise InputError(f"the row has {counted(len(images), 'image')} and {counted(holders, 'placeholder')}")
    left = list(images)
    turns = []
    for place, found in enumerate(messages):
        if isinstance(found.content, str):
            mine = tuple(left) if place == first_plain else ()
            turns.append(Turn(found.role, found.content, mine))
            continue
        blocks = [(_kind(block), left.pop(0) if _is_holder(block) else _content(block)) for block in found.content]
        turns.append(Turn(found.role, *interleaved(blocks, root)))
    return tuple(turns)


def _response(found: Message, root: Path) -> Response:
    if isinstance(found.content, str):
        return Response(found.content)
    if any(_is_holder(block) for block in found.content):
        raise InputError(f"an answer has a placeholder ({IMAGE_MARK}) without an image: images belong to the prompt")
    return Response(*interleaved([(_kind(block), _content(block)) for block in found.content], root))


def _blocks(found: Message) -> Sequence[Row]:
    return () if isinstance(found.content, str) else found.content


def _kind(block: Row) -> str:
    return text(block, "type")


def _content(block: Row) -> object:
    return block.get("image" if block.get("type") == "image" else "text")


def _is_holder(block: Row) -> bool:
    return block.get("type") == "image" and block.get("image") is None
