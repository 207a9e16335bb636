"""Objectives: each against a formula by hand, its gradients, its state, and the sum over processes."""

import json
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from rewardmodels.objectives import OBJECTIVES, GroupDRO, Objective, PairBatch, make_objective
from rewardmodels.shortcut import shortcut_aware_loss

OPTIONS: dict[str, dict[str, Any]] = {name: {} for name in OBJECTIVES} | {"group-dro": {"groups": ("a", "b", "c")}}


def softplus(value: float) -> float:
    return math.log1p(math.exp(-abs(value))) + max(value, 0.0)


def sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value))


def doubles(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64, requires_grad=True)


def example(**more: Tensor) -> PairBatch:
    return PairBatch(doubles(1.0, -0.5, 2.0), doubles(3.0, -1.0, 0.2), margin_shuffled=doubles(0.5, 0.0, -1.0), **more)


def gradient(loss: Tensor, of: Tensor | None) -> list[float]:
    assert of is not None
    (found,) = torch.autograd.grad(loss, of, retain_graph=True)
    return [float(value) for value in found]


MAIN, TEXT = (1.0, -0.5, 2.0), (3.0, -1.0, 0.2)
LOSS, LOSS_TEXT = [softplus(-m) for m in MAIN], [softplus(-m) for m in TEXT]


def test_plain_by_hand() -> None:
    batch = example()
    found = make_objective("bradley-terry")(batch)
    assert found.loss.item() == pytest.approx(sum(LOSS) / 3 + sum(LOSS_TEXT) / 3)
    assert gradient(found.loss, batch.margin) == pytest.approx([-sigmoid(-m) / 3 for m in MAIN])
    assert found.log["loss_main"].item() == pytest.approx(sum(LOSS) / 3)
    assert found.log["accuracy"].item() == pytest.approx(2 / 3)
    assert found.log["accuracy_text"].item() == pytest.approx(2 / 3)
    alone = make_objective("bradley-terry", learn_text=False)(batch)
    assert alone.loss.item() == pytest.approx(sum(LOSS) / 3)
    assert alone.log["loss_text"].item() == pytest.approx(sum(LOSS_TEXT) / 3)


def test_image_contrast_by_hand() -> None:
    margin, shuffled = doubles(1.0, -0.5, 2.0), doubles(0.5, -1.5, 2.5)
    weight, target = torch.tensor([1.0, 2.0, 0.5]), torch.tensor([0.0, 0.25, 0.0])
    batch = PairBatch(margin, margin_shuffled=shuffled, weight=weight, target=target)
    found = make_objective("image-contrast", ranking=0.3, contrast=2.0)(batch)
    rank = [softplus(-1.0), softplus(0.75), softplus(-2.0)]
    apart = [softplus(-0.5), softplus(-1.0), softplus(0.5)]
    expected = [w * (0.3 * r + 2 * a) for w, r, a in zip((1.0, 2.0, 0.5), rank, apart, strict=True)]
    assert found.loss.item() == pytest.approx(sum(expected) / 3)
    assert found.log["loss_contrast"].item() == pytest.approx(sum(apart) / 3)
    assert found.log["accuracy_contrast"].item() == pytest.approx(2 / 3)
    by_image = [-w * 2 * sigmoid(-g) / 3 for w, g in zip((1.0, 2.0, 0.5), (0.5, 1.0, -0.5), strict=True)]
    assert gradient(found.loss, shuffled) == pytest.approx([-value for value in by_image])


def test_image_contrast_alone_is_blind_to_what_the_texts_say() -> None:
    says = doubles(3.0, -2.0)
    alone = make_objective("image-contrast", ranking=0.0)
    sees = torch.tensor([0.4, -0.1])
    found = alone(PairBatch(sees + says, margin_shuffled=says))
    assert gradient(found.loss, says) == pytest.approx([0.0, 0.0], abs=1e-12)
    both = make_objective("image-contrast")(PairBatch(sees + says, margin_shuffled=says))
    assert max(map(abs, gradient(both.loss, says))) > 0.01


@pytest.mark.parametrize("options", [{"ranking": -1.0}, {"contrast": math.inf}, {"ranking": 0.0, "contrast": 0.0}])
def test_image_contrast_refuses_what_cannot_be_learned_by(options: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"ranking|contrast"):
        make_objective("image-contrast", **options)


