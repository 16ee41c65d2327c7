"""Similar cases: candidates by votes, compared exactly as bags, own patient excluded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from time import perf_counter

import numpy as np

from search.cases.distances import (
    directions,
    histogram_distance,
    kmeans,
    max_sim_distance,
    mean_distance,
    mean_vector,
    pairs,
    transport_distance,
)
from search.errors import BadQuestion, NoSuchCase, NoSuchItem
from search.index.contract import (
    Store,
    Stored,
    Vectors,
    checked_vectors,
    need_fingerprint,
    scroll_all,
)
from search.library.collection import Collection
from search.neighbours.duplicates import IDENTICAL
from search.query.alignment import adapted
from search.query.caveats import image_warnings
from search.query.context import Context
from search.query.exclusion import (
    exclusion_filter,
    own_groups,
    patient_exclusion,
    understood,
    unknown_names,
)
from search.schemas.answers import Alignment, Hit
from search.schemas.cases import (
    CaseAnswer,
    CaseFacts,
    CaseMatch,
    CaseQuestion,
    CaseRecord,
    CellPair,
    Differential,
)
from search.schemas.filters import Filter
from search.schemas.items import Item, Keyword, source_id
from search.schemas.questions import BagField
from search.transforms.encoder import AdaptedEncoder
from search.votes.knn import vote

VOTING = 64
"""Cells of the query that vote for candidates, evenly chosen."""
BALLOT = 50
"""Neighbours of each that are counted; more where they name too few cases."""
LARGEST_BALLOT = 3200
K_LABEL = 10
"""Neighbours whose vote labels a cell without a label."""
FITTED_ON = 5000
"""Items that prototypes are fitted on: the first in order of id, which is as good as drawn."""
VALUES = 10_000
EXAMPLES = 24


@dataclass
class Bag:
    """The cells of a query."""

    vectors: Vectors
    items: list[Item] = field(default_factory=list)
    """Empty where the cells are not stored."""
    own: dict[str, set[str]] = field(default_factory=dict)
    """For each relation (item, source, case, patient) the values that the query has."""
    patient_known: bool = False
    warnings: list[str] = field(default_factory=list)
    alignment: Alignment | None = None
    """How uploaded cells were aligned."""


def similar_cases(
    context: Context, question: CaseQuestion, images: Sequence[bytes] = ()
) -> CaseAnswer:
    """The cases (slides, patients) whose cells look like the cells of one, nearest first.

    Raises:
        BadQuestion: not exactly one of a stored case, items, vectors and images.
        NoSuchCase, NoSuchItem, WrongEncoder, ImageError, BadVector: as they say.
    """
    collection, card, store = context.collection, context.collection.card, context.collection.store
    need_fingerprint(collection.name, card, question.fingerprint)
    started = perf_counter()
    about, misread = understood(question.about)
    question = question.model_copy(update={"about": about})
    misread += [one.words for one in unknown_names(store, question.not_these)]
    if not question.of_cases.empty:
        question = _within(collection, question)
    bag = query_bag(context, question, images)
    embedded_at = perf_counter()
    exclude = exclusion_filter(bag.own, question.exclude, question.not_these)
    values, complete = _candidates(store, question, bag, exclude)
    measure = _measure(context, question, bag)
    matches, duplicates, compared = [], 0, 0
    for value in values:
        theirs, whole, dropped = _cells(store, question, value, exclude, bag)
        duplicates += dropped
        if theirs:
            compared += 1
            rows = np.stack([one.vector for one in theirs])
            matches.append((measure(rows), value, theirs, whole))
    best = sorted(matches, key=lambda match: (match[0], match[1]))[: question.k]
    shown = tuple(
        match.model_copy(update={"records": records_of(collection, question.by, match)})
        for match in (_match(question, bag, *one) for one in best)
    )
    exclusion, notes = patient_exclusion(
        question.exclude,
        bag.patient_known,
        [one.item for match in best for one in match[2]],
        "compared cells",
        unknown_names(store, question.about),
    )
    warnings = [*misread, *bag.warnings, *notes]
    if len(shown) < question.k:
        warnings.append(f"Only {len(shown)} of the {question.k} cases asked for exist.")
    return CaseAnswer(
        cases=shown,
        collection=collection.name,
        by=question.by,
        distance=question.distance,
        encoder=card.id,
        fingerprint=card.fingerprint,
        cells=len(bag.vectors),
        differential=_query_differential(store, bag, exclude),
        compared=compared,
        complete=complete,
        patient_exclusion=exclusion,
        duplicates=duplicates,
        warnings=tuple(warnings),
        seconds={"embed": embedded_at - started, "search": perf_counter() - embedded_at},
        alignment=bag.alignment,
    )


def _within(collection: Collection, question: CaseQuestion) -> CaseQuestion:
    """The question with the cases that `of_cases` leaves among its conditions on cells.

    Raises:
        BadQuestion: it leaves none.
    """
    names = tuple(one.case for one in collection.cases.all(question.of_cases))
    where = question.where.both(Filter(case=names)) if names else None
    if where is None:
        raise BadQuestion(
            f"no case of collection {collection.name!r} has a record that meets of_cases; "
            "`hemaseek cases list` shows the records"
        )
    return question.model_copy(update={"where": where})


def records_of(collection: Collection, by: BagField, match: CaseMatch) -> tuple[CaseRecord, ...]:
    """What is known of the cases of a match, without the history."""
    cases = {match.value} if by == "case" else {pair.item.case for pair in match.pairs}
    known = collection.cases.of(sorted(case for case in cases if case is not None))
    return tuple(one.model_copy(update={"edits": ()}) for one in known.values())


def query_bag(context: Context, question: CaseQuestion, images: Sequence[bytes]) -> Bag:
    """The cells of a question about cases.

    Raises:
        BadQuestion: not exactly one of a stored case, items, vectors and images.
        NoSuchCase, NoSuchItem, ImageError, BadVector: as they say.
    """
    collection = context.collection
    given = [bool(images), question.case is not None, bool(question.items), bool(question.vectors)]
    if sum(given) != 1:
        raise BadQuestion(
            f"a question about cases needs exactly one of images, case, items and vectors, "
            f"got {sum(given)}"
        )
    if question.case is not None:
        return _stored_bag(collection, question, question.case)
    if question.items:
        return _bag_of(collection, question)
    if question.vectors:
        if question.fingerprint is None:
            raise BadQuestion(
                "vectors need the fingerprint of the encoder that made them, so that vectors "
                f"of two encoders never meet; this one's is {collection.card.fingerprint}"
            )
        if len({len(row) for row in question.vectors}) > 1:
            raise BadQuestion("the vectors of a case must all have the same length")
        rows = np.asarray(question.vectors, np.float64)
        return _from_about(question, Bag(checked_vectors(rows, collection.card.dim)))
    return _uploaded(context, question, images)


def _stored_bag(collection: Collection, question: CaseQuestion, value: str) -> Bag:
    """A stored case; its groups are those of all its cells, also of those not compared."""
    store, whole = collection.store, Filter.model_validate({question.by: (value,)})
    found = _first(scroll_all(store, whole), question.cells)
    if not found:
        raise NoSuchCase(question.by, value, collection.name)
    names: tuple[Keyword, ...] = ("source", "case", "patient")
    facets = {name: store.facet(name, whole, VALUES) for name in names}
    bag = Bag(
        np.stack([one.vector for one in found]),
        [one.item for one in found],
        {name: set(counts) for name, counts in facets.items()},
        patient_known=sum(facets["patient"].values()) == store.count(whole),
    )
    bag.own[question.by].add(value)
    bag.own["item"] = {one.item.id for one in found}
    return bag


def _bag_of(collection: Collection, question: CaseQuestion) -> Bag:
    ids = list(dict.fromkeys(question.items))
    found = collection.store.get(ids)
    if missing := set(ids) - {one.item.id for one in found}:
        raise NoSuchItem(min(missing), collection.name)
    bag = Bag(np.stack([one.vector for one in found]), [one.item for one in found])
    bag.own = own_groups(bag.items)
    for name, values in bag.own.items():
        values |= {getattr(question.about, name)} - {None}
    bag.own["item"] = set(ids)
    bag.patient_known = all(one.item.patient is not None for one in found)
    return bag


def _uploaded(context: Context, question: CaseQuestion, images: Sequence[bytes]) -> Bag:
    card, encoder = context.collection.card, context.encoder()
    plain = encoder.base if isinstance(encoder, AdaptedEncoder) else encoder
    vectors: list[Vectors] = []
    warnings: list[str] = []
    named = [(f"image {at}", image) for at, image in enumerate(images)]
    for batch in context.pictures.batches(named):
        if card.stain is not None:
            for at, one in enumerate(batch, sum(len(rows) for rows in vectors)):
                warnings += [f"Image {at}: {words}" for words in image_warnings(one, card)]
        vectors.append(plain.embed(batch))
    rows, alignment = np.concatenate(vectors), None
    if isinstance(encoder, AdaptedEncoder):
        rows, alignment = adapted(encoder.adaptation, rows, question.about)
    bag = _from_about(question, Bag(rows, alignment=alignment))
    bag.warnings += warnings
    bag.own.setdefault("source", set()).update(source_id(image) for image in images)
    return bag


def _from_about(question: CaseQuestion, bag: Bag) -> Bag:
    for name in ("source", "case", "patient"):
        if (value := getattr(question.about, name)) is not None:
            bag.own[name] = {value}
    bag.patient_known = question.about.patient is not None
    return bag


def _candidates(
    store: Store, question: CaseQuestion, bag: Bag, exclude: Filter
) -> tuple[list[str], bool]:
    """Names of the cases to compare, and whether they are all that there are."""
    most = question.candidates
    own = len(bag.own.get(question.by, ()))
    every = list(store.facet(question.by, question.where, most + own + 1))
    if len(every) <= most + own:
        return sorted(every), True
    at = np.linspace(0, len(bag.vectors) - 1, min(VOTING, len(bag.vectors))).round().astype(int)
    middle = mean_vector(bag.vectors).astype(np.float32)
    voters = np.unique(bag.vectors[at], axis=0)
    if np.any(middle):
        voters = np.concatenate([voters, middle[None]])
    where = None if question.where.empty else question.where
    ballot = BALLOT
    while True:
        lists = store.nearest_batch(voters, ballot, where, None if exclude.empty else exclude)
        votes = _votes(lists, question.by)
        full = any(len(hits) == ballot for hits in lists)
        if len(votes) >= most or not full or ballot >= LARGEST_BALLOT:
            break
        ballot *= 4
    order = sorted(votes, key=lambda value: (-round(votes[value], 9), value))
    return order[:most], False


def _votes(lists: Sequence[Sequence[Hit]], by: BagField) -> Counter[str]:
    """The sum over all voters of the cosine to the nearest cell of each case."""
    votes: Counter[str] = Counter()
    for hits in lists:
        best: dict[str, float] = {}
        for hit in hits:
            value = getattr(hit.item, by)
            if value is not None:
                best.setdefault(value, 1.0 + hit.score)
        votes.update(best)
    return votes


def _cells(
    store: Store, question: CaseQuestion, value: str, exclude: Filter, bag: Bag
) -> tuple[list[Stored], bool, int]:
    """The cells of a case that may be compared, whether all, and equal vectors left out."""
    where = question.where.both(Filter.model_validate({question.by: (value,)}))
    if where is None:
        return [], True, 0
    allowed = (one for one in scroll_all(store, where) if not exclude.hits(one.item))
    found = _first(allowed, question.cells + 1)
    whole, found = len(found) <= question.cells, found[: question.cells]
    if "duplicate" not in question.exclude or not found:
        return found, whole, 0
    rows = np.stack([one.vector for one in found])
    equal = (rows @ bag.vectors.T).max(axis=1) >= IDENTICAL
    kept = [one for one, same in zip(found, equal, strict=True) if not same]
    return kept, whole, int(equal.sum())


def _measure(context: Context, question: CaseQuestion, bag: Bag) -> Callable[[Vectors], float]:
    if question.distance == "mean":
        return lambda rows: _positive(mean_distance(bag.vectors, rows))
    if question.distance == "max_sim":
        return lambda rows: _positive(max_sim_distance(bag.vectors, rows))
    if question.distance == "prototypes":
        prototypes = prototypes_of(context, question.prototypes)
        return lambda rows: histogram_distance(bag.vectors, rows, prototypes)
    along = directions(context.collection.card.dim)
    return lambda rows: transport_distance(bag.vectors, rows, along)


def prototypes_of(context: Context, n: int) -> Vectors:
    """Prototypes of a collection, n x dim: fitted at first use and again after each write."""
    collection = context.collection
    return context.prototypes.of(collection, (n,), lambda: _fit_prototypes(collection.store, n))


def _fit_prototypes(store: Store, n: int) -> Vectors:
    found = _first(scroll_all(store), FITTED_ON)
    if not found:
        raise BadQuestion(f"collection {store.name!r} is empty: it has no prototypes")
    return kmeans(np.stack([one.vector for one in found]), n)


def _match(
    question: CaseQuestion,
    bag: Bag,
    distance: float,
    value: str,
    theirs: list[Stored],
    whole: bool,
) -> CaseMatch:
    rows = np.stack([one.vector for one in theirs])
    items = [one.item for one in theirs]
    return CaseMatch(
        value=value,
        distance=distance,
        cells=len(theirs),
        complete=whole,
        patients=_values(items, "patient"),
        sites=_values(items, "site"),
        differential=_differential([item.label for item in items]),
        pairs=tuple(
            CellPair(
                cell=mine,
                query_item=bag.items[mine].id if bag.items else None,
                item=items[other],
                score=score,
            )
            for mine, other, score in pairs(bag.vectors, rows, question.pairs)
        ),
    )


def _query_differential(store: Store, bag: Bag, exclude: Filter) -> Differential:
    """By the query's own labels; where it has none, by the votes of the neighbours of each cell."""
    if any(item.label is not None for item in bag.items):
        return _differential([item.label for item in bag.items])
    lists = store.nearest_batch(bag.vectors, K_LABEL, None, None if exclude.empty else exclude)
    found = _differential([vote(hits).label for hits in lists])
    return found.model_copy(update={"origin": "votes"})


