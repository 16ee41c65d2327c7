"""From a question to its answer: found, grouped or re-ranked, counted, and voted on."""

from __future__ import annotations

from collections.abc import Sequence
from time import perf_counter

import numpy as np

from search.errors import BadQuestion
from search.index.contract import Store, need_fingerprint
from search.query.alignment import card_of_query
from search.query.balance import balanced, quotas, site_share
from search.query.caveats import scale_warnings
from search.query.context import Context
from search.query.exclusion import patient_exclusion, patients_of
from search.query.facets import count, facet, has_choice
from search.query.grouping import grouped
from search.query.mmr import mmr
from search.query.pictures import Opened
from search.query.resolve import Query, make_searcher, resolve
from search.query.searcher import Searcher
from search.schemas.answers import Answer, FusedWith, Group, Hit, SiteShare, VoteAnswer
from search.schemas.filters import Filter
from search.schemas.items import with_patient
from search.schemas.questions import BalanceField, Question, Weighting
from search.votes.judgement import Foreign, judged
from search.votes.knn import with_reviews

POOL = 5
"""Candidates per hit that diversity chooses from, at least `SMALLEST_POOL`."""
SMALLEST_POOL = 50
FACET_VALUES = 100
"""Values shown of each facet."""
MANY_VALUES = 10_000
"""Values of a field that quotas are worked out for; rarer ones may have one hit each."""


def answer(
    context: Context,
    question: Question,
    image: bytes | Opened | None = None,
    beside: Context | None = None,
) -> Answer:
    """The neighbours of an image, a stored item, a vector, or (by a `Refinement`) of examples.

    Args:
        context: The collection that is searched.
        question: What is wanted.
        image: Where the question is about an image.
        beside: The collection that `fuse_with` names.

    Raises:
        BadQuestion: not exactly one of image, item and vector; a vector without the
            fingerprint of its encoder; two of group_by, mmr, balance and fuse_with at once; a
            region without an image, over its border, or of an encoder without patch tokens; ranks
            that cannot be fused.
        NoSuchItem, WrongEncoder, ImageError, BadVector: as they say.
    """
    return _answered(context, question, image, beside)[0]


def _answered(
    context: Context, question: Question, image: bytes | Opened | None, beside: Context | None
) -> tuple[Answer, Query]:
    _one_order(question)
    collection, card = context.collection, context.collection.card
    query_card = card_of_query(collection, question.fingerprint)
    need_fingerprint(collection.name, query_card, question.fingerprint)
    started = perf_counter()
    query = resolve(context, question, image)
    searcher = make_searcher(context, question, query)
    if question.fuse_with is not None:
        searcher = _fused(context, question, image, searcher, query, beside)
    embedded_at = perf_counter()
    hits, groups = labelled(context, question, *found(context, searcher, question))
    facets: dict[str, dict[str, int]] = {
        name: facet(searcher.store, name, searcher.where, searcher.exclude, FACET_VALUES)
        for name in question.facets
    }
    searched_at = perf_counter()
    exclusion, notes = patient_exclusion(
        question.exclude,
        query.patient_known,
        patients_of(collection.cases, [hit.item for hit in hits]),
        "neighbours",
        query.unknown_names,
    )
    answer = Answer(
        hits=tuple(hits),
        collection=collection.name,
        items=context.count(),
        encoder=card.id,
        fingerprint=card.fingerprint,
        k=question.k,
        exact=question.exact,
        where=question.where,
        patients=different(hits, "patient"),
        sources=different(hits, "source"),
        sites=different(hits, "site"),
        patient_exclusion=exclusion,
        warnings=tuple(
            query.warnings
            + scale_warnings(query.span_um, hits, card.fields_um)
            + notes
            + shortage(question, hits, groups)
            + _other_cells(question, searcher)
        ),
        seconds={"embed": embedded_at - started, "search": searched_at - embedded_at},
        group_by=question.group_by,
        groups=tuple(groups),
        duplicates=len(searcher.left_out),
        facets=facets,
        own_site=_own_site(context, searcher, query, hits),
        alignment=query.alignment,
        fused_with=None if beside is None else _fused_with(beside, searcher),
        looked_at=query.looked_at,
        unfit=tuple(query.unfit),
        kinds=context.kinds(),
        in_sample=query.in_sample,
        searched=count(context.count, searcher.where, searcher.exclude),
        labels=question.labels,
        reviewed=sum(hit.reviewed is not None for hit in hits),
    )
    return answer, query


