"""Instruments beside the attention factor: other ways to say which image an answer was read from, on one sample.

`reading` runs the model once and keeps what the instruments need; `sample` gives every instrument's (layers, images)
scores from it. The instruments themselves are arithmetic on arrays: `attention_scores` (factor, sinks removed, relative
to a generic prompt, value-norm-weighted, rollout, gradient x attention), `lens`, `linear_probes` and `heads`. Beside
them, `contribution_reading` reads layers without softmax and those with it in one unit, `contributions`. Which of the
instruments is right is not known here. Importing this package loads nothing.
"""
