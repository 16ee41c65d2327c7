"""Similar cases: chosen by their vectors or by votes, compared as bags, own patient excluded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from time import perf_counter
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from search.cases.bags import Bag, query_bag
from search.cases.distances import (
    Floats,
    directions,
    histogram,
    kmeans,
    max_sims,
    mean_vector,
    pairs,
    transport_distance,
    vlad,
)
from search.cases.learned import nearest, pool_of
from search.cases.mosaic import MOSAIC, mosaic
from search.cases.relabelled import Relabelled, recounted, relabelled
from search.cases.represented import (
    FITTED_ON,
    POOLINGS,
    PROTOTYPES,
    Cases,
    Pooling,
    Represented,
    Words,
    alone,
    facts_of,
    using_cases,
)
from search.errors import BadQuestion, NoSuchCase
from search.index.contract import Store, Stored, Vectors, need_fingerprint, scroll_all
from search.index.recorded import RecordedStore
from search.library.collection import Collection
from search.neighbours.duplicates import IDENTICAL
from search.query.context import Context
from search.query.exclusion import (
    exclusion_filter,
    patient_exclusion,
    understood,
    unknown_names,
)
from search.schemas.answers import Hit
from search.schemas.cases import (
    MOST_CELLS,
    CaseAnswer,
    CaseFacts,
    CaseMatch,
    CaseQuestion,
    CaseRecord,
    CellPair,
    Differential,
    MosaicCell,
)
from search.schemas.filters import Filter
from search.schemas.items import Item, Keyword, with_patient
from search.schemas.questions import BagField
from search.votes.knn import vote, with_reviews

VOTING = 64
"""Cells of the query that vote for candidates, evenly chosen."""
BALLOT = 50
"""Neighbours of each that are counted; more where they name too few cases."""
LARGEST_BALLOT = 3200
SPARE = 8
"""Cases looked at beyond those that are wanted: some may turn out to be of the query's source."""
FEW = 500
"""Cases that a condition on records leaves, and that are compared without being searched for."""
K_LABEL = 10
"""Neighbours whose vote labels a cell without a label."""
MANY = 4
"""Cells of a case that are read for each that is compared."""
TOGETHER = 1 << 16
"""Cells of cases that are compared with the query at once."""
VALUES = 10_000
EXAMPLES = 24
SHOWN = 36
"""Cells of the mosaic that is looked at."""
POOLED: dict[str, tuple[Pooling, ...]] = {
    "mean": ("mean",),
    "vlad": ("vlad",),
    "prototypes": ("prototypes", "mean"),
    "composition": ("composition",),
}
"""By which vectors candidates are chosen, for each distance; others take mean and VLAD."""
Measure = Callable[[Sequence[Represented], Vectors], Floats]
"""Distances of cases to the query, from them and the cosines of all their cells (rows) to those of
the query."""


@dataclass(frozen=True)
class Compared:
    """A case that was compared with the query."""

    distance: float
    case: Represented
    """Without the cells that are the query's own."""
    whole: bool
    """Whether these are all of its cells."""
    dropped: int
    """Cells that were left out because the query has the same vector."""


@dataclass
class Search:
    """One question on its way."""

    context: Context
    question: CaseQuestion
    bag: Bag
    exclude: Filter
    """What no compared cell may be."""
    measure: Measure
    allowed: frozenset[str] | None
    """Cases whose records meet `of_cases`; `None` where nothing is asked of records."""
    reviews: Relabelled = ()
    """Cells of the collection that count with a reviewer's label."""
    named: Mapping[str, str] = field(default_factory=dict)
    """Patients that records name, by case."""
    compared: int = 0
    duplicates: int = 0

    @property
    def store(self) -> RecordedStore:
        """Of the collection's cells."""
        return self.context.collection.store

    @cached_property
    def barred(self) -> frozenset[str]:
        """Cases that are not compared, of the query itself or of its patients."""
        return frozenset(self.exclude.case)


