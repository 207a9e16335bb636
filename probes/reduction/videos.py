"""Videos whose tokens a model drops in its forward: the prompt that its decoder reads, and where every cell went.

transformers' Nemotron-H Omni drops tokens of a video inside its forward, so that its decoder's sequence is shorter than
`input_ids`. Here the same is done before: the model's own tower makes the features, its own rule says which are kept
(one minus the cosine of consecutive embeddings), and the prompt is written without the others. The decoder then reads
what it would have read, and rows, columns, routing and knock-outs all count in one sequence. The features are handed
over in place of pixels: in transformers 5.23 the model's forward cannot join those that it makes of a video itself.

Knows nothing of questions or attention.
"""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from probes.families import ONE_VIDEO
from probes.inputs import InputError
from probes.reduction.sampling import OnlyFirstFrameWarning, check_rate, warn_if_first_frame_only
from probes.spans import ImageSpan

if TYPE_CHECKING:
    from probes.encoding import Encoded

_PIXELS = "pixel_values_videos"


class Prepared(NamedTuple):
    """Inputs whose every token the decoder reads, and the spans in them."""

    inputs: dict[str, Any]
    spans: list[list[ImageSpan]]
    columns: npt.NDArray[np.bool_]
    """(tokens,): which of the prompt's tokens are left."""


def prepare_videos(model: nn.Module, inputs: Mapping[str, Any], spans: Sequence[Sequence[ImageSpan]]) -> Prepared:
    """Take the tokens that a model drops of its video out of its inputs.

    Args:
        model: A transformers model, on the inputs' device. How much it drops is its `video_pruning_rate`.
        inputs: What its processor returned of one prompt.
        spans: Of `find_video_spans`, for that prompt.

    Returns:
        What `model(**inputs)` takes, and the spans there, whose `kept` says which tokens are left. Inputs of other
        models, and those without a video, come back as they are.

    Raises:
        InputError: If the spans are not those of the video, or the rate is no share.

    Warns:
        OnlyFirstFrameWarning: If nothing but the first frame, or the first group of frames, is left.
    """
    network: Any = model
    columns = np.ones(inputs["input_ids"].shape[1], dtype=bool)
    if network.config.model_type not in ONE_VIDEO or inputs.get(_PIXELS) is None:
        return Prepared(dict(inputs), [list(row) for row in spans], columns)
    if len(spans) != 1 or len(spans[0]) != 1:
        raise InputError(
            f"spans are given of {sum(map(len, spans))} videos and {len(spans)} prompts: "
            f"{network.config.model_type} takes one video, in a prompt of its own"
        )
    span = spans[0][0]
    features = _features(network, inputs[_PIXELS])
    if features.shape[0] * features.shape[1] != len(span.tokens):
        raise InputError(
            f"the model makes {features.shape[0]} x {features.shape[1]} tokens of the video, and its span has "
            f"{len(span.tokens)}: give the span that find_video_spans finds in these inputs"
        )
    kept = _retained(features, span, float(network.video_pruning_rate))
    columns[span.tokens] = kept.cpu().numpy()
    return Prepared(_with_features(inputs, features.flatten(0, 1)[kept], columns), [[span.thinned(columns)]], columns)


def with_video_features(model: nn.Module, encoded: "Encoded") -> "Encoded":
    """An encoded batch without the tokens that the model drops of its video; see `prepare_videos`."""
    inputs, spans, columns = prepare_videos(model, encoded.inputs, encoded.spans)
    dropped = int((~columns).sum())
    return replace(
        encoded,
        inputs=inputs,
        spans=spans,
        prompt_stop=encoded.prompt_stop - dropped,
        prompt_lengths=tuple(length - dropped for length in encoded.prompt_lengths),
    )


def _features(model: Any, pixels: Tensor) -> Tensor:
    """(groups of frames, tokens, hidden size), as the model's forward puts them among the embeddings."""
    # Not in inference mode: gradients may be asked of the decoder later.
    with torch.no_grad():
        features: Tensor = model.get_video_features(pixels, return_dict=True).pooler_output
    return features.to(model.get_input_embeddings().weight.dtype)


def _retained(features: Tensor, span: ImageSpan, rate: float) -> Tensor:
    """Bool (tokens,): those that the model's own rule keeps."""
    from transformers.models.nemotron_h_omni.modeling_nemotron_h_omni import compute_retention_mask

    check_rate(rate)
    groups, tokens = features.shape[:2]
    if rate > 0 and groups == 1:
        warnings.warn(
            f"the model merges the video's {span.tiles[0].frames} frames into one, and drops none of its tokens: give "
            "more frames",
            OnlyFirstFrameWarning,
            stacklevel=4,
        )
    if rate == 0 or groups == 1:
        return torch.ones(groups * tokens, dtype=torch.bool, device=features.device)
    warn_if_first_frame_only(groups, tokens, rate)
    tile = span.tiles[0]
    mask: Tensor = compute_retention_mask(
        video_embeds=features, thw=(groups, tile.rows, tile.columns), spatial_merge_size=1, q=rate
    )
    return mask


def _with_features(inputs: Mapping[str, Any], features: Tensor, columns: npt.NDArray[np.bool_]) -> dict[str, Any]:
    """Inputs of the columns that are left, with the features of their image tokens."""
    from transformers.modeling_outputs import BaseModelOutputWithPooling

    ids = inputs["input_ids"]
    left = torch.from_numpy(columns).to(ids.device)
    made = {
        key: value[:, left] if torch.is_tensor(value) and value.shape == ids.shape else value
        for key, value in inputs.items()
        if key != _PIXELS
    }
    # Under the name of images, whose tokens a video's are too, the model takes them as they are.
    made["mm_encoder_outputs"] = {"image": BaseModelOutputWithPooling(pooler_output=(features,))}
    return made
