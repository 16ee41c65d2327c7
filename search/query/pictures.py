"""Uploaded pictures, decoded within a budget of memory that all calls in flight share.

A picture of some kilobytes can hold 50 megapixels, so what counts is its size when decoded. It is
read from the header, room is taken for it before it is decoded, and pictures that come together are
decoded and embedded in small batches.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from encoder.card import EncoderCard, FieldsUm
from encoder.contract import RGB, Encoder, Vectors
from encoder.field_of_view import WIDEST, part_seen, side_px
from encoder.image import Decoded, ImageError, TooManyPixels, decode, frame_of, read_rgb
from encoder.stains import stained
from search.errors import BadQuestion, Busy
from search.library.sources import crop
from search.schemas.answers import LookedAt
from search.schemas.items import Box
from search.schemas.questions import Question
from search.transforms.adaptation import Adaptation


@dataclass(frozen=True)
class OwnCells:
    """The cells of one smear, embedded once: it is aligned by them, and each is searched."""

    adaptation: Adaptation
    """The collection's, knowing them as a site."""
    rows: Mapping[Box, Vectors]
    """Of each by its box, as the base encoder made them."""


@dataclass(frozen=True)
class Opened:
    """An uploaded picture that is decoded already, to be asked about more than once."""

    pixels: RGB
    source: str
    """The digest of its bytes, as an item's `source`."""
    remark: str = ""
    """What the decoder says of it."""
    own: OwnCells | None = None
    """What is known of its cells, where it is judged whole and aligned by them."""


BYTES_PER_PIXEL = 18
"""What decoding and embedding take at most, copies included (measured: 7 to 16)."""
DECODED = 6
"""Bytes of a pixel once it is decoded: the picture, and what is cut from it."""
FINDING_PER_PIXEL, FINDING = 96, 96 << 20
"""Bytes that finding cells takes beside a picture, for each pixel and at most (measured: 88)."""
BATCH_PIXELS = 8_000_000
BATCH = 32
"""Pictures that are decoded and embedded together, if they have no more pixels than that."""
PATIENCE_S = 10.0
"""How long a call waits for others to finish."""
WAITING = 8
"""Calls that wait at once; each occupies a thread, so more are refused."""


class EstimateScale(Protocol):
    """What estimates the scale of a picture from its red cells."""

    def __call__(self, image: RGB) -> tuple[float, float] | None:
        """Micrometres per pixel and the middle half of the single cells'; `None` for none."""
        ...


@dataclass(frozen=True)
class View:
    """What of an uploaded picture is embedded."""

    pixels: RGB
    """What the encoder is shown."""
    looked_at: LookedAt
    """The same in words and numbers."""
    given: RGB
    """The picture, or the crop of it, that the question is about."""
    offset: tuple[int, int]
    """Left and top of what is shown, in pixels of `given`."""

    def around(self, region: Box) -> tuple[RGB, Box]:
        """What shows a region of `given`, and the region in it: all of `given` where the encoder
        is shown less of it than the region."""
        inside = region.model_copy(
            update={"x": region.x - self.offset[0], "y": region.y - self.offset[1]}
        )
        height, width = self.pixels.shape[:2]
        if (
            min(inside.x, inside.y) < 0
            or inside.x + inside.w > width
            or (inside.y + inside.h > height)
        ):
            return self.given, region
        return self.pixels, inside


def view_of(
    pixels: RGB, question: Question, card: EncoderCard, estimate: EstimateScale | None
) -> View:
    """The part of an uploaded picture that an encoder is shown.

    Args:
        pixels: The whole picture.
        question: Its `crop`, and what it says of the scale and the cell.
        card: Of the encoder.
        estimate: Estimates a scale that the question does not say; `None` for not at all.

    Raises:
        BadQuestion: the crop does not lie on the picture.
    """
    about, fields = question.about, card.fields_um
    um, spread = about.um_per_px, about.um_per_px_spread
    estimated = about.um_per_px_origin == "estimate"
    if um is None and estimate is not None and fields is not None:
        found = estimate(pixels)
        um, spread = found or (None, None)
        estimated = True
    given = given_part(pixels, question.crop)
    box = _shown(pixels, question, fields, um, given)
    looked_at = LookedAt(
        box=box,
        scale="unknown" if um is None else "estimated" if estimated else "known",
        um_per_px=um,
        um_per_px_spread=spread,
        um=None if um is None else max(box.w, box.h) * um,
        field_um=None if fields is None else fields.red if about.cell == "red" else fields.white,
        words="",
    )
    looked_at = looked_at.model_copy(
        update={"words": _words(looked_at, given, question.crop is not None)}
    )
    return View(
        pixels=_cut(pixels, box),
        looked_at=looked_at,
        given=_cut(pixels, given),
        offset=(box.x - given.x, box.y - given.y),
    )


