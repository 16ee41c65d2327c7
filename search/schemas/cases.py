"""Cases: similar ones, and differential counts. A case is a bag of cells, a slide of tiles."""

from __future__ import annotations

import datetime
import re
from math import inf
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from search.schemas.answers import Alignment, Exclusion
from search.schemas.filters import Filter
from search.schemas.items import DISCLAIMER, Item, ItemId, Record, Text
from search.schemas.questions import RELATIONS, About, BagField, Labels, Relation

MOST_CELLS = 2000
"""Cells of one query."""
COLUMN = re.compile(r"[a-z][a-z0-9_]{0,39}")
"""How a further column of cases may be called."""
AGES = re.compile(r"(\d{1,3})-(\d{1,3})|(\d{1,3})\+")
ColumnType = Literal["text", "number", "flag", "date"]
"""What the values of a column are: words, numbers, yes or no, or days."""
Value = bool | float | Annotated[str, Field(max_length=2000)]
"""One value: a date is written as 2024-03-01."""
Sex = Literal["female", "male", "other"]
WORDS = ("diagnosis", "diagnosis_code", "treatment", "outcome", "sex", "age_band")
"""The fields of `CaseRecord` whose values are labels."""


def _band(value: str | None) -> str | None:
    found = AGES.fullmatch(value or "0+")
    if found is None or (found[1] and not int(found[1]) < int(found[2]) <= 150):
        raise ValueError("an age band is written as 60-69 or 90+; an age alone is not kept")
    return value


def _number(value: Value | None, missing: float) -> float:
    return missing if value is None or isinstance(value, str) else float(value)


class CaseColumn(Record):
    """A column of cases beyond those that every collection has."""

    name: str
    type: ColumnType
    """Declared once: a value of another type is refused."""


class CaseValues(Record):
    """What is known of a case beside its cells; `None` where nothing is known."""

    case: Text
    """Its name, as its items carry it."""
    patient: Text | None = None
    """Pseudonym of the patient; where the items of the case name one, the same."""
    diagnosis: Annotated[str, Field(min_length=1, max_length=300)] | None = None
    """In the words of the source, or of WHO."""
    diagnosis_code: Annotated[str, Field(min_length=1, max_length=40)] | None = None
    """For instance of ICD-O: `9861/3`."""
    treatment: Annotated[str, Field(min_length=1, max_length=500)] | None = None
    outcome: Annotated[str, Field(min_length=1, max_length=300)] | None = None
    date: datetime.date | None = None
    """datetime.date of the examination."""
    sex: Sex | None = None
    age_band: str | None = None
    """For instance `60-69` or `90+`."""
    report: Annotated[str, Field(min_length=1, max_length=20_000)] | None = None
    """Text of the report, without names and dates of birth."""
    more: dict[str, Value] = Field(default_factory=dict, max_length=50)
    """Further columns, by name."""

    _age_band = field_validator("age_band")(_band)

    @field_validator("more")
    @classmethod
    def _more(cls, more: dict[str, Value]) -> dict[str, Value]:
        for name in more:
            if COLUMN.fullmatch(name) is None or name in cls.model_fields or name == "clear":
                raise ValueError(
                    f"a column cannot be called {name!r}; use small letters, digits and _, and "
                    "no name that every case has"
                )
        return more

    def value(self, column: str) -> Any:
        """The value of a column by name, also of a further one; `None` where it has none."""
        if column in CaseValues.model_fields and column != "more":
            return getattr(self, column)
        return self.more.get(column)


class CaseChange(CaseValues):
    """New values of one case: what is `None` stays as it is, what `clear` names is withdrawn."""

    clear: Annotated[tuple[str, ...], Field(max_length=60)] = ()
    """Names of columns whose values are withdrawn."""


class CaseRecordsWanted(Record):
    """Changes to the records of cases: all are made, or none."""

    changes: Annotated[tuple[CaseChange, ...], Field(min_length=1, max_length=200_000)]
    columns: tuple[CaseColumn, ...] = ()
    """Types of further columns; where none is given, a new column has that of its values."""
    author: Annotated[str, Field(min_length=1, max_length=100)] | None = None
    """Name or initials of who changes them: a claim, kept beside the key that was used."""
    identifying: Literal["refuse", "keep"] = "refuse"
    """What to do with columns and texts that seem to say who a person is."""


class CaseRecordsWritten(Record):
    """What was changed."""

    written: int
    """Cases whose record is new or has changed."""
    unchanged: int
    columns: tuple[CaseColumn, ...]
    """All further columns, with their types."""


class CaseEdit(Record):
    """One change of one record."""

    at: str
    """When, in UTC."""
    caller: str
    """The key, or the person, that was let in."""
    author: str | None
    """The name that they gave."""
    before: dict[str, Any]
    """Values before, by column; `None` where there was none."""
    after: dict[str, Any]


class CaseRecord(CaseValues):
    """What is known of a case beside its cells, and how that came to be."""

    edits: tuple[CaseEdit, ...] = ()
    """Oldest first; nothing is ever removed."""


