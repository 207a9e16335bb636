"""`sightcheck bench reward`: measures what training costs. It knows the exit status; the measuring is `bench`."""

from studies.reward_bench.config import RewardBench

__all__ = ["RewardBench", "run"]


def run(config: RewardBench) -> int:
    """Measure and print; returns 0 if no bar is missed, 1 if one is or a cell failed; an undecided one is not missed.

    Raises:
        InputError: As `run_reward`.
    """
    from studies.bench_results import telling_how_to_go_on
    from studies.reward_bench.bench import run_reward

    with telling_how_to_go_on("bench reward", config):
        results = run_reward(config)
    return 0 if results.passes else 1
