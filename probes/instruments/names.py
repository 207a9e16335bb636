"""Names of the instruments, and of what they are called where people read them. Knows nothing else."""

RAW = "factor"
SINKS = "sinks removed"
RELATIVE = "relative"
VALUE_NORM = "value norm"
ROLLOUT = "rollout"
GRADIENT = "gradient"
LENS = "logit lens"
PROBE = "linear probe"
HEADS = "localisation heads"

BY_ROWS = (RAW, SINKS, RELATIVE, VALUE_NORM, ROLLOUT, GRADIENT)
"""Instruments that read query rows and one sample at a time."""
TRAINED = (PROBE, HEADS)
"""Instruments that learn from dev samples which image is wanted."""

ROWS = ("paper", "predicting")
"""Row sets that instruments read."""
IMAGE_ROWS = "images"
"""In place of a row set: the logit lens reads the images' own tokens."""

GENERIC = "Describe the images."
"""The question that says nothing of any one image."""

SHOWN = {
    RAW: "raw factor",
    SINKS: "sinks removed",
    RELATIVE: "relative to a generic prompt",
    VALUE_NORM: "value-norm-weighted",
    ROLLOUT: "attention rollout",
    GRADIENT: "gradient x attention",
    LENS: "logit lens at the images",
    PROBE: "linear probe (trained)",
    HEADS: "localisation heads (chosen)",
}
"""What figures and tables call them."""
