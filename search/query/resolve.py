"""What a question starts from: its vectors, its own groups, and what may be found."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from encoder.contract import RGB, Encoder, NoPatchTokens, Vectors
from search.errors import BadQuestion
from search.index.contract import Stored, checked_vectors
from search.library.collection import Collection
from search.library.shards import make_thumbnail
from search.library.sources import crop
from search.neighbours.duplicates import IDENTICAL, PictureHash, perceptual_hash, same_picture
from search.query.alignment import (
    BY_OWN_CELLS,
    OWN,
    adapted,
    apply_own,
    card_of_query,
    goes_by_own_cells,
)
from search.query.caveats import IN_SAMPLE, image_warnings, span_um, unfit
from search.query.context import Context
from search.query.exclusion import (
    UnknownName,
    exclusion_filter,
    patients_of,
    recorded_patients,
    understood,
    unknown_names,
)
from search.query.pictures import Opened, OwnCells, View, view_of
from search.query.refine import BestScore, average_vector, joined, measured_part, region_vector
from search.query.searcher import Rank, Searcher
from search.query.stored import stored
from search.schemas.answers import Alignment, Hit, LookedAt
from search.schemas.filters import Filter
from search.schemas.items import Box, Item, source_id
from search.schemas.questions import About, Question, Refinement
from search.transforms.encoder import AdaptedEncoder

MEASURED = 4_000_000
"""A query of more pixels is not searched for red cells: it would keep a person waiting."""


@dataclass
class Query:
    """A question, ready to be searched with."""

    like: list[Vectors]
    """The vectors that hits should be near to: the query's own, then those of examples."""
    unlike: list[Vectors] = field(default_factory=list)
    item: Item | None = None
    """The stored item that it starts from."""
    own: dict[str, set[str]] = field(default_factory=dict)
    """For each relation (item, source, case, patient) the values that the query has."""
    recorded_cases: set[str] = field(default_factory=set)
    """The cases that records alone call those of its patients."""
    left_out_cases: set[str] = field(default_factory=set)
    """The cases that records alone call those of patients who are to be left out besides."""
    patient_known: bool = False
    """Whether the patient of everything that the query is made of is known."""
    unknown_names: list[UnknownName] = field(default_factory=list)
    """The patient or case that it names and that no stored item has."""
    site: str | None = None
    warnings: list[str] = field(default_factory=list)
    in_sample: bool = False
    """Whether labels of stored items that it is made of may have chosen the axes of the index."""
    unfit: list[str] = field(default_factory=list)
    """Those of the warnings with which its picture is no basis for a verdict."""
    span_um: float | None = None
    """Micrometres that the longer side of its picture spans, where they are known."""
    pictured: bool = False
    """Whether it is made of pictures, uploaded or stored, and not of a bare vector."""
    looked_at: LookedAt | None = None
    """What of its picture was embedded, where it was uploaded."""
    alignment: Alignment | None = None
    """How its vector was aligned, where the index aligns sites and it is not stored."""
    hashes: set[PictureHash] = field(default_factory=set)
    """Perceptual hashes of the query's pictures."""

    def include(self, about: About | Item) -> None:
        """Count an image or an item as one that the query is made of."""
        for name in ("source", "case", "patient"):
            value = getattr(about, name)
            if value is not None:
                self.own.setdefault(name, set()).add(value)

    def exclusion(self, question: Question) -> Filter:
        """Everything that no hit may be, as one filter."""
        cases = set(self.left_out_cases)
        if "patient" in question.exclude:
            cases |= self.recorded_cases
        more = question.not_these.either(Filter(case=tuple(sorted(cases))))
        return exclusion_filter(self.own, question.exclude, more)


def resolve(context: Context, question: Question, image: bytes | Opened | None) -> Query:
    """What a question starts from.

    Raises:
        BadQuestion: not exactly one of image, item and vector (or, with examples, more than
            one); a vector without the fingerprint of its encoder; a region without an image.
        NoSuchItem: an item or an example that is not there.
    """
    about, warnings = understood(question.about)
    question = question.model_copy(update={"about": about})
    store = context.collection.store
    records = context.collection.cases
    warnings += [one.words for one in unknown_names(store, question.not_these)]
    query = Query(like=[], unknown_names=unknown_names(store, about), warnings=warnings)
    given = [image is not None, question.item is not None, question.vector is not None]
    examples = isinstance(question, Refinement) and bool(question.like)
    if sum(given) > 1 or (not any(given) and not examples):
        raise BadQuestion(
            f"a question needs exactly one of image, item and vector, got {sum(given)}"
            + ("; or examples under 'like'" if isinstance(question, Refinement) else "")
        )
    if question.crop is not None and image is None:
        raise BadQuestion("a crop is a part of an uploaded image; send the image with it")
    if isinstance(question, Refinement) and question.region is not None and image is None:
        raise BadQuestion("a region is a part of an uploaded image; send the image with it")
    if image is not None:
        _from_image(query, context, question, image)
    elif question.item is not None:
        _from_item(query, context, stored(context.collection, question.item))
        query.include(question.about)
        query.patient_known |= question.about.patient is not None
    elif question.vector is not None:
        _from_vector(query, context.collection, question)
    if isinstance(question, Refinement):
        _with_examples(query, context, question, alone=not any(given))
    _from_records(query, context.collection)
    query.left_out_cases = records.cases_of(question.not_these.patient)
    if query.in_sample:
        query.warnings.append(IN_SAMPLE)
    return query


