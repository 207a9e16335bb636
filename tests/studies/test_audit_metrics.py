"""Every published number against a computation by hand from the run's Parquet files, which shares no code with it."""

from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from probes.inputs import InputError
from probes.scores import Rule
from studies.auditing.choices import DEFAULT_RULE, Choice, choose
from studies.auditing.entries import find
from studies.auditing.metrics import audit_metrics
from studies.auditing.position_metrics import position_metrics
from tests.studies.made_evidence import evidence
from tests.studies.small_audit import Small

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Small:
    return Small(tmp_path_factory.mktemp("small"))


def rows_of(path: Path, table: str) -> list[dict[str, Any]]:
    return [row for file in sorted((path / table).glob("*.parquet")) for row in pq.read_table(file).to_pylist()]


def factors_of(path: Path, rows: str) -> dict[str, dict[int, dict[int, float]]]:
    """Factors by sample, layer and image."""
    found: dict[str, dict[int, dict[int, float]]] = defaultdict(lambda: defaultdict(dict))
    for row in rows_of(path, "layers"):
        if row["rows"] == rows and row["measure"] == "factor" and row["head"] == -1:
            found[row["sample_id"]][row["layer"]][row["image"]] = row["factor"]
    return found


def pick(factors: dict[int, dict[int, float]], rule: str, last: int) -> int:
    """The three rules in plain Python."""
    layers = sorted(factors)[-last:]
    images = sorted(factors[layers[0]])
    if rule == "LND":
        return max(images, key=lambda image: max(factors[layer][image] for layer in layers))
    if rule == "M-LND":
        return max(images, key=lambda image: sum(factors[layer][image] for layer in layers))
    winners = {layer: max(images, key=lambda image: factors[layer][image]) for layer in layers}
    votes = Counter(winners.values())

    def strength(image: int) -> float:
        return sum(factors[layer][image] for layer in layers if winners[layer] == image)

    return max(images, key=lambda image: (votes[image], strength(image)))


def by_hand(path: Path, rows: str, split: str, rule: str, last: int) -> dict[str, float]:
    factors = factors_of(path, rows)
    samples = [row for row in rows_of(path, "samples") if row["split"] == split and row["sample_id"] in factors]
    hits = {row["sample_id"]: pick(factors[row["sample_id"]], rule, last) == row["target"] for row in samples}
    right = [row for row in samples if row["correct"]]
    wrong = [row for row in samples if not row["correct"]]
    images = {row["sample_id"]: len(factors[row["sample_id"]][0]) for row in samples}
    return {
        "answer_accuracy": len(right) / len(samples),
        "attention_accuracy": sum(hits[row["sample_id"]] for row in right) / max(len(right), 1),
        "ivm_rate": 1 - sum(hits[row["sample_id"]] for row in right) / max(len(right), 1),
        "attention_when_wrong": sum(hits[row["sample_id"]] for row in wrong) / max(len(wrong), 1),
        "attention_overall": sum(hits.values()) / len(samples),
        "chance": sum(1 / count for count in images.values()) / len(samples),
    }


@pytest.mark.parametrize("rows", ["paper", "predicting", "anchor"])
def test_rule_is_the_simplest_best_one_on_dev(small: Small, rows: str) -> None:
    order = [(rule, last) for last in (1, 2, 3) for rule in ("LND", "M-LND", "MC-LND")]
    scores = [by_hand(small.out, rows, "dev", *candidate)["attention_accuracy"] for candidate in order]
    best = order[int(np.argmax(scores))]
    entry = find(small.run.read_metrics(), "attention_accuracy", rows=rows, split="test")[0]
    assert (entry["rule"], entry["last"]) == best
    assert entry["rule_source"].startswith("dev split, ")


@pytest.mark.parametrize("rows", ["paper", "predicting", "anchor"])
@pytest.mark.parametrize("split", ["dev", "test"])
def test_scoreboard(small: Small, rows: str, split: str) -> None:
    entries = small.run.read_metrics()
    rule = find(entries, "attention_accuracy", rows=rows, split=split)[0]
    for name, value in by_hand(small.out, rows, split, rule["rule"], rule["last"]).items():
        found = find(entries, name, rows=rows, split=split)
        assert len(found) == 1
        if found[0]["estimate"]["n"]:
            assert found[0]["estimate"]["value"] == pytest.approx(value), name
        else:
            assert found[0]["estimate"]["value"] is None


def test_oracle_is_the_maximum_over_all_rules_and_says_so(small: Small) -> None:
    order = [(rule, last) for last in (1, 2, 3) for rule in ("LND", "M-LND", "MC-LND")]
    best = max(by_hand(small.out, "paper", "test", *candidate)["attention_accuracy"] for candidate in order)
    entry = find(small.run.read_metrics(), "oracle_maximum", rows="paper", split="test")[0]
    assert entry["estimate"]["value"] == pytest.approx(best)
    assert "oracle" in entry["rule_source"] and "evaluation samples" in entry["rule_source"]
    assert not find(small.run.read_metrics(), "oracle_maximum", rows="paper", split="dev")


