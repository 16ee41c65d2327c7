"""A collection as a map: two numbers for each item, computed once and kept with its version."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from time import perf_counter
from typing import Any
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

from encoder.card import EncoderCard
from search.disk.atomic import write_durably
from search.errors import BadQuestion, NoSuchItem
from search.index.contract import Vectors
from search.library.contents import Truth, content_digest
from search.library.versions import now
from search.neighbours.groups import numbered
from search.schemas.items import Item
from search.schemas.maps import MOST_POINTS, Method

COLUMNS = ("label", "site", "stain", "scanner", "patient", "case", "dataset", "kind")
"""What the points of a map can be coloured by."""
FEWEST: dict[Method, int] = {"pca": 3, "tsne": 10, "umap": 10}
REDUCED = 50
"""Dimensions that t-SNE starts from, by PCA; as in van der Maaten and Hinton (2008), 4.2."""
EARLY, LATE = 250, 500
"""Steps of t-SNE under early exaggeration, and after it: openTSNE's own defaults."""
FOLDER = "maps"
FORMAT = 1


class NoMap(NoSuchItem):
    """A map that was not computed, or was not kept."""

    def __init__(self, why: str) -> None:
        LookupError.__init__(self, why)


class CannotMap(BadQuestion):
    """A collection of which there can be no such map."""


@dataclass(frozen=True, kw_only=True)
class Map:
    """A map of one version of a collection."""

    method: Method
    ids: tuple[str, ...]
    """Of the items on it."""
    places: NDArray[np.float32]
    """n x 2."""
    columns: dict[str, tuple[tuple[str, ...], NDArray[np.int32]]]
    """For each of `COLUMNS`: its values, and for each item the number of its own; -1 for none."""
    of: int
    """Items of the version."""
    digest: str
    """Of its shards then; see `search.votes.calibration.content_digest`."""
    made: str
    seconds: float
    perplexity: float | None = None
    """Of t-SNE."""
    neighbours: int | None = None
    """Of UMAP."""
    explained: tuple[float, ...] = ()
    """Shares of the variance along the two axes, of PCA."""
    axes: NDArray[np.float32] = field(default_factory=lambda: np.empty((0, 0), np.float32))
    """PCA: 3 x dim, the mean and the two axes."""

    def to_bytes(self) -> bytes:
        """As it is kept: numbers and JSON, no pickle."""
        facts = {
            key: value
            for key, value in asdict(self).items()
            if key not in ("ids", "places", "columns", "axes")
        }
        names = {name: list(values) for name, (values, _) in self.columns.items()}
        codes = {f"codes-{name}": codes for name, (_, codes) in self.columns.items()}
        head = json.dumps({"format": FORMAT, **facts, "values": names}).encode()
        out = BytesIO()
        arrays: dict[str, Any] = {
            "head": np.frombuffer(head, np.uint8),
            "ids": np.frombuffer(b"".join(UUID(id).bytes for id in self.ids), np.uint8),
            "places": self.places,
            "axes": self.axes,
            **codes,
        }
        np.savez(out, **arrays)
        return out.getvalue()

    @classmethod
    def read(cls, path: Path) -> Map:
        """Read what `to_bytes` wrote.

        Raises:
            NoMap: there is none, or it is damaged.
        """
        try:
            with np.load(path, allow_pickle=False) as kept:
                facts = json.loads(kept["head"].tobytes())
                if facts.pop("format") != FORMAT:
                    raise ValueError("another format")
                values = facts.pop("values")
                ids = kept["ids"].tobytes()
                facts["explained"] = tuple(facts["explained"])
                return cls(
                    ids=tuple(str(UUID(bytes=ids[at : at + 16])) for at in range(0, len(ids), 16)),
                    places=kept["places"],
                    axes=kept["axes"],
                    columns={
                        name: (tuple(words), kept[f"codes-{name}"])
                        for name, words in values.items()
                    },
                    **facts,
                )
        except FileNotFoundError:
            raise NoMap("this map was not computed yet") from None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise NoMap(f"the map in {path} cannot be read ({error}); compute it again") from error


def map_path(version: Path, method: Method) -> Path:
    """Where a map of a version lies."""
    return version / FOLDER / f"{method}.npz"


def drawn_ids(truth: Truth, most: int = MOST_POINTS) -> list[bytes]:
    """The items that are on a map: all, or a part that is the same for the same content."""
    ids = sorted(truth.rows)
    if len(ids) <= most:
        return ids
    chosen = np.random.default_rng(0).permutation(len(ids))[:most]
    return [ids[at] for at in sorted(chosen)]


def vectors_of(truth: Truth, ids: Sequence[bytes]) -> Vectors:
    """The vectors of living items (n x dim), in the order of `ids`."""
    place = {id: at for at, id in enumerate(ids)}
    out = np.empty((len(ids), truth.card.dim), np.float32)
    for name, some in truth.by_shard(ids).items():
        rows = truth.open(name).vectors()
        out[[place[id] for id in some]] = rows[[truth.rows[id].row for id in some]]
    return out


