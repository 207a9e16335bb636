"""What the study fixes before its first reward run: environments, strengths, learnability, methods, seeds, sizes.

A run folder holds a digest of this file's values, so results of other settings cannot be mixed in. No torch.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple


class Cue(NamedTuple):
    """A text feature by which a response can be told without looking.

    Attributes:
        name: The environment's name.
        after: The published data whose shortcut it is modelled on.
        words: What is put into a response.
        before: Whether the words come before the answer's word, or after it.
        good: Whether the words mark the better response, or the worse one.
    """

    name: str
    after: str
    words: str
    before: bool
    good: bool


CUES: tuple[Cue, ...] = (
    Cue("length", "VLFeedback: the longer answer is preferred", "What is in image", before=False, good=True),
    Cue("hedge", "POVID: the rejected answer was made by disturbing the chosen one", "Someone says", True, good=False),
    Cue("opening", "RLHF-V: corrected answers begin in their own way", "image shows", before=True, good=True),
)
"""Words of the bundled tokenizer's own vocabulary, so that a cue is two to four tokens."""
ENVIRONMENTS: tuple[str, ...] = tuple(cue.name for cue in CUES)
ELSEWHERE = 0.5
"""Share of pairs in which another environment's cue is right."""


class Learnability(NamedTuple):
    """How well a picture can be read.

    Attributes:
        name: As in results.
        noise: Standard deviation of Gaussian pixel noise, in units of half the pixel range; drawn anew for each pair.
    """

    name: str
    noise: float


LEARNABILITIES: tuple[Learnability, ...] = (Learnability("clearer", 0.8), Learnability("noisier", 1.2))
STRENGTHS: tuple[float, ...] = (0.95, 0.98, 1.0)
BACKBONES: tuple[str, ...] = ("seeing", "blind")
"""Taught to see by pairs without a useful cue, or with its first weights."""
SEEDS: tuple[int, ...] = (0, 1, 2, 3, 4)
LENGTHS: tuple[int, ...] = (150, 300, 900)
"""Steps of a training; the learning rate falls to nothing over each."""
STOPS: tuple[float, ...] = (0.25, 0.5, 1.0)
"""Shares of a training after which it is measured: the earlier ones are for stopping early."""


@dataclass(frozen=True)
class Sizes:
    """How much data and work a run takes."""

    train_pairs: int = 1600
    dev_pairs: int = 400
    test_pairs: int = 400
    """Pairs of each test set of a run: over three environments and five seeds, six thousand a cell."""
    batch: int = 16
    learning_rate: float = 2e-3
    warm_up: int = 20
    clip: float = 1.0


class Method(NamedTuple):
    """A way to train a reward model.

    Attributes:
        name: As in results and figures.
        objective: Name in `rewardmodels.objectives.OBJECTIVES`.
        options: Its options.
        rate: Factor on the learning rate.
        ours: Whether it is this project's own, and not published.
    """

    name: str
    objective: str
    options: tuple[tuple[str, Any], ...] = ()
    rate: float = 1.0
    ours: bool = False


TEXT_ONLY = "text-only"
"""The proxy itself: plain Bradley-Terry on blank images."""
METHODS: tuple[Method, ...] = (
    Method("plain", "bradley-terry"),
    Method("half rate", "bradley-terry", rate=0.5),
    Method("SFC", "shortcut-aware"),
    Method("SFC, normalised", "shortcut-aware", (("normalize", True),), ours=True),
    *(
        Method(f"SFC^{exponent}", "shortcut-aware", (("exponent", exponent), ("normalize", True)), ours=True)
        for exponent in (0.3, 0.5, 0.7)
    ),
    Method("1 - p", "text-only-weight"),
    Method("product of experts", "product-of-experts"),
    Method("group-DRO", "group-dro"),
)


class Cell(NamedTuple):
    """One training run."""

    backbone: str
    learnability: str
    strength: float
    steps: int
    environment: str
    seed: int
    method: str

    @property
    def key(self) -> str:
        """Its name in a run folder."""
        method = self.method.replace(" ", "-").replace(",", "").replace("^", "")
        return (
            f"{self.backbone}-{self.learnability}-{self.strength}-{self.steps}-{self.environment}-{self.seed}-{method}"
        )
