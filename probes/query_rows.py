"""The sets of query rows that a trace reads, by where they lie in an encoded batch; knows nothing of attention."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

import torch

from probes.errors import InputError

if TYPE_CHECKING:
    from probes.encoding import Encoded

ROW_SETS = ("paper", "predicting", "answer", "anchor", "after")
"""Names of the query-row sets; see `row_sets`."""


def row_sets(encoded: "Encoded", names: Iterable[str]) -> dict[str, torch.Tensor]:
    """Query rows of an encoded batch, as bool masks (batch, tokens).

    "paper": text behind the last image or video, without the chat template's tail, and all answer tokens (Implicit
    visual misunderstanding paper's released code, its fixed five tokens replaced by the tail as detected).
    "answer": the answer's tokens.
    "predicting": the rows whose next token is an answer token: the last prompt row and all answer rows but the last;
    with an empty answer, the last prompt row, which then predicts the end.
    "anchor": the tokens of the last image or video.
    "after": all behind the last image or video: text, the template's tail and the answer.

    Raises:
        InputError: If a name is unknown, or "anchor" meets a question with a single image.
    """
    masks: dict[str, torch.Tensor] = {}
    for name in names:
        if name not in ROW_SETS:
            raise InputError(f"unknown rows {name!r}: there are {', '.join(ROW_SETS)}")
        mask = torch.zeros_like(encoded.inputs["input_ids"], dtype=torch.bool)
        for row in range(len(encoded)):
            mask[row, _rows(encoded, name, row)] = True
        masks[name] = mask
    return masks


def _rows(encoded: "Encoded", name: str, row: int) -> list[int]:
    stop, length = encoded.prompt_stop, encoded.answer_lengths[row]
    if name == "answer":
        return list(range(stop, stop + length))
    if name == "predicting":
        return list(range(stop - 1, stop - 1 + max(length, 1)))
    last = max(encoded.spans[row], key=lambda span: span.start)
    if name == "anchor":
        encoded.need_image_tokens("rows='anchor'")
        if len(encoded.spans[row]) < 2:
            raise InputError(
                f"{place(row, len(encoded))}rows 'anchor' compare the last image with others, and there is only one "
                "image: give two or more, or other rows"
            )
        return [int(token) for token in last.tokens]
    if name == "after":
        return list(range(last.stop, stop + length))
    return [*range(last.stop, stop - encoded.tail_lengths[row]), *range(stop, stop + length)]


def place(row: int, count: int) -> str:
    """How a message of a batch begins: with the question at fault, if there are several.

    >>> place(1, 3)
    'question 1: '
    """
    return f"question {row}: " if count > 1 else ""
