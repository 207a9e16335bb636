"""Small edits of an answer's text that leave what it claims about the image as it is.

An edit says what it keeps: the same words in another form ("words"); the same claims beside words that claim nothing
("claims"); or only a part of what was said ("less"), after which an answer is as true and may answer less. None turns a
wrong answer right. Knows no scorer. No torch.
"""

import difflib
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Literal

from probes.inputs import IMAGE_MARK, Turn
from rewardmodels.records import Response

Side = Literal["chosen", "rejected"]
Keeps = Literal["words", "claims", "less"]
Prompt = Sequence[Turn]

FILLERS = (
    "That is what there is to say here.",
    "Thank you for the question.",
    "Please ask if anything else is of interest.",
    "There are many ways of putting this into words.",
)
"""Sentences that claim nothing about an image, nor about the answer's being right."""
HEDGES = ("I think", "It seems that", "As far as I can tell,", "as far as can be seen", "though I may be mistaken")
_HEDGES_BEFORE = 3
"""How many of them come before an answer; the others go behind it."""
OPENINGS = ("Sure!", "Great question!", "Certainly.", "Of course.")
PAD_SIZES = (1, 2, 4, 8)
_SENTENCE = re.compile(r"(?<=[.!?])\s+")
_TOKEN = re.compile(r"\w+|\s|[^\w\s]")
_BULLET = re.compile(r"^[ \t]*[-*+][ \t]+", re.MULTILINE)
_HEADING = re.compile(r"^[ \t]*#{1,6}[ \t]+", re.MULTILINE)
_EMPHASIS = re.compile(r"(?<![\w*])\*\*(?=\S)(.+?)(?<=\S)\*\*(?![\w*])")
_CODE = re.compile(r"`([^`\n]+)`")


@dataclass(frozen=True)
class Edit:
    """One way of changing one side's answer."""

    name: str
    kind: str
    """pad, hedge, open, list, bold, heading, quote; for the chosen answer pad, hedge, strip and shorten."""
    side: Side
    keeps: Keeps
    change: Callable[[str, Prompt], str]

    def apply(self, response: Response, prompt: Prompt) -> Response | None:
        """Return the edited response; None where nothing changes or nothing is left."""
        text = self.change(response.text, prompt)
        if text == response.text or not text.strip():
            return None
        # The marks of the response's own images must all stay.
        if text.count(IMAGE_MARK) != response.text.count(IMAGE_MARK):
            return None
        return replace(response, text=text)


@dataclass(frozen=True)
class Candidate:
    """A pair of answers after some edits."""

    edits: tuple[Edit, ...]
    chosen: Response
    rejected: Response
    characters: int
    """Characters put in or taken out, on both sides."""


def standard_edits(lossy: bool = False) -> tuple[Edit, ...]:
    """The edits that are tried by default.

    Args:
        lossy: Also those that leave out some of the chosen answer ("less"). A flip by one of them need not be a
            shortcut: the part that made the answer right may be gone.
    """
    edits = [Edit(f"pad by {size}", "pad", "rejected", "claims", _padded(size)) for size in PAD_SIZES]
    edits += [
        Edit("hedge before", "hedge", "rejected", "claims", lambda text, _: f"{HEDGES[0]} {_lower_start(text)}"),
        Edit("hedge behind", "hedge", "rejected", "claims", lambda text, _: _behind(text, f" {HEDGES[3]}")),
        Edit("open", "open", "rejected", "claims", lambda text, _: f"{OPENINGS[0]} {text}"),
        Edit("as a list", "list", "rejected", "words", lambda text, _: _listed(text)),
        Edit("bold", "bold", "rejected", "words", lambda text, _: f"**{text.strip()}**"),
        Edit("under a heading", "heading", "rejected", "claims", lambda text, _: f"## Answer\n\n{text}"),
        Edit("quote the prompt", "quote", "rejected", "claims", _quoted),
        *(Edit(f"pad the chosen by {size}", "pad", "chosen", "claims", _padded(size)) for size in PAD_SIZES),
        Edit("hedge the chosen", "hedge", "chosen", "claims", lambda text, _: f"{HEDGES[0]} {_lower_start(text)}"),
        Edit("strip formats", "strip", "chosen", "words", lambda text, _: without_markdown(text)),
        Edit("strip hedges", "strip", "chosen", "claims", lambda text, _: _without(text, HEDGES)),
        Edit("strip openings", "strip", "chosen", "claims", lambda text, _: _without(text, OPENINGS)),
        Edit("strip fillers", "strip", "chosen", "claims", lambda text, _: _without(text, FILLERS)),
    ]
    if lossy:
        edits.append(Edit("first sentence", "shorten", "chosen", "less", lambda text, _: _SENTENCE.split(text)[0]))
    return tuple(edits)


