"""The words that everything speaks: item, source, case, filter, hit, vote, answer."""

from __future__ import annotations

from datetime import date
from hashlib import sha256
from typing import Annotated, Any, Literal
from uuid import UUID, uuid5

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

NAMESPACE = UUID("6f1d7a52-3c0e-5b8e-9a53-0c5f4e1f7b11")
"""The root of every item id; it must never change."""
DISCLAIMER = "Research use only. Similar images are not a finding about a patient."

Kind = Literal["cell", "tile", "field"]
ScaleOrigin = Literal["file", "manifest", "estimate"]
Text = Annotated[str, Field(min_length=1, max_length=200)]


def canonical(id: str) -> str:
    """An item id in its one spelling.

    Raises:
        ValueError: not a UUID.
    """
    try:
        return str(UUID(id))
    except ValueError:
        raise ValueError("an item id is a UUID, as the service gives it") from None


ItemId = Annotated[str, AfterValidator(canonical)]


class Record(BaseModel):
    """A frozen record that refuses unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class Box(Record):
    """A rectangle in level-0 pixels of its source."""

    x: int
    """Left edge; negative where a crop hangs over the border and was padded."""
    y: int
    """Top edge."""
    w: Annotated[int, Field(ge=1)]
    """Width."""
    h: Annotated[int, Field(ge=1)]
    """Height."""


class Item(Record):
    """One searchable thing: a cell, a tile of a slide, or a whole field."""

    id: ItemId
    """Deterministic: see `item_id`."""
    kind: Kind = "cell"
    """What it shows."""
    dataset: Text
    """The collection of sources that it was published or acquired in."""
    source: Text
    """The image or slide it was cut from: the first 32 hex digits of the file's SHA-256."""
    bbox: Box | None = None
    """Where in the source, in level-0 pixels; `None` for the whole image."""
    um_per_px: Annotated[float, Field(gt=0, le=1000, allow_inf_nan=False)] | None = None
    """Micrometres per level-0 pixel; `None` where it is not known."""
    um_per_px_origin: ScaleOrigin | None = None
    """Where the scale was read; an estimate is never shown as a fact."""
    label: Text | None = None
    """The label that the source carries, in the source's own words."""
    case: Text | None = None
    """One specimen or examination; a case belongs to one patient."""
    patient: Text | None = None
    """Pseudonym of the patient."""
    site: Text | None = None
    """Laboratory or hospital."""
    stain: Text | None = None
    """Stain, for instance `May-Grunwald-Giemsa`."""
    scanner: Text | None = None
    """Instrument that took the image."""
    acquired: date | None = None
    """Day of acquisition."""


KEYWORDS = (
    "kind",
    "dataset",
    "source",
    "label",
    "case",
    "patient",
    "site",
    "stain",
    "scanner",
)
"""The fields of `Item` that are indexed as words, can be filtered, and have facets."""
RANGES = ("um_per_px", "acquired")
"""The fields of `Item` that are indexed as numbers (`acquired` as days since 1970-01-01)."""
RANGE_FIELDS = (("um_per_px_min", "um_per_px_max"), ("acquired_from", "acquired_to"))
"""The fields of `Filter` that are the two ends of a range."""
Keyword = Literal[
    "kind", "dataset", "source", "label", "case", "patient", "site", "stain", "scanner"
]
"""One of `KEYWORDS`."""


def source_id(content: bytes) -> str:
    """The id of a source: the first 32 hex digits of the SHA-256 of its bytes."""
    return sha256(content).hexdigest()[:32]


def item_id(dataset: str, source: str, bbox: Box | None = None, kind: Kind = "cell") -> str:
    """The id of an item, equal wherever and whenever it is made.

    The same bytes and box under the same dataset are the same item, wherever the file lies.
    The encoder is not part of it: a collection belongs to one encoder, and the same item in
    two collections keeps its id.
    """
    place = "whole" if bbox is None else f"{bbox.x},{bbox.y},{bbox.w},{bbox.h}"
    return str(uuid5(NAMESPACE, f"{dataset}|{source}|{kind}|{place}"))