def items_of(truth: Truth, ids: Sequence[bytes]) -> list[Item]:
    """Living items, in the order of `ids`."""
    found: dict[bytes, Item] = {}
    for name, some in truth.by_shard(ids).items():
        rows = truth.open(name).items()
        found |= {id: rows[truth.rows[id].row] for id in some}
    return [found[id] for id in ids]


def compute_map(
    version: Path,
    card: EncoderCard,
    method: Method,
    *,
    perplexity: float = 30.0,
    neighbours: int = 15,
    most: int = MOST_POINTS,
    progress: Callable[[int, int], None] = lambda done, total: None,
    stop: Callable[[], bool] = lambda: False,
) -> Map:
    """Compute a map from the shards of a version, and keep it there.

    Args:
        version: Folder of the version; its index is not opened.
        card: Of its encoder.
        method: `pca` takes about a second; `tsne` and `umap` minutes.
        perplexity: Of t-SNE, roughly how many neighbours count; at most a third of the items.
        neighbours: Of UMAP, how many neighbours count.
        most: Items on the map.
        progress: Callback with the steps done.
        stop: Called now and then; true ends it with `NoMap`, and nothing is kept.

    Raises:
        CannotMap: too few items, or openTSNE or umap-learn is missing.
        NoMap: it was stopped.
    """
    began, digest = perf_counter(), content_digest(version)
    truth = Truth.read(version, card)
    ids = drawn_ids(truth, most)
    if len(ids) < FEWEST[method]:
        raise CannotMap(
            f"a map by {method} needs at least {FEWEST[method]} items, this collection has "
            f"{len(ids)}; ingest more"
        )
    vectors = vectors_of(truth, ids)
    axes, explained = principal_axes(vectors, 2)
    if method == "pca":
        places, used = (vectors - axes[0]) @ axes[1:].T, None
    else:
        axes, explained = np.empty((0, 0), np.float32), ()
        used = min(perplexity, (len(ids) - 1) / 3) if method == "tsne" else None
        places = (
            _tsne(vectors, used, progress, stop)
            if used is not None
            else _umap(vectors, neighbours, progress, stop)
        )
    made = Map(
        method=method,
        ids=tuple(str(UUID(bytes=id)) for id in ids),
        places=np.asarray(places, np.float32),
        columns=_columns(items_of(truth, ids)),
        of=len(truth.rows),
        digest=digest,
        made=now(),
        seconds=perf_counter() - began,
        perplexity=used,
        neighbours=neighbours if method == "umap" else None,
        explained=explained,
        axes=axes,
    )
    path = map_path(version, method)
    path.parent.mkdir(exist_ok=True)
    write_durably(path, made.to_bytes())
    return made


def principal_axes(vectors: Vectors, n: int) -> tuple[NDArray[np.float32], tuple[float, ...]]:
    """The mean and the first `n` principal axes ((1 + n) x dim), and their shares of variance.

    An axis points where its largest loading is positive, so equal data give equal maps.
    """
    mean = vectors.mean(axis=0, dtype=np.float64)
    centred = vectors.astype(np.float64) - mean
    values, columns = np.linalg.eigh(centred.T @ centred)
    axes = columns[:, ::-1][:, :n].T
    axes *= np.sign(axes[np.arange(len(axes)), np.abs(axes).argmax(axis=1)])[:, None]
    total = max(float(values.sum()), 1e-12)
    shares = tuple(float(max(value, 0.0)) / total for value in values[::-1][:n])
    return np.vstack([mean[None], axes]).astype(np.float32), shares


