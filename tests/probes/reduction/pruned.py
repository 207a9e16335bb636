"""Tiny Nemotron-H Omni models over videos, and what the model itself makes of one: its own pruning, eagerly.

The reference lets the model drop tokens inside its own forward, and finds the columns by counting what is left. In
transformers 5.23 a forward cannot join the features that it makes of a video, so that they are handed to it.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from transformers.modeling_outputs import BaseModelOutputWithPooling

from probes.model import HookedModel, Question
from probes.reduction.sampling import efficient_video_sampling
from tests.probes.hooked import hooked
from tests.probes.moving import Frames, clip, encoded

FAMILY = "nemotron_h_omni"
ANSWER = (21, 45, 30)
RATE = 0.5
SIDE = 40
"""Pixels along a frame's side: 4 x 4 cells of 10 pixels."""


def moving(frames: int = 6, size: tuple[int, int] = (SIDE, SIDE), seed: int = 0) -> Frames:
    """Noise that stands still, but for a patch that changes in the last frames and a little in every other."""
    first = clip(1, size, seed)[0].astype(int)
    flicker = np.random.default_rng(seed).integers(-9, 10, (frames, *first.shape))
    video: Frames = np.clip(first[None] + flicker, 0, 255).astype(np.uint8)
    video[-2:, 10:20, 20:30] = 255 - video[-2:, 10:20, 20:30]
    return video


def asked(video: Any) -> Question:
    """A question with text before and behind its video."""
    return Question([], "See <video> Which image shows the red ball?", [video])


@contextmanager
def rate(model: HookedModel, value: float) -> Iterator[HookedModel]:
    """A shared model at another pruning rate."""
    before = model.model.video_pruning_rate
    model.model.video_pruning_rate = value
    try:
        yield model
    finally:
        model.model.video_pruning_rate = before


class Own(NamedTuple):
    """What the model makes of a video by itself."""

    attentions: NDArray[np.float32]
    """(layers, heads, rows, columns) of the shortened sequence."""
    logits: torch.Tensor
    """(tokens, vocabulary) of the shortened sequence."""
    kept: NDArray[np.bool_]
    """(video tokens,) by our own rule, made of the features."""
    written: list[int]
    """Columns of the video in the prompt as the processor wrote it."""
    left: list[int]
    """Columns of the tokens that are left, in the shortened sequence."""
    prompt: int
    """Length of the shortened prompt."""


def own(question: Question, answer: Sequence[int], pruning: float) -> Own:
    """One eager forward of the model with its own pruning."""
    with rate(hooked(FAMILY, "eager"), pruning) as eager:
        model, inputs = eager.model, encoded(eager.processor, question)
        pixels = inputs.pop("pixel_values_videos")
        added = torch.tensor([list(answer)], dtype=torch.long)
        ids = torch.cat([inputs["input_ids"], added], dim=1)
        with torch.no_grad():
            features = model.get_video_features(pixels, return_dict=True).pooler_output
            given = {"video": BaseModelOutputWithPooling(pooler_output=(features,))}
            output = model(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                mm_encoder_outputs=given,
                output_attentions=True,
                use_cache=False,
            )
    written = (ids[0] == model.config.image_token_id).nonzero().flatten().tolist()
    kept = np.ones(len(written), dtype=bool)
    if pruning:
        kept = efficient_video_sampling(features.numpy(), pruning).kept.ravel()
    dropped = {column for column, keep in zip(written, kept, strict=True) if not keep}
    rest = [column for column in range(ids.shape[1]) if column not in dropped]
    left = [place for place, column in enumerate(rest) if column in set(written)]
    attentions = np.stack([layer[0].numpy() for layer in output.attentions])
    return Own(attentions, output.logits[0], kept, written, left, len(rest) - len(answer))
