"""`sightcheck bench capture`: measures what recording costs. It knows the exit status; the measuring is `bench`."""

from studies.capture.config import CaptureBench

__all__ = ["CaptureBench", "run"]


def run(config: CaptureBench) -> int:
    """Measure and print; returns 0 if every bar holds, 1 if one is missed.

    Raises:
        InputError: If lengths, rows or repeats are empty or not positive.
    """
    from studies.bench_results import telling_how_to_go_on
    from studies.capture.bench import run_capture

    with telling_how_to_go_on("bench capture", config):
        results = run_capture(config)
    return 0 if results.passes else 1
