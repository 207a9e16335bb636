"""How much of a token comes over an image's edge by the mixer's convolution, before any scan.

A mixer convolves each token with the k - 1 tokens before it. So the first tokens of an image hold something of the text
before it, and the first tokens behind it something of the image, whatever their hidden attention says. Plain tensors
in and out.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from probes.attention_columns import ImageColumns

ALL = "all"
"""In place of a part: all channels of the convolution."""


class BoundaryLeak(NamedTuple):
    """Shares of what the convolution gives that come over the edges of images, in one layer.

    A share is the norm, over channels, of what a token's convolved and activated channels lose when nothing comes over
    the edge, over the norm of the channels. It can be above 1, where the two parts cancel.

    Args:
        entering: By part of the channels ("x", "B" and "C", or "q", "k" and "v", or `ALL`), fp32 (batch, images, k) on
            the CPU: the image's first tokens, from what stands before it. The last is 0: nothing reaches so far.
        leaving: The same of the first tokens behind the image; NaN behind the sequence's end.
    """

    entering: dict[str, Tensor]
    leaving: dict[str, Tensor]


def boundary_leak(
    mixed: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    activation: Callable[[Tensor], Tensor],
    parts: Mapping[str, int],
    columns: ImageColumns,
) -> BoundaryLeak:
    """Measure what comes over the edges of images.

    Args:
        mixed: (batch, tokens, channels): what goes into the convolution.
        weight: (channels, 1, k).
        bias: (channels,).
        activation: What follows the convolution.
        parts: How many channels each part has, in order.
        columns: The tokens of each image; an image of several runs goes from its first token to its last.
    """
    shape = (len(columns.rows), columns.images)
    starts, stops = torch.full(shape, -1), torch.full(shape, -1)
    for row, images in enumerate(columns.rows):
        for image, runs in enumerate(images):
            starts[row, image], stops[row, image] = min(run[0] for run in runs), max(run[1] for run in runs)
    measured = [_shares(mixed, weight, bias, activation, parts, edges) for edges in (starts, stops)]
    return BoundaryLeak(*measured)


def _shares(
    mixed: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    activation: Callable[[Tensor], Tensor],
    parts: Mapping[str, int],
    edges: Tensor,
) -> dict[str, Tensor]:
    """Per part (batch, images, k), for the k tokens from each edge on; NaN where there is no image or no token."""
    taps, tokens = weight.shape[-1], mixed.shape[1]
    kernel = weight[:, 0].float().T
    shift = 0.0 if bias is None else bias.float()
    batch = torch.arange(len(mixed), device=mixed.device)[:, None, None]
    found: dict[str, list[Tensor]] = {name: [] for name in (*parts, ALL)}
    for offset in range(taps):
        places = edges[..., None] + offset + torch.arange(1 - taps, 1)
        window = mixed[batch, places.clamp(min=0, max=tokens - 1).to(mixed.device)].float() * kernel
        window = window * (places >= 0)[..., None].to(mixed.device)
        own = activation(window[:, :, taps - 1 - offset :].sum(2) + shift)
        whole = activation(window.sum(2) + shift)
        there = (edges >= 0) & (edges + offset < tokens)
        for name, share in _by_part(whole - own, whole, parts).items():
            found[name].append(torch.where(there, share.cpu(), torch.nan))
    return {name: torch.stack(shares, dim=-1) for name, shares in found.items()}


def _by_part(lost: Tensor, whole: Tensor, parts: Mapping[str, int]) -> dict[str, Tensor]:
    sizes = [*parts.values()]
    pieces = zip(torch.split(lost, sizes, dim=-1), torch.split(whole, sizes, dim=-1), strict=True)
    shares = {name: _share(*pair) for name, pair in zip(parts, pieces, strict=True)}
    return {**shares, ALL: _share(lost, whole)}


def _share(lost: Tensor, whole: Tensor) -> Tensor:
    size = whole.norm(dim=-1)
    shares: Tensor = lost.norm(dim=-1) / torch.where(size > 0, size, torch.ones_like(size))
    return shares
