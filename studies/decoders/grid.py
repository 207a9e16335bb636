"""Train every decoder with several seeds, one run after the other; a stopped grid goes on where it was.

Run as ``python -m studies.decoders.grid --emoji FOLDER --out FOLDER``. Pictures are drawn once for all runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from studies.benchmark.sources import FASHION_FOLDER
from studies.decoders.models import DecoderName
from studies.decoders.run import RECORD_FILE, DecoderTrainingConfig
from studies.decoders.training import EMOJI_FOLDER, finish, load_material
from studies.dense.state import STATE_FILE

ALL_DECODERS: tuple[DecoderName, ...] = get_args(DecoderName)


@dataclass(frozen=True)
class Cell:
    """One run of the grid and its folder."""

    config: DecoderTrainingConfig
    folder: Path

    @property
    def done(self) -> bool:
        """Whether its record is written, which is last."""
        return (self.folder / RECORD_FILE).is_file()

    @property
    def begun(self) -> bool:
        """Whether there is a state to go on from."""
        return (self.folder / STATE_FILE).is_file()


def cells(out: Path, decoders: Sequence[DecoderName], seeds: Sequence[int], steps: int) -> list[Cell]:
    """The runs in order: every decoder with the first seed, then with the next."""
    return [
        Cell(DecoderTrainingConfig(decoder, seed, steps), out / f"{decoder}-{seed}")
        for seed in seeds
        for decoder in decoders
    ]


def main(
    out: Path,
    decoders: tuple[DecoderName, ...] = ALL_DECODERS,
    seeds: tuple[int, ...] = (0, 1, 2),
    steps: int = 3500,
    emoji: Path = EMOJI_FOLDER,
    fashion: Path = FASHION_FOLDER,
) -> None:
    """Train what is not trained yet; call it again to go on.

    Args:
        out: Folder with a folder for each run.
        decoders: Whose architectures.
        seeds: Of first weights and questions.
        steps: Optimiser steps of each run.
        emoji: Unpacked npm package ``@iconify-json/fluent-emoji-flat``.
        fashion: Folder with Fashion-MNIST's four ``.gz`` files.
    """
    every = cells(out, decoders, seeds, steps)
    left = [cell for cell in every if not cell.done]
    print(f"{len(every) - len(left)} of {len(every)} runs are done", flush=True)
    if not left:
        return
    material = load_material(left[0].config, emoji, fashion)
    for number, cell in enumerate(left, start=len(every) - len(left) + 1):
        print(f"run {number} of {len(every)}: {cell.folder.name}", flush=True)
        finish(cell.config, material, cell.folder, resume=cell.begun)


if __name__ == "__main__":
    import tyro

    tyro.cli(main)
