"""The plan of an evaluation, and everything that comes out of one."""

from __future__ import annotations

from datetime import date
from statistics import fmean, pstdev
from typing import Annotated, Literal

from pydantic import Field, field_validator

from search.schemas.calibration import CoveragePoint, ReliabilityBin
from search.schemas.cases import CasePlan, Distance
from search.schemas.filters import Filter
from search.schemas.items import DISCLAIMER, ItemId, Record
from search.schemas.questions import Labels, Weighting
from search.schemas.versions import JobState

SplitName = Literal[
    "auto",
    "leave-one-patient-out",
    "leave-one-source-out",
    "leave-one-site-out",
    "one-site-in",
    "stratified",
    "temporal",
]
Unit = Literal["patient", "source", "mixed"]
FEWEST = 20
"""Labelled items below which nothing is scored."""


class EvaluationPlan(Record):
    """What is to be evaluated, and how. Equal plans on equal data give equal figures."""

    collection: str | None = None
    """Collection; `None` for the service's default."""
    where: Filter = Filter()
    """Only items that meet this are evaluated, as queries and as references."""
    labels: Labels = "reviewed"
    """Labels that are evaluated, and that vote: a reviewer's where there is one, else the recorded
    one; or `recorded` alone."""
    split: SplitName = "auto"
    """Train/test split. `auto` holds out each patient, or each source where no patient is known.
    `leave-one-site-out` trains on all other sites; `one-site-in` on one, and tests on each other.
    In every split no item of a query's own patient, case or source is in its training part."""
    folds: Annotated[int, Field(ge=2, le=20)] = 5
    """Of `stratified`; and of the probe where each patient or source is left out in turn."""
    cutoff: date | None = None
    """Of `temporal`: earlier items train, later ones test; `None` tests the latest quarter."""
    ks: Annotated[
        tuple[Annotated[int, Field(ge=1, le=500)], ...], Field(min_length=1, max_length=20)
    ] = (1, 5, 10, 20)
    """Numbers of neighbours that vote."""
    weighting: Weighting = "similarity"
    """Weight of each neighbour."""
    temperature: Annotated[float, Field(gt=0, le=10, allow_inf_nan=False)] = 0.07
    """Of the softmax weighting."""
    probe: bool = True
    """Fit a linear probe too."""
    probe_limit: Annotated[int, Field(ge=FEWEST, le=100_000)] = 5000
    """Most training items of the probe in a fold, classes in proportion."""
    ann: bool = True
    """Search through the index as well, and compare with exact search."""
    ann_sample: Annotated[int, Field(ge=1, le=20_000)] = 1000
    """Queries through the index."""
    ask: Annotated[int, Field(ge=1)] | None = None
    """Most queries, classes in proportion; every item stays a reference. `None` queries all."""
    limit: Annotated[int, Field(ge=FEWEST, le=1_000_000)] = 100_000
    """Most items that are used at all, classes in proportion."""
    resamples: Annotated[int, Field(ge=1, le=10_000)] = 1000
    """Of the bootstrap."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    """Of folds, subsets and the bootstrap."""
    teach: Literal["collection", "set"] = "collection"
    """With an uploaded set, what the references are: the collection, and the set is tested; or the
    set itself, which is then split, and the collection only lends its encoder."""

    cases: CasePlan | None = None
    """Evaluate similar cases instead of cells; of the rest only `resamples` and `seed` count."""
    adapt: Annotated[str, Field(pattern=r"^[a-z]+(\+[a-z]+)*$", max_length=100)] | None = None
    """Score an adaptation of this kind (`align`, `metric`, `fuse`, or several joined by a plus),
    fitted anew on the training part of each fold. Folds of whole patients or sources stand for
    each one in turn."""

    @field_validator("ks")
    @classmethod
    def _once_each(cls, ks: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(sorted(set(ks)))


class Scores(Record):
    """The scores of all answers together, as scikit-learn has them."""

    weighted_f1: float
    balanced_accuracy: float
    accuracy: float
    macro_f1: float
    auroc: float | None = None
    """Mean over the classes, each against the rest; `None` where no class has a rest."""
    auprc: float | None = None
    """Mean over the classes of the average precision."""
    map_at_k: float | None = None
    """Mean average precision of the neighbours; `None` for the probe, which has none."""


class Span(Record):
    """A percentile bootstrap interval (95 %), whole patients or sources drawn."""

    low: float
    high: float


class FoldScores(Record):
    """One fold."""

    fold: str
    taught: int
    """Training items."""
    asked: int
    """Test items."""
    weighted_f1: float
    balanced_accuracy: float
    accuracy: float
    macro_f1: float


class ClassScores(Record):
    """One class."""

    label: str
    asked: int
    """Test items of this class."""
    known: int
    """Reference items of this class, the test items included."""
    precision: float | None
    """`None` where nothing was predicted as this class."""
    recall: float | None
    """`None` where it has no test item, or none that could be answered."""
    recall_span: Span | None
    f1: float
    auroc: float | None
    auprc: float | None
    map_at_k: float | None
    answerable: int | None = None
    """Test items whose label has a reference outside their own patient, case and source; only
    these can be answered right. `None` in results of before this was counted."""


class ConfusionMatrix(Record):
    """How often each class was predicted as which."""

    matrix: tuple[tuple[int, ...], ...]
    """Rows: truth; columns: prediction; both in the order of the result's `labels`."""
    unanswered: tuple[int, ...]
    """By truth: tied votes, and queries without any neighbour."""


