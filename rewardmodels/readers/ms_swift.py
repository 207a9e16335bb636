"""ms-swift: messages with the better answer last, and what is rejected beside them. No torch.

Its documentation lets the rejected side have other images in its *prompt*. One record has one prompt, so such rows are
refused by name, and not read as something that they do not say.
"""

from probes.inputs import IMAGE_MARK, ImageRef, InputError
from probes.reading.rows import Row, number
from probes.reading.sources import RawRow
from rewardmodels.readers.conversations import Message, answer, conversation, plain_text, split_common, spoken
from rewardmodels.readers.conversations import turns_by_marks as turns
from rewardmodels.readers.parts import BETTER_AND_WORSE, listed_images, row_id
from rewardmodels.records import Preference, Response

WHY = "rows with messages and one of rejected_response, rejected_images and rejected_messages"
_REJECTED = {"rejected_response", "rejected_images", "rejected_messages"}


def matches(row: Row) -> bool:
    """Return whether a row has the columns of this format."""
    return "messages" in row and bool(_REJECTED & row.keys())


def read(raw: RawRow) -> Preference:
    """Read one row. Marks in the last answer stand for the last of its side's images, which then belong to it.

    Raises:
        InputError: a value is missing or of the wrong type, an image does not exist, marks and images differ in
            number, or the two sides differ before the answer, be it in an image.
    """
    row = raw.values
    prompt, chosen, rejected = _sides(row)
    images = listed_images(row, raw.root, "images")
    others = listed_images(row, raw.root, "rejected_images")
    if row.get("rejected_messages") and images and not others:
        raise InputError("rejected_images is missing: beside rejected_messages they must be given")
    others = others or images
    shown = _in_prompt(chosen, len(images))
    if images[:shown] != others[:shown]:
        raise InputError(
            "the rejected side has other images in its prompt, and one record has one prompt: "
            "give the answer to each image as a row of its own"
        )
    return Preference(
        id=row_id(raw, "id"),
        prompt=turns(prompt, images[:shown]),
        responses=(_with_images(chosen, images[shown:]), _with_images(rejected, others[shown:])),
        ranks=BETTER_AND_WORSE,
        source=raw.source,
        margin=number(row, "margin"),
    )


def _sides(row: Row) -> tuple[list[Message], Message, Message]:
    messages = conversation(row, "messages")
    if row.get("rejected_messages"):
        return _split(messages, conversation(row, "rejected_messages"))
    chosen = answer(messages[-1:], "messages")
    response = row.get("rejected_response")
    if response is None:
        return messages[:-1], chosen, chosen
    if isinstance(response, str):
        return messages[:-1], chosen, Message("assistant", response)
    return messages[:-1], chosen, answer(conversation(row, "rejected_response"), "rejected_response")


def _split(messages: list[Message], others: list[Message]) -> tuple[list[Message], Message, Message]:
    if messages == others:
        return messages[:-1], answer(messages[-1:], "messages"), answer(others[-1:], "rejected_messages")
    return split_common(messages, others)


def _in_prompt(chosen: Message, images: int) -> int:
    """How many of a side's images stand in the prompt: those that the answer has no mark for."""
    return images - min(images, plain_text(chosen).count(IMAGE_MARK))


def _with_images(found: Message, images: tuple[ImageRef, ...]) -> Response:
    return Response(plain_text(found), images) if images else spoken(found)
