"""Hidden attention in blocks, against each kind's recurrence step by step; and its sums against the whole rows."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from probes.attention_columns import ImageColumns
from probes.attention_rows import CHUNK_BYTES
from probes.inputs import InputError
from probes.mixers.scan import Decay, Scan
from probes.mixers.sums import FORMS, attention_rows, cell_sums, image_sums
from tests.probes.mixers.recurrences import by_recurrence
from tests.probes.mixers.scans import BATCH, MAKERS, dual

KINDS = tuple(MAKERS)


def rows_of(*rows: list[int]) -> torch.Tensor:
    return torch.tensor(list(rows))


def gathered(whole: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    index = rows[:, None, :, None].expand(-1, whole.shape[1], -1, whole.shape[-1])
    return whole.gather(2, index)


def apart(found: torch.Tensor, right: torch.Tensor) -> float:
    return float((found - right).abs().max() / right.abs().max())


def in_blocks(scan: Scan, rows: torch.Tensor, width: int) -> torch.Tensor:
    tokens = scan.values.shape[1]
    found = torch.zeros(len(rows), scan.heads, rows.shape[1], tokens)
    stop = int(rows.max()) + 1
    for block in scan.blocks(rows, width):
        assert block.stop == stop
        stop = block.start
        found[..., block.start : block.stop] = block.attention
    assert stop == 0
    return found


@pytest.mark.parametrize("width", [1, 7, 16, 64])
@pytest.mark.parametrize("kind", KINDS)
def test_blocks_are_the_recurrence(kind: str, width: int) -> None:
    scan = MAKERS[kind](40)
    # Rows at both ends, neighbouring ones, one twice, and others in each batch row.
    rows = rows_of([39, 0, 20, 21, 21, 38], [5, 39, 6, 7, 16, 15])
    right = gathered(by_recurrence(scan), rows)
    assert apart(in_blocks(scan, rows, width), right) < 2e-6
    if kind != "delta":
        assert (in_blocks(scan, rows, width) < 0).any(), "hidden attention is signed"


@given(
    kind=st.sampled_from(KINDS),
    tokens=st.integers(1, 30),
    width=st.integers(1, 33),
    seed=st.integers(0, 99),
    data=st.data(),
)
@settings(max_examples=40, deadline=None)
def test_any_rows_and_any_blocks_agree(kind: str, tokens: int, width: int, seed: int, data: Any) -> None:
    scan = MAKERS[kind](tokens, seed, batch=1)
    rows = rows_of(data.draw(st.lists(st.integers(0, tokens - 1), min_size=1, max_size=8)))
    found, right = in_blocks(scan, rows, width), gathered(by_recurrence(scan), rows)
    torch.testing.assert_close(found, right.float(), atol=2e-6 * float(right.abs().max()), rtol=1e-5)
    behind = torch.arange(tokens) > rows[..., None]
    assert not found[behind[:, None].expand_as(found)].any(), "no row sees what comes behind it"


def test_long_prompts_lose_no_digits() -> None:
    """Running sums in fp32 would be off by some 1e-2 where the decays between neighbours are near one."""
    scan = dual(6000, batch=1)
    scan = replace(scan, log_decay=-10 * torch.ones_like(scan.log_decay))
    late = 1e-3 * torch.rand(1, 8, scan.heads)
    scan.log_decay[:, -8:] = -late
    rows = rows_of([5999])
    sums = -late.double().flip(1).cumsum(1).flip(1) + late.double()
    right = sums.exp().transpose(1, 2)[:, :, None].float()
    torch.testing.assert_close(Decay(scan.log_decay, rows).within(5992, 6000), right, rtol=1e-6, atol=0)
    in_fp32 = scan.log_decay.cumsum(1).transpose(1, 2)
    naive = (in_fp32[..., -1:] - in_fp32[..., -8:]).exp()[:, :, None]
    assert (naive - right).abs().max() > 1e-4


@pytest.mark.parametrize("kind", KINDS)
def test_rebuilt_output_is_the_sum_over_values_and_the_skip(kind: str) -> None:
    scan = MAKERS[kind](33)
    rows = torch.arange(33).repeat(BATCH, 1)
    right = torch.einsum("bhij,bjhp->bihp", by_recurrence(scan), scan.values.double())
    if scan.skip is not None:
        right = right + scan.skip.double()[:, None] * scan.values.double()
    assert apart(scan.rebuilt(rows), right) < 2e-6


COLUMNS = [[(2, 9), (12, 13), (20, 37)], [(0, 5)]]
"""Of two batch rows: an image that ends on the last token, one of a single token, one from the first token on."""


def formed(scan: Scan, rows: torch.Tensor) -> dict[str, torch.Tensor]:
    """Every form by its definition, (batch, heads, rows, tokens)."""
    alpha = gathered(by_recurrence(scan), rows)
    gates = torch.nn.functional.silu(scan.gate.double()).transpose(1, 2)
    gates = gates.gather(2, rows[:, None, :, None].expand(-1, scan.heads, -1, gates.shape[-1]))
    values = scan.values.double().transpose(1, 2)
    moved = alpha[..., None] * (values[:, :, None] * gates[:, :, :, None])
    return {"signed": alpha, "absolute": alpha.abs() / alpha.abs().sum(-1, keepdim=True), "value": moved.norm(dim=-1)}


@pytest.mark.parametrize("kind", KINDS)
def test_forms_are_their_definitions(kind: str) -> None:
    scan, rows = MAKERS[kind](37), rows_of([36, 11], [30, 4])
    for form, right in formed(scan, rows).items():
        assert apart(attention_rows(scan, rows, form), right) < 3e-6, form
    torch.testing.assert_close(attention_rows(scan, rows, "absolute").sum(-1), torch.ones(BATCH, scan.heads, 2))


@pytest.mark.parametrize("room", [1, 2**9, 2**23])
@pytest.mark.parametrize("kind", KINDS)
def test_image_sums_need_no_whole_rows(kind: str, room: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """However few rows and tokens are made at a time, and for images of a different number in each batch row."""
    monkeypatch.setitem(CHUNK_BYTES, "cpu", room)
    scan, rows = MAKERS[kind](37), rows_of([36, 11, 35], [30, 4, 29])
    found = image_sums(scan, rows, ImageColumns(COLUMNS, BATCH, 37))
    right = formed(scan, rows)
    for form in FORMS:
        for row, images in enumerate(COLUMNS):
            for image, (start, stop) in enumerate(images):
                expected = right[form][row, :, :, start:stop].sum(-1)
                assert apart(found.images[form][row, :, :, image], expected) < 1e-5, (form, row, image)
        assert not found.images[form][1, :, :, 1:].any()
    assert apart(found.totals, right["signed"].abs().sum(-1)) < 3e-6
    assert apart(found.last, scan.rebuilt(rows)[:, -1].double()) < 1e-5


@pytest.mark.parametrize("room", [1, 2**23])
@pytest.mark.parametrize("kind", KINDS)
def test_cells_are_the_means_of_their_columns(kind: str, room: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CHUNK_BYTES, "cpu", room)
    scan, rows = MAKERS[kind](37), rows_of([36, 11, 35], [30, 4, 29])
    weights = torch.tensor([[[1.0, 0.0, 1.0], [0.0, 1.0, 0.0]], [[1.0, 1.0, 0.0], [0.0, 0.0, 0.0]]])
    columns = ImageColumns(COLUMNS, BATCH, 37)
    found = cell_sums(scan, rows, weights, columns, FORMS, image_sums(scan, rows, columns).totals)
    for form, whole in formed(scan, rows).items():
        by_set = torch.einsum("bsr,bhrj->bsj", weights.double(), whole) / scan.heads
        for row, images in enumerate(COLUMNS):
            right = torch.cat([by_set[row, :, start:stop] for start, stop in images], dim=-1)
            assert apart(found[form][row], right) < 1e-5, form


@pytest.mark.parametrize("kind", KINDS)
def test_no_block_is_of_the_size_of_tokens_by_rows(kind: str) -> None:
    scan = MAKERS[kind](3000, batch=1)
    rows = torch.arange(2000, 3000)[None]
    largest = max(block.attention.numel() for block in scan.blocks(rows))
    assert largest < scan.heads * 1000 * 3000 / 10


def test_rows_without_any_attention_have_none() -> None:
    scan = dual(12)
    scan = replace(scan, keys=torch.zeros_like(scan.keys))
    rows = rows_of([11], [5])
    assert not attention_rows(scan, rows, "absolute").any()
    assert not image_sums(scan, rows, ImageColumns([(0, 3)], BATCH, 12)).images["absolute"].any()


def test_controls_change_every_number() -> None:
    """Each part of the formula that is left out or mixed up shows: what a wrong reader would do is not within slack."""
    scan, rows = dual(40), rows_of([39, 20], [38, 10])
    right = gathered(by_recurrence(scan), rows)
    wrong = {
        "no step": replace(scan, step=torch.ones_like(scan.step)),
        "no decay": replace(scan, log_decay=torch.zeros_like(scan.log_decay)),
        "groups mixed up": replace(scan, keys=scan.keys.roll(1, 2), queries=scan.queries.roll(1, 2)),
        "keys for queries": replace(scan, keys=scan.queries, queries=scan.keys),
    }
    for name, each in wrong.items():
        assert float((attention_rows(each, rows) - right).norm() / right.norm()) > 0.1, name


def test_unknown_forms_are_refused() -> None:
    with pytest.raises(InputError, match=r"unknown forms .'softmax'.*signed, absolute, value"):
        attention_rows(dual(4), rows_of([3], [3]), "softmax")