def test_targets_weights_and_centring_by_hand() -> None:
    batch = PairBatch(
        doubles(1.0, -0.5),
        weight=torch.tensor([2.0, 0.5]),
        target=torch.tensor([0.3, 0.0]),
        reward_sum=torch.tensor([4.0, -2.0]),
    )
    found = make_objective("bradley-terry", center=0.01)(batch)
    plain = (2.0 * softplus(-0.7) + 0.5 * softplus(0.5)) / 2
    assert found.loss.item() == pytest.approx(plain + 0.01 * (2.0 * 16 + 0.5 * 4) / 2)
    assert found.log["loss_center"].item() == pytest.approx(0.17)
    assert found.log["accuracy"].item() == 0.5


def test_text_only_weight_by_hand() -> None:
    batch = example()
    factors = [max(0.05, 1 - sigmoid(m)) for m in TEXT]
    assert factors[0] == 0.05 and factors[1] > 0.5
    found = make_objective("text-only-weight")(batch)
    expected = sum(f * loss for f, loss in zip(factors, LOSS, strict=True)) / 3
    assert found.log["loss_main"].item() == pytest.approx(expected)
    assert gradient(found.loss, batch.margin) == pytest.approx(
        [-f * sigmoid(-m) / 3 for f, m in zip(factors, MAIN, strict=True)]
    )
    assert found.log["pair_weight_min"].item() == pytest.approx(0.05)


def test_product_of_experts_by_hand() -> None:
    batch = example()
    found = make_objective("product-of-experts")(batch)
    joint = [m + t for m, t in zip(MAIN, TEXT, strict=True)]
    assert found.log["loss_main"].item() == pytest.approx(sum(softplus(-m) for m in joint) / 3)
    assert gradient(found.loss, batch.margin) == pytest.approx([-sigmoid(-m) / 3 for m in joint])
    assert found.log["accuracy"].item() == pytest.approx(2 / 3)


def test_targets_are_taken_off_once() -> None:
    target = torch.tensor([0.3, 0.0, 1.5])
    batch = example(target=target)
    off = list(zip(MAIN, TEXT, target.tolist(), strict=True))
    product = make_objective("product-of-experts")(batch).log["loss_main"].item()
    assert product == pytest.approx(sum(softplus(-(m + t - by)) for m, t, by in off) / 3, rel=1e-6)
    weighted = make_objective("text-only-weight")(batch).log["loss_main"].item()
    assert weighted == pytest.approx(sum(max(0.05, sigmoid(-t)) * softplus(by - m) for m, t, by in off) / 3, rel=1e-6)
    aware = make_objective("shortcut-aware")(batch).log["loss_main"].item()
    pairs = [(softplus(by - m), softplus(by - t)) for m, t, by in off]
    assert aware == pytest.approx(sum(text / (main + text) * main for main, text in pairs) / 3, rel=1e-6)


def test_shortcut_aware_is_the_loss_of_its_module() -> None:
    weight = torch.tensor([1.0, 0.2, 2.0])
    for options in ({}, {"normalize": True}, {"exponent": 0.7, "normalize": True}):
        batch = example(weight=weight)
        found = make_objective("shortcut-aware", **options)(batch)
        assert batch.margin_text is not None
        expected = shortcut_aware_loss(batch.margin, batch.margin_text, weight, **options)
        torch.testing.assert_close(found.loss, expected)
        assert gradient(found.loss, batch.margin) == pytest.approx(gradient(expected, batch.margin))


@pytest.mark.parametrize("name", OBJECTIVES)
def test_the_proxy_learns_by_plain_bradley_terry_whatever_the_objective(name: str) -> None:
    batch = example(group=torch.tensor([0, 1, 2]))
    found = make_objective(name, **OPTIONS[name])(batch)
    assert gradient(found.loss, batch.margin_text) == pytest.approx([-sigmoid(-m) / 3 for m in TEXT])
    still = make_objective(name, **OPTIONS[name], learn_text=False)(batch)
    assert batch.margin_text is not None
    assert torch.autograd.grad(still.loss, batch.margin_text, allow_unused=True)[0] is None
    assert all(value.ndim == 0 and not value.requires_grad for value in found.log.values())


