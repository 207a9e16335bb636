"""Real files that lie beside the project where they are at hand, and are never copied into it."""

from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[3] / "shared" / "data"


def shared_file(name: str) -> Path:
    """The path of a real file; the test skips where it is not there."""
    path = FOLDER / name
    if not path.is_file():
        pytest.skip(f"{path} is not there: it is read where it lies beside the project")
    return path
