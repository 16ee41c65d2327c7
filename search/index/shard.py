"""The open points of an embedded collection: threads take turns, a rebuilt graph replaces them."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from threading import RLock
from typing import Any

import qdrant_edge as engine

from search.disk.closing import Closing
from search.disk.space import need_room
from search.errors import StoreError
from search.index.contract import BATCH
from search.index.engine import load_shard, new_shard_name, sweep_shards
from search.index.manifest import Manifest

OPTIMIZE = """
import sys, qdrant_edge
shard = qdrant_edge.EdgeShard.load(sys.argv[1])
shard.optimize()
shard.flush()
shard.close()
"""
"""Builds a graph in a process of its own: the engine holds the interpreter meanwhile."""


class OpenShard(Closing):
    """The engine's shard of a folder, and the manifest that names it."""

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self.folder = folder
        self.manifest = manifest
        self.touched: set[str] | None = None
        """Ids written since a build began; `None` while there is none."""
        self._turn = RLock()
        self._engine: Any = load_shard(folder / manifest.shard)
        self._closed = False

    @property
    def points(self) -> int:
        """How many it holds."""
        return int(self._engine.info().points_count)

    @contextmanager
    def turn(self) -> Iterator[Any]:
        """The engine's shard, for one thread at a time.

        Raises:
            StoreError: it was closed, or the engine reports an error.
        """
        name = self.manifest.name
        with self._turn:
            if self._closed:
                raise StoreError(f"collection {name!r} was closed; open it again")
            try:
                yield self._engine
            except Exception as error:
                if type(error) is not Exception:  # the engine raises nothing narrower
                    raise
                raise StoreError(f"collection {name!r} at {self.folder}: {error}") from error

    def note(self, ids: Iterable[str]) -> None:
        """Points are written or removed: a build under way has to catch up with them."""
        if self.touched is not None:
            self.touched.update(ids)

    def keep(self, manifest: Manifest) -> None:
        """Write a changed manifest."""
        manifest.write(self.folder)
        self.manifest = manifest

    def close(self) -> None:
        """Write what is in memory and close; safe to call twice."""
        with self._turn:
            if not self._closed:
                self._closed = True
                self._engine.flush()
                self._engine.close()

    def build_graph(self) -> None:
        """Make the graph in another process on a copy, which then takes the place of the shard.

        Where few vectors are without a graph nothing is done.

        Raises:
            StoreError: it was not built; the shard stays as it is.
        """
        with self.turn() as shard:
            info, index = shard.info(), self.manifest.index
            bare = (info.points_count - info.indexed_vectors_count) * self.manifest.card.dim * 4
            if bare < index.graph_from_kb * 1024:
                return
            shard.flush()
            folder = self.folder / self.manifest.shard
            copy = self.folder / new_shard_name()
            size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
            need_room(self.folder, 2 * size)  # the copy, and what is made in it
            shutil.copytree(folder, copy)
            self.touched = set()
        try:
            done = subprocess.run(  # noqa: S603 - our own text, our own folder
                [sys.executable, "-c", OPTIMIZE, str(copy)], capture_output=True, text=True
            )
            if done.returncode:
                raise StoreError(
                    f"the graph of collection {self.manifest.name!r} was not built "
                    f"(exit {done.returncode}): {done.stderr.strip()[-500:]}; "
                    "the collection answers as before"
                )
            with self.turn() as shard:
                self._replace(shard, copy)
        finally:
            self.touched = None
            sweep_shards(self.folder, keep=self.manifest.shard)

    def _replace(self, old: Any, copy: Path) -> None:
        """Bring the copy up to date and go on with it."""
        new = load_shard(copy)
        touched = sorted(self.touched or ())
        for start in range(0, len(touched), BATCH):
            part = touched[start : start + BATCH]
            records = old.retrieve(part, with_payload=True, with_vector=True)
            there = [engine.Point(r.id, r.vector, r.payload) for r in records]
            gone: list[Any] = sorted(set(part) - {str(record.id) for record in records})
            if there:
                new.update(engine.UpdateOperation.upsert_points(there))
            if gone:
                new.update(engine.UpdateOperation.delete_points(gone))
        new.flush()
        self.keep(replace(self.manifest, shard=copy.name))
        self._engine = new
        old.close()
