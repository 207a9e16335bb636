"""Linear probes: can the target image be read off the residual stream of the row that predicts the answer?

Trained on one set of samples and scored on another. Works at layers of any kind, with attention or without. Knows
arrays only, and imports no torch. A probe finds what is there, not what the model uses (Hewitt and Liang 2019): the
control is a probe trained on shuffled targets.
"""

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from probes.clustering import as_targets, as_vector
from probes.inputs import InputError

FloatArray = npt.NDArray[np.float64]
PENALTY = 0.1
"""Inverse strength of the ridge penalty, on standardised features."""
FOLDS = 5


class LinearProbe:
    """Multinomial logistic regression (Alain and Bengio 2017), one for each layer, from features to the target's place.

    Args:
        features: (samples, layers, hidden) of the training samples.
        target: (samples,) 0-based target image.
        penalty: Inverse strength of the ridge penalty.

    Raises:
        InputError: If shapes do not match, or all targets are at one place.
    """

    def __init__(self, features: npt.ArrayLike, target: npt.ArrayLike, penalty: float = PENALTY) -> None:
        table = _features(features)
        wanted = as_targets(target, np.full(len(table), np.iinfo(np.int64).max, dtype=np.int64))
        if len(np.unique(wanted)) < 2:
            raise InputError("a probe needs targets at two places or more to tell them apart")
        self._models = [_fitted(table[:, layer], wanted, penalty) for layer in range(table.shape[1])]

    def scores(self, features: npt.ArrayLike, images: npt.ArrayLike) -> FloatArray:
        """How probable each image is the target by each layer's probe, (samples, layers, most images).

        Args:
            features: (samples, layers, hidden).
            images: (samples,) images of each sample; places behind them are NaN, and a place that no training sample
                had its target at has probability 0.
        """
        table, counts = _features(features), as_vector(images, "images").astype(np.int64)
        if table.shape[1] != len(self._models):
            raise InputError(f"the probes are of {len(self._models)} layers, the features of {table.shape[1]}")
        widest = int(counts.max(initial=1))
        found = np.zeros((len(table), len(self._models), widest))
        for layer, model in enumerate(self._models):
            probability = model.predict_proba(table[:, layer])
            for column, place in enumerate(model.classes_):
                if place < widest:
                    found[:, layer, place] = probability[:, column]
        return np.where(np.arange(widest) < counts[:, None, None], found, np.nan)


def held_out_scores(
    features: npt.ArrayLike,
    target: npt.ArrayLike,
    images: npt.ArrayLike,
    clusters: Sequence[str] | npt.NDArray[np.str_],
    penalty: float = PENALTY,
) -> FloatArray:
    """Scores of the training samples themselves, each by probes that did not see its cluster: to choose a layer by.

    Args:
        features: (samples, layers, hidden).
        target: (samples,) 0-based target image.
        images: (samples,) images of each sample.
        clusters: (samples,) base sample of each sample; one is never split over folds.
        penalty: Inverse strength of the ridge penalty.

    Raises:
        InputError: If there are fewer than two clusters.
    """
    from sklearn.model_selection import GroupKFold

    table, counts = _features(features), as_vector(images, "images").astype(np.int64)
    wanted = np.asarray(target)
    folds = min(FOLDS, len(np.unique(np.asarray(clusters))))
    if folds < 2:
        raise InputError("held-out probes need two base samples or more")
    found = np.full((*table.shape[:2], int(counts.max(initial=1))), np.nan)
    for train, held in GroupKFold(folds).split(table, wanted, np.asarray(clusters)):
        scores = LinearProbe(table[train], wanted[train], penalty).scores(table[held], counts[held])
        found[held, :, : scores.shape[2]] = scores
    return found


def _features(features: npt.ArrayLike) -> FloatArray:
    table = np.asarray(features, dtype=np.float64)
    if table.ndim != 3 or not np.isfinite(table).all():
        raise InputError(f"features must be finite (samples, layers, hidden), got the shape {table.shape}")
    return table


def _fitted(features: FloatArray, target: npt.NDArray[np.int64], penalty: float) -> Any:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(StandardScaler(), LogisticRegression(C=penalty, max_iter=5000))
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        try:
            return model.fit(features, target)
        except ConvergenceWarning:
            raise InputError(f"a probe did not converge at a penalty of {penalty}: give a smaller one") from None
