"""The arithmetic on one layer's attention, against brute force."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from probes.bridges.passes import (
    Block,
    BridgedReadings,
    blinded,
    block_of,
    hidden_by,
    hide,
    place_of_mask,
    row_sums,
    with_hidden,
)
from probes.changes import Knockout
from probes.inputs import InputError


def probabilities(seed: int, batch: int, heads: int, tokens: int) -> torch.Tensor:
    """Causal attention, (batch, heads, tokens, tokens)."""
    logits = torch.randn(batch, heads, tokens, tokens, generator=torch.Generator().manual_seed(seed))
    return logits.masked_fill(~torch.ones(tokens, tokens, dtype=torch.bool).tril(), -torch.inf).softmax(-1)


@given(seed=st.integers(0, 999), batch=st.integers(1, 3), heads=st.integers(1, 3), tokens=st.integers(2, 9))
def test_sums_factors_and_maps_equal_brute_force(seed: int, batch: int, heads: int, tokens: int) -> None:
    attention = probabilities(seed, batch, heads, tokens)
    generator = torch.Generator().manual_seed(seed)
    sets = torch.rand(batch, 2, tokens, generator=generator) < 0.4
    sets[:, 0, -1] = True
    stop = 1 + seed % (tokens - 1)
    sums = row_sums(attention, sets, per_head=True)
    assert sums.shape == (batch, heads, 2, tokens)
    readings = BridgedReadings({3: sums}, ["one", "other"], sets, [[(0, stop)]] * batch, per_head=True)
    pooled = BridgedReadings({3: row_sums(attention, sets, False)}, ["one", "other"], sets, [(0, stop)], False)
    for index, name in enumerate(("one", "other")):
        factors, maps, means = readings.factors(name), readings.maps(name), pooled.factors(name)
        for row in range(batch):
            chosen = attention[row][:, sets[row, index]]
            if not len(chosen[0]):
                assert torch.isnan(factors[row]).all() and torch.isnan(means[row]).all()
                continue
            np.testing.assert_allclose(factors[row, 0, :, 0], chosen[..., :stop].mean((1, 2)), rtol=1e-4)
            np.testing.assert_allclose(means[row, 0, 0], chosen[..., :stop].mean(), rtol=1e-4)
            np.testing.assert_allclose(maps[row][0][0], chosen.mean((0, 1))[:stop], rtol=1e-4)


@given(seed=st.integers(0, 999), kind=st.sampled_from(["bool", "additive"]))
def test_hiding_equals_a_softmax_over_what_is_left(seed: int, kind: str) -> None:
    tokens, generator = 6, torch.Generator().manual_seed(seed)
    logits = torch.randn(2, 3, tokens, tokens, generator=generator)
    causal = torch.ones(tokens, tokens, dtype=torch.bool).tril().expand(2, 1, -1, -1)
    blocks = [Block(*(torch.rand(2, 2, tokens, generator=generator) < 0.4).unbind(1)) for _ in range(2)]
    hidden = hidden_by(blocks)
    expected = causal.clone()
    for row, query, key in np.ndindex(2, tokens, tokens):
        if any(block.rows[row, query] and block.columns[row, key] for block in blocks):
            expected[row, 0, query, key] = False
    least = torch.finfo(logits.dtype).min
    mask = causal if kind == "bool" else torch.zeros_like(causal, dtype=logits.dtype).masked_fill(~causal, least)
    new = hide(mask, hidden)
    assert torch.equal(new if kind == "bool" else new > least / 2, expected)
    assert bool(blinded(mask, hidden)) == bool((~expected.any(-1)).any())


def test_masks_are_found_by_name_or_place_and_made_where_there_is_none() -> None:
    class Attention(torch.nn.Module):
        def forward(self, hidden_states: torch.Tensor, attention_mask: torch.Tensor | None = None) -> None: ...

    states, hidden = torch.zeros(1, 2, 4), torch.tensor([[[[False, False], [True, False]]]])
    mask = torch.zeros(1, 1, 2, 3)
    assert place_of_mask(Attention()) == 1 and place_of_mask(torch.nn.ReLU()) == -1
    args, named, blind = with_hidden((states, mask), {}, 1, hidden)
    assert args[1].shape == (1, 1, 2, 2) and bool(args[1][0, 0, 1, 0] < -1e30) and not named and not blind
    args, named, _ = with_hidden((states,), {"attention_mask": mask}, 1, hidden)
    assert len(args) == 1 and bool(named["attention_mask"][0, 0, 1, 0] < -1e30)
    args, named, _ = with_hidden((), {"hidden_states": states}, 1, hidden)
    assert named["attention_mask"].shape == (1, 1, 2, 2)
    with pytest.raises(InputError, match=r"mask has the form \(1, 2\)"):
        with_hidden((states,), {"attention_mask": torch.ones(1, 2)}, 1, hidden)


def test_a_knockout_becomes_rows_and_columns() -> None:
    rows = torch.tensor([[False, False, True], [False, True, True]])
    block = block_of(Knockout(rows, [[(0, 1)], []]))
    assert block.columns.tolist() == [[True, False, False], [False, False, False]]
    assert hidden_by([block])[0, 0].tolist() == [[False] * 3, [False] * 3, [True, False, False]]
