"""Images from anywhere, hostile ones too: each is decoded to the pixels that a person sees, or refused in one line."""

import base64
import hashlib
import io
import os
import struct
import subprocess
import sys
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile

from probes.inputs import ImageRef, InputError, Turn


def picture(size: tuple[int, int] = (12, 9), seed: int = 0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3))
    return Image.fromarray(pixels.astype(np.uint8))


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def pixels(image: Image.Image) -> list[Any]:
    return [image.mode, image.size, image.tobytes()]


def refusal(value: Any, root: Path | None = None, **options: Any) -> str:
    with pytest.raises(InputError) as error:
        ImageRef.of(value, root).open(**options)
    message = str(error.value)
    assert "\n" not in message and len(message) < 600
    return message


PNG = encoded(picture())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "a.png").write_bytes(PNG)
    with zipfile.ZipFile(tmp_path / "all.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("in/b.png", PNG)
        archive.writestr("note.txt", "no image")
    return tmp_path


def test_every_form_names_the_same_image(folder: Path) -> None:
    text = base64.b64encode(PNG).decode()
    values = [
        folder / "a.png",
        str(folder / "a.png"),
        str(folder / "all.zip" / "in" / "b.png"),
        PNG,
        bytearray(PNG),
        memoryview(PNG),
        text,
        "\n".join(text[at : at + 76] for at in range(0, len(text), 76)),
        f"data:image/png;base64,{text}",
        {"bytes": PNG, "path": "gone.png"},
        {"bytes": None, "path": str(folder / "a.png")},
        ImageRef(data=PNG),
    ]
    refs = [ImageRef.of(value) for value in values]
    assert {ref.digest for ref in refs} == {hashlib.sha256(PNG).hexdigest()}
    assert all(pixels(ref.open()) == pixels(picture()) for ref in refs)
    assert ImageRef.of("a.png", folder) == ImageRef(path=str(folder / "a.png"))
    assert ImageRef.of("all.zip/in/b.png", folder).read() == PNG


def test_pil_images_keep_their_pixels() -> None:
    assert pixels(ImageRef.of(picture()).open()) == pixels(picture())
    clear = Image.new("RGBA", (2, 1), (255, 0, 0, 0))
    assert ImageRef.of(clear).open().getpixel((0, 0)) == (255, 255, 255)


def test_repr_and_name_show_no_bytes() -> None:
    ref = ImageRef(data=PNG)
    assert repr(ref) == f"ImageRef(of {len(PNG):,} bytes (sha256 {ref.digest[:12]}))"
    assert repr(ImageRef(path="x.png")) == "ImageRef(path='x.png')"


def test_exactly_one_of_path_and_data() -> None:
    with pytest.raises(InputError, match="not both"):
        ImageRef()
    with pytest.raises(InputError, match="not both"):
        ImageRef("a", b"b")


@pytest.mark.parametrize("value", [3, None, ["a.png"], {"url": "x"}, {"bytes": None, "path": None}, np.zeros((2, 2))])
def test_what_is_no_image_at_all(value: Any) -> None:
    with pytest.raises(InputError, match=r"give a path|needs 'bytes' or 'path'"):
        ImageRef.of(value)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF"])
def test_truncated(kind: str) -> None:
    whole = encoded(picture((90, 80)), kind)
    message = refusal(whole[: len(whole) * 2 // 3])
    assert ("broken or truncated" in message or "broken at its start" in message) and kind in message


def test_truncated_where_another_package_lets_pillow_fill_with_grey(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    whole = encoded(picture((90, 80)), "JPEG")
    assert "broken or truncated" in refusal(whole[: len(whole) * 2 // 3])
    assert ImageFile.LOAD_TRUNCATED_IMAGES


def test_truncated_in_an_image_that_pillow_has_opened_and_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    whole = encoded(picture((90, 80)), "JPEG")
    lazy = Image.open(io.BytesIO(whole[: len(whole) * 2 // 3]))
    with pytest.raises(InputError, match=r"PIL image .* cannot be decoded"):
        ImageRef.of(lazy)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(kind=st.sampled_from(["PNG", "JPEG", "GIF", "WEBP"]), data=st.data())
def test_damaged_bytes_are_decoded_or_refused_by_name(kind: str, data: st.DataObject) -> None:
    whole = bytearray(encoded(picture((30, 20)), kind))
    for _ in range(data.draw(st.integers(1, 8))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    ref = ImageRef(data=bytes(whole[: data.draw(st.integers(1, len(whole)))]))
    try:
        assert ref.open(max_pixels=1_000_000).mode == "RGB"
    except InputError as error:
        assert ref.name in str(error) and "\n" not in str(error)


def bomb(width: int, height: int) -> bytes:
    """A PNG of a few dozen bytes that claims width x height pixels."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 99)) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("side", [8_001, 10_000, 60_000], ids=["ours", "pillow warns", "pillow refuses"])
def test_decompression_bomb(side: int, recwarn: pytest.WarningsRecorder) -> None:
    assert "more than 64,000,000 pixels" in refusal(bomb(side, side))
    assert not list(recwarn)


def test_pixel_limit_is_the_callers() -> None:
    assert "it claims 12 x 9" in refusal(PNG, max_pixels=100)
    assert ImageRef(data=PNG).open(max_pixels=108).size == (12, 9)


def test_files_that_are_no_images(folder: Path) -> None:
    (folder / "words.png").write_text("This is a text, whatever its name says.")
    (folder / "empty.png").write_bytes(b"")
    (folder / "page.eps").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
    os.mkfifo(folder / "pipe.png")
    assert "no image, or one broken at its start" in refusal("words.png", folder)
    assert "no image, or" in refusal("page.eps", folder)
    assert "no bytes" in refusal("empty.png", folder)
    assert "no bytes" in refusal(b"")
    assert "not a regular file" in refusal("pipe.png", folder)
    assert "is a folder" in refusal(folder)
    missing = refusal("lost/cat.png", folder)
    assert "no such file" in missing and str(folder / "lost/cat.png") in missing
    assert "nothing is downloaded" in refusal("https://example.org/cat.png")
    assert "empty or impossible path" in refusal("") and "empty or impossible path" in refusal("a\0b")
    assert "cannot be read" in refusal("x" * 300, folder)


def test_unreadable_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> bytes:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "read_bytes", refuse)
    assert "Permission denied" in refusal("a.png", folder)


def test_oversized_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("probes.image_files.MAX_BYTES", 50)
    assert "larger than 50 bytes" in refusal("a.png", folder)
    assert "larger than 50 bytes" in refusal("all.zip/in/b.png", folder)


def test_bad_base64() -> None:
    text = base64.b64encode(PNG).decode()
    for broken in (text[:-3] + "*" + text[-2:], text[:-1], f"data:image/png;base64,{text[:-1]}"):
        assert "no valid base64" in refusal(broken)
    assert "only base64 data addresses" in refusal("data:image/png,abc")
    assert "only base64 data addresses" in refusal("data:image/png;base64")
    assert "no image, or" in refusal("data:text/plain;base64," + base64.b64encode(b"hello").decode())
    assert "no valid base64" in refusal("?" * 5000)


def test_a_file_whose_name_looks_like_base64(folder: Path) -> None:
    name = "iVBORw0KGgo" + "A" * 60
    (folder / name).write_bytes(PNG)
    assert ImageRef.of(name, folder).read() == PNG


def test_zip_members(folder: Path) -> None:
    assert "no member 'in/c.png'" in refusal("all.zip/in/c.png", folder)
    assert "no image, or" in refusal("all.zip/note.txt", folder)
    for name in ("all.zip/../a.png", "all.zip/in/../../a.png", "all.zip/in/.."):
        assert "climb out" in refusal(name, folder)
    assert "no image, or" in refusal("all.zip", folder)
    assert "no such file" in refusal("none.zip/a.png", folder)
    (folder / "bad.zip").write_bytes(b"PK\x03\x04 and nothing more")
    assert "archive cannot be read" in refusal("bad.zip/a.png", folder)
    whole = (folder / "all.zip").read_bytes()
    (folder / "torn.zip").write_bytes(whole.replace(PNG[20:60], PNG[21:61]) if PNG[20:60] in whole else whole[:-30])
    assert "archive cannot be read" in refusal("torn.zip/in/b.png", folder)


def test_zip_is_read_anew_when_it_changes(folder: Path) -> None:
    other = encoded(picture(seed=1))
    assert ImageRef.of("all.zip/in/b.png", folder).read() == PNG
    with zipfile.ZipFile(folder / "all.zip", "w") as archive:
        archive.writestr("in/b.png", other)
    assert ImageRef.of("all.zip/in/b.png", folder).read() == other


def test_folder_named_like_an_archive(tmp_path: Path) -> None:
    (tmp_path / "photos.zip").mkdir()
    (tmp_path / "photos.zip" / "a.png").write_bytes(PNG)
    assert ImageRef.of("photos.zip/a.png", tmp_path).read() == PNG


def test_first_frame_of_an_animation() -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert Image.open(io.BytesIO(data)).n_frames == 2  # type: ignore[attr-defined]
    assert ImageRef(data=data).open().getpixel((1, 1)) == (255, 0, 0)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bit_grey_is_scaled_not_clipped(kind: str) -> None:
    values = np.array([[0, 257, 32896, 65535]], dtype=np.uint16)
    data = encoded(Image.fromarray(values), kind)
    assert [ImageRef(data=data).open().getpixel((x, 0)) for x in range(4)] == [(v,) * 3 for v in (0, 1, 128, 255)]


def test_pixels_without_an_agreed_range() -> None:
    assert "convert it to 8 bits" in refusal(encoded(Image.fromarray(np.ones((2, 2), np.float32)), "TIFF"))
    assert "convert it to 8 bits" in refusal(encoded(Image.fromarray(np.full((2, 2), 70000, np.int32)), "TIFF"))


def test_transparency_is_laid_on_white() -> None:
    palette = Image.new("P", (2, 1))
    palette.putpalette([255, 0, 0, 0, 0, 255])
    palette.putpixel((1, 0), 1)
    faded = Image.new("LA", (1, 1), (0, 128))
    keyed = Image.new("RGB", (1, 1), (9, 9, 9))
    assert ImageRef(data=encoded(palette, transparency=0)).open().tobytes() == bytes([255, 255, 255, 0, 0, 255])
    assert ImageRef(data=encoded(palette, transparency=bytes([255, 0]))).open().tobytes() == bytes(
        [255, 0, 0] + [255] * 3
    )
    assert ImageRef(data=encoded(faded)).open().getpixel((0, 0)) == (127, 127, 127)
    assert ImageRef(data=encoded(keyed, transparency=(9, 9, 9))).open().getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_cameras_rotation_is_applied(orientation: int) -> None:
    upright = Image.new("RGB", (16, 8), "black")
    upright.paste("white", (0, 0, 8, 8))
    back = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}
    stored = upright if orientation == 1 else upright.transpose(Image.Transpose(back[orientation]))
    exif = Image.Exif()
    exif[0x0112] = orientation
    shown = ImageRef(data=encoded(stored, "JPEG", exif=exif, quality=95)).open()
    assert shown.size == (16, 8)
    brightness = np.asarray(shown.convert("L"), dtype=float)
    assert brightness[:, :7].mean() > 200 and brightness[:, 9:].mean() < 50


def test_cmyk() -> None:
    cyan = Image.new("CMYK", (8, 8), (255, 0, 0, 0))
    red, green, blue = np.asarray(ImageRef(data=encoded(cyan, "JPEG")).open())[4, 4].tolist()
    assert red < 30 and green > 150 and blue > 200


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "CMYK"])
def test_other_modes_become_rgb(mode: str) -> None:
    assert ImageRef(data=encoded(picture().convert(mode), "TIFF")).open().mode == "RGB"


def test_turn_parts() -> None:
    first, second = ImageRef("a.png"), ImageRef("b.png")
    assert Turn("user", "which?", (first, second)).parts() == (first, second, "which?")
    assert Turn("user", "<image><image>which?", (first, second)).parts() == (first, second, "which?")
    assert Turn("user", "1 <image> 2 <image>", (first, second)).parts() == ("1 ", first, " 2 ", second)
    assert Turn("user", "hello").parts() == ("hello",)
    with pytest.raises(InputError, match="1 <image> mark for 2 images"):
        Turn("user", "<image>", (first, second)).parts()
    with pytest.raises(InputError, match="2 <image> marks for 0 images"):
        Turn("user", "<image><image>").parts()


def test_no_torch_is_imported() -> None:
    code = (
        "import sys, probes.inputs, probes.spans, probes.families; print({'torch', 'transformers'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
