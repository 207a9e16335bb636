"""The trainer: TRL's own losses on text, weights and margins from the data, resuming, processes, refusals."""

import json
import math
import os
import subprocess
import sys
import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from torch.nn.functional import logsigmoid
from trl import RewardConfig
from trl import RewardTrainer as TextRewardTrainer

from probes.inputs import InputError
from rewardmodels.batching import PairCollator, usable_pairs
from rewardmodels.bradley_terry import BradleyTerry, PairBatch
from rewardmodels.group_dro import GroupDRO
from rewardmodels.model import RewardModel, as_turns
from rewardmodels.objectives import make_objective
from rewardmodels.proxies import adapter_branches, copied_branches
from rewardmodels.records import PreferencePair, Response
from rewardmodels.training import RewardTrainer, export
from rewardmodels.views import viewed
from tests.probes.hooked import picture
from tests.rewardmodels.drawn import drawn_pairs
from tests.rewardmodels.test_model import text_only
from tests.rewardmodels.training_run import BUNDLED, lora, losses, trainer

ROOT = Path(__file__).parents[2]


def settings(out: Path, **changes: Any) -> RewardConfig:
    given: dict[str, Any] = {
        "output_dir": str(out),
        "max_steps": 6,
        "per_device_train_batch_size": 4,
        "logging_steps": 1,
        "save_strategy": "no",
        "learning_rate": 1e-3,
        "bf16": False,
        "gradient_checkpointing": False,
        "report_to": "none",
        "disable_tqdm": True,
        "use_cpu": True,
        **changes,
    }
    return RewardConfig(**given)


def text_pairs(count: int) -> list[PreferencePair]:
    return [
        PreferencePair(
            id=str(number),
            prompt=as_turns(f"Say {number % 5}"),
            chosen=Response(f"it is {number % 5}"),
            rejected=Response("no" + " really" * (number % 3)),
            record=str(number),
            group="",
            source="",
            cluster=str(number),
            margin=0.1 * (number % 4),
        )
        for number in range(count)
    ]


@pytest.mark.parametrize("margins", [False, True])
@pytest.mark.parametrize("center", [None, 0.05])
def test_on_text_its_losses_are_trls_own(tmp_path: Path, margins: bool, center: float | None) -> None:
    folder = text_only(tmp_path / "base")
    pairs = [pair if margins else replace(pair, margin=None) for pair in text_pairs(24)]
    args = {"center_rewards_coefficient": center}
    ours = RewardTrainer(RewardModel.from_base(folder), pairs, settings(tmp_path / "ours", **args))
    ours.train()
    base = RewardModel.from_base(folder)
    rows = [
        {
            "prompt": [{"role": "user", "content": pair.prompt[0].text}],
            "chosen": [{"role": "assistant", "content": pair.chosen.text}],
            "rejected": [{"role": "assistant", "content": pair.rejected.text}],
            **({"margin": pair.margin} if margins else {}),
        }
        for pair in pairs
    ]
    theirs = TextRewardTrainer(
        model=base.model,
        args=settings(tmp_path / "theirs", **args),
        train_dataset=Dataset.from_list(rows),
        processing_class=base.processor,
    )
    theirs.train()
    for key in ("loss", "accuracy", "mean_reward", "margin", "num_tokens"):
        assert losses(ours.state.log_history, key) == pytest.approx(losses(theirs.state.log_history, key), rel=1e-5), (
            key
        )
    assert losses(ours.state.log_history)[0] != losses(ours.state.log_history)[-1]


@pytest.mark.slow
def test_images_reach_the_model_and_are_learned(tmp_path: Path) -> None:
    reward = RewardModel.from_base(BUNDLED, dtype=torch.float32)
    pairs = drawn_pairs(64, words=2, ending="")
    run = RewardTrainer(reward, pairs, settings(tmp_path, max_steps=40, per_device_train_batch_size=8))
    run.train()
    unseen = drawn_pairs(40, seed=1, words=2, ending="")
    margins = _margins(reward, unseen)
    assert (margins > 0).float().mean() > 0.9
    export(reward, tmp_path / "export")
    again = RewardModel.from_pretrained(tmp_path / "export")
    assert torch.allclose(_margins(again, unseen), margins, atol=1e-5)


