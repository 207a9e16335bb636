"""A routing run made by hand: choices drawn at random, one expert for images, a hostile name of a checkpoint."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from probes.experts.saved import SavedRouting
from studies.routing.evidence import Earlier, Knockouts, RoutingEvidence
from studies.routing.measures import measures
from studies.routing.shards import MEASURES, shard_bytes
from studies.runs import Manifest, RunFolder
from tests.studies.explorer.run_factory import HOSTILE

LAYERS, EXPERTS, K = (1, 2, 4), 8, 2
QUESTIONS, TOKENS = 36, 10


def make_evidence(seed: int = 0, checkpoints: int = 2) -> RoutingEvidence:
    """Expert 0 of every layer takes all tokens of images; half of each question's tokens are of two images."""
    rng = np.random.default_rng(seed)
    count = QUESTIONS * TOKENS
    samples = np.repeat(np.arange(QUESTIONS), TOKENS)
    images = np.tile(np.repeat([-1, 0, 1], [TOKENS // 2, 2, TOKENS - TOKENS // 2 - 2]), QUESTIONS)
    preference = rng.random((len(LAYERS), count, EXPERTS))
    preference[..., 0] += np.where(images >= 0, 2.0, -2.0)
    names = tuple(f"q{index}" for index in range(QUESTIONS))
    indices = (-preference).argsort(axis=-1)[..., :K]
    saved = SavedRouting(LAYERS, indices, EXPERTS, samples, images, rng.integers(0, 99, count), names)
    noisy = [preference + rng.normal(0, 0.5 * (checkpoints - place), preference.shape) for place in range(checkpoints)]
    earlier = [
        Earlier(f"{HOSTILE}/{place}$", replace(saved, indices=(-each).argsort(axis=-1)[..., :K]))
        for place, each in enumerate(noisy)
    ]
    shape = (len(LAYERS), count)
    return RoutingEvidence(
        saved=saved,
        margins=rng.random(shape, dtype=np.float32),
        margins_without_bias=rng.random(shape, dtype=np.float32),
        moved=rng.random(shape) < 0.3,
        tasks=np.array(["content", HOSTILE])[np.arange(QUESTIONS) % 2],
        clusters=np.array(names),
        checkpoints=tuple(earlier),
        knockouts=Knockouts(
            names[:3], rng.normal(size=(3, len(LAYERS), EXPERTS)), np.array([[0.5, np.nan, 1.0]] * 3) + 0.1
        ),
        failed={},
    )


def make_routing_run(path: Path) -> RunFolder:
    """Write a finished run of that evidence."""
    found = measures(make_evidence(), permutations=19, seed=0)
    config = {"study": "routing", "model": HOSTILE, "data": "a/benchmark", "samples": QUESTIONS}
    run = RunFolder.create(path, Manifest(config=config, batches=1))
    with run:
        run.write_batch(0, {"samples": []})
        run.write_metrics(found.entries)
        run.write_file(MEASURES, shard_bytes(found.arrays))
        run.finish()
    return run
