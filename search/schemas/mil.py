"""Case models: trained on the cases of a collection, applied to a new one."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from search.schemas.answers import Exclusion
from search.schemas.cases import WORDS, Value
from search.schemas.evaluations import Span
from search.schemas.filters import Filter
from search.schemas.items import DISCLAIMER, Box, Item, ItemId, Record, Text
from search.schemas.questions import About, BagField

Pooling = Literal["abmil", "abmil_gated", "clam_sb", "transmil", "mean", "max"]
Task = Literal["class", "survival"]
CellKind = Literal["white", "red", "platelet"]
Factor = Literal["focus", "brightness", "hue", "saturation", "cells", "size"]
FACTORS: tuple[Factor, ...] = ("focus", "brightness", "hue", "saturation", "cells", "size")
LABEL = WORDS[0]
"""The column that a model learns where none is named: what was found of a case."""
MOST_CELLS = 2000
"""Cells of one case that a model looks at."""
MOST_CASES = 20_000
"""Cases whose values are sent with a plan."""
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


class MilPlan(Record):
    """How a case model is trained."""

    name: Text = "model"
    """What to call it."""
    by: BagField = "case"
    """What makes a bag: a case; a patient; or a source, which for tiles is a slide."""
    where: Filter = Filter()
    """Conditions on the cells that it looks at, in training and later."""
    found: Literal["all", "white"] = "all"
    """`white`: without cells that a finder of cells took for red cells or platelets."""
    task: Task = "class"
    """`class`: a label of each case. `survival`: the order in which events come."""
    label: Text = LABEL
    """Column of the cases with the label. Of `survival`: with the time until the event or the
    last news, in any unit."""
    event: Text = "event"
    """Of `survival`: column that says whether the event came (yes, true, 1) or not."""
    values: Annotated[dict[Text, dict[Text, Value]], Field(max_length=MOST_CASES)] = Field(
        default_factory=dict
    )
    """Case, column and value: in place of what is stored of the cases, or beside it."""
    pooling: Pooling = "abmil_gated"
    """How cells become one vector. `abmil`, `abmil_gated`: attention; `clam_sb`: attention with a
    clustering of the extreme cells; `transmil`: a transformer; `mean`, `max`: baselines."""
    factors: tuple[Factor, ...] = ()
    """Difficulties that must not decide (focus, brightness, hue, saturation, cells, size): what
    they explain is taken out of the vectors, easy cases are learned first, and attention that
    follows them is penalised."""
    folds: Annotated[int, Field(ge=2, le=20)] = 5
    """Parts by patient; each is predicted by a network that did not see it."""
    epochs: Annotated[int, Field(ge=1, le=1000)] = 60
    """Most passes over the training cases; the best by the patients held out for it is kept."""
    lr: Annotated[float, Field(gt=0, le=1)] = 1e-3
    """Of Adam."""
    cells: Annotated[int, Field(ge=1, le=MOST_CELLS)] = 500
    """Cells of each case that it looks at: the first in order of id, which is as good as drawn."""
    accuracy: Annotated[float, Field(gt=0, le=1)] = 0.9
    """Share of its answers that should be right: it is not sure below the probability at which
    its held-out answers reached this."""
    seed: Annotated[int, Field(ge=0, le=2**31)] = 0
    """Of folds, weights and order."""

    @model_validator(mode="after")
    def _fits(self) -> MilPlan:
        if len(set(self.factors)) < len(self.factors):
            raise ValueError("a factor is named twice")
        if self.task == "survival" and self.label == self.event:
            raise ValueError("survival needs two columns: label for the time, event for the event")
        return self


class MilClass(Record):
    """One class, and how well its held-out cases were found."""

    name: str
    cases: int
    recall: Share
    auroc: Share | None
    """Against all others; `None` where it cannot be had."""


class MilScores(Record):
    """Scores of held-out cases: each predicted by the network that did not see its patient."""

    figures: dict[str, float]
    """Of `class`: auroc, balanced_accuracy, weighted_f1, accuracy, and majority (the accuracy of
    always saying the most frequent class). Of `survival`: c_index."""
    intervals: dict[str, Span]
    """95 %, by a bootstrap over whole patients."""
    classes: tuple[MilClass, ...] = ()
    confusion: tuple[tuple[int, ...], ...] = ()
    """Rows: the classes in order; columns: what was said."""
    ece_before: float | None = None
    """Expected calibration error of the plain probabilities."""
    ece: float | None = None
    """With the temperature of the other folds."""
    coverage: float | None = None
    """Share of held-out cases that are answered."""
    answered_accuracy: float | None = None
    """Share of those that is right."""


class MilModel(Record):
    """The card of a trained case model."""

    id: str
    name: str
    collection: str
    encoder: str
    fingerprint: str
    """Of the encoder whose vectors it reads; it is refused on others."""
    model_fingerprint: str
    """Sixteen hex digits that change with its weights or what it was trained on."""
    data_fingerprint: str
    """Of the cases, labels and cells that it was trained on."""
    content: str
    """Of the collection when it was trained; see `stale`."""
    records: str | None = None
    """Digest of the records of cases when it was trained, empty where there was none; `None` in
    older models."""
    plan: MilPlan
    """Without the values that came with it."""
    classes: tuple[str, ...]
    """In the order of its outputs; none where it gives a risk."""
    made: str
    cases: int
    patients: int
    """Cases without a patient count as one each."""
    cells: int
    scores: MilScores
    temperature: float
    """What logits are divided by."""
    threshold: float
    """Probability below which it is not sure; above 1 where no answer is sure enough."""
    notes: tuple[str, ...]
    kinds: tuple[CellKind, ...] = ()
    """What a finder of cells took the cells for that it was trained on, where one found them."""
    stale: bool = False
    """Whether the collection, or a record of its cases, has been written to since."""
    disclaimer: str = DISCLAIMER


class MilQuestion(Record):
    """A case that a model is applied to: stored, of stored items, of vectors, or uploaded cells."""

    model: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
    """Id of the model."""
    case: Text | None = None
    """Name of a stored case, patient or source, as `by` says."""
    by: BagField | None = None
    """`None` for what the model was trained on."""
    items: Annotated[tuple[ItemId, ...], Field(max_length=MOST_CELLS)] = ()
    """Ids of stored items."""
    vectors: Annotated[tuple[tuple[float, ...], ...], Field(max_length=MOST_CELLS)] = ()
    """Vectors; `fingerprint` must then say whose they are."""
    fingerprint: str | None = None
    """Encoder fingerprint of the vectors."""
    about: About = About()
    """What is known of an uploaded case; a patient that the model was trained on is answered by
    the networks that did not see it."""
    top: Annotated[int, Field(ge=0, le=MOST_CELLS)] = MOST_CELLS
    """Cells in the answer, in the order of `order`."""
    order: Literal["attention", "effect"] = "attention"
    """Cells with most attention first, or those that speak most for `towards`."""
    towards: Text | None = None
    """Class that the effect of each cell is told for; `None` for the most probable one."""


class MilCell(Record):
    """One cell, and how much it counted."""

    cell: int
    """Its position: of the images, vectors or items; in a stored case, in order of id."""
    item: Item | None
    """Where it is stored."""
    field: int | None = None
    """Of uploaded fields: which of them it was found in, from 0."""
    box: Box | None = None
    """The square that was cut around it, in pixels of that field."""
    attention: Share
    """How much a network looked at it; all of a case add up to 1."""
    effect: float | None = None
    """What the answer would lose without it: log-odds of the class that `towards` names, or risk;
    negative where the cell speaks against it. `None` of a single cell, and of `transmil`."""


class MilAnswer(Record):
    """What a model says of a case, and which cells that rests on."""

    model: str
    name: str
    model_fingerprint: str
    probabilities: dict[str, float]
    """Calibrated, largest first; none where the model gives a risk."""
    label: str | None
    """The class, where it is sure."""
    sure: bool
    reason: str
    """Why it is sure, or not, as a sentence."""
    risk: float | None = None
    """Of `survival`: the logarithm of the hazard against the mean of the training cases."""
    risk_percentile: Share | None = None
    """Share of the training cases, each held out, with a lower risk."""
    cells: tuple[MilCell, ...]
    """Falling attention, or effect, as was asked for."""
    towards: str | None = None
    """Class that effects speak for; `None` where the model gives a risk."""
    looked_at: int
    """Cells that it looked at."""
    complete: bool
    """Whether those are all of the case."""
    unseen: Exclusion
    """Whether the case's patient was kept out of the networks that answer: `applied`, or
    `impossible` where the patient is not known."""
    networks: int
    """How many answered."""
    warnings: tuple[str, ...] = ()
    disclaimer: str = DISCLAIMER
