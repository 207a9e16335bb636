"""Whether an answer is right, by the four rules of the STME benchmark without their slips.

The rules (exact, choice, contained, caption number) are those of the Implicit visual misunderstanding paper's released
code. Its slips are not kept: there "1" is found in "12", an answer of several words is never found, a reply of one
digit has no number, and the letter A is found in any sentence. Knows strings only. No torch.
"""

import re
import unicodedata
from collections.abc import Sequence
from typing import Protocol

from probes.inputs import InputError

_COUNTED = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
_NUMBER_WORDS = {word: str(number) for number, word in enumerate(_COUNTED)}
_ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth")
_THOUGHT = re.compile(r"\A.*</think(?:ing)?>", re.DOTALL | re.IGNORECASE)
_MARKER = re.compile(
    r"\b(?:final\s+answer|answer|(?:correct|right|best)\s+(?:option|choice))\b\s*(?:is\s*:?|:|=)\s*|\\boxed\s*\{",
    re.IGNORECASE,
)
_TOKEN = re.compile(r"(?<![\w.])[+-]?\d+(?:[.,]\d+)*(?![\w]|[.,]\d)%?|\d\w*(?:[.,]\d\w*)*|\w+(?:['’]\w+)*")
_THOUSANDS = re.compile(r"[+-]?\d{1,3}(?:,\d{3})+")
_IMAGE_NUMBER = re.compile(r"\b(?:images?|pictures?|photos?)\s*(?:number|no\.?|#)?\s*[-#:]?\s*(\d+)\b", re.IGNORECASE)
_ORDINAL_IMAGE = re.compile(rf"\b({'|'.join(_ORDINALS)})\s+(?:image|picture|photo)\b", re.IGNORECASE)
_NO_MATCH = re.compile(r"\bno(?:ne)?\b[\w\s]{0,20}?\bmatch(?:es|ing)?\b", re.IGNORECASE)
_ALONE = re.compile(r"[\s*_`\"'“”]*[(\[{]?\s*(?:option\s+|choice\s+)?([A-Za-z]{1,2})\s*[)\]}]?[\s*_`\"'“”.:,;!]*", re.I)
_LEADING = re.compile(
    r"[\s*_`]*(?:[(\[]\s*([A-Z]{1,2})\s*[)\]][:.,]?|([A-Z]{1,2})[).:,](?=\s|\Z|\*))[\s*_`]*(.*)", re.DOTALL
)
_BRACKETED = re.compile(r"[(\[]\s*([A-Z]{1,2})\s*[)\]]")
_CAPITAL = re.compile(r"(?<![\w'’])([B-HJ-Z])(?![\w'’])")


class Scored(Protocol):
    """What of a record decides whether an answer is right."""

    @property
    def answer(self) -> str:
        """The right answer."""

    @property
    def choices(self) -> tuple[str, ...]:
        """Texts of the options; empty without any."""

    @property
    def scoring(self) -> str:
        """exact, choice, contains or caption."""


def answer_correct(record: Scored, prediction: str) -> bool:
    """Return whether a prediction is right.

    - exact: the same words, case, punctuation and articles aside; or, for a number, the only number in the reply.
    - choice: the option that the reply names, by letter or by its text. A reply that names none or two is wrong.
    - contains: the answer's words stand in the reply, in a row, and no other choice's do.
    - caption: the first "image k" is the right one; a reply of "no match" is right only if that is the answer.

    Reasoning up to ``</think>`` is left out. Where a reply says "answer:" or "the answer is", what follows the last
    one counts.

    Args:
        record: what was asked, with ``answer``, ``choices`` and ``scoring``.
        prediction: the reply.

    Raises:
        InputError: an unknown scoring, a right answer that is none of the choices, or a prediction that is no text.

    >>> from types import SimpleNamespace
    >>> needle = SimpleNamespace(answer="1", choices=(), scoring="contains")
    >>> answer_correct(needle, "It says 1."), answer_correct(needle, "It says 12.")
    (True, False)
    """
    if not isinstance(prediction, str):
        raise InputError(f"a prediction must be text, not {type(prediction).__name__}")
    rules = {"exact": _exact, "choice": _choice, "contains": _contains, "caption": _caption}
    if record.scoring not in rules:
        raise InputError(f"the scoring {record.scoring!r} is none of {', '.join(rules)}")
    reply = _plain(_THOUGHT.sub("", prediction))
    return bool(reply) and rules[record.scoring](record, reply)


