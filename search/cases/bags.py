"""The query of a search for cases: a stored case, stored items, vectors, or images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from encoder.field_of_view import looked_at
from search.cases.distances import Floats
from search.cases.mosaic import mosaic
from search.cases.represented import Cases, Pooling, Represented
from search.errors import BadQuestion, NoSuchCase, NoSuchItem
from search.index.contract import Vectors, checked_vectors, scroll_all
from search.library.collection import Collection
from search.query.alignment import adapted
from search.query.caveats import IN_SAMPLE, image_warnings
from search.query.context import Context
from search.query.exclusion import own_groups, patients_of, recorded_patients
from search.schemas.answers import Alignment
from search.schemas.cases import MOST_CELLS, CaseQuestion
from search.schemas.filters import Filter
from search.schemas.items import Item, Keyword, source_id
from search.transforms.encoder import AdaptedEncoder

VALUES = 10_000


@dataclass
class Bag:
    """The cells of a query, and those of its mosaic."""

    vectors: Vectors
    """Of the mosaic."""
    weights: Floats
    """For each of its cells the share of the query that it stands for."""
    positions: NDArray[np.int64]
    """Of the mosaic's cells among those of the query."""
    cells: int
    """Of the whole query."""
    ids: Sequence[str] = ()
    """Of the mosaic's cells; empty where they are not stored."""
    items: list[Item] = field(default_factory=list)
    """The mosaic's cells, where the question named them."""
    points: Mapping[Pooling, Floats] = field(default_factory=dict)
    """The whole query as one vector, by each pooling, where it is a stored case."""
    labels: dict[str, int] = field(default_factory=dict)
    """Labels of all cells of the query, counted."""
    own: dict[str, set[str]] = field(default_factory=dict)
    """For each relation (item, source, case, patient) the values that the query has."""
    patient_known: bool = False
    warnings: list[str] = field(default_factory=list)
    alignment: Alignment | None = None
    """How uploaded cells were aligned."""


def query_bag(
    context: Context, question: CaseQuestion, images: Sequence[bytes], cases: Cases | None = None
) -> Bag:
    """What a question starts from.

    Args:
        context: The collection.
        question: The question.
        images: Uploaded ones.
        cases: Of the collection, where they are represented.

    Raises:
        BadQuestion: not exactly one of a stored case, items, vectors and images.
        NoSuchCase, NoSuchItem, WrongEncoder, ImageError, BadVector: as they say.
    """
    collection = context.collection
    given = [bool(images), question.case is not None, bool(question.items), bool(question.vectors)]
    if sum(given) != 1:
        raise BadQuestion(
            f"a question about cases needs exactly one of images, case, items and vectors, "
            f"got {sum(given)}"
        )
    if question.case is not None:
        bag = _stored_bag(collection, question, question.case, cases)
    elif question.items:
        bag = _bag_of(collection, question)
    elif question.vectors:
        bag = _of_vectors(collection, question)
    else:
        bag = _uploaded(context, question, images)
    _from_records(collection, bag, cased=_cased(collection, question))
    if bag.labels and collection.label_axes is not None:
        bag.warnings.append(IN_SAMPLE)
    return bag


def _cased(collection: Collection, question: CaseQuestion) -> bool:
    """Whether every cell of a question is of a case, so that records can name all patients."""
    if question.case is None or question.by == "case":
        return not question.items  # what is known of items is looked up item by item
    whole = Filter.model_validate({question.by: (question.case,)})
    counts = collection.store.facet("case", whole, VALUES)
    return sum(counts.values()) == collection.store.count(whole)


def _from_records(collection: Collection, bag: Bag, *, cased: bool) -> None:
    """Patients that only the records of cases name, and all cases of the query's patients."""
    cases = bag.own.setdefault("case", set())
    named = recorded_patients(collection.cases, sorted(cases))
    patients = bag.own.setdefault("patient", set())
    patients |= set(named.values())
    bag.patient_known = bag.patient_known or (cased and bool(cases) and set(named) == cases)


def _stored_bag(
    collection: Collection, question: CaseQuestion, value: str, cases: Cases | None
) -> Bag:
    """A stored case; its groups are those of all its cells, also of those not compared."""
    store, whole = collection.store, Filter.model_validate({question.by: (value,)})
    there = None if cases is None else cases.get([value]).get(value)
    if there is not None and question.found == "all":
        bag = _of_represented(there)
    else:
        names: tuple[Keyword, ...] = ("source", "case", "patient")
        facets = {name: store.facet(name, whole, VALUES) for name in names}
        if not facets["source"]:
            raise NoSuchCase(question.by, value, collection.name)
        bag = _of_cells(collection, question, value) if there is None else _of_represented(there)
        bag.own = {name: set(counts) for name, counts in facets.items()}
        bag.patient_known = sum(facets["patient"].values()) == store.count(whole)
    bag.own[question.by].add(value)
    bag.own["item"] = set(bag.ids)
    return bag


