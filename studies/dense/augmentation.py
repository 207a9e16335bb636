"""Change pictures on the way into the vision tower, so that it does not learn single drawings by heart.

Pure tensor work: knows nothing of what a picture shows.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

LARGEST_TURN = 0.15
"""Radians."""
LARGEST_SHIFT = 0.12
"""Share of half the width; the same number bounds the change of scale."""
TEXTURE_CELLS = 8


def augment(values: Tensor, generator: torch.Generator) -> Tensor:
    """Turn, shift, scale and recolour pictures, and lay a coarse texture and noise over them, each at random.

    Args:
        values: (n, 3, height, width) in [-1, 1].
        generator: Where the draws come from.

    Returns:
        A tensor of the same shape and range.
    """
    count = len(values)
    moved = functional.grid_sample(
        values,
        functional.affine_grid(_placements(count, generator), list(values.shape), align_corners=False),
        padding_mode="reflection",
        align_corners=False,
    )
    gain = 1 + 0.3 * _signed((count, 3, 1, 1), generator)
    offset = 0.2 * _signed((count, 3, 1, 1), generator)
    noise = 0.06 * torch.randn(values.shape, generator=generator) * torch.rand(count, 1, 1, 1, generator=generator)
    coarse = torch.randn(count, 3, TEXTURE_CELLS, TEXTURE_CELLS, generator=generator)
    texture = functional.interpolate(coarse, size=values.shape[2:], mode="bicubic")
    strength = 0.25 * torch.rand(count, 1, 1, 1, generator=generator)
    return (moved * gain + offset + noise + strength * texture).clamp(-1, 1)


def _placements(count: int, generator: torch.Generator) -> Tensor:
    """(count, 2, 3) affine maps: rotation, scale and shift."""
    turn = LARGEST_TURN * _signed((count,), generator)
    scale = 1 + LARGEST_SHIFT * _signed((count,), generator)
    cosine, sine = torch.cos(turn) * scale, torch.sin(turn) * scale
    shift = LARGEST_SHIFT * _signed((count, 2), generator)
    return torch.stack(
        [torch.stack([cosine, -sine, shift[:, 0]], dim=1), torch.stack([sine, cosine, shift[:, 1]], dim=1)], dim=1
    )


def _signed(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Uniform in [-1, 1]."""
    return 2 * torch.rand(shape, generator=generator) - 1
