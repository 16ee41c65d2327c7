"""Where the time of an ingest goes beside its encoder: processor time of each step, per image.

The pictures are those of `ingest_throughput.py`; the encoder gives one vector at once for each, so
that what is left is reading and storing. The total is measured without the clocks of the steps. A
step does not count what it calls of another step; what no step has is Python between them, the
clocks, and threads of the engine.

    python benchmarks/ingest_parts.py [--images 1024] [--rounds 8]
"""

from __future__ import annotations

import argparse
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import wraps
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import numpy as np
from ingest_throughput import BATCH, files, whole
from numpy.typing import NDArray

from encoder.contract import RGB, Encoder
from encoder.registry import load

STEPS = {
    "read the file": "ingest.sources.source.Source.content.func",
    "its SHA-256": "ingest.sources.source.Source.id.func",
    "its header": "ingest.sources.source.frame_of",
    "the record of the item": "ingest.sources.source.make_item",
    "decode": "ingest.sources.source.decode",
    "thumbnail": "ingest.pipeline.reading.make_thumbnail",
    "what the ledger keeps": "ingest.pipeline.states.States.of",
    "decode the thumbnail for its hash": "search.neighbours.duplicates.plain_jpeg",
    "shrink it": "search.neighbours.duplicates.shrunk",
    "its hash": "search.neighbours.duplicates._some_hashes",
    "write the shard": "search.library.collection.make_shard_bytes",
    "make it durable": "search.library.collection.write_durably",
    "read its items again": "search.library.shards.Shard.items",
    "into the engine": "search.index.embedded.EdgeStore.upsert",
    "the engine made durable": "search.index.embedded.EdgeStore.flush",
    "into the catalogue": "search.library.catalogue.Catalogue.put",
    "look for items no longer given": "ingest.pipeline.replacing.Replacing.remove",
}
"""Each step, and the function whose time it is."""


@dataclass
class Clocks:
    """Processor seconds of each step, over all threads."""

    spent: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    _own: threading.local = field(default_factory=threading.local)
    _turn: threading.Lock = field(default_factory=threading.Lock)

    def clocked(self, step: str, inner: Callable[..., Any]) -> Callable[..., Any]:
        """The function, with its time noted; what it calls of other steps is theirs."""

        @wraps(inner)
        def outer(*args: Any, **named: Any) -> Any:
            stack: list[float] = self._own.__dict__.setdefault("stack", [])
            stack.append(0.0)
            began = time.thread_time()
            try:
                return inner(*args, **named)
            finally:
                took, others = time.thread_time() - began, stack.pop()
                if stack:
                    stack[-1] += took
                with self._turn:
                    self.spent[step] += took - others

        return outer


class AtOnce:
    """A network that costs nothing."""

    batch_size = BATCH

    def __init__(self, dim: int) -> None:
        self._row = np.random.default_rng(0).normal(size=(1, dim))

    def vectors(self, images: Sequence[RGB]) -> NDArray[np.floating]:
        """The same row for each image."""
        return np.repeat(self._row, len(images), axis=0)


def found(path: str) -> Any:
    """What a dotted path leads to."""
    parts = path.split(".")
    at = next(n for n in range(len(parts), 0, -1) if _is_module(parts[:n]))
    there: Any = __import__(".".join(parts[:at]), fromlist=["_"])
    for name in parts[at:]:
        there = vars(there)[name] if isinstance(there, type) else getattr(there, name)
    return there


def _is_module(parts: Sequence[str]) -> bool:
    root = Path(__file__).parent.parent.joinpath(*parts)
    return root.is_dir() or root.with_suffix(".py").is_file()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=8)
    asked = parser.parse_args()
    card = load("hemaseek-s", device="cpu").card
    encoder = Encoder(card, AtOnce(card.dim))
    with TemporaryDirectory() as folder:
        paths = files(Path(folder), asked.images)
        micro = 1e6 / len(paths)
        whole(encoder, paths)  # imports
        totals = [whole(encoder, paths).cpu * micro for _ in range(asked.rounds)]
        clocks = Clocks()
        with ExitStack() as stack:
            for step, path in STEPS.items():
                inner = found(path)
                owner, name = path.rsplit(".", 1)
                stack.enter_context(patch.object(found(owner), name, clocks.clocked(step, inner)))
            for _ in range(asked.rounds):
                whole(encoder, paths)
    parts = {step: seconds * micro / asked.rounds for step, seconds in clocks.spent.items()}
    print(f"{len(paths)} images, {asked.rounds} rounds\n\n| step | us an image |\n|---|---|")
    for step in STEPS:
        print(f"| {step} | {parts.get(step, 0):.0f} |")
    rest = median(totals) - sum(parts.values())
    print(f"| the rest | {rest:.0f} |")
    print(f"| **all** | **{median(totals):.0f}** (least {min(totals):.0f}) |")


if __name__ == "__main__":
    main()
