"""Choose of finished training runs what is bundled: final weights, and of one run some earlier ones and their routing.

Run as ``python -m studies.decoders.shipping RUNS``. A checkpoint that is not kept whole leaves its routing of the fixed
questions, from which `sightcheck routing --checkpoints` tells how it differs. Model cards are written by hand.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated

import tyro

from probes.inputs import InputError
from studies.bundled import BUNDLED_DECODERS
from studies.decoders.checkpoints import ROUTING_FOLDER, WEIGHTS_FOLDER, checkpoint_name
from studies.decoders.measuring import final_weights
from studies.decoders.run import RECORD_FILE

SEED = 0
"""The run of each decoder that is bundled: the first one, whatever the others came to."""
KEPT_STEPS: dict[str, tuple[int, ...]] = {"dots1": (200, 1000)}
"""Earlier checkpoints that are bundled whole."""
ROUTING_STEPS = (0, 100, 200, 400, 1000, 2000, 3500)
"""Checkpoints of such a run whose routing is bundled: one for each doubling or so, as all would be too much."""


def ship(run: Path, asset: Path, kept: tuple[int, ...] = (), routing: tuple[int, ...] = ROUTING_STEPS) -> list[Path]:
    """Replace one run's part of the assets; a model card that is there stays.

    Args:
        run: The finished training run.
        asset: The folder of the bundled model.
        kept: Steps of earlier checkpoints that are kept whole, below `checkpoints`.
        routing: Steps of those whose routing is kept, if any checkpoint is.

    Returns:
        The files written.

    Raises:
        InputError: If the run is not finished, or did not keep such a checkpoint.
    """
    if not (run / RECORD_FILE).is_file():
        raise InputError(f"{run} holds no {RECORD_FILE}: the run is not finished")
    earlier = [run / WEIGHTS_FOLDER / checkpoint_name(step) for step in kept]
    saved = [run / ROUTING_FOLDER / f"{checkpoint_name(step)}.npz" for step in routing if kept]
    for source in (*earlier, *saved):
        if not source.exists():
            raise InputError(f"{run} kept no {source.relative_to(run)}: {_named(source.parent)} are there")
    for folder in (WEIGHTS_FOLDER, ROUTING_FOLDER):
        shutil.rmtree(asset / folder, ignore_errors=True)
    return [
        *(_copied(path, asset / path.name) for path in sorted(final_weights(run).iterdir())),
        _copied(run / RECORD_FILE, asset / RECORD_FILE),
        *(
            _copied(path, asset / WEIGHTS_FOLDER / source.name / path.name)
            for source in earlier
            for path in sorted(source.iterdir())
        ),
        *(_copied(path, asset / ROUTING_FOLDER / path.name) for path in saved),
    ]


def main(runs: Annotated[Path, tyro.conf.Positional]) -> None:
    """Put the first seed's run of every decoder into the bundled assets.

    Args:
        runs: What `studies.decoders.grid` wrote.
    """
    for name, asset in BUNDLED_DECODERS.items():
        run = runs / f"{name}-{SEED}"
        if not (run / RECORD_FILE).is_file() or not (run / WEIGHTS_FOLDER).is_dir():
            print(f"{name}: no finished run with its weights, left as it is")
            continue
        written = ship(run, asset, KEPT_STEPS.get(name, ()))
        print(f"{name}: {len(written)} files, {sum(path.stat().st_size for path in written) / 1e6:.1f} MB")


def _copied(source: Path, target: Path) -> Path:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
    return target


def _named(folder: Path) -> str:
    return ", ".join(path.name for path in sorted(folder.glob("step-*"))) or "none"


if __name__ == "__main__":
    tyro.cli(main)
