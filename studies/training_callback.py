"""Logs attention accuracy and the effect of a blank image while a model trains, at a bounded share of the time.

For any training that takes transformers' callbacks, TRL's among them. It knows questions and a trainer's callbacks; how
attention is read is `probes`.
"""

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from transformers import TrainerCallback, TrainerControl, TrainerState

from probes.encoding import Answer
from probes.focusing import check_rule
from probes.inputs import InputError
from probes.interventions import blanked
from probes.model import HookedModel, Question
from probes.scores import attention_accuracy, focus_all, focus_rate
from studies.multi_image import MultiImageQuestion, answer_correct


class AttentionAccuracyCallback(TrainerCallback):  # type: ignore[misc]
    """Asks the model in training a fixed set of questions now and then, and logs where it looked.

    Logged are ``attention_accuracy`` (P(focus = target | right), left out without a right answer), ``focus_on_target``
    (the same over all answers), ``answers_right``, and ``image_blank_effect``: by how many nats the right answer's
    log-probability drops, on average, when its image is blanked. All on the answers of greedy decoding but the last,
    which scores the right answers.

    Args:
        processor: Of the model in training.
        questions: What is asked; each names its target image. A few dozen are enough to see a trend.
        share: Largest share of the training's time that goes into asking. A measurement begins when the share covers
            what it will cost: as much as the last one or, before the first, as one question times their number.
        first_step: Steps before one question is asked to tell the cost.
        rule: Focus rule; see `probes.focusing.focus`.
        last: Layers that it reads.
        rows: Row set; see `probes.encoding.row_sets`.
        batch_size: Questions at a time.
        max_new_tokens: Most tokens of an answer.
        clock: Seconds, monotonic.

    Raises:
        InputError: If no question is given or one has no target, or an option is out of range.

    Use it as ``AttentionAccuracyCallback(processor, questions).attach(trainer)`` before ``trainer.train()``.
    """

    def __init__(
        self,
        processor: Any,
        questions: Sequence[MultiImageQuestion],
        share: float = 0.02,
        first_step: int = 10,
        rule: str = "M-LND",
        last: int = 2,
        rows: str = "predicting",
        batch_size: int = 8,
        max_new_tokens: int = 8,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        without = [question.id for question in questions if question.target is None]
        if not questions or without:
            reason = f"{without[0]} names none" if without else "none are given"
            raise InputError(f"attention accuracy needs questions that name their target image; {reason}")
        if not 0 < share <= 1 or first_step < 1 or batch_size < 1 or max_new_tokens < 1:
            raise InputError(
                "share lies above 0 and up to 1, and first_step, batch_size and max_new_tokens are at least 1; got "
                f"{share}, {first_step}, {batch_size}, {max_new_tokens}"
            )
        check_rule(rule, last)
        self.questions, self.share = list(questions), share
        self.seconds = 0.0
        """Seconds that went into asking so far."""
        self._processor, self._first_step = processor, first_step
        self._rule, self._last, self._rows = rule, last, rows
        self._batch_size, self._max_new_tokens, self._clock = batch_size, max_new_tokens, clock
        self._started, self._cost = clock(), 0.0
        self._log: Callable[[dict[str, float]], None] | None = None

    def attach(self, trainer: Any) -> "AttentionAccuracyCallback":
        """Take part in a trainer's training, and log by its own means (progress bar, TensorBoard, log history)."""
        self._log = trainer.log
        trainer.add_callback(self)
        return self

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        """Start the clock."""
        if self._log is None:
            raise InputError("the callback has no trainer to log with: use callback.attach(trainer)")
        self._started, self.seconds, self._cost = self._clock(), 0.0, 0.0

    def on_step_end(self, _: Any, state: TrainerState, control: TrainerControl, model: Any = None, **__: Any) -> None:
        """Measure, if the share of the time allows."""
        if not state.is_world_process_zero or state.global_step < self._first_step or model is None:
            return
        bare = getattr(model, "module", model)
        if not self._cost:
            self._cost = len(self.questions) * self._timed(bare, self.questions[:1])[1]
        if self.seconds + self._cost > self.share * (self._clock() - self._started):
            return
        measured, self._cost = self._timed(bare, self.questions)
        assert self._log is not None
        # Logging takes back what another callback asked for: that the losses of this step be logged.
        wanted = control.should_log
        self._log(measured)
        control.should_log = wanted

    def _timed(self, model: Any, questions: Sequence[MultiImageQuestion]) -> tuple[dict[str, float], float]:
        begun = self._clock()
        measured = self.measure(model, questions)
        spent = self._clock() - begun
        self.seconds += spent
        return measured, spent

    def measure(self, model: Any, questions: Sequence[MultiImageQuestion] | None = None) -> dict[str, float]:
        """Ask questions now, all if none are given; the model comes back in the mode, training or not, it was in."""
        training = model.training
        model.eval()
        try:
            return self._measure(
                HookedModel(model, self._processor), self.questions if questions is None else questions
            )
        finally:
            model.train(training)

    def _measure(self, hooked: HookedModel, questions: Sequence[MultiImageQuestion]) -> dict[str, float]:
        focused: list[int] = []
        right: list[bool] = []
        drops: list[float] = []
        for start in range(0, len(questions), self._batch_size):
            records = questions[start : start + self._batch_size]
            asked = [Question(list(record.images), record.question) for record in records]
            traces = hooked.trace_batch(asked, max_new_tokens=self._max_new_tokens, rows=(self._rows,), maps=False)
            last = min(self._last, len(traces[0].layers))
            focused += [int(focus_all(trace.factors[None], self._rule, last)[0]) for trace in traces]
            right += [bool(answer_correct(record, trace.answer)) for record, trace in zip(records, traces, strict=True)]
            golden: list[Answer] = [record.answer for record in records]
            blank = [_without_target(record) for record in records]
            before, after = (hooked.log_probability(each, golden).log_probability for each in (asked, blank))
            drops += (np.asarray(before) - np.asarray(after)).tolist()
        target = [record.target or 0 for record in questions]
        found = {
            "answers_right": float(np.mean(right)),
            "focus_on_target": focus_rate(focused, target).value,
            "image_blank_effect": float(np.mean(drops)),
        }
        return found | ({"attention_accuracy": attention_accuracy(focused, target, right).value} if any(right) else {})


def _without_target(record: MultiImageQuestion) -> Question:
    images = [image.open() for image in record.images]
    place = record.target or 0
    images[place] = blanked(images[place])
    return Question(images, record.question)
