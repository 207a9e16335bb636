"""Whether memory ran out, whatever the device calls it, and the one line that is said then.

Importing it loads no torch.
"""

from collections.abc import Iterator
from contextlib import contextmanager

_CPU_WORDS = ("DefaultCPUAllocator", "not enough memory", "can't allocate memory")
"""What torch writes into a plain RuntimeError when the CPU's memory ran out."""


def ran_out(error: BaseException) -> bool:
    """Whether an error says that memory ran out.

    >>> ran_out(RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"))
    True
    >>> ran_out(RuntimeError("shapes do not match"))
    False
    """
    import torch

    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _CPU_WORDS)


@contextmanager
def one_line_refusal(samples: int) -> Iterator[None]:
    """Turn any kind of running out of memory into one MemoryError with a way forward.

    Args:
        samples: How many are computed at once.

    Raises:
        MemoryError: If memory ran out inside; other errors pass as they are.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not ran_out(error):
            raise
        raise MemoryError(
            f"out of memory with {samples} samples at once: take a smaller --batch-size and a new --out"
        ) from None
