"""Where a reward model's scoring token looks, over many pairs: numbers by layer, and rows to keep.

How attention is read is `rewardmodels.looking`. Importing it loads no torch.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from probes.estimates import Estimate, mean, proportion
from probes.inputs import InputError
from probes.scores import focus
from rewardmodels.records import PreferencePair
from studies.reward.entries import Entry

if TYPE_CHECKING:
    from rewardmodels.looking import ScoringAttention
    from rewardmodels.model import RewardModel

RULE, LAST = "M-LND", 4
"""How one image is picked: the largest mean factor over the last layers."""


@dataclass(frozen=True)
class Looked:
    """What the scoring tokens of both answers of some pairs attend to."""

    rows: tuple[dict[str, Any], ...]
    """One an answer: its pair and side, layers, factors (layers, images), tokens of each image, target, score."""
    layers: tuple[int, ...]
    share: tuple[Estimate, ...]
    """By layer: how much of the scoring token's attention falls on the prompt's images."""
    hits: Estimate | None
    """How often the image in focus is the target, where targets are known among several images."""
    by_layer: tuple[Estimate, ...]
    """The same by the factors of one layer."""
    chance: float | None

    def entries(self) -> list[Entry]:
        """Its numbers, named."""
        last = max(range(len(self.layers)), key=lambda place: self.share[place].value)
        name = f"most attention on images, layer {self.layers[last]}"
        found = [Entry("attention", name, self.share[last], note="share of the scoring token's attention")]
        if self.hits is not None:
            note = f"the scoring token, {RULE} over the last {LAST} layers; chance {100 * (self.chance or 0):.1f} %"
            found.append(Entry("attention", "scoring token is on the target image", self.hits, note=note))
        return found


def look(reward: "RewardModel", pairs: Sequence[PreferencePair], count: int, batch_size: int, seed: int) -> Looked:
    """Read where both answers' scoring tokens look.

    Args:
        reward: The model.
        pairs: Of which those with images are drawn from.
        count: Most pairs.
        batch_size: Answers in a forward pass.
        seed: Of the draw.

    Raises:
        InputError: No pair has an image, or as `scoring_attention`.
    """
    from rewardmodels.looking import scoring_attention
    from studies.auditing.plan import draw
    from studies.auditing.progress import Counter

    seen = {pair.id: pair for pair in pairs if any(turn.images for turn in pair.prompt)}
    if not seen:
        raise InputError("--attention: no pair has an image to attend to; leave it out")
    chosen = [seen[name] for name in draw(list(seen), min(count, len(seen)), seed)]
    found: list[ScoringAttention] = []
    with Counter("reading attention", len(chosen)) as counter:
        for start in range(0, len(chosen), batch_size):
            some = chosen[start : start + batch_size]
            prompts = [pair.prompt for pair in some for _ in range(2)]
            answers = [answer for pair in some for answer in (pair.chosen, pair.rejected)]
            found += scoring_attention(reward, prompts, answers, batch_size=batch_size)
            counter.advance(len(some))
    return summarise(chosen, found)


def summarise(pairs: Sequence[PreferencePair], found: "Sequence[ScoringAttention]") -> Looked:
    """Numbers and rows of what was read, two answers a pair, the better first."""
    of = [pair for pair in pairs for _ in range(2)]
    clusters = [pair.cluster for pair in of]
    rows = []
    shares = []
    for place, (pair, each) in enumerate(zip(of, found, strict=True)):
        tokens = [len(span.tokens) for span in each.spans]
        factors = each.factors[:, : each.prompt_images]
        shares.append(factors @ np.array(tokens[: each.prompt_images], dtype=np.float64))
        rows.append(
            {
                "pair": pair.id,
                "side": "rejected" if place % 2 else "chosen",
                "score": each.score,
                "target": pair.target,
                "prompt_images": each.prompt_images,
                "tokens": tokens,
                "layers": list(each.layers),
                "factors": [[float(value) for value in layer] for layer in each.factors],
            }
        )
    table = np.stack(shares)
    known = [place for place, pair in enumerate(of) if pair.target is not None and found[place].prompt_images > 1]
    inside = [clusters[place] for place in known]
    factors_of = {place: found[place].factors[:, : found[place].prompt_images] for place in known}
    targets = np.array([of[place].target for place in known])

    def hits(last: slice) -> Estimate:
        focused = [focus(factors_of[place][last], RULE, LAST) for place in known]
        return proportion(np.array(focused) == targets, inside)

    layers = found[0].layers
    chance = float(np.mean([1 / found[place].prompt_images for place in known])) if known else None
    return Looked(
        rows=tuple(rows),
        layers=layers,
        share=tuple(mean(table[:, place], clusters, 0.95, (0.0, 1.0)) for place in range(len(layers))),
        hits=hits(slice(None)) if known else None,
        by_layer=tuple(hits(slice(place, place + 1)) for place in range(len(layers))) if known else (),
        chance=chance,
    )
