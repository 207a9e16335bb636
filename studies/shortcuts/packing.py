"""What of a run folder of the study is published: numbers, manifest, and every margin in one file.

    python -m studies.shortcuts.packing RUN PUBLISHED

Margins are kept in half precision, which changes no sign: a margin that would become 0 keeps the smallest one. Knows
files, and nothing of what they mean. No torch.
"""

import io
import shutil
import sys
import tarfile
from pathlib import Path

import numpy as np
import numpy.typing as npt

from probes.files import write_bytes
from probes.inputs import InputError

CELLS = "cells.tar.xz"


def publish(run: Path, published: Path) -> Path:
    """Write a run folder's `metrics.json`, `manifest.json` and cells into another folder; returns the file of cells.

    Raises:
        InputError: If the run folder has no cells, or no numbers yet.
    """
    cells = sorted((run / "cells").glob("*.npz"))
    missing = [name for name in ("metrics.json", "manifest.json") if not (run / name).is_file()]
    if not cells or missing:
        raise InputError(f"{run} holds no {' and no '.join(missing or ['cells'])}: run sightcheck shortcuts first")
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:xz") as archive:
        for path in cells:
            data = _in_half(path)
            entry = tarfile.TarInfo(f"cells/{path.name}")
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    published.mkdir(parents=True, exist_ok=True)
    write_bytes(published / CELLS, packed.getvalue())
    for name in ("metrics.json", "manifest.json"):
        shutil.copyfile(run / name, published / name)
    return published / CELLS


def unpack(packed: Path, run: Path) -> None:
    """Put published cells into a run folder."""
    with tarfile.open(packed, mode="r:xz") as archive:
        archive.extractall(run, filter="data")


def _in_half(path: Path) -> bytes:
    with np.load(path, allow_pickle=False) as found:
        arrays = {name: half(found[name]) if name.startswith("margins.") else found[name] for name in found.files}
    plain = io.BytesIO()
    # Not compressed by itself, so that what cells share is packed once.
    np.savez(plain, **arrays)  # type: ignore[arg-type]
    return plain.getvalue()


def half(margins: npt.NDArray[np.floating]) -> npt.NDArray[np.float16]:
    """Margins in half precision, with every sign as it was.

    >>> half(np.array([1e-9, -1e-9, 0.0, 0.5], dtype=np.float32)).astype(float).round(8).tolist()
    [6e-08, -6e-08, 0.0, 0.5]
    """
    least = np.float32(np.finfo(np.float16).smallest_subnormal)
    away = np.where(margins == 0, 0, np.copysign(np.maximum(np.abs(margins), least), margins))
    return np.clip(away, -6e4, 6e4).astype(np.float16)


if __name__ == "__main__":
    print(publish(Path(sys.argv[1]), Path(sys.argv[2])))
