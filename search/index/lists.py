"""Cells in lists of like ones, a byte for each number: candidates of a search under any filter.

An inverted file (Jegou, Douze and Schmid 2011) over rows of bytes. A walk of a graph that has to
look past what a filter drops takes the longer the more it drops; here a filter is a set of rows,
and the nearest lists are compared until enough of those rows were. They are compared by their
heads first, the axes along which rows differ most, and only the nearest of them by all their
bytes. The lists only propose: the engine compares the candidates again, by their vectors and by
what the items say now.
"""

from __future__ import annotations

import json
import os
import shutil
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from threading import Lock
from typing import Any
from uuid import UUID, uuid4
from zipfile import BadZipFile

import numpy as np
import simsimd
from numpy.typing import NDArray

from encoder.durable import sync
from search.disk.atomic import write_durably
from search.disk.closing import Closing
from search.disk.space import DiskTrouble, need_room
from search.index.clusters import Codes, assigned, find_centres, in_bytes, main_axes
from search.index.columns import Columns, ColumnsBuilder
from search.index.contract import Stored, Vectors
from search.schemas.filters import Filter

FORMAT = 2
FOLDER = "lists"
FIRST_VISIT = 66
"""Rows of a thousand that a search compares at first, in its nearest lists; a build raises it
until recall is enough."""
ENOUGH_ROWS = 0.4
"""Under a filter, lists are visited until so many rows that meet it were compared, as a part of
the rows that a search without one compares."""
MOST_CHANGED = 2_000
"""Items written or removed since the lists were made, beyond which they are not used: each of them
is a candidate of every search."""
HEAD = 64
"""Numbers of a row's head, at least; see `search.index.clusters.main_axes`."""
CANDIDATES = 32
"""Rows that the engine compares again, at least."""
FOR_EACH = 4
"""Rows that the engine compares again for each wanted neighbour, where those are more."""
BY_HEAD = 8
"""Rows compared by all their bytes for each that the engine compares again, at least: the more
rows a build has to visit, the larger is the part of them, so that a search of all is exact."""
MOST_CANDIDATES = 1_000
CHUNK = 2_048
"""Rows gathered at once: they stay in the processor's cache."""
NEAR = 4_096
"""Rows of the nearest lists, whose best bound what can be among the best of all."""
UNUSABLE = (OSError, ValueError, KeyError, TypeError, EOFError, BadZipFile, DiskTrouble)
"""What opening lists raises where there are none, where they are damaged or cut short, or where
there is no room for their heads: they are derived, and a store answers without them."""
KEPT_FILTERS = 16
"""Filters whose rows are remembered, 4 bytes a row."""


@dataclass(frozen=True)
class Candidates:
    """What may be the nearest."""

    ids: list[str]
    whole: bool
    """Whether they are all that meet the filter."""


