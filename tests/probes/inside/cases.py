"""The models that every probe of the inside goes through, and what each of them does in one forward of its own.

Weights are enlarged, those of mixers and experts too, and routers are given biases: with transformers' own
initialisation scans and biases hardly count, and wrong formulas would pass. The forward is an eager one of the bare
model, heard by hooks of the tests: it knows layers, rows and columns, and no probe.
"""

from copy import deepcopy
from functools import cache
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from probes.decoder import decoder_layers
from probes.encoding import Encoded
from probes.layer_kinds import LayerKind
from probes.mixers.readers import READERS, reader_of
from probes.mixers.scan import Scan
from probes.model import HookedModel, Question
from tests.probes import hybrid_models, processors
from tests.probes.hooked import NEVER, picture
from tests.probes.mixers import models as mixer_models
from tests.probes.mixers.recurrences import by_recurrence
from tests.probes.reduction import pruned

ATTENTION, STATE_SPACE = (LayerKind.ATTENTION,), (LayerKind.STATE_SPACE,)
EXPERTS, MLP = (LayerKind.EXPERTS,), (LayerKind.MLP,)
_NEMOTRON_H = (STATE_SPACE, EXPERTS, STATE_SPACE, ATTENTION, EXPERTS, MLP)
"""MEM*E-."""
KINDS = {
    "dots1": (ATTENTION + MLP, ATTENTION + EXPERTS, ATTENTION + EXPERTS),
    **dict.fromkeys(("nemotron_h", "nemotron_h_latent", "omni_images", "omni_video"), _NEMOTRON_H),
}
"""By model, what its layers are made of: dots.llm1, Nemotron-H, the same with latent experts, and Nemotron-H Omni."""
VIDEO, LATENT, WITHOUT_MIXERS = "omni_video", "nemotron_h_latent", "dots1"
ANSWER = [120, 121, 122]
EVERY = pytest.mark.parametrize("name", KINDS)
MIXED = pytest.mark.parametrize("name", [name for name in KINDS if name != WITHOUT_MIXERS])


@cache
def model_of(name: str) -> HookedModel:
    """The model, with its processor. Shared: leave it as found."""
    decoders = {"dots1": "dots1", "nemotron_h": "nemotron", LATENT: "latent"}
    model, processor = _omni() if name not in decoders else _llava(decoders[name])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        hybrid_models.enlarge(model)
        for module in model.modules():
            if type(module).__name__ in READERS:
                mixer_models.enlarge(module)
    if name == VIDEO:
        model.video_pruning_rate = pruned.RATE
    model.generation_config.eos_token_id = NEVER
    return HookedModel(model, processor)


def _llava(decoder: str) -> tuple[Any, Any]:
    shared = hybrid_models.hooked(decoder)
    return deepcopy(shared.model), shared.processor


def _omni() -> tuple[Any, Any]:
    """Nemotron-H Omni over the very decoder that stands under the LLaVA."""
    processor = processors.build_processor(pruned.FAMILY)
    small = processors.build_config(pruned.FAMILY, processor).text_config
    shared = {name: getattr(small, name) for name in ("vocab_size", "max_position_embeddings", "pad_token_id")}
    text = hybrid_models.config("nemotron", **shared)
    return processors.build_model(pruned.FAMILY, processor, text_config=text), processor


def question_of(name: str, seed: int = 0) -> Question:
    """A question over two images of unlike size, or over one video; of every seed other pixels."""
    if name == VIDEO:
        return pruned.asked(pruned.moving(seed=seed))
    images = [picture(32, 32, 2 * seed), picture(64, 32, 2 * seed + 1)]
    return Question(images, "1 <image> 2 <image> Which image shows the red ball?")


@cache
def encoded_of(name: str) -> Encoded:
    """The first question, with its answer."""
    return model_of(name).encode([question_of(name)], [ANSWER])


def layers_of(name: str, kind: tuple[LayerKind, ...]) -> list[int]:
    """True indices by the table."""
    return [layer for layer, parts in enumerate(KINDS[name]) if kind[0] in parts]


