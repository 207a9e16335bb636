"""The real reward-benchmark files, which lie beside the project and not in it."""

import os
from pathlib import Path

import pytest

FOLDER = Path(os.environ.get("SIGHTCHECK_SHARED_DATA") or Path(__file__).parents[3] / "shared" / "data")


def shared_file(name: str) -> Path:
    """The file of that name; the test skips where the folder is absent."""
    if not (FOLDER / name).is_file():
        pytest.skip(f"{name} is not in {FOLDER}; set SIGHTCHECK_SHARED_DATA to the folder that holds it")
    return FOLDER / name
