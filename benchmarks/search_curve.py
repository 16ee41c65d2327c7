"""Search time against the number of items, 10^4 to 10^6 in the embedded store: SISH's figure.

    python benchmarks/search_curve.py --sizes 10000 30000 100000 300000 1000000

Made-up vectors with the structure of real ones (`search_index.like_cells`), each store built as
the product builds it (settings for its number of points, `ef` raised until recall is enough), then
asked one question after another in rounds that go through all sizes, so that other work on the
machine falls on every size alike. Two laws are fitted to the medians of processor time:
a + b ln n, and c n^p. `--int8` walks over bytes. `--folder` keeps the stores, and takes those that
are there. Prints Markdown, and JSON with `--out`.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import numpy as np
from search_index import K, like_cells

from encoder.card import EncoderCard
from search.index.contract import IndexSettings, Vectors, checked_vectors
from search.index.embedded import EdgeStore
from search.schemas.items import Item, item_id, source_id

CHUNK = 20_000
"""Points stored at once."""


def items(first: int, last: int) -> list[Item]:
    made = []
    for at in range(first, last):
        source = source_id(str(at).encode())
        made.append(Item(id=item_id("d", source), dataset="d", source=source))
    return made


def built(folder: Path, size: int, card: EncoderCard, rows: Vectors, int8: bool) -> dict[str, Any]:
    """Make the store of one size, unless it is there; what its build said."""
    note = folder.with_suffix(".json")
    if note.exists():
        return dict(json.loads(note.read_text()))
    settings = IndexSettings(quantize="int8" if int8 else "none").for_points(size)
    with EdgeStore.create(folder, "cells", card, settings) as store:
        for at in range(0, size, CHUNK):
            store.upsert(items(at, min(at + CHUNK, size)), rows[at : min(at + CHUNK, size)])
        report = store.build()
        said = {
            "recall_at_build": report.recall,
            "ef": store.settings.ef,
            "m": store.settings.m,
            "build_s": round(report.seconds, 1),
        }
    note.write_text(json.dumps(said))
    return said


def asked(store: EdgeStore, queries: Vectors) -> list[tuple[float, float]]:
    """Milliseconds of each question: by the clock, and of the processor.

    On a machine that does other work the clock counts the waiting too; the processor does not.
    """
    spent = []
    for query in queries:
        began, busy = perf_counter(), process_time()
        store.nearest(query, K)
        spent.append((1000 * (perf_counter() - began), 1000 * (process_time() - busy)))
    return spent


def laws(sizes: list[int], medians: list[float]) -> dict[str, Any]:
    """Both laws by least squares, with the relative error that each leaves (root mean square)."""
    n, t = np.array(sizes, float), np.array(medians)
    weights = 1 / t  # relative errors count, or the largest alone decides
    design = np.column_stack([np.ones_like(n), np.log(n)])
    a, b = np.linalg.lstsq(design * weights[:, None], t * weights, rcond=None)[0]
    p, log_c = np.polyfit(np.log(n), np.log(t), 1)
    straight, power = a + b * np.log(n), np.exp(log_c) * n**p

    def error(made: np.ndarray) -> float:
        return float(np.sqrt(np.mean((made / t - 1) ** 2)))

    return {
        "log": {"a": a, "b": b, "error": error(straight)},
        "power": {"c": float(np.exp(log_c)), "p": p, "error": error(power)},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 30_000, 100_000])
    parser.add_argument("--dim", type=int, default=384)
    parser.add_argument("--of", type=int, default=0, help="vectors that are drawn; stores take the "
                        "first of them [the largest size]")  # fmt: skip
    parser.add_argument("--queries", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--int8", action="store_true", help="quantised, with rescore")
    parser.add_argument("--folder", type=Path, required=True, help="where the stores are kept")
    parser.add_argument("--out", type=Path, default=None, help="write the figures here as JSON")
    given = parser.parse_args()

    sizes = sorted(given.sizes)
    rows = like_cells(max(given.of, sizes[-1]), given.dim)
    card = EncoderCard(id="random-vectors", architecture="none", dim=given.dim)
    kind = "int8" if given.int8 else "floats"
    folders = {size: given.folder / f"{size}-{kind}" for size in sizes}
    given.folder.mkdir(parents=True, exist_ok=True)
    said = {}
    for size in sizes:
        said[size] = built(folders[size], size, card, rows, given.int8)
        print(f"{size:,}: {said[size]}", flush=True)
    rng = np.random.default_rng(1)
    picked = rows[rng.choice(sizes[0], given.queries, replace=False)]  # there in every store
    noise = rng.standard_normal(picked.shape) * 0.3 / np.sqrt(given.dim)
    queries = checked_vectors(picked + noise, given.dim)
    exact = {size: np.argpartition(-(queries @ rows[:size].T), K)[:, :K] for size in sizes}
    del rows
    stores = {size: EdgeStore.open(folders[size], "cells", card) for size in sizes}
    places = {size: {item.id: at for at, item in enumerate(items(0, size))} for size in sizes}
    recall: dict[int, float] = {}
    spent: dict[int, list[tuple[float, float]]] = {size: [] for size in sizes}
    for size, store in stores.items():
        found = [[places[size][hit.item.id] for hit in store.nearest(q, K)] for q in queries]
        both = [len(set(a) & set(b.tolist())) for a, b in zip(found, exact[size], strict=True)]
        recall[size] = float(np.mean(both)) / K
    for _ in range(given.rounds):
        for size, store in stores.items():
            asked(store, queries[:20])  # what the other stores pushed out comes back
            spent[size] += asked(store, queries)
    for store in stores.values():
        store.close()

    print(f"\n{given.dim} numbers, {kind}, {given.rounds} rounds of {given.queries} questions,")
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores\n")
    print(
        "| items | p50 ms | p99 ms | recall@10 | m | ef | build s |\n|---|---|---|---|---|---|---|"
    )
    table = []
    for size in sizes:
        (p50, busy50), (p99, busy99) = np.percentile(spent[size], [50, 99], axis=0)
        row = {"items": size, "p50": p50, "p99": p99, "cpu50": busy50, "cpu99": busy99}
        table.append({**row, "recall": recall[size], **said[size]})
        print(
            f"| {size:,} | {p50:.2f} / {p99:.2f} | {busy50:.2f} / {busy99:.2f} | "
            f"{recall[size]:.4f} | {said[size]['m']} | {said[size]['ef']} | "
            f"{said[size]['build_s']:.0f} |"
        )
    fitted = laws(sizes, [row["cpu50"] for row in table])
    log, power = fitted["log"], fitted["power"]
    print("\nOf the processor's medians:")
    print(f"{log['a']:.2f} + {log['b']:.3f} ln n ms: off by {log['error']:.0%};")
    print(f"{power['c']:.4f} n^{power['p']:.2f} ms: off by {power['error']:.0%}")
    if given.out:
        given.out.write_text(json.dumps({"rows": table, "laws": fitted}, indent=1))


if __name__ == "__main__":
    main()
