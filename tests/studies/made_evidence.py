"""What an audit has measured, made up, for tests of its metrics."""

from typing import Any

import numpy as np

from studies.auditing.evidence import Evidence


def evidence(samples: int = 200, layers: int = 5, seed: int = 0, dev: float = 0.3, **changes: Any) -> Evidence:
    """Synthetic evidence in which layer 2 looks at the target and the others do not."""
    rng = np.random.default_rng(seed)
    target = rng.integers(0, 4, samples)
    factors = rng.random((samples, layers, 4))
    factors[np.arange(samples), 2, target] += 1.0
    fields: dict[str, Any] = {
        "ids": tuple(f"s{index}" for index in range(samples)),
        "cluster": np.array([f"s{index}" for index in range(samples)]),
        "task": np.array(["t"] * samples),
        "split": np.where(rng.random(samples) < dev, "dev", "test"),
        "n_images": np.full(samples, 4),
        "target": target,
        "correct": (rng.random(samples) < 0.8).astype(float),
        "layers": (1, 3, 5, 7, 9),
        "factors": {"paper": factors},
        "regions": {name: np.full((samples, layers), np.nan) for name in ("region_hit", "region_top", "region_chance")},
    }
    return Evidence(**{**fields, **changes})
