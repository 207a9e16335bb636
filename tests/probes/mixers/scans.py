"""Random scans of every kind, as plain tensors."""

from collections.abc import Callable

import torch

from probes.mixers.delta import DeltaScan
from probes.mixers.dual import DualScan
from probes.mixers.scan import Scan
from probes.mixers.selective import SelectiveScan

BATCH, HEADS, GROUPS, SIZE, STATE = 2, 6, 3, 4, 5


def dual(tokens: int, seed: int = 0, batch: int = BATCH) -> DualScan:
    draw = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(batch, tokens, *shape, generator=draw)

    step = normal(HEADS).exp() * 0.4
    return DualScan(
        values=normal(HEADS, SIZE),
        gate=normal(HEADS, SIZE),
        skip=torch.randn(HEADS, generator=draw),
        queries=normal(GROUPS, STATE),
        keys=normal(GROUPS, STATE),
        step=step,
        log_decay=-step * torch.rand(HEADS, generator=draw),
    )


def selective(tokens: int, seed: int = 0, batch: int = BATCH) -> SelectiveScan:
    draw = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(batch, tokens, *shape, generator=draw)

    return SelectiveScan(
        values=normal(HEADS, 1),
        gate=normal(HEADS, 1),
        skip=torch.randn(HEADS, generator=draw),
        queries=normal(STATE),
        keys=normal(STATE),
        step=normal(HEADS).exp() * 0.4,
        rates=-torch.rand(HEADS, STATE, generator=draw),
    )


def delta(tokens: int, seed: int = 0, batch: int = BATCH) -> DeltaScan:
    draw = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(batch, tokens, *shape, generator=draw)

    unit = torch.nn.functional.normalize
    return DeltaScan(
        values=normal(HEADS, SIZE),
        gate=normal(HEADS, SIZE),
        queries=unit(normal(HEADS, STATE), dim=-1),
        keys=unit(normal(HEADS, STATE), dim=-1),
        strength=normal(HEADS).sigmoid(),
        log_decay=-normal(HEADS).exp() * 0.2,
    )


MAKERS: dict[str, Callable[..., Scan]] = {"mamba2": dual, "mamba": selective, "delta": delta}
"""By kind: a scan of so many tokens."""
