"""Starts the explorer; nothing else."""

from studies.explorer.app import launch

if __name__ == "__main__":
    launch()