RecordedGroup = Literal["diagnosis", "treatment", "outcome", "sex", "age_band"]
"""Columns of a record by which patients are grouped."""


class CaseFilter(Record):
    """Conditions on cases by their records; a case must meet every field that is given."""

    diagnosis: tuple[str, ...] = ()
    diagnosis_code: tuple[str, ...] = ()
    treatment: tuple[str, ...] = ()
    outcome: tuple[str, ...] = ()
    sex: tuple[Sex, ...] = ()
    age_band: tuple[str, ...] = ()
    date_from: datetime.date | None = None
    date_to: datetime.date | None = None
    more: dict[str, tuple[Value, ...]] = Field(default_factory=dict)
    """Further columns, each with the values that are wanted."""
    at_least: dict[str, float] = Field(default_factory=dict)
    """Further columns of numbers, each with its least value."""
    at_most: dict[str, float] = Field(default_factory=dict)

    @property
    def empty(self) -> bool:
        """Whether there is no condition at all."""
        return self == CaseFilter()

    def meets(self, record: CaseValues) -> bool:
        """Whether a record meets every condition."""
        words = all(
            not (wanted := getattr(self, name)) or getattr(record, name) in wanted for name in WORDS
        )
        if self.date_from or self.date_to:
            if record.date is None:
                return False
            low, high = self.date_from or datetime.date.min, self.date_to or datetime.date.max
            words = words and low <= record.date <= high
        more = record.more
        return (
            words
            and all(not wanted or more.get(name) in wanted for name, wanted in self.more.items())
            and all(_number(more.get(name), -inf) >= low for name, low in self.at_least.items())
            and all(_number(more.get(name), inf) <= high for name, high in self.at_most.items())
        )


class CaseRecordsPage(Record):
    """Records of cases, in order of name."""

    records: tuple[CaseRecord, ...]
    columns: tuple[CaseColumn, ...]
    total: int
    """How many meet the conditions, on all pages."""
    next: str | None
    """Ask again after this case; `None` at the end."""


class CaseRecordsQuestion(Record):
    """Which records are listed."""

    where: CaseFilter = CaseFilter()
    limit: Annotated[int, Field(ge=1, le=1000)] = 100
    after: Text | None = None
    """The `next` of the page before."""


ModelId = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]


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
    distance: Distance = "composition"
    """`mean`: of the mean vectors. `max_sim`: of each cell to its nearest in the other case, both
    ways. `prototypes`: of the histograms over prototypes of the collection. `transport`: sliced
    optimal transport. `vlad`: of where cells lie around few prototypes. `composition`: of how the
    shares of kinds of cells depart from those of the whole collection. `learned`: of the vectors
    that the attention of the case model `model` makes of the cells."""
    model: ModelId | None = None
    """Of `learned`: id of a case model of the collection."""
    where: Filter = Filter()
    """Conditions that every compared cell meets."""
    of_cases: CaseFilter = CaseFilter()
    """Conditions that the record of every compared case meets."""
    exclude: tuple[Relation, ...] = RELATIONS
    """What of the query is excluded: cells of its items, sources, cases and patients; `duplicate`
    excludes equal vectors."""
    not_these: Filter = Filter()
    """Cells with any of these values are excluded as well."""
    candidates: Annotated[int, Field(ge=1, le=500)] = 64
    """Cases that are compared cell by cell; where there are more, they are chosen by their own
    vectors or, under conditions on cells, by the votes of the query's cells."""
    cells: Annotated[int, Field(ge=1, le=MOST_CELLS)] = 128
    """Cells of each case that are compared: where it has more, so many that stand for all."""
    found: Literal["all", "white"] = "all"
    """`white`: without cells that a finder of cells took for red cells or platelets."""
    prototypes: Annotated[int, Field(ge=2, le=256)] = 32
    """Of `prototypes`."""
    pairs: Annotated[int, Field(ge=0, le=50)] = 10
    """Matched pairs of cells shown of each case."""
    labels: Labels = "reviewed"
    """Labels that differentials count: `reviewed`, a reviewer's where there is one, else the
    recorded one; or `recorded` alone. What cases are compared by knows no labels."""


class CellPair(Record):
    """A cell of the query and the cell of a case that it is matched with."""

    cell: int
    """Position of the query's cell: of the images, vectors or items; in a stored case, in order
    of id among those that are compared."""
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
    """Whether the labels are the cells' own, or the votes of neighbours."""
    reviewed: int = 0
    """Cells that count with a reviewer's label instead of the recorded one."""


class CaseMatch(Record):
    """One case that looks like the query."""

    value: str
    """Its name."""
    distance: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    """To the query, smaller is more alike; comparable only under one kind of distance."""
    cells: int
    """Cells that it has, or that were read where the question has conditions on cells."""
    complete: bool
    """Whether each of them was compared; else those that stand for all."""
    records: tuple[CaseRecord, ...] = ()
    """What is known of its cases beside their cells, without the history."""
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


