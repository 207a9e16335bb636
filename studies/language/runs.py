"""One training run of the study: pairs drawn, adapters on the last layers trained by the shipped trainer, items scored.

The proxy learns by plain Bradley-Terry and no method changes what it learns, so its margins, step by step, are worked
out from the order of the batches and stand in for the branch.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from transformers import PrinterCallback
from trl import RewardConfig

from probes.inputs import Turn
from rewardmodels.loading import draw_head
from rewardmodels.model import RewardModel
from rewardmodels.objectives import make_objective
from rewardmodels.records import PreferencePair, Response
from rewardmodels.shortcut import pair_loss
from studies.language.backbone import Halves, padded_states
from studies.language.items import FORMS, Item, form, split_items
from studies.language.settings import Method, Sizes, adapter_settings
from studies.short_training import Margins, RecordedProxyTrainer, short_run

FloatArray = npt.NDArray[np.float64]


class Answers(NamedTuple):
    """Hidden states of four answers to every item, and the length of each in characters: (items, 4)."""

    states: list[list[Tensor]]
    lengths: npt.NDArray[np.int64]


class Drawn(NamedTuple):
    """The training pairs of a run: for each, the item and whether the longer answer is the right one."""

    items: npt.NDArray[np.int64]
    longer_right: npt.NDArray[np.bool_]


class RunResult(NamedTuple):
    """What a run leaves.

    Attributes:
        scores: (test items, 4) in the order of `FORMS`.
        tests: (test items,) places in the list of items.
        steps: (steps, batch) the run's own margins before each step.
        order: (steps, batch) which pairs those are of.
        loss: (logged,) losses.
    """

    scores: Margins
    tests: npt.NDArray[np.int64]
    steps: Margins
    order: npt.NDArray[np.int64]
    loss: Margins


def compute_states(halves: Halves, items: Sequence[Item], advance: Any = None, batch: int = 16) -> Answers:
    """Run every answer with its question through the lower layers, texts of like length together."""
    tokenizer = halves.whole.processor
    answers = [[form(item, *each) for each in FORMS] for item in items]
    texts = [
        halves.whole.writer.write((Turn("user", item.question),), each).text
        for item, own in zip(items, answers, strict=True)
        for each in own
    ]
    ids = [torch.tensor(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in texts]
    order = sorted(range(len(ids)), key=lambda place: len(ids[place]))
    found: dict[int, Tensor] = {}
    for start in range(0, len(order), batch):
        some = order[start : start + batch]
        found.update(zip(some, halves.states([ids[place] for place in some]), strict=True))
        if advance is not None:
            advance(len(some))
    states = [[found[4 * item + at] for at in range(4)] for item in range(len(items))]
    return Answers(states, np.array([[len(each) for each in own] for own in answers]))


def draw_pairs(train: Sequence[int], strength: float, seed: int) -> Drawn:
    """Choose for each training item which answer is the longer one; the share is exact.

    >>> int(draw_pairs(range(40), 0.95, 0).longer_right.sum())
    38
    """
    right = np.arange(len(train)) < round(strength * len(train))
    return Drawn(np.asarray(train), np.random.default_rng((seed, 2)).permutation(right))


def log_ratios(lengths: npt.NDArray[np.int64], drawn: Drawn) -> FloatArray:
    """Log-length of the right answer minus that of the wrong one, of each training pair; its root mean square is 1."""
    own = np.log(lengths[drawn.items].astype(np.float64))
    longer, shorter = own[:, 1] - own[:, 2], own[:, 0] - own[:, 3]
    found = np.where(drawn.longer_right, longer, shorter)
    return np.asarray(found / np.sqrt((found**2).mean()), dtype=np.float64)


def proxy_margins(ratios: FloatArray, order: npt.NDArray[np.int64], rate: float) -> Margins:
    """Train the proxy, one weight, by Bradley-Terry on the batches of a run; its margins before each step.

    Args:
        ratios: (pairs,) what it sees of each pair.
        order: (steps, batch) pairs.
        rate: Of Adam.
    """
    weight = torch.zeros((), requires_grad=True)
    adam = torch.optim.Adam([weight], rate)
    seen = torch.tensor(ratios[order], dtype=torch.float)
    found = []
    for batch in seen:
        margin = weight * batch
        found.append(margin.detach().clone())
        adam.zero_grad()
        pair_loss(margin).mean().backward()  # type: ignore[no-untyped-call]
        adam.step()
    return torch.stack(found).numpy()


def fitted_margins(ratios: FloatArray) -> Margins:
    """The margins of the proxy's weight that fits all training pairs best; where no pair fails, that of half a pair."""
    weight = 0.0
    for _ in range(100):
        share = 1 / (1 + np.exp(-weight * ratios))
        slope = (ratios * (1 - share)).mean() - weight / (2 * len(ratios))
        weight += slope / ((ratios**2 * share * (1 - share)).mean() + 1 / (2 * len(ratios)))
    return (weight * ratios).astype(np.float32)