def labelled(
    context: Context, question: Question, hits: Sequence[Hit], groups: Sequence[Group]
) -> tuple[list[Hit], list[Group]]:
    """Hits and groups with the reviewers' labels that count under a question, and with the
    patients whom only the records of cases name."""
    labels, patients = context.reviewed(question.labels), context.patients()

    def known(some: Sequence[Hit]) -> list[Hit]:
        named = [
            hit if item is hit.item else hit.model_copy(update={"item": item})
            for hit in some
            for item in (with_patient(hit.item, patients),)
        ]
        return with_reviews(named, labels)

    return known(hits), [one.model_copy(update={"hits": tuple(known(one.hits))}) for one in groups]


def answer_with_vote(
    context: Context,
    question: Question,
    image: bytes | Opened | None = None,
    weighting: Weighting = "similarity",
    temperature: float = 0.07,
    beside: Context | None = None,
) -> VoteAnswer:
    """The label that the neighbours of a query carry, and whether to show it.

    Raises:
        BadQuestion, NoSuchItem, WrongEncoder, ImageError, BadVector: as `answer`.
    """
    calibration, state = context.calibration(question.labels)
    found, query = _answered(context, question, image, beside)
    familiar = context.familiar()
    foreign = None
    if familiar is not None:
        (residual,) = familiar.residual(query.like[0][None])
        foreign = Foreign(float(residual), familiar.far)
    return judged(
        question,
        found,
        weighting,
        temperature,
        calibration,
        state,
        foreign=foreign,
        choice=_has_choice(context, question, query, found.hits),
    )


def _has_choice(context: Context, question: Question, query: Query, hits: Sequence[Hit]) -> bool:
    """Whether items of another label could have voted; asked only where none did."""
    named = {hit.label for hit in hits} - {None}
    if len(named) != 1:
        return True
    where, exclude = question.where, query.exclusion(question)
    met = [both for part in exclude.parts if (both := where.both(part)) is not None]
    others = sum(n for label, n in context.labels(where).items() if label not in named)
    if others > sum(map(context.count, met)):  # they cannot all be excluded
        return True
    given = {one.label for one in context.reviewed(question.labels).values()}
    return has_choice(context.labels, where, exclude, given)


def found(
    context: Context, searcher: Searcher, question: Question
) -> tuple[list[Hit], list[Group]]:
    """The hits in the order that the question sets, and the groups if it has `group_by`."""
    if question.group_by is not None:
        by, k, patients = question.group_by, question.k, context.patients()
        groups = grouped(searcher, by, k, question.per_group, patients=patients)
        return [hit for group in groups for hit in group.hits], groups
    if question.balance is not None:
        counts = value_counts(searcher.store, question.balance, question.where)
        allowed = quotas(counts, question.k)
        return balanced(searcher, question.balance, question.k, allowed, context.patients()), []
    if question.mmr is not None:
        pool = searcher.nearest(max(POOL * question.k, SMALLEST_POOL))
        return diverse(searcher.store, pool, question.k, question.mmr), []
    return searcher.nearest(question.k), []


def diverse(store: Store, pool: Sequence[Hit], k: int, weight: float) -> list[Hit]:
    """The hits of a pool that maximal marginal relevance chooses."""
    vectors = {one.item.id: one.vector for one in store.get([hit.item.id for hit in pool])}
    there = [hit for hit in pool if hit.item.id in vectors]
    if not there:
        return []
    rows = np.stack([vectors[hit.item.id] for hit in there])
    return [there[at] for at in mmr([hit.score for hit in there], rows, k, weight)]


