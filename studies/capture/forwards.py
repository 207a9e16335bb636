"""The forwards that the capture bench runs: a fixed random decoder, plain, with our recorder, and in eager attention.

Each kind gives attention factors of the same rows and images, so that what is timed is the same question. Knows
nothing of processes, clocks or tables; other tools are in `peers`.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

from probes.attention import AttentionRecorder, attention_factors
from studies.bench_process import Ready
from studies.capture.config import CaptureBench, CellKey, image_spans

VOCABULARY = 256
"""Words of the decoder: few, so that logits weigh nothing."""


class Prompt(NamedTuple):
    """What a forward is given.

    Args:
        inputs: Keywords of the model.
        rows: Query rows, counted from the first token, padding included.
        spans: Columns of each image, per sequence.
    """

    inputs: dict[str, Any]
    rows: list[int]
    spans: list[list[tuple[int, int]]]

    @property
    def length(self) -> int:
        """Tokens of the longest sequence."""
        return int(self.inputs["input_ids"].shape[1])


def decoder(config: CaptureBench) -> nn.Module:
    """The decoder that every kind runs: random weights of one seed, Llama, float32."""
    torch.manual_seed(config.seed)
    settings = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=config.hidden,
        intermediate_size=4 * config.hidden,
        num_hidden_layers=config.layers,
        num_attention_heads=config.heads,
        num_key_value_heads=config.key_value_heads,
        max_position_embeddings=max(*config.lengths, config.padded_length, config.decode_length + config.decode_steps),
        attn_implementation="sdpa",
        eos_token_id=None,
    )
    model: nn.Module = LlamaForCausalLM(settings)
    return model.eval()


def prompt(config: CaptureBench, key: CellKey) -> Prompt:
    """Random tokens, the rows and the images of a cell; its plain forward is given the same."""
    generator = torch.Generator().manual_seed(config.seed)
    padded = key.kind.startswith("padded")
    batch = config.padded_batch if padded else 1
    tokens = torch.randint(VOCABULARY, (batch, key.length), generator=generator)
    inputs: dict[str, Any] = {"input_ids": tokens}
    lengths = [key.length - sequence * key.length // 8 for sequence in range(batch)]
    if padded:
        first = torch.tensor([key.length - length for length in lengths])
        inputs["attention_mask"] = (torch.arange(key.length)[None] >= first[:, None]).long()
    spans = [_shifted(image_spans(length, config.images), key.length - length) for length in lengths]
    start, stop = spans[0][-1] if key.kind == "anchor" else (key.length - key.rows, key.length)
    return Prompt(inputs, list(range(start, stop)), spans)


def _shifted(spans: list[tuple[int, int]], by: int) -> list[tuple[int, int]]:
    return [(start + by, stop + by) for start, stop in spans]


def ready(kind: str, model: nn.Module, given: Prompt, steps: int) -> Ready:
    """Make a forward of a kind ready to be timed.

    Args:
        kind: A name of `KINDS`, or "plain", "padded plain" or "decode plain".
        model: What `prepared` made for that kind.
        given: What it is run on.
        steps: Decode steps, where the kind decodes.

    Returns:
        A context whose value runs the forward and returns its factors, fp32 (batch, layers, images), or (batch,
        layers, heads, images) per head; None from plain forwards and, until the context is left, from decoding.
    """
    if kind in ("decode", "decode plain"):
        return _decoding(model, given, steps, recorded=kind == "decode")
    run = _RUNS.get(kind)
    if run is None:
        from studies.capture.peers import PEERS

        run = PEERS[kind]
    return contextlib.nullcontext(lambda: run(model, given))


def prepared(kind: str, config: CaptureBench) -> nn.Module:
    """The decoder as a kind needs it."""
    model: Any = decoder(config)
    if kind.startswith("lens"):
        from studies.capture.peers import bridged

        model = bridged(model)
    if kind.startswith("eager") or kind == "nnsight":
        model.set_attn_implementation("eager")
    prepared_model: nn.Module = model
    return prepared_model


def factors_of(attention: Tensor, given: Prompt) -> Tensor:
    """The factors of one layer's full attention (1, heads, tokens, tokens): (images,)."""
    rows = attention[0, :, given.rows[0] : given.rows[-1] + 1].mean((0, 1))
    return torch.stack([rows[start:stop].mean() for start, stop in given.spans[0]])


@torch.no_grad()
def _plain(model: nn.Module, given: Prompt) -> None:
    model(**given.inputs, use_cache=False, logits_to_keep=1)


def _recorded(model: nn.Module, given: Prompt) -> Tensor:
    return attention_factors(model, given.inputs, given.rows, given.spans)


def _per_head(model: nn.Module, given: Prompt) -> Tensor:
    return attention_factors(model, given.inputs, given.rows, given.spans, per_head=True)


@torch.no_grad()
def _maps(model: nn.Module, given: Prompt) -> Tensor:
    rows = torch.zeros(given.inputs["input_ids"].shape, dtype=torch.bool)
    rows[:, given.rows] = True
    with AttentionRecorder(model, given.spans, {"rows": rows}, cells=True) as recorder:
        model(**given.inputs, use_cache=False, logits_to_keep=1)
    maps = recorder.maps("rows")
    return torch.stack([torch.stack([cells.mean(-1) for cells in images], dim=-1) for images in maps])


@torch.no_grad()
def _eager(model: nn.Module, given: Prompt) -> Tensor:
    done = model(**given.inputs, use_cache=False, logits_to_keep=1, output_attentions=True)
    return torch.stack([factors_of(attention, given) for attention in done.attentions])[None]


@torch.no_grad()
def _eager_hooks(model: nn.Module, given: Prompt) -> Tensor:
    found: list[Tensor] = []

    def reduce(_module: nn.Module, _inputs: Any, output: Any) -> None:
        found.append(factors_of(output[1], given))

    hooks = [layer.self_attn.register_forward_hook(reduce) for layer in model.model.layers]  # type: ignore[union-attr]
    try:
        model(**given.inputs, use_cache=False, logits_to_keep=1)
    finally:
        for hook in hooks:
            hook.remove()
    return torch.stack(found)[None]


_RUNS: dict[str, Callable[[Any, Prompt], Tensor | None]] = {
    "plain": _plain,
    "padded plain": _plain,
    "rows": _recorded,
    "anchor": _recorded,
    "padded": _recorded,
    "heads": _per_head,
    "maps": _maps,
    "eager": _eager,
    "eager_hooks": _eager_hooks,
}


@contextlib.contextmanager
def _decoding(model: nn.Module, given: Prompt, steps: int, recorded: bool) -> Iterator[Callable[[], None]]:
    """Prefill before the clock, then decode greedily; the recorder hears both and counts the decode steps' rows."""
    tokens = given.inputs["input_ids"]
    none = torch.zeros(tokens.shape, dtype=torch.bool)
    recorder = AttentionRecorder(model, given.spans, {"answer": none}, generated=["answer"]) if recorded else None
    with torch.no_grad(), recorder or contextlib.nullcontext():
        done = model(input_ids=tokens, use_cache=True, logits_to_keep=1)

        def decode() -> None:
            state = done
            for _ in range(steps):
                following = state.logits[:, -1:].argmax(-1)
                state = model(input_ids=following, past_key_values=state.past_key_values, use_cache=True)

        yield decode
    if recorder is not None:
        counted = int(recorder.row_counts("answer").min())
        if counted != steps:
            raise RuntimeError(f"the recorder counted {counted} of {steps} decode steps")
