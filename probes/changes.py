"""What can be changed in one forward pass of a model: attention knocked out, residual streams patched.

Records, and how this package's own hooks apply them. Knows rows, columns and layers; nothing of images or answers.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from probes.knockout import AttentionKnockout
from probes.residuals import replacing_residuals


@dataclass(frozen=True, eq=False)
class Knockout:
    """Rows that cannot see columns; see `probes.knockout.AttentionKnockout`.

    Attributes:
        rows: Bool (batch, tokens): rows that are blinded.
        columns: Per batch row, the (start, stop) columns that they cannot see, or spans with `.runs`.
        layers: True indices of attention layers; None is every one.
    """

    rows: Tensor
    columns: Sequence[Sequence[Any]]
    layers: tuple[int, ...] | None = None


@dataclass(frozen=True, eq=False)
class Patch:
    """Tokens whose residual stream is replaced where it enters some layers.

    Attributes:
        tokens: Bool (batch, tokens): tokens that are patched.
        residuals: Per true layer index, (patched tokens, hidden size): what enters the layer in their place, in the
            order of `tokens` read row by row. `probes.backend.Backend.residuals` gives this form.
    """

    tokens: Tensor
    residuals: Mapping[int, Tensor]


Change = Knockout | Patch
"""One change of a forward pass; several add up."""


@contextmanager
def applied(model: nn.Module, changes: Sequence[Change]) -> Iterator[None]:
    """While entered, a model runs under changes.

    Raises:
        InputError: If a change does not fit the model, or changes nothing.
        UnsupportedAttention: If a layer's attention cannot be reached.
    """
    with ExitStack() as stack:
        for change in changes:
            if isinstance(change, Knockout):
                stack.enter_context(AttentionKnockout(model, change.rows, change.columns, change.layers))
            else:
                stack.enter_context(replacing_residuals(model, change.tokens, change.residuals))
        yield
