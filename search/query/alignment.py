"""Which site a query is aligned by, where an index aligns sites."""

from __future__ import annotations

import numpy as np

from encoder.card import EncoderCard
from search.index.contract import Vectors
from search.library.collection import Collection
from search.schemas.answers import Alignment
from search.schemas.questions import About
from search.transforms.adaptation import Adaptation

ENOUGH = 20
"""Cells of one query from which its own cells may stand for its site."""
OWN = "(own cells)"
BY_OWN_CELLS = Alignment(site=None, by="own cells")


def card_of_query(collection: Collection, fingerprint: str | None) -> EncoderCard:
    """The card whose vectors a question with this fingerprint may bring.

    Vectors of the encoder before the adaptation are taken too, and adapted.
    """
    return collection.base if fingerprint == collection.base.fingerprint else collection.card


def goes_by_own_cells(adaptation: Adaptation, cells: int, about: About) -> bool:
    """Whether so many cells of one smear are aligned as a site of their own: sites are aligned,
    the smear's is not known, and its cells are not few."""
    known = getattr(about, adaptation.field, None) in adaptation.sites
    return bool(adaptation.sites) and not known and cells >= ENOUGH


def apply_own(adaptation: Adaptation, rows: Vectors) -> Vectors:
    """Base vectors of a smear, whose cells the adaptation knows as the site `OWN`, as the index
    stores vectors."""
    return adaptation.apply(rows, np.full(len(rows), OWN))


def adapted(
    adaptation: Adaptation, rows: Vectors, about: About
) -> tuple[Vectors, Alignment | None]:
    """Base vectors of one query as the index stores vectors, and how they were aligned.

    They are aligned by the site that the question names, if the index knows it; else by their own
    cells, if they are many; else by the site that their mean looks most like.

    Args:
        adaptation: Of the collection.
        rows: n x base dim, of one image, field or case.
        about: What the question says of them.
    """
    if not adaptation.sites:
        return adaptation.apply(rows, np.full(len(rows), "")), None
    named = getattr(about, adaptation.field, None)
    if named in adaptation.sites:
        return adaptation.apply(rows, np.full(len(rows), named)), Alignment(site=named, by="named")
    if goes_by_own_cells(adaptation, len(rows), about):
        return apply_own(adaptation.with_site(OWN, rows), rows), BY_OWN_CELLS
    near = str(adaptation.nearest(rows.mean(axis=0, keepdims=True))[0])
    return adaptation.apply(rows, np.full(len(rows), near)), Alignment(site=near, by="nearest")
