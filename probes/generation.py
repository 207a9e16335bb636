"""Answers as token ids, greedy or sampled, without their end of sequence. Knows nothing of images or attention."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch

from probes.inputs import InputError


def greedy_ids(
    model: Any, tokenizer: Any, inputs: Mapping[str, torch.Tensor], max_new_tokens: int, barred: Collection[int] = ()
) -> list[tuple[int, ...]]:
    """Let a model answer greedily.

    The model's own repetition penalty holds, should it have one; every other setting of its generation that would
    make answers random, several, or of another form is set aside: sampling, beams, return sequences, stop strings.

    Args:
        model: A transformers model that generates.
        tokenizer: Its tokenizer.
        inputs: What `model(**inputs)` takes, padded on the left.
        max_new_tokens: Most tokens to write.
        barred: Tokens that cannot be written, such as those that stand for image features.

    Returns:
        Per batch row the new tokens up to, and without, the end of sequence.

    Raises:
        InputError: If `max_new_tokens` is below 1, or the logits are not numbers.
    """
    return _generated(model, tokenizer, inputs, max_new_tokens, barred, {"do_sample": False})


def sampled_ids(
    model: Any,
    tokenizer: Any,
    inputs: Mapping[str, torch.Tensor],
    max_new_tokens: int,
    barred: Collection[int] = (),
    *,
    temperature: float = 1.0,
    seed: int = 0,
) -> list[tuple[int, ...]]:
    """Let a model answer by drawing each token from its whole distribution; other arguments as of `greedy_ids`.

    Args:
        temperature: What logits are divided by.
        seed: Of the draws; the same batch gives the same answers, and the random state around is left as found.

    Raises:
        InputError: As `greedy_ids`, and if the temperature is not positive.
    """
    if not 0 < temperature < float("inf"):
        raise InputError(f"the temperature is {temperature}: give a positive number")
    # Cut-offs that are left out would be filled from the model's own.
    open_ended = {"top_k": 0, "top_p": 1.0, "min_p": 0.0, "typical_p": 1.0, "epsilon_cutoff": 0.0, "eta_cutoff": 0.0}
    settings = {"do_sample": True, "temperature": float(temperature), **open_ended}
    devices = [inputs["input_ids"].device] if inputs["input_ids"].is_cuda else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        return _generated(model, tokenizer, inputs, max_new_tokens, barred, settings)


def _generated(
    model: Any,
    tokenizer: Any,
    inputs: Mapping[str, torch.Tensor],
    max_new_tokens: int,
    barred: Collection[int],
    choosing: Mapping[str, Any],
) -> list[tuple[int, ...]]:
    from transformers import GenerationConfig, LogitsProcessorList

    if max_new_tokens < 1:
        raise InputError(f"max_new_tokens must be at least 1, and is {max_new_tokens}")
    ends = _ends(model, tokenizer)
    settings = GenerationConfig(
        max_new_tokens=max_new_tokens,
        **choosing,
        num_beams=1,
        num_return_sequences=1,
        return_dict_in_generate=False,
        eos_token_id=ends or None,
        pad_token_id=next((token for token in (tokenizer.pad_token_id, *ends) if token is not None), 0),
        repetition_penalty=model.generation_config.repetition_penalty,
    )
    guard = LogitsProcessorList([_Guard(barred)])
    with torch.inference_mode():
        # Settings that are None are filled from the model's own; only a keyword takes its stop strings away.
        own = {"stop_strings": None} if getattr(model.generation_config, "stop_strings", None) else {}
        output = model.generate(**inputs, generation_config=settings, logits_processor=guard, **own)
    return [_until(ids, ends) for ids in output[:, inputs["input_ids"].shape[1] :].tolist()]


def nan_message(place: str) -> str:
    """What to say of logits that are not numbers.

    >>> nan_message("question 3")[:46]
    'the logits of question 3 are not numbers (NaN)'
    """
    return (
        f"the logits of {place} are not numbers (NaN): check the weights, or load the model with dtype='float32' or "
        "'bfloat16'"
    )


class _Guard:
    """Stops generation at logits that are not numbers, and keeps barred tokens out."""

    def __init__(self, barred: Collection[int]) -> None:
        self._barred = sorted(barred)

    def __call__(self, _: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        broken = torch.isnan(scores).any(dim=-1)
        if broken.any():
            row = int(broken.nonzero()[0])
            raise InputError(nan_message(f"question {row}" if len(scores) > 1 else "the question"))
        scores = scores.clone()
        scores[:, self._barred] = -torch.inf
        return scores


def _ends(model: Any, tokenizer: Any) -> list[int]:
    own = model.generation_config.eos_token_id
    ends = own if own is not None else tokenizer.eos_token_id
    if ends is None:
        return []
    return [ends] if isinstance(ends, int) else list(ends)


def _until(ids: Sequence[int], ends: Sequence[int]) -> tuple[int, ...]:
    """The ids before the first end.

    >>> _until([5, 6, 2, 0], [2])
    (5, 6)
    """
    stop = next((place for place, token in enumerate(ids) if token in ends), len(ids))
    return tuple(ids[:stop])
