"""Which attentions reach image features, or an encoder's output, instead of the decoder's own tokens.

Only classes whose columns are known to be those features are named; whatever else calls itself a cross-attention is
refused elsewhere. Knows modules by name and flags, and nothing of spans.
"""

from torch import nn

_ALWAYS = frozenset({"MllamaTextCrossAttention", "T5Gemma2MergedAttention"})
_WHERE_FLAGGED = frozenset({"IdeficsAttention"})
"""Where `is_cross_attention` says so."""
_WHERE_NOT_CAUSAL = frozenset(
    {"BartAttention", "MBartAttention", "PPFormulaNetAttention", "Pix2StructTextAttention", "UdopAttention"}
)
"""Decoder attentions that are causal over tokens, and not causal over the encoder's output."""


def is_cross_attention(module: nn.Module) -> bool:
    """Whether a module's columns are features of an image, or an encoder's output, and that is known of its class."""
    name = type(module).__name__
    if name in _WHERE_FLAGGED:
        return bool(getattr(module, "is_cross_attention", False))
    if name in _WHERE_NOT_CAUSAL:
        return bool(getattr(module, "is_decoder", True)) and not getattr(module, "is_causal", True)
    return name in _ALWAYS


def is_merged(module: nn.Module) -> bool:
    """Whether one softmax runs over the decoder's own tokens first and the features behind them (T5Gemma 2)."""
    return type(module).__name__ == "T5Gemma2MergedAttention"