class MosaicCell(Record):
    """A cell that stands for others of its case."""

    item: Item
    share: float
    """Of the case's cells that are most like it, among those of its class that are shown."""


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
    records: tuple[CaseRecord, ...] = ()
    """What is known of its cases beside their cells, in order of name."""
    mosaic: tuple[MosaicCell, ...] = ()
    """Cells that stand for all of them, in order of id."""
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
    labels: Labels = "reviewed"
    """Labels that these vote with: a reviewer's where there is one, else the recorded one; or
    `recorded` alone."""
    cells: Annotated[int, Field(ge=1, le=MOST_CELLS)] = 500
    """Most cells that are counted."""


class CountedCell(Record):
    """One cell of a case with its three labels."""

    item: Item
    """With the label of its source, and the patient whom the record of its case names."""
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


Distance = Literal["mean", "max_sim", "prototypes", "transport", "vlad", "composition", "learned"]


class CasePlan(Record):
    """What of cases is evaluated: the label of the most similar cases of other patients."""

    column: Annotated[str, Field(min_length=1, max_length=40)] = "diagnosis"
    """Column of the cases' records whose values are the labels."""
    distances: Annotated[tuple[Distance, ...], Field(min_length=1)] = (
        "composition",
        "mean",
        "max_sim",
        "prototypes",
    )
    """How cases are compared; each is also compared with `mean`, where that is among them."""
    model: ModelId | None = None
    """Of the distance `learned`: as in a question about cases."""
    found: Literal["all", "white"] = "all"
    """As in a question about cases."""
    k: Annotated[int, Field(ge=1, le=50)] = 5
    """Cases that vote."""
    of_cases: CaseFilter = CaseFilter()
    """Only cases whose record meets this."""
    ask: Annotated[int, Field(ge=1)] | None = None
    """Most cases that are asked about, drawn at random; every one stays a reference."""


class Prototype(Record):
    """A group of cells that look alike, found in the collection."""

    number: int
    """From 1."""
    label: str | None
    """The most frequent label of its cells; `None` where they carry none."""
    example: Item
    """The cell nearest to its middle."""


class CaseMoment(Record):
    """One case of a patient, as a point in time."""

    case: str
    date: datetime.date | None
    """Of its record, else the earliest day on which its items were acquired."""
    days: int | None
    """Since the first dated case."""
    cells: int
    """That it has; a warning says where not all of them are counted."""
    differential: dict[str, float]
    """Share of each label: a reviewer's, else the source's; or of clear votes of neighbours of
    other patients, where more cells have one."""
    origin: Literal["labels", "votes"]
    shares: tuple[float, ...]
    """Share of each prototype."""
    distance: Annotated[float, Field(ge=0, le=1)]
    """Share of its cells that would have to change prototype to be as in the first case."""
    treatment: str | None
    outcome: str | None


class Timeline(Record):
    """The cases of one patient in order of date; those without a date come last."""

    patient: str
    collection: str
    fingerprint: str
    """Of the encoder."""
    prototypes: tuple[Prototype, ...]
    moments: tuple[CaseMoment, ...]
    warnings: tuple[str, ...] = ()
    disclaimer: str = DISCLAIMER


class GroupsQuestion(Record):
    """Two groups of cases to be compared, each by its records or by names."""

    first: CaseFilter = CaseFilter()
    second: CaseFilter = CaseFilter()
    first_cases: Annotated[tuple[Text, ...], Field(max_length=10_000)] = ()
    """In place of `first`."""
    second_cases: Annotated[tuple[Text, ...], Field(max_length=10_000)] = ()
    prototypes: Annotated[int, Field(ge=2, le=64)] = 12
    cells: Annotated[int, Field(ge=1, le=MOST_CELLS)] = 500
    """Cells of each case, at most: the first in order of id, which is as good as drawn."""
    resamples: Annotated[int, Field(ge=100, le=10_000)] = 2000
    seed: Annotated[int, Field(ge=0, le=2**31)] = 0


class GroupDifference(Record):
    """One kind of cells in both groups; each case counts alike."""

    kind: Literal["prototype", "label"]
    name: str
    first: float
    """Mean share over the cases of the first group."""
    second: float
    difference: float
    """Second less first."""
    low: float
    """Of the 95 % interval, whole patients drawn, the same for both groups."""
    high: float
    clear: bool
    """Whether 0 is outside the interval also when it is widened for the number of rows
    (Bonferroni)."""
    example: Item | None = None
    """Of a prototype: the cell nearest to its middle."""


class GroupsAnswer(Record):
    """How two groups of cases differ in their cells."""

    collection: str
    fingerprint: str
    first_cases: int
    second_cases: int
    first_patients: int
    second_patients: int
    both: int
    """Patients with cases in both groups."""
    rows: tuple[GroupDifference, ...]
    """Prototypes by falling size of the difference, then labels."""
    in_sample: bool = False
    """Whether labels of these very cells may have chosen the axes of the version: prototypes then
    follow labels more closely than those of new cells would; rows by label are not touched."""
    warnings: tuple[str, ...]
    disclaimer: str = DISCLAIMER
