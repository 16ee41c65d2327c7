"""A set of images to train on."""

from __future__ import annotations

from typing import Protocol

from encoder.contract import RGB


class DataError(ValueError):
    """Images that cannot be trained on, and why."""


class Source(Protocol):
    """A list of images, by number."""

    @property
    def name(self) -> str:
        """What errors call the source."""
        ...

    def __len__(self) -> int: ...

    def label(self, at: int) -> str | None:
        """What the source calls the image's class, if anything."""
        ...

    def title(self, at: int) -> str:
        """What a report calls the image."""
        ...

    def image(self, at: int) -> RGB:
        """The pixels, height x width x 3; raises `ImageError` or `OSError`."""
        ...

    def content(self, at: int) -> bytes:
        """The image file's bytes."""
        ...
