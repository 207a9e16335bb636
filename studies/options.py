"""Command-line options that several studies share, and checks that are made before anything is loaded. No torch."""

import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

from probes.inputs import InputError

Precision = Literal["auto", "float32", "bfloat16", "float16"]
"""Number format of weights; "auto" takes the checkpoint's."""


@dataclass(frozen=True)
class ModelOptions:
    """The model that a study asks, and how it is loaded; a study that needs one narrows `model` to a name."""

    model: str | None = None
    """Folder or hub id of the model; bundled is the one that comes along."""
    device: str | None = None
    """Where the model runs, such as cuda:0; by default a GPU if there is one."""
    trust_remote_code: bool = False
    """Run Python code that the checkpoint brings along. Only for checkpoints that you trust."""
    allow_pickle: bool = False
    """Load pickled weights, which can run code. Only for checkpoints that you trust."""

    def loading(self) -> dict[str, Any]:
        """What `HookedModel.from_pretrained` takes of these options."""
        return {
            "device": self.device,
            "trust_remote_code": self.trust_remote_code,
            "allow_pickle": self.allow_pickle,
        }


@dataclass(frozen=True)
class QuestionOptions:
    """The questions that a study asks, and how they are read; a study that needs some narrows `data` to a name."""

    data: str | None = None
    """Folder, file or hub id of the questions; bundled is the benchmark that comes along."""
    format: str | None = None
    """Format of the questions, such as blink or vlmevalkit; recognised by its columns if not given."""
    subset: str | None = None
    """Take only this configuration of a data set on the hub; by default all."""
    image_root: Path | None = None
    """Folder that relative image paths start from; by default the folder of the file that names them."""

    def reading(self) -> dict[str, Any]:
        """What `read_questions` takes of these options."""
        return {"format": self.format, "subset": self.subset, "image_root": self.image_root}


def refuse_below(config: Any, least: Mapping[str, int]) -> None:
    """Refuse options that are too small; one that is None is not given.

    Args:
        config: A study's config, one attribute for each option.
        least: The smallest value that each option takes.

    Raises:
        InputError: Naming the option, what it takes and what was given.
    """
    for name, smallest in least.items():
        value = getattr(config, name)
        if value is not None and value < smallest:
            raise InputError(f"--{name.replace('_', '-')} must be at least {smallest}, not {value}")


def refuse_file(out: Path) -> None:
    """Refuse an ``--out`` that is a file.

    Raises:
        InputError: Naming it.
    """
    if out.exists() and not out.is_dir():
        raise InputError(f"--out {out} is a file; give a folder")


def say_interrupted(verb: str, config: Any, kept: str = "") -> None:
    """Tell on stderr how to go on with an interrupted study.

    Args:
        verb: What follows ``sightcheck``.
        config: The study's config.
        kept: What is finished and stays, such as "batches".
    """
    stays = f"finished {kept} are kept. Go" if kept else "go"
    print(f"\nInterrupted; {stays} on with:\n  {resume_command(verb, config)}", file=sys.stderr)


def resume_command(verb: str, config: Any) -> str:
    """The command line that goes on with an interrupted study.

    Args:
        verb: What follows ``sightcheck``.
        config: The study's config, a dataclass with an attribute for each option.
    """
    words = ["sightcheck", *verb.split()]
    for entry in fields(config):
        value = getattr(config, entry.name)
        if entry.name in ("resume", "overwrite") or value == entry.default:
            continue
        words.append(f"--{'no-' if value is False else ''}{entry.name.replace('_', '-')}")
        if isinstance(value, tuple):
            words += map(str, value)
        elif not isinstance(value, bool):
            words.append(str(value))
    return shlex.join([*words, "--resume"])