def check_answer(record: Scored) -> None:
    """Refuse a record whose right answer no reply can match.

    Raises:
        InputError: it is scored by choice, and the answer is neither a letter nor the text of one of the choices.
    """
    if record.scoring == "choice":
        _gold_choice(_plain(record.answer), record.choices)


def answer_choice(record: Scored, text: str) -> int | None:
    """Return the option that a text names, from 0; None if it names none, or more than one.

    >>> from types import SimpleNamespace
    >>> record = SimpleNamespace(choices=("red", "dark red"))
    >>> [answer_choice(record, text) for text in ("(B)", "A.", "Answer: B", "it is dark red", "A car")]
    [1, 0, 1, 1, None]
    """
    return _named(_plain(text), record.choices)


def _plain(text: str) -> str:
    return unicodedata.normalize("NFKC", text).strip()


def _words(text: str) -> list[str]:
    return [_word(token) for token in _TOKEN.findall(text.casefold())]


def _word(token: str) -> str:
    if _THOUSANDS.fullmatch(token):
        token = token.replace(",", "")
    if re.fullmatch(r"[+-]?\d+\.0+", token):
        token = token.split(".")[0]
    return _NUMBER_WORDS.get(token, token.removeprefix("+"))


def _core(text: str) -> list[str]:
    words = _words(text)
    return words[1:] if len(words) > 1 and words[0] in ("a", "an", "the") else words


def _after_marker(reply: str) -> str | None:
    found = list(_MARKER.finditer(reply))
    tail = reply[found[-1].end() :].strip() if found else ""
    return tail or None


def _is_number(word: str) -> bool:
    return bool(re.fullmatch(r"-?\d+(?:[.,]\d+)*%?", word))


def _exact(record: Scored, reply: str) -> bool:
    gold = _core(_plain(record.answer))
    if not gold:
        return _plain(record.answer) == reply
    said = _after_marker(reply) or reply
    parts = (reply, said, said.split("\n")[0], re.split(r"(?<=[.!?])\s", said)[0])
    if any(_core(part) == gold for part in parts):
        return True
    numbers = {word for word in _words(said) if _is_number(word)}
    return len(gold) == 1 and _is_number(gold[0]) and numbers == {gold[0]}


def _contains(record: Scored, reply: str) -> bool:
    gold = _core(_plain(record.answer))
    if not gold:
        return _plain(record.answer) in reply
    words = _words(reply)
    if not _runs(gold, words):
        return False
    others = [_core(_plain(choice)) for choice in record.choices]
    return not any(other != gold and other in _mentioned([gold, *others], words) for other in others)


def _caption(record: Scored, reply: str) -> bool:
    gold = _image_number(_plain(record.answer))
    said = _after_marker(reply) or reply
    if _NO_MATCH.search(said):
        return gold is None and bool(_NO_MATCH.search(record.answer))
    return gold is not None and _image_number(said) == gold


def _image_number(text: str) -> int | None:
    found = _IMAGE_NUMBER.search(text)
    ordinal = _ORDINAL_IMAGE.search(text)
    if found and not (ordinal and ordinal.start() < found.start()):
        return int(found[1])
    if ordinal:
        return _ORDINALS.index(ordinal[1].lower()) + 1
    numbers = {word for word in _words(text) if word.isdecimal() and word.isascii()}
    return int(numbers.pop()) if len(numbers) == 1 else None


def _choice(record: Scored, reply: str) -> bool:
    gold = _gold_choice(_plain(record.answer), record.choices)
    return _named(reply, record.choices) == gold


