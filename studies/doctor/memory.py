"""Memory to expect of a batch, from closed forms: weights, key-value cache, recorder and logits. Bytes.

Activations of the forward pass are not in it, nor what libraries keep for themselves. Importing it loads no torch.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from studies.doctor.layers import LayerPath


class Batch(NamedTuple):
    """The size of one batch."""

    samples: int
    tokens: int
    """Of one prompt with its answer."""
    images: int
    image_tokens: int
    """Of all images of one prompt."""
    answer_tokens: int
    row_sets: int = 2
    per_head: bool = False
    maps: bool = True
    forms: int = 0
    """Of hidden attention that are recorded."""


class Memory(NamedTuple):
    """Bytes by what holds them."""

    weights: int
    cache: int
    recorder: int
    logits: int

    @property
    def total(self) -> int:
        """The sum: cache and recorder are not held together, and the larger of the two phases counts."""
        return self.weights + max(self.cache, self.recorder + self.logits)

    def __str__(self) -> str:
        return (
            f"weights {readable(self.weights)}, key-value cache {readable(self.cache)}, recorder "
            f"{readable(self.recorder)}, logits {readable(self.logits)}: {readable(self.total)} at once"
        )


def expected(model: Any, paths: Iterable["LayerPath"], batch: Batch) -> Memory:
    """Memory of one batch of an audit on a model."""
    paths, itemsize = [path for path in paths if path.heads or path.mixer], model.dtype.itemsize
    vocabulary = model.get_output_embeddings().weight.shape[0]
    return Memory(
        weights_bytes(model),
        cache_bytes(paths, batch, itemsize),
        recorder_bytes(paths, batch),
        logits_bytes(batch, vocabulary, itemsize),
    )


def weights_bytes(model: Any) -> int:
    """Every parameter and buffer, shared ones once."""
    held = {tensor.data_ptr(): tensor for tensor in (*model.parameters(), *model.buffers())}
    return sum(tensor.numel() * tensor.element_size() for tensor in held.values())


def cache_bytes(paths: Iterable["LayerPath"], batch: Batch, itemsize: int) -> int:
    """Keys and values of every layer while an answer is generated.

    A layer holds ``samples * key-value heads * tokens * (key size + value size)`` numbers; one with a window of ``w``
    never holds more than its last ``w - 1`` tokens.
    """
    return sum(
        batch.samples
        * path.key_value_heads
        * (path.key_size + path.value_size)
        * (batch.tokens if path.window is None else min(batch.tokens, path.window - 1))
        * itemsize
        for path in paths
    )


def recorder_bytes(paths: Iterable["LayerPath"], batch: Batch) -> int:
    """What the recorder holds at the end of a forward pass, in fp32: a sum per layer, row set, head and image, a count
    per layer and row set, and with maps a sum per layer, row set and image token; of hidden attention a sum per layer,
    form, row set and image."""
    numbers = 0
    for path in paths:
        heads = path.heads if batch.per_head else 1
        cells = batch.image_tokens if batch.maps else 0
        if path.heads:
            numbers += batch.samples * batch.row_sets * (heads * batch.images + 1 + cells)
        if path.mixer:
            numbers += batch.samples * batch.row_sets * batch.forms * batch.images
    return 4 * numbers


def logits_bytes(batch: Batch, vocabulary: int, itemsize: int) -> int:
    """Logits of the rows that predict the answer, and one sample's log-softmax in fp32."""
    rows = batch.answer_tokens + 1
    return rows * vocabulary * (batch.samples * itemsize + 8)


def readable(count: float) -> str:
    """Bytes for people.

    >>> readable(3 * 2**30), readable(1536)
    ('3.0 GiB', '1.5 KiB')
    """
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"
