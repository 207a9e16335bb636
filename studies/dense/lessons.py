"""What projector and decoder learn at each step, and from what: the same for every decoder under the same tower.

Every batch is a function of seed and step, so a resumed run sees the same ones. Knows no optimiser and saves nothing.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from studies.dense.pictures import PictureStore
from studies.dense.sequences import IGNORED, Batch, BatchMaker

CURRICULUM_SHARE = 0.3
"""The number of images grows from 2 to 8 over this share of the steps."""


class LessonConfig(Protocol):
    """What of a training run's settings decides its batches."""

    @property
    def seed(self) -> int:
        """Of every draw."""
        ...

    @property
    def steps(self) -> int:
        """Optimiser steps of the whole run."""
        ...

    @property
    def batch(self) -> int:
        """Sequences a step."""
        ...

    @property
    def views(self) -> int:
        """Versions of each picture, as `studies.dense.pictures.tower_features` made them."""
        ...


class Lessons:
    """The batches of one run, by step."""

    def __init__(self, tokenizer: Any, store: PictureStore, config: LessonConfig) -> None:
        self._maker, self._store, self._config = BatchMaker(tokenizer, store, config.batch), store, config

    def batch(self, step: int) -> Batch:
        """The batch of a step, from 0; its pictures are rows of the tower's features, any view of each."""
        config = self._config
        rng = np.random.default_rng([config.seed, 3, step])
        batch = self._maker.batch(rng, int(rng.integers(2, _most_images(step, config.steps) + 1)))
        views = torch.from_numpy(rng.integers(config.views, size=len(batch.pictures)))
        return batch._replace(pictures=batch.pictures + len(self._store.pixels) * views)


def _most_images(step: int, steps: int) -> int:
    return 2 + min(6, int(7 * step / (CURRICULUM_SHARE * steps)))


def states_of(model: Any, batch: Batch, features: Tensor) -> Tensor:
    """Last hidden states (batch, tokens, hidden), as the model makes them from pixels: the tower is frozen."""
    embeddings = model.get_input_embeddings()(batch.input_ids)
    images = model.model.multi_modal_projector(features[batch.pictures])
    places = (batch.input_ids == model.config.image_token_id)[..., None].expand_as(embeddings)
    embeddings = embeddings.masked_scatter(places, images)
    states: Tensor = model.model.language_model(inputs_embeds=embeddings, use_cache=False).last_hidden_state
    return states


def answer_loss(model: Any, states: Tensor, batch: Batch) -> Tensor:
    """Mean cross-entropy of the labelled tokens, by the last hidden states before each."""
    answered = batch.labels[:, 1:] != IGNORED
    return nn.functional.cross_entropy(model.lm_head(states[:, :-1][answered]), batch.labels[:, 1:][answered])
