"""The two-cue frontier: the best that any weight on image and cue can do, elsewhere for a given accuracy at home.

Gaussian evidence from the image, of which the image-only ceiling is the accuracy, and a cue right on a share of the
pairs at home and on half elsewhere. A model that adds up both weighs the cue by some ratio; each ratio gives one pair
of accuracies. METHODS calls the curve the limit that a method is judged by. Arrays in, arrays out.
"""

import numpy as np
import numpy.typing as npt
from scipy import special

FloatArray = npt.NDArray[np.float64]


def two_cue_accuracies(ceiling: float, strength: float, ratio: npt.ArrayLike) -> tuple[FloatArray, FloatArray]:
    """Accuracy at home and elsewhere of a model that weighs the cue by `ratio` against one unit of evidence.

    Args:
        ceiling: Image-only accuracy, in (0.5, 1).
        strength: Share of pairs at home in which the cue is right.
        ratio: Any shape; 0 ignores the cue, large values follow it alone.

    Returns:
        At home (i.i.d.), and where the cue is right on half (o.o.d.); of the shape of `ratio`.

    Raises:
        ValueError: If the ceiling or the strength is out of range.

    >>> home, away = two_cue_accuracies(0.94, 0.98, [0.0, 100.0])
    >>> home.round(3).tolist(), away.round(3).tolist()
    ([0.94, 0.98], [0.94, 0.5])
    """
    if not 0.5 < ceiling < 1 or not 0.5 <= strength <= 1:
        raise ValueError(f"ceiling {ceiling} must lie in (0.5, 1) and strength {strength} in [0.5, 1]")
    weights = np.asarray(ratio, dtype=np.float64)
    shift = special.ndtri(ceiling)
    with_cue, against = special.ndtr(shift + weights), special.ndtr(shift - weights)
    return strength * with_cue + (1 - strength) * against, (with_cue + against) / 2


def frontier(ceiling: float, strength: float) -> tuple[FloatArray, FloatArray]:
    """The frontier as points: accuracies at home, rising, and elsewhere, falling.

    From the ratio 0 to the one that is best at home, up to which both change in one direction each.

    Args:
        ceiling: See `two_cue_accuracies`.
        strength: See there.
    """
    home, away = two_cue_accuracies(ceiling, strength, np.linspace(0, 12, 6001))
    best = int(np.argmax(home))
    return home[: best + 1], away[: best + 1]


def below_frontier(ceiling: float, strength: float, iid: npt.ArrayLike, ood: npt.ArrayLike) -> FloatArray:
    """How far accuracies elsewhere lie below the frontier at the same accuracy at home.

    Args:
        ceiling: See `two_cue_accuracies`.
        strength: See there.
        iid: Accuracies at home.
        ood: Accuracies elsewhere, of the same shape.

    Returns:
        Frontier minus `ood`; negative above it, as noise allows. An accuracy at home below the ceiling is held against
        the frontier's best accuracy elsewhere, the ceiling; one above its largest, against that of the optimal ratio.
    """
    home, away = np.broadcast_arrays(np.asarray(iid, dtype=np.float64), np.asarray(ood, dtype=np.float64))
    distance: FloatArray = np.interp(home, *frontier(ceiling, strength)) - away
    return distance