def _margins(reward: RewardModel, pairs: list[PreferencePair]) -> torch.Tensor:
    prompts = [pair.prompt for pair in pairs]
    chosen = reward.get_scores(prompts, [pair.chosen for pair in pairs], batch_size=16)
    rejected = reward.get_scores(prompts, [pair.rejected for pair in pairs], batch_size=16)
    return torch.tensor(chosen) - torch.tensor(rejected)


@pytest.mark.parametrize(
    "kind",
    [
        "plain",
        "copied-lora",
        *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("copy", "lora", "plain-lora", "groups", "contrast")),
    ],
)
def test_a_resumed_run_gives_the_losses_of_an_unbroken_one(tmp_path: Path, kind: str) -> None:
    whole = trainer(tmp_path / "whole", kind, 10)
    whole.train()
    unbroken = losses(whole.state.log_history)
    # Another start shows that all that is learned comes from the checkpoint.
    resumed = trainer(tmp_path / "resumed", kind, 10)
    with torch.no_grad():
        for parameter in resumed.model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.3)
    resumed.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-5"))
    assert losses(resumed.state.log_history) == pytest.approx(unbroken, rel=1e-4)
    assert losses(resumed.state.log_history, "grad_norm")[5:] == pytest.approx(
        losses(whole.state.log_history, "grad_norm")[5:], rel=1e-3
    )


