"""POVID: LLaVA conversations and their hallucinated twins. Its images, COCO's, come apart from it. No torch."""

from probes.reading.rows import Row, text
from probes.reading.sources import RawRow
from rewardmodels.readers.conversations import conversation, split_common, spoken, turns_by_marks
from rewardmodels.readers.parts import BETTER_AND_WORSE, needed_images, row_id
from rewardmodels.records import Preference

WHY = "rows with conversations and rejected_conversations"


def matches(row: Row) -> bool:
    """Return whether a row has the columns of this format."""
    return {"conversations", "rejected_conversations"} <= row.keys()


def read(raw: RawRow) -> Preference:
    """Read one row; rows about one image share their base.

    Raises:
        InputError: a value is missing or of the wrong type, the image does not exist, or the conversations differ in
            more than the last answer.
    """
    row = raw.values
    twins = conversation(row, "conversations"), conversation(row, "rejected_conversations")
    prompt, chosen, rejected = split_common(*twins)
    image = row.get("image")
    return Preference(
        id=row_id(raw, "id"),
        prompt=turns_by_marks(prompt, needed_images(row, raw.root, "image")),
        responses=(spoken(chosen), spoken(rejected)),
        ranks=BETTER_AND_WORSE,
        source="POVID",
        base=text(row, "image") if isinstance(image, str) and image.strip() else None,
    )
