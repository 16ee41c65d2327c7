"""Settings of a collection's index beside one another: links, candidates, int8, disk.

    python benchmarks/index_settings.py --size 100000 --dim 384 --queries 200
    python benchmarks/index_settings.py --size 100000 --server http://localhost:6333

Made-up vectors with the structure of real ones (`search_index.like_cells`), cosine, k = 10, a
filter that leaves 1 %. Recall is against exact search of the same store. Every variant is built
and searched in a process of its own; memory is what that
process holds more after opening and asking than before, with the page cache emptied of the
index between the two: `anon` is its own, `file` is page cache that the machine may take back.
With `--server`, memory is the server's own business.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter
from uuid import uuid4

import numpy as np
from search_index import FILTERS, K, make, resident, times

from encoder.card import EncoderCard
from search.index.contract import IndexSettings, Store, checked_vectors
from search.index.embedded import EdgeStore
from search.index.server import ServerStore, connect, drop_collections

VARIANTS = {
    "default (m 16, efc 128)": IndexSettings(),
    "m 8, efc 64": IndexSettings(m=8, ef_construct=64),
    "m 32, efc 256": IndexSettings(m=32, ef_construct=256),
    "ef 32": IndexSettings(ef=32),
    "ef 256": IndexSettings(ef=256),
    "int8, rescore 2x": IndexSettings(quantize="int8"),
    "int8, rescore 4x": IndexSettings(quantize="int8", oversampling=4.0),
    "vectors on disk": IndexSettings(vectors_on_disk=True),
    "int8, vectors on disk": IndexSettings(quantize="int8", vectors_on_disk=True),
    "int8, all on disk": IndexSettings(quantize="int8", vectors_on_disk=True, graph_on_disk=True),
}
PARTS = {
    "vectors": "/vector_storage/",
    "graph": "/vector_index/",
    "int8": "quantized",
    "payload": "/payload_",
    "ids": "id_tracker",
}
"""Part of the index, and what the paths of its files have in them."""


def forget_pages(folder: Path) -> None:
    """Empty the page cache of the files of a folder, so that opening reads from the disk."""
    for path in folder.rglob("*"):
        if path.is_file():
            fd = os.open(path, os.O_RDONLY)
            os.fsync(fd)
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(fd)


def bytes_by_part(folder: Path) -> dict[str, int]:
    """Bytes in use on the disk; the log of updates and what belongs nowhere are `rest`."""
    found = dict.fromkeys([*PARTS, "rest"], 0)
    for path in folder.rglob("*"):
        if path.is_file():
            text = str(path)
            if "quantized" in text:
                part = "int8"
            else:
                part = next((name for name, mark in PARTS.items() if mark in text), "rest")
            found[part] += path.stat().st_blocks * 512
    return found


def measure(name: str, options: argparse.Namespace) -> dict[str, object]:
    """Build one variant, close it, open it again and ask."""
    items, rows = make(options.size, options.dim)
    rng = np.random.default_rng(1)
    picked = rows[rng.choice(options.size, options.queries, replace=False)]
    noise = rng.standard_normal(picked.shape) * 0.3 / np.sqrt(options.dim)
    queries = checked_vectors(picked + noise, options.dim)
    card = EncoderCard(id="random-vectors", architecture="none", dim=options.dim)
    settings = VARIANTS[name]
    base = Path(tempfile.mkdtemp(dir=options.folder))
    called = f"settings-{uuid4().hex[:8]}"
    client = connect(options.server) if options.server else None
    if client is None:
        store: Store = EdgeStore.create(base / "cells", "cells", card, settings)
    else:
        store = ServerStore.create(client, called, card, settings)
    try:
        began = perf_counter()
        store.upsert(items, rows)
        stored = perf_counter() - began
        began = perf_counter()
        report = store.build()
        built = perf_counter() - began
        store.close()
        del items, rows
        forget_pages(base)
        before = resident()
        if client is None:
            store = EdgeStore.open(base / "cells", "cells", card)
        else:
            store = ServerStore.open(client, called, card)
        answers = {
            title: times(
                lambda q, where=where: [h.item.id for h in store.nearest(q, K, where)], queries
            )
            for title, where in FILTERS.items()
            if title in ("all", "1 %")
        }
        after = resident()
        figures: dict[str, object] = {
            "name": name,
            "upsert": options.size / stored,
            "build": built,
            "ef": report.ef,
            "memory": {kind: after[kind] - before[kind] for kind in after},
            "searched": {},
        }
        for title, (spent, found) in answers.items():  # exact search touches every vector
            exact = store.nearest_batch(queries, K, FILTERS[title], exact=True)
            pairs = zip(found, [[hit.item.id for hit in hits] for hits in exact], strict=True)
            recall = float(np.mean([len(set(a) & set(b)) / len(b) for a, b in pairs]))
            figures["searched"][title] = [*np.percentile(spent, [50, 99]).tolist(), recall]
        store.close()
        figures["disk"] = bytes_by_part(base)
        return figures
    finally:
        shutil.rmtree(base)
        if client is not None:
            drop_collections(client, called)


def show(options: argparse.Namespace, table: list[dict]) -> None:
    where = f"Qdrant at {options.server}" if options.server else "embedded store"
    print(f"{options.size:,} x {options.dim}, {options.queries} queries, k = {K}, {where}\n")
    print(
        "| settings | build s | ef kept | p50 / p99 ms | recall@10 | 1 %: p50 / p99 | recall "
        "| anon + file MB | disk MB: vectors, graph, int8, payload, ids |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    for one in table:
        (a50, a99, recall), (b50, b99, filtered) = one["searched"]["all"], one["searched"]["1 %"]
        disk = ", ".join(f"{one['disk'][part] / 1e6:.0f}" for part in PARTS)
        held = " + ".join(f"{one['memory'][kind] / 1e6:.0f}" for kind in ("Anon", "File"))
        print(
            f"| {one['name']} | {one['build']:.0f} | {one['ef'] or '-'} | {a50:.2f} / {a99:.2f} "
            f"| {recall:.4f} | {b50:.2f} / {b99:.2f} | {filtered:.4f} | {held} | {disk} |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=100_000)
    parser.add_argument("--dim", type=int, default=384)
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--server", default=None, help="address of a Qdrant server")
    parser.add_argument("--folder", type=Path, default=None, help="where the stores are made")
    parser.add_argument("--only", nargs="*", default=list(VARIANTS), help="variants")
    parser.add_argument("--one", default=None, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(options.one, options)))
        return
    again = [sys.executable, __file__, "--size", str(options.size), "--dim", str(options.dim)]
    again += ["--queries", str(options.queries)]
    again += ["--server", options.server] if options.server else []
    again += ["--folder", str(options.folder)] if options.folder else []
    table = []
    for name in options.only:
        done = subprocess.run([*again, "--one", name], check=True, capture_output=True, text=True)
        table.append(json.loads(done.stdout.splitlines()[-1]))
        print(f"{name}: done", file=sys.stderr)
    show(options, table)


if __name__ == "__main__":
    main()
