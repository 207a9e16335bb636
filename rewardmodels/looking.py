"""Where a reward model looks from: the attention of the token that its score is read from, to each image.

The measure is the attention factor of `probes.attention_factors`, from the last real token of prompt and response. It
trains and questions nothing.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from probes.attention import AttentionRecorder, attention_layers
from probes.inputs import InputError
from probes.spans import ImageSpan, find_image_spans
from rewardmodels.heads import last_real_tokens
from rewardmodels.model import Prompt, RewardModel, as_turns
from rewardmodels.records import Response
from rewardmodels.rendering import Conversation

FloatArray = npt.NDArray[np.float32]


class ScoringAttention(NamedTuple):
    """What one response's scoring token attends to.

    Attributes:
        layers: True indices of the decoder's attention layers, the order of the factors' first axis.
        factors: (layers, images), or (layers, heads, images): mean over heads and the image's tokens of the attention
            from the scoring token. Images of the prompt come first, then those of the response.
        maps: Per image (layers, its tokens), the mean over heads; empty unless asked for.
        spans: Per image, its tokens and their pixels.
        prompt_images: How many of the images are the prompt's.
        token: Column of the scoring token in its row of the batch.
        score: From the same forward pass.
    """

    layers: tuple[int, ...]
    factors: FloatArray
    maps: tuple[FloatArray, ...]
    spans: tuple[ImageSpan, ...]
    prompt_images: int
    token: int
    score: float


def scoring_attention(
    reward: RewardModel,
    prompts: Sequence[Prompt],
    responses: Sequence[Response | str],
    *,
    batch_size: int = 8,
    per_head: bool = False,
    maps: bool = False,
) -> list[ScoringAttention]:
    """Read the attention of the scoring token, and the score, of responses to prompts with images.

    Args:
        reward: A reward model that reads images, plain or with an adapter.
        prompts: One per response, each with at least one image.
        responses: Texts, or responses with images of their own.
        batch_size: Rows per forward pass; factors do not depend on it.
        per_head: Keep heads apart in the factors.
        maps: Keep the attention to each image token.

    Raises:
        InputError: The model reads text only, a prompt has no image, the numbers differ, or a conversation cannot be
            read or held by the model.
        UnsupportedAttention: A layer's attention cannot be read.
    """
    if not reward.sees:
        raise InputError(f"{reward!r} reads text only: it has no image to attend to")
    if len(prompts) != len(responses):
        raise InputError(f"{len(prompts)} prompts need as many responses, and {len(responses)} are given")
    if batch_size < 1:
        raise InputError(f"batch_size is {batch_size}: give 1 or more")
    conversations = []
    counts = []
    for row, (prompt, response) in enumerate(zip(prompts, responses, strict=True)):
        turns = as_turns(prompt)
        counts.append(sum(len(turn.images) for turn in turns))
        if not counts[-1]:
            raise InputError(f"response {row}: its prompt has no image to attend to")
        given = Response(response) if isinstance(response, str) else response
        try:
            conversations.append(reward.writer.write(turns, given.text, given.images))
        except InputError as error:
            raise InputError(f"response {row}: {error}") from error
    found: list[ScoringAttention] = []
    for start in range(0, len(conversations), batch_size):
        some = slice(start, start + batch_size)
        found += _batch(reward, conversations[some], counts[some], per_head, maps)
    return found


def _batch(
    reward: RewardModel, conversations: Sequence[Conversation], counts: Sequence[int], per_head: bool, maps: bool
) -> list[ScoringAttention]:
    inputs = reward.inputs(conversations)
    sizes = [[image.size for image in conversation.images] for conversation in conversations]
    spans = find_image_spans(inputs, reward.model.config, reward.processor, sizes)
    # By the mask: the classifier's own search for the padding id agrees, or the collator would have refused the batch.
    last = last_real_tokens(inputs["input_ids"], inputs["attention_mask"], None)
    rows = torch.zeros_like(inputs["input_ids"], dtype=torch.bool)
    rows[torch.arange(len(rows)), last] = True
    recorder = AttentionRecorder(reward.model, spans, {"scoring": rows}, per_head=per_head, cells=maps)
    was_training = reward.model.training
    reward.model.eval()
    try:
        with torch.inference_mode(), recorder:
            logits = reward.model(**inputs, use_cache=False).logits
    finally:
        reward.model.train(was_training)
    layers = tuple(attention_layers(reward.model))
    factors = recorder.factors("scoring").numpy()
    cells = recorder.maps("scoring") if maps else [[] for _ in conversations]
    scores = logits.squeeze(-1).float().tolist()
    return [
        ScoringAttention(
            layers,
            factors[row][..., : len(spans[row])],
            tuple(image.numpy() for image in cells[row]),
            tuple(spans[row]),
            counts[row],
            int(last[row]),
            scores[row],
        )
        for row in range(len(conversations))
    ]
