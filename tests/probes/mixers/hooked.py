"""Whole hybrid models with their processors, the mixers' weights enlarged. Shared: leave them as found."""

from functools import cache
from typing import Any

import torch
from transformers import LlavaConfig, LlavaForConditionalGeneration

from probes.mixers.readers import READERS
from probes.model import HookedModel
from tests.probes import processors
from tests.probes.hooked import NEVER, sharp_model
from tests.probes.mixers.models import BUILDERS, enlarge, nemotron_h_settings

HYBRIDS = ("nemotron_h_omni", "qwen3_5")
"""Families with a processor of their own."""


@cache
def hybrid(family: str, seed: int = 0) -> HookedModel:
    """One family's model; "nemotron_h", "jamba" and "falcon_h1" are LLaVA with such a decoder."""
    if family in HYBRIDS:
        processor = processors.build_processor(family)
        bare = sharp_model(family, seed)
    else:
        processor = processors.build_processor("llava")
        bare = _llava(family, processor, seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for module in bare.modules():
            if type(module).__name__ in READERS:
                enlarge(module)
    model = HookedModel(bare, processor)
    model.model.generation_config.eos_token_id = NEVER
    return model


def _llava(family: str, processor: Any, seed: int) -> Any:
    from tests.probes.tiny_models import enlarge_weights

    base = processors.build_model("llava", processor, seed)
    size = base.config.text_config.vocab_size
    settings = {"vocab_size": size, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    if family == "nemotron_h":
        text = type(BUILDERS[family]().config)(**nemotron_h_settings(**settings))
    else:
        text = BUILDERS[family](**settings).config
    values = base.config.to_dict() | {"text_config": text}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlavaForConditionalGeneration(LlavaConfig(**values))
        enlarge_weights(model)
    return model.eval()