def _gold_choice(answer: str, choices: Sequence[str]) -> int:
    """An option's own text goes before its letter: among the choices "B" and "A", the answer "A" is the second."""
    same = [place for place, choice in enumerate(choices) if _plain(choice) == answer]
    if len(same) == 1:
        return same[0]
    place = _alone(answer, choices)
    if place is None:
        place = _named(answer, choices)
    if place is None:
        shown = ", ".join(map(repr, choices[:8])) or "A to Z"
        raise InputError(f"the right answer {answer!r:.80} is none of the choices {shown:.200}")
    return place


def _named(reply: str, choices: Sequence[str]) -> int | None:
    tail = _after_marker(reply)
    for part in (reply,) if tail is None else (tail, reply):
        place, settled = _named_in(part, choices)
        if settled:
            return place
    return None


def _named_in(part: str, choices: Sequence[str]) -> tuple[int | None, bool]:
    """The surest sign decides, and whether there was any."""
    same = {place for place, choice in enumerate(choices) if _words(_plain(choice)) == _words(part) != []}
    if len(same) == 1:
        return same.pop(), True
    alone = _alone(part, choices)
    if alone is not None:
        return alone, True
    marked, contradicted = _marked(part, choices)
    if marked:
        return (marked.pop(), True) if len(marked) == 1 and not contradicted else (None, True)
    mentioned = _mentioned_places(part, choices)
    if mentioned:
        return (mentioned.pop(), True) if len(mentioned) == 1 else (None, True)
    capitals = {place for letters in _CAPITAL.findall(part) if (place := _place(letters, choices)) is not None}
    if capitals:
        return (capitals.pop(), True) if len(capitals) == 1 else (None, True)
    return None, False


def _marked(part: str, choices: Sequence[str]) -> tuple[set[int], bool]:
    """Options named by a letter in brackets or at the start of a line, and whether the text beside one is another's."""
    bracketed = {place for letters in _BRACKETED.findall(part) if (place := _place(letters, choices)) is not None}
    contradicted = False
    for line in part.split("\n"):
        leading = _LEADING.match(line)
        place = _place(leading[1] or leading[2], choices) if leading else None
        if leading and place is not None:
            bracketed.add(place)
            contradicted = contradicted or not _agrees(place, leading[3], choices)
    return bracketed, contradicted


def _alone(part: str, choices: Sequence[str]) -> int | None:
    found = _ALONE.fullmatch(part)
    return _place(found[1].upper(), choices) if found else None


def _place(letters: str, choices: Sequence[str]) -> int | None:
    place = 0
    for character in letters:
        place = place * 26 + ord(character) - 64
    return place - 1 if place <= (len(choices) or 26) else None


def _agrees(place: int, rest: str, choices: Sequence[str]) -> bool:
    """A letter followed by exactly another option's text names two options, and so none."""
    words = _core(rest)
    others = [_core(_plain(choice)) for number, choice in enumerate(choices) if number != place]
    return not (place < len(choices) and words and words in others and words != _core(_plain(choices[place])))


def _mentioned_places(part: str, choices: Sequence[str]) -> set[int]:
    texts = [_core(_plain(choice)) for choice in choices]
    found = _mentioned(texts, _words(part))
    return {place for place, text in enumerate(texts) if text in found and texts.count(text) == 1}


def _mentioned(texts: Sequence[list[str]], words: list[str]) -> list[list[str]]:
    """Longer options take their words away first, so that "dark red" does not also name "red"."""
    left: list[str | None] = list(words)
    found = []
    for text in sorted((text for text in texts if text), key=len, reverse=True):
        starts = _runs(text, left)
        if starts and text not in found:
            found.append(text)
        for start in starts:
            left[start : start + len(text)] = [None] * len(text)
    return found


def _runs(text: Sequence[str], words: Sequence[str | None]) -> list[int]:
    size = len(text)
    return [start for start in range(len(words) - size + 1) if list(words[start : start + size]) == list(text)]