def test_group_dro_by_hand() -> None:
    objective = make_objective("group-dro", groups=("a", "b", "c"), step=0.5)
    batch = PairBatch(doubles(1.0, -0.5, 2.0), group=torch.tensor([1, 0, 1]))
    means = [LOSS[1], (LOSS[0] + LOSS[2]) / 2, 0.0]
    raw = [math.exp(0.5 * mean) / 3 for mean in means]
    weights = [value / sum(raw) for value in raw]
    found = objective(batch)
    assert isinstance(objective, GroupDRO)
    assert list(objective.weights.values()) == pytest.approx(weights, rel=1e-6)
    assert found.loss.item() == pytest.approx(sum(w * m for w, m in zip(weights, means, strict=True)), rel=1e-6)
    slopes = [-sigmoid(-m) for m in MAIN]
    expected = [weights[1] * slopes[0] / 2, weights[0] * slopes[1], weights[1] * slopes[2] / 2]
    assert gradient(found.loss, batch.margin) == pytest.approx(expected, rel=1e-6)
    assert found.log["group_weight/a"].item() == pytest.approx(weights[0], rel=1e-6)


def test_group_dro_turns_to_the_group_that_does_badly() -> None:
    objective = GroupDRO(groups=("good", "bad"), step=0.1)
    batch = PairBatch(doubles(3.0, 3.0, -1.0), group=torch.tensor([0, 0, 1]))
    for _ in range(60):
        objective(batch)
    assert objective.weights["bad"] > 0.99
    assert sum(objective.weights.values()) == pytest.approx(1.0, abs=1e-6)


def test_group_dro_state_goes_on_where_it_was() -> None:
    batch = PairBatch(doubles(1.0, -2.0), group=torch.tensor([0, 1]))
    unbroken, first = GroupDRO(groups=("a", "b")), GroupDRO(groups=("a", "b"))
    for _ in range(5):
        first(batch)
        unbroken(batch)
    second = GroupDRO(groups=("a", "b"))
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    for _ in range(5):
        assert torch.equal(second(batch).loss, unbroken(batch).loss)
    assert second.state_dict() == unbroken.state_dict() != GroupDRO(groups=("a", "b")).state_dict()


def test_evaluation_leaves_the_state_alone() -> None:
    objective = GroupDRO(groups=("a", "b"))
    before = objective.state_dict()
    objective(PairBatch(doubles(1.0, -2.0), group=torch.tensor([0, 1])), training=False)
    assert objective.state_dict() == before


def test_a_loss_that_is_not_finite_shows_and_leaves_the_state_finite() -> None:
    objective = GroupDRO(groups=("a", "b"))
    found = objective(PairBatch(doubles(math.nan, -2.0), group=torch.tensor([0, 1])))
    assert found.loss.isnan() and all(math.isfinite(weight) for weight in objective.weights.values())


def two_processes(objective: Callable[[], Objective], parts: list[PairBatch]) -> tuple[Tensor, list[float]]:
    """Mean loss, and the gradients that averaging over processes gives, with totals exchanged as a gather would."""
    asked: list[Tensor] = []

    def note(value: Tensor) -> Tensor:
        asked.append(value)
        return value

    totals: list[list[Tensor]] = []
    for part in parts:
        asked.clear()
        objective()(part, total=note)
        totals.append(list(asked))
    sums = [torch.stack(list(pair)).sum(0) for pair in zip(*totals, strict=True)]
    losses = []
    for part in parts:
        waiting = iter(sums)
        losses.append(objective()(part, total=lambda _, waiting=waiting: next(waiting)).loss)  # type: ignore[misc]
    loss = torch.stack(losses).mean()
    return loss, [slope for part in parts for slope in gradient(loss, part.margin)]


@pytest.mark.parametrize("name", OBJECTIVES)
def test_two_processes_learn_as_one(name: str) -> None:
    options = OPTIONS[name] | ({"normalize": True} if name == "shortcut-aware" else {})
    generator = torch.Generator().manual_seed(0)
    margin, text, weight = (torch.randn(8, generator=generator, dtype=torch.float64) for _ in range(3))
    group = torch.tensor([0, 0, 2, 1, 1, 1, 0, 0])

    def batch(part: slice) -> PairBatch:
        return PairBatch(
            margin[part].clone().requires_grad_(),
            text[part].clone(),
            weight[part].abs(),
            group[part].clone(),
            margin_shuffled=-margin[part] / 2,
        )

    whole = batch(slice(8))
    expected = make_objective(name, **options)(whole).loss
    loss, slopes = two_processes(lambda: make_objective(name, **options), [batch(slice(4)), batch(slice(4, 8))])
    torch.testing.assert_close(loss, expected, rtol=1e-6, atol=1e-8)
    assert slopes == pytest.approx(gradient(expected, whole.margin), rel=1e-5)


