"""Plain images, decoded in children, many at a time, each with its own outcome.

    with ReaderPool(workers=2) as pool:
        for number, outcome in read_images(pool, paths):
            ...                     # an image (copy what stays), or a SourceError with a reason

A child reads a bundle of files. It says which file it is at before it opens it, so a death is
put down to that file alone, and the rest of the bundle goes to another child.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path

from encoder.contract import RGB
from encoder.image import MAX_PIXELS, ImageError, read_rgb
from ingest.sandbox.messages import (
    Batch,
    Failed,
    Piece,
    SourceDied,
    SourceError,
    SourceRefused,
    Task,
)
from ingest.sandbox.pool import ReaderPool

BUNDLE = 256
"""Files per task."""
BATCH_BYTES = 24 * 1024 * 1024
"""Decoded pixels that are sent at once; a larger image travels alone."""


def read_images(
    pool: ReaderPool,
    paths: Sequence[Path],
    *,
    max_pixels: int = MAX_PIXELS,
    bundle: int = BUNDLE,
) -> Iterator[tuple[int, RGB | SourceError]]:
    """Decode files, each exactly once, in the order in which they get done.

    Args:
        pool: Its children do the work.
        paths: The files.
        max_pixels: Larger images are refused before they are decoded.
        bundle: Files per task; fewer where few large ones are read by many children.

    Yields:
        The number of the file in `paths`, and its image (height x width x 3, valid until the
        next one is requested) or why there is none.
    """
    queue = _Queue()
    for first in range(0, len(paths), bundle):
        numbers = range(first, min(first + bundle, len(paths)))
        queue.tasks.append(_task(paths, numbers, max_pixels))
    left = set(range(len(paths)))
    for event in pool.read_all(queue):
        if isinstance(event, Batch):
            for number, reason in event.facts["refused"]:
                left.discard(number)
                yield number, SourceRefused(str(paths[number]), reason)
            for number, image in zip(event.facts["numbers"], event.images, strict=True):
                left.discard(number)
                yield number, image
        elif isinstance(event, Failed):
            undone = [number for number in event.task.args["numbers"] if number in left]
            blamed = int(event.error.note) if event.error.note else undone[0]
            # Images before the blamed one were decoded but not sent; they are read again.
            queue.tasks += [_task(paths, [n], max_pixels) for n in undone if n < blamed]
            if any(n > blamed for n in undone):
                queue.tasks.append(_task(paths, [n for n in undone if n > blamed], max_pixels))
            left.discard(blamed)
            kind = SourceDied if isinstance(event.error, SourceDied) else SourceRefused
            yield blamed, kind(str(paths[blamed]), event.error.reason)


def _task(paths: Sequence[Path], numbers: Sequence[int], max_pixels: int) -> Task:
    args = {
        "numbers": list(numbers),
        "paths": [str(paths[number]) for number in numbers],
        "max_pixels": max_pixels,
    }
    return Task(reader="ingest.sandbox.images:read", source=str(paths[numbers[0]]), args=args)


class _Queue:
    """Tasks to come; unlike a list's iterator it goes on when something is added at the end."""

    def __init__(self) -> None:
        self.tasks: deque[Task] = deque()

    def __iter__(self) -> _Queue:
        return self

    def __next__(self) -> Task:
        if not self.tasks:
            raise StopIteration
        return self.tasks.popleft()


def read(
    source: str, numbers: Sequence[int], paths: Sequence[str], max_pixels: int
) -> Iterator[Piece]:
    """Reader: a bundle of files. `source` only names the bundle."""
    done: list[int] = []
    images: list[RGB] = []
    refused: list[tuple[int, str]] = []
    for number, path in zip(numbers, paths, strict=True):
        yield Piece(note=str(number))
        try:
            image = read_rgb(Path(path), name="the image", max_pixels=max_pixels)
        except ImageError as error:
            refused.append((number, str(error)))
            continue
        except FileNotFoundError:
            refused.append((number, "there is no such file any more"))
            continue
        except OSError:
            refused.append((number, "the file cannot be read; look at its permissions"))
            continue
        if images and sum(i.nbytes for i in images) + image.nbytes > BATCH_BYTES:
            yield Piece(facts={"numbers": done, "refused": refused}, images=images)
            done, images, refused = [], [], []
        done.append(number)
        images.append(image)
    yield Piece(facts={"numbers": done, "refused": refused}, images=images)