class MethodResult(Record):
    """One way to answer, scored."""

    method: str
    """`20-NN`, `linear probe`."""
    k: int | None
    scores: Scores
    """Of all test items; one that cannot be answered counts as wrong."""
    intervals: dict[str, Span]
    """By the names of `scores`, where there is one."""
    per_fold: tuple[FoldScores, ...]
    """Empty where each patient or source is left out in turn."""
    classes: tuple[ClassScores, ...]
    worst: str | None
    """The class with the lowest recall."""
    confusion: ConfusionMatrix
    tied: int
    """Votes whose first two labels had equal weight; they are never right."""
    tied_right: int
    """How many of these the nearer neighbour would have got right."""
    dangerous: int
    """Answers that took a blast for a mature cell, or the reverse."""
    reliability: tuple[ReliabilityBin, ...]
    """Of the share of the first label: not calibrated, see the collection's calibration."""
    ece: float
    by_margin: tuple[CoveragePoint, ...]
    """What is right of the answers that remain, where those of small margin are not given."""
    notes: tuple[str, ...] = ()
    answerable: Scores | None = None
    """Of the test items that can be answered (`ClassScores.answerable`); `None` where all can."""

    def over_folds(self) -> dict[str, tuple[float, float]]:
        """Mean and standard deviation (n, not n - 1) of each score over the folds, by name.

        Empty where there are no folds.
        """
        if not self.per_fold:
            return {}
        names = ("weighted_f1", "balanced_accuracy", "accuracy", "macro_f1")
        values = {name: [getattr(fold, name) for fold in self.per_fold] for name in names}
        return {name: (fmean(each), pstdev(each)) for name, each in values.items()}


class IndexAtK(Record):
    """The index beside exact search, for one number of neighbours."""

    k: int
    recall: float
    """Share of the exact neighbours that the index finds; one as near as the last counts."""
    agree: float
    """Share of the votes that are the same."""
    exact: Scores
    index: Scores


class IndexResult(Record):
    """Votes through the index that is served, beside votes by exact search."""

    asked: int
    rule: str
    """What is excluded."""
    by_k: tuple[IndexAtK, ...]


class BiasResult(Record):
    """Whether neighbours are chosen by laboratory."""

    k: int
    asked: int
    sites: int
    own_site: float
    """Share of the neighbours that are of the own site."""
    expected: float
    """What that share would be if, among the items of each label, the site did not matter."""
    excess: float
    robustness: float | None
    """Robustness index (de Jong et al. 2025): same label from another site, against that and
    another label from the same site; 1 where only biology counts, 0 where only the site does.
    `None` where it cannot be known, since no item has possible neighbours of both kinds."""


class SetFacts(Record):
    """An uploaded set."""

    kind: Literal["zip", "shard"]
    items: int
    digest: str
    """Sixteen hex digits of its bytes."""


class DataFacts(Record):
    """What was evaluated."""

    collection: str
    version: str
    items: int
    """In the collection."""
    labelled: int
    """Of those that meet the filter."""
    used: int
    asked: int
    digest: str
    """Sixteen hex digits over ids, labels, groups and vectors of all that was used."""
    content: str
    """Digest of the collection's content; another one now makes the result stale."""
    patients: int
    sources: int
    sites: int
    without_patient: int
    labels: Labels = "recorded"
    """Which labels were evaluated."""
    reviewed: int = 0
    """Of those that were used, how many have a reviewer's label."""
    uploaded: SetFacts | None = None


class EncoderFacts(Record):
    """Whose vectors they are."""

    id: str
    fingerprint: str


class CodeFacts(Record):
    """What computed the figures."""

    version: str
    digest: str
    """Twelve hex digits over the text of the modules that score."""
    libraries: dict[str, str]


class SplitFacts(Record):
    """The train/test split."""

    name: SplitName | Literal["uploaded"]
    """Never `auto`: what it came to."""
    words: str
    folds: int
    """How many parts were held out in turn."""
    probe: str | None
    """The split of the probe; it cannot be fitted anew for each patient."""
    cutoff: date | None = None
    seed: int


class EvaluationResult(Record):
    """Everything that came out."""

    format: Literal[1] = 1
    data: DataFacts
    encoder: EncoderFacts
    code: CodeFacts
    split: SplitFacts
    unit: Unit
    """What the intervals are drawn by."""
    clusters: int
    """How many of them."""
    labels: tuple[str, ...]
    methods: tuple[MethodResult, ...]
    index: IndexResult | None
    bias: BiasResult | None
    notes: tuple[str, ...]
    """What a reader of the figures must know."""
    seconds: dict[str, float]


class PairedDifference(Record):
    """A difference over the same cases, whole patients drawn."""

    difference: float
    low: float
    high: float
    p: float
    """Two-sided: twice the share of draws on the other side of 0."""


