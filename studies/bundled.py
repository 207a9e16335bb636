"""Where the model and the questions lie that come with the package. Knows nothing of what is in them."""

from pathlib import Path

_ASSETS = Path(__file__).resolve().parent / "assets"

BUNDLED_MODEL = _ASSETS / "dense"
"""The dense model, with its processor."""
BUNDLED_DATA = _ASSETS / "benchmark"
"""The multi-image benchmark."""
BUNDLED_BACKBONES = _ASSETS / "shortcuts"
"""The backbones of the shortcut study that were taught, a folder each."""

BUNDLED_DECODERS = {name: _ASSETS / name for name in ("dots1", "nemotron-h", "nemotron-h-latent")}
"""The hybrid and mixture-of-experts models, by name: final weights and processor, and beside them what was kept along
training."""

BUNDLED = "bundled"
"""The name under which a configuration means one of these, wherever the package lies; a folder of that name is
``./bundled``."""


def model_source(name: str) -> str:
    """Folder or hub id of a model; a bundled model's folder for ``bundled``, ``bundled-dots1`` and so on."""
    bundled = {BUNDLED: BUNDLED_MODEL, **{f"{BUNDLED}-{key}": folder for key, folder in BUNDLED_DECODERS.items()}}
    return str(bundled.get(name, name))


def data_source(name: str) -> str:
    """Folder, file or hub id of questions; the bundled benchmark's folder for ``bundled``."""
    return str(BUNDLED_DATA) if name == BUNDLED else name