def batch_order(count: int, seed: int, sizes: Sizes) -> npt.NDArray[np.int64]:
    """(steps, batch) the pairs of each step, as the trainer draws them: every pass in an order of its own."""
    rng = np.random.default_rng((seed, 3))
    passes = -(-sizes.steps * sizes.batch // (count // sizes.batch * sizes.batch))
    whole = count // sizes.batch * sizes.batch
    drawn = np.concatenate([rng.permutation(count)[:whole] for _ in range(passes)])
    return drawn[: sizes.steps * sizes.batch].reshape(sizes.steps, sizes.batch)


class _Batches:
    """Collates the hidden states of a run's batches, one after the other, whichever places the trainer draws."""

    def __init__(
        self, states: Sequence[Sequence[Tensor]], drawn: Drawn, order: npt.NDArray[np.int64], balanced: bool
    ) -> None:
        self._states, self._drawn, self._left = states, drawn, iter(order.tolist())
        share = float(drawn.longer_right.mean())
        own = np.where(drawn.longer_right, 0.5 / max(share, 1e-9), 0.5 / max(1 - share, 1e-9))
        self._weights = torch.tensor(own, dtype=torch.float) if balanced else None

    def __call__(self, _: Sequence[Mapping[str, int]]) -> dict[str, Any]:
        places = next(self._left)
        chosen, rejected = [], []
        for place in places:
            states, longer = self._states[self._drawn.items[place]], bool(self._drawn.longer_right[place])
            chosen.append(states[FORMS.index((True, longer))])
            rejected.append(states[FORMS.index((False, not longer))])
        batch = padded_states([*chosen, *rejected])
        if self._weights is not None:
            batch["weight"] = self._weights[places]
        return batch


def train(
    halves: Halves, items: Sequence[Item], answers: Answers, method: Method, seed: int, sizes: Sizes
) -> RunResult:
    """Train one reward model by a method, and score the four answers of every test item.

    Args:
        halves: The backbone; each run trains a copy of its last layers.
        items: All items.
        answers: Their hidden states.
        method: How.
        seed: Draws split, pairs, head and batches.
        sizes: Layers, steps and so on.
    """
    from peft import get_peft_model

    places, tests = split_items(items, sizes.tests, seed)
    drawn = draw_pairs(places, method.strength, seed)
    order = batch_order(len(places), seed, sizes)
    reward = halves.upper()
    draw_head(reward.model, seed)
    torch.manual_seed(seed)
    reward.model = get_peft_model(reward.model, adapters(sizes))
    objective: Any = make_objective(method.objective, **dict(method.options))
    objective.learn_text = False
    with TemporaryDirectory() as folder:
        trainer = RecordedProxyTrainer(
            reward,
            # As many entries as the run draws pairs, so that one pass is the whole training.
            [pair_of(items, drawn, place) for place in order.ravel().tolist()],
            _settings(Path(folder), seed, sizes),
            objective=objective,
            collator=_Batches(answers.states, drawn, order, method.balanced),
            recorded=shortcut_margins(method, log_ratios(answers.lengths, drawn), order, sizes),
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    loss = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    return RunResult(
        scores=_scores(reward, [answers.states[place] for place in tests]),
        tests=np.array(tests),
        steps=torch.stack(trainer.own).numpy(),
        order=order,
        loss=np.array(loss, dtype=np.float32),
    )


def shortcut_margins(method: Method, ratios: FloatArray, order: npt.NDArray[np.int64], sizes: Sizes) -> Margins | None:
    """(steps, batch) what the method takes as the shortcut's margins; None where it takes none."""
    if method.expert == "proxy":
        return proxy_margins(ratios, order, sizes.proxy_rate)
    return fitted_margins(ratios)[order] if method.expert == "fitted" else None


def adapters(sizes: Sizes) -> Any:
    """The LoRA settings of every run."""
    from peft import LoraConfig

    return LoraConfig(**adapter_settings(sizes))


def pair_of(items: Sequence[Item], drawn: Drawn, place: int) -> PreferencePair:
    """A training pair as a record, as the trainer asks for them; what it reads are the hidden states."""
    item, longer = items[int(drawn.items[place])], bool(drawn.longer_right[place])
    better, worse = (Response(form(item, right, longer is right)) for right in (True, False))
    return PreferencePair(
        id=item.id,
        prompt=(Turn("user", item.question),),
        chosen=better,
        rejected=worse,
        record=item.id,
        group=item.kind,
        source="made",
        cluster=f"{item.kind}-pair-{item.pair}",
    )


def _scores(reward: RewardModel, states: Sequence[Sequence[Tensor]], batch: int = 16) -> Margins:
    """(items, 4) scores; rows of like length together."""
    flat = [state for own in states for state in own]
    order = sorted(range(len(flat)), key=lambda place: len(flat[place]))
    found = np.zeros(len(flat), dtype=np.float32)
    reward.model.eval()
    with torch.inference_mode():
        for start in range(0, len(order), batch):
            some = order[start : start + batch]
            logits = reward.model(**padded_states([flat[place] for place in some]), use_cache=False).logits
            found[some] = logits.squeeze(-1).float().numpy()
    return found.reshape(-1, len(FORMS))


def _settings(folder: Path, seed: int, sizes: Sizes) -> RewardConfig:
    return short_run(
        folder,
        steps=sizes.steps,
        batch=sizes.batch,
        learning_rate=sizes.learning_rate,
        warm_up=sizes.warm_up,
        clip=sizes.clip,
        seed=seed,
    )
