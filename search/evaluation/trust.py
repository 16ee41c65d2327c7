"""When not to trust an answer, measured: queries of kinds, sites and tissues that are not there.

The score is what the service warns by, the cosine distance of the k-th neighbour outside the
query's own patient, case, source and picture (`search.votes.calibration.kth_distance`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta

import numpy as np
from numpy.typing import NDArray

from search.evaluation.labelled import UNDATED, Cells, flattered, read_labelled
from search.evaluation.labelled import most as limited
from search.evaluation.metrics import ends
from search.evaluation.ranking import mean_of_classes, ranked, ranked_by_class
from search.library.collection import Collection
from search.library.reviews import Reviews, standing_labels
from search.neighbours.groups import Rows
from search.schemas.evaluations import TrustWanted
from search.schemas.filters import Filter
from search.votes.knn import votes

Floats = NDArray[np.float64]
K = 10
"""The neighbour whose distance is the score."""
VOTING = 20
FEWEST = 20
"""Queries of each side below which nothing is said."""
INSIDE = (0.95, 0.99)
"""Shares of known queries that a threshold lets pass, on those that choose it."""


@dataclass(frozen=True)
class Threshold:
    """What a threshold on the distance does to queries that did not choose it."""

    passes: float
    """Share of the known queries that it was chosen to let pass."""
    distance: float
    sensitivity: float
    """Share of the strange queries that are recognised."""
    specificity: float
    """Share of the known queries that pass."""
    sensitivity_interval: tuple[float, float]
    specificity_interval: tuple[float, float]


@dataclass(frozen=True)
class Strange:
    """How well one kind of strange query is told from known ones."""

    kind: str
    """`unseen label`, `unseen site` or `outside`."""
    value: str
    """The label, the site, or what the outside is."""
    known: int
    strange: int
    auroc: float
    """Of the distance: 1 where every strange query is farther than every known one."""
    interval: tuple[float, float]
    """95 %, whole groups drawn."""
    thresholds: tuple[Threshold, ...]


@dataclass(frozen=True)
class Year:
    """Scores on the items of one year, neighbours from before the cutoff alone."""

    year: int
    queries: int
    auroc: float
    """Mean over the labels that the year has, one against the rest, by share of the vote."""
    interval: tuple[float, float]


@dataclass(frozen=True)
class Decay:
    """How the AUROC moves with the year of acquisition."""

    cutoff: str
    """The last day of what neighbours are taken from."""
    train: int
    years: tuple[Year, ...]
    per_year: float | None
    """Slope of a line through the years; `None` for fewer than two."""
    interval: tuple[float, float] | None


@dataclass(frozen=True)
class Trust:
    """All of it, and what could not be measured."""

    strange: tuple[Strange, ...]
    decay: Decay | None
    notes: tuple[str, ...]


def auroc(known: Floats, strange: Floats) -> float:
    """The chance that a strange query is farther than a known one, ties as halves."""
    scores = np.concatenate([known, strange])
    positive = np.arange(len(scores)) >= len(known)
    return float(ranked(scores, positive, np.ones((1, len(scores)))).auroc[0])


def kth_distances(cells: Cells, queries: Rows, references: Rows, k: int = K) -> tuple[Floats, Rows]:
    """Cosine distance of the k-th reference outside each query's own group, and the groups.

    The last one where there are fewer; queries without any are left out.
    """
    vectors = cells.vectors[references]
    found = np.full(len(queries), np.nan)
    k = min(k, len(references))
    if not k:
        return np.empty(0), np.empty(0, np.int64)
    for at in range(0, len(queries), 256):
        rows = queries[at : at + 256]
        scores = cells.vectors[rows] @ vectors.T
        scores[cells.group[rows][:, None] == cells.group[references][None]] = -np.inf
        best = np.sort(np.partition(scores, -k, axis=1)[:, -k:], axis=1)
        last = np.isfinite(best).argmax(axis=1)  # the smallest of those that there are
        kth = np.take_along_axis(best, last[:, None], axis=1)[:, 0]
        found[at : at + 256] = np.where(np.isfinite(kth), 1 - kth, np.nan)
    there = np.isfinite(found)
    return found[there], cells.group[queries][there]


def told_apart(
    kind: str, value: str, known: tuple[Floats, Rows], strange: tuple[Floats, Rows], seed: int
) -> Strange:
    """AUROC, and what thresholds do that half of the known groups chose.

    Args:
        kind: See `Strange`.
        value: See `Strange`.
        known: Distances and groups of known queries.
        strange: The same of strange ones.
        seed: Of halves and draws.
    """
    rng = np.random.default_rng(seed)
    groups = np.unique(known[1])
    chooses = np.isin(known[1], rng.permutation(groups)[: max(1, len(groups) // 2)])
    judged = ~chooses if (~chooses).any() and chooses.any() else np.ones(len(chooses), bool)
    drawn = _drawn(known[1], strange[1], rng)
    draws = [auroc(known[0][a], strange[0][b]) for a, b in drawn]
    thresholds = []
    for share in INSIDE:
        limit = float(np.quantile(known[0][chooses], share))
        passes, tells = known[0][judged] <= limit, strange[0] > limit
        pairs = list(_drawn(known[1][judged], strange[1], rng))
        thresholds.append(
            Threshold(
                passes=share,
                distance=limit,
                sensitivity=float(tells.mean()),
                specificity=float(passes.mean()),
                sensitivity_interval=_ends([tells[b].mean() for _, b in pairs]),
                specificity_interval=_ends([passes[a].mean() for a, _ in pairs]),
            )
        )
    return Strange(
        kind, value, len(known[0]), len(strange[0]), auroc(known[0], strange[0]), _ends(draws),
        tuple(thresholds),
    )  # fmt: skip


def _drawn(
    first: Rows, second: Rows, rng: np.random.Generator, times: int = 200
) -> Sequence[tuple[Rows, Rows]]:
    """Rows of whole groups of two samples, drawn with replacement."""

    def parts(groups: Rows) -> list[Rows]:
        order = np.argsort(groups, kind="stable")
        return np.split(order, np.flatnonzero(np.diff(groups[order])) + 1)

    one, other = parts(first), parts(second)

    def draw(of: list[Rows]) -> Rows:
        return np.concatenate([of[at] for at in rng.integers(len(of), size=len(of))])

    return [(draw(one), draw(other)) for _ in range(times)]


def _ends(values: Sequence[float]) -> tuple[float, float]:
    low, high = ends(np.asarray(values, np.float64))
    return float(low), float(high)


def unseen(
    cells: Cells, kind: str, values: NDArray[np.str_], most: int, seed: int
) -> tuple[list[Strange], list[str]]:
    """Each label (or site) taken out of the references in turn, its items asked.

    Args:
        cells: Of the collection.
        kind: `unseen label` or `unseen site`.
        values: The label or the site of each; empty for none.
        most: Queries of each side.
        seed: Of what is drawn.
    """
    found, notes = [], []
    names = [name for name in np.unique(values) if name]
    if len(names) < 2:
        return [], [f"{kind}: fewer than two there"]
    rng = np.random.default_rng(seed)
    for name in names:
        out = values == name
        references = np.flatnonzero(~out & (values != ""))
        strange = rng.permutation(np.flatnonzero(out))[:most]
        known = rng.permutation(references)[:most]
        sides = [kth_distances(cells, rows, references) for rows in (known, strange)]
        if min(len(distances) for distances, _ in sides) < FEWEST:
            notes.append(f"{kind} {name}: fewer than {FEWEST} queries on a side")
            continue
        found.append(told_apart(kind, str(name), sides[0], sides[1], seed))
    return found, notes


def outside(cells: Cells, strangers: Cells, value: str, most: int, seed: int) -> Strange | None:
    """Items of another kind altogether (tissue among blood) asked of the collection; `None` where
    too few can be."""
    rng = np.random.default_rng(seed)
    both = cells.joined(strangers)
    references = np.arange(len(cells))
    known = rng.permutation(references)[:most]
    strange = len(cells) + rng.permutation(len(strangers))[:most]
    sides = [kth_distances(both, rows, references) for rows in (known, strange)]
    if min(len(distances) for distances, _ in sides) < FEWEST:
        return None
    return told_apart("outside", value, sides[0], sides[1], seed)


def decay_of(cells: Cells, cutoff: date | None, most: int, seed: int) -> Decay | str:
    """AUROC by year after a cutoff, neighbours from before it; or why it cannot be said.

    Args:
        cells: Labelled items, some with a day.
        cutoff: The last day of the references; `None`: the end of the first year.
        most: Queries of a year.
        seed: Of what is drawn.
    """
    dated = cells.days > UNDATED
    if not dated.any():
        return "decay by year: no item has a day of acquisition"
    years = np.array([_day(at).year if at > UNDATED else 0 for at in cells.days.tolist()])
    last = cutoff or date(int(years[dated].min()), 12, 31)
    train = np.flatnonzero(dated & (cells.days <= (last - date(1970, 1, 1)).days))
    if len(train) < FEWEST or len(np.unique(cells.labels[train])) < 2:
        return f"decay by year: too few items or labels up to {last}"
    rng = np.random.default_rng(seed)
    found, draws = [], []
    for year in sorted(set(years[dated & (years > last.year)].tolist())):
        rows = rng.permutation(np.flatnonzero(years == year))[:most]
        rows = rows[np.isin(cells.labels[rows], cells.labels[train])]
        if len(rows) < FEWEST or len(np.unique(cells.labels[rows])) < 2:
            continue
        score = _year_auroc(cells, train, rows)
        drawn = [score(rows_of) for rows_of, _ in _drawn(cells.group[rows], rows, rng)]
        draws.append(drawn)
        found.append(Year(year, len(rows), score(np.arange(len(rows))), _ends(drawn)))
    if not found:
        return f"decay by year: no year after {last} has {FEWEST} items of two labels"
    slope, interval = None, None
    if len(found) > 1:
        at = np.array([one.year for one in found], float)
        slope = float(np.polyfit(at, [one.auroc for one in found], 1)[0])
        interval = _ends([float(np.polyfit(at, one, 1)[0]) for one in zip(*draws, strict=True)])
    return Decay(last.isoformat(), len(train), tuple(found), slope, interval)


def _year_auroc(cells: Cells, train: Rows, rows: Rows) -> Callable[[Rows], float]:
    """The mean AUROC over labels of the votes on some of the rows."""
    names, known = np.unique(cells.labels[train], return_inverse=True)
    k = min(VOTING, len(train))
    scores = cells.vectors[rows] @ cells.vectors[train].T
    scores[cells.group[rows][:, None] == cells.group[train][None]] = -np.inf
    near = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    cosines = np.take_along_axis(scores, near, axis=1)
    made = votes(np.where(np.isfinite(cosines), known[near], -1), cosines, len(names), "similarity")
    wanted = np.searchsorted(names, cells.labels[rows])

    def of(part: Rows) -> float:
        one = np.ones((1, len(part)))
        areas, _ = ranked_by_class(made.shares[part], wanted[part], one)
        return float(mean_of_classes(areas)[0])

    return of


def _day(days: int) -> date:
    return date(1970, 1, 1) + timedelta(days=days)


MOST_CELLS = 35_000
"""Items that are looked at, labels in proportion."""
MOST_STRANGERS = 5_000
"""The same of strangers: together they are as many as `neighbours.duplicates.COMPARED`."""


def trust_of_collection(collection: Collection, wanted: TrustWanted) -> Trust:
    """Every figure that the items of a collection allow; see `trust_of`.

    Labels are those that votes go by: reviewers' before recorded ones. Patients are those of items
    and of the records of their cases.
    """
    labels = standing_labels(Reviews(collection.versions).all())
    patients = collection.cases.patients()

    def read(where: Filter) -> Cells:
        cells = read_labelled(collection.store, where, labels=labels, patients=patients)
        return replace(cells, hashes=tuple(collection.rows.picture_hashes(cells.ids)))

    cells, strangers = read(wanted.where), None
    if not wanted.outside.empty:
        strangers = read(wanted.outside)
        gone = set(strangers.ids)
        strangers = limited(strangers, MOST_STRANGERS, wanted.seed)
        kept = [at for at, id in enumerate(cells.ids) if id not in gone]
        cells = cells.take(np.array(kept, np.int64))
    cells, _ = limited(cells, MOST_CELLS, wanted.seed).grouped()
    found = trust_of(
        cells, strangers, cutoff=wanted.until, most=wanted.most,
        seed=wanted.seed,
    )  # fmt: skip
    return replace(found, notes=(*found.notes, *flattered(collection.card)))


def trust_of(
    cells: Cells,
    strangers: Cells | None = None,
    *,
    cutoff: date | None = None,
    most: int = 1000,
    seed: int = 0,
) -> Trust:
    """Every figure that the items allow.

    Args:
        cells: Labelled items of the collection.
        strangers: Items that are of no kind of it; `None` for none.
        cutoff: See `decay_of`.
        most: Queries of each side.
        seed: Of what is drawn.
    """
    labels, notes = unseen(cells, "unseen label", cells.labels, most, seed)
    sites = np.array([site or "" for site in cells.sites])
    by_site, more = unseen(cells, "unseen site", sites, most, seed)
    found = [*labels, *by_site]
    notes += more
    if strangers is not None:
        told = outside(cells, strangers, "outside", most, seed)
        if told is None:
            notes.append(f"outside: fewer than {FEWEST} labelled items on a side")
        else:
            found.append(told)
    decay = decay_of(cells, cutoff, most, seed)
    if isinstance(decay, str):
        return Trust(tuple(found), None, (*notes, decay))
    return Trust(tuple(found), decay, tuple(notes))