def _threads() -> int:
    """All cores that this process may use but one: questions are answered meanwhile, and
    threads that wait for each other spin (on two busy cores, two took ten times as long)."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
    return max(1, cores - 1)


def _tsne(
    vectors: Vectors,
    perplexity: float,
    progress: Callable[[int, int], None],
    stop: Callable[[], bool],
) -> NDArray[np.float64]:
    """t-SNE by openTSNE (Policar et al. 2019), begun from PCA (Kobak and Berens 2019)."""
    need_packages("tsne")
    from openTSNE import TSNE, OptimizationInterrupt

    wide = min(REDUCED, *vectors.shape)
    axes, _ = principal_axes(vectors, wide)
    reduced = (vectors - axes[0]) @ axes[1:].T
    start = reduced[:, :2] / max(float(reduced[:, 0].std()), 1e-12) * 1e-4
    if start.shape[1] < 2:
        raise CannotMap("t-SNE needs vectors of at least two numbers")
    done = [0]

    def stop_if_cancelled(_iteration: int, _error: float, _embedding: object) -> bool:
        done[0] = min(done[0] + 25, EARLY + LATE)
        progress(done[0], EARLY + LATE)
        return stop()

    try:
        made = TSNE(
            perplexity=perplexity,
            initialization=start,
            early_exaggeration_iter=EARLY,
            n_iter=LATE,
            metric="euclidean",  # of unit vectors: the same order as by cosine
            n_jobs=_threads(),
            random_state=0,
            callbacks=stop_if_cancelled,
            callbacks_every_iters=25,
        ).fit(reduced.astype(np.float64))
    except OptimizationInterrupt:
        raise NoMap("cancelled") from None
    if stop():
        raise NoMap("cancelled")
    return np.asarray(made, np.float64)


def need_packages(method: Method) -> None:
    """Raise `CannotMap` where what computes such a map is not installed here."""
    packages = {"tsne": ("openTSNE", "openTSNE"), "umap": ("umap", "umap-learn")}
    if method in packages and find_spec(packages[method][0]) is None:
        raise CannotMap(
            f"{packages[method][1]} is not installed where the service runs; install "
            "hemaseek[atlas] there"
        )


def _umap(
    vectors: Vectors,
    neighbours: int,
    progress: Callable[[int, int], None],
    stop: Callable[[], bool],
) -> NDArray[np.float64]:
    """UMAP by umap-learn (McInnes, Healy and Melville 2018), begun from PCA, on one thread.

    Its library cannot be stopped on the way; what is stopped is dropped at the end.
    """
    need_packages("umap")
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # numba and umap remark on themselves while they load
        from umap import UMAP

        progress(0, 2)
        axes, _ = principal_axes(vectors, min(REDUCED, *vectors.shape))
        reduced = ((vectors - axes[0]) @ axes[1:].T).astype(np.float32)
        if reduced.shape[1] < 2:
            raise CannotMap("UMAP needs vectors of at least two numbers")
        if stop():
            raise NoMap("cancelled")
        start = reduced[:, :2] / max(float(np.abs(reduced[:, :2]).max()), 1e-12) * 10
        made = UMAP(
            n_neighbors=min(neighbours, len(vectors) - 1),
            metric="euclidean",  # of unit vectors: the same order as by cosine
            init=start,
            random_state=0,
            n_jobs=1,
        ).fit_transform(reduced)
    progress(2, 2)
    if stop():
        raise NoMap("cancelled")
    return np.asarray(made, np.float64)


def _columns(items: Sequence[Item]) -> dict[str, tuple[tuple[str, ...], NDArray[np.int32]]]:
    found = {}
    for name in COLUMNS:
        values = [getattr(item, name) for item in items]
        known, codes = numbered(values)
        found[name] = (tuple(known), codes.astype(np.int32))
    return found


def with_recorded(map: Map, patients: Mapping[str, str]) -> Map:
    """A map that knows the patients whom only the records of cases name.

    Args:
        map: Of items.
        patients: By case: `search.library.case_records.CaseRecords.patients`.
    """
    own, of_own = map.columns["patient"]
    cases, of_case = map.columns["case"]
    values = sorted({*own, *(patients[case] for case in cases if case in patients)})
    code = {value: at for at, value in enumerate(values)}
    named = np.array([*(code[value] for value in own), -1], np.int32)[of_own]
    recorded = [code.get(patients.get(case, ""), -1) for case in cases]
    by_case = np.array([*recorded, -1], np.int32)[of_case]
    codes = np.where(named >= 0, named, by_case)
    return replace(map, columns={**map.columns, "patient": (tuple(values), codes)})


@dataclass(frozen=True, kw_only=True)
class Placed:
    """Where new items lie on a map."""

    places: NDArray[np.float32]
    """n x 2."""
    nearest: tuple[tuple[str, ...], ...]
    """For each, the ids of its nearest items on the map, nearest first."""
    scores: NDArray[np.float32]
    """n x k, their cosines."""


def place_on(
    map: Map, reference: Vectors, vectors: Vectors, k: int, banned: NDArray[np.bool_] | None = None
) -> Placed:
    """Place new vectors on a map that stays as it is.

    PCA projects. On a map by t-SNE or UMAP a new item lies at the median of its `k` nearest items,
    which is how openTSNE begins to place new points (Policar et al. 2019, section 2.3).

    Args:
        map: The map.
        reference: Vectors of the items on it (n x dim), rows of length 1.
        vectors: New ones (m x dim), rows of length 1.
        k: How many neighbours count.
        banned: Items of the map (n) that are of the same patient.
    """
    scores = vectors @ reference.T
    if banned is not None:
        scores[:, banned] = -np.inf
        if banned.all():
            raise CannotMap("every item on the map is of the patient that is to be placed")
        k = min(k, int((~banned).sum()))
    k = min(k, len(reference))
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    if map.method == "pca":
        places = (vectors - map.axes[0]) @ map.axes[1:].T
    else:
        places = np.median(map.places[order], axis=1)
    return Placed(
        places=np.asarray(places, np.float32),
        nearest=tuple(tuple(map.ids[at] for at in row) for row in order),
        scores=np.clip(np.take_along_axis(scores, order, axis=1), -1, 1).astype(np.float32),
    )