def given_part(pixels: RGB, box: Box | None) -> Box:
    """The part of a picture that a question is about, checked.

    Raises:
        BadQuestion: it lies outside the image, or is larger than the image and its surrounds.
    """
    height, width = pixels.shape[:2]
    if box is None:
        return Box(x=0, y=0, w=width, h=height)
    apart = box.x >= width or box.y >= height or box.x + box.w <= 0 or box.y + box.h <= 0
    large = box.w > 2 * width or box.h > 2 * height or box.w * box.h > 2 * width * height
    if apart or large:
        raise BadQuestion(
            f"the crop {box.w} x {box.h} at ({box.x}, {box.y}) does not lie on the image, "
            f"which is {width} x {height} pixels"
        )
    return box


def _shown(
    pixels: RGB, question: Question, fields: FieldsUm | None, um: float | None, given: Box
) -> Box:
    kind, sides = question.about.cell, (given.w, given.h)
    if question.crop is not None and kind is not None and fields is not None and um is not None:
        # A cell that is named: as an ingest cuts it, with what lies around the box too
        side = min(side_px(fields, um, kind), max(min(pixels.shape[:2]), min(sides)))
        left, top, sides = (given.w - side) // 2, (given.h - side) // 2, (side, side)
    else:
        left, top, *rest = part_seen(sides, fields, um, kind)
        sides = (rest[0], rest[1])
    return Box(x=given.x + left, y=given.y + top, w=sides[0], h=sides[1])


def _cut(pixels: RGB, box: Box) -> RGB:
    whole = (box.w, box.h) == pixels.shape[1::-1] and box.x == box.y == 0
    return pixels if whole else crop(pixels, box)


def _words(looked_at: LookedAt, given: Box, boxed: bool) -> str:
    what = "box" if boxed else "picture"
    if looked_at.um is None or looked_at.um_per_px is None:
        return f"Scale unknown: the {what} was looked at whole."
    by = "by the scale that was given"
    if looked_at.scale == "estimated":
        by = f"by a scale estimated from red cells, {looked_at.um_per_px:.3g} µm per px"
    if looked_at.um_per_px_spread is not None:
        by += f" (half of the single cells within {looked_at.um_per_px_spread:.2g} of each other)"
    if looked_at.field_um is None or looked_at.box == given:
        wide = looked_at.field_um is not None and looked_at.um > WIDEST * looked_at.field_um
        more = ": more than a picture of one cell, so draw a box around one" if wide else ""
        return f"Looked at the whole {what}, {looked_at.um:.3g} µm {by}{more}."
    return f"Looked at {looked_at.um:.3g} µm about the middle of the {what}, {by}."


class MemoryBudget:
    """Bytes that all calls together may take. Safe to use from many threads.

    Those who want more than an eighth of it stand in line, so that a call of many large pictures
    lets others go between two of its own; who wants less goes whenever there is room.
    """

    def __init__(self, limit: int, patience_s: float = PATIENCE_S) -> None:
        self.limit = limit
        self._patience_s = patience_s
        self._used = 0
        self._waiting = 0
        self._line: list[object] = []
        self._changed = threading.Condition()

    @contextmanager
    def use(self, size: int) -> Iterator[None]:
        """Take `size` bytes until the block ends; more than the limit only while nobody else does.

        Raises:
            Busy: others have not finished in time.
        """
        self.take(size)
        try:
            yield
        finally:
            self.give_back(size)

    def take(self, size: int, patience_s: float | None = None, mine: int = 0) -> None:
        """Take `size` bytes until `give_back`, beside `mine` that the same call took before.

        Raises:
            Busy: as `use`.
        """
        end = time.monotonic() + (self._patience_s if patience_s is None else patience_s)
        line = self._line if 8 * size > self.limit else []
        with self._changed:
            if self._waiting >= WAITING and (line or not self._fits(size, mine)):
                raise Busy
            self._waiting += 1
            line.append(ticket := object())
            try:
                while line[0] is not ticket or not self._fits(size, mine):
                    left = end - time.monotonic()
                    if left <= 0:
                        raise Busy
                    self._changed.wait(left)
                self._used += size
            finally:
                self._waiting -= 1
                line.remove(ticket)
                self._changed.notify_all()

    def give_back(self, size: int) -> None:
        """Return what `take` took."""
        with self._changed:
            self._used -= size
            self._changed.notify_all()

    def _fits(self, size: int, mine: int) -> bool:
        return self._used == mine or self._used + size <= self.limit


