"""Two cues, one seen in the image and one read from the text: where each objective comes to rest.

The image gives Gaussian evidence, the text a cue that is right on a share p of pairs at home and on half elsewhere. All
is computed on a grid of evidence, without samples; the changes from plain to shortcut-aware training were found
before by another calculation.
"""

from functools import cache
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from rewardmodels.objectives import PairBatch, make_objective


class Rest(NamedTuple):
    """Where training came to rest."""

    image: float
    cue: float
    iid: float
    ood: float


@cache
def trained(ceiling: float, p: float, name: str, steps: int = 300, **options: Any) -> Rest:
    """Train two weights of the main model and one of the proxy until they rest; accuracies in closed form."""
    shift = float(stats.norm.ppf(ceiling))
    nodes, weights = np.polynomial.hermite_e.hermegauss(40)
    evidence = torch.tensor(np.tile(nodes + shift, 2))
    cue = torch.tensor(np.repeat([1.0, -1.0], 40))
    chance = np.repeat([p, 1 - p], 40) * np.tile(weights / weights.sum(), 2)
    weight = torch.tensor(80 * chance)
    image, text, proxy = (torch.zeros((), dtype=torch.float64, requires_grad=True) for _ in range(3))
    objective = make_objective(name, **options)
    optimizer = torch.optim.Adam([image, text, proxy], lr=0.15, betas=(0.8, 0.9))
    for _ in range(steps):
        margin: Tensor = image * evidence + text * cue
        optimizer.zero_grad()
        torch.autograd.backward(objective(PairBatch(margin, proxy * cue, weight)).loss)
        optimizer.step()
    ratio = text.item() / image.item()
    with_cue, against = (float(stats.norm.cdf(shift + side * ratio)) for side in (1, -1))
    return Rest(image.item(), text.item(), p * with_cue + (1 - p) * against, (with_cue + against) / 2)


def logit(p: float) -> float:
    return float(np.log(p / (1 - p)))


def test_plain_training_rests_at_the_log_odds_of_both_cues() -> None:
    found = trained(0.94, 0.95, "bradley-terry")
    assert found.cue == pytest.approx(logit(0.95), rel=0.01)
    assert found.image == pytest.approx(2 * stats.norm.ppf(0.94), rel=0.01)


@pytest.mark.parametrize(
    ("ceiling", "p", "ood", "iid"),
    [(0.94, 0.95, 7.3, -1.9), (0.94, 0.98, 12.4, -2.4), (0.90, 0.95, 11.7, -3.3), (0.90, 0.98, 18.5, -4.0)],
)
def test_shortcut_aware_training_gives_up_most_of_the_cue(ceiling: float, p: float, ood: float, iid: float) -> None:
    plain, aware = trained(ceiling, p, "bradley-terry"), trained(ceiling, p, "shortcut-aware")
    assert 0.2 <= aware.cue / plain.cue * plain.image / aware.image <= 0.3
    assert 100 * (aware.ood - plain.ood) == pytest.approx(ood, abs=0.5)
    assert 100 * (aware.iid - plain.iid) == pytest.approx(iid, abs=0.5)
    assert aware.ood < ceiling


def test_a_smaller_exponent_gives_up_less_at_both_ends() -> None:
    plain, aware = trained(0.94, 0.98, "bradley-terry"), trained(0.94, 0.98, "shortcut-aware")
    between = trained(0.94, 0.98, "shortcut-aware", exponent=0.7, normalize=True)
    assert plain.ood < between.ood < aware.ood
    assert plain.iid > between.iid > aware.iid


def test_a_product_of_experts_leaves_the_cue_to_the_proxy() -> None:
    """The image and the cue are independent given the label, so their log odds add: nothing is left for the cue."""
    found = trained(0.94, 0.95, "product-of-experts")
    assert found.cue == pytest.approx(0.0, abs=0.02) and found.ood == pytest.approx(0.94, abs=0.002)


def test_a_cue_that_tells_nothing_is_no_shortcut() -> None:
    plain, aware = trained(0.94, 0.5, "bradley-terry"), trained(0.94, 0.5, "shortcut-aware")
    assert abs(plain.cue) < 0.02 and abs(aware.cue) < 0.02 and aware.ood == pytest.approx(plain.ood, abs=1e-4)
