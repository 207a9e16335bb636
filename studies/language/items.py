"""Questions with one right answer, composed offline by template, and answers to them in a short and a long form.

Every answer is the right one to one question and the wrong one to another of its kind, so that the answer alone does
not tell which it is. Knows no model. No torch.
"""

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
    "one two three four five six seven eight nine ten eleven twelve",
)
LEADS = (
    "After thinking about it for a while, I would say that the answer is {}.",
    "That is a good question, and as far as I know the right answer is {}.",
    "Thank you for asking; to the best of my knowledge, the answer must be {}.",
    "Let me see. There is not much doubt here, so I will go with {}.",
)
"""Long forms of an answer: they say nothing more."""


class Item(NamedTuple):
    """A question.

    Attributes:
        id: Kind and number.
        kind: What is asked for.
        question: The user's words.
        right: The right answer, in its short form.
        wrong: The right answer to another question of its kind.
    """

    id: str
    kind: str
    question: str
    right: str
    wrong: str


class Facts(NamedTuple):
    """Questions of one kind; answers of those in one circle are each other's wrong ones."""

    kind: str
    circle: str
    asked: tuple[tuple[str, str], ...]


def facts() -> list[Facts]:
    """Everything that can be asked."""
    found = [
        Facts("capital", "capital", tuple((f"What is the capital of {a}?", b) for a, b in _two(_CAPITALS))),
        Facts("opposite", "opposite", tuple((f"What is the opposite of {a}?", b) for a, b in _two(_OPPOSITES))),
        Facts("copy", "copy", tuple((f"Repeat this word: {word}", word) for word in _WORDS.split())),
    ]
    for what, (one, ones, other, others) in _CATEGORIES.items():
        asked = [
            (f"Is {word} the name of {what}?", name)
            for pair in zip(ones.split(), others.split(), strict=True)
            for word, name in zip(pair, (one, other), strict=True)
        ]
        found.append(Facts("category", what, tuple(asked)))
    for row in _ORDERED:
        words = row.split()
        asked = [(f"What comes after {word}?", after) for word, after in pairwise(words)]
        found.append(Facts("next", row, tuple(asked)))
    return found


def make_items() -> list[Item]:
    """Every question with a wrong answer, the right one of the next question in its circle that has another.

    >>> make_items()[0]
    Item(id='capital-0', kind='capital', question='What is the capital of France?', right='Paris', wrong='Berlin')
    """
    made: list[Item] = []
    counts: dict[str, int] = {}
    for kind, _, asked in facts():
        for place, (question, right) in enumerate(asked):
            others = (asked[(place + step) % len(asked)][1] for step in range(1, len(asked)))
            number = counts.get(kind, 0)
            counts[kind] = number + 1
            made.append(Item(f"{kind}-{number}", kind, question, right, next(each for each in others if each != right)))
    return made


def split_items(items: Sequence[Item], tests: int, seed: int) -> tuple[list[int], list[int]]:
    """Places of training and test items; each kind is split alike.

    Args:
        items: All.
        tests: About how many are held out.
        seed: Draws them.

    Raises:
        ValueError: If nothing would be left of a kind on one side.
    """
    rng = np.random.default_rng((seed, 1))
    train: list[int] = []
    test: list[int] = []
    for kind in dict.fromkeys(item.kind for item in items):
        own = np.array([place for place, item in enumerate(items) if item.kind == kind])
        held = round(tests * len(own) / len(items))
        if not 0 < held < len(own):
            raise ValueError(f"{tests} of {len(items)} items leave {held} of {len(own)} of the kind {kind!r} to test")
        order = rng.permutation(own)
        test += order[:held].tolist()
        train += order[held:].tolist()
    return sorted(train), sorted(test)


def form(item: Item, number: int, right: bool, long: bool) -> str:
    """An answer to an item; the lead of the long form goes by the item's number, so that both sides share it."""
    answer = item.right if right else item.wrong
    return LEADS[number % len(LEADS)].format(answer) if long else f"{answer[0].upper()}{answer[1:]}."


def _two(text: str) -> list[tuple[str, str]]:
    pairs = (entry.split(" ") for entry in text.split(","))
    return [(one, other) for one, other in pairs]
