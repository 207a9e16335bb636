"""The callback in a real transformers training: what it logs, what it costs, and that training does not notice it."""

import time
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import Trainer, TrainerControl, TrainingArguments

from probes.inputs import InputError
from probes.interventions import blank_effects
from probes.model import HookedModel, Question
from probes.scores import attention_accuracy
from studies.multi_image import MultiImageQuestion, answer_correct, read_questions
from studies.training_callback import AttentionAccuracyCallback
from tests.studies.small_audit import make_answerable, save_model, save_questions

pytestmark = pytest.mark.filterwarnings("ignore")


class Setting:
    """A model on disk and questions of which it answers some right."""

    def __init__(self, root: Path) -> None:
        self.model = save_model(root / "model")
        data = save_questions(root / "data")
        make_answerable(self.model, data)
        self.questions: list[MultiImageQuestion] = list(read_questions(data).records)


@pytest.fixture(scope="module")
def setting(tmp_path_factory: pytest.TempPathFactory) -> Setting:
    return Setting(tmp_path_factory.mktemp("training"))


def trainer_of(hooked: HookedModel, out: Path, steps: int) -> Trainer:
    rng = np.random.default_rng(0)
    rows = [{"input_ids": ids, "labels": ids} for ids in rng.integers(5, 40, (16, 6)).tolist()]
    arguments = TrainingArguments(
        output_dir=str(out), max_steps=steps, per_device_train_batch_size=2, learning_rate=1e-3, report_to=[],
        use_cpu=True, disable_tqdm=True, save_strategy="no", logging_steps=2, seed=0,
    )  # fmt: skip
    return Trainer(model=hooked.model, args=arguments, train_dataset=rows)


def train(setting: Setting, out: Path, steps: int = 6, **options: Any) -> tuple[Trainer, Any]:
    hooked = HookedModel.from_pretrained(setting.model, device="cpu")
    trainer = trainer_of(hooked, out, steps)
    callback = None
    if options:
        callback = AttentionAccuracyCallback(hooked.processor, setting.questions, **options).attach(trainer)
    trainer.train()
    return trainer, callback


def logged(trainer: Trainer) -> list[dict[str, float]]:
    return [entry for entry in trainer.state.log_history if "focus_on_target" in entry]


@pytest.mark.slow
def test_training_does_not_notice_the_callback(setting: Setting, tmp_path: Path) -> None:
    plain, _ = train(setting, tmp_path)
    calls = count()
    # Training seems to have begun long ago, so that six quick steps leave time for measurements.
    watched, _ = train(
        setting, tmp_path, share=1.0, first_step=1, clock=lambda: -1e4 if next(calls) < 2 else time.monotonic()
    )
    assert logged(watched) and not logged(plain)
    for (name, mine), theirs in zip(watched.model.state_dict().items(), plain.model.state_dict().values(), strict=True):
        assert torch.equal(mine, theirs), name
    losses = [[entry["loss"] for entry in each.state.log_history if "loss" in entry] for each in (watched, plain)]
    assert losses[0] == losses[1] and watched.model.training


def test_what_is_logged_is_what_the_model_shows(setting: Setting) -> None:
    hooked = HookedModel.from_pretrained(setting.model, device="cpu")
    found = AttentionAccuracyCallback(hooked.processor, setting.questions, batch_size=3).measure(hooked.model)
    traces = [hooked.trace(list(q.images), q.question, max_new_tokens=8, rows="predicting") for q in setting.questions]
    right = [answer_correct(q, trace.answer) for q, trace in zip(setting.questions, traces, strict=True)]
    assert 0 < sum(right) < len(right) and found["answers_right"] == pytest.approx(np.mean(right))
    focused, target = [trace.focus(last=2) for trace in traces], [q.target or 0 for q in setting.questions]
    assert found["attention_accuracy"] == pytest.approx(attention_accuracy(focused, target, right).value)
    assert found["focus_on_target"] == pytest.approx(np.mean(np.array(focused) == target))
    drops = [
        blank_effects(hooked, Question(list(q.images), q.question), q.answer)[q.target or 0] for q in setting.questions
    ]
    assert found["image_blank_effect"] == pytest.approx(np.mean(drops), abs=1e-4)


def ticking(step: float, asking: float, callback: AttentionAccuracyCallback, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A clock on which a training step takes `step` seconds and a question `asking`."""
    now = [0.0]

    def measure(_: Any, questions: Any) -> dict[str, float]:
        now[0] += asking * len(questions)
        return {"focus_on_target": 0.0}

    monkeypatch.setattr(callback, "measure", measure)
    callback._clock = lambda: now[0]

    def pass_step() -> float:
        now[0] += step
        return now[0]

    return pass_step


@pytest.mark.parametrize("share", [0.02, 0.1])
def test_the_share_of_the_time_is_kept_at_every_step(
    setting: Setting, share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    logs: list[dict[str, float]] = []
    callback = AttentionAccuracyCallback(None, setting.questions, share=share, first_step=50)
    callback._log = logs.append
    pass_step = ticking(1.0, 0.2, callback, monkeypatch)
    callback.on_train_begin()
    for number in range(1, 2001):
        pass_step()
        state = type("State", (), {"is_world_process_zero": True, "global_step": number})()
        callback.on_step_end(None, state, TrainerControl(), model=torch.nn.Linear(1, 1))
        elapsed = callback._clock() - callback._started
        assert callback.seconds <= share * elapsed + 1e-9
    assert len(logs) >= 0.8 * share * 2000 / (0.2 * len(setting.questions))


def test_what_cannot_be_measured_is_refused(setting: Setting, tmp_path: Path) -> None:
    for options in ({"share": 0.0}, {"share": 1.5}, {"first_step": 0}, {"batch_size": 0}):
        with pytest.raises(InputError, match="share lies above 0"):
            AttentionAccuracyCallback(None, setting.questions, **options)
    with pytest.raises(InputError, match="none are given"):
        AttentionAccuracyCallback(None, [])
    hooked = HookedModel.from_pretrained(setting.model, device="cpu")
    trainer = trainer_of(hooked, tmp_path, 1)
    trainer.add_callback(AttentionAccuracyCallback(hooked.processor, setting.questions))
    with pytest.raises(InputError, match=r"use callback\.attach\(trainer\)"):
        trainer.train()