class BodyMemory:
    """What the body of one call takes of a budget, as it comes in; given back at its end."""

    def __init__(self, budget: MemoryBudget) -> None:
        self._budget = budget
        self._taken = 0

    def take(self, size: int) -> None:
        """Take more; raises `Busy` at once where there is none, since no thread may wait here."""
        self._budget.take(size, patience_s=0.0, mine=self._taken)
        self._taken += size

    def give_back(self) -> None:
        """Return all of it."""
        self._budget.give_back(self._taken)
        self._taken = 0


class Pictures:
    """Decodes uploaded pictures.

    Args:
        budget: Of memory, shared by all calls.
        max_pixels: Of one picture.
        max_together: Pixels of all pictures of one call.
    """

    def __init__(
        self, budget: MemoryBudget, max_pixels: int, max_together: int, *, stained: bool = False
    ) -> None:
        self._budget = budget
        self._max_pixels = max_pixels
        self._max_together = max_together
        self._stained = stained

    def for_card(self, card: EncoderCard) -> Pictures:
        """The same for an encoder that may normalise stains, which takes more memory."""
        return Pictures(
            self._budget, self._max_pixels, self._max_together, stained=card.stain is not None
        )

    def check_together(self, images: Sequence[bytes]) -> None:
        """Count the pixels of all pictures of one call, before the first is decoded.

        Raises:
            TooManyPixels: they would take minutes, in which others wait.
        """
        together = sum(map(self._pixels, images))
        if together > self._max_together:
            raise TooManyPixels(
                f"the {len(images)} images have {together / 1e6:,.0f} million pixels together; at "
                f"most {self._max_together / 1e6:,.0f} million are accepted in one call. Send "
                "fewer at a time, or crop or shrink them first"
            )

    @contextmanager
    def opened(self, content: bytes, name: str, *, finding: bool = False) -> Iterator[Decoded]:
        """One picture; its memory is counted until the block ends.

        Args:
            content: Encoded.
            name: For errors.
            finding: Whether cells are looked for in it, as for an estimate of its scale.

        Raises:
            ImageError: no picture, or too large; Busy: no memory for it now.
        """
        pixels = self._pixels(content)
        found = min(FINDING, FINDING_PER_PIXEL * pixels) if finding else 0
        with self._budget.use(self._cost(pixels) + found):
            yield decode(content, name=name, max_pixels=self._max_pixels)

    def batches(self, contents: Iterable[tuple[str, bytes]]) -> Iterator[list[RGB]]:
        """Many pictures, named for errors, in small batches; each counts until the next one.

        Raises:
            ImageError, Busy: as `opened`.
        """
        batch: list[tuple[str, bytes]] = []
        pixels = 0
        for name, content in contents:
            size = self._pixels(content)
            if batch and (pixels + size > BATCH_PIXELS or len(batch) == BATCH):
                yield from self._decoded(batch, pixels)
                batch, pixels = [], 0
            batch.append((name, content))
            pixels += size
        if batch:
            yield from self._decoded(batch, pixels)

    def embedded(self, encoder: Encoder, images: Sequence[bytes]) -> Vectors:
        """Vectors of the pictures of one call, n x dim; see `check_together` and `batches`."""
        self.check_together(images)
        named = ((f"image {at}", content) for at, content in enumerate(images))
        return np.concatenate([encoder.embed(batch) for batch in self.batches(named)])

    def _decoded(self, batch: Sequence[tuple[str, bytes]], pixels: int) -> Iterator[list[RGB]]:
        with self._budget.use(self._cost(pixels)):
            yield [read_rgb(one, name=name, max_pixels=self._max_pixels) for name, one in batch]

    def _cost(self, pixels: int) -> int:
        """Bytes that decoding and embedding take."""
        plain = pixels * BYTES_PER_PIXEL
        if not self._stained:
            return plain
        shown = stained.BYTES_PER_PIXEL * min(pixels, stained.MOST_PIXELS)
        return max(plain, pixels * DECODED + shown)

    def _pixels(self, content: bytes) -> int:
        """Pixels that decoding will make; none of what it will refuse."""
        try:
            frame = frame_of(content)
        except ImageError:
            return 0
        pixels = frame.width * frame.height
        return pixels if pixels <= self._max_pixels else 0
