"""Packed images: their bytes one after another in large files, with an index written last."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Literal

import numpy as np

from encoder.contract import RGB
from encoder.image import ImageError, read_rgb, resize
from search.disk.atomic import write_durably
from train.data.source import DataError, Source

INDEX = "pack.json"
"""Written last: without it the folder is no finished pack."""
Form = Literal["jpeg", "webp"]
"""How resized images are stored; WebP takes half of the bytes at an equal look."""
SHARD_BYTES = 256 * 2**20
"""A shard is closed when it is this large."""


@dataclass(frozen=True)
class PackReport:
    """What a pack holds, and what it had to leave out."""

    images: int
    bytes: int
    shards: int
    corrupt: dict[str, str]
    """Images that could not be read, and why."""


@dataclass
class _Writer:
    folder: Path
    files: list[str] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)

    def put(self, content: bytes) -> tuple[int, int]:
        """Append; returns shard and offset."""
        if not self.files or self.sizes[-1] + len(content) > SHARD_BYTES:
            self.files.append(f"shard-{len(self.files):05d}.bin")
            self.sizes.append(0)
            (self.folder / self.files[-1]).write_bytes(b"")
        with (self.folder / self.files[-1]).open("ab") as file:
            file.write(content)
        self.sizes[-1] += len(content)
        return len(self.files) - 1, self.sizes[-1] - len(content)


def pack(
    sources: Sequence[Source],
    out: Path,
    px: int | None = None,
    quality: int = 95,
    form: Form = "jpeg",
) -> PackReport:
    """Copy images into shards.

    Args:
        sources: What to pack, in order.
        out: Folder to make; it must not hold a pack.
        px: Squash every image to this side and save it anew; `None` copies files unchanged.
        quality: Of what is saved anew.
        form: Its format.

    Raises:
        DataError: `out` already holds a pack, or nothing could be read.
    """
    if (out / INDEX).exists():
        raise DataError(f"{out} already holds a pack; remove it or choose another folder")
    out.mkdir(parents=True, exist_ok=True)
    writer = _Writer(out)
    rows: list[list[int]] = []
    titles: list[str] = []
    labels: list[str | None] = []
    corrupt: dict[str, str] = {}
    for source in sources:
        for at in range(len(source)):
            try:
                content = _encoded(source.content(at), px, quality, form)
            except (ImageError, OSError) as error:
                corrupt[source.title(at)] = str(error)
                continue
            shard, offset = writer.put(content)
            rows.append([shard, offset, len(content)])
            titles.append(source.title(at))
            labels.append(source.label(at))
    if not rows:
        raise DataError(f"none of {len(corrupt)} images could be read; nothing was packed")
    held = BytesIO()
    np.save(held, np.array(rows, np.int64))
    write_durably(out / "rows.npy", held.getvalue())
    index = {"format": 1, "shards": writer.files, "sizes": writer.sizes, "px": px}
    lists = {"titles": titles, "labels": labels, "corrupt": corrupt}
    write_durably(out / INDEX, json.dumps({**index, **lists}).encode())
    return PackReport(len(rows), sum(writer.sizes), len(writer.files), corrupt)


def _encoded(content: bytes, px: int | None, quality: int, form: Form) -> bytes:
    from PIL import Image

    image = read_rgb(content)  # also where the bytes are kept: a pack holds readable images only
    if px is None:
        return content
    buffer = BytesIO()
    Image.fromarray(resize(image, px, "lanczos")).save(buffer, form, quality=quality)
    return buffer.getvalue()


class Shards:
    """A pack as a source; shards are mapped into memory, so that any image is one read."""

    def __init__(self, folder: Path) -> None:
        index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
        self.name = str(folder)
        self._rows = np.load(folder / "rows.npy")
        self._titles: list[str] = index["titles"]
        self._labels: list[str | None] = index["labels"]
        for name, size in zip(index["shards"], index["sizes"], strict=True):
            have = (folder / name).stat().st_size if (folder / name).exists() else None
            if have != size:
                raise DataError(
                    f"{folder / name} has {have} bytes, its index says {size}: pack again"
                )
        self._maps = [np.memmap(folder / name, np.uint8, "r") for name in index["shards"]]

    def __len__(self) -> int:
        return len(self._rows)

    def label(self, at: int) -> str | None:
        """As the packed source named it."""
        return self._labels[at]

    def title(self, at: int) -> str:
        """As the packed source called it."""
        return f"{self.name}: {self._titles[at]}"

    def image(self, at: int) -> RGB:
        """The image's pixels."""
        return read_rgb(self.content(at))

    def content(self, at: int) -> bytes:
        """The image file's bytes."""
        shard, offset, length = self._rows[at].tolist()
        return bytes(self._maps[shard][offset : offset + length])