@settings(max_examples=8)
@given(st.lists(st.tuples(st.floats(-8, 8), st.floats(-8, 8)), min_size=1, max_size=6), st.randoms())
def test_the_order_of_pairs_does_not_matter(pairs: list[tuple[float, float]], random: Any) -> None:
    shuffled = random.sample(pairs, len(pairs))
    for name in OBJECTIVES:
        losses = [
            make_objective(name, **OPTIONS[name])(
                PairBatch(
                    torch.tensor([main for main, _ in some]),
                    torch.tensor([text for _, text in some]),
                    group=torch.tensor([int(main > 0) for main, _ in some]),
                    margin_shuffled=torch.tensor([text / 2 for _, text in some]),
                )
            ).loss.item()
            for some in (pairs, shuffled)
        ]
        assert losses[0] == pytest.approx(losses[1], rel=1e-5, abs=1e-6)


def test_plain_training_is_the_middle_of_its_neighbours() -> None:
    """Where nobody knows anything, 1 - p and the coefficient are 1/2, and the product changes nothing."""
    batch = PairBatch(torch.zeros(3), torch.zeros(3))
    plain = make_objective("bradley-terry")(batch).log["loss_main"].item()
    assert make_objective("shortcut-aware")(batch).log["loss_main"].item() == pytest.approx(plain / 2)
    assert make_objective("text-only-weight")(batch).log["loss_main"].item() == pytest.approx(plain / 2)
    assert make_objective("product-of-experts")(batch).log["loss_main"].item() == pytest.approx(plain)


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("no-such", {}, "unknown objective 'no-such': there are bradley-terry, shortcut-aware"),
        ("bradley-terry", {"exponent": 2}, "no option exponent; it has center, learn_text"),
        ("bradley-terry", {"center": -1.0}, "center"),
        ("shortcut-aware", {"exponent": -1.0}, "exponent"),
        ("text-only-weight", {"floor": 2.0}, "floor"),
        ("group-dro", {}, "at least two groups"),
        ("group-dro", {"groups": ("a", "a")}, "different names"),
        ("group-dro", {"groups": ("a", "b"), "step": 0.0}, "step"),
    ],
)
def test_wrong_options_are_refused(name: str, options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make_objective(name, **options)


def test_what_a_batch_lacks_is_named() -> None:
    bare = PairBatch(torch.zeros(2))
    for name in ("shortcut-aware", "text-only-weight", "product-of-experts"):
        with pytest.raises(ValueError, match=f"{name}' needs the batch's margin_text"):
            make_objective(name)(bare)
    with pytest.raises(ValueError, match="needs the batch's group"):
        make_objective("group-dro", groups=("a", "b"))(bare)
    with pytest.raises(ValueError, match="reward_sum"):
        make_objective("bradley-terry", center=0.1)(bare)
    with pytest.raises(ValueError, match="whole numbers from 0 to 1, got"):
        make_objective("group-dro", groups=("a", "b"))(PairBatch(torch.zeros(2), group=torch.tensor([0, 2])))
    with pytest.raises(ValueError, match="weight must hold one value for each of the 2 pairs"):
        PairBatch(torch.zeros(2), weight=torch.ones(3))
    with pytest.raises(ValueError, match="at least one pair"):
        PairBatch(torch.zeros(0))


def test_a_state_of_something_else_is_refused() -> None:
    objective = GroupDRO(groups=("a", "b"))
    with pytest.raises(ValueError, match="groups"):
        objective.load_state_dict({"groups": ["b", "a"], "log_weights": [0.0, 0.0]})
    with pytest.raises(ValueError, match="one finite log weight"):
        objective.load_state_dict({"groups": ["a", "b"], "log_weights": [math.nan, 0.0]})
    with pytest.raises(ValueError, match="has no state"):
        make_objective("bradley-terry").load_state_dict(objective.state_dict())
