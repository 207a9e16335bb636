"""Does hidden attention point at the image that a scan was made to read? Planted ones do, random ones by chance."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from probes.attention_columns import ImageColumns
from probes.mixers.dual import DualScan
from probes.mixers.sums import image_sums
from probes.scores import attention_accuracy, focus
from tests.probes.mixers.scans import dual

SPANS = [(2, 10), (12, 20), (22, 38), (40, 48)]
TOKENS = 56


def planted(target: int, seed: int) -> DualScan:
    """A scan whose last rows ask for what the target's tokens, and only these, hold."""
    scan = dual(TOKENS, seed, batch=1)
    keys, queries = 0.3 * scan.keys.clone(), scan.queries.clone()
    start, stop = SPANS[target]
    keys[..., 0] = 0
    keys[:, start:stop, :, 0] = 4.0
    queries[:, -4:, :, 0] = 4.0
    return replace(scan, keys=keys, queries=queries, log_decay=0.02 * scan.log_decay)


def focused(scan: DualScan, form: str) -> int:
    rows = torch.arange(TOKENS - 4, TOKENS)[None]
    sums = image_sums(scan, rows, ImageColumns(SPANS, 1, TOKENS), (form,)).images[form]
    sizes = torch.tensor([stop - start for start, stop in SPANS])
    return focus((sums.mean((1, 2)) / sizes).numpy(), "LND", 1)


@pytest.mark.parametrize("form", ["absolute", "value"])
def test_planted_images_win_wherever_they_stand(form: str) -> None:
    targets = [target for target in range(4) for _ in range(5)]
    found = [focused(planted(target, seed), form) for seed, target in enumerate(targets)]
    assert attention_accuracy(found, targets, [True] * len(targets)).value == 1


@pytest.mark.parametrize("form", ["absolute", "value"])
def test_random_scans_are_at_chance_over_balanced_targets(form: str) -> None:
    found = np.repeat([focused(dual(TOKENS, seed, batch=1), form) for seed in range(10)], 4)
    estimate = attention_accuracy(found, np.tile(np.arange(4), 10), [True] * 40)
    assert estimate.value == 0.25
