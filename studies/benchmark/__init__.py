"""Build the bundled benchmark from openly licensed images."""
