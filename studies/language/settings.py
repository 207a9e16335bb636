"""What the study fixes before its first reward run: sizes, strength of the cue, methods, seeds. No torch.

A run folder holds a digest of these values, of every text and of the weights, so that results of other settings cannot
be mixed in. Which answer is the wrong one to a question is the same for all seeds, so that the lower layers' states are
computed once; a seed draws which pairs of questions are held out, which answers are long, the head, the adapters and
the order of batches.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

STRENGTH = 0.95
"""Share of training pairs in which the longer answer is right."""
SEEDS: tuple[int, ...] = (0, 1, 2, 3, 4)
TEMPLATE = (
    "{% for message in messages %}{{ {'system': '', 'user': 'Question: ', 'assistant': 'Answer: '}[message['role']] }}"
    "{{ message['content'] }}\n{% endfor %}"
)
"""A plain form of a conversation: some half of the tokens of the checkpoint's own template."""


@dataclass(frozen=True)
class Sizes:
    """How much data and work a run takes."""

    upper: int = 4
    """Last layers that bear adapters; what is below them is computed once."""
    rank: int = 8
    tests: int = 96
    """Items held out, about, by pairs of questions; the others are trained on, one pair of answers each."""
    batch: int = 8
    steps: int = 60
    learning_rate: float = 1e-3
    warm_up: int = 6
    clip: float = 1.0
    proxy_rate: float = 0.1
    """Learning rate of the proxy's one weight."""


def adapter_settings(sizes: Sizes) -> dict[str, Any]:
    """Of every run's `peft.LoraConfig`."""
    return {
        "r": sizes.rank,
        "lora_alpha": 2 * sizes.rank,
        "target_modules": ["q_proj", "k_proj", "v_proj", "o_proj", "up_proj", "down_proj"],
        "modules_to_save": ["score"],
    }


class Method(NamedTuple):
    """A way to train.

    Attributes:
        name: As in results and figures.
        objective: Name in `rewardmodels.objectives.OBJECTIVES`.
        strength: Share of training pairs in which the longer answer is right.
        expert: What the objective takes as the shortcut's margin: "" for nothing; "proxy" for a proxy that sees the
            two lengths and learns along, as in shortcut-aware learning; "fitted" for the same, fitted beforehand.
        balanced: Whether pairs with a longer right answer, and those with a shorter one, weigh one half each.
        options: Of the objective.
    """

    name: str
    objective: str = "bradley-terry"
    strength: float = STRENGTH
    expert: str = ""
    balanced: bool = False
    options: tuple[tuple[str, Any], ...] = ()


PROXY = "length only"
"""The proxy: one weight on the difference of log-lengths.

Ours: in the paper it is a model that sees text and no image. Here all is text, and what must not decide is how long an
answer is. A model that reads the answers without their questions would learn the same and cost more, as every answer is
as often right as wrong, on both sides of the split.
"""
METHODS: tuple[Method, ...] = (
    Method("plain"),
    Method("SFC", "shortcut-aware", expert="proxy"),
    Method("product of experts", "product-of-experts", expert="fitted"),
    Method("balanced", balanced=True),
    Method("no cue", strength=0.5),
)
"""The last is what the questions alone can teach: the limit of the others."""
