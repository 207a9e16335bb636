"""Real reward-benchmark files: known values, computed when they were released."""

from collections import Counter

import numpy as np
import pytest

from rewardmodels import read_preferences
from rewardmodels.readers.rm_bench import read_style_scores
from tests.rewardmodels.shared_files import shared_file


def test_mm_rlhf_rewardbench_and_its_length_shortcut() -> None:
    path = shared_file("mm_rlhf_reward_bench.jsonl")
    read = read_preferences(path, allow_missing_images=True)
    pairs = read.pairs()
    assert (read.format, len(read), len(pairs), read.bad, read.ties) == ("mm-rlhf-rewardbench", 170, 170, (), 0)
    longer = [np.sign(len(pair.chosen.text) - len(pair.rejected.text)) for pair in pairs]
    assert Counter(longer) == {1: 122, -1: 46, 0: 2}
    assert Counter(pair.group for pair in pairs) == {"mcq": 42, "long": 37, "short": 34, "safety": 32, "video": 25}
    assert Counter(Counter(pair.cluster for pair in pairs).values()) == {2: 11, 3: 13, 4: 6, 5: 11, 6: 5}


def test_its_images_are_not_there_and_every_row_says_so() -> None:
    read = read_preferences(shared_file("mm_rlhf_reward_bench.jsonl"))
    assert len(read) == 0
    assert len(read.bad) == 170 and all("does not exist" in bad.error for bad in read.bad)


def test_scores_of_rm_bench_by_style() -> None:
    scores = read_style_scores(shared_file("ixc_rm_bench_scores.json"))
    assert scores.chosen.shape == scores.rejected.shape == (1327, 3)
    assert scores.chosen.mean(axis=0) == pytest.approx([2.589, 4.016, 6.753], abs=5e-4)
    assert scores.rejected.mean(axis=0) == pytest.approx([0.496, 1.306, 3.623], abs=5e-4)
