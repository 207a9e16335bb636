"""`sightcheck routing`: which experts a model sends its questions to, what for, and what an answer loses without one.

It knows options and the order of the work; each part is in its own file. Importing it loads no torch.
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from probes.errors import counted
from probes.inputs import InputError
from studies.bundled import BUNDLED
from studies.options import ModelOptions, Precision, QuestionOptions, refuse_below, say_interrupted
from studies.overwrite import check_out, remove_run

STUDY = "routing"
"""How manifests name runs of this study."""
LAST = "model"
"""What results call the model itself among the checkpoints."""


@dataclass(frozen=True)
class RoutingConfig(QuestionOptions, ModelOptions):
    """Record which experts a mixture-of-experts model sends every token to, exactly as its routers chose.

    Each question is followed by its right answer, so that all checkpoints read the same tokens. Writes a run folder
    with load, margins, specialisation, co-activation, knock-out effects and stability by layer (metrics.json,
    measures.npz), figures and a self-contained report.html.
    """

    model: str = "bundled-dots1"
    """Folder or hub id of the model, whose processor must lie beside it; bundled-dots1, bundled-nemotron-h and
    bundled-nemotron-h-latent come along."""
    data: str = BUNDLED
    """Folder, file or hub id of the questions; bundled is the benchmark that comes along."""
    out: Path = Path("runs/routing")
    """The run folder to write; it must be new, unless --resume is given."""
    checkpoints: tuple[str, ...] = ()
    """Earlier checkpoints of the same training run, in order: folders or hub ids of models, or .npz files of saved
    routing (`probes.experts.files`). Each is held against MODEL, on the same tokens."""
    split: str | None = None
    """Take only this split."""
    samples: int = 300
    """Questions, drawn evenly over tasks."""
    knockout: int = 0
    """Questions, of those drawn, in which each expert in turn is left out: one forward for every expert called."""
    knockout_tokens: Literal["all", "images", "text"] = "all"
    """Tokens that go without the expert then."""
    permutations: int = 999
    """Shuffles of the labels behind each p-value of specialisation."""
    batch_size: int = 16
    """Most questions that run together."""
    resume: bool = False
    """Go on with a run that was interrupted."""
    overwrite: bool = False
    """Replace the run that --out holds, once model and data have proved usable."""
    seed: int = 0
    """Seed of every draw and shuffle."""
    dtype: Precision = "auto"
    """Number format of the weights; auto takes the checkpoint's."""


def run(config: RoutingConfig) -> int:
    """Record, measure and draw; prints a short table.

    Returns:
        0 if every question went well, 1 if some failed or could not be read, 130 if interrupted.

    Raises:
        InputError: If an option is out of range, the model has no experts, checkpoints do not belong together, or data
            cannot be used; nothing has been written then.
    """
    from studies.routing.concluding import conclude
    from studies.routing.measuring import measure
    from studies.routing.preparing import open_folder, prepare

    check(config)
    prepared = prepare(config)
    if config.overwrite:
        remove_run(config.out, STUDY)
    with open_folder(prepared) as folder:
        try:
            measure(prepared, folder)
            failed = conclude(prepared, folder)
        except KeyboardInterrupt:
            say_interrupted(STUDY, config, "batches")
            return 130
    print(f"Report: {config.out / 'report.html'}")
    if failed:
        first, reason = next(iter(failed.items()))
        print(f"{counted(len(failed), 'question')} failed; the first, {first}: {reason}", file=sys.stderr)
    if prepared.unusable:
        print(f"{counted(prepared.unusable, 'question')} unusable, and not among those drawn from", file=sys.stderr)
    return 1 if failed or prepared.unusable else 0


def check(config: RoutingConfig) -> None:
    """Refuse impossible options before anything is loaded.

    Raises:
        InputError: Naming the option and what it takes.
    """
    refuse_below(config, {"samples": 1, "knockout": 0, "permutations": 1, "batch_size": 1, "seed": 0})
    for name in config.checkpoints:
        if name.endswith(".npz") and not Path(name).is_file():
            raise InputError(f"--checkpoints {name}: no such file")
        if name == LAST:
            raise InputError(f"--checkpoints {name}: results call --model so; write the folder as ./{name}")
    if len(set(config.checkpoints)) < len(config.checkpoints):
        raise InputError("--checkpoints names one twice: give each once, in the order of training")
    check_out(config.out, STUDY, resume=config.resume, overwrite=config.overwrite)
