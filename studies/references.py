"""How a text refers to images: by number, which can follow an image to another place, or in ways that cannot.

Pure: texts in, texts and reasons out. English only. It knows nothing of records, models or files.
"""

import re
from collections.abc import Collection, Mapping

_WORDS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
_ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth")
_WORD = rf"(?:{'|'.join(_WORDS)})"
_MARK = "<image>"

_SINGULAR = r"(?<![<\w])(?:image|picture|photo|photograph|figure|frame)"
_PLURAL = r"(?<![<\w])(?:images|pictures|photos|photographs|figures|frames)"
_NOUN = rf"{_SINGULAR}s?"
_SIGN = r"(?:nos?\.?\s*|numbers?\s+|\#\s*)?"
_NUMBER = rf"{_SIGN}\d+"
# Atomic, so that a number that heads a mark or goes on as a decimal is not taken up to its last digit.
_LIST = rf"(?>{_NUMBER}(?:\s*,\s*{_NUMBER}\b)*(?:\s*,?\s*(?:and|or|&)\s*{_NUMBER}\b)*)"
_END = rf"\b(?!\.\d)(?!\s*[:.)\]\-]*\s*{_MARK})"
_NUMBERED = re.compile(
    rf"(?P<plural>{_PLURAL}\s*)(?P<list>{_LIST}){_END}|(?P<singular>{_SINGULAR}\s*{_SIGN})(?P<number>(?>\d+)){_END}",
    re.IGNORECASE,
)
_GOES_ON = re.compile(
    rf"\s*,?\s*(?P<by>,|/|&|[-\u2013\u2014]|and\b|or\b|to\b|through\b|until\b|vs\.?|versus\b)\s*{_SIGN}"
    rf"(?P<last>\d+|{_WORD}\b)",
    re.IGNORECASE,
)
_RANGE = re.compile(r"[-\u2013\u2014]|to|through|until", re.IGNORECASE)

_LABEL = re.compile(rf"(?:{_NOUN}\s*{_SIGN})?[(\[]?\b(?:\d+|[A-Z]|{_WORD})\b\s*[:.)\]\-]*\s*{_MARK}", re.IGNORECASE)
_BY_WORD = re.compile(rf"{_NOUN}[ \t]*[(\[\"'\u201c-]?{_SIGN}{_WORD}\b", re.IGNORECASE)
_BY_LETTER = re.compile(rf"(?i:{_NOUN})(?:[ \t]+(?:[A-Z]|[b-z])|[ \t]*[(\[\"\u201c_-][A-Za-z])(?![\w'\u2019])")
_BY_SIGN = re.compile(rf"{_NOUN}[ \t]*[(\[\"'\u201c_\#-]*[ \t]*{_SIGN}\d", re.IGNORECASE)
_SIGN_ALONE = re.compile(r"(?:\#|\bno\.[ \t]*|\b(?:number|position|place)[ \t]+)(\d+)\b", re.IGNORECASE)
_BY_ORDER = re.compile(
    rf"\b(?:{'|'.join(_ORDINALS)}|\d+(?:st|nd|rd|th)|last|final|previous|next|former|latter|left|right|middle)\s+"
    rf"(?:{_NOUN}|one)\b",
    re.IGNORECASE,
)
_ORDER_ALONE = re.compile(rf"\b(?:(?P<word>{'|'.join(_ORDINALS)})|(?P<number>\d+)(?:st|nd|rd|th))\b", re.IGNORECASE)
_LAST_ALONE = re.compile(r"\bthe\s+(?:last|final|previous|former|latter)\b(?!\s+(?!of\b)\w)", re.IGNORECASE)
_ASKS_WHICH = re.compile(
    rf"\b(?:which|what)\s+(?:(?:one\s+)?of\s+(?:(?:the|these|those)\s+)?(?:\w+\s+)?)?{_NOUN}\b", re.IGNORECASE
)

_BARE = r"[\s()\[\].#*\"'\u201c\u201d]*"
_BARE_NUMBER = re.compile(rf"{_BARE}(\d+){_BARE}")
_BARE_NUMBERS = re.compile(rf"{_BARE}\d+(?:(?:[\s,&()\[\].#*\"'\u201c\u201d]|and\b|or\b)+\d+)+{_BARE}", re.IGNORECASE)
_BARE_WORD = re.compile(rf"{_BARE}({_WORD}|[A-Z]){_BARE}", re.IGNORECASE)


