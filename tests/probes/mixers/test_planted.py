"""Does hidden attention point at the image that a scan was made to read? Planted ones do, random ones by chance."""

from dataclasses import replace

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


def scattered(scan: DualScan, seed: int) -> DualScan:
    """The same with what the tokens hold dealt out to other ones."""
    order = torch.randperm(TOKENS, generator=torch.Generator().manual_seed(seed))
    return replace(scan, keys=scan.keys[:, order])


@pytest.mark.parametrize("form", ["absolute", "value"])
def test_a_plant_that_is_dealt_out_to_all_tokens_is_found_by_chance(form: str) -> None:
    targets = [seed % 4 for seed in range(120)]
    found = [focused(scattered(planted(target, seed), seed), form) for seed, target in enumerate(targets)]
    estimate = attention_accuracy(found, targets, [True] * len(targets))
    assert estimate.low < 0.25 < estimate.high < 0.5
    assert len(set(found)) == 4
