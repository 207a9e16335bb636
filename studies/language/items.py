"""Questions with one right answer, composed offline by template, and answers to them in a short and a long form.

Questions come in pairs: the right answer to either is the wrong one to the other, and a pair is held out as a whole. So
every answer is as often right as wrong among the items trained on, and among those held out, and whatever scores
answers without their questions is right in half of the items of each pair. (Wrong answers taken round a longer circle
would not do: split between training and test, they make an answer that was right in training wrong in the test, so that
remembering answers costs accuracy; and an order of answers is right about all but one item of a whole circle.) Knows no
model. No torch.
"""

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np

_CAPITALS = (
    "France Paris,Germany Berlin,Italy Rome,Spain Madrid,Portugal Lisbon,Austria Vienna,Greece Athens,"
    "Russia Moscow,Japan Tokyo,China Beijing,Egypt Cairo,Poland Warsaw,Ireland Dublin,Norway Oslo,"
    "Sweden Stockholm,Denmark Copenhagen,Finland Helsinki,Belgium Brussels,Hungary Budapest,Turkey Ankara,"
    "Iran Tehran,Iraq Baghdad,Canada Ottawa,Cuba Havana,Peru Lima,Chile Santiago,Thailand Bangkok,"
    "Kenya Nairobi,Australia Canberra,Ukraine Kyiv,Romania Bucharest,Bulgaria Sofia,Croatia Zagreb,"
    "Serbia Belgrade,Lebanon Beirut,Syria Damascus,Jordan Amman,Vietnam Hanoi,Indonesia Jakarta,"
    "Philippines Manila,Nepal Kathmandu,Iceland Reykjavik,Scotland Edinburgh,England London"
)
_OPPOSITES = (
    "hot cold,big small,up down,left right,day night,black white,open closed,rich poor,fast slow,young old,"
    "hard soft,wet dry,full empty,happy sad,light dark,strong weak,long short,high low,early late,true false,"
    "good bad,clean dirty,loud quiet,near far,thick thin,wide narrow,first last,north south,east west,"
    "start end,love hate,win lose,buy sell,push pull,inside outside,above below,before after,alive dead,"
    "summer winter,question answer"
)
_CATEGORIES = {
    "an animal or a plant": (
        "animal",
        "dog cat horse cow tiger lion sheep rabbit eagle shark whale snake frog bear wolf duck",
        "plant",
        "rose oak tulip pine grass fern daisy cactus willow maple lily bamboo ivy moss orchid palm",
    ),
    "a fruit or a tool": (
        "fruit",
        "banana apple pear cherry grape lemon mango peach plum orange",
        "tool",
        "hammer saw drill wrench screwdriver shovel rake axe chisel pliers",
    ),
    "a city or a river": (
        "city",
        "London Paris Tokyo Berlin Chicago Madrid Boston Sydney",
        "river",
        "Nile Danube Amazon Thames Ganges Mississippi Rhine Volga",
    ),
}
_WORDS = (
    "apple river stone window garden music paper silver yellow winter bridge candle forest market pencil rocket shadow "
    "ticket valley wagon anchor basket castle desert engine flower guitar hammer island jacket kitten ladder"
)
_ORDERED = (
    "Monday Tuesday Wednesday Thursday Friday Saturday Sunday",
    "January February March April May June July August September October November December",
    "one two three four five six seven eight nine ten eleven",
)
_ROUND = _ORDERED[1]
"""Begins again after its last word, so that its questions can be paired."""
LEADS = (
    "After thinking about it for a while, I would say that the answer is {}.",
    "That is a good question, and as far as I know the right answer is {}.",
    "Thank you for asking; to the best of my knowledge, the answer must be {}.",
    "Let me see. There is not much doubt here, so I will go with {}.",
)
"""Long forms of an answer: they say nothing more."""
FORMS = ((True, False), (True, True), (False, False), (False, True))
"""Right and short, right and long, wrong and short, wrong and long: the order of an item's four answers."""


