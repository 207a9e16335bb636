"""Images cut into tiles with a thumbnail, as Nemotron Nano V2 VL cuts them, emulated on Nemotron-H Omni.

The 12B checkpoint's own class is remote code; its nearest relative in transformers shuffles pixels alike and takes
images at their own resolution, as packed grids of patches. Here each tile is one such grid: tiles of 512 x 512 by
InternVL's aspect match, at most 12, then a thumbnail where there are several, 256 tokens each, between one pair of
marks. transformers' own code cuts (`GotOcr2ImageProcessor`) and packs. Where cells lie is told by
`probes.families.nemotron_h_omni`, which looks for `tiling`. Knows nothing of models.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from probes.errors import InputError
from probes.families.internvl import divisions, nearest_ratio


@dataclass(frozen=True)
class Tiling:
    """How images are cut.

    Args:
        side: Pixels along a tile's side.
        most: Most tiles of an image, its thumbnail not counted.

    Raises:
        InputError: If either is below 1.

    >>> Tiling().division(1024, 512)
    (1, 2)
    """

    side: int = 512
    most: int = 12

    def __post_init__(self) -> None:
        if self.side < 1 or self.most < 1:
            raise InputError(f"tiles of {self.side} pixels, at most {self.most}: give a side and a number from 1 on")

    def division(self, width: int, height: int) -> tuple[int, int]:
        """(rows, columns) of tiles of an image; a single one has no thumbnail."""
        return nearest_ratio(width, height, self.side, divisions(1, self.most))


class TiledProcessor:
    """Nemotron-H Omni's processor with images cut into tiles; in all else the processor that it is given.

    Args:
        processor: What AutoProcessor gives for `nemotron_h_omni`.
        tiling: How images are cut; Nemotron Nano V2 VL's way by default.

    Raises:
        InputError: If the processor packs no patches, or its cells do not divide a tile.
    """

    def __init__(self, processor: Any, tiling: Tiling | None = None) -> None:
        self._processor = processor
        self.tiling = tiling or Tiling()
        images: Any = getattr(processor, "image_processor", None)
        if not all(hasattr(images, name) for name in ("patch_size", "downsample_ratio", "max_num_patches")):
            raise InputError(
                f"{type(processor).__name__} packs no patches of its images: tiles are emulated on the processor of "
                "nemotron_h_omni; other families cut images themselves"
            )
        cell = int(images.patch_size) * round(1 / float(images.downsample_ratio))
        if self.tiling.side % cell:
            raise InputError(
                f"tiles of {self.tiling.side} pixels do not hold whole cells of {cell}: give a multiple of {cell}"
            )
        self.tokens_per_tile = (self.tiling.side // cell) ** 2
        """Image tokens of each tile, and of the thumbnail."""

    def __getattr__(self, name: str) -> Any:
        if name == "_processor":  # not there yet, as while unpickling
            raise AttributeError(name)
        return getattr(self._processor, name)

    def __call__(self, images: Any = None, text: str | Sequence[str] | None = None, **settings: Any) -> Any:
        """What the processor returns, `pixel_values` and `image_grid_hw` being those of all tiles in order.

        Args:
            images: A list of images, or one list for each text; None without any.
            text: One text or several, with an image token for each image.
            settings: As of the processor's own call, but for settings of images, which are the tiling's.

        Raises:
            InputError: If a text places another number of images than it is given.
        """
        from transformers.image_utils import make_flat_list_of_images
        from transformers.models.nemotron_h_omni.image_processing_nemotron_h_omni import convert_image_to_patches

        if images is None:
            return self._processor(text=text, **settings)
        texts = [text or ""] if isinstance(text, str | None) else list(text)
        given = [len(each) if isinstance(each, list | tuple) else None for each in images]
        placed = [each.count(self.image_token) for each in texts]
        if None not in given and given != placed:
            raise InputError(
                f"the texts are given {given} images and place {placed}: give one {self.image_token} for each"
            )
        cut = self._cutter()(make_flat_list_of_images(images), return_tensors="pt")
        batch = self._processor(text=self._expanded(texts, [int(count) for count in cut["num_patches"]]), **settings)
        patches = convert_image_to_patches(cut["pixel_values"], self.image_processor.patch_size)
        across = self.tiling.side // int(self.image_processor.patch_size)
        batch["pixel_values"] = patches.flatten(0, 1)
        batch["image_grid_hw"] = cut["pixel_values"].new_full((len(patches), 2), across).long()
        return batch

    def _cutter(self) -> Any:
        from transformers import GotOcr2ImageProcessor

        own, side = self.image_processor, self.tiling.side
        return GotOcr2ImageProcessor(
            size={"height": side, "width": side},
            crop_to_patches=True,
            min_patches=1,
            max_patches=self.tiling.most,
            image_mean=own.image_mean,
            image_std=own.image_std,
            resample=own.resample,
        )

    def _expanded(self, texts: Sequence[str], tiles: Sequence[int]) -> list[str]:
        """Texts with the tokens of each image's tiles in its place."""
        token = self.image_token
        places = sum(text.count(token) for text in texts)
        if places != len(tiles):
            raise InputError(f"{len(tiles)} images are given and the texts place {places}: give one {token} for each")
        upcoming = iter(tiles)
        written = []
        for text in texts:
            first, *parts = text.split(token)
            for part in parts:
                tokens = token * (self.tokens_per_tile * next(upcoming))
                first += self.image_start_token + tokens + self.image_end_token + part
            written.append(first)
        return written
