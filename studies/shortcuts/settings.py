"""What the study fixes before its first reward run: environments, strengths, learnability, methods, seeds, sizes.

A run folder holds a digest of what decides a run, so results of other settings cannot be mixed in. What was tried after
the headline was known, `ATTEMPTS` and `FINER`, stands apart. No torch.
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
    Cue("hedge", "POVID: the rejected answer was made by disturbing the chosen one", "Someone says", False, good=False),
    Cue("opening", "RLHF-V: corrected answers begin in their own way", "image shows", before=True, good=True),
)
"""Words of the bundled tokenizer's own vocabulary, so that a cue is two to four tokens."""
ENVIRONMENTS: tuple[str, ...] = tuple(cue.name for cue in CUES)
NO_CUE = "no-cue"
"""The environment in which no cue tells anything: what training learns there is the image-only ceiling."""
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


LEARNABILITIES: tuple[Learnability, ...] = (Learnability("clearer", 0.5), Learnability("noisier", 0.9))


NOISIEST = Learnability("noisiest", 1.1)
"""On no place of the map; see `ATTEMPTS`."""


def noise_of(learnability: str) -> float:
    """The noise of a learnability, by its name."""
    return next(each.noise for each in (*LEARNABILITIES, NOISIEST) if each.name == learnability)


STRENGTHS: tuple[float, ...] = (0.95, 0.98, 1.0)
BACKBONES: tuple[str, ...] = ("seeing", "unaligned", "blind")
"""Taught to see by pairs without a useful cue; with the taught tower only, which its decoder has never read; or with
its first weights.
"""
SEEDS: tuple[int, ...] = (1, 2, 3, 4, 5)
"""Seed 0 chose noise, steps and rates, and is in no result."""
LENGTHS: tuple[int, ...] = (200, 400, 800)
"""Steps of a training; the learning rate falls to nothing over each."""
STOPS: tuple[float, ...] = (0.25, 1.0)
"""Shares of a training after which it is measured: the earlier one is for stopping early."""


@dataclass(frozen=True)
class Sizes:
    """How much data and work a run takes."""

    train_pairs: int = 3200
    dev_pairs: int = 300
    test_pairs: int = 300
    """Pairs of each test set of a run: over three environments and five seeds, 4,500 a place of the map."""
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
        for exponent in (0.5, 0.7)
    ),
    Method("1 - p", "text-only-weight"),
    Method("product of experts", "product-of-experts"),
    Method("group-DRO", "group-dro"),
    Method("image contrast", "image-contrast", (("ranking", 0.3),), ours=True),
)
CONTRAST_ALONE = Method("contrast alone", "image-contrast", (("ranking", 0.0),), ours=True)
FINER: tuple[Method, ...] = tuple(
    Method(f"SFC^{exponent}", "shortcut-aware", (("exponent", exponent), ("normalize", True)), ours=True)
    for exponent in (0.55, 0.6, 0.65)
)
"""Exponents between those of `METHODS`: not fixed before the first run, and run only where they are asked for."""
CONTROL_METHODS: tuple[str, ...] = ("plain", "SFC", "SFC^0.7", "1 - p")
"""What is compared where no method can help: a cue that is never wrong, a backbone that does not see."""
STARTING_METHODS: tuple[str, ...] = ("plain", "SFC", "image contrast", "contrast alone")
"""What is compared from an unaligned backbone: which of them start to look."""
EXPONENTS: tuple[str, ...] = ("SFC^0.5", "SFC^0.7", "SFC, normalised")
"""In rising order."""
FINER_EXPONENTS: tuple[str, ...] = ("SFC^0.5", *(method.name for method in FINER), "SFC^0.7", "SFC, normalised")
"""In rising order, with those between."""
LARGEST_DEV_LOSS = 0.015
"""The exponent is the largest that costs at most this much i.i.d. accuracy on dev pictures against plain training.

The best i.i.d. accuracy itself would always choose plain training, and an accuracy elsewhere must not be looked at.
"""


class Place(NamedTuple):
    """A place of the map."""

    backbone: str
    learnability: str
    strength: float
    steps: int


HEADLINE = Place("seeing", "noisier", 0.98, 400)
"""The place that the claim is made for."""
GAIN_BAR = 0.10
"""By how much accuracy elsewhere is to rise there, at the lower end of its interval."""
LARGEST_LOSS_PUBLISHED = 0.05
"""What SFC as published may cost at home."""
LARGEST_LOSS_CHOSEN = 0.02
"""What the chosen exponent may cost at home."""
LARGEST_CONTROL_CHANGE = 0.03
"""How much a method may change at home or elsewhere where none can help: a cue that is never wrong, or no sight."""
PLACES: dict[str, tuple[Place, ...]] = {
    "headline": (HEADLINE,),
    "controls": (HEADLINE._replace(strength=1.0), HEADLINE._replace(backbone="blind")),
    "start": (HEADLINE._replace(backbone="unaligned", learnability="clearer", steps=800),),
    "map": tuple(
        Place("seeing", learnability.name, strength, steps)
        for learnability in LEARNABILITIES
        for strength in STRENGTHS
        for steps in LENGTHS
    ),
}
"""The parts of the study; places of an earlier part are in the map as well."""
SUBSETS: dict[str, tuple[Place, ...]] = {
    "lengths": (HEADLINE._replace(steps=800), HEADLINE._replace(steps=200)),
    "shorter": (HEADLINE._replace(steps=200),),
    "never-wrong": (HEADLINE._replace(strength=1.0),),
    "fallible": tuple(place for place in PLACES["map"] if place.strength < 1.0),
}
"""Places of the map that can be asked for by themselves; they fix nothing."""


class Attempt(NamedTuple):
    """One place and its sizes, tried because the headline missed a bar.

    Attributes:
        place: Where it is trained.
        sizes: How much data and work a run takes.
        why: What it changes, and why that may reach the bar.
    """

    place: Place
    sizes: Sizes
    why: str


ATTEMPTS: dict[str, Attempt] = {
    "faster": Attempt(
        HEADLINE,
        Sizes(learning_rate=4e-3),
        "twice the learning rate, so that plain training comes nearer to the weight of the cue that is best at home",
    ),
    "scarcer": Attempt(
        HEADLINE._replace(learnability=NOISIEST.name, steps=200),
        Sizes(train_pairs=1600),
        "half the pairs, half the steps and more noise, so that the cue is learned well before the picture",
    ),
}
"""Not fixed before the first run, so no headline: each has a run folder of its own, with a digest of its own."""


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
