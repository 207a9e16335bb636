"""Contributions and knock-outs of every model, against gradients and weights of its own."""

from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from probes.attention import UnsupportedAttention
from probes.experts.effects import expert_effects, expert_knockout_effects
from probes.inputs import InputError
from probes.instruments.contribution_reading import contributions
from probes.instruments.contributions import EXPERTS as EXPERT_KIND
from probes.instruments.contributions import Contributions, knockout_agreement
from probes.interventions import knockout_effects
from probes.layer_kinds import LayerKind
from probes.mixers.knockout import mixer_knockout_effects
from probes.model import HookedModel
from tests.probes.inside.cases import (
    ANSWER,
    ATTENTION,
    EVERY,
    EXPERTS,
    MIXED,
    STATE_SPACE,
    WITHOUT_MIXERS,
    alpha,
    encoded_of,
    image_columns,
    layers_of,
    model_of,
    module_of,
    own,
    question_of,
    rows_after,
    scan_of,
)

REACHING = 1
"""The layer of every model whose experts an image's tokens reach the answer through: a later one mixes tokens."""


@cache
def found(name: str) -> Contributions:
    return contributions(model_of(name), question_of(name), ANSWER)


@cache
def cut(name: str) -> dict[str, Any]:
    """Knock-outs of every entry of the contributions, by kind."""
    asked, each = (model_of(name), question_of(name), ANSWER), found(name)
    effects = {
        "attention": knockout_effects(*asked, each.windows("attention")),
        EXPERT_KIND: expert_knockout_effects(*asked, each.windows(EXPERT_KIND)),
    }
    if name != WITHOUT_MIXERS:
        effects["mamba2"] = mixer_knockout_effects(*asked, each.windows("mamba2"))
    return effects


@EVERY
def test_contributions_make_up_gradient_times_output(name: str) -> None:
    """Their completeness error is rounding, and what they are complete to is told by autograd."""
    each, own_kinds = found(name), {"attention": ATTENTION, "mamba2": STATE_SPACE, EXPERT_KIND: EXPERTS}
    wanted = [(layer, kind) for kind in own_kinds for layer in layers_of(name, own_kinds[kind])]
    assert sorted(zip(each.layers, each.kinds, strict=True)) == sorted(wanted)
    assert each.errors.max() < 1e-5
    assert each.log_probability == pytest.approx(own(name).log_probability, abs=1e-3)
    for layer, kind, total in zip(each.layers, each.kinds, each.totals, strict=True):
        place = (layer, own_kinds[kind][0])
        products = own(name).outputs[place].double() * own(name).gradients[place].double()
        right = products if kind == EXPERT_KIND else products[rows_after(name)]
        assert total == pytest.approx(float(right.sum()), abs=1e-3 * float(right.abs().sum()))
    assert (np.abs(each.of_kind("attention")) > 1e-6).any()


@EVERY
def test_experts_share_their_layers_contribution_out(name: str) -> None:
    shares = found(name).by_expert(REACHING)
    entry = found(name).of_kind(EXPERT_KIND)[layers_of(name, EXPERTS).index(REACHING)]
    np.testing.assert_allclose(shares.routed.sum(axis=0) + shares.shared, entry, atol=1e-10)
    place = (REACHING, LayerKind.EXPERTS)
    products = (own(name).outputs[place].double() * own(name).gradients[place].double()).sum(-1)
    right = [float(products[columns].sum()) for columns in image_columns(name)]
    np.testing.assert_allclose(entry, right, rtol=1e-2, atol=1e-2 * np.abs(right).max())
    assert np.abs(entry).max() > 1e-4


@MIXED
def test_a_mixers_knockout_is_the_answer_without_what_its_recurrence_carried(name: str) -> None:
    layers = layers_of(name, STATE_SPACE)
    for place, layer in enumerate(layers):
        values = scan_of(name, layer).values[0].double()
        for image, columns in enumerate(image_columns(name)):
            carried = torch.einsum("hij,jhp->ihp", alpha(name, layer)[:, :, columns], values[columns])
            rows = rows_after(name)

            def without(_: Any, given: Any, carried: torch.Tensor = carried, rows: list[int] = rows) -> Any:
                scanned = given[0].clone()
                flat = scanned.view(-1, scanned.shape[-1])
                flat[rows] -= carried[rows].flatten(1).float()
                return (scanned, *given[1:])

            handle = module_of(model_of(name).model, layer, STATE_SPACE).norm.register_forward_pre_hook(without)
            lost = own(name).log_probability - _score(model_of(name), name)
            handle.remove()
            assert cut(name)["mamba2"][place, image] == pytest.approx(lost, abs=2e-4)
    assert np.abs(cut(name)["mamba2"]).max() > 1e-3


