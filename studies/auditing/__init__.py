"""The parts of an audit. `studies.audit` is the way in."""
