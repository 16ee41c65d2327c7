"""Vector search: the embedded store beside exact numpy and FAISS flat, in one run.

    python benchmarks/search_index.py --size 100000 --dim 384 --queries 200

Made-up vectors with the structure of real ones (`like_cells`), cosine, k = 10; filters that
leave 10 % and 1 % of the points, a set of 500 patients (10 %), and two fields together (2 %).
Recall is against exact numpy. Engine times are single queries in turn, answers with their
items. `--keep FOLDER` keeps the store, and asks the one that is there.
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
from search.index.contract import IndexSettings, Vectors, checked_vectors
from search.index.embedded import EdgeStore
from search.schemas.filters import Filter
from search.schemas.items import Item, item_id, source_id

K = 10
PATIENTS = 5000
FILTERS = {
    "all": None,
    "10 %": Filter(label=("label 0",)),
    "1 %": Filter(case=("case 0",)),
    "500 patients, 10 %": Filter(patient=tuple(f"patient {at}" for at in range(0, PATIENTS, 10))),
    "two fields, 2 %": Filter(label=("label 0",), site=("site 1",)),
}


def like_cells(size: int, dim: int, clusters: int = 200, seed: int = 0) -> Vectors:
    """Vectors with the structure of real embeddings of cells; size x dim, rows of length 1.

    Gaussian clusters whose axes have variances falling as i^-1.3, their centres half as wide.
    At 4,000 x 384 that gives a cosine of 0.20 within a cluster, 0.00 between and 0.61 to the
    ten nearest; two learned and one measured encoder give 4,000 cells of PBC 0.15 to 0.23,
    -0.01 to -0.03 and 0.60 to 0.65. Its local dimension (maximum likelihood, 20 neighbours:
    Levina and Bickel 2004) is about 25, theirs are 9 to 16: it is the harder one to search.
    With equal variances (384 dimensions everywhere) all neighbours are equally far, and
    which of them are found says nothing about real ones.
    """
    rng = np.random.default_rng(seed)
    scale = (np.arange(1, dim + 1) ** -0.65).astype(np.float32)
    centres = rng.standard_normal((clusters, dim), np.float32) * scale * np.float32(0.5)
    rows = rng.standard_normal((size, dim), np.float32)
    of = rng.integers(clusters, size=size)
    for at in range(0, size, 10_000):  # a million rows in double precision are 3 GB
        part = slice(at, at + 10_000)
        rows[part] = checked_vectors(rows[part] * scale + centres[of[part]], dim)
    return rows


def make(size: int, dim: int) -> tuple[list[Item], Vectors]:
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
                patient=f"patient {at // 7 % PATIENTS}",
                site=f"site {at // 11 % 5}",
            )
        )
    return items, like_cells(size, dim)


def resident() -> dict[str, int]:
    """Bytes of this process in memory, by kind."""
    lines = Path("/proc/self/status").read_text().splitlines()
    facts = dict(line.split(":", 1) for line in lines if ":" in line)
    return {kind: int(facts[f"Rss{kind}"].split()[0]) * 1024 for kind in ("Anon", "File")}


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
    parser.add_argument("--int8", action="store_true", help="quantised, with rescore")
    parser.add_argument("--folder", type=Path, default=None, help="where the store is made")
    parser.add_argument("--keep", type=Path, default=None, help="keep the store here")
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
    scratch = None if asked.keep else Path(tempfile.mkdtemp(dir=asked.folder))
    folder = asked.keep or Path(str(scratch)) / "cells"
    card = EncoderCard(id="random-vectors", architecture="none", dim=asked.dim)
    settings = IndexSettings(
        m=asked.m,
        ef_construct=asked.ef_construct,
        ef=asked.ef,
        quantize="int8" if asked.int8 else "none",
    )
    if not folder.exists():
        with EdgeStore.create(folder, "cells", card, settings) as store:
            began = perf_counter()
            store.upsert(items, rows)
            stored = perf_counter() - began
            report = store.build()
            print(
                f"upsert {asked.size / stored:,.0f} points/s, graph and its check "
                f"{report.seconds:.0f} s ({asked.size / report.seconds:,.0f} points/s); the check "
                f"found recall {report.recall:.4f} and {report.filtered_recall:.4f} under filters",
                flush=True,
            )
    before = resident()
    began = perf_counter()
    store = EdgeStore.open(folder, "cells", card)
    opened = perf_counter() - began
    answers = {
        name: times(
            lambda q, where=where: [hit.item.id for hit in store.nearest(q, K, where)], queries
        )
        for name, where in FILTERS.items()
    }
    held = {kind: now - before[kind] for kind, now in resident().items()}
    table: dict[str, list[str]] = {"numpy exact": [], "FAISS flat": [], "edge": []}
    for name, where in FILTERS.items():
        some = [ids[at] for at in kept[name]]
        subset = rows if where is None else np.ascontiguousarray(rows[kept[name]])
        spent, truth = times(exact_numpy(some, subset), queries)
        table["numpy exact"].append(cell(spent, truth, truth))
        table["FAISS flat"].append(cell(*times(faiss_flat(ids, rows, kept[name]), queries), truth))
        table["edge"].append(cell(*answers[name], truth))
    settings = store.settings
    store.close()
    disk = sum(path.stat().st_blocks * 512 for path in folder.rglob("*") if path.is_file())
    if scratch is not None:
        shutil.rmtree(scratch)

    print(f"{asked.size:,} x {asked.dim}, {asked.queries} queries, k = {K}; ")
    print("each cell: p50 / p99 in ms, recall@10; numpy has the rows of each filter set aside\n")
    print("| engine | " + " | ".join(FILTERS) + " |")
    print("|---|" + "---|" * len(FILTERS))
    for name, cells in table.items():
        print(f"| {name} | " + " | ".join(cells) + " |")
    print(
        f"\nedge (m {settings.m}, ef_construct {settings.ef_construct}, ef {settings.ef}, "
        f"{settings.quantize}): opens in {opened:.1f} s, {disk / 1e6:,.0f} MB on disk, "
        f"{held['Anon'] / 1e6:,.0f} MB of its own in memory and {held['File'] / 1e6:,.0f} MB of "
        "files after the questions"
    )


if __name__ == "__main__":
    main()
