"""Saved routings as small files: what a training run keeps of the checkpoints that it does not keep.

Files may come from elsewhere: nothing in them is run, and nothing large is unpacked before it is checked. Knows the
form of a file, and nothing of models. No torch.
"""

import tokenize
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from probes.errors import InputError
from probes.experts.saved import SavedRouting
from probes.files import write_arrays

LARGEST_BYTES = 2**30
"""Most bytes of all arrays of a file, unpacked, and of one in memory, where a number takes eight; larger files are
refused before anything is unpacked."""
_WIDE = np.dtype(np.int64).itemsize
NO_STEP = -1
"""In a file: the number of training steps is not known."""
_FORM = 1
BROKEN = (
    OSError, ValueError, TypeError, SyntaxError, EOFError, KeyError, OverflowError, MemoryError, RuntimeError,
    zipfile.BadZipFile, zlib.error, tokenize.TokenError,
)  # fmt: skip
"""What zipfile, zlib and numpy raise of files that are none of theirs."""
_MEMBERS = ("form", "layers", "indices", "experts", "samples", "images", "ids", "names", "step")


def save_routing(path: str | Path, saved: SavedRouting) -> Path:
    """Write a routing as a compressed .npz, whole or not at all; returns its path.

    Raises:
        InputError: If the name does not end in .npz.
    """
    goal = Path(path)
    if goal.suffix != ".npz":
        raise InputError(f"{goal}: a saved routing is an .npz file; name it so")
    write_arrays(goal, as_arrays(saved))
    return goal


def as_arrays(saved: SavedRouting) -> dict[str, npt.NDArray[Any]]:
    """The arrays of a file, in the smallest whole numbers that hold them."""
    return {
        "form": np.array(_FORM),
        "layers": _small(np.array(saved.layers)),
        "indices": _small(saved.indices),
        "experts": np.array(saved.experts),
        "samples": _small(saved.samples),
        "images": _small(saved.images),
        "ids": _small(saved.ids),
        "names": np.array(saved.names, dtype=np.str_),
        "step": np.array(NO_STEP if saved.step is None else saved.step),
    }


def load_routing(path: str | Path) -> SavedRouting:
    """Read a file that `save_routing` wrote. Nothing in it is run, and nothing large is unpacked before it is checked.

    Raises:
        InputError: If it is missing, broken, too large, of another form, or does not fit itself; names the file.
    """
    source = Path(path)
    try:
        found = _read(source)
        return from_arrays(found)
    except InputError as error:
        raise InputError(f"{source} is no saved routing: {error}") from error
    except FileNotFoundError as error:
        raise InputError(f"{source} does not exist: give a file that save_routing wrote") from error
    except BROKEN as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{source} is no saved routing ({reason}): give a file that save_routing wrote") from error


def _read(source: Path) -> dict[str, npt.NDArray[Any]]:
    with zipfile.ZipFile(source) as archive:
        entries = {entry.filename: entry for entry in archive.infolist()}
        wanted = [f"{name}.npy" for name in _MEMBERS]
        if sorted(entries) != sorted(wanted) or len(archive.infolist()) != len(wanted):
            raise InputError(f"it holds {sorted(entries)[:12]} instead of {', '.join(wanted)}")
        if sum(entry.file_size for entry in entries.values()) > LARGEST_BYTES:
            raise InputError(f"its arrays are larger than {LARGEST_BYTES >> 20} MiB")
        return {name: _array(archive, entries[f"{name}.npy"]) for name in _MEMBERS}


def _array(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> npt.NDArray[Any]:
    """One array, whose header has to promise as many bytes as there are."""
    with archive.open(entry) as stream:
        version = np.lib.format.read_magic(stream)
        if version != (1, 0):
            raise InputError(f"{entry.filename} is of version {version} of the npy format, and 1.0 is read")
        shape, fortran, kind = np.lib.format.read_array_header_1_0(stream)
        if kind.kind not in "iuU" or fortran:
            raise InputError(f"{entry.filename} holds {kind}, and whole numbers or text in C order are read")
        count = int(np.prod(shape, dtype=object))
        if count * max(kind.itemsize, _WIDE) > LARGEST_BYTES:
            raise InputError(f"{entry.filename} of {shape} takes more than {LARGEST_BYTES >> 20} MiB in memory")
        size = count * kind.itemsize
        if stream.tell() + size != entry.file_size:
            raise InputError(f"{entry.filename} promises {shape} of {kind}, which is not what follows")
        return np.frombuffer(stream.read(size), dtype=kind).reshape(shape)


def from_arrays(found: Mapping[str, npt.NDArray[Any]]) -> SavedRouting:
    """Undo `as_arrays`; further arrays are passed over.

    Raises:
        InputError: If one is of another kind or shape, or they do not fit each other.
    """
    for name in ("form", "experts", "step"):
        if found[name].shape != () or found[name].dtype.kind == "U":
            raise InputError(f"{name} is one number, and is {found[name].dtype} of {found[name].shape}")
    if int(found["form"]) != _FORM:
        raise InputError(f"it is of form {int(found['form'])}, and this version reads form {_FORM}")
    for name, dimensions in (("layers", 1), ("indices", 3), ("samples", 1), ("images", 1), ("ids", 1)):
        if found[name].ndim != dimensions or found[name].dtype.kind == "U":
            raise InputError(f"{name} are {found[name].dtype} of {found[name].shape}")
    if found["names"].ndim != 1 or found["names"].dtype.kind != "U":
        raise InputError(f"names are {found['names'].dtype} of {found['names'].shape}")
    whole = {name: found[name].astype(np.int64) for name in ("layers", "indices", "samples", "images", "ids")}
    step = int(found["step"])
    return SavedRouting(
        layers=tuple(whole["layers"].tolist()),
        indices=whole["indices"],
        experts=int(found["experts"]),
        samples=whole["samples"],
        images=whole["images"],
        ids=whole["ids"],
        names=tuple(found["names"].tolist()),
        step=None if step == NO_STEP else step,
    )


def _small(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    low, high = int(values.min()), int(values.max())
    return values.astype(np.promote_types(np.min_scalar_type(low), np.min_scalar_type(high)))