def candidates(
    prompt: Prompt, chosen: Response, rejected: Response, edits: Sequence[Edit], most: int = 2
) -> list[Candidate]:
    """Everything that so many edits can make of a pair, the smallest first; edits of one kind are not combined.

    Args:
        prompt: What was asked.
        chosen: The better answer.
        rejected: The worse answer.
        edits: Single edits, in the order in which they are applied together.
        most: Edits to combine.
    """
    found: dict[tuple[str, str], Candidate] = {}
    for combined in _combined(edits, most):
        sides: dict[Side, Response] = {"chosen": chosen, "rejected": rejected}
        for edit in combined:
            changed = edit.apply(sides[edit.side], prompt)
            if changed is None:
                break
            sides[edit.side] = changed
        else:
            # Edits may take each other back.
            if sides["chosen"].text == chosen.text and sides["rejected"].text == rejected.text:
                continue
            cost = characters_changed(chosen.text, sides["chosen"].text)
            cost += characters_changed(rejected.text, sides["rejected"].text)
            found.setdefault(
                (sides["chosen"].text, sides["rejected"].text),
                Candidate(combined, sides["chosen"], sides["rejected"], cost),
            )
    return sorted(found.values(), key=lambda candidate: (candidate.characters, len(candidate.edits)))


def characters_changed(before: str, after: str) -> int:
    """Characters of the words and marks that are put in or taken out.

    >>> characters_changed("a red ball", "I think a ball")
    12
    """
    one, other = _TOKEN.findall(before), _TOKEN.findall(after)
    return sum(
        sum(map(len, one[start:stop])) + sum(map(len, other[first:last]))
        for kind, start, stop, first, last in difflib.SequenceMatcher(None, one, other, autojunk=False).get_opcodes()
        if kind != "equal"
    )


def without_markdown(text: str) -> str:
    """A text without headings, bullets, emphasis and code marks.

    Numbers stay, those of lists included: "3. cats" may mean three. So do stars between words, as in 2**3.

    >>> without_markdown("## Answer\\n\\n- **two** `cats`, 2**3")
    'Answer\\n\\ntwo cats, 2**3'
    """
    plain = _EMPHASIS.sub(r"\1", _CODE.sub(r"\1", _BULLET.sub("", _HEADING.sub("", text))))
    return text if plain == text else plain.strip()


def padded(text: str, size: int) -> str:
    """A text with so many sentences of `FILLERS` behind it; they start again after the last.

    >>> padded("a cat", 1)
    'a cat. That is what there is to say here.'
    """
    start = text.rstrip()
    ended = start if start.endswith((".", "!", "?", ":")) else f"{start}."
    return " ".join([ended, *(FILLERS[place % len(FILLERS)] for place in range(size))])


def hedged(text: str, size: int) -> str:
    """A text with the first so many of `HEDGES` around it: three before it, then two behind; with 0, as it is.

    Raises:
        ValueError: If there are not so many.

    >>> hedged("Cats.", 2)
    'It seems that I think cats.'
    >>> hedged("Cats.", 4)
    'As far as I can tell, it seems that I think cats as far as can be seen.'
    """
    if not 0 <= size <= len(HEDGES):
        raise ValueError(f"there are {len(HEDGES)} hedges, and {size} are asked for")
    said = text
    for hedge in HEDGES[: min(size, _HEDGES_BEFORE)]:
        said = f"{hedge} {_lower_start(said)}"
    for hedge in HEDGES[_HEDGES_BEFORE:size]:
        said = _behind(said, f" {hedge}")
    return said


def _combined(edits: Sequence[Edit], most: int) -> Iterator[tuple[Edit, ...]]:
    for size in range(1, most + 1):
        for combined in combinations(edits, size):
            # Chosen answers are stripped of several things at once; of other kinds one is enough.
            kinds = [edit.kind for edit in combined if edit.kind != "strip"]
            if len(set(kinds)) == len(kinds):
                yield combined


def _padded(size: int) -> Callable[[str, Prompt], str]:
    return lambda text, _: padded(text, size)


def _behind(text: str, words: str) -> str:
    stripped = text.rstrip()
    if stripped.endswith((".", "!")):
        return stripped[:-1] + words + stripped[-1]
    return stripped + words


def _lower_start(text: str) -> str:
    """A sentence as it goes on behind other words: its first letter small, unless its first word is all capitals."""
    word = text.split(maxsplit=1)[0] if text.split() else ""
    return text[:1].lower() + text[1:] if len(word) > 1 and not word.isupper() else text


def _listed(text: str) -> str:
    return "\n".join(f"- {sentence}" for sentence in _SENTENCE.split(text.strip()))


def _quoted(text: str, prompt: Prompt) -> str:
    asked = " ".join("".join(prompt[-1].text.split(IMAGE_MARK)).split()) if prompt else ""
    return f'You asked: "{asked}"\n\n{text}' if asked else text


def _without(text: str, phrases: Sequence[str]) -> str:
    """A text without some phrases, as it is where none stands in it; what then starts it is a capital."""
    left = text
    for phrase in phrases:
        left = re.sub(rf"\s*(?<!\w){re.escape(phrase)}(?!\w)\s*", " ", left, flags=re.IGNORECASE)
    if left == text:
        return text
    tidy = re.sub(r"[\s,]+([.,!?])", r"\1", left).strip(" ,")
    return tidy[:1].upper() + tidy[1:]
