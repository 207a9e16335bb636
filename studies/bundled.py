"""Where the models and the questions lie that come with the package. Knows nothing of what is in them."""

from pathlib import Path

from probes.errors import InputError

_ASSETS = Path(__file__).resolve().parent / "assets"

BUNDLED_MODEL = _ASSETS / "dense"
"""The dense model, with its processor."""
BUNDLED_DECODERS = {name: _ASSETS / name for name in ("dots1", "nemotron-h", "nemotron-h-latent")}
"""The same with other decoders under the dense model's tower: a mixture of experts, and hybrids of Mamba-2,
attention and experts, whose experts are latent in one."""
BUNDLED_DATA = _ASSETS / "benchmark"
"""The multi-image benchmark."""
BUNDLED_BACKBONES = _ASSETS / "shortcuts"
"""The backbones of the shortcut study that were taught, a folder each."""

BUNDLED = "bundled"
"""The name under which a configuration means one of these, wherever the package lies; a folder of that name is
``./bundled``."""


def model_source(name: str) -> str:
    """Folder or hub id of a model: a bundled model's folder for ``bundled`` and, as in ``bundled-dots1``, for those of
    `BUNDLED_DECODERS`.

    Raises:
        InputError: If no bundled model is called so, and no folder is, or it has been left out of the installation.

    >>> Path(model_source("bundled")).name, model_source("me/model")
    ('dense', 'me/model')
    """
    if name == BUNDLED:
        return str(BUNDLED_MODEL)
    prefix, _, decoder = name.partition("-")
    if prefix != BUNDLED or Path(name).is_dir():
        return name
    if decoder not in BUNDLED_DECODERS:
        names = ", ".join((BUNDLED, *(f"{BUNDLED}-{each}" for each in BUNDLED_DECODERS)))
        raise InputError(f"no bundled model is called {name}: there are {names}")
    folder = BUNDLED_DECODERS[decoder]
    if not folder.is_dir():
        raise InputError(f"{name} is not in this installation ({folder} is not there): give --model a folder or hub id")
    return str(folder)


def data_source(name: str) -> str:
    """Folder, file or hub id of questions; the bundled benchmark's folder for ``bundled``."""
    return str(BUNDLED_DATA) if name == BUNDLED else name
