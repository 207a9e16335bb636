"""Train a reward model on preference pairs with images: a thin subclass of TRL's reward trainer.

TRL brings the loop, logging, resuming and processes; what is added here is images, per-pair weights, objectives with a
text-only proxy, and checkpoints that load as reward models. This file knows no data format and no command line.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from datasets import Dataset
from torch import Tensor
from transformers import TrainerCallback
from trl import RewardConfig
from trl import RewardTrainer as TextRewardTrainer

from probes.inputs import InputError
from rewardmodels.batching import PairCollator
from rewardmodels.bradley_terry import BradleyTerry, Objective, PairBatch, proxy_loss
from rewardmodels.cards import CardFacts, write_card
from rewardmodels.checkpoints import load_branches, load_model, read_state, save_branches, write_state
from rewardmodels.collating import tokenizer_of
from rewardmodels.model import RewardMeta, RewardModel
from rewardmodels.proxies import Branches
from rewardmodels.records import PreferencePair


class Scored(NamedTuple):
    """What a step knows of a batch before its loss.

    Attributes:
        rewards: Of chosen, then rejected responses.
        margins_text: The text-only proxy's margins, where there are any.
        learned: The proxy's own loss, where its gradients are known already and `margins_text` has none.
    """

    rewards: Tensor
    margins_text: Tensor | None = None
    learned: Tensor | None = None


class RewardTrainer(TextRewardTrainer):  # type: ignore[misc]
    """TRL's reward trainer for models that read images.

    Args:
        reward: The model to train; with LoRA, its `model` is a peft model already.
        pairs: Training pairs.
        args: TRL's settings. Gradient checkpointing is on by default there; with a LoRA proxy it has to be off.
        eval_pairs: Pairs to evaluate on along the way.
        objective: By default plain Bradley-Terry, with the settings' centring.
        branches: Main model and proxy, for objectives that need the text-only margin.
        view: What the proxy sees in place of the images.
        card: Tells what each checkpoint's model card is written from, such as `rewardmodels.card_facts.facts_of`; by
            default there is TRL's card beside the checkpoints.
        collator: Makes training batches out of places in `pairs`; by default a `PairCollator`. One that has rendered
            and tokenized them beforehand spares short runs most of their time.
        callbacks: As of transformers' trainer.

    Raises:
        InputError: If there are no pairs, the objective needs a proxy that is not there, pairs are of a group that it
            does not know, or the settings do not go with it.
    """

    brings_text_margins = False
    """Whether a subclass knows the text-only margins by other means than branches."""

    def __init__(
        self,
        reward: RewardModel,
        pairs: Sequence[PreferencePair],
        args: RewardConfig,
        eval_pairs: Sequence[PreferencePair] | None = None,
        objective: Objective | None = None,
        branches: Branches | None = None,
        view: str = "blank",
        card: Callable[["RewardTrainer"], CardFacts] | None = None,
        collator: Callable[[Sequence[Mapping[str, int]]], dict[str, Any]] | None = None,
        callbacks: list[TrainerCallback] | None = None,
    ) -> None:
        objective = objective or BradleyTerry(center=args.center_rewards_coefficient or 0.0)
        _check(pairs, args, objective, branches, self.brings_text_margins)
        self.reward = reward
        self._objective = objective
        self._branches = branches
        self._card = card
        seen = view if branches is not None else None
        self._collators: dict[str, Any] = {"train": collator or self._collator(pairs, seen, args.seed)}
        evaluation = None
        if eval_pairs:
            self._collators["eval"] = self._collator(eval_pairs, seen, args.seed)
            evaluation = _places(eval_pairs, evaluates=True)
        super().__init__(
            model=reward.model if branches is None else branches,
            args=args,
            data_collator=self._collate,
            train_dataset=_places(pairs),
            eval_dataset=evaluation,
            processing_class=tokenizer_of(reward.processor),
            callbacks=callbacks,
        )

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        """Score a batch and return the objective's loss; the metrics are TRL's, and the objective's own.

        Raises:
            InputError: If the loss is not finite; nothing is saved then, and the last checkpoint is intact.
        """
        del num_items_in_batch
        mode = "train" if self.model.training else "eval"
        aside: dict[str, Any] = {
            key: inputs.pop(key) for key in ("proxy", "weight", "margin", "group", "index") if key in inputs
        }
        scored = self._scored(model, inputs, aside)
        rewards, shuffled = self._apart(scored.rewards)
        chosen, rejected = rewards.chunk(2)
        batch = PairBatch(
            margin=chosen - rejected,
            margin_text=scored.margins_text,
            margin_shuffled=shuffled,
            weight=aside.get("weight"),
            group=aside.get("group") if self._objective.needs_groups else None,
            target=aside.get("margin"),
            reward_sum=chosen + rejected,
        )
        result = self._objective(batch, training=mode == "train", total=self._total)
        if not math.isfinite(float(result.loss.detach())):
            raise InputError(
                f"the loss is {float(result.loss.detach())} at step {self.state.global_step}: lower the learning rate, "
                "clip gradients, or train in float32; checkpoints already written are intact"
            )
        self._note(mode, inputs["attention_mask"], rewards, result.log)
        loss = result.loss
        if scored.learned is not None:
            # Its value is in the loss; what is added is the way back to the proxy.
            loss = loss + (scored.learned - scored.learned.detach())
        return (loss, {"logits": rewards}) if return_outputs else loss

    def _scored(self, model: Any, inputs: dict[str, Any], aside: Mapping[str, Any]) -> Scored:
        """Rewards of all rows; and the text-only margins, where there is a proxy."""
        if self._branches is None:
            return Scored(model(**inputs, use_cache=False).logits.squeeze(-1))
        if "proxy" not in aside:
            raise InputError("the batch has no inputs for the proxy: make it by this trainer's own collator")

        def margins(logits: Tensor) -> Tensor:
            better, worse = logits.squeeze(-1).chunk(2)
            return better - worse

        both = {"main": {**inputs, "use_cache": False}, "proxy": {**aside["proxy"], "use_cache": False}}
        if not self._learns_first():
            main, text = model(**both)
            return Scored(main.squeeze(-1), margins(text))
        main, text, learned = model(
            **both, proxy_loss=lambda logits: proxy_loss(margins(logits), aside.get("weight"), aside.get("margin"))
        )
        return Scored(main.squeeze(-1), margins(text), learned)

    def _learns_first(self) -> bool:
        """Whether the proxy's gradients can be taken before the main model runs: its loss depends on itself alone.

        Layers that are run again in backward, and losses that are scaled against underflow, need the usual order.
        """
        learns = isinstance(self._objective, BradleyTerry) and self._objective.learn_text
        usual = self.args.gradient_checkpointing or self.args.fp16
        assert self._branches is not None
        return learns and self._branches.trains_proxy and torch.is_grad_enabled() and not usual

    def _apart(self, rewards: Tensor) -> tuple[Tensor, Tensor | None]:
        """Rewards of chosen, then rejected responses; and the margins with other pairs' images, where there are any."""
        if not self._objective.needs_shuffled:
            return rewards, None
        rewards, others = rewards.chunk(2)
        better, worse = others.chunk(2)
        return rewards, better - worse

    def _collator(self, pairs: Sequence[PreferencePair], view: str | None, seed: int) -> PairCollator:
        # Pairs to evaluate on may have fewer groups: a group's number has to mean the same in both.
        groups = getattr(self._objective, "groups", None) if self._objective.needs_groups else None
        return PairCollator(self.reward, pairs, view, seed, self._objective.needs_shuffled, groups)

    def _total(self, value: Tensor) -> Tensor:
        if self.accelerator.num_processes == 1:
            return value
        total: Tensor = self.accelerator.reduce(value.detach().clone(), reduction="sum")
        return total

    def _note(self, mode: str, mask: Tensor, rewards: Tensor, log: Mapping[str, Tensor]) -> None:
        """Metrics under TRL's names, of all processes; the objective's own beside them."""
        metrics, gather = self._metrics[mode], self.accelerator.gather_for_metrics
        if mode == "train":
            self._total_train_tokens += int(gather(mask.sum()).sum().item())
        metrics["num_tokens"] = [self._total_train_tokens]
        chosen, rejected = rewards.detach().float().chunk(2)
        everyone = self.accelerator.gather(rewards.detach().float())
        values = {
            "min_reward": everyone.min(),
            "mean_reward": everyone.mean(),
            "max_reward": everyone.max(),
            "margin": gather((chosen - rejected).mean()).mean(),
            **{name: _over_processes(name, gather(value.float())) for name, value in log.items()},
        }
        # One transfer for all: each reading of a single number would wait for the device.
        for name, value in zip(values, torch.stack(list(values.values())).tolist(), strict=True):
            metrics[name].append(value)

    def _collate(self, items: Sequence[Mapping[str, int]]) -> dict[str, Any]:
        batch: dict[str, Any] = self._collators["eval" if items[0]["evaluates"] else "train"](items)
        return batch

    def _prepare_dataset(self, dataset: Any, *_: Any, **__: Any) -> Any:
        """Leave the places as they are: conversations are rendered when a batch is made."""
        return dataset

    def _set_signature_columns_if_needed(self) -> None:
        self._signature_columns = ["index", "evaluates"]

    def create_model_card(self, *arguments: Any, **settings: Any) -> None:
        """Write TRL's card beside the checkpoints, unless each gets one of its own."""
        if self._card is None:
            super().create_model_card(*arguments, **settings)

    def _send_telemetry(self) -> None:
        """Send nothing anywhere."""

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        folder = Path(output_dir or self.args.output_dir)
        if self._branches is None:
            super()._save(str(folder), state_dict)
        elif self.args.should_save:
            save_branches(self._branches, folder)
            torch.save(self.args, folder / "training_args.bin")
        if not self.args.should_save:
            return
        self.reward.save_beside(folder)
        write_state(folder, self._objective)
        if self._card is not None:
            write_card(folder, self._card(self))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        folder = Path(resume_from_checkpoint)
        read_state(folder, self._objective)
        load_sharded = super()._load_from_checkpoint
        self._restore(folder, lambda: load_sharded(resume_from_checkpoint, model))

    def _load_best_model(self) -> None:
        self._restore(Path(self.state.best_model_checkpoint), super()._load_best_model)

    def _restore(self, folder: Path, sharded: Callable[[], None]) -> None:
        """Load weights; a sharded model's by transformers' own way."""
        if self._branches is not None:
            load_branches(self._branches, folder)
        elif self.is_deepspeed_enabled or self.is_fsdp_enabled:
            sharded()
        else:
            load_model(self.model, folder)