def _of_represented(there: Represented) -> Bag:
    facts = there.facts
    return Bag(
        there.vectors,
        there.weights,
        np.arange(len(there.vectors)),
        facts.cells,
        there.ids,
        points=there.points,
        labels=dict(facts.labels),
        own={
            "source": set(facts.sources),
            "case": set(facts.cases),
            "patient": set(facts.patients),
        },
        patient_known=not facts.without_patient,
    )


def _of_cells(collection: Collection, question: CaseQuestion, value: str) -> Bag:
    """A stored case by its cells, where it is not represented."""
    if question.found == "white":
        raise BadQuestion(
            f"{question.by} {value!r} has no white cell that can be compared; ask for all cells"
        )
    found = []
    for one in scroll_all(collection.store, Filter.model_validate({question.by: (value,)})):
        found.append(one)
        if len(found) == MOST_CELLS:
            break
    items = [one.item for one in found]
    return _of_items(np.stack([one.vector for one in found]), items, question)


def _of_items(vectors: Vectors, items: Sequence[Item], question: CaseQuestion) -> Bag:
    chosen = mosaic(vectors, [item.label for item in items], question.cells)
    labels = [item.label for item in items if item.label is not None]
    return Bag(
        vectors[chosen.rows],
        chosen.weights,
        chosen.rows,
        len(vectors),
        tuple(items[at].id for at in chosen.rows),
        [items[at] for at in chosen.rows],
        labels={label: labels.count(label) for label in dict.fromkeys(labels)},
    )


def _bag_of(collection: Collection, question: CaseQuestion) -> Bag:
    ids = list(dict.fromkeys(question.items))
    found = collection.store.get(ids)
    if missing := set(ids) - {one.item.id for one in found}:
        raise NoSuchItem(min(missing), collection.name)
    items = [one.item for one in found]
    bag = _of_items(np.stack([one.vector for one in found]), items, question)
    bag.own = own_groups(items)
    for name, values in bag.own.items():
        values |= {getattr(question.about, name)} - {None}
    bag.own["item"] = set(ids)
    bag.patient_known = None not in patients_of(collection.cases, items)
    return bag


def _of_vectors(collection: Collection, question: CaseQuestion) -> Bag:
    if question.fingerprint is None:
        raise BadQuestion(
            "vectors need the fingerprint of the encoder that made them, so that vectors "
            f"of two encoders never meet; this one's is {collection.card.fingerprint}"
        )
    if len({len(row) for row in question.vectors}) > 1:
        raise BadQuestion("the vectors of a case must all have the same length")
    rows = np.asarray(question.vectors, np.float64)
    return _unstored(question, checked_vectors(rows, collection.card.dim))


def _unstored(question: CaseQuestion, rows: Vectors) -> Bag:
    """Cells that are not stored, with what is known about them."""
    chosen = mosaic(rows, [None] * len(rows), question.cells)
    bag = Bag(rows[chosen.rows], chosen.weights, chosen.rows, len(rows))
    for name in ("source", "case", "patient"):
        if (value := getattr(question.about, name)) is not None:
            bag.own[name] = {value}
    bag.patient_known = question.about.patient is not None
    return bag


def _uploaded(context: Context, question: CaseQuestion, images: Sequence[bytes]) -> Bag:
    context.pictures.check_together(images)
    card, encoder = context.collection.card, context.encoder()
    plain = encoder.base if isinstance(encoder, AdaptedEncoder) else encoder
    vectors: list[Vectors] = []
    warnings: list[str] = []
    named = [(f"image {at}", image) for at, image in enumerate(images)]
    for batch in context.pictures.batches(named):
        if card.stain is not None:
            for at, one in enumerate(batch, sum(len(rows) for rows in vectors)):
                warnings += [f"Image {at}: {words}" for words in image_warnings(one, card)]
        fields, um = plain.card.fields_um, question.about.um_per_px
        vectors.append(
            plain.embed([looked_at(one, fields, um, question.about.cell) for one in batch])
        )
    rows, alignment = np.concatenate(vectors), None
    if isinstance(encoder, AdaptedEncoder):
        rows, alignment = adapted(encoder.adaptation, rows, question.about)
    bag = _unstored(question, rows)
    bag.alignment = alignment
    bag.warnings += warnings
    bag.own.setdefault("source", set()).update(source_id(image) for image in images)
    return bag