def test_by_layer(small: Small) -> None:
    factors = factors_of(small.out, "paper")
    right = [row for row in rows_of(small.out, "samples") if row["split"] == "test" and row["correct"]]
    found = find(small.run.read_metrics(), "attention_accuracy", layer=..., rows="paper", split="test")
    by_layer = {entry["layer"]: entry["estimate"]["value"] for entry in found if entry["layer"] is not None}
    assert set(by_layer) == {0, 1, 2}
    for layer, value in by_layer.items():
        hits = [pick({0: factors[row["sample_id"]][layer]}, "LND", 1) == row["target"] for row in right]
        assert value == pytest.approx(np.mean(hits))


def test_focus_file(small: Small) -> None:
    rows = pq.read_table(small.out / "focus.parquet").to_pylist()
    factors = {name: factors_of(small.out, name) for name in ("paper", "predicting", "anchor")}
    assert len(rows) == sum(len(found) for found in factors.values())
    for row in rows:
        assert row["focus"] == pick(factors[row["rows"]][row["sample_id"]], row["rule"], row["last"])


def test_regions(small: Small) -> None:
    samples = {row["sample_id"]: row for row in rows_of(small.out, "samples") if row["task"] == "content"}
    cells = defaultdict(list)
    for row in rows_of(small.out, "cells"):
        cells[row["sample_id"], row["image"]].append(row["left"] < 16 and row["top"] < 16)
    for layer in (0, 1, 2):
        hits = []
        for row in rows_of(small.out, "maps"):
            own = samples.get(row["sample_id"])
            if (
                own
                and own["split"] == "test"
                and (row["rows"], row["layer"], row["image"]) == ("paper", layer, own["target"])
            ):
                inside = cells[row["sample_id"], row["image"]]
                assert sum(inside) == 4
                hits.append(inside[int(np.argmax(row["map"]))])
        found = find(small.run.read_metrics(), "region_attention_accuracy", split="test", layer=layer)[0]
        assert found["estimate"]["value"] == pytest.approx(np.mean(hits))
        assert found["chance"] == pytest.approx(0.25)


def test_causal_agreement(small: Small) -> None:
    entries = small.run.read_metrics()
    rule = find(entries, "attention_accuracy", rows="paper", split="test")[0]
    factors = factors_of(small.out, "paper")
    for intervention, window in (("blank", "all"), ("swap", "all"), ("knockout", "all"), ("knockout", "1")):
        effects: dict[str, dict[int, float]] = defaultdict(dict)
        for row in rows_of(small.out, "effects"):
            if (row["intervention"], row["window"]) == (intervention, window):
                effects[row["sample_id"]][row["image"]] = row["effect"]
        agree = [
            max(own, key=lambda image: own[image]) == pick(factors[name], rule["rule"], rule["last"])
            for name, own in effects.items()
        ]
        found = find(entries, "causal_agreement", rows="paper", split="test", intervention=intervention, window=window)
        assert len(found) == 1
        assert found[0]["estimate"]["value"] == pytest.approx(np.mean(agree))
        assert found[0]["chance"] == pytest.approx(np.mean([1 / len(own) for own in effects.values()]))


def test_position_spread(small: Small) -> None:
    path = small.out / "position"
    entries = small.run.read_metrics()
    rule = find(entries, "attention_accuracy", rows="paper", split="test")[0]
    factors = factors_of(path, "paper")
    answered, looked = defaultdict(list), defaultdict(list)
    for row in rows_of(path, "samples"):
        answered[row["target"]].append(row["correct"])
        if row["correct"]:
            hit = pick(factors[row["sample_id"]], rule["rule"], rule["last"]) == row["target"]
            looked[row["target"]].append(hit)
    rates = [np.mean(answered[place]) for place in sorted(answered)]
    found = find(entries, "answer_spread", rows="paper", places=2)[0]
    assert found["estimate"]["value"] == pytest.approx(max(rates) - min(rates))
    if set(looked) == {0, 1}:
        seen = [np.mean(looked[place]) for place in (0, 1)]
        gap = find(entries, "spread_gap", rows="paper", places=2)[0]
        assert gap["estimate"]["value"] == pytest.approx(max(rates) - min(rates) - (max(seen) - min(seen)))


def test_every_entry_is_complete(small: Small) -> None:
    for entry in small.run.read_metrics():
        assert {"name", "rows", "rule", "last", "rule_source", "task", "split", "layer", "estimate"} <= set(entry)
        assert set(entry["estimate"]) == {"value", "n", "low", "high", "clusters"}
        if entry["rule"] is not None:
            assert entry["rule_source"]


def test_the_rule_sees_the_dev_split_only() -> None:
    known = evidence()
    right = int(known.correct[known.split == "dev"].sum())
    assert choose(known, "paper").source == f"dev split, {right} right answers"
    blind = known.factors["paper"].copy()
    blind[known.split != "dev"] = 0.5
    assert choose(evidence(factors={"paper": blind}), "paper") == choose(known, "paper")
    blind = known.factors["paper"].copy()
    blind[known.split == "dev"] = np.random.default_rng(1).random(blind[known.split == "dev"].shape)
    assert choose(evidence(factors={"paper": blind}), "paper").rule != choose(known, "paper").rule


