"""Vector search: the embedded store beside exact numpy and FAISS flat, in one run.

    python benchmarks/search_index.py --size 100000 --dim 384 --queries 200

Gaussian clusters, cosine, k = 10; filters that leave 10 % and 1 % of the points. Recall is
against exact numpy. Engine times are single queries in turn, answers with their items.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from time import perf_counter

import numpy as np

from encoder.card import EncoderCard
from search.edge import EdgeStore
from search.records import Filter, Item, item_id, source_id
from search.store import IndexSettings, Vectors, checked_vectors

K = 10
FILTERS = {"all": None, "10 %": Filter(label=("label 0",)), "1 %": Filter(case=("case 0",))}


def make(size: int, dim: int, clusters: int = 200) -> tuple[list[Item], Vectors]:
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((clusters, dim))
    rows = centres[rng.integers(clusters, size=size)] + rng.standard_normal((size, dim))
    items = []
    for at in range(size):
        source = source_id(str(at).encode())
        items.append(
            Item(
                id=item_id("d", source),
                dataset="d",
                source=source,
                label=f"label {at % 10}",
                case=f"case {at % 100}",
                patient=f"patient {at % 30}",
            )
        )
    return items, checked_vectors(rows, dim)


def times(ask: Callable[[Vectors], list[str]], queries: Vectors) -> tuple[list[float], list]:
    ask(queries[0])
    spent, found = [], []
    for query in queries:
        began = perf_counter()
        found.append(ask(query))
        spent.append(1000 * (perf_counter() - began))
    return spent, found


def cell(spent: list[float], found: list[list[str]], truth: list[list[str]]) -> str:
    recall = np.mean([len(set(a) & set(b)) / len(b) for a, b in zip(found, truth, strict=True)])
    return f"{np.percentile(spent, 50):.2f} / {np.percentile(spent, 99):.2f}, {recall:.4f}"


def exact_numpy(ids: list[str], rows: Vectors) -> Callable[[Vectors], list[str]]:
    def ask(query: Vectors) -> list[str]:
        scores = rows @ query
        top = np.argpartition(-scores, K)[:K] if len(scores) > K else np.arange(len(scores))
        return [ids[at] for at in top[np.argsort(-scores[top])]]

    return ask


def faiss_flat(ids: list[str], rows: Vectors, kept: np.ndarray) -> Callable[[Vectors], list[str]]:
    import faiss

    faiss.omp_set_num_threads(1)
    index = faiss.IndexFlatIP(rows.shape[1])
    index.add(rows)
    chosen = faiss.SearchParameters(sel=faiss.IDSelectorBatch(kept))
    params = None if len(kept) == len(rows) else chosen

    def ask(query: Vectors) -> list[str]:
        _, found = index.search(query[None], K, params=params)
        return [ids[at] for at in found[0]]

    return ask


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=100_000)
    parser.add_argument("--dim", type=int, default=384)
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--m", type=int, default=IndexSettings.m)
    parser.add_argument("--ef-construct", type=int, default=IndexSettings.ef_construct)
    parser.add_argument("--ef", type=int, default=IndexSettings.ef)
    parser.add_argument("--folder", type=Path, default=None, help="where the store is made")
    asked = parser.parse_args()

    items, rows = make(asked.size, asked.dim)
    ids = [item.id for item in items]
    rng = np.random.default_rng(1)
    picked = rows[rng.choice(asked.size, asked.queries, replace=False)]
    noise = rng.standard_normal(picked.shape) * 0.3 / np.sqrt(asked.dim)
    queries = checked_vectors(picked + noise, asked.dim)
    kept = {
        name: np.array([at for at, item in enumerate(items) if where is None or where.meets(item)])
        for name, where in FILTERS.items()
    }
    folder = Path(tempfile.mkdtemp(dir=asked.folder)) / "cells"
    card = EncoderCard(id="random-vectors", architecture="none", dim=asked.dim)
    settings = IndexSettings(m=asked.m, ef_construct=asked.ef_construct, ef=asked.ef)
    store = EdgeStore.create(folder, "cells", card, settings)
    began = perf_counter()
    store.upsert(items, rows)
    stored = perf_counter() - began
    began = perf_counter()
    report = store.build()
    built = perf_counter() - began

    table: dict[str, list[str]] = {"numpy exact": [], "FAISS flat": [], "edge": []}
    for name, where in FILTERS.items():
        some, subset = [ids[at] for at in kept[name]], np.ascontiguousarray(rows[kept[name]])
        spent, truth = times(exact_numpy(some, subset), queries)
        table["numpy exact"].append(cell(spent, truth, truth))
        table["FAISS flat"].append(cell(*times(faiss_flat(ids, rows, kept[name]), queries), truth))

        def ask(query: Vectors, where: Filter | None = where) -> list[str]:
            return [hit.item.id for hit in store.nearest(query, K, where)]

        table["edge"].append(cell(*times(ask, queries), truth))
    began = perf_counter()
    store.close()
    store = EdgeStore.open(folder, "cells", card)
    reopened = perf_counter() - began
    store.close()
    disk = sum(path.stat().st_blocks * 512 for path in folder.rglob("*") if path.is_file())
    shutil.rmtree(folder.parent)

    print(f"{asked.size:,} x {asked.dim}, {asked.queries} queries, k = {K}; ")
    print("each cell: p50 / p99 in ms, recall@10; numpy has the rows of each filter set aside\n")
    print("| engine | " + " | ".join(FILTERS) + " |")
    print("|---|" + "---|" * len(FILTERS))
    for name, cells in table.items():
        print(f"| {name} | " + " | ".join(cells) + " |")
    print(
        f"\nedge (m {asked.m}, ef_construct {asked.ef_construct}, ef {report.ef}): "
        f"upsert {asked.size / stored:,.0f} points/s, build with its check {built:.0f} s, "
        f"close and reopen {reopened:.1f} s, {disk / 1e6:,.0f} MB on disk; the check itself "
        f"found recall {report.recall:.4f} and {report.filtered_recall:.4f} under filters"
    )


if __name__ == "__main__":
    main()
