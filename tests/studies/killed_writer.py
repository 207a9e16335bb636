"""Writes a run in forked children that are killed at random moments, until one gets through.

Arguments: folder, number of kills, seed. Prints how many batches were done at each kill.
"""

import os
import random
import signal
import sys
import time
from pathlib import Path

import numpy as np

from studies.runs import Manifest, RunFolder

BATCHES = 8
ROWS = 5
PAUSE = 0.01
"""Seconds before each batch: on a fast machine the whole run would otherwise fit between two kills."""


def manifest() -> Manifest:
    return Manifest(config={"rows": ROWS}, batches=BATCHES, seeds={"data": 0}, versions={})


def write(folder: Path) -> None:
    with RunFolder.create(folder, manifest(), resume=True) as run:
        for index in run.missing_batches():
            time.sleep(PAUSE)
            draws = np.random.default_rng(index)
            ids = [f"{index}-{row}" for row in range(ROWS)]
            run.write_batch(
                index,
                {
                    "samples": {
                        "sample_id": ids,
                        "log_probability": draws.normal(size=ROWS),
                        "seconds": [time.time()] * ROWS,
                    },
                    "maps": [
                        {"sample_id": name, "rows": "paper", "layer": 0, "image": 0, "map": draws.random(9)}
                        for name in ids
                    ],
                },
            )
        run.write_metrics([{"name": "n", "estimate": {"value": 1.0}}])
        run.finish()


def main(folder: Path, kills: int, seed: int) -> None:
    moments = random.Random(seed)
    window, before = 0.06, -1
    for _ in range(kills):
        child = os.fork()
        if child == 0:
            write(folder)
            os._exit(0)
        time.sleep(moments.uniform(0.0, window))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        done = len(RunFolder.open(folder).done_batches()) if (folder / "manifest.json").exists() else -1
        window *= 1.3 if done == before else 1.0
        before = done
        print(done, flush=True)
    write(folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
