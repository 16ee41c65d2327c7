"""Exact search under random filters and exclusions equals a plain statement of the rules.

    uv run --extra all python benchmarks/filtered_queries.py [QUERIES] [SEED]

The same questions, oracle and comparison as in the suite, which asks 2,000: every condition goes
to the embedded store, and to the client of the server store in its memory mode.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "search" / "index"))

from qdrant_client import QdrantClient
from test_contract import (
    SIZE,
    Library,
    edge_kind,
    equal_answers,
    make_items,
    make_vectors,
    random_questions,
    server_kind,
)


def main() -> None:
    queries = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else 10
    rng = np.random.default_rng(seed)
    vectors = make_vectors(SIZE, rng)
    vectors[40:60] = vectors[20]
    library = Library(make_items(SIZE, rng), vectors)
    asked = list(random_questions(library, rng, -(-queries // 20)))
    print("| store | filtered queries | equal to the oracle | without a hit | s |")
    print("|---|---|---|---|---|")
    with TemporaryDirectory() as folder:
        kinds = {
            "embedded": edge_kind(Path(folder)),
            "server, in memory": server_kind(QdrantClient(":memory:")),
        }
        for name, made in kinds.items():
            began = time.perf_counter()
            store = next(made).create()
            store.upsert(library.items, library.vectors)
            sizes = [n for one in asked for n in equal_answers(store, library, one)]
            took = time.perf_counter() - began
            none = sizes.count(0)
            print(f"| {name} | {len(sizes):,} | **{len(sizes):,}** | {none:,} | {took:.0f} |")
            made.close()


if __name__ == "__main__":
    main()
