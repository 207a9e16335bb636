"""Placeholder."""

from dataclasses import dataclass

from probes.inputs import ImageRef


@dataclass(frozen=True)
class Response:
    """R."""

    text: str
    images: tuple[ImageRef, ...] = ()
    model: str = ""
    score: float | None = None