def export(reward: RewardModel, folder: str | Path, meta: RewardMeta | None = None) -> None:
    """Save a trained reward model for others: adapters merged, without proxy, optimiser or settings of the training."""
    if meta is not None:
        reward.meta = meta
    reward.save_pretrained(folder)


def _over_processes(name: str, values: Tensor) -> Tensor:
    """One number of all processes' own."""
    if name.endswith("_min"):
        return values.min()
    return values.max() if name.endswith("_max") else values.mean()


def _check(
    pairs: Sequence[PreferencePair],
    args: RewardConfig,
    objective: Objective,
    branches: Branches | None,
    brings_text_margins: bool,
) -> None:
    if not pairs:
        raise InputError("there is no pair to train on")
    if objective.needs_text and branches is None and not brings_text_margins:
        raise InputError(f"the objective {objective.name!r} weighs pairs by a text-only proxy: give branches")
    frozen = isinstance(objective, BradleyTerry) and not objective.learn_text
    if branches is not None and branches.trains_proxy and frozen:
        raise InputError(
            "the branches train a proxy that the objective does not teach: give the objective learn_text=True, or "
            "branches of a proxy that stays as it is"
        )
    if branches is not None and branches.shared and args.gradient_checkpointing:
        raise InputError(
            "gradient checkpointing runs layers again when gradients are taken, by whichever adapter is active then: "
            "turn it off, or take a full copy as the proxy"
        )
    if branches is not None and (args.deepspeed or args.fsdp):
        raise InputError(
            "a proxy beside the model is not sharded: train without DeepSpeed and FSDP, or without a proxy"
        )


def _places(pairs: Sequence[PreferencePair], evaluates: bool = False) -> Dataset:
    return Dataset.from_dict({"index": list(range(len(pairs))), "evaluates": [evaluates] * len(pairs)})
