"""What stands beside the ranks, layer by layer: how well the target can be decoded, the answer through the logit lens,
and how many image tokens are sinks. It knows arrays and entries, no models. No torch.
"""

from collections.abc import Iterator

import numpy as np

from probes.estimates import mean, proportion
from probes.focusing import focus_shares
from probes.instruments.linear_probes import LinearProbe
from probes.instruments.names import LENS, PROBE, SINKS
from probes.scores import chance_level
from studies.auditing.choices import DEV
from studies.auditing.entries import Entry, entry_of
from studies.instruments.evidence import Evidence, FloatArray, IntArray
from studies.instruments.ranking import PROBE_ROWS, TEST

DECODABLE, SHUFFLED = "target_decodable", "target_decodable_shuffled"
LENS_MEAN, LENS_FIRST, SINK_MEAN = "answer_log_probability", "answer_ranked_first", "sink_share"
SHUFFLES = 5
"""Probes of the control, each trained on another shuffling of the targets."""


def beside(evidence: Evidence, seed: int = 0) -> list[Entry]:
    """Entries over all test samples, those to which no image matters included.

    Args:
        evidence: All samples.
        seed: Of the shuffled control of the probes.

    Raises:
        InputError: If the dev targets are all at one place.
    """
    return [*_decodable(evidence, seed), *_lens(evidence)]


def _decodable(evidence: Evidence, seed: int) -> Iterator[Entry]:
    """P(probe = target) by layer over all test samples with a target, and of probes trained on shuffled targets."""
    aimed = evidence.where(evidence.target >= 0)
    dev, test = aimed.where(aimed.split == DEV), aimed.where(aimed.split != DEV)
    generator = np.random.default_rng(seed)
    shuffled = [generator.permutation(dev.target) for _ in range(SHUFFLES)]
    for name, targets in ((DECODABLE, [dev.target]), (SHUFFLED, shuffled)):
        found = np.mean([_probe_hits(dev, test, target) for target in targets], axis=0)
        for place, layer in enumerate(test.depths):
            estimate = proportion(found[:, place].clip(0, 1), test.cluster)
            where = {"instrument": PROBE, "rows": PROBE_ROWS, "split": TEST, "layer": layer}
            yield entry_of(name, estimate, where, chance=chance_level(test.n_images), trained_on=len(dev))


def _probe_hits(dev: Evidence, test: Evidence, target: IntArray) -> FloatArray:
    """(samples, layers): how much of the probe's choice is on the target, ties shared."""
    scores = LinearProbe(dev.features, target).scores(test.features, test.n_images)
    shares = [focus_shares(scores[:, [place]], "LND", 1) for place in range(scores.shape[1])]
    return np.stack([each[np.arange(len(test)), test.target] for each in shares], axis=1)


def _lens(evidence: Evidence) -> Iterator[Entry]:
    """The answer through the logit lens, and the share of image tokens that are sinks, by layer, over test samples."""
    test = evidence.where(evidence.split != DEV)
    where = {"instrument": LENS, "rows": PROBE_ROWS, "split": TEST}
    for place, layer in enumerate(test.depths):
        own = {**where, "layer": layer}
        yield entry_of(LENS_MEAN, mean(test.answer_log_probability[:, place], test.cluster), own)
        yield entry_of(LENS_FIRST, proportion(test.answer_rank[:, place] == 1, test.cluster), own)
    for place, layer in enumerate(test.layers):
        own = {**where, "instrument": SINKS, "layer": layer}
        yield entry_of(SINK_MEAN, mean(test.sinks[:, place], test.cluster, bounds=(0.0, 1.0)), own)
