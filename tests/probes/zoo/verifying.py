"""Holds recorded factors of a tiny model of any family against its own eager attentions.

Text goes in, alone and left-padded in a batch, and token spans stand for images; families whose masks depend on what is
an image are told so of the spans. What is checked is the engine, mask, scale, caps, sinks, rotation and layer order of
each family, not its processor. Knows no family by name.
"""

import copy
import inspect
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
import transformers
from torch import Tensor
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

from probes.attention import AttentionRecorder, attention_layers
from tests.probes.tiny_models import enlarge_weights
from tests.probes.zoo.catalogue import ENTRIES, Entry
from tests.probes.zoo.replaying import CallCatcher
from tests.probes.zoo.shrinking import LAST_TEXT_TOKEN, shrink

MODEL_TYPES: dict[str, str] = dict(MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES)
"""Every entry of transformers' image-text-to-text mapping: model type to class name."""

LENGTHS = (26, 19)
SPANS = ((9, 15), (16, 22))
"""Token ranges that stand for images, counted in the longer text; the shorter is padded on the left."""
ROWS = (10, 17, 23, 24, 25)
"""Query rows: one inside each image, where masks that only images bring act, and the last ones."""
LARGEST = 40_000_000

Floats = npt.NDArray[np.float64]


class Compared(NamedTuple):
    """Recorded and reference factors (batch, layers, images), and what a replay of the recording needs."""

    recorded: Floats
    reference: Floats
    entropy: float
    """Mean over the last recorded rows of the entropy, over that of as many equal columns."""
    catcher: CallCatcher
    """The attention calls of the forward that was recorded."""

    @property
    def error(self) -> float:
        """Largest difference between the two."""
        return float(np.abs(self.recorded - self.reference).max())


class Family:
    """One family's tiny model and its eager twin, each built once."""

    def __init__(self, model_type: str) -> None:
        self.model_type = model_type
        self.entry = ENTRIES.get(model_type, Entry())
        self.model = build_model(model_type, self.entry.attention)
        self.twin = build_model(model_type, "eager")
        self.compare = cache(self._compare)
        """`_compare`, once for each question."""

    def recorder(self, inputs: Mapping[str, Tensor], **options: Any) -> AttentionRecorder:
        """A recorder of the model, for these inputs."""
        return _recorder(self.model, self.entry, inputs, **options)

    def inputs(self, padded: bool) -> dict[str, Tensor]:
        """See `inputs_of`."""
        return inputs_of(self.model, self.entry, padded)

    def _compare(self, padded: bool) -> Compared:
        """Record factors of the family's model, and make the same from its own eager attentions."""
        inputs = self.inputs(padded)
        recorder = self.recorder(inputs)
        with torch.no_grad(), CallCatcher(self.model) as catcher, recorder:
            self.model(**inputs, use_cache=False)
        dense = eager_attentions(self.twin, inputs, len(attention_layers(self.model)))
        reference = means_of(dense, self.entry)
        return Compared(numbers(recorder.factors("rows")), reference, _entropy(dense), catcher)

    def compare_in(self, dtype: torch.dtype) -> tuple[Floats, Floats]:
        """Recorded factors of the twin in another type, and the same from the attentions of that very forward."""
        twin = copy.deepcopy(self.twin).to(dtype)
        inputs = {
            name: value.to(dtype) if value.is_floating_point() else value for name, value in self.inputs(True).items()
        }
        recorder = _recorder(twin, self.entry, inputs)
        with recorder:
            dense = eager_attentions(twin, inputs, len(attention_layers(twin)))
        return numbers(recorder.factors("rows")), means_of(dense, self.entry)

    def compare_generated(self, new_tokens: int, padded: bool = True) -> tuple[Floats, Floats]:
        """The same through a greedy generation with a cache: the last prompt row and every row generated, pooled.

        Returns:
            Recorded and reference factors (batch, layers, images).

        Raises:
            AssertionError: If other layers than those of the entry attend to image features.
        """
        entry, inputs = self.entry, self.inputs(padded)
        for each in (self.model, self.twin):
            each.generation_config.eos_token_id, each.generation_config.pad_token_id = None, 0
            # A start is put before prompts unless some sequence has it already, as padding does.
            each.generation_config.decoder_start_token_id = 0
        options: dict[str, Any] = {"max_new_tokens": new_tokens, "do_sample": False, "use_cache": True}
        recorder = self.recorder(inputs, rows=(-1,), generated=["rows"])
        with torch.no_grad(), recorder:
            sequences = self.model.generate(**inputs, **options)
        with torch.no_grad(), _cross_weights(self.twin) as weights:
            expected = self.twin.generate(**inputs, **options, output_attentions=True, return_dict_in_generate=True)
        assert torch.equal(sequences, expected.sequences)
        found: Any = getattr(expected, "cross_attentions", None) or getattr(expected, "attentions", ())
        layers = len(recorder.layers)
        crossed = [weights[start : start + layers] for start in range(0, len(weights), layers)]
        attentions = [[each for each in step if each is not None] for step in crossed or found]
        crossing = {layer for layer, each in enumerate(attentions[0]) if each.shape[-1] != LENGTHS[0]}
        assert bool(crossing) == bool(entry.cross_spans)
        steps = [_last_rows(step, LENGTHS[0] + number, crossing, entry) for number, step in enumerate(attentions)]
        return numbers(recorder.factors("rows")), np.asarray(np.mean(steps, axis=0))


