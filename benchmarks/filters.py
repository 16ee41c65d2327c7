"""Filters in a large store: what each costs beside a search without one, and its recall.

    python benchmarks/filters.py --sizes 100000 1000000 --folder STORES

Made-up vectors with the structure of real ones (`search_index.like_cells`), in stores as the
product builds them, asked one question after another in rounds that go through all stores and
filters, so that other work on the machine falls on each alike. Filters leave 0.01 % to 60 % of the
cells: values, sets of values, two fields, ranges of dates and of scales, and all but the query's
own patient. One round before is not counted: what it reads has not been in memory. Times are by
the clock and of the processor; recall is against numpy. `--ways` asks
by the graph, by lists (`search.index.lists`), or by what the product takes at that size, each in
turn; `--no-graph` leaves out the graph of stores that the product answers from lists, since its
build takes by far the longest, `--alone` the engine too: numpy compares the candidates in its
place. Stores stay in the folder, and those that are there are asked again.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from time import perf_counter, process_time

import numpy as np
from numpy.typing import NDArray
from search_index import K, like_cells

from encoder.card import EncoderCard
from search.index.contract import MANY_POINTS, IndexSettings, Stored, Vectors, checked_vectors
from search.index.embedded import EdgeStore
from search.index.lists import Lists
from search.schemas.answers import Hit
from search.schemas.filters import Filter
from search.schemas.items import Item, item_id, source_id

Facts = dict[str, NDArray[np.int64]]
OWN = "all but the own patient"

CHUNK = 20_000
"""Points stored at once."""
PATIENTS, DAYS, SCALES = 5_000, 1_000, 1_000
FIRST = date(2020, 1, 1)


def columns(size: int) -> Facts:
    """What the items say, as numbers; each field independent of the others."""
    rng = np.random.default_rng(2)
    wide = {"label": 10, "site": 5, "patient": PATIENTS, "acquired": DAYS, "um_per_px": SCALES}
    return {name: rng.integers(count, size=size) for name, count in wide.items()}


def items(facts: Facts, first: int, last: int) -> list[Item]:
    """The items of some rows."""
    made = []
    for at in range(first, last):
        source = source_id(str(at).encode())
        made.append(
            Item(
                id=item_id("d", source),
                dataset="d",
                source=source,
                label=f"label {facts['label'][at]}",
                case=f"case {facts['patient'][at]}",
                patient=f"patient {facts['patient'][at]}",
                site=f"site {facts['site'][at]}",
                um_per_px=(1 + int(facts["um_per_px"][at])) / 1000,
                um_per_px_origin="file",
                acquired=FIRST + timedelta(days=int(facts["acquired"][at])),
            )
        )
    return made


def filters(day: int = 300) -> dict[str, Filter | None]:
    """Each with the share that it leaves."""

    def days(count: int) -> dict[str, date]:
        first = FIRST + timedelta(days=day)
        return {"acquired_from": first, "acquired_to": first + timedelta(days=count - 1)}

    labels = tuple(f"label {at}" for at in range(6))
    many = tuple(f"patient {at}" for at in range(0, PATIENTS, 10))
    return {
        "none": None,
        "a patient and five labels, 0.01 %": Filter(patient=("patient 7",), label=labels[:5]),
        "a patient, 0.02 %": Filter(patient=("patient 7",)),
        "a day, 0.1 %": Filter(**days(1)),
        "ten days, 1 %": Filter(**days(10)),
        "label and site, 2 %": Filter(label=labels[:1], site=("site 1",)),
        "a label, 10 %": Filter(label=labels[:1]),
        "500 patients, 10 %": Filter(patient=many),
        "300 days, 30 %": Filter(**days(300)),
        "a range of scales, 30 %": Filter(um_per_px_min=0.3005, um_per_px_max=0.6005),
        "six labels, 60 %": Filter(label=labels),
        "600 days, 60 %": Filter(**days(600)),
    }


def rows_that_meet(facts: Facts, where: Filter | None) -> NDArray[np.int64]:
    """By the numbers that the items were made from; `search.index.columns` is what is tested."""
    met = np.ones(len(facts["label"]), np.bool_)
    if where is not None:
        for name, values in where.words.items():
            met &= np.isin(facts[name], [int(value.split()[1]) for value in values])
        for name, (low, high) in where.ranges.items():
            first = (FIRST - date(1970, 1, 1)).days
            number = facts[name] + first if name == "acquired" else (1 + facts[name]) / 1000
            met &= (number >= low) & (number <= high)
    return np.flatnonzero(met)


class Alone:
    """Lists without a store: numpy compares the candidates."""

    def __init__(self, folder: Path, rows: Vectors) -> None:
        self._rows, facts = rows, columns(len(rows))
        self._lists = Lists.open(folder, len(rows))
        if self._lists is None:
            folder.mkdir(exist_ok=True)
            began = process_time()
            stored = (
                Stored(item, np.asarray(rows[at]))
                for first in range(0, len(rows), CHUNK)
                for at, item in enumerate(items(facts, first, min(first + CHUNK, len(rows))), first)
            )
            self._lists = Lists.make(folder, stored, rows.shape[1])
            self._lists.take_place()
            print(f"lists: {process_time() - began:.0f} s of the processor, items too", flush=True)
        self.places: dict[str, int] = {}

    def nearest(
        self, query: Vectors, k: int, where: Filter | None, exclude: Filter | None = None
    ) -> list[Hit]:
        assert self._lists is not None
        ids = self._lists.candidates(query, k, where, exclude).ids
        at = np.array([self.places[id] for id in ids], np.int64)
        scores = self._rows[at] @ query
        return [
            Hit(item=Item(id=ids[one], dataset="d", source="s"), score=float(scores[one]))
            for one in np.argsort(-scores)[:k]
        ]

    def close(self) -> None:
        assert self._lists is not None
        self._lists.close()


@dataclass
class Asked:
    """A store, its questions, and what exact comparison answers."""

    store: EdgeStore | Alone
    facts: Facts
    queries: Vectors
    owners: NDArray[np.int64]
    """Patient of each query, or none: shut out under "all but the own patient"."""
    places: dict[str, int]
    truth: dict[str, list[set[int]]]

    @classmethod
    def of(cls, store: EdgeStore | Alone, rows: Vectors, count: int) -> Asked:
        facts = columns(len(rows))
        rng = np.random.default_rng(1)
        picked = np.sort(rng.choice(len(rows), count, replace=False))
        noise = rng.standard_normal((count, rows.shape[1])) * 0.3 / np.sqrt(rows.shape[1])
        queries = checked_vectors(np.asarray(rows[picked]) + noise, rows.shape[1])
        owners = facts["patient"][picked]
        scores = np.empty((count, len(rows)), np.float32)
        for at in range(0, len(rows), CHUNK):
            scores[:, at : at + CHUNK] = queries @ np.asarray(rows[at : at + CHUNK]).T
        truth = {name: best(scores, rows_that_meet(facts, f)) for name, f in filters().items()}
        for score, owner in zip(scores, owners, strict=True):
            score[facts["patient"] == owner] = -2
        truth[OWN] = best(scores, np.arange(len(rows)))
        places = {item_id("d", source_id(str(at).encode())): at for at in range(len(rows))}
        return cls(store, facts, queries, owners, places, truth)

    def ask(self, name: str) -> tuple[list[tuple[float, float]], float]:
        """Milliseconds of each question (clock, processor), and the recall."""
        where, spent, right, wanted = filters().get(name), [], 0, 0
        for query, owner, true in zip(self.queries, self.owners, self.truth[name], strict=True):
            own = Filter(patient=(f"patient {owner}",)) if name == OWN else None
            began, busy = perf_counter(), process_time()
            hits = self.store.nearest(query, K, where, own)
            spent.append((1000 * (perf_counter() - began), 1000 * (process_time() - busy)))
            right += len({self.places[hit.item.id] for hit in hits} & true)
            wanted += len(true)
        return spent, right / max(1, wanted)


def best(scores: NDArray[np.float32], met: NDArray[np.int64]) -> list[set[int]]:
    """The rows of the `K` highest scores among some rows, for each query."""
    some = scores[:, met]
    if len(met) <= K:
        return [set(met.tolist())] * len(scores)
    return [set(met[np.argpartition(-one, K)[:K]].tolist()) for one in some]


def made(folder: Path, rows: Vectors, settings: IndexSettings, graph: bool) -> EdgeStore:
    """The store in a folder; where it is not there, built. Lists for every size."""
    card = EncoderCard(id="random-vectors", architecture="none", dim=rows.shape[1])
    if (folder / "index.json").exists():
        store = EdgeStore.open(folder, "cells", card)
    else:
        store = EdgeStore.create(folder, "cells", card, settings)
    facts, size = columns(len(rows)), len(rows)
    for at in range(store.count() // CHUNK * CHUNK, size, CHUNK):
        last = min(at + CHUNK, size)
        store.upsert(items(facts, at, last), np.asarray(rows[at:last]))
    if graph:
        print(f"{folder.name}: {store.build()}", flush=True)
    if store._lists is None:
        began, busy = perf_counter(), process_time()
        store._make_lists(size)
        spent = f"{perf_counter() - began:.0f} s, {process_time() - busy:.0f} s of the processor"
        print(f"{folder.name}: lists made in {spent}", flush=True)
    return store


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[100_000])
    parser.add_argument("--dim", type=int, default=256)
    parser.add_argument("--queries", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--ways", nargs="+", default=["graph", "lists"],
                        choices=["graph", "lists", "product"])  # fmt: skip
    parser.add_argument("--visit", type=int, default=0, help="lists of a thousand [as built]")
    parser.add_argument("--no-graph", action="store_true")
    parser.add_argument("--alone", action="store_true")
    parser.add_argument("--folder", type=Path, required=True)
    given = parser.parse_args()
    table: dict[tuple[int, str, str], list[tuple[float, float]]] = defaultdict(list)
    recall: dict[tuple[int, str, str], float] = {}
    stores = {size: store_of(given, size) for size in given.sizes}
    for counted in [False, *[True] * given.rounds]:
        for size, asked in stores.items():
            lists = asked.store._lists
            for way in given.ways:
                from_lists = way == "lists" or (way == "product" and size >= MANY_POINTS)
                if not from_lists and (given.alone or not graph_of(given, size)):
                    continue
                asked.store._lists = lists if from_lists else None
                for name in asked.truth:
                    asked.store.nearest(asked.queries[0], K, filters().get(name))
                    spent, recall[size, way, name] = asked.ask(name)
                    if counted:
                        table[size, way, name] += spent
            asked.store._lists = lists
    print("each cell: p50 / p99 ms of the clock; p50 / p99 of the processor; recall@10\n")
    for (size, way, name), spent in table.items():
        (p50, busy50), (p99, busy99) = np.percentile(spent, [50, 99], axis=0)
        ratio = busy50 / np.percentile(table[size, way, "none"], 50, axis=0)[1]
        print(
            f"| {size:,} | {way} | {name} | {p50:.2f} / {p99:.2f} | {busy50:.2f} / {busy99:.2f} "
            f"| {ratio:.1f} | {recall[size, way, name]:.4f} |"
        )
    for asked in stores.values():
        asked.store.close()


def graph_of(given: argparse.Namespace, size: int) -> bool:
    """Whether the store has a graph."""
    return not given.no_graph or size < MANY_POINTS


def store_of(given: argparse.Namespace, size: int) -> Asked:
    given.folder.mkdir(parents=True, exist_ok=True)
    kept = given.folder / f"rows-{size}.npy"
    if not kept.exists():
        np.save(kept, like_cells(size, given.dim))
    rows = np.load(kept, mmap_mode="r")
    settings = IndexSettings().for_points(size)
    store: EdgeStore | Alone
    if given.alone:
        store = Alone(given.folder / f"{size}-alone", rows)
    else:
        store = made(given.folder / f"{size}", rows, settings, graph_of(given, size))
    if given.visit and store._lists is not None:
        store._lists.visit = given.visit
    asked = Asked.of(store, rows, given.queries)
    if isinstance(store, Alone):
        store.places = asked.places
    return asked


if __name__ == "__main__":
    main()
