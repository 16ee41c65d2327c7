"""Slides made from nothing: tiled JPEG TIFFs in the layouts of scanners."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image

RGB = NDArray[np.uint8]
STAINS = np.array([[0.56, 0.72, 0.41], [0.22, 0.80, 0.56]])
"""Optical density of haematoxylin and eosin in red, green and blue."""
ASCII, SHORT, LONG, RATIONAL, LONG8 = 2, 3, 4, 5, 16
CODES = {SHORT: "H", LONG: "I", LONG8: "Q"}


@dataclass(frozen=True)
class Level:
    """One level of a pyramid, its tiles encoded on demand."""

    width: int
    height: int
    tile: int
    encoded: Callable[[int, int], bytes]
    """Row and column of a tile in, a whole JPEG stream out."""


def jpeg(image: RGB, quality: int = 80, subsampling: str = "420", keep_rgb: bool = False) -> bytes:
    """One JPEG stream; `keep_rgb` stores red, green and blue without the YCbCr transform."""
    if keep_rgb:
        out = io.BytesIO()
        Image.fromarray(image).save(out, "JPEG", quality=quality, keep_rgb=True, subsampling=0)
        return out.getvalue()
    contiguous = np.ascontiguousarray(image)
    return bytes(simplejpeg.encode_jpeg(contiguous, quality, "RGB", subsampling))


def split_tables(stream: bytes) -> tuple[bytes, bytes]:
    """An abbreviated JPEG: the tables stream, and the image stream without tables and APPn."""
    tables, image, at = [b"\xff\xd8"], [b"\xff\xd8"], 2
    while True:
        marker, length = stream[at + 1], int.from_bytes(stream[at + 2 : at + 4], "big")
        segment = stream[at : at + 2 + length]
        at += 2 + length
        if marker in {0xDB, 0xC4}:
            tables.append(segment)
        elif not 0xE0 <= marker <= 0xEF:
            image.append(segment)
        if marker == 0xDA:
            return b"".join([*tables, b"\xff\xd9"]), b"".join([*image, stream[at:]])


def level_of(image: RGB, tile: int = 256, **how: object) -> Level:
    """A level that holds an image; the last tiles are padded with white."""

    def encoded(row: int, column: int) -> bytes:
        cut = image[row * tile : (row + 1) * tile, column * tile : (column + 1) * tile]
        full = np.full((tile, tile, 3), 255, np.uint8)
        full[: cut.shape[0], : cut.shape[1]] = cut
        return jpeg(full, **how)  # type: ignore[arg-type]

    return Level(image.shape[1], image.shape[0], tile, encoded)


def write_tiff(
    path: Path,
    levels: Sequence[Level],
    *,
    description: str = "",
    um_per_px: float | None = None,
    photometric: int = 6,
    abbreviated: bool = False,
    shared: bool = False,
    subsampling: tuple[int, int] = (2, 2),
) -> Path:
    """Write a BigTIFF pyramid of JPEG tiles.

    Args:
        path: Where to.
        levels: Finest first.
        description: ImageDescription of every level; an Aperio header makes it an SVS.
        um_per_px: Written as the resolution tags of the finest level, in centimetres.
        photometric: 6 for YCbCr, 2 for RGB.
        abbreviated: Store the quantisation and Huffman tables once per level.
        shared: Write equal tiles once and let their offsets point at the same bytes.
        subsampling: Written as the YCbCrSubSampling tag.
    """
    with path.open("wb") as file:
        file.write(struct.pack("<2sHHHQ", b"II", 43, 8, 0, 0))
        pointer = 8
        for number, level in enumerate(levels):
            columns, rows = -(-level.width // level.tile), -(-level.height // level.tile)
            offsets = np.zeros(rows * columns, np.uint64)
            counts = np.zeros(rows * columns, np.uint64)
            tables, seen = b"", {}
            for at in range(rows * columns):
                stream = level.encoded(at // columns, at % columns)
                if shared and stream in seen:
                    offsets[at], counts[at] = seen[stream]
                    continue
                body = stream
                if abbreviated:
                    tables, body = split_tables(stream)
                offsets[at], counts[at] = file.tell(), len(body)
                seen[stream] = (int(offsets[at]), len(body))
                file.write(body)
            tags = _tags(level, offsets, counts, photometric, subsampling, number > 0)
            if description:
                tags[270] = (ASCII, description.encode() + b"\0")
            if tables:
                tags[347] = (7, tables)
            if um_per_px is not None:
                per_cm = struct.pack("<II", round(1e4 / um_per_px * 1000 / 2**number), 1000)
                tags |= {282: (RATIONAL, per_cm), 283: (RATIONAL, per_cm), 296: (SHORT, [3])}
            pointer = _directory(file, tags, pointer)
    return path


def _tags(
    level: Level,
    offsets: NDArray[np.uint64],
    counts: NDArray[np.uint64],
    photometric: int,
    subsampling: tuple[int, int],
    reduced: bool,
) -> dict[int, tuple[int, object]]:
    tags: dict[int, tuple[int, object]] = {
        254: (LONG, [int(reduced)]),
        256: (LONG, [level.width]),
        257: (LONG, [level.height]),
        258: (SHORT, [8, 8, 8]),
        259: (SHORT, [7]),
        262: (SHORT, [photometric]),
        277: (SHORT, [3]),
        284: (SHORT, [1]),
        322: (LONG, [level.tile]),
        323: (LONG, [level.tile]),
        324: (LONG8, offsets),
        325: (LONG8, counts),
    }
    if photometric == 6:
        tags[530] = (SHORT, list(subsampling))
    return tags


def _directory(file: io.BufferedWriter, tags: dict[int, tuple[int, object]], pointer: int) -> int:
    """Write one directory, link it from `pointer`, return where the next link goes."""
    entries = []
    for tag, (kind, value) in sorted(tags.items()):
        if isinstance(value, bytes):
            raw, count = value, 1 if kind == RATIONAL else len(value)
        else:
            numbers = np.asarray(value, f"<{ {'H': 'u2', 'I': 'u4', 'Q': 'u8'}[CODES[kind]] }")
            raw, count = numbers.tobytes(), numbers.size
        if len(raw) > 8:
            where = file.tell()
            file.write(raw)
            raw = struct.pack("<Q", where)
        entries.append(struct.pack("<HHQ", tag, kind, count) + raw.ljust(8, b"\0"))
    file.write(b"\0" * (-file.tell() % 8))
    start = file.tell()
    file.write(struct.pack("<Q", len(entries)) + b"".join(entries) + struct.pack("<Q", 0))
    end = file.tell()
    file.seek(pointer)
    file.write(struct.pack("<Q", start))
    file.seek(end)
    return end - 8


def svs_description(width: int, height: int, um_per_px: float | None = 0.5, extra: str = "") -> str:
    """The words that make OpenSlide take a tiled TIFF for an Aperio SVS."""
    scale = "" if um_per_px is None else f"|MPP = {um_per_px}"
    return (
        f"Aperio Image Library v11.2.1 \r\n{width}x{height} [0,0 {width}x{height}] (256x256) "
        f"JPEG/RGB Q=80|AppMag = 20{scale}{extra}"
    )


def tissue(side: int, rng: np.random.Generator, density: float = 1.0) -> RGB:
    """A square of something like stained tissue: fibres of eosin, nuclei of haematoxylin."""
    fine = rng.normal(0, 1, (side, side)).astype(np.float32)
    coarse = np.asarray(
        Image.fromarray(rng.normal(0, 1, (side // 16 + 2,) * 2).astype(np.float32)).resize(
            (side, side), Image.Resampling.BICUBIC
        )
    )
    eosin = np.clip(0.7 + 0.3 * coarse + 0.1 * fine, 0.15, None) * density
    nuclei = np.zeros((side, side), np.float32)
    y, x = np.mgrid[:side, :side]
    for _ in range(max(1, side * side // 500)):
        cx, cy, r = rng.uniform(0, side), rng.uniform(0, side), rng.uniform(4, 8)
        left, top = max(0, int(cx - 10)), max(0, int(cy - 10))
        box = np.s_[top : int(cy) + 11, left : int(cx) + 11]
        inside = np.clip(r - np.hypot(x[box] - cx, y[box] - cy), 0, 1)
        nuclei[box] = np.maximum(nuclei[box], inside)
    haematoxylin = (0.15 + 1.3 * nuclei + 0.12 * fine * nuclei) * density
    od = haematoxylin[..., None] * STAINS[0] + eosin[..., None] * 0.6 * STAINS[1]
    return np.asarray(np.clip(245 * np.exp(-od), 0, 255), np.uint8)


def glass(height: int, width: int, rng: np.random.Generator) -> RGB:
    """Empty glass, with the noise of a camera."""
    noise = rng.normal(0, 1.2, (height, width, 1))
    return np.clip(np.array([243, 242, 244]) + noise, 0, 255).astype(np.uint8)


def blob(height: int, width: int, rng: np.random.Generator, share: float = 0.35) -> RGB:
    """Glass with one round piece of tissue in the middle that covers about `share` of it."""
    image = glass(height, width, rng)
    side = max(height, width)
    piece = tissue(side, rng)[:height, :width]
    y, x = np.mgrid[:height, :width]
    radius = np.sqrt(share * height * width / np.pi)
    inside = np.hypot(y - height / 2, x - width / 2) < radius
    image[inside] = piece[inside]
    return image


def halved(image: RGB, times: int = 1) -> RGB:
    """The image shrunk by 2 to the power of `times`."""
    height, width = (max(1, side >> times) for side in image.shape[:2])
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BOX))
