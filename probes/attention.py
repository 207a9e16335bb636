"""Attention from chosen rows to images, recorded while the model runs as it always does.

The model keeps its own attention (sdpa, flash, flex, eager); beside it the chosen rows' softmax is made again in fp32,
in chunks of rows, and summed over each image's columns at once. Nothing of size tokens x tokens is allocated here
(transformers itself makes such a mask for padded batches and sliding windows). Knows nothing of processors, families
or questions: token columns in, numbers out.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from probes.attention_calls import UnsupportedAttention
from probes.attention_columns import ImageColumns, Runs
from probes.decoder import attention_modules
from probes.forwards import run_once
from probes.inputs import InputError
from probes.recorder import AttentionRecorder

__all__ = [
    "AttentionRecorder",
    "UnsupportedAttention",
    "attention_factors",
    "attention_layers",
    "pairwise_factors",
]


def attention_layers(model: nn.Module) -> list[int]:
    """True indices of the text decoder's attention layers: the order of the factors' layer axis.

    Raises:
        UnsupportedAttention: If a layer holds several attentions that are not known.
    """
    return list(attention_modules(model))


def attention_factors(
    model: nn.Module,
    inputs: Mapping[str, Any],
    query_rows: Sequence[int] | npt.ArrayLike | Tensor,
    image_spans: Sequence[Any],
    per_head: bool = False,
    cross_spans: Sequence[Any] | None = None,
) -> Tensor:
    """Attention factors of chosen rows, from one forward of the model.

    `F[l, i]`, the mean over heads, rows and the tokens of image i of the attention in layer l (Implicit visual
    misunderstanding paper's released code).

    Args:
        model: A transformers model, or its decoder. It runs without gradients and without a cache, and is left as
            found.
        inputs: What `model(**inputs)` takes, a batch.
        query_rows: Token indices shared by the batch (negative ones count from the end), or bool (batch, tokens), as a
            tensor, an array or lists; of an encoder-decoder, of `decoder_input_ids`. Rows that the attention mask marks
            as padding are not counted.
        image_spans: See `AttentionRecorder`.
        per_head: Keep heads apart.
        cross_spans: See `AttentionRecorder`.

    Returns:
        fp32 on the CPU, (batch, layers, images) or (batch, layers, heads, images), layers as `attention_layers`; NaN
        where a batch row has fewer images.

    Raises:
        InputError: If rows or spans do not fit, or a batch row is left without a row.
        UnsupportedAttention: If a layer's attention cannot be read.
    """
    config: Any = getattr(model, "config", None)
    real = real_tokens(inputs, "decoder_" if getattr(config, "is_encoder_decoder", False) else "")
    rows = row_mask(query_rows, real)
    bare = (~rows.any(1)).nonzero().flatten().tolist()
    if bare:
        raise InputError(f"batch rows {bare} have no query row outside their padding: choose rows of their own tokens")
    recorder = AttentionRecorder(model, image_spans, {"rows": rows}, per_head=per_head, cross_spans=cross_spans)
    with recorder:
        run_once(model, inputs)
    return recorder.factors("rows")


class _TextColumns(NamedTuple):
    runs: Runs


def pairwise_factors(model: nn.Module, inputs: Mapping[str, Any], image_spans: Sequence[Any]) -> Tensor:
    """How much each image, and the text behind the images, attends to each image and to the text.

    Entry [l, j, k] is the mean over heads, over the rows of image j and over the columns of image k. Index n stands
    for text: as rows the text tokens after the last image, as columns all text tokens (whatever lies in no image span
    and is no padding: separators and template too). Under a causal mask an image sees nothing of a later one: 0.

    Args:
        model: A transformers model, or its decoder.
        inputs: What `model(**inputs)` takes, a batch.
        image_spans: See `AttentionRecorder`.

    Returns:
        fp32 on the CPU, (batch, layers, n + 1, n + 1) with n the most images of any batch row; NaN in the rows and
        columns of images that a batch row lacks, and in the text's where there is none.

    Raises:
        InputError: If spans do not fit.
        UnsupportedAttention: If a layer's attention cannot be read.
    """
    asked = pairwise_question(inputs, image_spans)
    recorder = AttentionRecorder(model, asked.columns, asked.row_sets)
    with recorder:
        run_once(model, inputs)
    return asked.answer({name: recorder.factors(name) for name in asked.row_sets})


class PairwiseQuestion(NamedTuple):
    """Row sets and columns whose factors make up pairwise factors.

    Args:
        row_sets: Per image, and last for the text, its rows.
        columns: Per batch row its images, and last its text if it has any, in place of `image_spans`.
        images: Per batch row, its number of images.
        has_text: Per batch row, whether it has text.
    """

    row_sets: dict[str, Tensor]
    columns: list[list[_TextColumns]]
    images: list[int]
    has_text: list[bool]

    def answer(self, factors: Mapping[str, Tensor]) -> Tensor:
        """Put the factors of the row sets, (batch, layers, columns) each, together; see `pairwise_factors`."""
        recorded = torch.stack([factors[name] for name in self.row_sets], dim=2)
        batch, layers, sets = recorded.shape[:3]
        pairs = torch.full((batch, layers, sets, sets), torch.nan)
        for index, images in enumerate(self.images):
            pairs[index, :, :, :images] = recorded[index, :, :, :images]
            if self.has_text[index]:
                pairs[index, :, :, -1] = recorded[index, :, :, images]
        return pairs


def pairwise_question(inputs: Mapping[str, Any], image_spans: Sequence[Any]) -> PairwiseQuestion:
    """The rows and columns of `pairwise_factors`.

    Raises:
        InputError: If spans do not fit.
    """
    real = real_tokens(inputs)
    batch, tokens = real.shape
    images = ImageColumns(image_spans, batch, tokens)
    row_sets = {str(index): torch.zeros_like(real) for index in range(images.images + 1)}
    columns: list[list[_TextColumns]] = []
    has_text = []
    for index, spans in enumerate(images.rows):
        text = real[index].clone()
        for image, runs in enumerate(spans):
            for start, stop in runs:
                row_sets[str(image)][index, start:stop] = real[index, start:stop]
                text[start:stop] = False
        last = max((stop for runs in spans for _, stop in runs), default=0)
        row_sets[str(images.images)][index, last:] = text[last:]
        text_runs = _runs(text)
        has_text.append(bool(text_runs))
        columns.append([_TextColumns(runs) for runs in (*spans, text_runs) if runs])
    return PairwiseQuestion(row_sets, columns, [len(spans) for spans in images.rows], has_text)


def _runs(mask: Tensor) -> Runs:
    """Half-open runs of True.

    >>> _runs(torch.tensor([True, True, False, True]))
    ((0, 2), (3, 4))
    """
    edges = torch.nn.functional.pad(mask.int(), (1, 1)).diff().nonzero().flatten().tolist()
    return tuple(zip(edges[::2], edges[1::2], strict=True))


def real_tokens(inputs: Mapping[str, Any], prefix: str = "") -> Tensor:
    """Bool (batch, tokens) on the CPU: which of the tokens whose names have this prefix are no padding."""
    tokens = inputs.get(f"{prefix}input_ids")
    if tokens is None:
        tokens = inputs.get(f"{prefix}inputs_embeds")
    if not isinstance(tokens, Tensor) or tokens.dim() < 2:
        raise InputError(
            f"inputs need {prefix}input_ids (batch, tokens), or {prefix}inputs_embeds: they are what model(**inputs) "
            "takes, and query rows are theirs"
        )
    mask = inputs.get(f"{prefix}attention_mask")
    if isinstance(mask, Tensor) and mask.dim() == 2:
        return mask.bool().cpu()
    return torch.ones(tokens.shape[:2], dtype=torch.bool)


def row_mask(query_rows: Sequence[int] | npt.ArrayLike | Tensor, real: Tensor) -> Tensor:
    """Query rows in any of their forms as bool (batch, tokens), those that are `real` (batch, tokens).

    Raises:
        InputError: If they have another form, or lie outside the tokens.
    """
    tokens = real.shape[1]
    given = _as_array(query_rows)
    if given.dtype == np.bool_:
        if given.shape != tuple(real.shape):
            raise InputError(
                f"bool query rows have shape {given.shape}, the inputs {tuple(real.shape)}: give a mask (batch, tokens)"
            )
        return torch.from_numpy(given.copy()) & real
    if given.ndim != 1 or (given.size and given.dtype.kind not in "iu"):
        raise InputError(
            f"query rows are {given.dtype} of shape {given.shape}: give whole token indices, or a bool mask "
            "(batch, tokens)"
        )
    indices = [int(index) for index in given]
    outside = [index for index in indices if not -tokens <= index < tokens]
    if outside or not indices:
        raise InputError(f"query rows {outside or 'are empty'}: give token indices below {tokens}, or a bool mask")
    mask = torch.zeros_like(real)
    mask[:, indices] = True
    return mask & real


def _as_array(query_rows: Any) -> npt.NDArray[Any]:
    if isinstance(query_rows, Tensor):
        return np.asarray(query_rows.detach().cpu().numpy())
    try:
        return np.asarray(query_rows)
    except (TypeError, ValueError):
        raise InputError("query rows are ragged: give token indices, or a bool mask (batch, tokens)") from None
