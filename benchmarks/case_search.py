"""A search of cases beside a search of cells, on as many points.

    python benchmarks/case_search.py [--cases 100000] [--cells 2] [--dim 64] [--queries 300]

Synthetic cases of a few cells each, drawn around one of 200 centres, one patient for each two
cases. A second collection has one cell for each case, so that both searches walk a graph over as
many points. Each query is asked of both, in turn, and the quantiles of both are printed with their
ratio: `mean` answers from the vectors of cases alone, `max_sim` compares mosaics afterwards.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

import numpy as np

from encoder.card import EncoderCard
from search.cases.represented import prepare
from search.cases.similar import similar_cases
from search.library.library import Library
from search.library.shards import Entry
from search.query.answer import answer
from search.schemas.cases import CaseQuestion
from search.schemas.items import Item, item_id
from search.schemas.questions import Question
from search.service import Service
from search.settings import Settings

CENTRES = 200
SHARD = 5000


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
        prepare(one)


def timed(ask: object, queries: list[str]) -> np.ndarray:
    """Milliseconds of each question."""
    found = []
    for query in queries:
        began = perf_counter()
        ask(query)  # type: ignore[operator]
        found.append(1000 * (perf_counter() - began))
    return np.array(found)


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, usual in (("cases", 100_000), ("cells", 2), ("dim", 64), ("queries", 300)):
        words.add_argument(f"--{name}", type=int, default=usual)
    given = words.parse_args()
    card = EncoderCard(id="made", architecture="made", dim=given.dim)
    with TemporaryDirectory() as folder:
        settings = Settings(library=Path(folder) / "library")
        library = Library.open(settings.library)
        began = perf_counter()
        fill(library, "cells", card, given.cases, 1)
        print(f"as many cells: {perf_counter() - began:.0f} s", flush=True)
        began = perf_counter()
        fill(library, "cases", card, given.cases, given.cells)
        print(f"cases of {given.cells} cells: {perf_counter() - began:.0f} s", flush=True)
        service = Service(library, settings)
        cells, cases = service.context("cells"), service.context("cases")
        chosen = np.random.default_rng(1).choice(given.cases, given.queries, replace=False)
        numbers = [int(at) for at in chosen]
        asks = {
            "cells": lambda at: answer(cells, Question(item=item_id("made 0", f"{at:032x}"), k=10)),
            "mean": lambda at: similar_cases(
                cases, CaseQuestion(case=f"C{at:06}", k=10, distance="mean", pairs=3)
            ),
            "max_sim": lambda at: similar_cases(
                cases, CaseQuestion(case=f"C{at:06}", k=10, distance="max_sim", pairs=3)
            ),
        }
        taken: dict[str, list[float]] = {name: [] for name in asks}
        for round_, at in enumerate([*numbers[:20], *numbers]):
            for name, ask in asks.items():
                [ms] = timed(ask, [at])  # type: ignore[list-item]
                if round_ >= 20:
                    taken[name].append(ms)
        usual = np.quantile(taken["cells"], 0.99)
        for name, times in taken.items():
            half, most = np.quantile(times, (0.5, 0.99))
            print(f"{name}: p50 {half:.1f} ms, p99 {most:.1f} ms, p99 {most / usual:.2f} x")
        service.close()


if __name__ == "__main__":
    main()
