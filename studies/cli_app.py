"""`sightcheck app`: starts the explorer. It knows options and no views. Importing it loads no gradio."""

from dataclasses import dataclass
from pathlib import Path

from studies.options import ModelOptions, Precision


@dataclass(frozen=True)
class AppConfig(ModelOptions):
    """Open the explorer in the browser: ask a model about images, look inside it, question a reward model,
    and browse run folders.

    The page is served on this machine only.
    """

    model: str | None = None
    """Folder or hub id of the model to ask; the bundled model if not given."""
    reward: str | None = None
    """Reward model of the Reward view: what `sightcheck reward train` wrote, or another folder or hub id."""
    runs: Path = Path("runs")
    """Folder that holds run folders; nothing above it is read."""
    benchmark: Path | None = None
    """Where the examples come from; the bundled benchmark if not given."""
    port: int | None = None
    """Port; the first free one from 7860 if not given."""
    open_browser: bool = False
    """Open the page in the browser."""
    dtype: Precision = "auto"
    """Number format of the weights; auto takes the checkpoint's."""


def run(config: AppConfig) -> int:
    """Serve the explorer until Ctrl-C; returns 0.

    Raises:
        InputError: If gradio is not installed, or model, reward model or benchmark cannot be used.
    """
    from importlib.util import find_spec

    from probes.inputs import InputError

    if find_spec("gradio") is None:
        raise InputError("the explorer needs gradio: pip install 'sightcheck[explorer]'")
    from studies.bundled import data_source, model_source
    from studies.explorer.app import launch

    launch(
        model=None if config.model is None else model_source(config.model),
        reward=config.reward,
        runs=config.runs,
        benchmark=None if config.benchmark is None else data_source(str(config.benchmark)),
        port=config.port,
        open_browser=config.open_browser,
        dtype=config.dtype,
        **config.loading(),
    )
    return 0