class Lists(Closing):
    """Lists in a folder, beside the engine's points."""

    def __init__(self, folder: Path) -> None:
        """Use `make` or `open`."""
        facts = json.loads((folder / "lists.json").read_text(encoding="utf-8"))
        if facts["format"] != FORMAT:
            raise ValueError(f"{folder} has format {facts['format']}, expected {FORMAT}")
        self.folder = folder
        self.visit = int(facts["visit"])
        """Rows of a thousand that a search compares."""
        self._codes: Codes = np.asarray(np.load(folder / "codes.npy", mmap_mode="r"))
        self._heads: Codes = np.asarray(np.load(folder / "heads.npy", mmap_mode="r"))
        self._ids: NDArray[np.uint8] = np.asarray(np.load(folder / "ids.npy", mmap_mode="r"))
        with (folder / "rest.npz").open("rb") as file, np.load(file) as rest:
            self._scales: NDArray[np.float32] = rest["scales"]
            self._centres: Vectors = rest["centres"]
            self._starts: NDArray[np.int64] = rest["starts"]
            words = {name: rest[f"word {name}"] for name in facts["values"]}
            numbers = {name: rest[f"number {name}"] for name in facts["numbers"]}
        with (folder / "heads.npz").open("rb") as file, np.load(file) as heads:
            self._axes: Vectors = heads["axes"]
            self._head_scales: NDArray[np.float32] = self._scales * heads["scales"]
        sizes = {len(part) for part in (self._codes, self._heads, self._ids, self._head_scales)}
        if len(sizes) > 1:
            raise ValueError(f"the files in {folder} have {sorted(sizes)} rows, expected as many")
        self._columns = Columns(words, facts["values"], numbers)
        self._all = np.arange(len(self._ids), dtype=np.int32)
        noted = (folder / "changed").read_bytes()
        ends = range(16, len(noted) + 1, 16)  # one that was cut short was never acknowledged
        self.changed = frozenset(str(UUID(bytes=noted[end - 16 : end])) for end in ends)
        """Items written or removed since: always candidates."""
        self._log = (folder / "changed").open("ab", buffering=0)
        self._kept: OrderedDict[Filter, NDArray[np.int32]] = OrderedDict()
        self._lock = Lock()

    def __len__(self) -> int:
        """Items in the lists, as they were when these were made."""
        return len(self._ids)

    @classmethod
    def open(cls, within: Path, points: int) -> Lists | None:
        """The lists of a store, or `None` where there are none that fit it: a build makes them.

        Args:
            within: Folder of the store.
            points: How many it holds.
        """
        cls.sweep(within)
        try:
            _with_heads(within / FOLDER)
            lists = cls(within / FOLDER)
        except UNUSABLE:
            return None
        if abs(points - len(lists)) <= len(lists.changed):
            return lists
        lists.close()
        return None

    @classmethod
    def make(cls, within: Path, stored: Iterable[Stored], dim: int) -> Lists:
        """Lists of everything stored, which `take_place` puts where `open` looks."""
        folder = within / f"{FOLDER}-{uuid4().hex[:8]}"
        folder.mkdir()
        columns, ids, scales = _unsorted(folder / "unsorted", stored)
        codes: Codes = np.memmap(folder / "unsorted", np.int8, "r").reshape(-1, dim)
        centres = find_centres(codes, max(1, round(len(codes) ** 0.5)))
        of = assigned(codes, centres)
        order = np.argsort(of, kind="stable")
        _write_sorted(folder / "codes.npy", codes, order)
        (folder / "unsorted").unlink()
        _write_heads(folder)
        np.save(folder / "ids.npy", ids[order])
        table = columns.columns(order)
        arrays: dict[str, NDArray[Any]] = {
            "scales": scales[order],
            "centres": centres,
            "starts": np.searchsorted(of[order], np.arange(len(centres) + 1)),
        }
        arrays |= {f"word {name}": column for name, column in table.words.items()}
        arrays |= {f"number {name}": column for name, column in table.numbers.items()}
        np.savez(folder / "rest.npz", allow_pickle=False, **arrays)
        (folder / "changed").touch()
        _sync(folder)
        facts = {"format": FORMAT, "visit": FIRST_VISIT, "values": table.values}
        facts["numbers"] = list(table.numbers)
        write_durably(folder / "lists.json", json.dumps(facts).encode())
        return cls(folder)

    @staticmethod
    def sweep(within: Path) -> None:
        """Remove what was not finished."""
        for left in within.glob(f"{FOLDER}-*"):
            shutil.rmtree(left)

    def take_place(self) -> None:
        """Go where `open` looks."""
        place = self.folder.with_name(FOLDER)
        if place.exists():
            shutil.rmtree(place)
        self.folder = self.folder.rename(place)

    def widen(self, visit: int) -> None:
        """Compare so many rows of a thousand from now on."""
        path = self.folder / "lists.json"
        facts = json.loads(path.read_text(encoding="utf-8"))
        write_durably(path, json.dumps({**facts, "visit": visit}).encode())
        self.visit = visit

    def note(self, ids: Iterable[str]) -> None:
        """Items are about to be written or removed: from now on they are candidates always."""
        new = set(ids) - self.changed
        if new and len(self.changed) <= MOST_CHANGED:
            self._log.write(b"".join(UUID(id).bytes for id in sorted(new)))
            self.changed |= new

    @property
    def worn(self) -> bool:
        """Whether so much has changed that a build should make them anew."""
        return len(self.changed) > MOST_CHANGED // 4

    def answers(self, k: int, where: Filter | None) -> bool:
        """Whether a search for `k` under a filter can be answered from the lists."""
        known = where is None or self._columns.knows(where)
        return known and len(self.changed) <= MOST_CHANGED and _wanted(k) <= MOST_CANDIDATES

    def candidates(
        self, row: Vectors, k: int, where: Filter | None, exclude: Filter | None
    ) -> Candidates:
        """Items among which the `k` nearest that meet `where` and not `exclude` are to be found.

        Args:
            row: The query; length dim.
            k: How many are wanted.
            where: One that `answers` is true of.
            exclude: What it says of ids, and of fields without a column, is left to the engine.
        """
        rows, scores, everything = self._visited(row, where, self._columns.known(exclude))
        wanted = _wanted(k)
        raised = (self.visit - FIRST_VISIT) / max(1, 1000 - FIRST_VISIT)
        near = _best(rows, scores, max(BY_HEAD * wanted, round(raised * len(rows))))
        code, _ = in_bytes(row[None])
        scores = _dots(code, np.take(self._codes, near, axis=0)) * self._scales[near]
        best = _best(near, scores, wanted)
        return Candidates(_words(self._ids[best]), everything and len(rows) <= wanted)

    def _visited(
        self, row: Vectors, where: Filter | None, shut_out: Filter | None
    ) -> tuple[NDArray[np.int32], NDArray[np.float32], bool]:
        """Rows of the nearest lists, their scores by their heads, and whether that is every list.

        Args:
            row: The query; length dim.
            where: What rows have to meet.
            shut_out: What they must not meet.
        """
        lists = np.argsort(-(self._centres @ row))
        sizes = (self._starts[1:] - self._starts[:-1])[lists]
        usual = min(1.0, self.visit / 1000) * len(self)
        first, last = 0, int(np.searchsorted(np.cumsum(sizes), usual)) + 1
        met = None if where is None or where.empty else self._rows(where)
        enough = ENOUGH_ROWS * usual if met is not None or shut_out is not None else 0.0
        starts = self._starts
        if met is not None:
            starts = np.searchsorted(met, starts)
            sizes = (starts[1:] - starts[:-1])[lists]
            last = max(last, int(np.searchsorted(np.cumsum(sizes), enough)) + 1)
        head, _ = in_bytes(row[None] @ self._axes)
        found: list[tuple[NDArray[np.int32], NDArray[np.float32]]] = []
        compared = 0
        while first < len(lists) and (not first or compared < enough):
            rows, scores = self._by_head(head, met, starts, lists[first:last])
            if shut_out is not None:
                kept = ~self._columns.hits(shut_out, rows)
                rows, scores = rows[kept], scores[kept]
            found.append((rows, scores))
            compared += len(rows)
            first, last = last, 2 * last
        rows, scores = (np.concatenate(parts) for parts in zip(*found, strict=True))
        return rows, scores, first >= len(lists)

    def flush(self) -> None:
        """Make durable what was noted."""
        os.fsync(self._log.fileno())

    def close(self) -> None:
        """Release the file of what has changed; safe to call twice."""
        self._log.close()

    def _rows(self, where: Filter) -> NDArray[np.int32]:
        """The rows that meet a filter, in order; remembered for the next search under it."""
        with self._lock:
            if (rows := self._kept.pop(where, None)) is not None:
                self._kept[where] = rows
                return rows
        rows = np.flatnonzero(self._columns.meets(where, slice(None))).astype(np.int32)
        with self._lock:
            self._kept[where] = rows
            while len(self._kept) > KEPT_FILTERS:
                self._kept.popitem(last=False)
        return rows

    def _by_head(
        self,
        head: Codes,
        met: NDArray[np.int32] | None,
        starts: NDArray[np.int64],
        lists: NDArray[np.int64],
    ) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """Rows of some lists, and about their cosines with a query up to a factor.

        Args:
            head: Of the query; 1 x axes.
            met: The rows that meet a filter; `None` for all.
            starts: Where each list begins, among these.
            lists: Which ones.
        """
        ends = list(zip(starts[lists].tolist(), starts[lists + 1].tolist(), strict=True))
        among = self._all if met is None else met
        rows = np.concatenate([among[start:end] for start, end in ends])
        if met is None:
            parts = [_dots(head, self._heads[start:end]) for start, end in ends]
        else:
            pieces = (rows[at : at + CHUNK] for at in range(0, len(rows), CHUNK))
            parts = [_dots(head, np.take(self._heads, piece, axis=0)) for piece in pieces]
        scores = np.concatenate([*parts, np.empty(0, np.float32)])
        scores *= self._head_scales[rows]
        return rows, scores


