"""A search of cases beside a search of cells, on as many points.

    python benchmarks/case_search.py [--cases 100000] [--cells 2] [--dim 64] [--queries 300]
        [--library FOLDER]

Synthetic cases of a few cells each, drawn around one of 200 centres, one patient for each two
cases. A second collection has one cell for each case, so that both searches walk a graph over as
many points. Each query is asked of both, in turn, and the quantiles of both are printed with their
ratio, of wall time and of processor time: `mean` answers from the vectors of cases alone, `max_sim`
compares mosaics afterwards. A FOLDER is kept, and what is in it already is not made again.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter, process_time

import numpy as np

from encoder.card import EncoderCard
from search.cases.represented import prepare
from search.cases.similar import similar_cases
from search.library.library import Library
from search.library.shards import Entry
from search.query.answer import answer
from search.schemas.cases import CaseQuestion, Distance
from search.schemas.items import Item, item_id
from search.schemas.questions import Question
from search.service import Service
from search.settings import Settings

CENTRES = 200
SHARD = 5000
DISTANCES: tuple[Distance, ...] = ("mean", "composition", "max_sim")


def fill(library: Library, name: str, card: EncoderCard, cases: int, cells: int) -> None:
    """A collection of synthetic cases, ingested, built and represented."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(CENTRES, card.dim))
    with library.create(name, card) as one:
        waiting: list[Entry] = []
        for case in range(cases):
            middle = centres[rng.integers(CENTRES)] + rng.normal(size=card.dim) * 0.3
            for at in range(cells):
                source = f"{case:032x}"
                item = Item(
                    id=item_id(f"made {at}", source),
                    dataset="made",
                    source=source,
                    label=f"L{case % 7}",
                    case=f"C{case:06}",
                    patient=f"P{case // 2:06}",
                )
                vector = (middle + rng.normal(size=card.dim) * 0.5).astype(np.float32)
                waiting.append(Entry(item, vector, b""))
            if len(waiting) >= SHARD or case == cases - 1:
                one.add(waiting)
                waiting = []
        one.build()
        if cells > 1:
            prepare(one)


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, usual in (("cases", 100_000), ("cells", 2), ("dim", 64), ("queries", 300)):
        words.add_argument(f"--{name}", type=int, default=usual)
    words.add_argument("--library", type=Path)
    given = words.parse_args()
    card = EncoderCard(id="made", architecture="made", dim=given.dim)
    with ExitStack() as stack:
        folder = given.library or Path(stack.enter_context(TemporaryDirectory())) / "library"
        settings = Settings(library=folder)
        library = Library.open(settings.library)
        for name, cells in (("cells", 1), ("cases", given.cells)):
            if name not in library.names():
                began = perf_counter()
                fill(library, name, card, given.cases, cells)
                print(f"{name} filled: {perf_counter() - began:.0f} s", flush=True)
        service = Service(library, settings)
        stack.callback(service.close)
        measure(service, given.cases, given.queries)


def measure(service: Service, total: int, queries: int) -> None:
    """Each question of each kind in turn; the first 20 are not counted."""
    cells, cases = service.context("cells"), service.context("cases")

    def similar(at: int, distance: Distance) -> None:
        similar_cases(cases, CaseQuestion(case=f"C{at:06}", k=10, distance=distance, pairs=3))

    asks: dict[str, Callable[[int], object]] = {
        "cells": lambda at: answer(cells, Question(item=item_id("made 0", f"{at:032x}"), k=10)),
        **{one: partial(similar, distance=one) for one in DISTANCES},
    }
    numbers = np.random.default_rng(1).choice(total, queries + 20, replace=False).tolist()
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in asks}
    for at in numbers:
        for name, ask in asks.items():
            wall, busy = perf_counter(), process_time()
            ask(at)
            taken[name].append((1000 * (perf_counter() - wall), 1000 * (process_time() - busy)))
    quantiles = {
        name: np.quantile(times[20:], (0.5, 0.99), axis=0) for name, times in taken.items()
    }
    for name, found in quantiles.items():
        half, most = found / quantiles["cells"]
        for at, kind in enumerate(("wall", "processor")):
            print(
                f"{name}: {kind} time p50 {found[0, at]:.1f} ms ({half[at]:.2f} x), "
                f"p99 {found[1, at]:.1f} ms ({most[at]:.2f} x)"
            )


if __name__ == "__main__":
    main()