def similar_cases(
    context: Context, question: CaseQuestion, images: Sequence[bytes] = ()
) -> CaseAnswer:
    """The cases (slides, patients) whose cells look like the cells of one, nearest first.

    Cases and slides are found by their own vectors and compared by their mosaics. Where a
    question has conditions on cells, or is about patients, candidates are found by their cells,
    and the cells that meet the conditions are read.

    Raises:
        BadQuestion: not exactly one of a stored case, items, vectors and images; or records
            that no case has.
        NoSuchCase, NoSuchItem, WrongEncoder, ImageError, BadVector: as they say.
    """
    collection, card = context.collection, context.collection.card
    need_fingerprint(collection.name, card, question.fingerprint)
    started = perf_counter()
    about, misread = understood(question.about)
    question = question.model_copy(update={"about": about})
    misread += [one.words for one in unknown_names(collection.store, question.not_these)]
    with using(context, question) as cases:
        bag = query_bag(context, question, images, cases)
        embedded_at = perf_counter()
        search = _search(context, question, bag, cases)
        best, complete = _by_cells(search) if cases is None else _by_vectors(search, cases)
    shown = _matches(search, best)
    exclusion, notes = patient_exclusion(
        question.exclude,
        bag.patient_known,
        [who for one in best for who in _patients(search, one.case)],
        "compared cells",
        unknown_names(collection.store, question.about),
    )
    warnings = [*misread, *bag.warnings, *notes]
    if len(shown) < question.k:
        verb = "exists" if len(shown) == 1 else "exist"
        warnings.append(f"Only {len(shown)} of the {question.k} cases asked for {verb}.")
    return CaseAnswer(
        cases=shown,
        collection=collection.name,
        by=question.by,
        distance=question.distance,
        encoder=card.id,
        fingerprint=card.fingerprint,
        cells=bag.cells,
        differential=_query_differential(search),
        compared=search.compared,
        complete=complete,
        patient_exclusion=exclusion,
        duplicates=search.duplicates,
        warnings=tuple(warnings),
        seconds={"embed": embedded_at - started, "search": perf_counter() - embedded_at},
        alignment=bag.alignment,
    )


@contextmanager
def using(context: Context, question: CaseQuestion) -> Iterator[Cases | None]:
    """The represented cases that a question can be answered from; `None` for its cells.

    Raises:
        BadQuestion: only white cells are to be compared, and that was not prepared.
    """
    collection, by = context.collection, question.by
    plain = question.where.empty and question.not_these.empty and question.cells <= MOSAIC
    with ExitStack() as stack:
        cases: Cases | None = None
        if by != "patient" and plain:
            opened = using_cases(collection, by, question.found, context.count())
            cases = stack.enter_context(opened)
        if cases is None and question.found == "white":
            raise BadQuestion(
                "white cells alone are compared between cases or slides, without conditions on "
                "cells, and in a large collection once `hemaseek cases build --found white` has "
                "prepared them"
            )
        yield cases


def _search(context: Context, question: CaseQuestion, bag: Bag, cases: Cases | None) -> Search:
    collection = context.collection
    allowed = None
    if not question.of_cases.empty:
        allowed = frozenset(one.case for one in collection.cases.all(question.of_cases))
        if not allowed:
            raise BadQuestion(
                f"no case of collection {collection.name!r} has a record that meets the "
                "conditions on records (of_cases, `--where`); "
                "`hemaseek cases list` shows the records"
            )
    own = {name: set(values) for name, values in bag.own.items()}
    patients = set(question.not_these.patient)
    if "patient" in question.exclude:
        patients |= own.get("patient", set())
    known = collection.cases.cases_of(sorted(patients))  # whose case it is, records alone may say
    more = question.not_these.either(Filter(case=tuple(sorted(known))))
    exclude = exclusion_filter(own, question.exclude, more)
    measure = _measure(context, question, bag, cases)
    reviews = relabelled(context, question.labels)
    return Search(
        context, question, bag, exclude, measure, allowed, reviews, named=context.patients()
    )


# ---------------------------------------------------------------- by the vectors of cases


def _by_vectors(search: Search, cases: Cases) -> tuple[list[Compared], bool]:
    """The nearest cases by what represents them, and whether all were compared."""
    question, allowed = search.question, search.allowed
    own = len(search.bag.own.get(question.by, ()))
    if allowed is not None and question.by == "case" and len(allowed) <= FEW:
        return _ranked(search, cases, sorted(allowed)), True
    if cases.total <= question.candidates + own:
        return _ranked(search, cases, cases.values(cases.total)), True
    poolings = POOLED.get(question.distance, ("mean", "vlad"))
    pooled = len(poolings) == 1
    wanted = question.k + SPARE if pooled else max(question.candidates, question.k)
    bag = search.bag
    points = bag.points or cases.words.pooled(bag.vectors, bag.weights)
    limit = wanted
    sure = question.k if pooled else limit  # those beyond are spare
    without = Filter(case=search.exclude.case, patient=search.exclude.patient)
    while True:
        if question.distance == "learned":
            lists = [_by_learned(search, cases, limit)]
        else:
            lists = [
                cases.nearest(one, points[one], limit, None if without.empty else without, sure)
                for one in poolings
            ]
        names = [name for name in _in_turn(lists) if _may(search, name)][:wanted]
        best = _ranked(search, cases, names)
        enough = len(best) >= min(question.k, search.compared) and len(names) >= wanted
        if enough or len(lists[0]) < limit or limit >= cases.total:
            return best, False
        limit *= 4


