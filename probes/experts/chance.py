"""How often two experts are called together by chance, given how often each is called.

Chance is the distribution over sets of k experts with the largest entropy among those with the given loads: experts are
called independently of each other, and only sets of k are kept (conditional Bernoulli; Chen, Dempster and Liu,
Biometrika 1994). Where loads are even, every set is alike. Arrays in, numbers out: nothing here knows a model, and no
torch is imported.
"""

import numpy as np
import numpy.typing as npt

from probes.clustering import FloatArray
from probes.errors import InputError

_CLOSE = 1e-8
_NEVER = 1e-7
"""Less than one token in ten million: nothing that is counted, and too near to 0 for odds."""
_MOST_STEPS = 200


def call_probabilities(loads: npt.ArrayLike, k: int) -> FloatArray:
    """Probabilities of independent calls from which sets of k have these loads.

    Args:
        loads: (..., experts) share of tokens that go to each, in [0, 1]; sums to k.
        k: Experts that each token calls.

    Returns:
        (..., experts) in [0, 1].

    Raises:
        InputError: If loads are none of sets of k.

    >>> call_probabilities([0.5, 0.5, 0.5, 0.5], 2)
    array([0.5, 0.5, 0.5, 0.5])
    """
    load = np.asarray(loads, dtype=np.float64)
    if not (np.all((load >= 0) & (load <= 1 + _CLOSE)) and np.allclose(load.sum(axis=-1), k, atol=1e-6)):
        sums = np.unique(load.sum(axis=-1))[:3].tolist()
        raise InputError(f"loads of sets of {k} lie in [0, 1] and sum to {k}: these sum to {sums}")
    goal, free = _settled(load, k)
    calls = goal.copy()
    with np.errstate(divide="ignore", invalid="ignore"):
        odds = wanted = np.where(free, goal / (1 - goal), 0.0)
        for _ in range(_MOST_STEPS):
            found = _load_of(calls, k)
            if np.abs(found - goal).max(initial=0.0) < _CLOSE:
                return calls
            # Half of each log-odds' error at a time: calls exclude each other, so that all of it can be twice too much.
            odds = np.where(free, odds * np.sqrt(wanted * (1 - found) / found), 0.0)
            calls = np.where(free, odds / (1 + odds), goal)
    raise InputError(f"in {_MOST_STEPS} steps no probabilities were found whose sets of {k} have these loads")


def _settled(load: FloatArray, k: int) -> tuple[FloatArray, npt.NDArray[np.bool_]]:
    """Loads of which those next to 0 and 1 are these, and (..., experts) which are neither."""
    always, free = load > 1 - _NEVER, (load > _NEVER) & (load <= 1 - _NEVER)
    left = k - always.sum(axis=-1, keepdims=True)
    among = np.where(free, load, 0.0).sum(axis=-1, keepdims=True)
    return np.where(free, load * np.divide(left, among, out=np.ones_like(among), where=among > 0), always), free


def pair_chances(loads: npt.ArrayLike, k: int) -> FloatArray:
    """Share of tokens that go to both of two experts by chance.

    Args:
        loads: (..., experts), as for `call_probabilities`.
        k: Experts that each token calls, at least 2.

    Returns:
        (..., experts, experts); NaN on the diagonal. A row sums to k - 1 times its expert's load.

    Raises:
        InputError: As `call_probabilities`.

    >>> print(pair_chances([0.5, 0.5, 0.5, 0.5], 2)[0, 1].round(4))
    0.1667
    """
    calls = call_probabilities(loads, k)
    flat = calls.reshape(-1, calls.shape[-1])
    every = np.stack([_pairs_of(each, k) for each in flat])
    return every.reshape(*calls.shape, calls.shape[-1])


def pair_chance(loads: npt.ArrayLike, k: int, pair: tuple[int, int]) -> FloatArray:
    """The same of one pair, (...), for many loads at once.

    Raises:
        InputError: As `call_probabilities`.
    """
    calls = call_probabilities(loads, k)
    others = np.delete(calls, pair, axis=-1)
    both = calls[..., pair[0]] * calls[..., pair[1]]
    return np.asarray(both * _running(others, k)[-1, ..., k - 2] / _running(calls, k)[-1, ..., k])


def _load_of(calls: FloatArray, k: int) -> FloatArray:
    """(..., experts): how often each expert is in a set of k."""
    before, behind = _running(calls, k), _running(calls[..., ::-1], k)[::-1]
    # Sets that hold an expert hold k - 1 of those before and behind it.
    others = np.einsum("e...m,e...m->...e", before[:-1, ..., :k], behind[1:, ..., k - 1 :: -1])
    return np.asarray(calls * others / before[-1, ..., k, None])


def _pairs_of(calls: FloatArray, k: int) -> FloatArray:
    """(experts, experts) of one layer, from (experts,)."""
    experts = len(calls)
    # Row i is without expert i: zero calls leave the count of the others.
    without = np.where(np.eye(experts, dtype=bool), 0.0, calls)
    before, behind = _running(without, k), _running(without[:, ::-1], k)[::-1]
    others = np.einsum("eim,eim->ie", before[:-1, :, : k - 1], behind[1:, :, k - 2 :: -1])
    both = calls[:, None] * calls[None, :] * others / _running(calls, k)[-1, k]
    return np.where(np.eye(experts, dtype=bool), np.nan, both)


def _running(calls: FloatArray, most: int) -> FloatArray:
    """(experts + 1, ..., most + 1): probability that so many of the experts before each place are called."""
    counts = np.zeros((calls.shape[-1] + 1, *calls.shape[:-1], most + 1))
    counts[0, ..., 0] = 1.0
    for place in range(calls.shape[-1]):
        call = calls[..., place, None]
        np.multiply(counts[place], 1 - call, out=counts[place + 1])
        counts[place + 1, ..., 1:] += counts[place, ..., :-1] * call
    return counts
