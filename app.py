"""Starts the explorer; nothing else."""

import sys

from probes.inputs import InputError
from studies.explorer.app import launch

if __name__ == "__main__":
    try:
        launch()
    except InputError as error:
        print(f"sightcheck: {error}", file=sys.stderr)
        sys.exit(2)
