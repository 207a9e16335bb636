"""The forwards that the inside bench runs: a decoder plain, and with what is recorded of it.

Knows nothing of processes, clocks or tables.
"""

import contextlib
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from probes.forwards import run_once
from probes.mixers.recorder import MixerRecorder
from probes.mixers.sums import FORMS
from probes.routing import LayerRouting, record_routing
from studies.bench_process import Ready
from studies.capture.config import image_spans
from studies.inside_bench.config import InsideBench
from studies.inside_bench.models import VOCABULARY

__all__ = ["ROWS", "Prompt", "hidden_rows", "prompt", "ready"]

ROWS = "rows"
"""Name of the row set."""


class Prompt(NamedTuple):
    """What a forward is given.

    Args:
        inputs: Keywords of the model: one sequence.
        rows: Bool (1, tokens): the query rows.
        spans: Columns of each image.
    """

    inputs: dict[str, Any]
    rows: Tensor
    spans: list[tuple[int, int]]

    @property
    def length(self) -> int:
        """Tokens."""
        return self.rows.shape[1]


def prompt(config: InsideBench, length: int, rows: int | None = None) -> Prompt:
    """Random tokens, and the last of them as rows; the plain forward is given the same."""
    generator = torch.Generator().manual_seed(config.seed)
    tokens = torch.randint(VOCABULARY, (1, length), generator=generator)
    mask = torch.zeros((1, length), dtype=torch.bool)
    mask[:, length - (rows or config.rows) :] = True
    return Prompt({"input_ids": tokens}, mask, image_spans(length, config.images))


def ready(kind: str, model: nn.Module, given: Prompt) -> Ready:
    """Make a forward ready to be timed.

    Args:
        kind: A name of `KINDS`, or "plain".
        model: The decoder of that kind.
        given: What it is run on.
    """
    return contextlib.nullcontext(lambda: _RUNS[kind](model, given))


def hidden_rows(model: nn.Module, given: Prompt, maps: bool = False, per_head: bool = False) -> MixerRecorder:
    """Record the hidden attention of the rows, in every form."""
    with MixerRecorder(model, given.spans, {ROWS: given.rows}, FORMS, per_head=per_head, cells=maps) as recorder:
        run_once(model, given.inputs)
    return recorder


def _plain(model: nn.Module, given: Prompt) -> None:
    run_once(model, given.inputs)


def _rows(model: nn.Module, given: Prompt) -> list[Tensor]:
    recorder = hidden_rows(model, given)
    return [recorder.factors(ROWS, form) for form in FORMS]


def _maps(model: nn.Module, given: Prompt) -> list[list[list[Tensor]]]:
    recorder = hidden_rows(model, given, maps=True)
    return [recorder.maps(ROWS, form) for form in FORMS]


def _routing(model: nn.Module, given: Prompt) -> dict[int, LayerRouting]:
    return record_routing(model, given.inputs)


_RUNS: dict[str, Callable[[nn.Module, Prompt], Any]] = {
    "plain": _plain,
    "rows": _rows,
    "maps": _maps,
    "routing": _routing,
    "routing-dots1": _routing,
}
