"""The parts of the comparison of two audits: reading them, pairing them, and showing what differs."""