def renumber(text: str, new_number: Mapping[int, int]) -> str:
    """Renumber every "image 3" of a text, and whole lists after a plural; numbers that are no image's stay.

    Args:
        text: Any text; labels before ``<image>`` marks stay, and so do ranges ("images 1 to 4").
        new_number: By old 1-based number, the new one.

    >>> renumber("Is image 1 like picture #2? Image 9.", {1: 2, 2: 1})
    'Is image 2 like picture #1? Image 9.'
    >>> renumber("Which of images 1, 2 and 3?", {1: 2, 2: 3, 3: 1})
    'Which of images 2, 3 and 1?'
    """

    def follow(hit: re.Match[str]) -> str:
        if _GOES_ON.match(text, hit.end()):
            return hit[0]
        head, numbers = (hit["plural"], hit["list"]) if hit["plural"] else (hit["singular"], hit["number"])
        return head + re.sub(r"\d+", lambda number: str(new_number.get(int(number[0]), int(number[0]))), numbers)

    return _NUMBERED.sub(follow, text)


def why_unclear(text: str, count: int, whole: Collection[int], anchored: bool = False) -> str | None:
    """Why the references of a text cannot follow images to other places; None if they can.

    Args:
        text: A question, an answer or a choice.
        count: Images of the sample.
        whole: Last numbers of ranges from 1 that moves leave as they are.
        anchored: Whether "the last" is an image that never moves.
    """
    for hit in _NUMBERED.finditer(text):
        more = _GOES_ON.match(text, hit.end())
        if more and not _is_whole(hit, more, whole):
            return "the text lists or spans images in a way that cannot be renumbered"
    rest = _NUMBERED.sub(" \0 ", _LABEL.sub("\n", text)).replace(_MARK, "\n")
    if _BY_ORDER.search(rest) or any(_is_place(hit, count) for hit in _ORDER_ALONE.finditer(rest)):
        return "the text names an image by its order in words"
    if not anchored and _LAST_ALONE.search(rest):
        return "the text names an image by its order in words"
    if _BY_WORD.search(rest):
        return "the text names an image by a number in words"
    if _BY_LETTER.search(rest):
        return "the text names an image by a letter"
    if _BY_SIGN.search(rest) or any(1 <= int(hit[1]) <= count for hit in _SIGN_ALONE.finditer(rest)):
        return "the text numbers an image in a way that cannot be renumbered"
    return None


def named_numbers(text: str) -> set[int]:
    """The 1-based numbers of the images that a text refers to, as "image 2" or in a list; ranges by their first."""
    found = (re.findall(r"\d+", hit["list"] or hit["number"]) for hit in _NUMBERED.finditer(text))
    return {int(number) for numbers in found for number in numbers}


def asks_which(question: str) -> bool:
    """Whether a question asks which image."""
    return bool(_ASKS_WHICH.search(question.replace(_MARK, " ")))


def bare_number(answer: str) -> int | None:
    """The number that is all of an answer.

    >>> [bare_number(answer) for answer in ("2", "(2).", "2 cats", "two")]
    [2, 2, None, None]
    """
    found = _BARE_NUMBER.fullmatch(answer)
    return int(found[1]) if found else None


def may_name(answer: str, number: int) -> bool:
    """Whether an answer without a noun may mean the image of that number: by digits, a list, a word or a letter.

    >>> [may_name(answer, 2) for answer in ("2", "2 and 3", "Two.", "B", "cat", "3")]
    [True, True, True, True, False, False]
    """
    if _BARE_NUMBERS.fullmatch(answer):
        return True
    word = _BARE_WORD.fullmatch(answer)
    if word is None:
        return bare_number(answer) == number
    return word[1].lower() in (*_WORDS[number - 1 : number], chr(ord("a") + number - 1))


def set_number(answer: str, number: int) -> str:
    """Put another number into an answer that is a bare number."""
    return re.sub(r"\d+", str(number), answer)


def _is_whole(hit: re.Match[str], more: re.Match[str], whole: Collection[int]) -> bool:
    numbers = re.findall(r"\d+", hit["list"] or "")
    last = more["last"]
    return bool(_RANGE.fullmatch(more["by"])) and numbers == ["1"] and last.isdigit() and int(last) in whole


def _is_place(hit: re.Match[str], count: int) -> bool:
    place = _ORDINALS.index(hit["word"].lower()) + 1 if hit["word"] else int(hit["number"])
    return 1 <= place <= count