def _wanted(k: int) -> int:
    return max(CANDIDATES, FOR_EACH * (k + 1))


def _dots(code: Codes, codes: Codes) -> NDArray[np.float32]:
    if not len(codes):
        return np.empty(0, np.float32)
    dots: NDArray[np.float64] = np.asarray(simsimd.cdist(code, codes, metric="dot"))[0]
    return dots.astype(np.float32)


def _best(rows: NDArray[np.int32], scores: NDArray[np.float32], wanted: int) -> NDArray[np.int32]:
    """The rows with the highest scores."""
    if len(rows) <= wanted:
        return rows
    if len(rows) > NEAR > wanted:  # the nearest lists come first: few of the rest are as near
        bound = np.partition(scores[:NEAR], -wanted)[-wanted]
        as_near = np.flatnonzero(scores >= bound)
        rows, scores = rows[as_near], scores[as_near]
    return rows[np.argpartition(scores, -wanted)[-wanted:]]


def _words(ids: NDArray[np.uint8]) -> list[str]:
    """Ids of 16 bytes (n x 16) in their usual form."""
    digits = ids.tobytes().hex()
    some = (digits[at : at + 32] for at in range(0, len(digits), 32))
    return [f"{d[:8]}-{d[8:12]}-{d[12:16]}-{d[16:20]}-{d[20:]}" for d in some]


