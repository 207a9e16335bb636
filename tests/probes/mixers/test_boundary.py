"""What the convolution carries over images' edges, against layers whose tokens beyond the edge are replaced."""

from typing import Any

import pytest
import torch
from torch import Tensor

from probes.attention_columns import ImageColumns
from probes.mixers.boundary import ALL, boundary_leak
from probes.mixers.readers import activation_of, reader_of
from probes.state_space import MixerRecorder
from tests.probes.mixers.models import HIDDEN, build, first_mixer, tokens

LENGTH, SPAN = 24, (8, 15)
FAMILIES = ("mamba2", "nemotron_h", "falcon_h1", "mamba", "qwen3_5", "qwen3_next")


@torch.no_grad()
def convolved(mixer: Any, hidden: Tensor) -> Tensor:
    """The layer's own Conv1d module and activation, (batch, tokens, channels)."""
    reader = reader_of(mixer)
    mixed = reader.mixed(mixer, reader.project(mixer, hidden, None))
    found: Tensor = activation_of(mixer)(mixer.conv1d(mixed.transpose(1, 2))[..., : hidden.shape[1]])
    return found.transpose(1, 2)


@torch.no_grad()
def leak(mixer: Any, hidden: Tensor, spans: list[Any]) -> Any:
    reader = reader_of(mixer)
    mixed = reader.mixed(mixer, reader.project(mixer, hidden, None))
    columns = ImageColumns(spans, len(hidden), hidden.shape[1])
    weight, bias = mixer.conv1d.weight, mixer.conv1d.bias
    return boundary_leak(mixed, weight, bias, activation_of(mixer), reader.parts(mixer), columns)


@pytest.mark.parametrize("family", FAMILIES)
def test_shares_are_what_a_silent_neighbour_takes_away(family: str) -> None:
    """Without a bias in the projection, tokens of zeros beyond the edge bring nothing over it."""
    mixer = first_mixer(build(family))
    hidden = torch.randn(2, LENGTH, HIDDEN, generator=torch.Generator().manual_seed(1))
    own, found = convolved(mixer, hidden), leak(mixer, hidden, [SPAN])
    taps, parts = mixer.conv1d.weight.shape[-1], reader_of(mixer).parts(mixer)
    for side, edge in (("entering", SPAN[0]), ("leaving", SPAN[1])):
        silent = hidden.clone()
        silent[:, :edge] = 0
        lost = own - convolved(mixer, silent)
        first = 0
        for part, size in [*parts.items(), (ALL, own.shape[-1])]:
            channels = slice(None) if part == ALL else slice(first, first + size)
            first += size
            right = lost[:, edge : edge + taps, channels].norm(dim=-1) / own[:, edge : edge + taps, channels].norm(
                dim=-1
            )
            torch.testing.assert_close(getattr(found, side)[part][:, 0], right, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("family", FAMILIES)
def test_nothing_reaches_further_than_the_kernel(family: str) -> None:
    """Whatever the neighbours are: with others in their place, k - 1 tokens change and no more."""
    mixer = first_mixer(build(family))
    taps = mixer.conv1d.weight.shape[-1]
    hidden = torch.randn(1, LENGTH, HIDDEN, generator=torch.Generator().manual_seed(1))
    other = hidden.clone()
    other[:, : SPAN[1]] = torch.randn(1, SPAN[1], HIDDEN, generator=torch.Generator().manual_seed(2))
    changed = (convolved(mixer, hidden) != convolved(mixer, other)).any(-1)[0]
    assert changed[SPAN[1] :].nonzero().flatten().tolist() == list(range(taps - 1))
    found = leak(mixer, hidden, [SPAN]).leaving[ALL][0, 0]
    assert taps == 4
    assert (found[: taps - 1] > 1e-3).all()
    assert found[taps - 1] == 0


def test_edges_of_the_sequence() -> None:
    mixer = first_mixer(build("mamba2"))
    hidden = torch.randn(2, LENGTH, HIDDEN, generator=torch.Generator().manual_seed(1))
    found = leak(mixer, hidden, [[(0, 4), (20, 22)], [(18, LENGTH)]])
    assert not found.entering[ALL][0, 0].any(), "before the first token there is nothing"
    assert found.leaving[ALL][0, 1].isnan().tolist() == [False, False, True, True]
    assert found.leaving[ALL][1, 0].isnan().all(), "behind the last token there is nothing"
    assert found.leaving[ALL][1, 1].isnan().all()
    assert found.entering[ALL][1, 1].isnan().all(), "the second batch row has one image"


def test_a_kernel_of_one_token_carries_nothing() -> None:
    columns = ImageColumns([(2, 5)], 1, 8)
    found = boundary_leak(torch.randn(1, 8, 3), torch.randn(3, 1, 1), None, torch.nn.SiLU(), {"x": 3}, columns)
    assert found.entering["x"].tolist() == found.leaving["x"].tolist() == [[[0.0]]]


def test_the_recorder_measures_the_layers_own() -> None:
    model, ids = build("nemotron_h"), tokens(2, LENGTH)
    rows = torch.zeros(2, LENGTH, dtype=torch.bool)
    rows[:, -1] = True
    mixer = first_mixer(model)
    entered: dict[str, Tensor] = {}
    handle = mixer.register_forward_pre_hook(
        lambda _, args, named: entered.update(h=args[0] if args else named["hidden_states"]), with_kwargs=True
    )
    with torch.no_grad(), MixerRecorder(model, [SPAN], {"rows": rows}, leaks=True) as recorder:
        model(ids, use_cache=False)
    handle.remove()
    own = leak(mixer, entered["h"], [SPAN])
    assert list(recorder.leaks()) == [0, 2]
    for part, right in own.leaving.items():
        torch.testing.assert_close(recorder.leaks()[0].leaving[part], right)
        torch.testing.assert_close(recorder.leaks()[0].entering[part], own.entering[part])