def _by_learned(search: Search, cases: Cases, k: int) -> list[tuple[str, float]]:
    """The k nearest cases that may be compared, by the points of a case model."""
    bag, model = search.bag, search.question.model or ""
    pool = pool_of(search.context, model)
    query = pool(_pooled_for(search.question, bag), bag.vectors, bag.weights)
    limit = k
    while True:
        found = nearest(search.context, cases, model, query, limit)
        there = cases.get([name for name, _ in found])
        kept = [one for one in found if not _excluded(search, there[one[0]])]
        if len(kept) >= k or len(found) < limit:
            return kept[:k]
        limit *= 4


def _in_turn(lists: Sequence[Sequence[tuple[str, float]]]) -> list[str]:
    """The names of several lists, the first of each, then the second of each, each once."""
    longest = max(len(one) for one in lists)
    turns = (one[at][0] for at in range(longest) for one in lists if at < len(one))
    return list(dict.fromkeys(turns))


def _may(search: Search, name: str) -> bool:
    return search.allowed is None or search.question.by != "case" or name in search.allowed


def _ranked(search: Search, cases: Cases, names: Sequence[str]) -> list[Compared]:
    """The nearest of some cases that may be compared with the query."""
    points = tuple(one for one in POOLINGS if one == search.question.distance)
    there = cases.get(names, points).values()
    return _nearest(search, [(one, one.whole) for one in there if not _excluded(search, one)])


def _excluded(search: Search, case: Represented) -> bool:
    """Whether any cell of a case is what no compared cell may be."""
    facts, out = case.facts, search.question.exclude
    if search.allowed is not None and search.allowed.isdisjoint(facts.cases):
        return True
    source, patient, item = (search.bag.own.get(o, set()) for o in ("source", "patient", "item"))
    from_source = not source.isdisjoint(facts.sources)
    return (
        not search.barred.isdisjoint(facts.cases)
        or ("source" in out and from_source)
        or ("patient" in out and not patient.isdisjoint(facts.patients))
        or ("item" in out and from_source and not item.isdisjoint(case.ids))
    )


# ---------------------------------------------------------------- by cells


def _by_cells(search: Search) -> tuple[list[Compared], bool]:
    """The nearest cases by the cells that meet the question's conditions."""
    values, complete = _candidates(search)
    read = (_read(search, value) for value in values)
    return _nearest(search, ((one, whole) for one, whole in read if one is not None)), complete


def _candidates(search: Search) -> tuple[list[str], bool]:
    """Names of the cases to compare, and whether they are all that there are."""
    store, question, bag = search.store, search.question, search.bag
    most = question.candidates
    own = len(bag.own.get(question.by, ()))
    if search.allowed is not None and question.by == "case" and len(search.allowed) <= FEW:
        return sorted(search.allowed), True
    every = list(store.facet(question.by, question.where, most + own + 1))
    if len(every) <= most + own:
        return [name for name in sorted(every) if _may(search, name)], True
    at = np.linspace(0, len(bag.vectors) - 1, min(VOTING, len(bag.vectors))).round().astype(int)
    middle = mean_vector(bag.vectors, bag.weights).astype(np.float32)
    voters = np.unique(bag.vectors[at], axis=0)
    if np.any(middle):
        voters = np.concatenate([voters, middle[None]])
    where = None if question.where.empty else question.where
    without = None if search.exclude.empty else search.exclude
    ballot = BALLOT
    while True:
        lists = store.nearest_batch(voters, ballot, where, without)
        votes = _votes(lists, question.by, search.named)
        named = [value for value in votes if _may(search, value)]
        full = any(len(hits) == ballot for hits in lists)
        if len(named) >= most or not full or ballot >= LARGEST_BALLOT:
            break
        ballot *= 4
    return sorted(named, key=lambda value: (-round(votes[value], 9), value))[:most], False


