"""Look inside one model: record attention to images, score it, and intervene.

Names load on first use (PEP 562), so that importing the scores of this package loads no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from probes.attention import attention_factors as attention_factors
    from probes.attention import attention_layers as attention_layers
    from probes.attention import pairwise_factors as pairwise_factors
    from probes.clips import Video as Video
    from probes.estimates import Estimate as Estimate
    from probes.experts.records import Routing as Routing
    from probes.frames import frame_attention as frame_attention
    from probes.inputs import ImageRef as ImageRef
    from probes.inputs import Turn as Turn
    from probes.layer_kinds import LayerKind as LayerKind
    from probes.model import HookedModel as HookedModel
    from probes.model import Question as Question
    from probes.model import Trace as Trace
    from probes.routing import record_routing as record_routing
    from probes.scores import attention_accuracy as attention_accuracy
    from probes.scores import focus as focus
    from probes.spans import ImageSpan as ImageSpan
    from probes.spans import find_image_spans as find_image_spans
    from probes.state_space import hidden_attention as hidden_attention
    from probes.state_space import hidden_attention_factors as hidden_attention_factors
    from probes.state_space import mixer_layers as mixer_layers
    from probes.state_space import trace_mixers as trace_mixers
    from probes.videos import find_video_spans as find_video_spans
    from probes.vision_axis import find_vision_spans as find_vision_spans

_HOME = {
    "Estimate": "estimates",
    "HookedModel": "model",
    "ImageRef": "inputs",
    "ImageSpan": "spans",
    "LayerKind": "layer_kinds",
    "Question": "model",
    "Routing": "experts.records",
    "Trace": "model",
    "Turn": "inputs",
    "Video": "clips",
    "attention_accuracy": "scores",
    "attention_factors": "attention",
    "attention_layers": "attention",
    "find_image_spans": "spans",
    "find_video_spans": "videos",
    "find_vision_spans": "vision_axis",
    "focus": "scores",
    "frame_attention": "frames",
    "hidden_attention": "state_space",
    "hidden_attention_factors": "state_space",
    "mixer_layers": "state_space",
    "pairwise_factors": "attention",
    "record_routing": "routing",
    "trace_mixers": "state_space",
}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'probes' has no attribute {name!r}")
    return getattr(import_module(f"probes.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__
