"""The bundled benchmark's pictures that are named by a question, split by picture, with noise where it is asked for.

Only drawings are taken: digits and garments have too few pictures of each to be learned. No torch.
"""

import io
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt
from PIL import Image

from probes.inputs import ImageRef
from studies.bundled import BUNDLED_DATA

_SHOWS = re.compile(r"Which image shows (?:an? )?(.+)\?")
_GARMENTS = frozenset({"trousers", "pullover", "dress", "sandal", "bag", "boot"})
SPLITS = ("teaching", "train", "dev", "test")
"""The backbone is taught on pictures that no reward run sees, or its evidence would be surer in training than after."""
_SHARES = (0.42, 0.25, 0.08)


@dataclass(frozen=True)
class NamedPicture:
    """A picture and the word for what it shows."""

    path: str
    name: str


@cache
def named_pictures() -> tuple[NamedPicture, ...]:
    """Every drawing that some question names, in the order of their paths."""
    rows = [json.loads(line) for line in (BUNDLED_DATA / "questions.jsonl").read_text(encoding="utf-8").splitlines()]
    names: dict[str, str] = {}
    for row in rows:
        target = row["images"][row["target"]]
        if row["task"] in ("content", "giveaway"):
            names[target] = row["answer"]
        elif row["task"] == "caption" and (found := _SHOWS.fullmatch(row["question"].split("<image>")[-1].strip())):
            names[target] = found.group(1)
    matches = [(row["images"][row["target"]], row["images"][-1]) for row in rows if row["task"] == "retrieval"]
    for one, other in matches:
        for known, new in ((one, other), (other, one)):
            if known in names:
                names.setdefault(new, names[known])
    return tuple(
        NamedPicture(path, name) for path, name in sorted(names.items()) if name.isalpha() and name not in _GARMENTS
    )


@cache
def split_pictures(seed: int = 0) -> dict[str, tuple[NamedPicture, ...]]:
    """Split the pictures of each name: no picture is in two splits, and every name is in each."""
    rng = np.random.default_rng(seed)
    by_name: dict[str, list[NamedPicture]] = {}
    for place in rng.permutation(len(named_pictures())):
        picture = named_pictures()[place]
        by_name.setdefault(picture.name, []).append(picture)
    parts: dict[str, list[NamedPicture]] = {split: [] for split in SPLITS}
    for _, pictures in sorted(by_name.items()):
        counts = [max(1, round(share * len(pictures))) for share in _SHARES]
        ends = [0, *np.cumsum(counts).tolist(), len(pictures)]
        for split, start, stop in zip(SPLITS, ends, ends[1:], strict=False):
            parts[split] += pictures[start:stop]
    return {split: tuple(pictures) for split, pictures in parts.items()}


def image_of(picture: NamedPicture, noise: float, draw: Sequence[int] = (0,)) -> ImageRef:
    """A picture under noise, losslessly encoded.

    Args:
        picture: Which.
        noise: Standard deviation in units of half the pixel range; 0 leaves it as it is.
        draw: Seeds the noise. Every pair has noise of its own, or training would learn the noise by heart.
    """
    path = BUNDLED_DATA / picture.path
    if noise == 0:
        return ImageRef(path=str(path))
    pixels = np.asarray(ImageRef(path=str(path)).open(), dtype=np.float64)
    buffer = io.BytesIO()
    Image.fromarray(_noisy(pixels, noise, draw)).save(buffer, "PNG", compress_level=1)
    return ImageRef(data=buffer.getvalue())


def _noisy(pixels: npt.NDArray[np.float64], noise: float, draw: Sequence[int]) -> npt.NDArray[np.uint8]:
    rng = np.random.default_rng([*draw, 7])
    return np.clip(np.rint(pixels + rng.normal(scale=noise * 127.5, size=pixels.shape)), 0, 255).astype(np.uint8)
