"""`sightcheck bench inside`: what looking inside decoders costs. It knows the exit status; the measuring is `bench`."""

from studies.inside_bench.config import InsideBench

__all__ = ["InsideBench", "run"]


def run(config: InsideBench) -> int:
    """Measure and print; returns 0 if all is equal and no bar is missed, 1 if not or a cell failed.

    A bar that is undecided is not missed.

    Raises:
        InputError: As `run_inside`.
    """
    from studies.bench_results import telling_how_to_go_on
    from studies.inside_bench.bench import run_inside

    with telling_how_to_go_on("bench inside", config):
        results = run_inside(config)
    return 0 if results.passes else 1
