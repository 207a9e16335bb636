"""Shrinks transformers' default configurations until a model of any family fits into a test.

Goes by the names that configurations give their sizes, into every part of a composite one. What a family calls
otherwise, or ties together, its entry in the catalogue changes by path. Knows no model and no attention.
"""

from collections.abc import Mapping
from typing import Any

from transformers import PretrainedConfig

VOCABULARY = 96
SPECIAL_TOKENS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
LAST_TEXT_TOKEN = 87
"""Text tokens are 4 up to this one; those above stand for images."""
IMAGE_TOKEN = 90

_HIDDEN = ("hidden_size", "d_model", "n_embd", "embed_dim", "out_hidden_size")
SIZES: dict[str, int] = {
    **dict.fromkeys(_HIDDEN, 32),
    **dict.fromkeys(("intermediate_size", "ffn_dim", "mlp_dim"), 48),
    **dict.fromkeys(("num_hidden_layers", "n_layer", "num_layers", "depth"), 3),
    **dict.fromkeys(("num_attention_heads", "num_heads", "n_head"), 4),
    "num_key_value_heads": 2,
    "head_dim": 8,
    "vocab_size": VOCABULARY,
    "max_position_embeddings": 256,
    **dict.fromkeys(("num_experts", "n_routed_experts", "num_local_experts"), 4),
    **dict.fromkeys(("num_experts_per_tok", "moe_topk"), 2),
    "moe_intermediate_size": 16,
    **dict.fromkeys(("q_lora_rank", "kv_lora_rank", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim"), 8),
    **dict.fromkeys(("sliding_window", "attention_chunk_size"), 8),
    **dict.fromkeys(("linear_num_heads", "linear_num_key_heads", "linear_num_value_heads"), 4),
    "index_topk": 10,
    "linear_head_dim": 8,
    "image_size": 16,
    "patch_size": 4,
    "projection_dim": 16,
}


def shrink(config: PretrainedConfig, changes: Mapping[str, Any] | None = None) -> PretrainedConfig:
    """Shrink a configuration in place, and every part of it.

    Args:
        config: The configuration; usually a family's default.
        changes: By dotted path, such as ``text_config.layer_types``, what is set after the sizes.

    Returns:
        The same configuration.

    Raises:
        KeyError: If a path leads nowhere.
    """
    _shrink(config)
    for path, value in (changes or {}).items():
        *parts, name = path.split(".")
        place: Any = config
        for part in parts:
            place = getattr(place, part)
        setattr(place, name, value)
    return config


def _shrink(config: PretrainedConfig) -> None:
    for name, value in list(vars(config).items()):
        bare = name.lstrip("_")
        if isinstance(value, PretrainedConfig):
            _shrink(value)
        elif bare in SPECIAL_TOKENS:
            setattr(config, name, SPECIAL_TOKENS[bare])
        elif isinstance(value, bool) or not isinstance(value, int):
            continue
        elif bare in SIZES:
            setattr(config, name, SIZES[bare])
        elif bare.endswith(("_token_id", "_token_index")) and value >= VOCABULARY:
            setattr(config, name, IMAGE_TOKEN)
    kinds = getattr(config, "layer_types", None)
    if isinstance(kinds, list):
        config.layer_types = _few(kinds, config.num_hidden_layers)


def _few(kinds: list[str], count: int) -> list[str]:
    """So many layers, with every kind that there is among them where they suffice, and the last kind the most often.

    >>> _few(["linear"] * 3 + ["full"] + ["linear"], 3)
    ['linear', 'full', 'full']
    """
    different = list(dict.fromkeys(kinds))
    return [*different, *[different[-1]] * count][:count]