def launched(out: Path, kind: str, steps: int, *words: str) -> None:
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
    launch += ["--main_process_port", "0", "--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]
    ran = subprocess.run(
        [*launch, "-m", "tests.rewardmodels.training_run", str(out), kind, str(steps), *words],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr[-3000:]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["copy", "plain", "lora", "groups", "contrast"])
def test_two_processes_give_the_losses_of_one(tmp_path: Path, kind: str) -> None:
    alone = trainer(tmp_path / "alone", kind, 20)
    alone.train()
    launched(tmp_path / "shared", kind, 20)
    shared = json.loads((tmp_path / "shared" / "log.json").read_text())
    for key in ("loss", "grad_norm", "margin", "num_tokens", "min_reward"):
        assert losses(shared, key) == pytest.approx(losses(alone.state.log_history, key), rel=1e-4), key


@pytest.mark.slow
def test_two_processes_go_on_from_one_processs_checkpoint(tmp_path: Path) -> None:
    alone = trainer(tmp_path / "alone", "copy", 20)
    alone.train()
    launched(tmp_path / "shared", "copy", 20, str(tmp_path / "alone" / "checkpoint-5"))
    shared = json.loads((tmp_path / "shared" / "log.json").read_text())
    assert losses(shared) == pytest.approx(losses(alone.state.log_history), rel=1e-4)


def test_weights_and_margins_enter_the_loss_as_written(tmp_path: Path) -> None:
    reward = RewardModel.from_base(BUNDLED, dtype=torch.float32)
    pairs = [
        replace(pair, weight=weight, margin=margin)
        for pair, weight, margin in zip(drawn_pairs(4), (0.0, 2.0, 1.0, 0.5), (0.0, 0.3, 0.0, 1.0), strict=True)
    ]
    run = RewardTrainer(reward, pairs, settings(tmp_path, max_steps=1, seed=3))
    run.train()
    loss = losses(run.state.log_history)[0]
    untrained = RewardModel.from_base(BUNDLED, dtype=torch.float32)
    margins = _margins(untrained, pairs)
    target = torch.tensor([0.0, 0.3, 0.0, 1.0])
    weight = torch.tensor([0.0, 2.0, 1.0, 0.5])
    assert loss == pytest.approx(float((weight * -logsigmoid(margins - target)).mean()), rel=1e-4)
    assert loss != pytest.approx(float(-logsigmoid(margins - target).mean()), rel=1e-2)


@pytest.mark.parametrize("kind", ["copy", "lora"])
def test_gradients_are_the_papers(kind: str) -> None:
    """Main: the coefficient times its own loss's gradient; proxy: its own loss's gradient, exactly."""
    from peft import get_peft_model

    reward = RewardModel.from_base(BUNDLED, dtype=torch.float32)
    with torch.no_grad():
        reward.model.score.weight.mul_(30)
    torch.manual_seed(0)
    if kind == "lora":
        reward.model = get_peft_model(reward.model, lora())
        branches = adapter_branches(reward.model, lora())
        with torch.no_grad():
            for name, parameter in reward.model.named_parameters():
                if "lora_B" in name:
                    parameter.normal_(std=0.2)
    else:
        branches = copied_branches(reward.model)
    batch = PairCollator(reward, drawn_pairs(6), "blank")([{"index": place} for place in range(6)])
    proxy_inputs = batch.pop("proxy")
    del batch["group"]

    def margins() -> tuple[torch.Tensor, torch.Tensor]:
        main, text = (logits.squeeze(-1) for logits in branches(main=batch, proxy=proxy_inputs))
        return main[:6] - main[6:], text[:6] - text[6:]

    def gradients(loss: torch.Tensor) -> dict[str, torch.Tensor]:
        branches.zero_grad()
        torch.autograd.backward(loss)
        return {name: p.grad.clone() for name, p in branches.named_parameters() if p.grad is not None}

    main, text = margins()
    whole = gradients(make_objective("shortcut-aware")(PairBatch(margin=main, margin_text=text)).loss)
    main, text = margins()
    loss, loss_text = -logsigmoid(main), -logsigmoid(text)
    coefficient = (loss_text / (loss + loss_text)).detach()
    assert float(coefficient.max() - coefficient.min()) > 0.05
    parts = gradients((coefficient * loss).mean() + loss_text.mean())
    assert whole.keys() == parts.keys()
    assert any("proxy" in name for name in whole) and any("proxy" not in name for name in whole)
    for name, gradient in whole.items():
        assert torch.allclose(gradient, parts[name], atol=1e-6), name
    main, text = margins()
    plain = gradients((-logsigmoid(main)).mean() + (-logsigmoid(text)).mean())
    off = {name for name, gradient in whole.items() if not torch.allclose(gradient, plain[name], atol=1e-6)}
    assert off and not any("proxy" in name for name in off), "only the main branch is weighted"


@pytest.mark.parametrize("kind", ["copy", "lora"])
def test_a_proxys_gradients_taken_beforehand_are_those_of_the_usual_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    run = trainer(tmp_path, kind, 1)
    with torch.no_grad():
        for name, parameter in run.model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.2)
            elif "score" in name:
                parameter.mul_(30)
    pairs = [
        replace(pair, weight=weight, margin=margin)
        for pair, weight, margin in zip(drawn_pairs(4), (0.5, 2.0, 1.0, 0.5), (0.0, 0.3, 0.0, 1.0), strict=True)
    ]
    collator = PairCollator(run.reward, pairs, "blank")

    def gradients(scale: float) -> dict[str, torch.Tensor]:
        run.model.zero_grad()
        (scale * run.compute_loss(run.model, collator([{"index": place} for place in range(4)]))).backward()
        return {name: p.grad.clone() for name, p in run.model.named_parameters() if p.grad is not None}

    first = gradients(0.25)
    monkeypatch.setattr(run, "_learns_first", lambda: False)
    usual = gradients(0.25)
    assert first.keys() == usual.keys()
    assert any(float(gradient.abs().max()) > 1e-3 for name, gradient in usual.items() if "proxy" in name)
    for name, gradient in first.items():
        torch.testing.assert_close(gradient, usual[name], atol=1e-7, rtol=1e-4, msg=name)