@pytest.mark.parametrize(
    ("changes", "reason"),
    [({"dev": 0.0}, "no dev split"), ({"correct": np.zeros(200)}, "no answer of the dev split is right")],
)
def test_without_a_usable_dev_split_the_default_rule_is_taken_and_named(changes: dict[str, Any], reason: str) -> None:
    known = evidence(**changes)
    choice = choose(known, "paper")
    assert choice.rule == DEFAULT_RULE
    assert reason in choice.source
    for entry in find(audit_metrics(known, {"paper": choice}), "attention_accuracy", rows="paper", split="test"):
        assert reason in entry["rule_source"]


def test_planted_layer_is_found_and_layers_carry_their_true_index() -> None:
    known = evidence()
    entries = audit_metrics(known, {"paper": choose(known, "paper")})
    by_layer = find(entries, "attention_accuracy", layer=..., rows="paper", split="test")
    values = {entry["layer"]: entry["estimate"]["value"] for entry in by_layer if entry["layer"] is not None}
    assert values[5] == 1.0
    assert all(0.1 < values[layer] < 0.45 for layer in (1, 3, 7, 9))


def test_unscored_samples_and_those_without_target_are_left_out_of_attention() -> None:
    known = evidence()
    correct, target = known.correct.copy(), known.target.copy()
    correct[:20], target[20:40] = np.nan, -1
    entries = audit_metrics(evidence(correct=correct, target=target), {"paper": Choice(Rule("LND", 1), "dev split")})
    test = known.split == "test"
    answered = find(entries, "answer_accuracy", split="test")
    assert next(entry for entry in answered if entry["rows"] is None)["estimate"]["n"] == test[20:].sum()
    assert find(entries, "attention_overall", rows="paper", split="test")[0]["estimate"]["n"] == test[40:].sum()


def test_position_metrics_find_a_planted_bias() -> None:
    places, bases = 4, 50
    target = np.tile(np.arange(places), bases)
    correct = (np.random.default_rng(0).random(places * bases) < np.where(target == 0, 0.9, 0.5)).astype(float)
    factors = np.zeros((places * bases, 5, 4))
    factors[np.arange(places * bases), :, target] = 1.0
    known = evidence(
        samples=places * bases,
        target=target,
        correct=correct,
        ids=tuple(f"b{index // places}@{index % places + 1}" for index in range(places * bases)),
        cluster=np.repeat([f"b{index}" for index in range(bases)], places),
        factors={"paper": factors},
    )
    asked = {f"b{index}": places for index in range(bases)}
    entries = position_metrics(known, {"paper": Choice(Rule("LND", 1), "dev split")}, seed=0, asked=asked)
    answer = find(entries, "answer_spread", rows="paper", places=4)[0]
    attention = find(entries, "attention_spread", rows="paper", places=4)[0]
    assert answer["estimate"]["low"] > 0.15 and answer["estimate"]["clusters"] == bases
    assert attention["estimate"]["value"] == 0.0
    assert find(entries, "spread_gap", rows="paper", places=4)[0]["estimate"]["low"] > 0.1


def test_base_samples_with_a_failed_place_are_left_out_and_counted() -> None:
    places, bases = 4, 10
    names = [f"b{base}@{place + 1}" for base in range(bases) for place in range(places)]
    kept = [name for name in names if name not in ("b0@4", "b1@1") and not name.startswith("b2@")]
    target = np.array([int(name[-1]) - 1 for name in kept])
    factors = np.zeros((len(kept), 5, 4))
    factors[np.arange(len(kept)), :, target] = 1.0
    known = evidence(
        samples=len(kept),
        ids=tuple(kept),
        target=target,
        correct=np.array([not name.startswith(("b0@", "b1@")) for name in kept], dtype=float),
        cluster=np.array([name.partition("@")[0] for name in kept]),
        factors={"paper": factors},
    )
    choices = {"paper": Choice(Rule("LND", 1), "dev split")}
    entries = position_metrics(known, choices, seed=0, asked={f"b{base}": places for base in range(bases)})
    spreads = find(entries, "answer_spread", places=...)
    assert [(entry["places"], entry["left_out"]) for entry in spreads] == [(4, 3)]
    assert spreads[0]["estimate"]["n"] == 7 * places
    by_place = find(entries, "answer_accuracy", places=4, position=...)
    assert [entry["estimate"]["value"] for entry in by_place] == [1.0] * places
    assert [entry["estimate"]["n"] for entry in by_place] == [7] * places
    nothing = position_metrics(known.where(np.zeros(len(kept), dtype=bool)), choices, seed=0, asked={"b0": 4})
    assert [(entry["left_out"], entry["estimate"]["n"]) for entry in find(nothing, "spread_gap", places=4)] == [(1, 0)]


def test_input_error_is_what_choose_rule_raises_without_right_answers() -> None:
    from probes.scores import choose_rule

    with pytest.raises(InputError):
        choose_rule(np.ones((2, 2, 2)), [0, 1], [False, False])
