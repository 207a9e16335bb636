"""Builds the page of the four views and serves it on this machine only.

Knows which views there are and how the page is guarded; what a view does is in its own file.
"""

import atexit
import os
import shutil
import socket
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr
from starlette.middleware import Middleware

from probes.inputs import InputError
from studies.bundled import BUNDLED_DATA, BUNDLED_MODEL
from studies.explorer.examples import read_examples
from studies.explorer.guard import LocalOnly
from studies.explorer.inside_view import make_inside
from studies.explorer.look import make_look
from studies.explorer.pair_examples import PairExamples, read_pair_examples
from studies.explorer.reward_view import make_reward
from studies.explorer.runs_view import make_runs
from studies.explorer.style import CSS, theme

if TYPE_CHECKING:
    from probes.model import HookedModel
    from rewardmodels.model import RewardModel

HOST = "127.0.0.1"
_TITLE = "<h1>Sightcheck</h1><span>Does the model look at the image before it answers?</span>"


def build(
    model: "HookedModel | None" = None,
    runs: str | Path = "runs",
    benchmark: str | Path | None = None,
    why_not: str = "No model is loaded: start the explorer with a model to ask it questions.",
    reward: "RewardModel | None" = None,
) -> gr.Blocks:
    """Build the page.

    Args:
        model: The model behind the Look and Inside views; without one, they say so.
        runs: Folder whose run folders the Runs and Inside views open; nothing above it is read.
        benchmark: Where the examples come from; the bundled benchmark where None.
        why_not: What the Look view says where there is no model.
        reward: The reward model behind the Reward view; without one, that view says how to make one.

    Returns:
        The page, not yet served. The theme and style go to `launch`.
    """
    examples = read_examples(BUNDLED_DATA if benchmark is None else Path(benchmark))
    with gr.Blocks(title="Sightcheck", analytics_enabled=False, delete_cache=(600, 3600)) as blocks:
        gr.HTML(_TITLE, elem_id="title", apply_default_css=False)
        with gr.Tabs():
            with gr.Tab("Look"):
                make_look(model, why_not, examples)
            with gr.Tab("Inside"):
                make_inside(model, why_not, examples, Path(runs), blocks)
            with gr.Tab("Reward"):
                make_reward(reward, PairExamples() if reward is None else read_pair_examples())
            with gr.Tab("Runs"):
                make_runs(Path(runs), blocks)
    return blocks


def launch(
    model: str | Path | None = None,
    runs: str | Path = "runs",
    benchmark: str | Path | None = None,
    port: int | None = None,
    open_browser: bool = False,
    block: bool = True,
    device: str | None = None,
    dtype: str = "auto",
    trust_remote_code: bool = False,
    allow_pickle: bool = False,
    reward: str | Path | None = None,
) -> str:
    """Load the models and serve the page at 127.0.0.1.

    Args:
        model: Folder or hub id; the bundled model where None.
        runs: Folder whose run folders the Runs and Inside views open.
        benchmark: Where the examples come from; the bundled benchmark where None.
        port: Port to serve on; the first free one from 7860 where None.
        open_browser: Open the page in the user's browser.
        block: Serve until interrupted; otherwise return at once and serve from a thread.
        device: Where the model runs; the best there is where None.
        dtype: Number type of the model's weights.
        trust_remote_code: Run Python code that the checkpoint ships.
        allow_pickle: Load pickled weights, which can run code.
        reward: Reward model of the Reward view: a folder or hub id, or the folder of a training run.

    Returns:
        The page's address.

    Raises:
        InputError: If a named model or reward model cannot be loaded, a named benchmark is not there, or the port is
            taken.
    """
    if benchmark is not None and not Path(benchmark).exists():
        raise InputError(f"benchmark {benchmark} does not exist: give a folder or file with questions")
    options = {"dtype": dtype, "device": device, "trust_remote_code": trust_remote_code, "allow_pickle": allow_pickle}
    loaded, why_not = _load(model, options)
    judge = None if reward is None else load_reward(reward, options)
    _private_folder()
    return serve(build(loaded, runs, benchmark, why_not, judge), port, open_browser, block)


def serve(blocks: gr.Blocks, port: int | None = None, open_browser: bool = False, block: bool = True) -> str:
    """Serve a built page at 127.0.0.1, with nothing reachable from it but its own files.

    Args:
        blocks: The page.
        port: Port; the first free one from 7860 where None.
        open_browser: Open the page in the user's browser.
        block: Serve until interrupted.

    Returns:
        The page's address.

    Raises:
        InputError: If the port is taken.
    """
    if port is not None and not _is_free(port):
        raise InputError(f"port {port} cannot be used: something else listens there, or it is none; choose another")
    guards: dict[str, Any] = {"middleware": [Middleware(LocalOnly, bound=HOST)], "docs_url": None, "redoc_url": None}
    _, address, _ = blocks.queue(default_concurrency_limit=4).launch(
        server_name=HOST,
        server_port=port,
        inbrowser=open_browser,
        share=False,
        quiet=True,
        prevent_thread_lock=True,
        footer_links=[],
        allowed_paths=[],
        max_file_size="32mb",
        ssr_mode=False,
        enable_monitoring=False,
        pwa=False,
        mcp_server=False,
        theme=theme(),
        css=CSS,
        app_kwargs={**guards, "openapi_url": None},
    )
    print(f"Sightcheck is at {address} (stop it with Ctrl-C)", flush=True)
    if block:
        blocks.block_thread()
    return str(address)


def _load(model: str | Path | None, options: dict[str, Any]) -> "tuple[HookedModel | None, str]":
    from probes.model import HookedModel

    if model is None and not BUNDLED_MODEL.is_dir():
        return None, "The bundled model is not in this checkout: start the explorer with --model FOLDER."
    return HookedModel.from_pretrained(str(model or BUNDLED_MODEL), **options), ""


def load_reward(reward: str | Path, options: dict[str, Any]) -> "RewardModel":
    """Load the model behind the Reward view.

    Args:
        reward: Folder or hub id of a reward model, or the folder that `sightcheck reward train` wrote.
        options: As of `rewardmodels.loading.load_reward`.

    Raises:
        InputError: If it is no reward model, or cannot be loaded.
    """
    from rewardmodels.model import RewardModel

    # What `sightcheck reward train` wrote holds the model in a folder of its own.
    trained = Path(reward).expanduser() / "model"
    return RewardModel.from_pretrained(trained if (trained / "config.json").is_file() else reward, **options)


def _private_folder() -> None:
    folder = tempfile.mkdtemp(prefix="sightcheck-app-")
    os.environ["GRADIO_TEMP_DIR"] = folder
    atexit.register(shutil.rmtree, folder, ignore_errors=True)


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except (OSError, OverflowError):
            return False
    return True