def _from_records(query: Query, collection: Collection) -> None:
    """The patients that only the records of its cases name, and all cases of its patients."""
    cases = query.own.get("case", set())
    named = recorded_patients(collection.cases, sorted(cases))
    query.own.setdefault("patient", set()).update(named.values())
    query.recorded_cases = collection.cases.cases_of(sorted(query.own["patient"]))


def _from_item(query: Query, context: Context, found: Stored) -> None:
    query.like.append(found.vector)
    query.item = found.item
    query.own.setdefault("item", set()).add(found.item.id)
    query.include(found.item)
    query.in_sample = _in_sample(context.collection, [found])
    query.patient_known = None not in patients_of(context.collection.cases, [found.item])
    query.site = found.item.site
    query.span_um = span_um(found.item, context.collection.card.fields_um)
    _add_hash(query, context.picture_hash(found.item.id))


def _in_sample(collection: Collection, found: Sequence[Stored]) -> bool:
    labelled = any(one.item.label is not None for one in found)
    return labelled and collection.label_axes is not None


def _from_vector(query: Query, collection: Collection, question: Question) -> None:
    card = card_of_query(collection, question.fingerprint)
    if question.fingerprint is None:
        raise BadQuestion(
            "a vector needs the fingerprint of the encoder that made it, so that vectors "
            f"of two encoders never meet; this one's is {card.fingerprint}"
        )
    row = np.asarray([question.vector], np.float64)
    rows = checked_vectors(row, card.dim, 1)
    if collection.adaptation is not None and card == collection.base:
        rows, query.alignment = adapted(collection.adaptation, rows, question.about)
    query.like.append(rows[0])
    _from_about(query, collection, question.about)


def _from_image(query: Query, context: Context, question: Question, image: bytes | Opened) -> None:
    if isinstance(image, bytes):
        finding = context.estimate_scale is not None
        with context.pictures.opened(image, "the uploaded image", finding=finding) as found:
            opened = Opened(found.pixels, source_id(image), found.remark)
            return _from_image(query, context, question, opened)
    _from_view(query, context, question, view_for(context, question, image.pixels), image.own)
    if image.remark:
        query.warnings.append(f"Of the uploaded image, {image.remark}.")
    about = question.about.model_copy(update={"source": image.source})
    _from_about(query, context.collection, about)
    return None


def view_for(context: Context, question: Question, pixels: RGB) -> View:
    """The part of an uploaded picture that the collection's encoder is shown.

    A scale that the question does not say is estimated where most of the collection has one: where
    it has none its pictures were taken whole, and a query that was cut would meet larger cells.

    Raises:
        BadQuestion: the crop does not lie on the picture.
    """
    card = context.collection.card
    may = (
        card.fields_um is not None
        and question.about.um_per_px is None
        and pixels.shape[0] * pixels.shape[1] <= MEASURED
        and 2 * context.count(Filter(um_per_px_min=0.0)) > context.count()
    )
    return view_of(pixels, question, card, context.estimate_scale if may else None)


def _from_view(
    query: Query, context: Context, question: Question, view: View, own: OwnCells | None
) -> None:
    query.looked_at = view.looked_at
    row, query.alignment = _embedded(context, question, view, own)
    query.like.append(row)
    poor = unfit(view.pixels)
    query.warnings += image_warnings(view.pixels, context.collection.card, poor)
    query.unfit += poor
    query.span_um = view.looked_at.um
    if "duplicate" in question.exclude:
        _add_hash(query, perceptual_hash(make_thumbnail(view.given)))


def _embedded(
    context: Context, question: Question, view: View, own: OwnCells | None
) -> tuple[Vectors, Alignment | None]:
    """The vector of an image or of its region, adapted as the collection is.

    `own` are the cells of the smear that the image is, where that is looked at whole.
    """
    if own is not None and question.crop is not None:
        return apply_own(own.adaptation, own.rows[question.crop][None])[0], BY_OWN_CELLS
    encoder = context.encoder()
    if not isinstance(encoder, AdaptedEncoder):
        return _of_view(encoder, question, view), None
    row = _of_view(encoder.base, question, view)
    rows, alignment = adapted(encoder.adaptation, row[None], question.about)
    return rows[0], alignment