def days(day: date) -> int:
    """Days since 1970-01-01, as dates are indexed."""
    return day.toordinal() - date(1970, 1, 1).toordinal()


class Filter(Record):
    """Conditions on items.

    As `where`, an item must meet every field that is given, having any one of its values.
    As `exclude`, an item is dropped if it has any one value of any field.
    """

    ids: tuple[ItemId, ...] = ()
    """Item ids."""
    kind: tuple[Kind, ...] = ()
    """Kinds."""
    dataset: tuple[str, ...] = ()
    """Datasets."""
    source: tuple[str, ...] = ()
    """Sources."""
    label: tuple[str, ...] = ()
    """Labels."""
    case: tuple[str, ...] = ()
    """Cases."""
    patient: tuple[str, ...] = ()
    """Patients."""
    site: tuple[str, ...] = ()
    """Sites."""
    stain: tuple[str, ...] = ()
    """Stains."""
    scanner: tuple[str, ...] = ()
    """Scanners."""
    um_per_px_min: Annotated[float, Field(allow_inf_nan=False)] | None = None
    """At least this many micrometres per pixel; an item without a scale does not meet it."""
    um_per_px_max: Annotated[float, Field(allow_inf_nan=False)] | None = None
    """At most this many micrometres per pixel."""
    acquired_from: date | None = None
    """On this day or later; an item without a date does not meet it."""
    acquired_to: date | None = None
    """On this day or earlier."""

    @property
    def words(self) -> dict[str, tuple[str, ...]]:
        """The keyword fields that carry a condition."""
        return {name: values for name in KEYWORDS if (values := getattr(self, name))}

    @property
    def ranges(self) -> dict[str, tuple[float | None, float | None]]:
        """The numeric fields that carry a condition, as (at least, at most)."""
        found: dict[str, tuple[float | None, float | None]] = {
            "um_per_px": (self.um_per_px_min, self.um_per_px_max),
            "acquired": (
                None if self.acquired_from is None else days(self.acquired_from),
                None if self.acquired_to is None else days(self.acquired_to),
            ),
        }
        return {name: ends for name, ends in found.items() if ends != (None, None)}

    def both(self, other: Filter) -> Filter | None:
        """As `where`, what meets this and `other`; `None` where nothing can meet both."""
        changes: dict[str, Any] = {}
        for name in ("ids", *KEYWORDS):
            mine, theirs = getattr(self, name), getattr(other, name)
            changes[name] = (
                tuple(v for v in mine if v in theirs) if mine and theirs else mine or theirs
            )
            if (mine or theirs) and not changes[name]:
                return None
        for low, high in RANGE_FIELDS:
            for name, narrower in ((low, max), (high, min)):
                ends = [v for v in (getattr(self, name), getattr(other, name)) if v is not None]
                changes[name] = narrower(ends) if ends else None
            if None not in (changes[low], changes[high]) and changes[low] > changes[high]:
                return None
        return Filter(**changes)

    def either(self, other: Filter) -> Filter:
        """As `exclude`, what this or `other` hits.

        Raises:
            ValueError: both have a range on one field; two ranges are not one.
        """
        if self.ranges.keys() & other.ranges.keys():
            raise ValueError("two ranges of one field cannot be excluded at once")
        changes: dict[str, Any] = {
            name: tuple(dict.fromkeys((*getattr(self, name), *getattr(other, name))))
            for name in ("ids", *KEYWORDS)
        }
        for name in (end for ends in RANGE_FIELDS for end in ends):
            mine = getattr(self, name)
            changes[name] = getattr(other, name) if mine is None else mine
        return Filter(**changes)

    @property
    def parts(self) -> list[Filter]:
        """Each condition as a filter of its own: as `exclude`, this hits what any part hits."""
        found = [Filter(**{name: v}) for name in ("ids", *KEYWORDS) if (v := getattr(self, name))]
        return found + [
            Filter(**{name: getattr(self, name) for name in ends})
            for ends in RANGE_FIELDS
            if any(getattr(self, name) is not None for name in ends)
        ]

    @property
    def empty(self) -> bool:
        """Whether there is no condition at all."""
        return not (self.ids or self.words or self.ranges)

    def meets(self, item: Item) -> bool:
        """Whether an item meets every condition: the plain statement of `where`."""
        return all(self._tests(item))

    def hits(self, item: Item) -> bool:
        """Whether an item has any of the values: the plain statement of `exclude`."""
        return any(self._tests(item))

    def _tests(self, item: Item) -> list[bool]:
        tests = [item.id in self.ids] if self.ids else []
        tests += [getattr(item, name) in values for name, values in self.words.items()]
        for name, (low, high) in self.ranges.items():
            value = getattr(item, name)
            number = days(value) if isinstance(value, date) else value
            tests.append(
                number is not None
                and (low is None or number >= low)
                and (high is None or number <= high)
            )
        return tests