def build_model(model_type: str, attention: str) -> Any:
    """A tiny model of the family; the same call gives the same weights.

    Raises:
        ValueError: If the model is too large to be called tiny.
    """
    entry = ENTRIES.get(model_type, Entry())
    count = sum(weight.numel() for weight in model_without_weights(model_type).parameters())
    if count > LARGEST:
        raise ValueError(f"{model_type} has {count:,} parameters: shrink what makes it so large")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = model_class(model_type)(config_of(model_type))
        enlarge_weights(model, entry.sharpness)
    model.set_attn_implementation(attention)
    return model.eval()


def model_without_weights(model_type: str) -> Any:
    """The family's tiny model on the meta device: its modules and nothing to compute with."""
    with torch.device("meta"):
        return model_class(model_type)(config_of(model_type))


def model_class(model_type: str) -> Any:
    """The family's class in transformers, or its decoder's."""
    return getattr(transformers, ENTRIES.get(model_type, Entry()).decoder or MODEL_TYPES[model_type])


def config_of(model_type: str) -> Any:
    entry = ENTRIES.get(model_type, Entry())
    return shrink(entry.config() if entry.config else CONFIG_MAPPING[model_type](), entry.changes)


def inputs_of(model: Any, entry: Entry, padded: bool) -> dict[str, Tensor]:
    """One text, or that text and a shorter one padded on the left."""
    generator = torch.Generator().manual_seed(1)
    lengths = LENGTHS if padded else LENGTHS[:1]
    input_ids = torch.zeros(len(lengths), LENGTHS[0], dtype=torch.long)
    attention_mask = torch.zeros_like(input_ids)
    for row, length in enumerate(lengths):
        input_ids[row, -length:] = torch.randint(4, LAST_TEXT_TOKEN + 1, (length,), generator=generator)
        attention_mask[row, -length:] = 1
    inputs = {"input_ids": input_ids, "attention_mask": attention_mask}
    accepted = inspect.signature(model.forward).parameters
    for name in ("mm_token_type_ids", "token_type_ids"):
        if name in accepted:
            inputs[name] = torch.zeros_like(input_ids, dtype=torch.int)
            for start, stop in SPANS if entry.images_masked else ():
                inputs[name][:, start:stop] = 1
    if entry.more_inputs is not None:
        inputs |= entry.more_inputs(input_ids, generator)
    return {name: value for name, value in inputs.items() if value.numel()}


