"""Writes what the documentation shows of the reward bench, from the committed results.

Run it after a bench: `python -m studies.reward_bench.page`. It measures nothing.
"""

from pathlib import Path

from probes.files import write_bytes
from studies.bench_page import with_blocks
from studies.reward_bench.results import RewardResults, read_results
from studies.reward_bench.tables import markdown

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "docs" / "bench" / "reward.json"
PAGE = ROOT / "docs" / "reward-models.md"


def filled(text: str, results: RewardResults) -> str:
    """A page with the generated block made anew.

    Raises:
        InputError: If the page lacks it.
    """
    return with_blocks(text, {"reward table": markdown(results)})


def main() -> None:
    """Fill the page."""
    write_bytes(PAGE, filled(PAGE.read_text(encoding="utf-8"), read_results(RESULTS)).encode())


if __name__ == "__main__":
    main()
