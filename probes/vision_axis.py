"""Which columns of a cross-attention decoder's vision axis belong to which image, and which pixels each covers.

Such decoders attend to features of images, or to the output of an encoder that read them, beside or instead of their
own tokens. The spans are what `cross_spans` of `probes.attention_factors` takes. What a family does with an image is in
`probes.axes`. This file imports no torch.
"""

from collections.abc import Mapping
from typing import Any

from probes.axes import ENCODER_TEXTS, axis_of, encoder_text_of, has_axis
from probes.axes.view import AxisView
from probes.errors import counted
from probes.families.view import Settings
from probes.inputs import InputError
from probes.spans import ImageSpan, Sizes, find_spans


def find_vision_spans(
    inputs: Mapping[str, Any],
    config: Any,
    image_sizes: Sizes | None = None,
    processor: Any = None,
    processor_kwargs: Mapping[str, Any] | None = None,
) -> list[list[ImageSpan]]:
    """Find the columns of each image on the vision axis: the features side by side, or the encoder's output.

    Args:
        inputs: What the processor returned, everything of it; of an encoder-decoder, the encoder's `input_ids`.
        config: The model's configuration.
        image_sizes: (width, height) of each original image, as a list per batch row; needed for the cells' boxes.
        processor: The processor that made the inputs; needed for boxes where pictures are cropped or padded, and to
            know of crops (T5Gemma 2) and drawn questions (Pix2Struct).
        processor_kwargs: Arguments given to the processor in that call, if they changed how images are processed.

    Returns:
        Per batch row, per image, its span: `start`, `stop` and `tokens` are columns of the vision axis. Cells lie
        outside the image where the processor padded; their boxes then have no area.

    Raises:
        InputError: If the model type has no vision axis that is known, inputs are missing, or other numbers of images
            than sizes are given.
    """
    kind = str(getattr(config, "model_type", None))
    if not has_axis(kind):
        raise InputError(f"{kind!r} has no vision axis: use find_image_spans")
    if kind in ENCODER_TEXTS:
        return find_spans(
            encoder_text_of(kind), inputs, config, processor, image_sizes, processor_kwargs=processor_kwargs
        )
    axis, settings = axis_of(kind), Settings(processor, dict(processor_kwargs or {}))
    counts = axis.counts(inputs, config)
    if image_sizes is not None and len(image_sizes) != len(counts):
        raise InputError(
            f"image_sizes has {counted(len(image_sizes), 'entry')} for {counted(len(counts), 'prompt')}: give "
            "one per prompt"
        )
    found = []
    for row, count in enumerate(counts):
        sizes = None if image_sizes is None else image_sizes[row]
        if sizes is not None and len(sizes) != count:
            raise InputError(f"row {row}: {counted(len(sizes), 'size')} for inputs that hold {counted(count, 'image')}")
        spans = []
        for image in range(count):
            view = AxisView(
                name=f"row {row}, image {image}",
                first_tile=0,
                size=None if sizes is None else sizes[image],
                inputs=inputs,
                config=config,
                processor=processor,
                settings=settings,
                row=row,
                image=image,
            )
            start, tiles = axis.place(view)
            stop = start + sum(tile.tokens for tile in tiles)
            spans.append(ImageSpan(image, start, stop, ((start, stop),), tuple(tiles), view.size))
        found.append(spans)
    return found