def _of_view(encoder: Encoder, question: Question, view: View) -> Vectors:
    region = question.region if isinstance(question, Refinement) else None
    if region is None:
        (vector,) = encoder.embed([view.pixels])
        return np.asarray(vector)
    pixels, inside = view.around(region)
    try:
        _, patches = encoder.tokens([pixels])
        row = region_vector(patches[0], inside, *pixels.shape[:2])
        beside = measured_part(patches[0])
        if beside.any():  # what is measured beside a network is measured on the region alone
            row = joined(row, encoder.embed([crop(pixels, inside)])[0], beside)
    except (NoPatchTokens, ValueError) as error:
        raise BadQuestion(str(error)) from error
    return np.asarray(checked_vectors(row[None], encoder.card.dim, 1)[0])


def _with_examples(query: Query, context: Context, question: Refinement, *, alone: bool) -> None:
    like = [stored(context.collection, id) for id in question.like]
    unlike = [stored(context.collection, id) for id in question.unlike]
    query.like += [found.vector for found in like]
    query.unlike += [found.vector for found in unlike]
    if not question.show_examples:
        query.own.setdefault("item", set()).update(question.like, question.unlike)
    query.in_sample |= _in_sample(context.collection, [*like, *unlike])
    if alone:
        _from_about(query, context.collection, question.about)
        known = patients_of(context.collection.cases, [found.item for found in like])
        query.patient_known = query.patient_known or None not in known
        for found in like:
            query.include(found.item)
            if not question.show_examples:
                _add_hash(query, context.picture_hash(found.item.id))
        if len(sites := {found.item.site for found in like}) == 1:
            query.site = query.site or sites.pop()


def _from_about(query: Query, collection: Collection, about: About) -> None:
    query.include(about)
    named = {} if about.case is None else recorded_patients(collection.cases, [about.case])
    query.patient_known = about.patient is not None or bool(named)
    query.site = about.site


def _add_hash(query: Query, found: PictureHash | None) -> None:
    query.pictured = True
    if found is not None:
        query.hashes.add(found)


def make_searcher(context: Context, question: Question, query: Query) -> Searcher:
    """Everything that may be found under a question, in its order."""
    store = context.collection.store
    refined = isinstance(question, Refinement) and bool(question.like or question.unlike)
    region = isinstance(question, Refinement) and question.region is not None
    rank: Rank
    if isinstance(question, Refinement) and refined and question.strategy == "best_score":
        rank = BestScore(
            store,
            _rows(query.like, store.card.dim),
            _rows(query.unlike, store.card.dim),
            exact=question.exact,
        )
    else:
        row = query.like[0]
        if refined:
            dim = store.card.dim
            row = average_vector(_rows(query.like, dim), _rows(query.unlike, dim))
            row = checked_vectors(row[None], dim, 1)[0]

        def rank(k: int, where: Filter | None, exclude: Filter | None) -> list[Hit]:
            return store.nearest(row, k, where, exclude, exact=question.exact)

    is_duplicate: Callable[[Hit], bool] | None = None
    if "duplicate" in question.exclude:

        def is_duplicate(hit: Hit) -> bool:
            if not query.pictured:  # a bare vector shows nothing that could be stored twice
                return False
            if not refined and not region and hit.score >= IDENTICAL:
                return True
            if not query.hashes:
                return False
            other = context.picture_hash(hit.item.id)
            return any(same_picture(one, other) for one in query.hashes)

    return Searcher(store, rank, question.where, query.exclusion(question), is_duplicate)


def _rows(vectors: list[Vectors], dim: int) -> Vectors:
    return np.stack(vectors) if vectors else np.empty((0, dim), np.float32)


def own_cells(
    context: Context, question: Question, pixels: RGB, crops: Sequence[Box]
) -> OwnCells | None:
    """The cells of one smear, embedded, where they are aligned as a site of their own.

    Args:
        context: The collection.
        question: How each cell is searched with; `crop` is filled in.
        pixels: The smear.
        crops: Of its cells.
    """
    encoder = context.encoder()
    if not isinstance(encoder, AdaptedEncoder):
        return None
    if not goes_by_own_cells(encoder.adaptation, len(crops), question.about):
        return None
    views = [
        view_for(context, question.model_copy(update={"crop": crop}), pixels).pixels
        for crop in crops
    ]
    rows = encoder.base.embed(views)
    return OwnCells(encoder.adaptation.with_site(OWN, rows), dict(zip(crops, rows, strict=True)))