def _votes(lists: Sequence[Sequence[Hit]], by: BagField, named: Mapping[str, str]) -> Counter[str]:
    """The sum over all voters of the cosine to the nearest cell of each case."""
    votes: Counter[str] = Counter()
    for hits in lists:
        best: dict[str, float] = {}
        for hit in hits:
            value = getattr(with_patient(hit.item, named), by)
            if value is not None:
                best.setdefault(value, 1.0 + hit.score)
        votes.update(best)
    return votes


def _read(search: Search, value: str) -> tuple[Represented | None, bool]:
    """The cells of a case that may be compared, and whether all of them are."""
    question = search.question
    where = question.where.both(Filter.model_validate({question.by: (value,)}))
    if where is None:
        return None, True
    allowed = (one for one in scroll_all(search.store, where) if _allowed(search, one))
    found = _first(allowed, MANY * question.cells + 1)
    if not found:
        return None, True
    rows, items = np.stack([one.vector for one in found]), [one.item for one in found]
    chosen = mosaic(rows, [item.label for item in items], question.cells)
    ids = tuple(items[at].id for at in chosen.rows)
    case = Represented(value, facts_of(items), ids, rows[chosen.rows], chosen.weights, {})
    return case, len(found) <= question.cells


def _allowed(search: Search, one: Stored) -> bool:
    known = search.allowed is None or one.item.case in search.allowed
    return known and not search.exclude.hits(one.item)


# ---------------------------------------------------------------- the distance


def _measure(context: Context, question: CaseQuestion, bag: Bag, cases: Cases | None) -> Measure:
    """The distance of a case to the query."""
    if question.distance == "max_sim":
        return lambda cases, cosines: max_sims(cosines, [o.weights for o in cases], bag.weights)
    if question.distance == "transport":
        along = directions(context.collection.card.dim)
        return _each(
            lambda case: transport_distance(
                bag.vectors, case.vectors, along, bag.weights, case.weights
            )
        )
    if question.distance == "prototypes":
        usual = cases is not None and question.prototypes == PROTOTYPES
        prototypes = (
            cases.words.prototypes
            if cases and usual
            else prototypes_of(context, question.prototypes)
        )
        kept = bag.points.get("prototypes") if usual else None
        mine = histogram(bag.vectors, prototypes, bag.weights) if kept is None else kept
        return _each(
            lambda case: float(np.abs(mine - _histogram(case, prototypes, usual)).sum() / 2)
        )
    if question.distance == "mean":
        return _pooled("mean", bag, mean_vector)
    if question.distance == "learned":
        pool = pool_of(context, question.model)
        query = pool(_pooled_for(question, bag), bag.vectors, bag.weights)
        named = context.patients()
        return _each(
            lambda case: 1.0 - float(query @ pool(case.patients(named), case.vectors, case.weights))
        )
    words = words_of(context) if cases is None else cases.words
    if question.distance == "composition":
        return _pooled("composition", bag, words.composition)
    return _pooled("vlad", bag, lambda rows, weights: vlad(rows, words.words, weights))


def _pooled_for(question: CaseQuestion, bag: Bag) -> list[str]:
    """The patients of a query, or what stands for that of a stored case if it is not known."""
    known = sorted(bag.own.get("patient", ()))
    return known or ([] if question.case is None else [alone(question.case)])


def words_of(context: Context) -> Words:
    """The prototypes that represent cases, where no case is represented."""
    store = context.collection.store
    return context.prototypes.of(
        context.collection, ("words",), lambda: Words.fitted(_sample(store))
    )


def _pooled(name: Pooling, bag: Bag, pool: Callable[[Vectors, Floats], Floats]) -> Measure:
    """1 - the cosine of two pooled vectors; that of a case is kept, or made from its cells."""
    query = bag.points.get(name)
    query = pool(bag.vectors, bag.weights) if query is None else query

    def distance(case: Represented) -> float:
        theirs = case.points.get(name)
        theirs = pool(case.vectors, case.weights) if theirs is None else theirs
        return 1.0 - float(query @ theirs)

    return _each(distance)


def _each(distance: Callable[[Represented], float]) -> Measure:
    """Case by case."""
    return lambda cases, _: np.array([distance(one) for one in cases], np.float64)


def _histogram(case: Represented, prototypes: Vectors, usual: bool) -> Floats:
    kept = case.points.get("prototypes") if usual else None
    return histogram(case.vectors, prototypes, case.weights) if kept is None else kept


def prototypes_of(context: Context, n: int) -> Vectors:
    """Prototypes of a collection, n x dim: fitted at first use and again after each write."""
    collection = context.collection
    return context.prototypes.of(collection, (n,), lambda: _fit_prototypes(collection.store, n))


