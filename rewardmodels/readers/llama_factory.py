"""LLaMA-Factory's ShareGPT with ranking, as in ``llamafactory/RLHF-V`` and ``Zhihui/VLFeedback``. No torch."""

from probes.reading.rows import Row, text
from probes.reading.sources import RawRow
from rewardmodels.readers.conversations import (
    Message,
    answer,
    conversation,
    is_message,
    message,
    spoken,
    turns_by_marks,
)
from rewardmodels.readers.parts import BETTER_AND_WORSE, listed_images, row_id
from rewardmodels.records import Preference

WHY = "rows with conversations, and one message each as chosen and rejected"


def matches(row: Row) -> bool:
    """Return whether a row has the columns of this format."""
    return "conversations" in row and is_message(row.get("chosen")) and is_message(row.get("rejected"))


def read(raw: RawRow) -> Preference:
    """Read one row. A ``system`` column goes first, and images stand where marks are, or first.

    Raises:
        InputError: a value is missing or of the wrong type, an image does not exist, or marks and images differ in
            number.
    """
    row = raw.values
    system = text(row, "system", "")
    prompt = [Message("system", system)] if system.strip() else []
    chosen, rejected = ([message(row.get(key), key)] for key in ("chosen", "rejected"))
    return Preference(
        id=row_id(raw, "id"),
        prompt=turns_by_marks(
            [*prompt, *conversation(row, "conversations")], listed_images(row, raw.root, "images", "image")
        ),
        responses=(spoken(answer(chosen, "chosen")), spoken(answer(rejected, "rejected"))),
        ranks=BETTER_AND_WORSE,
        source=raw.source,
    )
