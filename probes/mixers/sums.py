"""Hidden attention of chosen rows summed over each image's tokens, while its blocks are made.

Three forms of it:

- "signed": alpha itself (Ali, Zimerman and Wolf 2024), which has either sign and no fixed sum.
- "absolute": `|alpha|` over its sum along the row, so that rows of every head weigh the same: our own.
- "value": `|alpha(i, j)|` times the norm of `x_j * silu(z_i)`, the length of what the token adds to the row's gated
  output: our own.

Memory is rows x a block of tokens, never rows x tokens. Knows nothing of modules or of how a model runs.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from probes.attention_columns import ImageColumns
from probes.inputs import InputError
from probes.mixers.scan import Block, Scan, row_chunk

FORMS = ("signed", "absolute", "value")
"""Names of the forms."""


class RowSums(NamedTuple):
    """Hidden attention of rows, summed over tokens.

    Args:
        images: Per form, fp32 (batch, heads, rows, images): the sum over each image's tokens; 0 where a batch row has
            fewer images.
        totals: fp32 (batch, heads, rows): the sum of `|alpha|` over all tokens.
        last: fp32 (batch, heads, size): the scan's output at the last row, rebuilt from its hidden attention, to hold
            against the layer's own.
    """

    images: dict[str, Tensor]
    totals: Tensor
    last: Tensor


def check_forms(forms: Sequence[str]) -> tuple[str, ...]:
    """Refuse forms that there are none of.

    Raises:
        InputError: If so.
    """
    unknown = [form for form in forms if form not in FORMS]
    if unknown or not forms:
        raise InputError(f"unknown forms {unknown or 'none'} of hidden attention: there are {', '.join(FORMS)}")
    return tuple(forms)


def attention_rows(scan: Scan, rows: Tensor, form: str = "signed") -> Tensor:
    """The whole hidden attention of some rows, fp32 (batch, heads, rows, tokens): for maps and short prompts.

    Args:
        scan: What the layer's scan takes.
        rows: int64 (batch, rows).
        form: One of `FORMS`.

    Raises:
        InputError: If the form is unknown.
    """
    check_forms((form,))
    batch, tokens, heads, _ = scan.values.shape
    found = scan.values.new_zeros((batch, heads, rows.shape[1], tokens), dtype=torch.float32)
    for block, attention in _formed(scan, rows.cpu(), form):
        found[..., block.start : block.stop] = attention
    return found / _positive(found.sum(-1, keepdim=True)) if form == "absolute" else found


def image_sums(scan: Scan, rows: Tensor, columns: ImageColumns, forms: Sequence[str] = FORMS) -> RowSums:
    """Sum the hidden attention of some rows over each image's tokens.

    Args:
        scan: What the layer's scan takes.
        rows: int64 (batch, rows).
        columns: The tokens of each image.
        forms: Of `FORMS`.

    Returns:
        The sums; of "absolute" as shares of the row, and 0 for a row without any attention.
    """
    members = membership(columns, scan.values.shape[1], scan.values.device)
    parts = [
        _part_sums(scan, part, members, forms)
        for part in torch.split(rows.cpu(), row_chunk(scan.values), dim=1)
        if part.numel()
    ]
    images = {form: torch.cat([part.images[form] for part in parts], dim=2) for form in forms}
    return RowSums(images, torch.cat([part.totals for part in parts], dim=2), parts[-1].last)


def cell_sums(
    scan: Scan, rows: Tensor, weights: Tensor, columns: ImageColumns, forms: Sequence[str], totals: Tensor
) -> dict[str, list[Tensor]]:
    """Sum the hidden attention of some rows for each image token apart.

    Args:
        scan: What the layer's scan takes.
        rows: int64 (batch, rows).
        weights: fp32 (batch, row sets, rows): what each row counts in each set.
        columns: The tokens of each image.
        forms: Of `FORMS`.
        totals: As `RowSums.totals`.

    Returns:
        Per form and batch row, fp32 (row sets, image tokens): summed over rows, the mean over heads.
    """
    found: dict[str, list[Tensor]] = {}
    shares = 1 / _positive(totals)
    for start in range(0, rows.shape[1], row_chunk(scan.values)):
        stop = start + row_chunk(scan.values)
        share, weight = shares[:, :, start:stop], weights[:, None, :, start:stop] / scan.heads
        for form in forms:
            scaled = weight * share[:, :, None] if form == "absolute" else weight.expand(-1, scan.heads, -1, -1)
            for block, attention in _formed(scan, rows.cpu()[:, start:stop], form):
                cells = columns.cells((scaled @ attention).sum(1), block.start)
                old = found.get(form)
                found[form] = cells if old is None else [a + b for a, b in zip(old, cells, strict=True)]
    return found


def membership(columns: ImageColumns, tokens: int, device: torch.device) -> Tensor:
    """Which token belongs to which image, fp32 (batch, tokens, images)."""
    members = torch.zeros((len(columns.rows), tokens, columns.images))
    for row, images in enumerate(columns.rows):
        for image, runs in enumerate(images):
            for start, stop in runs:
                members[row, start:stop, image] = 1
    return members.to(device)


def _part_sums(scan: Scan, rows: Tensor, members: Tensor, forms: Sequence[str]) -> RowSums:
    shape = (scan.values.shape[0], scan.heads, rows.shape[1], members.shape[2])
    images = {form: members.new_zeros(shape) for form in forms}
    totals = members.new_zeros(shape[:3])
    gates = scan.gates(rows).square() if "value" in forms else None
    last = scan.skipped(rows[:, -1:])
    for block in scan.blocks(rows):
        inside = members[:, None, block.start : block.stop]
        last = last + block.attention[:, :, -1:] @ scan.values_between(block.start, block.stop)
        if "signed" in forms:
            images["signed"] += block.attention @ inside
        sizes = block.attention.abs_()
        totals += sizes.sum(-1)
        if "absolute" in forms:
            images["absolute"] += sizes @ inside
        if gates is not None:
            images["value"] += sizes.mul_(_norms(scan, gates, block)) @ inside
    if "absolute" in forms:
        images["absolute"] /= _positive(totals)[..., None]
    return RowSums(images, totals, last[:, :, 0])


def _formed(scan: Scan, rows: Tensor, form: str) -> Iterator[tuple[Block, Tensor]]:
    """Blocks and the form of their attention; "absolute" before it is divided by the row's sum."""
    gates = scan.gates(rows).square() if form == "value" else None
    for block in scan.blocks(rows):
        attention = block.attention if form == "signed" else block.attention.abs()
        yield block, attention if gates is None else attention * _norms(scan, gates, block)


def _norms(scan: Scan, squared_gates: Tensor, block: Block) -> Tensor:
    """The norm over a head's size of a token's value times a row's gate, (batch, heads, rows, tokens of the block)."""
    values = scan.values_between(block.start, block.stop)
    return (squared_gates @ values.square().transpose(-1, -2)).sqrt_()


def _positive(totals: Tensor) -> Tensor:
    """Sums to divide by: a row whose attention is all 0 keeps zeros."""
    return torch.where(totals > 0, totals, torch.ones_like(totals))
