"""The colour behind each image token, read from the processed pixels as each family lays them out."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from probes.families.view import pixels_of
from tests.probes.patch_colours import LAYOUTS, merge_order
from tests.probes.published_cases import Case
from tests.probes.span_cases import ANYRES, FRAMES_FIRST, NATIVE, RASTER, WINDOWED, Encoded, Floats


def token_colours(case: Case, encoded: Encoded) -> Floats:
    """(tokens, 3): mean colour in 0 to 1 of the pixels behind each image token, in the prompt's order."""
    pixels = pixels_of(encoded.inputs).double().numpy()
    processor = encoded.processor.image_processor
    if case.family in LAYOUTS:
        tokens = LAYOUTS[case.family](pixels, encoded.inputs)
    elif "image_grid_thw" in encoded.inputs:
        frames = processor.temporal_patch_size if case.family in FRAMES_FIRST else 1
        if case.family == "cosmos3_edge":
            patches = pixels.reshape(len(pixels), -1, 3).mean(1)
        else:
            patches = pixels.reshape(len(pixels), frames, 3, -1).mean((1, 3))
        if case.family in RASTER:
            patches = merge_order(patches, encoded.inputs["image_grid_thw"].tolist())
        tokens = patches.reshape(-1, 4, 3).mean(1)
        if case.family == "hunyuan_vl":
            tokens = _with_marks(tokens, encoded.inputs["image_grid_thw"].tolist())
    elif "image_position_ids" in encoded.inputs:
        places = encoded.inputs["image_position_ids"].numpy().max(1) + 1
        shapes = [[rows, columns] for columns, rows in places.tolist()]
        tokens = _folded(pixels, shapes, processor.pooling_kernel_size)
    elif "target_sizes" in encoded.inputs:
        side = {"4x": 2, "16x": 4}[processor.downsample_mode]
        tokens = _merged_pictures(pixels[0], encoded.inputs["target_sizes"].tolist(), side)
    elif "spatial_shapes" in encoded.inputs:
        tokens = _folded(pixels, encoded.inputs["spatial_shapes"].tolist(), processor.downsample_factor)
    elif "image_token_pooling" in encoded.inputs:
        tokens = _pooled(pixels, encoded.inputs["image_token_pooling"].numpy())
    elif "patches_grid" in encoded.inputs:
        tokens = _stitched(case, encoded)
    elif "num_local_patches" in encoded.inputs:
        tokens = _windows_and_whole(case, encoded)
    elif case.family in ANYRES:
        tokens = _packed(case, encoded)
    elif case.family in NATIVE:
        cropped = [image[:, :h, :w] for image, (h, w) in zip(pixels, encoded.inputs["image_sizes"], strict=True)]
        tokens = np.concatenate([_blocks(image, case.cell) for image in cropped])
    else:
        pixels = pixels.reshape(-1, *pixels.shape[-3:])
        if "pixel_attention_mask" in encoded.inputs:
            mask = encoded.inputs["pixel_attention_mask"].flatten(0, 1).numpy()
            pixels = pixels[mask.reshape(len(mask), -1).any(1)]
        cell = case.cell
        if case.family in WINDOWED:
            before = [(0, 0)] * 2 + [(cell // 2, 0)] * 2
            pixels = np.pad(pixels, before, mode="edge")[..., : pixels.shape[-2], : pixels.shape[-1]]
        count, channels, height, width = pixels.shape
        blocks = pixels.reshape(count, channels, height // cell, cell, width // cell, cell).mean((3, 5))
        tokens = blocks.transpose(0, 2, 3, 1).reshape(count, -1, channels)
        if case.name == "llava, class token":
            tokens = np.concatenate([np.full((count, 1, channels), np.nan), tokens], 1)
        tokens = tokens.reshape(-1, channels)
    result: Floats = tokens * np.array(processor.image_std) + np.array(processor.image_mean)
    return result


def _folded(pixels: Floats, shapes: list[list[int]], side: int) -> Floats:
    """Mean colours of blocks of side x side patches, from flat patches (tiles, patches, pixels and channels)."""
    found = []
    for flat, (rows, columns) in zip(pixels, shapes, strict=True):
        patches = flat[: rows * columns].reshape(rows // side, side, columns // side, side, -1, 3)
        found.append(patches.mean((1, 3, 4)).reshape(-1, 3))
    return np.concatenate(found)


def _merged_pictures(pixels: Floats, shapes: list[list[int]], side: int) -> Floats:
    """Mean colours of blocks of side x side patches of 4 pixels, from the pictures' patches side by side."""
    patches = pixels.reshape(3, 4, -1, 4).mean((1, 3)).T
    found, first = [], 0
    for rows, columns in shapes:
        own = patches[first : first + rows * columns].reshape(rows // side, side, columns // side, side, 3)
        found.append(own.mean((1, 3)).reshape(-1, 3))
        first += rows * columns
    return np.concatenate(found)


def _with_marks(tokens: Floats, grids: list[list[int]]) -> Floats:
    """A NaN token before and behind each image, and one behind each of its rows."""
    found, first = [], 0
    for _, rows, columns in grids:
        count = rows * columns // 4
        own = tokens[first : first + count].reshape(rows // 2, columns // 2, 3)
        closed = np.pad(own, ((0, 0), (0, 1), (0, 0)), constant_values=np.nan).reshape(-1, 3)
        found.append(np.pad(closed, ((1, 1), (0, 0)), constant_values=np.nan))
        first += count
    return np.concatenate(found)


def _pooled(pixels: Floats, places: NDArray[np.int32]) -> Floats:
    """Mean colours of the patches that each token is pooled from, of all crops' patches (crops, patches, values)."""
    patches = pixels.reshape(-1, pixels.shape[-1] // 3, 3).mean(1)
    found: Floats = np.stack([patches[own[own >= 0]].mean(0) for own in places])
    return found


def _windows_and_whole(case: Case, encoded: Encoded) -> Floats:
    """Mean colours of each image's windows, in their order, and of the whole picture behind them."""
    wholes = encoded.inputs["pixel_values"].double().numpy()
    windows = encoded.inputs["pixel_values_local"].double().numpy() if "pixel_values_local" in encoded.inputs else []
    found, first = [], 0
    for whole, count in zip(wholes, encoded.inputs["num_local_patches"].tolist(), strict=True):
        found += [_blocks(picture, case.cell) for picture in (*windows[first : first + count], whole)]
        first += count
    return np.concatenate(found)


def _stitched(case: Case, encoded: Encoded) -> Floats:
    """Mean colours of an image's windows laid side by side, and of the whole picture; newlines and ends are NaN."""
    wholes = encoded.inputs["pixel_values"].double().numpy()
    windows = encoded.inputs["pixel_values_local"].double().numpy() if "pixel_values_local" in encoded.inputs else []
    found, first = [], 0
    for whole, count, (columns, rows) in zip(
        wholes, encoded.inputs["num_local_patches"], encoded.inputs["patches_grid"], strict=True
    ):
        pictures = [whole]
        if count:
            own = np.asarray(windows[first : first + count])
            side = own.shape[-1]
            laid = own.reshape(rows, columns, 3, side, side).transpose(2, 0, 3, 1, 4)
            pictures = [laid.reshape(3, rows * side, columns * side), whole]
        for picture in pictures:
            grid = _blocks(picture, case.cell).reshape(picture.shape[1] // case.cell, -1, 3)
            found.append(np.pad(grid, ((0, 0), (0, 1), (0, 0)), constant_values=np.nan).reshape(-1, 3))
        found.append(np.full((1, 3), np.nan))
        first += count
    return np.concatenate(found)


def _blocks(pixels: Floats, cell: int) -> Floats:
    """(cells, channels): mean colours of an image (channels, height, width), row by row."""
    channels, height, width = pixels.shape
    blocks: Floats = pixels.reshape(channels, height // cell, cell, width // cell, cell).mean((2, 4))
    return blocks.reshape(channels, -1).T


def _packed(case: Case, encoded: Encoded) -> Floats:
    """Colours of patches, put in order by the model's own packing; newlines are NaN."""
    import transformers

    next_like = case.family != "llava_onevision"
    kinds = {"granite4_vision": transformers.Granite4VisionModel, "llava_onevision": transformers.LlavaOnevisionModel}
    kind: Any = kinds.get(case.family, transformers.LlavaNextModel)
    sizes = encoded.inputs["image_sizes"]
    counts = encoded.inputs.get("batch_num_images", torch.ones(len(sizes), dtype=torch.long)).tolist()
    alone = [count == 1 for count in counts for _ in range(count)]
    features = []
    for pixels, split in zip(encoded.inputs["pixel_values"], alone, strict=True):
        filled = int(pixels.abs().flatten(1).any(1).sum()) if split else 1
        blocks = pixels[:filled].double().unfold(2, case.cell, case.cell).unfold(3, case.cell, case.cell).mean((-1, -2))
        features.append(blocks.flatten(2).transpose(1, 2))
    newline = torch.full((3,), float("nan"), dtype=torch.double)
    extra = {"vision_feature_select_strategy": "default"} if next_like else {}
    if "vision_aspect_ratio" in case.changes:
        extra["vision_aspect_ratio"] = case.changes["vision_aspect_ratio"]
    rate = getattr(encoded.config, "downsample_rate", None)
    holder = SimpleNamespace(config=encoded.config, layerwise_projectors=[], downsample_rate=rate)
    result = kind.pack_image_features(holder, features, sizes, image_newline=newline, **extra)
    packed = result[0] if isinstance(result, tuple) else result
    return np.concatenate([part.numpy() for part in packed])