def module_of(model: Any, layer: int, kind: tuple[LayerKind, ...]) -> Any:
    """The module of a layer's part, by the names that transformers gives it."""
    block: Any = decoder_layers(model)[layer]
    if hasattr(block, "mixer"):
        return block.mixer
    return block.self_attn if kind == ATTENTION else block.mlp


def image_columns(name: str) -> list[list[int]]:
    """The decoder's columns of each image or of the video, counted off the prompt's image tokens."""
    ids = encoded_of(name).inputs["input_ids"][0]
    config = model_of(name).model.config
    token = getattr(config, "image_token_id", None) or config.image_token_index
    columns: list[int] = (ids == token).nonzero().flatten().tolist()
    if name == VIDEO:
        return [columns]
    first = len(columns) // 2 if not name.startswith("omni") else len(columns) // 3
    return [columns[:first], columns[first:]]


class Own(NamedTuple):
    """One eager forward of the bare model over the first question and its answer, and one backward from the answer."""

    log_probability: float
    attentions: dict[int, Tensor]
    """By layer (heads, rows, columns)."""
    entered: dict[int, Tensor]
    """What enters each mixer, (1, tokens, hidden)."""
    scanned: dict[int, Tensor]
    """What each mixer's scan gives its norm, (tokens, inner)."""
    outputs: dict[tuple[int, LayerKind], Tensor]
    """What each part gives, (tokens, hidden)."""
    gradients: dict[tuple[int, LayerKind], Tensor]
    """Of the answer's log-probability, there."""


@cache
def own(name: str) -> Own:
    """What a model does by itself. Shared: leave it as found."""
    model = deepcopy(model_of(name).model)
    model.set_attn_implementation("eager")
    entered: dict[int, Tensor] = {}
    scanned: dict[int, Tensor] = {}
    given: dict[tuple[int, LayerKind], Any] = {}

    def keep_output(place: tuple[int, LayerKind]) -> Any:
        def keep(_: Any, __: Any, output: Any) -> None:
            given[place] = output[0] if isinstance(output, tuple) else output
            given[place].retain_grad()

        return keep

    def keep_entered(layer: int) -> Any:
        return lambda _, args, named: entered.update({layer: (args[0] if args else named["hidden_states"]).detach()})

    def keep_scanned(layer: int) -> Any:
        return lambda _, args: scanned.update({layer: args[0].detach().flatten(0, -2)})

    for layer, parts in enumerate(KINDS[name]):
        for kind in parts:
            module = module_of(model, layer, (kind,))
            module.register_forward_hook(keep_output((layer, kind)))
            if kind is LayerKind.STATE_SPACE:
                module.register_forward_pre_hook(keep_entered(layer), with_kwargs=True)
                module.norm.register_forward_pre_hook(keep_scanned(layer))
    output = model(**encoded_of(name).inputs, output_attentions=True, use_cache=False)
    scores = output.logits[0, -len(ANSWER) - 1 : -1].log_softmax(-1)
    total = scores.gather(1, torch.tensor(ANSWER)[:, None]).sum()
    total.backward()
    heads = [each[0].detach() for each in output.attentions if each is not None]
    return Own(
        float(total.detach()),
        dict(zip(layers_of(name, ATTENTION), heads, strict=True)),
        entered,
        scanned,
        {place: each.detach().flatten(0, -2) for place, each in given.items()},
        {place: each.grad.flatten(0, -2) for place, each in given.items()},
    )


@torch.no_grad()
def scan_of(name: str, layer: int) -> Scan:
    """What a mixer's scan takes, from what entered it in the model's own forward."""
    mixer = module_of(model_of(name).model, layer, STATE_SPACE)
    reader = reader_of(mixer)
    return reader.scan(mixer, reader.project(mixer, own(name).entered[layer], None), None)


@cache
def alpha(name: str, layer: int) -> Tensor:
    """Fp64 (heads, rows, columns): a mixer's hidden attention by its recurrence, step by step."""
    return by_recurrence(scan_of(name, layer))[0]


def rows_after(name: str) -> list[int]:
    """Rows behind every image."""
    return list(range(image_columns(name)[-1][-1] + 1, encoded_of(name).columns))
