"""Layers that mix tokens without softmax, read as attention: Mamba-2, Mamba and gated delta nets.

Each such layer's output is a sum over earlier tokens' values, and the weights of this sum are its hidden attention.
`scan` and its kinds `dual`, `selective` and `delta` are arithmetic on plain tensors; `sums` adds rows up over images;
`readers` takes a layer's own tensors, `hooks` listens to them while the model runs, and `recorder` records from there.
`probes.state_space` is what callers use. Importing this package loads nothing.
"""