@pytest.mark.parametrize("kind", ["copy", "lora"])
@pytest.mark.parametrize("first", [True, False])
def test_activations_of_the_proxy_are_gone_before_the_main_model_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, first: bool
) -> None:
    run = trainer(tmp_path, kind, 1)
    if not first:
        monkeypatch.setattr(run, "_learns_first", lambda: False)
    states: list[Any] = []
    held: list[int] = []

    def note(module: Any, inputs: Any, output: Any) -> None:
        held.append(sum(state() is not None for state in states))
        states.append(weakref.ref(output))

    for name, module in run.model.named_modules():
        if name.endswith("layers.0.mlp.act_fn"):
            module.register_forward_hook(note)
    run.compute_loss(run.model, PairCollator(run.reward, drawn_pairs(2), "blank")([{"index": 0}, {"index": 1}]))
    assert held == [0, 0 if first else 1]


def test_a_proxy_that_was_trained_before_stays_as_it_is(tmp_path: Path) -> None:
    reward = RewardModel.from_base(BUNDLED, dtype=torch.float32)
    branches = copied_branches(reward.model, trains_proxy=False)
    before = {name: value.clone() for name, value in branches.proxy_classifier().state_dict().items()}
    objective = make_objective("shortcut-aware", learn_text=False)
    RewardTrainer(reward, drawn_pairs(16), settings(tmp_path), objective=objective, branches=branches).train()
    after = branches.proxy_classifier().state_dict()
    assert all(torch.equal(before[name], value) for name, value in after.items())
    assert any(not torch.equal(before[name], value) for name, value in reward.model.state_dict().items())


def test_a_copied_proxy_learns_by_the_same_parts_as_the_model() -> None:
    from peft import get_peft_model

    def trained(model: Any) -> set[str]:
        return {name for name, parameter in model.named_parameters() if parameter.requires_grad}

    reward = RewardModel.from_base(BUNDLED, dtype=torch.float32)
    reward.model.get_input_embeddings().weight.requires_grad_(False)
    for model in (reward.model, get_peft_model(reward.model, lora())):
        branches = copied_branches(model)
        assert trained(branches.proxy_classifier()) == trained(model) != {name for name, _ in model.named_parameters()}
    assert not trained(copied_branches(model, trains_proxy=False).proxy_classifier())


@pytest.mark.parametrize("kind", ["plain", "plain-lora"])
def test_a_checkpoint_without_all_weights_is_not_resumed_from(tmp_path: Path, kind: str) -> None:
    from safetensors.torch import load_file, save_file

    trainer(tmp_path, kind, 5).train()
    path = tmp_path / "checkpoint-5" / ("model.safetensors" if kind == "plain" else "adapter_model.safetensors")
    weights = load_file(path)
    del weights[next(name for name in weights if name.endswith("score.weight"))]
    save_file(weights, path, metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"lacks 1 weights \(.*score.weight"):
        trainer(tmp_path / "again", kind, 10).train(resume_from_checkpoint=str(tmp_path / "checkpoint-5"))


def test_a_checkpoint_loads_as_a_reward_model(tmp_path: Path) -> None:
    run = trainer(tmp_path, "copy", 5)
    run.train()
    again = RewardModel.from_pretrained(tmp_path / "checkpoint-5")
    assert torch.allclose(_margins(again, drawn_pairs(8)), _margins(run.reward, drawn_pairs(8)), atol=1e-5)
    proxy = RewardModel(type(run.reward.model).from_pretrained(tmp_path / "checkpoint-5" / "proxy"), again.processor)
    assert not torch.allclose(_margins(proxy, drawn_pairs(8)), _margins(again, drawn_pairs(8)), atol=1e-3)


def test_a_lora_model_is_exported_merged(tmp_path: Path) -> None:
    run = trainer(tmp_path, "lora", 5)
    run.train()
    export(run.reward, tmp_path / "export")
    assert not list((tmp_path / "export").glob("adapter*"))
    again = RewardModel.from_pretrained(tmp_path / "export")
    margins = _margins(again, drawn_pairs(8))
    assert torch.allclose(margins, _margins(run.reward, drawn_pairs(8)), atol=1e-4)
    base = RewardModel.from_base(BUNDLED, dtype=torch.float32)
    assert not torch.allclose(margins, _margins(base, drawn_pairs(8)), atol=1e-3)


