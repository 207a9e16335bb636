"""The independent reference: dense attention of a model's own eager implementation, and factors from it by loops."""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from tests.probes.tiny_models import Tiny, build_model

Array = npt.NDArray[np.float64]
TOLERANCE = 1e-5


def dense_forward(family: str, tiny: Tiny, **options: Any) -> Array:
    """(batch, layers, heads, tokens, tokens) from one forward of an eager twin."""
    twin = build_model(family, attention="eager", **options)
    with torch.no_grad():
        attentions = twin(**tiny.inputs, output_attentions=True).attentions
    return np.asarray(torch.stack(attentions, 1).double().numpy())


def dense_generate(family: str, tiny: Tiny, new_tokens: int, **options: Any) -> tuple[Array, torch.Tensor]:
    """As `dense_forward` over prompt and decode steps of a greedy generation, and the sequences generated.

    Keys cut from a sliding cache are put where they belong: the last of a step's keys is its own column.
    """
    twin = build_model(family, attention="eager", **options)
    with torch.no_grad():
        result = twin.generate(
            **tiny.inputs,
            max_new_tokens=new_tokens,
            do_sample=False,
            output_attentions=True,
            return_dict_in_generate=True,
        )
    first = result.attentions[0]
    batch, heads, prompt, _ = first[0].shape
    total = prompt + len(result.attentions) - 1
    dense = np.zeros((batch, len(first), heads, total, total))
    for step, layers in enumerate(result.attentions):
        stop = prompt + step
        for layer, attention in enumerate(layers):
            rows, keys = attention.shape[2:]
            dense[:, layer, :, stop - rows : stop, stop - keys : stop] = attention.double().numpy()
    return dense, result.sequences


def dense_factors(dense: Array, rows: npt.NDArray[np.bool_], spans: list[list[tuple[int, int]]]) -> Array:
    """(batch, layers, heads, images), NaN padded: the mean over rows and columns, one number at a time."""
    batch, layers, heads = dense.shape[:3]
    factors = np.full((batch, layers, heads, max(map(len, spans))), np.nan)
    for sample in range(batch):
        picked = dense[sample][:, :, rows[sample]]
        for image, (start, stop) in enumerate(spans[sample]):
            factors[sample, :, :, image] = picked[..., start:stop].mean(axis=(-1, -2))
    return factors


def last_rows(tiny: Tiny, count: int) -> torch.Tensor:
    """Bool (batch, tokens): the last tokens of every sample that are no padding."""
    mask = tiny.inputs["attention_mask"].bool()
    behind = mask.flip(1).cumsum(1).flip(1)
    return mask & (behind <= count)


def worst(values: torch.Tensor, reference: Array) -> float:
    """Largest difference; NaN must stand in the same places."""
    found = values.double().numpy()
    assert found.shape == reference.shape
    assert np.array_equal(np.isnan(found), np.isnan(reference))
    return float(np.nanmax(np.abs(found - reference)))
