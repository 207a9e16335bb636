"""The softmax of chosen rows against a plain softmax, for every form of mask and every term that changes it."""

import types
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from probes.attention import UnsupportedAttention
from probes.attention_calls import AttentionCall, Block, Place, Places
from probes.attention_columns import ImageColumns
from probes.attention_rows import column_masses

BATCH, HEADS, GROUPS, QUERIES, KEYS, SIZE = 2, 4, 2, 11, 11, 8
START = Place(0, 0)


class SomeAttention(nn.Module):
    layer_idx = 3
    is_causal = True


def call(mask: Any = None, implementation: str = "sdpa", queries: int = QUERIES, keys: int = KEYS, **kw: Any) -> Any:
    generator = torch.Generator().manual_seed(0)
    query = 2 * torch.randn(BATCH, HEADS, queries, SIZE, generator=generator)
    key = 2 * torch.randn(BATCH, GROUPS, keys, SIZE, generator=generator)
    return AttentionCall(SomeAttention(), implementation, query, key, key, mask, kw)


def plain(made: AttentionCall, visible: Tensor | None = None, additive: Tensor | None = None) -> Tensor:
    """Softmax of every row (batch, heads, queries, keys) in fp64, for visible (…, queries, keys)."""
    key = made.key.double().repeat_interleave(HEADS // GROUPS, dim=1)
    logits = made.query.double() @ key.transpose(-1, -2) * made.scaling
    cap = made.keywords.get("softcap")
    logits = logits if cap is None else cap * torch.tanh(logits / cap)
    logits = logits if additive is None else logits + additive
    logits = logits if visible is None else logits.masked_fill(~visible, -torch.inf)
    sinks = made.keywords.get("s_aux")
    if sinks is not None:
        extra = sinks.double().view(1, -1, 1, 1).expand(*logits.shape[:3], 1)
        return torch.cat([logits, extra], -1).softmax(-1)[..., :-1]
    return logits.softmax(-1)


def all_rows(made: AttentionCall, place: Place = START, **options: Any) -> Any:
    count = made.query.shape[2]
    rows = torch.arange(count).expand(BATCH, count)
    return column_masses(made, place, rows, torch.eye(count).expand(BATCH, -1, -1), per_head=True, **options)


def check(made: AttentionCall, expected: Tensor, place: Place = START) -> None:
    found = all_rows(made, place)
    assert bool((found.counts == 1).all())
    torch.testing.assert_close(found.columns.double(), expected, atol=1e-6, rtol=0)


CAUSAL = torch.ones(QUERIES, KEYS).tril().bool()


def test_no_mask_is_causal_by_keyword_before_module() -> None:
    check(call(), plain(call(), CAUSAL))
    check(call(is_causal=False), plain(call()))
    made = call()
    made.module.is_causal = False
    check(made, plain(made))
    check(call(implementation="eager"), plain(call()))


def test_a_single_row_without_a_mask_sees_every_key() -> None:
    made = call(queries=1)
    check(made, plain(made), Place(KEYS - 1, 0))


def test_scaling_softcap_and_sinks() -> None:
    for keywords in ({"scaling": 0.1}, {"softcap": 1.5}, {"s_aux": torch.tensor([0.5, -1.0, 4.0, 9.0])}):
        made = call(implementation="flash_attention_2", **keywords)
        check(made, plain(made, CAUSAL))
    made = call(implementation="eager", s_aux=torch.full((HEADS,), 3.0))
    assert float(all_rows(made).columns.sum(-1).max()) < 1


def test_bool_additive_and_per_head_masks() -> None:
    generator = torch.Generator().manual_seed(1)
    visible = torch.rand(BATCH, 1, QUERIES, KEYS, generator=generator) < 0.6
    visible |= torch.eye(QUERIES).bool()
    check(call(visible), plain(call(), visible))
    additive = torch.zeros(visible.shape).masked_fill(~visible, torch.finfo(torch.float32).min)
    check(call(additive, "eager"), plain(call(), visible))
    bias = torch.randn(1, HEADS, QUERIES, KEYS, generator=generator)
    check(call(bias), plain(call(), additive=bias.double()))
    longer = torch.nn.functional.pad(visible, (0, 4), value=True)
    check(call(longer), plain(call(), visible))


def test_flash_masks_are_keys_windows_and_causality() -> None:
    keys = torch.ones(BATCH, KEYS)
    keys[0, :3] = 0
    window = torch.ones(QUERIES, KEYS).tril().triu(-3).bool()
    made = call(keys, "flash_attention_2", sliding_window=4)
    found = all_rows(made)
    assert found.counts[0].tolist() == [0] * 3 + [1] * 8
    expected = plain(made, window & keys.bool()[:, None, None])
    torch.testing.assert_close(found.columns[0, :, 3:].double(), expected[0, :, 3:], atol=1e-6, rtol=0)
    torch.testing.assert_close(found.columns[1].double(), expected[1], atol=1e-6, rtol=0)
    sdpa = call(sliding_window=4)
    check(sdpa, plain(sdpa, CAUSAL))


def test_flash_decoding_is_causal_from_the_end_of_the_cache() -> None:
    made = call(implementation="flash_attention_2", queries=3, keys=8)
    columns, rows = torch.arange(8)[None] + 5, torch.arange(3)[:, None] + 10
    check(made, plain(made, columns <= rows), Place(10, 5))


def test_flex_block_masks_are_read_by_their_function() -> None:
    from torch.nn.attention.flex_attention import create_block_mask

    hidden = torch.zeros(BATCH, KEYS).bool()
    hidden[1, :2] = True
    block = create_block_mask(
        lambda b, _, q, k: (k <= q) & ~hidden[b, k], B=BATCH, H=None, Q_LEN=QUERIES, KV_LEN=KEYS, device="cpu"
    )
    made = call(block, "flex_attention")
    found = all_rows(made)
    assert found.counts[1].tolist() == [0, 0] + [1] * 9
    expected = plain(made, CAUSAL & ~hidden[:, None, None])
    torch.testing.assert_close(found.columns[:, :, 2:].double(), expected[:, :, 2:], atol=1e-6, rtol=0)


def test_padding_rows_are_told_from_rows_that_a_mask_by_hand_hides_from_themselves() -> None:
    visible = CAUSAL.expand(BATCH, 1, -1, -1).clone()
    visible[:, :, :, 9:] = False
    visible[:, :, 4, 4] = False
    found = all_rows(call(visible))
    assert found.counts.tolist() == [[1] * 9 + [0] * 2] * BATCH


def test_half_precision_masks_hide() -> None:
    visible = CAUSAL.expand(BATCH, 1, -1, -1)
    for dtype in (torch.float16, torch.bfloat16):
        made = call(torch.zeros(visible.shape, dtype=dtype).masked_fill(~visible, torch.finfo(dtype).min), "eager")
        half = AttentionCall(made.module, "eager", made.query.to(dtype), made.key.to(dtype), made.value, made.mask)
        expected = plain(half, visible)
        torch.testing.assert_close(all_rows(half).columns.double(), expected, atol=1e-6, rtol=0)


def test_blocks_hide_columns_from_rows_on_top_of_any_mask() -> None:
    rows, columns = torch.zeros(BATCH, QUERIES).bool(), torch.zeros(BATCH, KEYS).bool()
    rows[:, 6:] = True
    columns[1, 2:5] = True
    hidden = rows[:, None, :, None] & columns[:, None, None]
    additive = torch.zeros(1, 1, QUERIES, KEYS).masked_fill(~CAUSAL, -1e9)
    for mask in (None, CAUSAL.expand(BATCH, 1, -1, -1), additive):
        made = call(mask)
        blocked = AttentionCall(
            made.module, "sdpa", made.query, made.key, made.value, mask, {}, (Block(rows, columns),)
        )
        check(blocked, plain(made, CAUSAL & ~hidden))


@settings(max_examples=60, deadline=None)
@given(
    chunk=st.integers(1, 14),
    picked=st.lists(st.lists(st.booleans(), min_size=QUERIES, max_size=QUERIES), min_size=2, max_size=6),
    per_head=st.booleans(),
    masked=st.booleans(),
)
def test_chunks_of_any_size_equal_the_whole(chunk: int, picked: list[list[bool]], per_head: bool, masked: bool) -> None:
    picked = picked if len(picked) % 2 == 0 else picked[:-1]
    sets = torch.tensor(picked).view(BATCH, -1, QUERIES).float()
    mask = CAUSAL.expand(BATCH, 1, -1, -1).clone() if masked else None
    if mask is not None:
        mask[0, :, :2] = False
        mask[0, :, :, :2] = False
    made = call(mask)
    rows = torch.arange(QUERIES).expand(BATCH, -1)
    whole = column_masses(made, Place(0, 0), rows, sets, per_head)
    parts = column_masses(made, Place(0, 0), rows, sets, per_head, row_chunk=chunk)
    assert torch.equal(whole.counts, parts.counts)
    torch.testing.assert_close(whole.columns, parts.columns, atol=1e-6, rtol=0)
    expected = torch.einsum("bsr,bhrk->bhsk", sets.double(), plain(made, CAUSAL if mask is None else mask).nan_to_num())
    expected = expected if per_head else expected.mean(1, keepdim=True)
    torch.testing.assert_close(whole.columns.double(), expected, atol=2e-6, rtol=0)


def test_key_chunks_of_half_precision_equal_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    made = call()
    half = AttentionCall(made.module, "sdpa", made.query.bfloat16(), made.key.bfloat16(), made.value, None)
    whole = all_rows(half)
    monkeypatch.setattr("probes.attention_rows.KEY_CHUNK", 4)
    torch.testing.assert_close(all_rows(half).columns, whole.columns)


def test_unknown_terms_are_refused_by_name() -> None:
    bias = torch.zeros(1)
    for keywords, name in (
        ({"mystery": bias}, "'mystery'"),
        ({"sinks": bias}, "sdpa ignores 'sinks'"),
        ({"implementation": "flash_attention_2", "position_bias": bias}, "flash_attention_2 ignores 'position_bias'"),
        ({"indices": [bias]}, "'indices'"),
        ({"nested": {"deep": (bias,)}}, "'nested'"),
        ({"cache": object()}, "paged cache"),
        ({"s_aux": bias}, "sdpa ignores 's_aux'"),
    ):
        with pytest.raises(UnsupportedAttention, match=rf"layer 3 \(SomeAttention\).*{name}"):
            call(**keywords).check()
    call(position_ids=bias, use_cache=True).check()
    call(CAUSAL.expand(BATCH, 1, -1, -1), block_indices=bias).check()
    with pytest.raises(UnsupportedAttention, match="'block_indices'"):
        call(CAUSAL.expand(BATCH, 1, -1, -1), "flex_attention", block_indices=bias).check()
    with pytest.raises(UnsupportedAttention, match=r"sinks have shape \(1,\)"):
        all_rows(call(implementation="eager", s_aux=bias))
    for name in ("position_bias", "sinks"):
        given: Any = {name: bias}
        with pytest.raises(UnsupportedAttention, match=rf"its {name} has shape \(1,\)"):
            all_rows(call(implementation="eager", **given))
    with pytest.raises(UnsupportedAttention, match="mask has shape"):
        all_rows(call(torch.ones(BATCH, 1, QUERIES, KEYS - 1)))
    with pytest.raises(UnsupportedAttention, match="mask is a SimpleNamespace"):
        all_rows(call(types.SimpleNamespace()))
    packed = torch.tensor([[0, 1, 2, 3, 0, 1, 2, 3, 4, 5, 6]])
    with pytest.raises(UnsupportedAttention, match="packed"):
        all_rows(call(implementation="flash_attention_2", position_ids=packed))


def test_a_cut_cache_without_a_window_is_refused() -> None:
    places = Places()
    places.place(call())
    with pytest.raises(UnsupportedAttention, match="no sliding window"):
        places.place(call(queries=1, keys=5))
    places = Places()
    assert places.place(call(sliding_window=4)) == Place(0, 0)
    assert places.place(call(queries=1, keys=4, sliding_window=4)) == Place(11, 8)


def test_image_sums_are_the_same_for_shared_and_separate_columns() -> None:
    masses = torch.rand(2, 3, 2, 10)
    shared = ImageColumns([(0, 3), (5, 9)], 2, 10).image_sums(masses, 0)
    ragged = ImageColumns([[(0, 3), (5, 9)], [(0, 3)]], 2, 10)
    separate = ragged.image_sums(masses, 0)
    torch.testing.assert_close(shared[0], separate[0])
    torch.testing.assert_close(shared[1, ..., 0], separate[1, ..., 0])
    assert ragged.sizes.tolist()[0] == [3, 4]
    assert bool(ragged.sizes[1, 1].isnan())
    cut = ImageColumns([(0, 3), (1, 5)], 2, 12)
    torch.testing.assert_close(cut.image_sums(masses, 2)[..., 0], masses[..., 0])
    cells = cut.cells(masses.mean(1), 2)[0]
    assert cells.shape == (2, 7)
    torch.testing.assert_close(cells[:, 2:3], masses.mean(1)[0, :, :1])
    assert float(cells[:, [0, 1, 3]].abs().sum()) == 0


class Largest(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes the size of the largest tensor that any operation gives, views of what was there before left out."""

    def __init__(self, *known: Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.known = {tensor.untyped_storage().data_ptr() for tensor in known}
        self.numel = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor) and result.untyped_storage().data_ptr() not in self.known:
            self.numel = max(self.numel, result.numel())
        return result


@pytest.mark.parametrize("masked", [False, True])
def test_no_more_than_a_chunk_of_rows_by_keys_is_ever_held(masked: bool) -> None:
    count = 400
    made = call(queries=count, keys=count)
    mask = torch.ones(BATCH, 1, count, count).tril().bool()
    made = AttentionCall(made.module, "sdpa", made.query, made.key, made.value, mask if masked else None)
    rows, weights = torch.arange(count).expand(BATCH, -1), torch.ones(BATCH, 1, count)
    largest = Largest(mask, made.query, made.key)
    with largest:
        column_masses(made, Place(0, 0), rows, weights, row_chunk=8)
    assert BATCH * count * 8 <= largest.numel <= BATCH * HEADS * count * 8 < count * count