class Hit(Record):
    """One neighbour."""

    item: Item
    """The stored item."""
    score: Annotated[float, Field(ge=-1, le=1, allow_inf_nan=False)]
    """Cosine similarity to the query."""


class Vote(Record):
    """The label that the neighbours carry, as a weighted vote."""

    label: str | None
    """The label with the largest share; `None` if no neighbour carries a label."""
    shares: dict[str, float]
    """Share of the weight per label, largest first; they sum to 1."""
    voters: int
    """Neighbours that carry a label."""
    unlabelled: int
    """Neighbours that carry none; they do not vote."""
    margin: float
    """Share of the first label less that of the second."""


Relation = Literal["item", "source", "case", "patient", "duplicate"]
RELATIONS: tuple[Relation, ...] = ("item", "source", "case", "patient", "duplicate")
Exclusion = Literal["applied", "partial", "impossible", "off"]


GroupField = Literal["case", "patient", "source"]
BagField = Literal["case", "patient", "source"]
BalanceField = Literal["site", "source", "patient", "dataset", "scanner"]


class About(Record):
    """What is known of an uploaded image, so that its own kin can be left out."""

    source: Text | None = None
    """Id of the source; taken from the bytes where an image is uploaded."""
    case: Text | None = None
    """Case that the image belongs to."""
    patient: Text | None = None
    """Pseudonym of the patient, as the library has it."""
    site: Text | None = None
    """Laboratory or hospital; its share among the hits is shown against what is to be expected."""
    um_per_px: Annotated[float, Field(gt=0, le=1000, allow_inf_nan=False)] | None = None
    """Micrometres per pixel of an uploaded image; without them sizes are not compared."""


class Question(Record):
    """What is asked of a collection: by an uploaded image, a stored item, or a vector."""

    collection: str | None = None
    """Collection to search; `None` for the service's default."""
    item: ItemId | None = None
    """Id of a stored item to start from."""
    vector: tuple[float, ...] | None = None
    """A vector to start from; `fingerprint` must then say whose it is."""
    fingerprint: str | None = None
    """Encoder fingerprint that the caller relies on; another one is refused."""
    crop: Box | None = None
    """Ask with this part of the uploaded image alone, in its pixels; what lies over the border is
    filled with the colour of the glass, as in an ingest."""
    about: About = About()
    """What is known of the query."""
    k: Annotated[int, Field(ge=1, le=1000)] = 10
    """How many neighbours."""
    where: Filter = Filter()
    """Conditions that every neighbour meets."""
    exclude: tuple[Relation, ...] = RELATIONS
    """Kin of the query that is left out: unless asked otherwise, all of it."""
    not_these: Filter = Filter()
    """Items with any of these values are left out as well."""
    exact: bool = False
    """Compare with every item instead of walking the graph."""
    group_by: GroupField | None = None
    """One group for each case, patient or source; `k` then counts groups, best first."""
    per_group: Annotated[int, Field(ge=1, le=50)] = 1
    """Hits shown of each group."""
    mmr: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] | None = None
    """Diversity by maximal marginal relevance: 1 is similarity alone, 0 is variety alone."""
    balance: BalanceField | None = None
    """Let each site (or source, patient, dataset, scanner) have no more hits than its share of
    the filtered collection, rounded up."""
    facets: Annotated[tuple[Keyword, ...], Field(max_length=len(KEYWORDS))] = ()
    """Fields whose values are counted over everything that could have been a hit."""