def value_counts(store: Store, by: BalanceField, where: Filter) -> dict[str | None, int]:
    """Items of each value of a field among those that meet `where`; `None` for those without."""
    counts: dict[str | None, int] = {}
    for value, n in store.facet(by, where, MANY_VALUES).items():
        counts[value] = n
    without = store.count(where) - sum(counts.values())
    return {**counts, None: without} if without > 0 else counts


def shortage(question: Question, hits: Sequence[Hit], groups: Sequence[Group]) -> list[str]:
    """A warning where fewer were found than were wanted."""
    if question.group_by is not None:
        there = len(groups)
        what = "groups" if question.group_by == "group" else f"groups by {question.group_by}"
    else:
        there, what = len(hits), "neighbours"
    verb = "exists" if there == 1 else "exist"
    words = f"Only {there} of the {question.k} {what} asked for {verb}."
    return [] if there == question.k else [words]


def different(hits: Sequence[Hit], name: str) -> int:
    """How many values of a field there are among hits; those without one do not count."""
    return len({value for hit in hits if (value := getattr(hit.item, name)) is not None})


def _one_order(question: Question) -> None:
    names = ("group_by", "mmr", "balance", "fuse_with")
    orders = [name for name in names if getattr(question, name) is not None]
    if len(orders) > 1:
        raise BadQuestion(
            f"use one of group_by, mmr, balance and fuse_with, got {' and '.join(orders)}; each "
            "of them decides which hits are shown"
        )


def _fused(
    context: Context,
    question: Question,
    image: bytes | Opened | None,
    searcher: Searcher,
    query: Query,
    beside: Context | None,
) -> Searcher:
    """The search of a collection in the order of its ranks fused with those of another.

    Conditions hold in both collections, and what the query's own groups are in either; what the
    other one has to say of the query goes into the warnings of `query`.
    """
    if beside is None:
        raise BadQuestion("ranks are fused by search, refine and vote alone; leave fuse_with out")
    if beside.collection.name == context.collection.name:
        raise BadQuestion(
            f"fuse_with names {question.fuse_with!r}, which is searched anyway; name a collection "
            "of the same cells under another encoder"
        )
    if question.vector is not None:
        raise BadQuestion(
            "a vector is of one encoder, so that ranks of two cannot be fused; query with an "
            "image or a stored item"
        )
    other = question.model_copy(update={"fingerprint": None, "not_these": Filter()})
    there = resolve(beside, other, image)
    query.in_sample |= there.in_sample
    query.warnings += [
        f"In {beside.collection.name}: {one}" for one in there.warnings if one not in query.warnings
    ]
    return searcher.beside(make_searcher(beside, other, there), there.exclusion(other))


def _fused_with(beside: Context, searcher: Searcher) -> FusedWith:
    card = beside.collection.card
    return FusedWith(
        collection=beside.collection.name,
        encoder=card.id,
        fingerprint=card.fingerprint,
        missing=searcher.missing,
    )


def _other_cells(question: Question, searcher: Searcher) -> list[str]:
    if not searcher.missing:
        return []
    many = searcher.missing != 1
    return [
        f"{searcher.missing:,} item{'s' if many else ''} that collection {question.fuse_with!r} "
        f"found {'are' if many else 'is'} not in the one searched and {'were' if many else 'was'} "
        "left out; are both of the same cells?"
    ]


def _own_site(
    context: Context, searcher: Searcher, query: Query, hits: list[Hit]
) -> SiteShare | None:
    if query.site is None or not hits:
        return None
    of_site = searcher.where.both(Filter(site=(query.site,)))
    n = 0 if of_site is None else count(context.count, of_site, searcher.exclude)
    return site_share(hits, query.site, n, count(context.count, searcher.where, searcher.exclude))
