"""Instruments that start from attention: (layers, images) scores of one reading. Arrays in, arrays out; no torch.

Every score of an image is a mean over heads, query rows and the image's tokens, like the attention factor that it
stands beside, so that images of unlike size compare.
"""

import numpy as np
import numpy.typing as npt

from probes.inputs import InputError
from probes.instruments.arrays import FloatArray, HeadOutputs, IntArray, Reading

SINK_THRESHOLD = 0.3
"""Mean attention from the rows behind it above which a column is a sink (Gu et al. 2025)."""


def raw_factor(reading: Reading, rows: str) -> FloatArray:
    """The attention factor: mean over heads, rows and image tokens of the attention probability, (layers, images)."""
    chosen = reading.query_rows(rows)
    return np.stack(
        [_image_means(layer.attention[:, chosen].mean(axis=(0, 1)), reading.images) for layer in reading.heads]
    )


def head_factors(reading: Reading, rows: str) -> FloatArray:
    """The attention factor of each head, (layers, heads, images).

    Raises:
        InputError: If layers differ in their number of heads.
    """
    chosen = reading.query_rows(rows)
    if len({len(layer.attention) for layer in reading.heads}) > 1:
        raise InputError("layers differ in their number of heads, so they make no table of heads")
    return np.stack([_image_means(layer.attention[:, chosen].mean(axis=1), reading.images) for layer in reading.heads])


def sink_columns(attention: FloatArray, first_row: int, threshold: float = SINK_THRESHOLD) -> npt.NDArray[np.bool_]:
    """Which columns are attention sinks, in each head: (heads, tokens, tokens) -> bool (heads, tokens).

    Source: the importance score of "When attention sink emerges in language models" (Gu et al. 2025): the mean
    attention that a column gets from its own row and all behind it; a sink gets more than the threshold. That work asks
    it of the first token; asking it of every column before `first_row` is a reconstruction. Columns from `first_row` on
    have too few rows behind them to tell a sink from a word that looks at itself.

    >>> rows = np.array([[[1.0, 0.0, 0.0], [0.9, 0.1, 0.0], [0.8, 0.1, 0.1]]], dtype=np.float32)
    >>> sink_columns(rows, first_row=2).tolist()
    [[True, False, False]]
    """
    if not 0 < threshold < 1:
        raise InputError(f"a sink's threshold is a share of attention between 0 and 1, not {threshold}")
    tokens = attention.shape[-1]
    behind = np.tril(np.ones((tokens, tokens), dtype=bool))
    importance = np.where(behind, attention, 0).sum(axis=1) / np.arange(tokens, 0, -1)
    sinks: npt.NDArray[np.bool_] = importance > threshold
    sinks[:, first_row:] = False
    return sinks


def sinks_removed(reading: Reading, rows: str, threshold: float = SINK_THRESHOLD) -> FloatArray:
    """The attention factor without sinks, (layers, images).

    In every head the columns that `sink_columns` names are left out and each row's other columns are renormalised to
    one; an image's mean is over its tokens that are left, and 0 where none is. Leaving sinks out of the reading follows
    the work on visual attention sinks (Kang et al. 2025), which finds them by massive activations instead: a
    reconstruction.
    """
    chosen = reading.query_rows(rows)
    return np.stack([_without_sinks(layer.attention, chosen, reading.images, threshold) for layer in reading.heads])


def _without_sinks(attention: FloatArray, rows: IntArray, images: tuple[IntArray, ...], threshold: float) -> FloatArray:
    kept = ~sink_columns(attention, int(rows.min()), threshold)
    left = attention[:, rows] * kept[:, None]
    total = left.sum(axis=-1, keepdims=True)
    shares = np.divide(left, total, out=np.zeros_like(left), where=total > 0).mean(axis=1)
    means = [shares[:, image].sum(axis=-1) / np.maximum(kept[:, image].sum(axis=-1), 1) for image in images]
    found: FloatArray = np.stack(means, axis=-1).mean(axis=0)
    return found


def sink_share(reading: Reading, rows: str, threshold: float = SINK_THRESHOLD) -> FloatArray:
    """Share of the images' tokens that `sinks_removed` leaves out, the mean over heads, (layers,)."""
    first, columns = int(reading.query_rows(rows).min()), np.concatenate(reading.images)
    shares = [sink_columns(layer.attention, first, threshold)[:, columns].mean() for layer in reading.heads]
    return np.asarray(shares, dtype=np.float32)


