"""What `/v1/search` adds to the store's own time: by item id, real HTTP, one run.

    uv run --extra all python benchmarks/service_overhead.py [POINTS]

The service runs in a process of its own. The store's own time is what the service measures
around its call of the store (`seconds.search` in the answer); what is added is the rest of the
same call as its client sees it: HTTP, JSON both ways, the item's own lookup, exclusion, checks.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np

from encoder.card import EncoderCard
from search.library import Library
from search.records import Filter, Item, Question, item_id
from search.settings import Settings
from search.shards import Entry, make_shard_bytes
from ui.demo import free_port, running

DIM = 384
ASKED = 400
K = 10


def make_library(folder: Path, points: int) -> list[str]:
    """A collection of Gaussian clusters, with five sites and a patient for every 20 items."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(200, DIM))
    card = EncoderCard(id="made-up", architecture="made-up-v1", dim=DIM)
    ids = []
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
                vector = centres[n % 200] + rng.normal(size=DIM)
                entries.append(Entry(item, vector.astype(np.float32), b"-"))
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
        rng = np.random.default_rng(1)
        rows = []
        with running(settings) as client:
            for name, where in (
                ("no filter", Filter()),
                ("one site of five", Filter(site=("site 1",))),
            ):
                whole, store = [], []
                for id in rng.choice(ids, ASKED):
                    question = Question(item=str(id), k=K, where=where)
                    began = time.perf_counter()
                    answer = client.search(question)
                    whole.append(1000 * (time.perf_counter() - began))
                    store.append(1000 * answer.seconds["search"])
                added = [a - b for a, b in zip(whole[20:], store[20:], strict=True)]
                rows.append((name, median(store[20:]), median(whole[20:]), median(added)))
    print(
        "| `/v1/search` by id, k = 10 | store, ms | whole call, ms | added, ms (medians) |"
    )
    print("|---|---|---|---|")
    for name, own, called, extra in rows:
        print(f"| {name} | {own:.2f} | {called:.2f} | **{extra:.2f}** |")


if __name__ == "__main__":
    main()
