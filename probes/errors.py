"""What every part of this package raises for input that cannot be used, and how its messages are put."""


class InputError(ValueError):
    """Input that cannot be used. The message is one line: what, why, and what to do."""


def one_line(error: BaseException) -> str:
    """What an exception says, on one line.

    >>> one_line(ValueError("too\\n  long"))
    'too long'
    """
    return " ".join(str(error).split()) or type(error).__name__


def counted(number: int, of: str, form: str = "d") -> str:
    """A number of things.

    Args:
        number: How many.
        of: What one of them is called.
        form: How the number is written.

    >>> counted(1, "pair"), counted(2, "process"), counted(0, "entry"), counted(1200, "key", ",")
    ('1 pair', '2 processes', '0 entries', '1,200 keys')
    """
    if number != 1:
        of = f"{of[:-1]}ies" if of.endswith("y") and of[-2:-1] not in "aeiou" else f"{of}{_ending(of)}"
    return f"{number:{form}} {of}"


def _ending(of: str) -> str:
    return "es" if of.endswith(("s", "x", "ch", "sh")) else "s"


def short(text: str, limit: int = 60) -> str:
    """A text as messages quote it, cut to a length.

    >>> short("abcdef", 4)
    "'abc…'"
    """
    return repr(text if len(text) <= limit else text[: limit - 1] + "…")
