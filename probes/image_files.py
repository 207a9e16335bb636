"""Encoded images out of files, archives and base64 text, with a cap on their size; nothing is decoded here."""

import base64
import binascii
import os
import zipfile
import zlib
from functools import lru_cache
from pathlib import Path

from probes.errors import InputError, one_line, short

MAX_BYTES = 512 * 1024 * 1024
"""Largest encoded image, in bytes, that is read from a file or an archive."""


def decode_base64(text: str, name: str) -> bytes:
    """The bytes that base64 text stands for; white space in it counts for nothing.

    Raises:
        InputError: If the text is no base64.
    """
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        reason = one_line(error)
    raise InputError(
        f"image {name}: no such file, and no valid base64 ({reason}); give a path or the whole base64 text"
    )


def decode_data_address(text: str) -> bytes:
    """The bytes of a `data:` address.

    Raises:
        InputError: If it holds no base64.
    """
    head, comma, body = text.partition(",")
    if not comma or not head.lower().endswith(";base64"):
        raise InputError(f"image {short(text)}: only base64 data addresses are read; give data:image/png;base64,…")
    return decode_base64(body, short(text))


def _split_archive(path: Path) -> tuple[Path, str] | None:
    """Split `some.zip/member` at the first part that is a .zip *file*; None if there is none above the last part."""
    for depth, part in enumerate(path.parts[:-1], start=1):
        archive = Path(*path.parts[:depth])
        if part.lower().endswith(".zip") and archive.is_file():
            return archive, "/".join(path.parts[depth:])
    return None


def read_path(text: str, name: str) -> bytes:
    """The bytes of a file, or of `archive.zip/member`.

    Raises:
        InputError: If the file or member is missing, no regular file, unreadable or too large.
    """
    path = Path(text)
    try:
        split = _split_archive(path)
        if split is not None:
            return _read_member(*split, name)
        if path.is_dir():
            raise InputError(f"image {name}: this is a folder; give one image file")
        if not path.exists():
            raise InputError(f"image {name}: no such file; check the path and the folder it is read from")
        if not path.is_file():
            raise InputError(f"image {name}: not a regular file; copy the image to a file")
        if path.stat().st_size > MAX_BYTES:
            raise InputError(f"image {name}: larger than {MAX_BYTES:,} bytes; make it smaller or leave it out")
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"image {name}: cannot be read ({error.strerror or one_line(error)}); check it") from None


@lru_cache(maxsize=8)
def _archive(path: Path, _changed: int, _size: int, _process: int) -> zipfile.ZipFile:
    return zipfile.ZipFile(path)


def _read_member(path: Path, member: str, name: str) -> bytes:
    if ".." in member.split("/"):
        raise InputError(f"image {name}: a member's name may not climb out of its archive; remove '..'")
    status = path.stat()
    try:
        # One handle per process: a forked reader shares the file offset of its parent.
        archive = _archive(path, status.st_mtime_ns, status.st_size, os.getpid())
        if archive.getinfo(member).file_size > MAX_BYTES:
            raise InputError(f"image {name}: larger than {MAX_BYTES:,} bytes; make it smaller or leave it out")
        with archive.open(member) as stream:
            data = stream.read(MAX_BYTES + 1)
    except KeyError:
        raise InputError(f"image {name}: {path.name} has no member {member!r}; check the name") from None
    except (zipfile.BadZipFile, zlib.error, RuntimeError, EOFError) as error:
        raise InputError(f"image {name}: archive cannot be read ({one_line(error)}); make it anew") from None
    if len(data) > MAX_BYTES:
        raise InputError(f"image {name}: larger than {MAX_BYTES:,} bytes; make it smaller or leave it out")
    return data
