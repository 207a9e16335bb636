"""Which key columns belong to which image of which batch row, and sums over them.

Knows columns as numbers only: nothing of pixels, models, or how attention is computed.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from probes.inputs import InputError

Runs = tuple[tuple[int, int], ...]
"""Half-open column ranges of one image."""


def runs_of(entry: Any) -> Runs:
    """The (start, stop) column runs of an entry: a pair, or an object with `.runs`.

    Raises:
        InputError: If the entry is neither, or a run is empty or negative.

    >>> runs_of((3, 7))
    ((3, 7),)
    """
    runs = getattr(entry, "runs", None)
    if runs is None:
        runs = (entry,)
    try:
        pairs = tuple((int(start), int(stop)) for start, stop in runs)
    except (TypeError, ValueError):
        raise InputError(f"{entry!r} is no column range: give (start, stop), or a span with .runs") from None
    if not pairs or any(start < 0 or stop <= start for start, stop in pairs):
        raise InputError(f"{entry!r} is no column range: 0 <= start < stop must hold")
    return pairs


class ImageColumns:
    """The columns of every image, per batch row.

    Args:
        image_spans: One list of spans shared by the batch, or one such list per batch row. A span is (start, stop) or
            an object with `.runs`.
        batch: Sequences in the batch.
        tokens: Length of what the spans must lie in.
        axis: What that is, for the error.

    Raises:
        InputError: If there is no image at all, or spans do not fit the batch.
    """

    def __init__(self, image_spans: Sequence[Any], batch: int, tokens: int, axis: str = "the prompt's") -> None:
        if not image_spans:
            raise InputError("no image spans given: there is nothing to attend to")
        shared = all(_is_span(entry) for entry in image_spans)
        lists = [image_spans] * batch if shared else image_spans
        if len(lists) != batch:
            raise InputError(f"image spans are given for {len(lists)} batch rows, the batch has {batch}")
        self.rows: list[tuple[Runs, ...]] = [tuple(runs_of(entry) for entry in entries) for entries in lists]
        """Per batch row, per image, its runs."""
        self.images = max(len(images) for images in self.rows)
        """Most images of any batch row."""
        if not self.images:
            raise InputError("no image spans given: there is nothing to attend to")
        for index, images in enumerate(self.rows):
            last = max((stop for runs in images for _, stop in runs), default=0)
            if last > tokens:
                raise InputError(f"an image span of batch row {index} ends at {last}, past {axis} {tokens} tokens")
        self._same = all(images == self.rows[0] for images in self.rows)
        self._last = max(stop for images in self.rows for runs in images for _, stop in runs)
        self._known: dict[torch.device, list[tuple[slice, tuple[Tensor, Tensor]]]] = {}

    @property
    def sizes(self) -> Tensor:
        """fp32 (batch, images): tokens of each image; NaN where a row has fewer images."""
        sizes = torch.full((len(self.rows), self.images), torch.nan)
        for index, images in enumerate(self.rows):
            for image, runs in enumerate(images):
                sizes[index, image] = sum(stop - start for start, stop in runs)
        return sizes

    def image_sums(self, masses: Tensor, first: int) -> Tensor:
        """Sum column masses (batch, heads, sets, keys), whose first column is `first`, to (batch, heads, sets, images).

        Columns before `first` (cut from a sliding cache) count as zero.
        """
        sums = masses.new_zeros((*masses.shape[:3], self.images))
        for rows, (columns, images) in self._members(masses.device):
            if first or self._last > masses.shape[3]:
                there = (columns >= first) & (columns < first + masses.shape[3])
                columns, images = columns[there] - first, images[there]
            sums[rows].index_add_(3, images, masses[rows].index_select(3, columns))
        return sums

    def _members(self, device: torch.device) -> list[tuple[slice, tuple[Tensor, Tensor]]]:
        """Per group of batch rows with the same images: int64 columns of its images, and the image of each."""
        if device not in self._known:
            groups = [(slice(None), self.rows[0])] if self._same else _each(self.rows)
            self._known[device] = [(rows, _flat(images, device)) for rows, images in groups]
        return self._known[device]

    def cells(self, masses: Tensor, first: int) -> list[Tensor]:
        """Pick every image column of (batch, sets, keys): per batch row (sets, its image tokens in order)."""
        picked = []
        for index, images in enumerate(self.rows):
            parts = [_columns(masses[index], start - first, stop - first) for runs in images for start, stop in runs]
            picked.append(torch.cat(parts, dim=-1) if parts else masses.new_zeros((masses.shape[1], 0)))
        return picked

    def split(self, cells: Tensor, index: int) -> list[Tensor]:
        """Cut (..., image tokens) of batch row `index` into its images."""
        lengths = [sum(stop - start for start, stop in runs) for runs in self.rows[index]]
        return list(torch.split(cells, lengths, dim=-1)) if lengths else []


def _is_span(entry: Any) -> bool:
    if hasattr(entry, "runs"):
        return True
    return isinstance(entry, (tuple, list)) and len(entry) == 2 and all(_is_index(value) for value in entry)


def _is_index(value: Any) -> bool:
    return hasattr(value, "__index__")


def _each(rows: list[tuple[Runs, ...]]) -> list[tuple[slice, tuple[Runs, ...]]]:
    return [(slice(index, index + 1), images) for index, images in enumerate(rows)]


def _flat(images: tuple[Runs, ...], device: torch.device) -> tuple[Tensor, Tensor]:
    pairs = [(start, stop, image) for image, runs in enumerate(images) for start, stop in runs]
    columns = [torch.arange(start, stop) for start, stop, _ in pairs]
    numbers = [torch.full((stop - start,), image) for start, stop, image in pairs]
    if not pairs:
        columns = numbers = [torch.empty(0, dtype=torch.long)]
    return torch.cat(columns).to(device), torch.cat(numbers).to(device)


def _columns(masses: Tensor, start: int, stop: int) -> Tensor:
    """Some columns of (sets, keys); 0 for those cut from a sliding cache, and for those that have not come yet."""
    missing = min(max(0, -start), stop - start)
    kept = masses[:, max(0, start) : max(0, stop)]
    coming = stop - start - missing - kept.shape[-1]
    return torch.nn.functional.pad(kept, (missing, coming)) if missing or coming else kept
