"""Hidden attention by definition: each kind's recurrence, step by step in fp64, of values that tell tokens apart.

With one unit value for each token, what the state gives at row i in place j is alpha(i, j). Knows nothing of blocks,
chosen rows or running sums of decays.
"""

import torch
from torch import Tensor

from probes.mixers.delta import DeltaScan
from probes.mixers.dual import DualScan
from probes.mixers.scan import Scan
from probes.mixers.selective import SelectiveScan


def by_recurrence(scan: Scan) -> Tensor:
    """Fp64 (batch, heads, tokens, tokens): all rows."""
    if isinstance(scan, DualScan):
        return _dual(scan)
    if isinstance(scan, SelectiveScan):
        return _selective(scan)
    assert isinstance(scan, DeltaScan)
    return _delta(scan)


def _dual(scan: DualScan) -> Tensor:
    batch, tokens, heads, _ = scan.values.shape
    shared = heads // scan.keys.shape[2]
    state = torch.zeros(batch, heads, scan.keys.shape[3], tokens, dtype=torch.float64)
    rows = []
    for t in range(tokens):
        key = scan.keys[:, t].double().repeat_interleave(shared, dim=1)
        query = scan.queries[:, t].double().repeat_interleave(shared, dim=1)
        state = state * scan.log_decay[:, t].double().exp()[..., None, None]
        state[..., t] += key * scan.step[:, t].double()[..., None]
        rows.append(torch.einsum("bhn,bhnj->bhj", query, state))
    return torch.stack(rows, dim=2)


def _selective(scan: SelectiveScan) -> Tensor:
    batch, tokens, channels, _ = scan.values.shape
    state = torch.zeros(batch, channels, scan.keys.shape[2], tokens, dtype=torch.float64)
    rows = []
    for t in range(tokens):
        step = scan.step[:, t].double()[..., None]
        state = state * (step * scan.rates.double()).exp()[..., None]
        state[..., t] += scan.keys[:, t].double()[:, None] * step
        rows.append(torch.einsum("bn,bcnj->bcj", scan.queries[:, t].double(), state))
    return torch.stack(rows, dim=2)


def _delta(scan: DeltaScan) -> Tensor:
    batch, tokens, heads, _ = scan.values.shape
    state = torch.zeros(batch, heads, scan.keys.shape[3], tokens, dtype=torch.float64)
    rows = []
    for t in range(tokens):
        key, strength = scan.keys[:, t].double(), scan.strength[:, t].double()[..., None]
        state = state * scan.log_decay[:, t].double().exp()[..., None, None]
        held = torch.einsum("bhn,bhnj->bhj", key, state)
        own = torch.zeros(tokens, dtype=torch.float64)
        own[t] = 1
        state = state + key[..., None] * ((own - held) * strength)[:, :, None]
        rows.append(torch.einsum("bhn,bhnj->bhj", scan.queries[:, t].double(), state))
    return torch.stack(rows, dim=2)
