"""The parts of the run folder. `studies.runs` is the way in."""