def _differential(labels: Sequence[str | None]) -> Differential:
    counts = Counter(label for label in labels if label is not None)
    order = sorted(counts, key=lambda label: (-counts[label], label))
    return Differential(
        shares={label: counts[label] / counts.total() for label in order},
        cells=counts.total(),
        unlabelled=len(labels) - counts.total(),
        origin="labels",
    )


def case_facts(collection: Collection, by: BagField, value: str) -> CaseFacts:
    """What there is of a case (or a slide, or a patient).

    Raises:
        NoSuchCase: no item belongs to it.
    """
    store, whole = collection.store, Filter.model_validate({by: (value,)})
    items = store.count(whole)
    if not items:
        raise NoSuchCase(by, value, collection.name)
    labels = store.facet("label", whole, VALUES)
    labelled = sum(labels.values())

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
        differential=Differential(
            shares={label: n / labelled for label, n in labels.items()},
            cells=labelled,
            unlabelled=items - labelled,
            origin="labels",
        ),
        examples=tuple(one.item for one in store.scroll(whole, EXAMPLES).items),
        records=tuple(collection.cases.of(values("case")).values()),
    )


def _values(items: Sequence[Item], name: str) -> tuple[str, ...]:
    return tuple(sorted({getattr(item, name) for item in items} - {None}))


def _first(stored: Iterable[Stored], most: int) -> list[Stored]:
    found: list[Stored] = []
    for one in stored:
        found.append(one)
        if len(found) == most:
            break
    return found


def _positive(distance: float) -> float:
    """Cosines of equal vectors come a hair above 1."""
    return max(0.0, distance)
