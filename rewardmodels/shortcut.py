"""Shortcut-aware learning: the shortcut-failure coefficient, the loss that it weighs, and the degradation.

Margins and losses in, numbers out: knows nothing of models, batches or data. ``margin`` is everywhere a reward of the
chosen minus that of the rejected response; the loss of a margin is Bradley and Terry's, ``-log sigmoid(margin)``.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from rewardmodels.degradation import ShortcutFailureDegradation as ShortcutFailureDegradation
from rewardmodels.degradation import shortcut_failure_degradation as shortcut_failure_degradation

_FAR = 20.0
"""Margin from which the loss is ``exp(-margin)`` to double precision, but for a term that is added."""


def shortcut_failure_coefficient(loss: Tensor, loss_text: Tensor) -> Tensor:
    """Weigh each pair by how badly the text alone ranks it: ``loss_text / (loss + loss_text)``, detached.

    1/2 where both models do equally well, near 1 where only the shortcut fails, near 0 where only the shortcut works.
    The paper's code adds an epsilon; losses that are both exactly zero have no ratio and give 1/2 here. Where losses
    come from margins, :func:`coefficient_from_margins` is exact beyond the range of floating-point losses.

    Args:
        loss: (pairs,) losses of the multimodal model, finite and >= 0.
        loss_text: (pairs,) losses of the text-only model on the same pairs.

    Returns:
        (pairs,) coefficients in [0, 1], float32 or wider, without gradient.

    Raises:
        ValueError: if shapes differ, or a loss is negative or not finite.

    >>> shortcut_failure_coefficient(torch.tensor([2.0, 1.0, 0.0]), torch.tensor([2.0, 3.0, 0.0]))
    tensor([0.5000, 0.7500, 0.5000])
    """
    _check_pairs(loss, loss_text, "loss", "loss_text")
    main, text = _wide(loss.detach()), _wide(loss_text.detach())
    for losses, name in ((main, "loss"), (text, "loss_text")):
        if not bool((torch.isfinite(losses) & (losses >= 0)).all()):
            raise ValueError(
                f"{name} must be finite and >= 0 for every pair; find the pairs whose rewards are not finite"
            )
    shrunk = torch.where(torch.maximum(main, text) > 1.0, 0.5, 1.0)
    return torch.where((main == 0) & (text == 0), 0.5, text * shrunk / (main * shrunk + text * shrunk))


def coefficient_from_margins(margin: Tensor, margin_text: Tensor, exponent: float = 1.0) -> Tensor:
    """Return the shortcut-failure coefficient of two margins, from the logarithms of their losses; detached.

    The ratio of losses is ``sigmoid(log loss_text - log loss)``, which holds its digits where the losses themselves
    round to zero: there it is ``sigmoid(margin - margin_text)``. Two infinite margins give 1/2.

    Args:
        margin: (pairs,) margins of the multimodal model.
        margin_text: (pairs,) margins of the text-only model.
        exponent: the coefficient is raised to this power; 1 is the paper's, others are ours.

    Returns:
        (pairs,) coefficients in [0, 1], float32 or wider, without gradient; NaN where a margin is.

    Raises:
        ValueError: if shapes differ, or the exponent is negative.

    >>> coefficient_from_margins(torch.tensor([0.0, 900.0]), torch.tensor([0.0, 901.0]))
    tensor([0.5000, 0.2689])
    """
    _check_pairs(margin, margin_text, "margin", "margin_text")
    check_exponent(exponent)
    main, text = _wide(margin.detach()), _wide(margin_text.detach())
    log_odds = _log_loss(text) - _log_loss(main)
    certain = (main == float("inf")) & (text == float("inf"))
    log_odds = torch.where(certain, torch.zeros_like(log_odds), log_odds)
    return torch.exp(exponent * functional.logsigmoid(log_odds)) if exponent != 1.0 else torch.sigmoid(log_odds)


def shortcut_aware_loss(
    margin: Tensor,
    margin_text: Tensor,
    weight: Tensor | None = None,
    normalize: bool = False,
    *,
    exponent: float = 1.0,
) -> Tensor:
    """Return the mean of ``coefficient * loss + loss_text``, by which both branches learn at once.

    The coefficient carries no gradient, so the text-only branch learns by plain Bradley-Terry, and each pair moves the
    multimodal branch as much as the text fails to rank it. At first both losses are near log 2 and the coefficient
    near 1/2: the paper's method starts at half the step of plain training.

    Args:
        margin: (pairs,) margins of the multimodal model.
        margin_text: (pairs,) margins of the text-only model on the same pairs.
        weight: (pairs,) weights from the data, which multiply both losses of a pair; None is ones.
        normalize: divide the coefficients by their batch mean (weighted by ``weight``), so that the multimodal branch
            learns at the step of plain training. Ours: not in the paper's code.
        exponent: see :func:`coefficient_from_margins`.

    Returns:
        The loss, a scalar.

    Raises:
        ValueError: if shapes differ, there is no pair, or the exponent is negative.

    >>> shortcut_aware_loss(torch.zeros(4), torch.zeros(4))
    tensor(1.0397)
    """
    _check_pairs(margin, margin_text, "margin", "margin_text")
    coefficient = coefficient_from_margins(margin, margin_text, exponent)
    if normalize:
        coefficient = normalise(coefficient, weight)
    return weighted_loss(pair_loss(margin) * coefficient + pair_loss(margin_text), weight)


def pair_loss(margin: Tensor) -> Tensor:
    """Return the Bradley-Terry loss of each margin, float32 or wider.

    >>> pair_loss(torch.tensor([0.0, -200.0]))
    tensor([  0.6931, 200.0000])
    """
    return -functional.logsigmoid(_wide(margin))


def weighted_loss(loss: Tensor, weight: Tensor | None = None) -> Tensor:
    """Return the mean of losses times weights, over the number of pairs and not over the sum of weights.

    Raises:
        ValueError: if shapes differ, or there is no pair.
    """
    if weight is None:
        if loss.ndim != 1 or loss.numel() == 0:
            raise ValueError(f"a loss needs at least one pair and the shape (pairs,), got {tuple(loss.shape)}")
        return loss.mean()
    _check_pairs(loss, weight, "loss", "weight")
    return (loss * weight.to(loss.dtype)).mean()


def normalise(
    coefficient: Tensor, weight: Tensor | None = None, total: Callable[[Tensor], Tensor] = lambda value: value
) -> Tensor:
    """Divide coefficients by their mean, weighted by the data's weights; where all are 0 they stay 0.

    Args:
        coefficient: (pairs,) without gradient.
        weight: (pairs,) weights from the data; None is ones.
        total: adds a tensor up over the processes that share a batch; one process returns it as it is.

    >>> normalise(torch.tensor([0.2, 0.6]))
    tensor([0.5000, 1.5000])
    """
    factors = torch.ones_like(coefficient) if weight is None else weight.to(coefficient.dtype)
    sums = total(torch.stack([(coefficient * factors).sum(), factors.sum()]))
    tiny = torch.finfo(coefficient.dtype).tiny
    return coefficient * (sums[1] / sums[0].clamp_min(tiny)).clamp_max(1 / tiny / 4)


def check_exponent(exponent: float) -> None:
    """Raise ValueError unless an exponent of the coefficient is finite and >= 0."""
    if not 0.0 <= exponent < float("inf"):
        raise ValueError(f"the exponent of the coefficient must be finite and >= 0, got {exponent}")


def _log_loss(margin: Tensor) -> Tensor:
    """``log(-log sigmoid(margin))``, also where the loss itself rounds to zero."""
    near = torch.log(-functional.logsigmoid(margin.clamp(max=_FAR)))
    return torch.where(margin > _FAR, -margin - torch.exp(-margin.clamp(min=_FAR)) / 2, near)


def _wide(values: Tensor) -> Tensor:
    return values if values.dtype == torch.float64 else values.float()


def _check_pairs(first: Tensor, second: Tensor, first_name: str, second_name: str) -> None:
    if first.ndim != 1 or first.shape != second.shape:
        raise ValueError(
            f"{first_name} and {second_name} must both have the shape (pairs,), "
            f"got {tuple(first.shape)} and {tuple(second.shape)}"
        )
    if first.numel() == 0:
        raise ValueError(f"{first_name} and {second_name} hold no pair")