def relative_factor(factors: FloatArray, generic: FloatArray) -> FloatArray:
    """The factor over that of a generic prompt on the same images, (layers, images).

    Source: relative attention (Zhang et al. 2025, "MLLMs know where to look"), there by image patch, here by image: a
    reconstruction. An image that neither question sees has 0.

    >>> relative_factor(np.float32([[0.2, 0.3]]), np.float32([[0.1, 0.3]])).tolist()
    [[2.0, 1.0]]
    """
    if factors.shape != generic.shape:
        raise InputError(f"the generic prompt has factors {generic.shape}, the question {factors.shape}")
    floor = np.finfo(np.float32).tiny
    return np.asarray(factors / np.maximum(generic, floor), dtype=np.float32)


def value_norm(reading: Reading, rows: str) -> FloatArray:
    """Attention weighted by what it moves: the norm of what an image token adds to the row, (layers, images).

    Source: Kobayashi et al. 2020, "Attention is not only a weight": || sum over heads of alpha_h W_h v_h ||, with W_h
    the head's part of the output projection: heads are summed as vectors before the norm. The value bias is in v, the
    projection's bias belongs to no token, and norms behind the projection are left out.
    """
    chosen = reading.query_rows(rows)
    return np.stack([_norms(layer, chosen, reading.images) for layer in reading.heads])


def _norms(layer: HeadOutputs, rows: IntArray, images: tuple[IntArray, ...]) -> FloatArray:
    values = layer.spread_values()
    means = []
    for image in images:
        moved = np.einsum("nhd,hjd->jhn", layer.projection, values[:, image])
        gram = moved @ moved.swapaxes(1, 2)
        weights = layer.attention[:, rows][:, :, image]
        squares = np.einsum("htj,jhg,gtj->tj", weights, gram, weights, optimize=True)
        means.append(np.sqrt(np.maximum(squares, 0)).mean())
    return np.asarray(means, dtype=np.float32)


def rollout(reading: Reading, rows: str) -> FloatArray:
    """Attention rollout up to each layer, (layers, images).

    Source: Abnar and Zuidema 2020: the product, from the first layer to this one, of 0.5 A + 0.5 I, A the mean over
    heads. Only layers with attention count, and rows that do not sum to one (attention with sinks of its own) are
    renormalised, as there.
    """
    chosen = reading.query_rows(rows)
    tokens = reading.residuals.shape[1]
    flow = np.eye(tokens)
    means = []
    for layer in reading.heads:
        mixed = 0.5 * layer.attention.mean(axis=0, dtype=np.float64) + 0.5 * np.eye(tokens)
        flow = (mixed / mixed.sum(axis=-1, keepdims=True)) @ flow
        means.append(_image_means(flow[chosen].mean(axis=0), reading.images))
    return np.asarray(means, dtype=np.float32)


def gradient_attention(reading: Reading, rows: str) -> FloatArray:
    """Attention times the gradient of the answer's log-probability by it, its positive part, (layers, images).

    Source: Chefer et al. 2021, "Generic attention-model explainability": the mean over heads of (gradient x A)+, the
    positive part taken entry by entry before any mean; without that work's propagation through layers.
    """
    chosen = reading.query_rows(rows)
    return np.stack([_positive(layer, chosen, reading.images) for layer in reading.heads])


def attention_gradient(layer: HeadOutputs, rows: IntArray) -> FloatArray:
    """Gradient of the answer's log-probability by attention probabilities, (heads, rows, tokens).

    Head outputs are attention times values, so it is their gradient times the values.
    """
    return np.asarray(layer.gradient[:, rows] @ layer.spread_values().swapaxes(1, 2), dtype=np.float32)


def _positive(layer: HeadOutputs, rows: IntArray, images: tuple[IntArray, ...]) -> FloatArray:
    product = np.maximum(attention_gradient(layer, rows) * layer.attention[:, rows], 0)
    return _image_means(product.mean(axis=(0, 1)), images)


def _image_means(columns: npt.NDArray[np.floating], images: tuple[IntArray, ...]) -> FloatArray:
    """(..., tokens) -> (..., images)."""
    return np.stack([columns[..., image].mean(axis=-1) for image in images], axis=-1).astype(np.float32)
