"""Holds recorded factors of a tiny model of any family against its own eager attentions.

Text goes in, alone and left-padded in a batch, and token spans stand for images: what is checked is the engine, mask,
scale, caps, sinks, rotation and layer order of each family, not its processor. Knows no family by name.
"""

import inspect
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
import transformers
from torch import Tensor
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

from probes.attention import AttentionRecorder, attention_factors, attention_layers
from tests.probes.tiny_models import enlarge_weights
from tests.probes.zoo.catalogue import ENTRIES, Entry
from tests.probes.zoo.shrinking import LAST_TEXT_TOKEN, shrink

MODEL_TYPES: dict[str, str] = dict(MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES)
"""Every entry of transformers' image-text-to-text mapping: model type to class name."""

LENGTHS = (26, 19)
SPANS = ((9, 15), (16, 22))
"""Token ranges that stand for images, counted in the longer text; the shorter is padded on the left."""
ROWS = 3
LARGEST = 40_000_000

Floats = npt.NDArray[np.float64]


class Compared(NamedTuple):
    """Recorded and reference factors (batch, layers, images), and how sharp the attention was."""

    recorded: Floats
    reference: Floats
    swapped: Floats
    entropy: float
    """Mean over the recorded rows of the entropy, over that of as many equal columns."""


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
        model = _class_of(model_type)(config_of(model_type))
        enlarge_weights(model, entry.sharpness)
    model.set_attn_implementation(attention)
    return model.eval()


def model_without_weights(model_type: str) -> Any:
    """The family's tiny model on the meta device: its modules and nothing to compute with."""
    with torch.device("meta"):
        return _class_of(model_type)(config_of(model_type))


def _class_of(model_type: str) -> Any:
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
    if entry.more_inputs is not None:
        inputs |= entry.more_inputs(input_ids, generator)
    return inputs


def compare(model_type: str, padded: bool) -> Compared:
    """Record factors of the family's model, and make the same from its own eager attentions."""
    entry = ENTRIES.get(model_type, Entry())
    model = build_model(model_type, entry.attention)
    inputs = inputs_of(model, entry, padded)
    rows = torch.zeros_like(inputs["input_ids"], dtype=torch.bool)
    rows[:, -ROWS:] = True
    spans = [list(SPANS)] * len(rows)
    cross = list(entry.cross_spans) or None
    recorded = attention_factors(model, inputs, rows, spans, cross_spans=cross)
    swapped = attention_factors(
        model, inputs, rows, [each[::-1] for each in spans], cross_spans=cross[::-1] if cross else None
    )
    dense = eager_attentions(build_model(model_type, "eager"), inputs, len(attention_layers(model)))
    picked = [layer[:, :, -ROWS:] for layer in dense]
    reference = np.stack([_means(layer, entry) for layer in picked], axis=1)
    spread = [-(rows[0] * np.log(np.maximum(rows[0], 1e-30))).sum(-1).mean() for rows in picked]
    entropy = float(np.mean([value / np.log(rows.shape[-1]) for value, rows in zip(spread, picked, strict=True)]))
    return Compared(_numbers(recorded), reference, _numbers(swapped), entropy)


def _means(rows: Floats, entry: Entry) -> Floats:
    """(batch, images): the mean over heads, rows and columns of each image in one layer."""
    spans = SPANS if rows.shape[-1] == LENGTHS[0] else entry.cross_spans
    return np.stack([rows[..., start:stop].mean(axis=(1, 2, 3)) for start, stop in spans], axis=-1)


def compare_generated(model_type: str, new_tokens: int) -> tuple[Floats, Floats]:
    """The same through a greedy generation with a cache: the last prompt row and every row generated, pooled.

    Returns:
        Recorded and reference factors (batch, layers, images).

    Raises:
        AssertionError: If other layers than those of the entry attend to image features.
    """
    entry = ENTRIES.get(model_type, Entry())
    model, twin = build_model(model_type, entry.attention), build_model(model_type, "eager")
    for each in (model, twin):
        each.generation_config.eos_token_id, each.generation_config.pad_token_id = None, 0
    inputs = inputs_of(model, entry, padded=True)
    last = torch.zeros_like(inputs["input_ids"], dtype=torch.bool)
    last[:, -1] = True
    options: dict[str, Any] = {"max_new_tokens": new_tokens, "do_sample": False}
    cross = list(entry.cross_spans) or None
    spans = [list(SPANS)] * len(last)
    recorder = AttentionRecorder(model, spans, {"rows": last}, generated=["rows"], cross_spans=cross)
    with torch.no_grad(), recorder:
        sequences = model.generate(**inputs, **options)
    with torch.no_grad():
        expected = twin.generate(**inputs, **options, output_attentions=True, return_dict_in_generate=True)
    assert torch.equal(sequences, expected.sequences)
    attentions = [[each for each in step if each is not None] for step in expected.attentions]
    crossing = {layer for layer, each in enumerate(attentions[0]) if each.shape[-1] != LENGTHS[0]}
    assert bool(crossing) == bool(cross)
    steps = [_last_rows(step, LENGTHS[0] + number, crossing, entry) for number, step in enumerate(attentions)]
    return _numbers(recorder.factors("rows")), np.asarray(np.mean(steps, axis=0))


def _last_rows(step: Sequence[Tensor], tokens: int, crossing: Collection[int], entry: Entry) -> Floats:
    """(batch, layers, images) of a step's last row; its last key is its own column, the first ones may be cut off."""
    layers = []
    for layer, attention in enumerate(step):
        row = attention[:, :, -1].double().mean(1).numpy()
        spans, cut = (entry.cross_spans, 0) if layer in crossing else (SPANS, tokens - row.shape[-1])
        sums = [row[:, max(0, start - cut) : max(0, stop - cut)].sum(-1) / (stop - start) for start, stop in spans]
        layers.append(np.stack(sums, axis=-1))
    return np.stack(layers, axis=1)


def eager_attentions(model: Any, inputs: Mapping[str, Tensor], layers: int) -> list[Floats]:
    """Per layer of the text decoder (batch, heads, tokens, tokens), as the model returns them; heads may differ."""
    with torch.no_grad():
        output = model(**inputs, output_attentions=True, use_cache=False)
    found = getattr(output, "attentions", None)
    if found is None:
        found = output.language_model_outputs.attentions
    tokens = inputs["input_ids"].shape[1]
    square = [each for each in found if each is not None and each.shape[-2] == tokens]
    assert len(square) == layers, f"{len(square)} attentions of the decoder for {layers} layers"
    return [np.asarray(each.double().numpy()) for each in square]


def _numbers(factors: Tensor) -> Floats:
    return np.asarray(factors.double().numpy())
