"""Answers to searches and votes."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from search.schemas.filters import Filter
from search.schemas.items import DISCLAIMER, Box, Item, Kind, Record
from search.schemas.questions import GroupField, Grouping, Labels


class ReviewedLabel(Record):
    """The label that reviewers gave an item."""

    label: str
    """The last one that was not withdrawn."""
    by: str
    """Name that the reviewer gave, else the id of the key."""
    at: str
    """When, in UTC."""
    disputed: bool = False
    """Whether another reviewer's label stands beside it."""


class Hit(Record):
    """One neighbour."""

    item: Item
    """The stored item, with the label that was recorded."""
    score: Annotated[float, Field(ge=-1, le=1, allow_inf_nan=False)]
    """Cosine similarity to the query."""
    reviewed: ReviewedLabel | None = None
    """The reviewers' label; `None` where there is none, and with `labels=recorded`."""

    @property
    def label(self) -> str | None:
        """The label that votes: the reviewers', else the recorded one."""
        return self.item.label if self.reviewed is None else self.reviewed.label


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


Exclusion = Literal["applied", "partial", "impossible", "off"]


class Group(Record):
    """The hits of one case, patient or source."""

    value: str
    """Its name."""
    by: GroupField | None = None
    """What makes it a group; with `group_by=group` it may differ from group to group."""
    items: int
    """Exactly how many items of it could have been a hit: they meet `where` and are excluded by
    neither `exclude` nor `not_these` (near-duplicates are counted). A case or source that stands in
    for a patient who is not known is counted whole."""
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
    """Its share of the items that could have been hits: see `Answer.searched`."""


class Alignment(Record):
    """The site by whose mean and spread an uploaded query was aligned."""

    site: str | None
    """`None` where the query's own cells stood for a site that is not in the library."""
    by: Literal["named", "own cells", "nearest"]
    """`named`: the question says it; `own cells`: those of the uploaded case; `nearest`: the site
    that the vector looks most like."""


class FusedWith(Record):
    """The collection whose ranks were fused with those of the collection that was searched."""

    collection: str
    """Its name."""
    encoder: str
    """Id of its encoder."""
    fingerprint: str
    """Fingerprint of its encoder."""
    missing: int
    """Items that it found and that are not in the collection searched; they are no hits."""


class LookedAt(Record):
    """Which part of an uploaded picture was compared, and how its scale is known."""

    box: Box
    """The part, in pixels of the uploaded picture."""
    scale: Literal["known", "estimated", "unknown"]
    """`known`: the question says it; `estimated`: by the diameter of red cells."""
    um_per_px: float | None
    """Micrometres per pixel of the uploaded picture; `None` where the scale is unknown."""
    um_per_px_spread: float | None
    """Of an estimate: the middle half of the single cells' um/px."""
    um: float | None
    """Micrometres that the longer side of the part spans."""
    field_um: float | None
    """Field of view of the encoder about such a cell, in micrometres; `None` for an encoder that
    states none and looks at whole pictures."""
    words: str
    """All of it as a sentence."""


class Answer(Record):
    """Neighbours, with all that is needed to judge them."""

    hits: tuple[Hit, ...]
    """Falling score, equal scores in order of id; with `group_by`, group by group; with `mmr`, in
    the order in which they were chosen; with `fuse_with`, by their places in both rankings."""
    collection: str
    """Where was searched."""
    items: int
    """How many items the collection holds."""
    encoder: str
    """Id of the encoder."""
    fingerprint: str
    """Fingerprint of the encoder."""
    k: int
    """How many were wanted."""
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
    """Whether the query's own patient was excluded: `applied`; `partial` if some hits have no
    patient id; `impossible` if ids are unknown; `off` if the question did not exclude it."""
    warnings: tuple[str, ...] = ()
    """Reasons not to trust the answer, as sentences."""
    unfit: tuple[str, ...] = ()
    """Those of the warnings with which the query's picture is no basis for a verdict: it is too
    small, blank or blurred."""
    in_sample: bool = False
    """Whether the query is stored with a label that may have chosen the axes of the version: its
    neighbours then carry that label more often than those of a new picture would."""
    kinds: tuple[Kind, ...] = ()
    """Kinds of items that the collection holds; none in answers of older versions."""
    searched: int | None = None
    """Items that could have been hits: they meet `where` and are excluded by neither `exclude` nor
    `not_these` (near-duplicates are counted); `None` in answers of older versions."""
    seconds: dict[str, float] = Field(default={})
    """Time spent, by step."""
    group_by: Grouping | None = None
    """What the hits are grouped by."""
    groups: tuple[Group, ...] = ()
    """The groups, best first; empty without `group_by`."""
    duplicates: int = 0
    """Near-duplicates of the query (the same picture or the same vector) that were excluded."""
    facets: dict[str, dict[str, int]] = Field(default={})
    """For each field of `facets` its values with their counts: the most frequent, at most 100."""
    own_site: SiteShare | None = None
    """The query's own site among the hits; `None` where its site is not known."""
    alignment: Alignment | None = None
    """How an uploaded query was aligned; `None` where the index aligns no sites, and for stored
    items, which were aligned with the index."""
    fused_with: FusedWith | None = None
    """The collection whose ranks were fused with this one's; `None` without `fuse_with`."""
    looked_at: LookedAt | None = None
    """What of an uploaded picture was compared; `None` for stored items and vectors."""
    labels: Labels = "recorded"
    """Which labels the hits vote with."""
    reviewed: int = 0
    """Hits whose label is a reviewer's."""
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
    """Why it is, or is not, as a sentence."""
    answer: Answer
    """The neighbours that voted."""
    state: State = "not sure"
    """`sure`, `not sure` or `out of distribution`; `reason` says why."""
    probability: float | None = None
    """Calibrated probability that the first label is what the source would say; `None` where the
    collection has no calibration that fits this question."""
    calibration: CalibrationState = "none"
    """Whether a calibration was applied: `stale` if the collection has changed since it was
    fitted, `other question` if it was fitted for another k, weighting, exclusion or other labels,
    without this filter, or, where labels chose the axes, without the query's own."""
    calibrated_ks: tuple[int, ...] = ()
    """Numbers of neighbours that the calibration was fitted for; none where there is none."""
    lineage: LineageSpread | None = None
    """The vote along maturation; `None` where the first label is not on the graph."""
    residual: float | None = None
    """How much of the query's vector the collection's own principal axes cannot express; `None`
    where the collection is too small to say."""
    far: float | None = None
    """Residual beyond which a query is out of distribution."""
