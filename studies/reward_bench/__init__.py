"""`sightcheck bench reward`: what training a reward model costs, beside TRL's trainer and with a text-only proxy."""