def _unsorted(
    path: Path, stored: Iterable[Stored]
) -> tuple[ColumnsBuilder, NDArray[np.uint8], NDArray[np.float32]]:
    """Write the bytes of every vector as they come; what the items say, their ids and scales."""
    columns, ids, scales, rest = ColumnsBuilder(), bytearray(), [], iter(stored)
    with path.open("wb") as file:
        while part := list(islice(rest, CHUNK)):
            columns.add([one.item for one in part])
            ids += b"".join(UUID(one.item.id).bytes for one in part)
            codes, scale = in_bytes(np.stack([one.vector for one in part]))
            file.write(codes.tobytes())
            scales.append(scale)
    return columns, np.frombuffer(ids, np.uint8).reshape(-1, 16), np.concatenate(scales)


def _sync(folder: Path) -> None:
    """What is in the files survives a power cut, before the facts that say that it is there."""
    for path in folder.iterdir():
        sync(path)


def _write_sorted(path: Path, codes: Codes, order: NDArray[np.int64]) -> None:
    parts = (codes[order[at : at + CHUNK]] for at in range(0, len(order), CHUNK))
    _write_rows(path, codes.shape, parts)


def _write_rows(path: Path, shape: tuple[int, ...], parts: Iterable[Codes]) -> None:
    """Write an array a part at a time; not mapped, where a full disk would end the process."""
    with path.open("wb") as file:
        facts = {"descr": "|i1", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, facts)
        for part in parts:
            file.write(part.tobytes())


def _write_heads(folder: Path) -> None:
    """Write the heads of the rows whose bytes lie in a folder."""
    codes: Codes = np.load(folder / "codes.npy", mmap_mode="r")
    axes = main_axes(codes, HEAD)
    scales: list[NDArray[np.float32]] = []

    def heads() -> Iterator[Codes]:
        for at in range(0, len(codes), CHUNK):
            part, scale = in_bytes(codes[at : at + CHUNK] @ axes)
            scales.append(scale)
            yield part

    need_room(folder, len(codes) * (axes.shape[1] + 4))
    _write_rows(folder / "heads.npy", (len(codes), axes.shape[1]), heads())
    np.savez(folder / "heads.npz", axes=axes, scales=np.concatenate(scales))


def _with_heads(folder: Path) -> None:
    """Give heads to lists of format 1, which counted lists where rows are counted now, and began
    with 50 of a thousand."""
    facts = json.loads((folder / "lists.json").read_text(encoding="utf-8"))
    if facts["format"] == 1:
        _write_heads(folder)
        _sync(folder)
        visit = min(1000, facts["visit"] * FIRST_VISIT // 50)
        facts = {**facts, "format": FORMAT, "visit": visit}
        write_durably(folder / "lists.json", json.dumps(facts).encode())
