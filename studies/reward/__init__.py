"""The verbs of `sightcheck reward`: train a reward model, score with it, convert one, write its card."""