class Group(Record):
    """The hits of one case, patient or source."""

    value: str
    """Its name."""
    items: int
    """Exactly how many items of it could have been a hit: they meet `where`, and are neither kin
    of the query by id, source, case or patient nor in `not_these`."""
    score: float
    """Of its best hit."""
    hits: tuple[Hit, ...]
    """The best of it, falling score."""


class SiteShare(Record):
    """How often the hits come from the query's own site."""

    site: str
    """The query's site."""
    share: float
    """Share of the hits that are of it."""
    expected: float
    """Its share of the items that meet `where`."""


class Answer(Record):
    """Neighbours, with all that is needed to judge them."""

    hits: tuple[Hit, ...]
    """Falling score, equal scores in order of id; with `group_by`, group by group; with `mmr`, in
    the order in which they were chosen."""
    collection: str
    """Where was searched."""
    items: int
    """How many items the collection holds."""
    encoder: str
    """Id of the encoder."""
    fingerprint: str
    """Fingerprint of the encoder."""
    k: int
    """How many were asked."""
    exact: bool
    """Whether every item was compared."""
    where: Filter
    """The conditions that were applied."""
    patients: int
    """Different patients among the hits."""
    sources: int
    """Different sources among the hits."""
    sites: int
    """Different sites among the hits."""
    patient_exclusion: Exclusion
    """Whether the query's own patient was kept out: `applied`; `partial` if some hits have no
    patient id; `impossible` if ids are unknown; `off` if it was asked for."""
    warnings: tuple[str, ...] = ()
    """Reasons not to trust the answer, in words."""
    seconds: dict[str, float] = {}
    """Time spent, by step."""
    group_by: GroupField | None = None
    """What the hits are grouped by."""
    groups: tuple[Group, ...] = ()
    """The groups, best first; empty where none were asked for."""
    duplicates: int = 0
    """Near-duplicates of the query (the same picture or the same vector) that were left out."""
    facets: dict[str, dict[str, int]] = {}
    """For each field asked for: its values with their counts, most frequent first, at most 100."""
    own_site: SiteShare | None = None
    """The query's own site among the hits; `None` where its site is not known."""
    disclaimer: str = DISCLAIMER
    """What the answer is not."""


State = Literal["sure", "not sure", "out of distribution"]
CalibrationState = Literal["applied", "stale", "other question", "none"]


class StageShare(Record):
    """One stage of maturation, and how much of a vote lies on it."""

    stage: str
    """Its name in the maturation graph."""
    lineage: str
    """Where it belongs, for instance `neutrophil`."""
    share: float
    """Share of the vote."""
    steps: int
    """Steps of maturation between it and the label with the largest share."""


class LineageSpread(Record):
    """A vote laid out along the maturation of blood cells."""

    stages: tuple[StageShare, ...]
    """Falling share."""
    lineages: dict[str, float]
    """Share of the vote per lineage, largest first."""
    mean_steps: float
    """Mean steps from the first label, weighted by share, over what is on the graph."""
    dangerous: float
    """Share of the vote that takes a blast for a mature cell, or a mature cell for a blast,
    if the first label is right."""
    unmapped: float
    """Share on labels that are not on the graph."""


class VoteAnswer(Record):
    """The vote of the neighbours, and the neighbours."""

    vote: Vote
    """Shares per label."""
    sure: bool
    """Whether the vote is clear enough to show as one label; see `reason`."""
    reason: str
    """Why it is, or is not, in words."""
    answer: Answer
    """The neighbours that voted."""
    state: State = "not sure"
    """`sure`, `not sure` or `out of distribution`; `reason` says why."""
    probability: float | None = None
    """Calibrated probability that the first label is what the source would say; `None` where the
    collection has no calibration that fits this question."""
    calibration: CalibrationState = "none"
    """Whether a calibration was applied: `stale` if the collection has changed since it was
    fitted, `other question` if it was fitted for another k, weighting or exclusion, or without
    this filter."""
    lineage: LineageSpread | None = None
    """The vote along maturation; `None` where the first label is not on the graph."""
