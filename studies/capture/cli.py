"""`sightcheck bench capture`: measures what recording costs. It knows the exit status; the measuring is `bench`."""

from studies.capture.config import CaptureBench

__all__ = ["CaptureBench", "run"]


def run(config: CaptureBench) -> int:
    """Measure and print; returns 0 if every bar holds, 1 if one is missed.

    Raises:
        InputError: If lengths, rows or repeats are empty or not positive.
    """
    from studies.capture.bench import run_capture
    from studies.options import say_interrupted

    try:
        results = run_capture(config)
    except KeyboardInterrupt:
        if config.out is not None and config.out.is_file():
            say_interrupted("bench capture", config)
        raise
    return 0 if results.passes else 1
