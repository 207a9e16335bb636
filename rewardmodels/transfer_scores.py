"""The transfer matrix of models trained on one source each, from their scores on every source. Imports no torch."""

from collections.abc import Mapping, Sequence

import numpy as np

from probes.inputs import InputError
from rewardmodels.evaluation import pair_credits
from rewardmodels.pair_scores import pair_columns, pair_sides, placed_pairs
from rewardmodels.preferences import Preferences
from rewardmodels.scores import Scores
from rewardmodels.transfer import TransferMatrix, transfer_matrix


def transfer_of_scores(
    scores: Mapping[tuple[str, str], Sequence[Scores]], tests: Mapping[str, Preferences], *, level: float = 0.95
) -> TransferMatrix:
    """Estimate pair accuracy for every source that was trained on and every one that was tested on.

    Args:
        scores: By (trained on, tested on), the scores of one model a training seed, with the seeds in one order
            throughout.
        tests: By source, what was scored; its order is the matrix's.
        level: Confidence level in (0, 1).

    Raises:
        InputError: A cell is missing or has another number of seeds, or a pair of it has no score on either side: a
            cell over fewer pairs than its neighbours does not compare with them.
    """
    names = list(tests)
    wanted = [(train, test) for train in names for test in names]
    missing = [cell for cell in wanted if not scores.get(cell)]
    if missing or set(scores) - set(wanted):
        strange = sorted(set(scores) - set(wanted))
        raise InputError(
            f"a transfer matrix over {', '.join(names)} needs each cell: missing {missing}, more {strange}"
        )
    seeds = {len(scores[cell]) for cell in wanted}
    if len(seeds) != 1:
        raise InputError(f"cells have {sorted(seeds)} seeds: give each the same ones")
    values = np.array(
        [
            [
                [_accuracy(scores[train, test][seed], tests[test], f"{train} on {test}") for test in names]
                for train in names
            ]
            for seed in range(seeds.pop())
        ]
    )
    return transfer_matrix(values, names, level=level)


def _accuracy(scores: Scores, preferences: Preferences, cell: str) -> float:
    pairs = placed_pairs(preferences)
    sides = pair_sides(pairs, scores)
    bare = [each.pair.id for each in pairs if each.pair.id not in sides]
    if bare or not pairs:
        first = f" (the first: {bare[0]})" if bare else ""
        raise InputError(
            f"{cell}: {len(bare)} of {len(pairs)} pairs have no score on both sides{first}: score them, or "
            "leave their records out of every cell"
        )
    table = pair_columns(pairs, sides)
    return float(pair_credits(table.chosen, table.rejected).mean())
