"""What every part of this package raises for input that cannot be used, and how its messages are put."""


class InputError(ValueError):
    """Input that cannot be used. The message is one line: what, why, and what to do."""


def one_line(error: BaseException) -> str:
    """What an exception says, on one line.

    >>> one_line(ValueError("too\\n  long"))
    'too long'
    """
    return " ".join(str(error).split()) or type(error).__name__


def short(text: str, limit: int = 60) -> str:
    """A text as messages quote it, cut to a length.

    >>> short("abcdef", 4)
    "'abc…'"
    """
    return repr(text if len(text) <= limit else text[: limit - 1] + "…")
