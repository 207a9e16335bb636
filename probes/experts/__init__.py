"""Inside mixtures of experts: which experts tokens go to, how evenly, what for, and what is lost without them.

`probes.routing` records a model's routing; the measures here are arithmetic on what it recorded: `load`, `margins`,
`specialisation`, `stability`. `knockout` takes experts out of a running model, and `latent` opens experts that work at
a smaller width. Importing this package loads nothing.
"""