def _fit_prototypes(store: Store, n: int) -> Vectors:
    return kmeans(_sample(store), n)


def _sample(store: Store) -> Vectors:
    found = _first(scroll_all(store), FITTED_ON)
    if not found:
        raise BadQuestion(f"collection {store.name!r} is empty: it has no prototypes")
    return np.stack([one.vector for one in found])


def _nearest(search: Search, there: Iterable[tuple[Represented, bool]]) -> list[Compared]:
    """The nearest of cases, each with whether it is whole, without the query's own pictures."""
    search.compared = search.duplicates = 0
    best: list[Compared] = []
    for part in _parts(there):
        best += _compared(search, part)
        best = sorted(best, key=lambda o: (o.distance, o.case.value))[: search.question.k]
    return best


def _parts(there: Iterable[tuple[Represented, bool]]) -> Iterator[list[tuple[Represented, bool]]]:
    """Some cases after the other, each time of no more than `TOGETHER` cells."""
    part: list[tuple[Represented, bool]] = []
    cells = 0
    for one in there:
        cells += len(one[0].vectors)
        if part and cells > TOGETHER:
            yield part
            part, cells = [], len(one[0].vectors)
        part.append(one)
    if part:
        yield part


def _compared(search: Search, there: Sequence[tuple[Represented, bool]]) -> list[Compared]:
    """Each of some cases, by one multiplication for all of their cells."""
    cases, dropped = [one for one, _ in there], [0] * len(there)
    cosines = np.concatenate([one.vectors for one in cases]) @ search.bag.vectors.T
    if "duplicate" in search.question.exclude:
        same = cosines.max(axis=1) >= IDENTICAL
        if same.any():
            parts = np.split(same, np.cumsum([len(one.vectors) for one in cases])[:-1])
            cases = [_without(one, part) for one, part in zip(cases, parts, strict=True)]
            dropped, cosines = [int(part.sum()) for part in parts], cosines[~same]
    left = [at for at, one in enumerate(cases) if len(one.vectors)]
    search.compared += len(left)
    search.duplicates += sum(dropped)
    if not left:
        return []
    distances = np.maximum(search.measure([cases[at] for at in left], cosines), 0)  # cosines pass 1
    return [
        Compared(distance, cases[at], there[at][1], dropped[at])
        for distance, at in zip(distances.tolist(), left, strict=True)
    ]


def _without(case: Represented, same: NDArray[np.bool_]) -> Represented:
    """A case without some of its cells."""
    if not same.any():
        return case
    ids = tuple(id for id, one in zip(case.ids, same, strict=True) if not one)
    vectors, weights = case.vectors[~same], case.weights[~same]
    return replace(case, vectors=vectors, weights=weights, points={}, ids=ids)


# ---------------------------------------------------------------- what is shown


def _matches(search: Search, best: Sequence[Compared]) -> tuple[CaseMatch, ...]:
    """Cases as they are shown, with their records and the pairs of cells that matched."""
    bag, by = search.bag, search.question.by
    most = search.question.pairs
    matched = [
        [
            (mine, one.case.ids[at], score)
            for mine, at, score in pairs(bag.vectors, one.case.vectors, most)
        ]
        for one in best
    ]
    ids = [id for few in matched for _, id, _ in few]
    items = {one.item.id: one.item for one in search.store.get(ids)} if ids else {}
    named = [(one.case.value,) if by == "case" else one.case.facts.cases for one in best]
    records = search.context.collection.cases.of([name for names in named for name in names])
    return tuple(
        CaseMatch(
            value=one.case.value,
            distance=one.distance,
            cells=one.case.facts.cells - one.dropped,
            complete=one.whole,
            records=tuple(_plain(records[name]) for name in names if name in records),
            patients=one.case.known_patients(search.named),
            sites=one.case.facts.sites,
            differential=_differential(search, one.case),
            pairs=tuple(
                _pair(bag, items[id], mine, score) for mine, id, score in few if id in items
            ),
        )
        for one, few, names in zip(best, matched, named, strict=True)
    )


def _pair(bag: Bag, item: Item, mine: int, score: float) -> CellPair:
    return CellPair(
        cell=int(bag.positions[mine]),
        query_item=bag.ids[mine] if bag.ids else None,
        item=item,
        score=score,
    )


def _plain(record: CaseRecord) -> CaseRecord:
    """A record without its history."""
    return record.model_copy(update={"edits": ()})


