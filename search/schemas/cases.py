"""Cases: similar ones, and differential counts. A case is a bag of cells, a slide of tiles."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from search.schemas.answers import Alignment, Exclusion
from search.schemas.filters import Filter
from search.schemas.items import DISCLAIMER, Item, ItemId, Record, Text
from search.schemas.questions import RELATIONS, About, BagField, Relation

MOST_CELLS = 2000
"""Cells of one query."""


class CaseQuestion(Record):
    """Which cases have cells like these: by a stored case, stored items, vectors, or images."""

    collection: str | None = None
    """Collection to search; `None` for the service's default."""
    by: BagField = "case"
    """What makes a bag: a case; a patient; or a source, which for tiles is a slide."""
    case: Text | None = None
    """Name of a stored bag to start from: a case, a patient or a source, as `by` says."""
    items: Annotated[tuple[ItemId, ...], Field(max_length=MOST_CELLS)] = ()
    """Ids of stored items to start from."""
    vectors: Annotated[tuple[tuple[float, ...], ...], Field(max_length=MOST_CELLS)] = ()
    """Vectors to start from; `fingerprint` must then say whose they are."""
    fingerprint: str | None = None
    """Encoder fingerprint that the caller relies on; another one is refused."""
    about: About = About()
    """What is known of the query, so that its own patient, case and source can be excluded."""
    k: Annotated[int, Field(ge=1, le=100)] = 10
    """How many cases."""
    distance: Distance = "max_sim"
    """`mean`: of the mean vectors. `max_sim`: of each cell to its nearest in the other case, both
    ways. `prototypes`: of the histograms over prototypes of the collection. `transport`: sliced
    optimal transport."""
    where: Filter = Filter()
    """Conditions that every compared cell meets."""
    exclude: tuple[Relation, ...] = RELATIONS
    """What of the query is excluded: cells of its items, sources, cases and patients; `duplicate`
    excludes equal vectors."""
    not_these: Filter = Filter()
    """Cells with any of these values are excluded as well."""
    candidates: Annotated[int, Field(ge=1, le=500)] = 64
    """Cases that are compared exactly; where there are more, they are chosen by the votes of the
    query's cells and by its mean vector."""
    cells: Annotated[int, Field(ge=1, le=MOST_CELLS)] = 500
    """Cells of each case that are compared at most, in order of id."""
    prototypes: Annotated[int, Field(ge=2, le=256)] = 32
    """Of `prototypes`."""
    pairs: Annotated[int, Field(ge=0, le=50)] = 10
    """Matched pairs of cells shown of each case."""


class CellPair(Record):
    """A cell of the query and the cell of a case that it is matched with."""

    cell: int
    """Position of the query's cell: of the images, vectors or items; in a stored case, in order
    of id."""
    query_item: ItemId | None
    """Its id, where it is stored."""
    item: Item
    """The cell of the case."""
    score: Annotated[float, Field(ge=-1, le=1)]
    """Cosine of the two."""


class Differential(Record):
    """The labels of the cells of a case, counted."""

    shares: dict[str, float]
    """Share of each label among the labelled cells, largest first."""
    cells: int
    """Cells that have a label."""
    unlabelled: int
    """Cells that have none."""
    origin: Literal["labels", "votes"]
    """Whether the labels are the source's own, or the votes of neighbours."""


class CaseMatch(Record):
    """One case that looks like the query."""

    value: str
    """Its name."""
    distance: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    """To the query, smaller is more alike; comparable only under one kind of distance."""
    cells: int
    """Cells that were compared."""
    complete: bool
    """Whether those are all that may be compared; else the first in order of id."""
    patients: tuple[str, ...]
    """Of the compared cells."""
    sites: tuple[str, ...]
    """Of the compared cells."""
    differential: Differential
    """Of the compared cells."""
    pairs: tuple[CellPair, ...]
    """Matched cells of the query and of this case, nearest first, each once."""


class CaseAnswer(Record):
    """Cases, with all that is needed to judge them."""

    cases: tuple[CaseMatch, ...]
    """Rising distance; equal ones in order of name."""
    collection: str
    by: BagField
    distance: Distance
    encoder: str
    fingerprint: str
    cells: int
    """Cells of the query."""
    differential: Differential
    """Of the query."""
    compared: int
    """Cases that were compared exactly."""
    complete: bool
    """Whether those are all cases that meet `where`; else a selection."""
    patient_exclusion: Exclusion
    """As in `Answer`."""
    duplicates: int
    """Cells that were excluded because their vector is one of the query's own."""
    warnings: tuple[str, ...] = ()
    seconds: dict[str, float]
    alignment: Alignment | None = None
    """As in `Answer`."""
    disclaimer: str = DISCLAIMER


class CaseFacts(Record):
    """What there is of one case (or slide, or patient)."""

    value: str
    by: BagField
    collection: str
    items: int
    cases: tuple[str, ...]
    patients: tuple[str, ...]
    sites: tuple[str, ...]
    datasets: tuple[str, ...]
    sources: int
    """Different sources."""
    differential: Differential
    examples: tuple[Item, ...]
    """The first of its items in order of id, at most 24."""
    disclaimer: str = DISCLAIMER


MOST_CELLS = 2000
"""Cells of one count; beyond that, the first in order of id."""


class CountQuestion(Record):
    """Whose cells are to be counted, and by how many neighbours."""

    case: Text
    """Name of the case, patient or source, as `by` says."""
    by: BagField = "case"
    k: Annotated[int, Field(ge=1, le=200)] = 20
    """Neighbours that vote on each cell."""
    where: Filter = Filter()
    """Conditions on the neighbours that vote."""
    cells: Annotated[int, Field(ge=1, le=MOST_CELLS)] = 500
    """Most cells that are counted."""


class CountedCell(Record):
    """One cell of a case with its three labels."""

    item: Item
    """With the label of its source."""
    reviewed: str | None
    """The label of the last reviewer; `None` where there is none."""
    disputed: bool
    """Whether two reviewers gave different labels."""
    voted: str | None
    """The label with the largest share among its neighbours; `None` if none carries one."""
    share: float
    """Its share."""
    sure: bool
    """Whether the vote is clear enough to be shown as one label."""
    reason: str
    """Why it is, or is not, as a sentence."""


class CountRow(Record):
    """One label of the count."""

    label: str
    recorded: int
    """Cells with this label by their source."""
    reviewed: int
    """Cells with this label by a reviewer or, where none gave a label, by their source."""
    voted: int
    """Cells with this label by a clear vote of their neighbours."""


class CaseCount(Record):
    """The differential count of a case."""

    value: str
    by: BagField
    collection: str
    encoder: str
    fingerprint: str
    k: int
    items: int
    """Cells of the case."""
    cells: tuple[CountedCell, ...]
    """In order of id."""
    complete: bool
    """Whether those are all of them."""
    rows: tuple[CountRow, ...]
    """Falling count by the source, then by the neighbours, then by name."""
    recorded: int
    """Cells with a label of the source."""
    reviewed: int
    """Cells with a reviewer's label."""
    not_sure: int
    """Cells whose neighbours do not agree clearly; they are in no row."""
    agreement: float | None
    """Share of the cells with a label (reviewed, else recorded) and a clear vote that have the
    same in both; `None` where there are none."""
    patient_exclusion: Exclusion
    """Whether the patient's own cells were excluded from the vote, as in `Answer`."""
    warnings: tuple[str, ...]
    disclaimer: str = DISCLAIMER


Distance = Literal["mean", "max_sim", "prototypes", "transport"]
