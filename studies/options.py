"""Checks of command-line options that several studies share, made before anything is loaded. No torch."""

import shlex
import sys
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from probes.inputs import InputError


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
        words.append(f"--{entry.name.replace('_', '-')}")
        if isinstance(value, tuple):
            words += map(str, value)
        elif value is not True:
            words.append(str(value))
    return shlex.join([*words, "--resume"])