class Item(NamedTuple):
    """A question.

    Attributes:
        id: Kind and number.
        kind: What is asked for.
        question: The user's words.
        right: The right answer, in its short form.
        wrong: The right answer to the other question of its pair.
        pair: Number of the pair, among those of all kinds.
    """

    id: str
    kind: str
    question: str
    right: str
    wrong: str
    pair: int


class Facts(NamedTuple):
    """Questions of one kind with their answers; every two, from the first, are a pair."""

    kind: str
    asked: tuple[tuple[str, str], ...]


def facts() -> list[Facts]:
    """Everything that can be asked."""
    found = [
        Facts("capital", tuple((f"What is the capital of {a}?", b) for a, b in _two(_CAPITALS))),
        Facts("opposite", tuple((f"What is the opposite of {a}?", b) for a, b in _two(_OPPOSITES))),
        Facts("copy", tuple((f"Repeat this word: {word}", word) for word in _WORDS.split())),
    ]
    for what, (one, ones, other, others) in _CATEGORIES.items():
        asked = [
            (f"Is {word} the name of {what}?", name)
            for pair in zip(ones.split(), others.split(), strict=True)
            for word, name in zip(pair, (one, other), strict=True)
        ]
        found.append(Facts("category", tuple(asked)))
    for row in _ORDERED:
        words = [*row.split(), *row.split()[: row == _ROUND]]
        asked = [(f"What comes after {word}?", after) for word, after in pairwise(words)]
        # Half a row apart: the wrong answer to one of two neighbours would be the word that it asks about.
        half = len(asked) // 2
        paired = [each for pair in zip(asked[:half], asked[half:], strict=True) for each in pair]
        found.append(Facts("next", tuple(paired)))
    return found


def make_items() -> list[Item]:
    """Every question, with the answer to the other of its pair as the wrong one.

    Raises:
        ValueError: If a question has no other, or both have one answer.

    >>> make_items()[0].question, make_items()[0].right, make_items()[0].wrong
    ('What is the capital of France?', 'Paris', 'Berlin')
    >>> make_items()[1].question, make_items()[1].right, make_items()[1].wrong
    ('What is the capital of Germany?', 'Berlin', 'Paris')
    """
    made: list[Item] = []
    counts: Counter[str] = Counter()
    for kind, asked in facts():
        for one, other in zip(asked[::2], asked[1::2], strict=True):
            if one[1] == other[1]:
                raise ValueError(f"{one[0]!r} and {other[0]!r} are a pair with one answer: {one[1]!r}")
            pair = len(made) // 2
            for (question, right), (_, wrong) in ((one, other), (other, one)):
                made.append(Item(f"{kind}-{counts[kind]}", kind, question, right, wrong, pair))
                counts[kind] += 1
    return made


def split_items(items: Sequence[Item], tests: int, seed: int) -> tuple[list[int], list[int]]:
    """Places of training and test items; pairs stay together, and each kind is split alike.

    Args:
        items: All.
        tests: About how many are held out.
        seed: Draws their pairs.

    Raises:
        ValueError: If nothing would be left of a kind on one side.
    """
    rng = np.random.default_rng((seed, 1))
    held: set[int] = set()
    for kind in dict.fromkeys(item.kind for item in items):
        own = list(dict.fromkeys(item.pair for item in items if item.kind == kind))
        count = round(tests * len(own) / len(items))
        if not 0 < count < len(own):
            raise ValueError(
                f"{tests} of {len(items)} items leave {count} of {len(own)} pairs of the kind {kind!r} to test"
            )
        held.update(rng.permutation(own)[:count].tolist())
    sides: tuple[list[int], list[int]] = ([], [])
    for place, item in enumerate(items):
        sides[item.pair in held].append(place)
    return sides


def form(item: Item, right: bool, long: bool) -> str:
    """An answer to an item; the lead of the long form goes by the pair, whose two items so share all their answers."""
    answer = item.right if right else item.wrong
    return LEADS[item.pair % len(LEADS)].format(answer) if long else f"{answer[0].upper()}{answer[1:]}."


def _two(text: str) -> list[tuple[str, str]]:
    pairs = (entry.split(" ") for entry in text.split(","))
    return [(one, other) for one, other in pairs]
