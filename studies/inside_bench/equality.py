"""What is recorded inside a decoder, held against the full computation of `full` on the same short prompt.

The full computation is itself held against what the layers use, and a formula that lacks a term (the time step, the
bias) has to show. Knows nothing of clocks or processes.
"""

import numpy as np
import torch
from torch import Tensor, nn

from probes.forwards import run_once
from probes.mixers.sums import FORMS
from probes.routing import record_routing
from probes.state_space import hidden_attention
from studies.inside_bench.config import InsideBench
from studies.inside_bench.forwards import ROWS, Prompt, hidden_rows, prompt
from studies.inside_bench.full import FullScan, full_routing, listening
from studies.inside_bench.models import decoder
from studies.inside_bench.results import Equality

__all__ = ["check", "hidden_attention_check", "routing_check"]


def check(config: InsideBench, question: str, model: str) -> Equality:
    """Hold what is recorded of a decoder against the full computation."""
    checks = {"hidden attention": hidden_attention_check, "routing": routing_check}
    return checks[question](decoder(config, model), prompt(config, config.checked_length), model)


@torch.no_grad()
def hidden_attention_check(model: nn.Module, given: Prompt, name: str) -> Equality:
    """The rows' hidden attention in every form, its factors and its maps, beside Mamba-2's whole matrix."""
    with listening(model, "Mamba2Mixer", ("in_proj", "norm")) as mixers:
        run_once(model, given.inputs)
    recorded = {"heads": hidden_rows(model, given, per_head=True), "maps": hidden_rows(model, given, maps=True)}
    rows = given.rows[0].nonzero().flatten()
    differences: list[float] = []
    own: list[float] = []
    controls: list[float] = []
    for place, mixer in enumerate(mixers.values()):
        full = FullScan.of(mixer.module, mixer.left["in_proj"])
        wrong = full.without_step()
        own.append(_difference(full.output(), mixer.entered["norm"][0][0]))
        for form in FORMS:
            found = hidden_attention(mixer.module, mixer.entered[""][0], rows.tolist(), form=form)[0]
            right = full.rows(rows, form)
            differences.append(_difference(found, right))
            controls.append(_difference(found, wrong.rows(rows, form)))
            factors = torch.stack([right[..., start:stop].mean((1, 2)) for start, stop in given.spans], dim=-1)
            differences.append(_difference(recorded["heads"].factors(ROWS, form)[0, place], factors))
            cells = recorded["maps"].maps(ROWS, form)[0]
            for image, (start, stop) in enumerate(given.spans):
                differences.append(_difference(cells[image][place], right[..., start:stop].mean((0, 1))))
    return Equality(
        "hidden attention", name, given.length, _largest(differences), _largest(own), float(np.min(controls))
    )


@torch.no_grad()
def routing_check(model: nn.Module, given: Prompt, name: str) -> Equality:
    """Every choice, weight and score, beside those worked out anew and beside what the experts were handed."""
    with listening(model, "TopkRouter", ()) as routers, listening(model, "Experts", ()) as experts:
        run_once(model, given.inputs)
    recorded = record_routing(model, given.inputs)
    if set(recorded) != set(routers) or set(recorded) != set(experts):
        raise RuntimeError(f"layers {sorted(recorded)} were recorded, and {sorted(routers)} have routers")
    equal, by_logits, differences, own = [], [], [], []
    for layer, router in routers.items():
        right = full_routing(router.module, router.entered[""][0])
        _, used, used_weights = experts[layer].entered[""][:3]
        indices, weights, scores = (
            torch.from_numpy(getattr(recorded[layer], part)) for part in ("indices", "weights", "scores")
        )
        ascending = indices.sort(-1)
        equal.append((ascending.values == right.indices).all(-1) & (indices == used).all(-1))
        by_logits.append((ascending.values == right.by_logits).all(-1))
        differences += [
            _difference(weights.gather(1, ascending.indices), right.weights),
            _difference(scores, right.scores),
        ]
        own.append(_difference(weights, used_weights))
    return Equality(
        "routing", name, given.length, _largest(differences), _largest(own), _share(by_logits), equal=_share(equal)
    )


def _difference(found: Tensor, right: Tensor) -> float:
    """The largest difference over the largest number."""
    right = right.double()
    return float((found.double() - right).abs().max() / right.abs().max())


def _largest(differences: list[float]) -> float:
    """NaN where one is, which Python's own `max` passes over."""
    return float(np.max(differences))


def _share(flags: list[Tensor]) -> float:
    return float(torch.cat(flags).double().mean())
