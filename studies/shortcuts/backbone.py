"""The small vision-language reward model that every run starts from: as first drawn, half taught, or taught to see.

Teaching is in two steps: the tower learns to name pictures, then projector, decoder and head learn which of two words
names one, from pairs in which no cue tells anything. It uses pictures of its own, which no reward run sees.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from shutil import copytree, ignore_patterns
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from transformers import AutoProcessor

from rewardmodels.heads import classifier_class
from rewardmodels.loading import draw_head
from rewardmodels.model import RewardModel
from rewardmodels.shortcut import pair_loss
from studies.bundled import BUNDLED_BACKBONES, BUNDLED_MODEL
from studies.dense.augmentation import augment
from studies.dense.model import Size, build_model
from studies.shortcuts.environments import make_pairs, strengths
from studies.shortcuts.pictures import NamedPicture, image_of, split_pictures
from studies.shortcuts.preparing import PreparedPairs

SIZE = Size("shortcuts", 48, 2, 64, 3, 4, 2, 128)


@dataclass(frozen=True)
class Teaching:
    """How the backbone is taught."""

    seed: int = 0
    tower_steps: int = 1500
    tower_batch: int = 96
    pair_steps: int = 1500
    pair_batch: int = 32
    views: int = 6
    """Fixed augmented views of each picture, for the second step."""
    learning_rate: float = 2e-3
    weight_decay: float = 0.05


def untaught(seed: int = 0) -> RewardModel:
    """The model with its first weights."""
    processor = AutoProcessor.from_pretrained(BUNDLED_MODEL)
    config: Any = build_model(SIZE, processor.tokenizer, seed).config
    config.num_labels = 1
    kind: Any = type(config)
    torch.manual_seed(seed)
    model = classifier_class(kind)(config)
    draw_head(model, seed)
    return RewardModel(model.eval(), processor)


def taught(teaching: Teaching, say: Callable[[str], object] = lambda _: None) -> RewardModel:
    """The model after both steps of teaching.

    Args:
        teaching: How.
        say: Told how far it is, a line at a time.
    """
    return _taught_to_look(unaligned(teaching, say), teaching, say)


def unaligned(teaching: Teaching, say: Callable[[str], object] = lambda _: None) -> RewardModel:
    """The model after the first step of teaching: its tower names pictures, and its decoder has never read the tower.

    As a pretrained tower and a language model are before they are trained together. Arguments as of `taught`.
    """
    reward = untaught(teaching.seed)
    pictures = split_pictures()["teaching"]
    _teach_tower(reward.model, pictures, _all_pixels(reward, pictures), teaching, say)
    return reward


def save_backbones(folder: Path, teaching: Teaching, say: Callable[[str], object] = lambda _: None) -> None:
    """Save "blind", "unaligned" and "seeing" as reward-model checkpoints."""
    untaught(teaching.seed).save_pretrained(folder / "blind")
    reward = unaligned(teaching, say)
    reward.save_pretrained(folder / "unaligned")
    _taught_to_look(reward, teaching, say).save_pretrained(folder / "seeing")


def copy_backbones(folder: Path, seed: int) -> None:
    """Save the same as they come with the package; what was never taught is drawn."""
    copytree(BUNDLED_BACKBONES, folder, dirs_exist_ok=True, ignore=ignore_patterns("README.md"))
    untaught(seed).save_pretrained(folder / "blind")


def _taught_to_look(reward: RewardModel, teaching: Teaching, say: Callable[[str], object]) -> RewardModel:
    reward.model.model.vision_tower.requires_grad_(False)
    pictures = split_pictures()["teaching"]
    _teach_pairs(reward, pictures, _all_pixels(reward, pictures), teaching, say)
    return reward


def _all_pixels(reward: RewardModel, pictures: Sequence[NamedPicture]) -> Tensor:
    return torch.cat([_pixels(reward, picture) for picture in pictures])


def _pixels(reward: RewardModel, picture: NamedPicture) -> Tensor:
    values: Tensor = reward.processor.image_processor(image_of(picture, 0.0).open(), return_tensors="pt")[
        "pixel_values"
    ]
    return values


def _teach_tower(
    model: Any, pictures: Sequence[NamedPicture], pixels: Tensor, teaching: Teaching, say: Callable[[str], object]
) -> None:
    names = sorted({picture.name for picture in pictures})
    labels = torch.tensor([names.index(picture.name) for picture in pictures])
    generator = torch.Generator().manual_seed(teaching.seed)
    tower = model.model.vision_tower
    reader = torch.nn.Linear(SIZE.tower_hidden, len(names))
    trained = [*tower.parameters(), *reader.parameters()]
    steps = teaching.tower_steps
    optimizer, schedule = _optimiser(trained, steps, teaching)
    for step in range(steps):
        chosen = torch.randint(len(pictures), (teaching.tower_batch,), generator=generator)
        states = tower(augment(pixels[chosen], generator)).last_hidden_state[:, 1:]
        loss = functional.cross_entropy(reader(states.mean(dim=1)), labels[chosen])
        _step(loss, trained, optimizer, schedule)
        if step % 100 == 99:
            say(f"tower {step + 1}/{steps}: loss {float(loss.detach()):.3f}")


def _teach_pairs(
    reward: RewardModel,
    pictures: Sequence[NamedPicture],
    pixels: Tensor,
    teaching: Teaching,
    say: Callable[[str], object],
) -> None:
    model = reward.model
    generator = torch.Generator().manual_seed(teaching.seed + 1)
    views = [augment(pixels, generator) for _ in range(teaching.views)]
    place = {picture.path: at for at, picture in enumerate(pictures)}
    steps, batch = teaching.pair_steps, teaching.pair_batch
    pairs = make_pairs(pictures, 4 * len(pictures) * teaching.views, strengths("", 0.5), 0.0, (teaching.seed, 11))
    prepared = PreparedPairs(reward, pairs, keep="nothing")
    shown = torch.tensor([place[pair.cluster] for pair in pairs])
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer, schedule = _optimiser(trained, steps, teaching)
    rng = np.random.default_rng(teaching.seed)
    model.train()
    for step in range(steps):
        chosen = rng.choice(len(pairs), batch, replace=False)
        values = views[step % teaching.views][shown[torch.from_numpy(chosen)]]
        inputs = prepared.inputs(chosen) | {"pixel_values": torch.cat([values, values])}
        better, worse = model(**inputs).logits.squeeze(-1).chunk(2)
        loss = pair_loss(better - worse).mean()
        _step(loss, trained, optimizer, schedule)
        if step % 100 == 99:
            say(f"pairs {step + 1}/{steps}: loss {float(loss.detach()):.3f}")
    model.eval()


def _optimiser(trained: list[Any], steps: int, teaching: Teaching) -> tuple[Any, Any]:
    optimizer = torch.optim.AdamW(trained, teaching.learning_rate, weight_decay=teaching.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, teaching.learning_rate, total_steps=steps)
    return optimizer, schedule


def _step(loss: Tensor, trained: list[Any], optimizer: Any, schedule: Any) -> None:
    optimizer.zero_grad()
    torch.autograd.backward(loss)
    torch.nn.utils.clip_grad_norm_(trained, 1.0)
    optimizer.step()
    schedule.step()