@EVERY
def test_an_experts_knockout_is_the_answer_with_its_weights_at_zero(name: str) -> None:
    layer = REACHING
    routing = model_of(name).routing(encoded_of(name), [layer])
    called = np.bincount(routing.indices[0].ravel(), minlength=routing.experts)
    busiest = int(called.argmax())
    effects = expert_effects(
        model_of(name), question_of(name), ANSWER, [(layer, busiest), (layer, "shared")], tokens="all"
    )
    with _silenced(name, layer, busiest) as model:
        assert effects[0] == pytest.approx(own(name).log_probability - _score(model, name), abs=2e-4)
    with _silenced(name, layer, "shared") as model:
        assert effects[1] == pytest.approx(own(name).log_probability - _score(model, name), abs=2e-4)
    assert (np.abs(effects) > 1e-3).all()
    for idle in np.flatnonzero(called == 0)[:1]:
        assert expert_effects(model_of(name), question_of(name), ANSWER, [(layer, int(idle))])[0] == 0


@EVERY
def test_experts_behind_the_last_mixing_layer_change_no_image(name: str) -> None:
    mixing = max(layers_of(name, ATTENTION) + layers_of(name, STATE_SPACE))
    for window, effects in zip(layers_of(name, EXPERTS), cut(name)[EXPERT_KIND], strict=True):
        assert (np.abs(effects).max() > 1e-4) == (window < mixing)


@EVERY
def test_contributions_are_held_against_knockouts_kind_by_kind(name: str) -> None:
    agreed = knockout_agreement([found(name)], [cut(name)], slopes=True)
    assert set(agreed) == set(found(name).kinds) == set(cut(name))
    for kind, each in agreed.items():
        one, other = found(name).of_kind(kind, slopes=True).ravel(), cut(name)[kind].ravel()
        varied = min(np.ptp(one), np.ptp(other)) > 0
        right = float(np.corrcoef(one, other)[0, 1]) if varied else float("nan")
        assert each.correlation.value == pytest.approx(right, abs=1e-6, nan_ok=True)
        ranked = float(spearmanr(one, other)[0]) if varied else float("nan")
        assert each.rank_correlation.value == pytest.approx(ranked, abs=1e-6, nan_ok=True)
        assert each.top.estimate.n == 1 and each.top.chance == 1 / one.size * len(found(name).windows(kind))


def test_what_a_model_does_not_have_is_refused_by_name() -> None:
    asked = (model_of(WITHOUT_MIXERS), question_of(WITHOUT_MIXERS), ANSWER)
    with pytest.raises(UnsupportedAttention, match="no decoder layer has a state-space or delta mixer"):
        mixer_knockout_effects(*asked)
    with pytest.raises(InputError, match="no 'mamba2' layer here; there are attention, mixture of experts"):
        found(WITHOUT_MIXERS).of_kind("mamba2")
    with pytest.raises(InputError, match=r"layer 1 has no experts \[16\]: its routed experts are 0 to 15"):
        expert_effects(*asked, [(1, 16)])
    with pytest.raises(InputError, match=r"layers \[0\] have no experts; the layers with experts are \[1, 2\]"):
        expert_knockout_effects(*asked, [[0]])


def _score(model: HookedModel, name: str) -> float:
    return float(model.score(encoded_of(name)).log_probability[0])


@contextmanager
def _silenced(name: str, layer: int, expert: int | str) -> Iterator[HookedModel]:
    """A copy whose expert writes nothing."""
    bare = deepcopy(model_of(name).model)
    block = module_of(bare, layer, EXPERTS)
    with torch.no_grad():
        if expert == "shared":
            block.shared_experts.down_proj.weight.zero_()
        else:
            block.experts.down_proj[expert].zero_()
    yield HookedModel(bare, model_of(name).processor)
