"""The size of an image by its header: what `open` gives, without decoding a pixel."""

import io
from typing import Any

import pytest
from PIL import Image

from probes.inputs import ImageRef, InputError


def encoded(kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (30, 20), "teal").save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", [None, 1, 3, 6, 8])
def test_the_size_is_that_of_the_open_image(kind: str, orientation: int | None) -> None:
    tags = Image.Exif()
    if orientation is not None:
        tags[0x0112] = orientation
    image = ImageRef(data=encoded(kind, exif=tags))
    assert image.size() == image.open().size == ((20, 30) if orientation in (6, 8) else (30, 20))


def test_no_pixel_is_decoded() -> None:
    whole = encoded("PNG")
    assert ImageRef(data=whole[:60]).size() == (30, 20)
    with pytest.raises(InputError, match="more than 100 pixels"):
        ImageRef(data=whole).size(max_pixels=100)


@pytest.mark.parametrize("data", [b"text", encoded("PCX"), encoded("TGA")])
def test_other_kinds_are_refused_with_those_that_are_read(data: bytes) -> None:
    with pytest.raises(InputError, match="kinds read: PNG, JPEG") as error:
        ImageRef(data=data).size()
    assert "gigantic" not in str(error.value)
