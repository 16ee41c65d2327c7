"""Uploaded pictures, kept by the page for a while so that a link can name them."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from dataclasses import dataclass
from io import BytesIO

from PIL import Image

from encoder.image import ImageError, frame_of, read_rgb
from search.schemas.items import Box, source_id

KEPT = 64
"""Pictures that are kept at most."""
KEPT_MB = 256
"""Of memory, at most."""
KEPT_S = 24 * 3600
"""Seconds after which a picture is forgotten."""
MOST_PIXELS = 50_000_000
"""A picture with more is not opened by the page; the service says what to do."""


@dataclass(frozen=True)
class Upload:
    """An uploaded picture."""

    id: str
    """Of its bytes, as the service calls a source."""
    name: str
    content: bytes
    since: float

    @classmethod
    def of(cls, content: bytes, name: str, now: float | None = None) -> Upload:
        """A picture that comes in now; its id is the digest of its bytes."""
        return cls(source_id(content), name, content, time.time() if now is None else now)

    @property
    def size(self) -> tuple[int, int] | None:
        """Upright width and height by its header; `None` where the page will not open it."""
        try:
            width, height = frame_of(self.content).size
        except ImageError:  # the service says which it is, in words
            return None
        return (width, height) if width * height <= MOST_PIXELS else None

    def part(self, box: Box | None, side: int = 640) -> bytes:
        """The picture, or a part of it, as a JPEG of at most `side` pixels a side."""
        whole = Image.fromarray(read_rgb(self.content, name=self.name, max_pixels=MOST_PIXELS))
        if box is not None:
            whole = whole.crop(
                (
                    max(box.x, 0),
                    max(box.y, 0),
                    min(box.x + box.w, whole.width),
                    min(box.y + box.h, whole.height),
                )
            )
        whole.thumbnail((side, side))
        out = BytesIO()
        whole.save(out, "JPEG", quality=92)
        return out.getvalue()


class Uploads:
    """The pictures that were uploaded last; in memory only, gone when the page stops.

    Safe to call from many threads.
    """

    def __init__(self) -> None:
        self._uploads: OrderedDict[str, Upload] = OrderedDict()
        self._turn = threading.Lock()

    def keep(self, content: bytes, name: str, now: float | None = None) -> Upload:
        """Keep a picture; the same bytes are one picture."""
        made = Upload.of(content, name, now)
        with self._turn:
            self._uploads.pop(made.id, None)
            self._uploads[made.id] = made
            size = sum(len(one.content) for one in self._uploads.values())
            while len(self._uploads) > 1 and (len(self._uploads) > KEPT or size > KEPT_MB << 20):
                size -= len(self._uploads.popitem(last=False)[1].content)
        return made

    def get(self, id: str, now: float | None = None) -> Upload | None:
        """A picture; `None` if it was forgotten."""
        now = time.time() if now is None else now
        with self._turn:
            for old in [one.id for one in self._uploads.values() if now - one.since > KEPT_S]:
                del self._uploads[old]
            return self._uploads.get(id)
