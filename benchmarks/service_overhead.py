"""What `/v1/search` adds to the store's own time: by item id, real HTTP, one run.

    uv run --extra all python benchmarks/service_overhead.py [POINTS]

The service runs in a process of its own and is asked over HTTP. Then the same index is opened
here, and the store alone is asked for the same neighbours under the same conditions; what is
added is the difference of the medians: HTTP, JSON both ways, the item's own look-up, exclusion
of its kin and of near-duplicates, checks.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
from search_index import like_cells

from encoder.card import EncoderCard
from search.library.collection import Collection
from search.library.library import Library
from search.library.shards import Entry, make_shard_bytes, make_thumbnail
from search.schemas.filters import Filter
from search.schemas.items import Item, item_id
from search.schemas.questions import Question
from search.settings import Settings
from ui.cli.demo import free_port, running

DIM = 384
ASKED = 400
K = 10
WARM = 20


def make_library(folder: Path, points: int) -> list[str]:
    """A collection of made-up cells, with five sites and a patient for every 20 items."""
    rng = np.random.default_rng(0)
    vectors = like_cells(points, DIM)
    card = EncoderCard(id="made-up", architecture="made-up-v1", dim=DIM)
    ids = []
    pictures = [make_thumbnail(rng.integers(0, 256, (96, 96, 3), np.uint8)) for _ in range(64)]
    with Library.open(folder).create("cells", card) as cells:
        for at in range(0, points, 2000):
            entries = []
            for n in range(at, min(at + 2000, points)):
                source = f"{n:032x}"
                item = Item(
                    id=item_id("made-up", source),
                    dataset="made-up",
                    source=source,
                    label=f"class {n % 11}",
                    patient=f"P{n // 20}",
                    case=f"C{n // 20}",
                    site=f"site {n % 5}",
                )
                entries.append(Entry(item, vectors[n], pictures[n % 64]))
                ids.append(item.id)
            cells.add_shard(make_shard_bytes(entries, card))
        cells.build()
    return ids


def main() -> None:
    points = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    with tempfile.TemporaryDirectory() as scratch:
        started = time.perf_counter()
        settings = Settings(library=Path(scratch) / "library", port=free_port())
        ids = make_library(settings.library, points)
        print(f"{points:,} x {DIM} ready in {time.perf_counter() - started:.0f} s\n")
        chosen = [str(id) for id in np.random.default_rng(1).choice(ids, ASKED)]
        conditions = {"no filter": Filter(), "one site of five": Filter(site=("site 1",))}
        with running(settings) as client:
            whole = {
                name: [timed(client.search, Question(item=id, k=K, where=where)) for id in chosen]
                for name, where in conditions.items()
            }
        with Library.open(settings.library).collection("cells") as cells:
            store = {
                name: [alone(cells, id, where) for id in chosen]
                for name, where in conditions.items()
            }
    print("| `/v1/search` by id, k = 10 | store, ms | whole call, ms | added, ms (medians) |")
    print("|---|---|---|---|")
    for name in conditions:
        own, called = median(store[name][WARM:]), median(whole[name][WARM:])
        print(f"| {name} | {own:.2f} | {called:.2f} | **{called - own:.2f}** |")


def timed(call: Callable[[Question], object], question: Question) -> float:
    """Milliseconds that a call takes."""
    began = time.perf_counter()
    call(question)
    return 1000 * (time.perf_counter() - began)


def alone(cells: Collection, id: str, where: Filter) -> float:
    """Milliseconds of the store's own search for what the service was asked."""
    (stored,) = cells.store.get([id])
    kin = Filter(
        ids=(id,),
        source=(stored.item.source,),
        case=(str(stored.item.case),),
        patient=(str(stored.item.patient),),
    )
    began = time.perf_counter()
    cells.store.nearest(stored.vector, K, None if where.empty else where, kin)
    return 1000 * (time.perf_counter() - began)


if __name__ == "__main__":
    main()