def tokens_of(inputs: Mapping[str, Tensor]) -> Tensor:
    """The tokens that a decoder runs over."""
    return inputs["decoder_input_ids"] if "decoder_input_ids" in inputs else inputs["input_ids"]


def padding_of(inputs: Mapping[str, Tensor]) -> Tensor | None:
    """Which of those tokens are no padding."""
    return inputs["decoder_attention_mask"] if "decoder_attention_mask" in inputs else inputs.get("attention_mask")


def _recorder(
    model: Any, entry: Entry, inputs: Mapping[str, Tensor], rows: Sequence[int] = ROWS, **options: Any
) -> AttentionRecorder:
    chosen = torch.zeros_like(tokens_of(inputs), dtype=torch.bool)
    chosen[:, list(rows)] = True
    cross = list(entry.cross_spans) or None
    spans = [] if entry.only_crossing else [list(SPANS)] * len(chosen)
    return AttentionRecorder(model, spans, {"rows": chosen}, cross_spans=cross, **options)


def means_of(dense: Sequence[Floats], entry: Entry) -> Floats:
    """(batch, layers, images): the mean over heads, rows and columns of each image, layer by layer."""
    layers = []
    for attention in dense:
        spans = SPANS if attention.shape[-1] == LENGTHS[0] else entry.cross_spans
        rows = attention[:, :, list(ROWS)]
        layers.append(np.stack([rows[..., start:stop].mean(axis=(1, 2, 3)) for start, stop in spans], axis=-1))
    return np.stack(layers, axis=1)


def _entropy(dense: Sequence[Floats]) -> float:
    shares = []
    for attention in dense:
        rows = attention[:, :, -3:]
        shares.append(-(rows * np.log(np.maximum(rows, 1e-30))).sum(-1).mean() / np.log(rows.shape[-1]))
    return float(np.mean(shares))


def _last_rows(step: Sequence[Tensor], tokens: int, crossing: Collection[int], entry: Entry) -> Floats:
    """(batch, layers, images) of a step's last row; its last key is its own column, the first ones may be cut off."""
    layers = []
    for layer, attention in enumerate(step):
        row = attention[:, :, -1].double().mean(1).numpy()
        spans, cut = (entry.cross_spans, 0) if layer in crossing else (SPANS, tokens - row.shape[-1])
        cut = 0 if entry.keeps_prompt else cut
        sums = [row[:, max(0, start - cut) : max(0, stop - cut)].sum(-1) / (stop - start) for start, stop in spans]
        layers.append(np.stack(sums, axis=-1))
    return np.stack(layers, axis=1)


def eager_attentions(model: Any, inputs: Mapping[str, Tensor], layers: int) -> list[Floats]:
    """Per layer of the text decoder (batch, heads, tokens, tokens), as the model returns them; heads may differ."""
    with torch.no_grad(), _cross_weights(model) as crossing:
        output = model(**inputs, output_attentions=True, use_cache=False)
    found = crossing or getattr(output, "cross_attentions", None)
    if not found:
        found = getattr(output, "attentions", None)
    if found is None:
        found = output.language_model_outputs.attentions
    kept = [each for each in found if each is not None and each.shape[-2] == tokens_of(inputs).shape[1]]
    assert len(kept) == layers, f"{len(kept)} attentions of the decoder for {layers} layers"
    return [np.asarray(each.double().numpy()) for each in kept]


@contextmanager
def _cross_weights(model: Any) -> Iterator[list[Tensor]]:
    """Weights of cross-attentions that the model makes and does not return (Idefics)."""
    weights: list[Tensor] = []
    layers = getattr(getattr(model, "model", None), "gated_cross_attn_layers", ())
    hooks = [layer.cross_attn.register_forward_hook(lambda *seen: weights.append(seen[2][1])) for layer in layers]
    try:
        yield weights
    finally:
        for hook in hooks:
            hook.remove()


def numbers(factors: Tensor) -> Floats:
    """Factors as an array of doubles."""
    return np.asarray(factors.double().numpy())
