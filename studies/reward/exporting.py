"""A reward model written into a folder that is whole or absent."""

from collections.abc import Callable
from pathlib import Path
from shutil import rmtree

from probes.files import TEMPORARY
from rewardmodels.model import RewardModel
from rewardmodels.training import export


def export_whole(target: Path, reward: RewardModel, beside: Callable[[Path], object] | None = None) -> None:
    """Write a model under another name, and rename it when all is there; what lay at its place goes.

    Args:
        target: The folder.
        reward: What is written, adapters merged.
        beside: Writes further files into the folder that it is given.
    """
    aside = target.with_name(f"{TEMPORARY}{target.name}")
    if aside.exists():
        rmtree(aside)
    export(reward, aside)
    if beside is not None:
        beside(aside)
    if target.exists():
        rmtree(target)
    aside.rename(target)