class CaseLabelScores(Record):
    """The cases of one label."""

    label: str
    cases: int
    top_1: float
    top_5: float
    vote: float
    average_precision: float


class CaseScores(Record):
    """How often the most similar cases have the label of the query case."""

    distance: Distance
    top_1: float
    """Share of cases whose nearest case has their label."""
    top_3: float
    """Share with one of it among the nearest three."""
    top_5: float
    map: float
    """Mean average precision of the first hundred."""
    vote: float
    """Share whose nearest cases, by majority, have their label."""
    intervals: dict[str, Span]
    labels: tuple[CaseLabelScores, ...]
    worst: str
    """The label that the vote finds least often."""
    unanswered: int
    """Cases for which no other labelled case was found."""
    over_mean: dict[str, PairedDifference] | None
    """Each score above that of `mean` over the same cases."""


class CaseEvaluation(Record):
    """The evaluation of similar cases by one column of their records."""

    column: str
    cases: int
    """With a label."""
    asked: int
    patients: int
    labels: dict[str, int]
    """Labels with their cases, most frequent first."""
    k: int
    chance: dict[str, float]
    """What a random order would reach."""
    scores: tuple[CaseScores, ...]
    notes: tuple[str, ...]
    disclaimer: str = DISCLAIMER


class Headline(Record):
    """The best vote by weighted F1, for lists; the probe only where nothing else was scored."""

    method: str
    weighted_f1: float
    balanced_accuracy: float


class EvaluationRecord(Record):
    """One evaluation, as it stands."""

    id: str
    collection: str
    plan: EvaluationPlan
    state: JobState
    done: int
    total: int
    """0 while it is not known."""
    made: str
    ended: str | None = None
    error: str | None = None
    stale: bool | None = None
    """Whether the collection, the reviewers' labels or the records of cases that count have changed
    since, or another version serves; `None` until done."""
    version: str | None = None
    """Of the collection that was evaluated."""
    content: str | None = None
    """Digest of the collection's content then."""
    reviews: str | None = None
    """Digest of the reviewers' labels that counted; `None` where there was none."""
    records: str | None = None
    """Digest of what the records of cases said that counted: patients, and of cases everything."""
    encoder: str | None = None
    """Id of the encoder; `None` until done."""
    headline: Headline | None = None
    result: EvaluationResult | None = None
    """`None` until it is done, in lists, and for cases."""
    cases: CaseEvaluation | None = None
    """As `result`, where cases were evaluated."""


class ItemAnswer(Record):
    """The prediction for one item."""

    item: ItemId
    stored: bool
    """Whether the collection has its picture; an uploaded set is not kept."""
    truth: str
    said: str | None
    """The predicted label; `None` for a tied vote, and where there was no neighbour."""
    share: float
    """Of the first label."""
    margin: float
    """Of the first label over the second."""
    right: bool


class ItemAnswers(Record):
    """Answers of one method, the surest first."""

    method: str
    total: int
    """How many there are under the conditions."""
    answers: tuple[ItemAnswer, ...]


Verdict = Literal["first", "second", "not shown"]


class PairedSide(Record):
    """One of the two."""

    id: str
    """Of the evaluation."""
    collection: str
    version: str
    encoder: str
    fingerprint: str
    method: str
    alone: int
    """Items that only this one tested; they are left out."""


class PairedScore(Record):
    """One score of both, over the items that both tested."""

    name: str
    """`weighted_f1` and so on; the label for the recall of a class."""
    first: float
    second: float
    difference: float
    """First less second."""
    span: Span
    """95 % confidence interval of the difference: the same patients or sources drawn for both."""
    asked: int
    """Test items behind it."""


class PairedResult(Record):
    """Two evaluations compared over the same items."""

    first: PairedSide
    second: PairedSide
    asked: int
    """Items that both tested, with the same label."""
    relabelled: int
    """Items that both tested with different labels; they are left out."""
    unit: Unit
    """What the intervals are drawn by."""
    clusters: int
    both_right: int
    only_first: int
    """Right by the first alone."""
    only_second: int
    neither: int
    scores: tuple[PairedScore, ...]
    classes: tuple[PairedScore, ...]
    """Recall of each label."""
    mcnemar: float | None
    """Two-sided exact p of McNemar's test over the items that one alone has right; `None` where
    several items belong to one patient or source, which the test does not allow."""
    verdict: Verdict
    """By the interval of the difference in weighted F1; `not shown` where it contains 0."""
    words: str
    """The verdict in one sentence."""
    notes: tuple[str, ...]
    disclaimer: str = DISCLAIMER


class TrustWanted(Record):
    """What is measured of when not to trust an answer."""

    where: Filter = Filter()
    """Items of the collection that are meant."""
    outside: Filter = Filter()
    """Items that are of no kind of it (tissue among blood); none if it is empty."""
    until: date | None = None
    """Scores by year take neighbours up to this day; `None`: up to the end of the first year."""
    most: Annotated[int, Field(ge=20, le=5000)] = 1000
    """Queries of each side."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Of what is drawn."""
