"""Switches of a collection's version under load: errors, and answers that mix two encoders.

    python benchmarks/switch_under_load.py --switches 100 --rate 50 --points 20000

A real service in a process of its own answers over HTTP while another process, this one, turns
the pointer back and forth between two versions of one library. Every answer names a
fingerprint; the score of every hit is computed again from the vectors of that version, and no
other version would give it. Queries go by stored item, some with filters, some exact.
"""

from __future__ import annotations

import argparse
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np

from encoder.card import EncoderCard
from search.library.collection import Collection
from search.library.library import Library
from search.library.shards import Entry, make_shard_bytes
from search.library.versions import Versions
from search.maintenance.rollback import rollback
from search.schemas.items import Item, item_id
from search.settings import Settings
from ui.cli.demo import free_port, running

DIM = 384
K = 10
SAME = 2e-5
"""Cosines in float32 over one vector differ by less."""


def fill(collection: Collection, points: int, seed: int) -> np.ndarray:
    """Gaussian clusters, other ones for every seed, under the same ids; n x dim in order."""
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(200, DIM))[np.arange(points) % 200] + rng.normal(size=(points, DIM))
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    for at in range(0, points, 2000):
        part = [Entry(item(n), rows[n], b"", None) for n in range(at, min(at + 2000, points))]
        collection.add_shard(make_shard_bytes(part, collection.card))
    collection.build()
    return rows


def item(n: int) -> Item:
    source = f"{n:032x}"
    return Item(
        id=item_id("made-up", source),
        dataset="made-up",
        source=source,
        label=f"class {n % 11}",
        patient=f"P{n // 20}",
        site=f"site {n % 5}",
    )


def make_library(folder: Path, points: int) -> dict[str, np.ndarray]:
    """A collection of two versions; the vectors of each, by fingerprint."""
    library = Library.open(folder)
    cards = [EncoderCard(id=f"made-{x}", architecture=f"made-{x}", dim=DIM) for x in "ab"]
    vectors = {}
    with library.create("cells", cards[0]) as cells:
        vectors[cards[0].fingerprint] = fill(cells, points, 0)
    versions: Versions = library.versions("cells")
    made = versions.begin(cards[1], cards[1].id, state="ready", parent="1")
    with library.version("cells", made.id) as cells:
        vectors[cards[1].fingerprint] = fill(cells, points, 1)
    with versions.writing():
        versions.point(made.id, "switch")
    return vectors


class Load:
    """Questions at a steady rate, and what was wrong with the answers."""

    def __init__(self, url: str, points: int, vectors: dict[str, np.ndarray]) -> None:
        self.client = httpx.Client(
            base_url=url, timeout=60, limits=httpx.Limits(max_connections=64)
        )
        self.ids = [item(n).id for n in range(points)]
        self.at = {id: n for n, id in enumerate(self.ids)}
        self.vectors = vectors
        self.lock = threading.Lock()
        self.answered = self.changed = 0
        self.errors: list[str] = []
        self.mixed: list[str] = []
        self.seconds: list[float] = []
        self.by: dict[str, int] = dict.fromkeys(vectors, 0)
        self.last = ""

    def ask(self, seed: int) -> None:
        """One question, and everything that can be checked about its answer."""
        rng = np.random.default_rng(seed)
        id = self.ids[rng.integers(len(self.ids))]
        question: dict[str, object] = {"item": id, "k": K, "exact": bool(rng.random() < 0.1)}
        if rng.random() < 0.3:
            question["where"] = {"site": [f"site {rng.integers(5)}"]}
        began = time.perf_counter()
        try:
            answer = self.client.post("/v1/search", json=question)
        except httpx.HTTPError as error:
            with self.lock:
                self.errors.append(repr(error))
            return
        spent = time.perf_counter() - began
        with self.lock:
            self.answered += 1
            self.seconds.append(spent)
            if answer.status_code != 200:
                self.errors.append(f"{answer.status_code}: {answer.text[:200]}")
                return
            self.check(id, answer.json())

    def check(self, id: str, body: dict) -> None:
        fingerprint = body["fingerprint"]
        self.by[fingerprint] += 1
        self.changed += fingerprint != self.last
        self.last = fingerprint
        rows = self.vectors[fingerprint]
        if len(body["hits"]) != K:
            self.errors.append(f"{len(body['hits'])} hits")
        for hit in body["hits"]:
            true = float(rows[self.at[hit["item"]["id"]]] @ rows[self.at[id]])
            if abs(true - hit["score"]) > SAME:
                self.mixed.append(f"{fingerprint}: {hit['score']} is not {true}")
                return


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--switches", type=int, default=100)
    parser.add_argument("--rate", type=float, default=50, help="questions a second")
    parser.add_argument("--points", type=int, default=20_000)
    parser.add_argument("--every", type=float, default=1.0, help="seconds between two switches")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        settings = Settings(library=Path(scratch) / "library", port=free_port(), rate_limit="")
        vectors = make_library(settings.library, asked.points)
        library = Library.open(settings.library)
        with running(settings) as client:
            load = Load(settings.url, asked.points, vectors)
            stop = threading.Event()

            def steady() -> None:
                with ThreadPoolExecutor(32) as pool:
                    began, n = time.perf_counter(), 0
                    while not stop.is_set():
                        pool.submit(load.ask, n)
                        n += 1
                        time.sleep(max(0.0, began + n / asked.rate - time.perf_counter()))

            thread = threading.Thread(target=steady)
            began = time.perf_counter()
            thread.start()
            turns, waits = 0, []
            for _ in range(asked.switches):
                at = time.perf_counter()
                served = library.versions("cells").get(rollback(library, "cells").served)
                turns += 1
                wanted = served.card.fingerprint
                while client.collections()[0].fingerprint != wanted:
                    time.sleep(0.02)
                waits.append(time.perf_counter() - at)
                time.sleep(max(0.0, at + asked.every - time.perf_counter()))
            stop.set()
            thread.join()
            whole = time.perf_counter() - began
    show(asked, load, turns, waits, whole)


def show(
    asked: argparse.Namespace, load: Load, turns: int, waits: list[float], whole: float
) -> None:
    p50, p99 = np.percentile(load.seconds, [50, 99]) * 1000
    print(f"{asked.points:,} x {DIM} in each of two versions, {whole:.0f} s\n")
    print(
        "| switches | seen by the service after, median / most | answers | rate | errors | mixed "
        "| by version | p50 / p99 ms |"
    )
    print("|---|---|---|---|---|---|---|---|")
    print(
        f"| {turns} | {np.median(waits):.2f} / {max(waits):.2f} s | {load.answered:,} "
        f"| {load.answered / whole:.0f}/s | {len(load.errors)} | {len(load.mixed)} "
        f"| {' + '.join(f'{n:,}' for n in load.by.values())} | {p50:.1f} / {p99:.1f} |"
    )
    for trouble in (load.errors + load.mixed)[:5]:
        print(f"\n{trouble}")
    if load.errors or load.mixed or min(load.by.values()) == 0:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
