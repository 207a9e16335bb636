"""The arrays that a routing study writes beside the tables of its run folder, one file for each part of the plan.

Knows names and arrays; nothing of models or of what is made of them. No torch.
"""

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from probes.errors import InputError
from probes.experts.files import BROKEN, LARGEST_BYTES

Arrays: TypeAlias = dict[str, npt.NDArray[Any]]

MEASURES = "measures.npz"
"""Arrays by expert that the figures are drawn from; see `studies.routing.tables`."""


def routing_file(index: int) -> str:
    """Where the routing of a part lies inside the run folder."""
    return f"routing/part-{index:06d}.npz"


def knockout_file(index: int) -> str:
    """Where the knock-outs of a question lie inside the run folder."""
    return f"knockout/part-{index:06d}.npz"


def shard_bytes(arrays: Mapping[str, Any]) -> bytes:
    """Arrays as a compressed .npz."""
    stream = io.BytesIO()
    np.savez_compressed(stream, **arrays)
    return stream.getvalue()


def read_shard(path: Path) -> Arrays:
    """The arrays of a file of the run folder, without running anything in it.

    Raises:
        InputError: If it is missing or broken; names the file.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(entry.file_size for entry in archive.infolist())
        if size > LARGEST_BYTES:
            raise InputError(f"{path} holds {size >> 20} MiB of arrays, more than any such file has")
        with np.load(path, allow_pickle=False) as found:
            arrays = {name: found[name] for name in found.files}
        for name, array in arrays.items():
            if array.size > max(array.nbytes, 1):
                # An array of nothings: a file of bytes can promise as many as it likes.
                raise InputError(f"{path}: its {name} holds {array.size} elements without content")
        return arrays
    except InputError:
        raise
    except FileNotFoundError as error:
        raise InputError(f"{path} is not there: go on with the run by --resume") from error
    except BROKEN as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path} cannot be read ({reason}): make the run again with --overwrite") from error