def _patients(search: Search, case: Represented) -> Iterator[str | None]:
    """The patient of every cell of a case, known by its items or by the records of its cases."""
    facts, known = case.facts, {search.named.get(name) for name in case.facts.cases}
    named = known.pop() if len(facts.cases) == 1 else None
    if search.question.by == "patient":  # an item without a patient is there by a record
        named = case.value
    yield from [named] * facts.without_patient
    yield from (facts.patients[:1] or (named,)) * (facts.cells - facts.without_patient)


def _query_differential(search: Search) -> Differential:
    """By the query's own labels; where it has none, by the votes of the neighbours of each cell."""
    bag, question = search.bag, search.question
    chosen = set(question.items)
    counts, reviewed = recounted(
        bag.labels,
        search.reviews,
        lambda item: (
            item.id in chosen
            or (question.case is not None and _value(search, item) == question.case)
        ),
    )
    if counts:
        return _shares(counts, bag.cells, "labels", reviewed)
    without = None if search.exclude.empty else search.exclude
    lists = search.store.nearest_batch(bag.vectors, K_LABEL, None, without)
    shares: Counter[str] = Counter()
    for hits, weight in zip(lists, bag.weights, strict=True):
        hits = with_reviews(hits, search.context.reviewed(question.labels))
        if (label := vote(hits).label) is not None:
            shares[label] += weight * bag.cells
    return _shares(shares, bag.cells, "votes")


def _differential(search: Search, case: Represented) -> Differential:
    where = search.store.understood(search.question.where)
    counts, reviewed = recounted(
        case.facts.labels,
        search.reviews,
        lambda item: (
            _value(search, item) == case.value
            and where.meets(item)
            and not search.exclude.hits(item)
        ),
    )
    return _shares(counts, case.facts.cells, "labels", reviewed)


def _value(search: Search, item: Item) -> str | None:
    """The case, slide or patient that an item belongs to."""
    value: str | None = getattr(with_patient(item, search.named), search.question.by)
    return value


def _shares(
    counts: Mapping[str, float],
    cells: int,
    origin: Literal["labels", "votes"],
    reviewed: int = 0,
) -> Differential:
    total = sum(counts.values())
    order = sorted(counts, key=lambda label: (-counts[label], label))
    return Differential(
        shares={label: counts[label] / total for label in order},
        cells=round(total),
        unlabelled=cells - round(total),
        origin=origin,
        reviewed=reviewed,
    )


def case_facts(
    collection: Collection, by: BagField, value: str, reviews: Relabelled = ()
) -> CaseFacts:
    """What there is of a case (or a slide, or a patient).

    Args:
        collection: Where it is.
        by: Of what it is the name.
        value: Its name.
        reviews: Cells that count with a reviewer's label: see `search.cases.relabelled`.

    Raises:
        NoSuchCase: no item belongs to it.
    """
    store = collection.store
    whole = store.understood(Filter.model_validate({by: (value,)}))
    items = store.count(whole)
    if not items:
        raise NoSuchCase(by, value, collection.name)
    labels, reviewed = recounted(store.facet("label", whole, VALUES), reviews, whole.meets)

    def values(name: Keyword) -> tuple[str, ...]:
        return tuple(sorted(store.facet(name, whole, VALUES)))

    return CaseFacts(
        value=value,
        by=by,
        collection=collection.name,
        items=items,
        cases=values("case"),
        patients=values("patient"),
        sites=values("site"),
        datasets=values("dataset"),
        sources=len(values("source")),
        differential=_shares(labels, items, "labels", reviewed),
        examples=tuple(one.item for one in store.scroll(whole, EXAMPLES).items),
        records=tuple(collection.cases.of(values("case")).values()),
        mosaic=_mosaic(store, whole),
    )


def _mosaic(store: Store, whole: Filter) -> tuple[MosaicCell, ...]:
    """Cells to be looked at instead of all of a case."""
    found = _first(scroll_all(store, whole), MOST_CELLS)
    chosen = mosaic(np.stack([o.vector for o in found]), [o.item.label for o in found], SHOWN)
    return tuple(
        MosaicCell(item=found[at].item, share=float(share))
        for at, share in zip(chosen.rows, chosen.weights, strict=True)
    )


def _first(stored: Iterable[Stored], most: int) -> list[Stored]:
    found: list[Stored] = []
    for one in stored:
        found.append(one)
        if len(found) == most:
            break
    return found
