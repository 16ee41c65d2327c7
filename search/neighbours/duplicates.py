"""Near-duplicates: one picture stored twice, as against two pictures that look alike."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from encoder.contract import RGB
from encoder.image import plain_jpeg
from search.neighbours.shrinking import shrunk
from search.schemas.answers import Hit

SIDE = 32
"""Side of the grey picture that is hashed."""
LOW = 16
"""Frequencies kept along each axis: LOW * LOW - 1 bits."""
SAME_BITS = 48
"""Bits in which two copies of one picture may differ. On 12,141 single cells, 220 originals and
their resized, re-saved copies differ in at most 16, the two pairs of the same cell in 8 and 38,
and the other 73.7 million pairs in at least 66 (`benchmarks/near_duplicates.py`)."""
SAME_COLOUR = 16
"""Levels by which the mean red, green or blue of two copies may differ; re-saving moves them by
at most 1, and what has the same outlines in another colour is another picture."""
FLAT = 1.0
"""Grey levels (standard deviation) below which a picture shows nothing that could be compared."""
IDENTICAL = 0.99999
"""Cosine from which two vectors are the same but for rounding."""
SPARE = 4
"""Neighbours beyond those that are wanted, to be fetched in place of near-duplicates."""
COMPARED = 40_000
"""Most pictures of which all are compared with all, to find those that are one."""
PAIRED = 1024
"""Pictures that are compared with all others at once."""
TOGETHER = 64
"""Pictures that are hashed at once."""


@lru_cache(maxsize=1)
def _cosines() -> NDArray[np.float64]:
    """The first rows of the discrete cosine transform, LOW x SIDE."""
    at, frequency = np.arange(SIDE), np.arange(LOW)
    return np.asarray(np.cos(np.pi * (2 * at[None] + 1) * frequency[:, None] / (2 * SIDE)))


@dataclass(frozen=True)
class PictureHash:
    """What is kept of a picture, to know it again."""

    bits: int
    """255 of them, one for each low frequency."""
    colour: tuple[int, int, int]
    """Its mean red, green and blue, 0 to 255."""

    def to_bytes(self) -> bytes:
        """35 bytes: the bits, then the colour."""
        return self.bits.to_bytes(32, "big") + bytes(self.colour)

    @classmethod
    def from_bytes(cls, content: bytes) -> PictureHash:
        """What `to_bytes` made."""
        red, green, blue = content[32:]
        return cls(int.from_bytes(content[:32], "big"), (red, green, blue))


Hashes = Callable[[Sequence[str]], Sequence[PictureHash | None]]
"""Perceptual hashes of items by their ids; `None` where there is none."""


def perceptual_hash(jpeg: bytes) -> PictureHash | None:
    """The perceptual hash of a picture: the signs of its low frequencies, and its colour.

    The picture is made grey and 32 x 32, transformed by the discrete cosine transform, and
    each of the 255 lowest frequencies is one bit: above their median or not (pHash, Zauner
    2010, section 3.2.1, with 16 x 16 in place of 8 x 8 frequencies). Re-saving and resizing
    change few bits; another cell changes about half of them.

    Args:
        jpeg: A thumbnail as shards keep it, or any picture that Pillow reads.

    Returns:
        `None` for a flat picture, which equals every other flat picture.
    """
    return _hashes(shrunk([_picture(jpeg)], SIDE))[0]


def hashes_of(jpegs: Sequence[bytes]) -> list[PictureHash | None]:
    """The perceptual hashes of many pictures; `None` for a flat one and for what is no picture."""
    parts = [jpegs[at : at + TOGETHER] for at in range(0, len(jpegs), TOGETHER)]
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:  # decoding leaves Python free
        return [one for part in pool.map(_some_hashes, parts) for one in part]


def _some_hashes(jpegs: Sequence[bytes]) -> list[PictureHash | None]:
    found: list[PictureHash | None] = [None] * len(jpegs)
    pictures: dict[int, RGB] = {}
    for at, jpeg in enumerate(jpegs):
        with suppress(OSError):  # an item whose ingest kept no picture
            pictures[at] = _picture(jpeg)
    for at, one in zip(pictures, _hashes(shrunk([*pictures.values()], SIDE)), strict=True):
        found[at] = one
    return found


def _picture(jpeg: bytes) -> RGB:
    """The pixels of a picture; raises `OSError` for what is none.

    A thumbnail is decoded at half of its size, which changes at most 6 bits of 700 hashes.
    """
    pixels = plain_jpeg(jpeg, 2 * SIDE)
    if pixels is not None:
        return pixels
    with Image.open(BytesIO(jpeg)) as image:
        return np.asarray(image.convert("RGB"))


def _hashes(planes: NDArray[np.float64]) -> list[PictureHash | None]:
    """The hash of each picture, n x 3 x SIDE x SIDE; `None` for a flat one."""
    if not len(planes):
        return []
    means = planes.mean(axis=(2, 3))
    red, green, blue = planes.transpose(1, 0, 2, 3)
    levels = np.floor((19595 * red + 38470 * green + 7471 * blue + 32768) / 65536)  # as Pillow
    rows = _cosines()
    spectra = (rows @ levels @ rows.T).reshape(len(planes), -1)
    frequencies = spectra[:, 1:]  # the first is the mean brightness
    bits = np.packbits(frequencies > np.median(frequencies, axis=1, keepdims=True), axis=1)
    flat = levels.std(axis=(1, 2)) < FLAT
    colours = means.round().astype(int).tolist()
    return [
        None if alike else PictureHash(int.from_bytes(row.tobytes(), "big"), tuple(colour))
        for alike, row, colour in zip(flat, bits, colours, strict=True)
    ]


def same_picture(one: PictureHash | None, other: PictureHash | None) -> bool:
    """Whether two hashes are of one picture; a flat picture is the same as none."""
    if one is None or other is None:
        return False
    apart = max(abs(a - b) for a, b in zip(one.colour, other.colour, strict=True))
    return (one.bits ^ other.bits).bit_count() <= SAME_BITS and apart <= SAME_COLOUR


def other_pictures(
    ids: Sequence[str], lists: Sequence[Sequence[Hit]], hashes: Hashes
) -> list[list[Hit]]:
    """The neighbours of stored items that are other pictures than theirs, as a search finds them.

    Args:
        ids: Of the items.
        lists: The neighbours of each.
        hashes: Gives the perceptual hashes of stored items.
    """
    every = list({hit.item.id for hits in lists for hit in hits} | set(ids))
    known = dict(zip(every, hashes(every), strict=True))
    return [
        [
            hit
            for hit in hits
            if hit.score < IDENTICAL and not same_picture(known[id], known[hit.item.id])
        ]
        for id, hits in zip(ids, lists, strict=True)
    ]


def same_pairs(hashes: Sequence[PictureHash | None]) -> list[tuple[int, int]]:
    """Every pair of positions whose hashes are of one picture, the earlier position first.

    All pairs are compared, by products of bits: 12,000 pictures take about a second.
    """
    rows = [at for at, one in enumerate(hashes) if one is not None]
    known = [one for one in hashes if one is not None]
    if not known:
        return []
    raw = np.frombuffer(b"".join(one.bits.to_bytes(32, "big") for one in known), np.uint8)
    bits = np.unpackbits(raw.reshape(-1, 32), axis=1).astype(np.float32)
    ones = bits.sum(axis=1)
    found = []
    for at in range(0, len(known), PAIRED):
        part = slice(at, at + PAIRED)
        apart = ones[part, None] + ones[None, at:] - 2 * (bits[part] @ bits[at:].T)
        for left, right in np.argwhere(apart <= SAME_BITS).tolist():
            if left < right and same_picture(known[at + left], known[at + right]):
                found.append((rows[at + left], rows[at + right]))
    return found