def test_evaluation_runs_on_its_own_pairs(tmp_path: Path) -> None:
    reward = RewardModel.from_base(BUNDLED, dtype=torch.float32)
    held_out = drawn_pairs(10, seed=5)
    run = RewardTrainer(reward, drawn_pairs(8), settings(tmp_path, per_device_eval_batch_size=5), held_out)
    found = run.evaluate()
    assert found["eval_loss"] == pytest.approx(float(-logsigmoid(_margins(reward, held_out)).mean()), rel=1e-4)


def test_image_contrast_holds_each_pair_against_another_pairs_image(tmp_path: Path) -> None:
    reward = RewardModel.from_base(BUNDLED, dtype=torch.float32)
    with torch.no_grad():
        reward.model.score.weight.mul_(30)
    pairs = drawn_pairs(8)
    objective = make_objective("image-contrast", ranking=0.25)
    args = settings(tmp_path, per_device_eval_batch_size=5, seed=2)
    found = RewardTrainer(reward, pairs, args, pairs, objective=objective).evaluate()
    other = viewed([pair.prompt for pair in pairs], [pair.cluster for pair in pairs], "shuffled", 2)
    swapped = [replace(pair, prompt=other(place)) for place, pair in enumerate(pairs)]
    own, others = _margins(reward, pairs), _margins(reward, swapped)
    expected = float((-0.25 * logsigmoid(own) - logsigmoid(own - others)).mean())
    assert found["eval_loss"] == pytest.approx(expected, rel=1e-4)
    assert abs(expected - float((-0.25 * logsigmoid(own) - logsigmoid(own)).mean())) > 1e-3
    with pytest.raises(InputError, match="no pair has an image"):
        RewardTrainer(RewardModel.from_base(text_only(tmp_path)), text_pairs(8), args, objective=objective)


def test_groups_have_the_objectives_numbers_in_training_and_in_evaluation(tmp_path: Path) -> None:
    """A group of large losses gains weight under its own name, and evaluation weighs pairs by the same groups."""
    pairs = text_pairs(16)
    sides = [replace(pair, group="abc"[place % 3]) for place, pair in enumerate(pairs)]
    folder = text_only(tmp_path / "base")
    for names in ("abc", "cab"):
        reward = RewardModel.from_base(folder)
        objective = make_objective("group-dro", groups=tuple(names), step=0.5)
        # The group "b" loses by a target that no model reaches.
        hard = [replace(pair, margin=5.0 if pair.group == "b" else 0.0) for pair in sides]
        held_out = [pair for pair in hard if pair.group == "b"]
        args = settings(tmp_path / names, learning_rate=0.0, per_device_train_batch_size=16, max_steps=2)
        run = RewardTrainer(reward, hard, args, held_out, objective=objective)
        run.train()
        assert isinstance(objective, GroupDRO) and objective.weights["b"] > 0.7
        found = run.evaluate()
        target = torch.tensor(5.0)
        expected = objective.weights["b"] * float(-logsigmoid(_margins(reward, held_out) - target).mean())
        assert found["eval_loss"] == pytest.approx(expected, rel=1e-4)
    with pytest.raises(InputError, match="of the groups \\['b'\\], and the objective knows \\['a', 'c'\\]"):
        RewardTrainer(reward, sides, args, objective=make_objective("group-dro", groups=("a", "c")))


def test_parts_of_a_batch_add_up_to_its_whole(tmp_path: Path) -> None:
    """Gradients that are gathered over two halves give the losses and gradients of the whole."""
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    parts = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2}
    runs = [trainer(whole, "plain", 2), trainer(halves, "plain", 2, **parts)]
    for run in runs:
        run.train()
    logs = [run.state.log_history for run in runs]
    for key in ("loss", "grad_norm"):
        assert losses(logs[1], key) == pytest.approx(losses(logs[0], key), rel=1e-4)


