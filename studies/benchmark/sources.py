"""Read the openly licensed pictures that the benchmark is made of, from packages on this machine.

Emoji: npm package ``@iconify-json/fluent-emoji-flat`` (MIT). Digits: scikit-learn (CC BY 4.0, UCI). Clothes: Debian's
``dataset-fashion-mnist`` (MIT). Photographs for backgrounds: scikit-image's own (CC0 or public domain). Nothing is
downloaded here, and nothing here knows of questions or models.
"""

from __future__ import annotations

import gzip
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Split = Literal["train", "dev", "test"]

EMOJI = [
    "airplane",
    "balloon",
    "banana",
    "bear",
    "bicycle",
    "bus",
    "butterfly",
    "cactus",
    "camel",
    "camera",
    "candle",
    "carrot",
    "cat",
    "cherries",
    "crab",
    "dog",
    "dolphin",
    "door",
    "duck",
    "elephant",
    "fish",
    "fox",
    "ghost",
    "giraffe",
    "guitar",
    "hammer",
    "helicopter",
    "house",
    "koala",
    "ladder",
    "lobster",
    "monkey",
    "mushroom",
    "octopus",
    "owl",
    "panda",
    "pineapple",
    "robot",
    "rocket",
    "rose",
    "sailboat",
    "scissors",
    "snail",
    "snowman",
    "strawberry",
    "sunflower",
    "tent",
    "tiger",
    "tractor",
    "trophy",
    "turtle",
    "umbrella",
    "violin",
    "watermelon",
    "whale",
    "zebra",
]
NEEDLES = ("star", "key", "bell", "crown", "lemon", "anchor", "coin", "bone")
CLOTHES = {1: "trousers", 2: "pullover", 3: "dress", 5: "sandal", 8: "bag", 9: "boot"}
TRAIN_PHOTOGRAPHS = ("coffee.png", "chelsea.png", "brick.png", "gravel.png", "astronaut.png")
HELD_OUT_PHOTOGRAPHS = ("rocket.jpg", "grass.png", "hubble_deep_field.jpg")

EMOJI_PIXELS = 96
FASHION_FOLDER = Path("/usr/share/datasets/fashion-mnist")

Grey = NDArray[np.uint8]


@dataclass(frozen=True)
class Sources:
    """The raw pictures of one split: what a renderer draws from."""

    emoji: dict[str, Image.Image]
    needles: dict[str, Image.Image]
    digits: dict[int, list[Grey]]
    clothes: dict[str, list[Grey]]
    photographs: list[Image.Image]


def load_sources(split: Split, emoji_package: Path, fashion_folder: Path = FASHION_FOLDER) -> Sources:
    """Read the pictures of one split.

    Digits and clothes are divided by image, photographs by file: no digit, garment or photograph of ``train`` is in
    ``dev`` or ``test``. Emoji exist once each, so there the renderings differ (scale, rotation, place, background).

    Args:
        split: Which pictures to read.
        emoji_package: Unpacked folder of the npm package ``@iconify-json/fluent-emoji-flat``.
        fashion_folder: Folder with Fashion-MNIST's four ``.gz`` files.

    Raises:
        FileNotFoundError: A source is absent; the message says how to install it.
    """
    icons = _read_icons(emoji_package)
    return Sources(
        emoji={name: _render_icon(icons[name]["body"]) for name in EMOJI},
        needles={name: _render_icon(icons[name]["body"]) for name in NEEDLES},
        digits=_read_digits(split),
        clothes=_read_clothes(split, fashion_folder),
        photographs=_read_photographs(TRAIN_PHOTOGRAPHS if split == "train" else HELD_OUT_PHOTOGRAPHS),
    )


def _read_icons(package: Path) -> dict[str, dict[str, str]]:
    path = package / "icons.json"
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} is absent: run `npm install @iconify-json/fluent-emoji-flat` and name its folder with --emoji"
        )
    icons: dict[str, dict[str, str]] = json.loads(path.read_text())["icons"]
    return icons


def _render_icon(body: str) -> Image.Image:
    import resvg_py

    side = EMOJI_PIXELS
    svg = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32" width="{side}" height="{side}">{body}</svg>'
    return Image.open(io.BytesIO(bytes(resvg_py.svg_to_bytes(svg_string=svg)))).convert("RGBA")


def _read_digits(split: Split) -> dict[int, list[Grey]]:
    from sklearn.datasets import load_digits

    data = load_digits()
    order = np.random.default_rng(0).permutation(len(data.images))
    bounds = {"train": (0, 1100), "dev": (1100, 1300), "test": (1300, len(order))}[split]
    found: dict[int, list[Grey]] = {digit: [] for digit in range(10)}
    for index in order[bounds[0] : bounds[1]]:
        pixels = (data.images[index] * (255.0 / 16.0)).astype(np.uint8)
        found[int(data.target[index])].append(pixels)
    return found


def _read_clothes(split: Split, folder: Path) -> dict[str, list[Grey]]:
    part = "train" if split == "train" else "t10k"
    path = folder / f"{part}-images-idx3-ubyte.gz"
    if not path.is_file():
        raise FileNotFoundError(f"{path} is absent: run `apt-get install dataset-fashion-mnist`")
    images = np.frombuffer(gzip.decompress(path.read_bytes())[16:], np.uint8).reshape(-1, 28, 28)
    labels = np.frombuffer(gzip.decompress((folder / f"{part}-labels-idx1-ubyte.gz").read_bytes())[8:], np.uint8)
    keep = {"train": slice(0, 20_000), "dev": slice(0, 3_000), "test": slice(3_000, 10_000)}[split]
    images, labels = images[keep], labels[keep]
    return {name: list(images[labels == label]) for label, name in CLOTHES.items()}


def _read_photographs(names: tuple[str, ...]) -> list[Image.Image]:
    import skimage

    folder = Path(skimage.__file__).parent / "data"
    return [Image.open(folder / name).convert("RGB") for name in names]
