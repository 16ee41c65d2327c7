"""Questions: searches, votes, and refined searches."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from encoder.card import CellKind
from search.schemas.filters import Filter
from search.schemas.items import KEYWORDS, Box, ItemId, Keyword, Record, ScaleOrigin, Text
from search.text import composed


def _tidy(name: str) -> str:
    tidy = composed(name).strip()
    if not tidy:
        raise ValueError("is blank; leave it out where it is not known")
    return tidy


Name = Annotated[Text, AfterValidator(_tidy)]
"""A name that a person typed, composed and without blanks around it."""


Relation = Literal["item", "source", "case", "patient", "duplicate"]


RELATIONS: tuple[Relation, ...] = ("item", "source", "case", "patient", "duplicate")


GroupField = Literal["case", "patient", "source"]


Grouping = Literal["case", "patient", "source", "group"]


Labels = Literal["recorded", "reviewed"]


BagField = Literal["case", "patient", "source"]


BalanceField = Literal["site", "source", "patient", "dataset", "scanner"]


class About(Record):
    """What is known of an uploaded image, so that its patient, case and source can be excluded."""

    source: Name | None = None
    """Id of the source; taken from the bytes where an image is uploaded."""
    case: Name | None = None
    """Case that the image belongs to."""
    patient: Name | None = None
    """Pseudonym of the patient, as the library has it."""
    site: Name | None = None
    """Laboratory or hospital; its share among the hits is shown against what is to be expected."""
    um_per_px: Annotated[float, Field(gt=0, le=1000, allow_inf_nan=False)] | None = None
    """Micrometres per pixel of an uploaded image. With them it is cut to the encoder's field of
    view; without them sizes are not compared."""
    um_per_px_origin: ScaleOrigin | None = None
    """Where the scale comes from; `estimate` is told as one in the answer."""
    um_per_px_spread: Annotated[float, Field(ge=0, le=1000, allow_inf_nan=False)] | None = None
    """Of an estimate: the middle half of the single red cells' um/px."""
    cell: CellKind | None = None
    """What lies in the middle of the image or of `crop`: `white`, a nucleated cell; `red`, a red
    cell or a platelet. The field of view follows it; a cell that is not named is looked at as far
    as the picture or box goes, and no further than about a nucleated cell."""


class Question(Record):
    """A query of a collection: an uploaded image, a stored item, or a vector."""

    collection: str | None = None
    """Collection to search; `None` for the service's default."""
    fuse_with: str | None = None
    """A collection of the same cells under another encoder: it is searched as well, and the ranks
    of both are fused (reciprocal rank fusion). Hits and scores stay those of `collection`."""
    item: ItemId | None = None
    """Id of a stored item to start from."""
    vector: tuple[float, ...] | None = None
    """A vector to start from; `fingerprint` must then say whose it is."""
    fingerprint: str | None = None
    """Encoder fingerprint that the caller relies on; another one is refused."""
    crop: Box | None = None
    """Query with this part of the uploaded image alone, in its pixels; what lies over the border
    is filled with the colour of the glass, as in an ingest."""
    about: About = About()
    """What is known of the query."""
    k: Annotated[int, Field(ge=1, le=1000)] = 10
    """How many neighbours."""
    where: Filter = Filter()
    """Conditions that every neighbour meets."""
    exclude: tuple[Relation, ...] = RELATIONS
    """What of the query is excluded from the hits; by default everything: the item itself, its
    source, case and patient, and near-duplicates."""
    not_these: Filter = Filter()
    """Items with any of these values are excluded as well."""
    exact: bool = False
    """Compare with every item instead of walking the graph."""
    group_by: Grouping | None = None
    """One group for each case, patient or source; `k` then counts groups, best first. `group`: for
    each patient; items without a patient by their case, and those without a case by their source,
    so that every item belongs to one."""
    per_group: Annotated[int, Field(ge=1, le=50)] = 1
    """Hits shown of each group."""
    mmr: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] | None = None
    """Diversity by maximal marginal relevance: 1 is similarity alone, 0 is variety alone."""
    balance: BalanceField | None = None
    """Let each site (or source, patient, dataset, scanner) have no more hits than its share of
    the filtered collection, rounded up."""
    labels: Labels = "reviewed"
    """Labels that vote: `reviewed`, a reviewer's where there is one, else the recorded one; or
    `recorded` alone. Filters and facets are of recorded labels."""
    facets: Annotated[tuple[Keyword, ...], Field(max_length=len(KEYWORDS))] = ()
    """Fields whose values are counted over everything that could have been a hit."""


Strategy = Literal["average_vector", "best_score"]


Examples = Annotated[tuple[ItemId, ...], Field(max_length=100)]


class Refinement(Question):
    """A question that was answered before, with what the answer is to be more and less like.

    The query itself (image, item or vector), where it is given, counts as one more example of
    what is wanted, and `exclude` applies to it. Where it is not given, the examples under `like`
    are the query.
    """

    like: Examples = ()
    """Ids of stored items that the hits should resemble."""
    unlike: Examples = ()
    """Ids of stored items that the hits should not resemble."""
    strategy: Strategy = "average_vector"
    """`average_vector`: one search with the mean of what is wanted, moved away from the mean of
    what is not. `best_score`: each candidate by the example that it is nearest to."""
    show_examples: bool = False
    """Whether the examples themselves may be hits; `exclude` applies all the same."""
    region: Box | None = None
    """Look at this part of the uploaded image alone, in its pixels."""


Weighting = Literal["uniform", "similarity", "softmax"]
