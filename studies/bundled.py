"""Where the model and the questions lie that come with the package. Knows nothing of what is in them."""

from pathlib import Path

_ASSETS = Path(__file__).resolve().parent / "assets"

BUNDLED_MODEL = _ASSETS / "dense"
"""The dense model, with its processor."""
BUNDLED_DATA = _ASSETS / "benchmark"
"""The multi-image benchmark."""