def test_a_loss_that_is_no_number_stops_the_run_and_leaves_its_checkpoints(tmp_path: Path) -> None:
    run = trainer(tmp_path, "plain", 5)
    run.train()
    before = sorted(path.name for path in (tmp_path / "checkpoint-5").iterdir())
    with torch.no_grad():
        run.reward.model.score.weight.fill_(float("nan"))
    run.args.max_steps = 20
    with pytest.raises(InputError, match="the loss is nan at step"):
        run.train()
    assert sorted(path.name for path in (tmp_path / "checkpoint-5").iterdir()) == before
    assert all(
        math.isfinite(margin)
        for margin in _margins(RewardModel.from_pretrained(tmp_path / "checkpoint-5"), drawn_pairs(4))
    )


def test_pairs_that_cannot_be_read_are_counted_with_their_reasons() -> None:
    reward = RewardModel.from_base(BUNDLED, dtype=torch.float32)
    good = drawn_pairs(3)
    from probes.inputs import ImageRef

    bad = [
        replace(good[0], id="broken", prompt=as_turns("What?", [ImageRef(data=b"not an image")])),
        replace(good[0], id="cut", prompt=as_turns("What?", [ImageRef(data=b"nor this one")])),
        replace(good[0], id="long", chosen=Response("word " * 3000)),
        replace(good[0], id="longer", rejected=Response("word " * 3001)),
        replace(good[0], id="marks", prompt=as_turns("<image> <image> What?", [picture(seed=0)])),
    ]
    steps: list[int] = []
    found = usable_pairs(reward, [*good, *bad], lambda: steps.append(1))
    assert [pair.id for pair in found.pairs] == [pair.id for pair in good]
    assert len(found.first) == 5 and len(steps) == 8
    assert found.reasons == {
        "no image, or one broken at its start": 2,
        "too long": 2,
        "the text has 2 <image> marks for 1 image": 1,
    }
    assert found.first[0].startswith("broken: ")


def test_what_does_not_go_together_is_refused(tmp_path: Path) -> None:
    reward = RewardModel.from_base(BUNDLED, dtype=torch.float32)
    pairs = drawn_pairs(4)
    with pytest.raises(InputError, match="no pair"):
        RewardTrainer(reward, [], settings(tmp_path))
    with pytest.raises(InputError, match="text-only proxy"):
        RewardTrainer(reward, pairs, settings(tmp_path), objective=make_objective("shortcut-aware"))
    with pytest.raises(InputError, match="LoRA too"):
        adapter_branches(reward.model, lora())
    from peft import LoraConfig, get_peft_model

    with pytest.raises(InputError, match="modules_to_save"):
        adapter_branches(get_peft_model(reward.model, LoraConfig(target_modules=["q_proj"])), lora())
    tuned = RewardModel.from_base(BUNDLED, dtype=torch.float32)
    tuned.model = get_peft_model(tuned.model, lora())
    branches = adapter_branches(tuned.model, lora())
    with pytest.raises(InputError, match="gradient checkpointing"):
        RewardTrainer(
            tuned,
            pairs,
            settings(tmp_path, gradient_checkpointing=True),
            objective=make_objective("shortcut-aware"),
            branches=branches,
        )
    with pytest.raises(InputError, match="does not teach"):
        RewardTrainer(
            tuned,
            pairs,
            settings(tmp_path),
            objective=make_objective("shortcut-aware", learn_text=False),
            branches=branches,
        )
    run = trainer(tmp_path / "run", "plain", 5)
    run.train()
    other = trainer(tmp_path / "other", "groups", 5)
    with pytest.raises(InputError, match="its own objective"):
        other.train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-5"))


def test_the_default_objective_is_plain() -> None:
    assert BradleyTerry().name == "bradley-terry"
