"""Evaluation of the labels of a collection's neighbours: splits, predictions and scores."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from hashlib import sha256
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from inspect import getsource

import numpy as np

from encoder.card import EncoderCard
from search.evaluation.folds import CannotEvaluate, make_split, uploaded_split
from search.evaluation.labelled import Cells, flattered, most, read_labelled
from search.evaluation.predicting import Progress, Steps, adapted, by_neighbours, by_probe
from search.evaluation.scores import Predictions, Task, by_index, scored
from search.evaluation.splits import subset
from search.index.contract import Store
from search.neighbours.duplicates import PictureHash
from search.neighbours.groups import Rows, numbered
from search.neighbours.site_bias import Origins, drawn, site_bias
from search.schemas.answers import ReviewedLabel
from search.schemas.evaluations import (
    FEWEST,
    BiasResult,
    CodeFacts,
    DataFacts,
    EncoderFacts,
    EvaluationPlan,
    EvaluationResult,
    MethodResult,
    SetFacts,
    Unit,
)

CODE = (
    "search.evaluation.run",
    "search.evaluation.folds",
    "search.evaluation.predicting",
    "search.evaluation.scores",
    "search.neighbours.duplicates",
    "search.neighbours.exact",
    "search.neighbours.groups",
    "search.evaluation.labelled",
    "search.votes.knn",
    "search.evaluation.probe",
    "search.evaluation.splits",
    "search.evaluation.metrics",
    "search.evaluation.ranking",
    "search.votes.reliability",
    "search.transforms.contract",
    "search.transforms.align",
    "search.transforms.metric",
    "search.transforms.folds",
    "search.neighbours.site_bias",
)
"""The modules whose text is the version of an evaluation."""
MEANS = {"balanced accuracy": "balanced_accuracy", "weighted F1": "weighted_f1"}
"""Means that are given with and without the queries that cannot be answered."""
BIAS_QUERIES = 2000
"""Most items whose neighbours are compared by site."""


Uploaded = tuple[SetFacts, Callable[[Callable[[int], None]], Cells]]
"""Facts about an uploaded set, and what reads it."""


@dataclass(frozen=True)
class Whole:
    """Where the data came from."""

    collection: str
    version: str
    items: int
    content: str
    hashes: Callable[[Sequence[str]], Sequence[PictureHash | None]] = lambda ids: [None] * len(ids)
    """Perceptual hashes of stored items."""
    labels: Mapping[str, ReviewedLabel] = field(default_factory=dict)
    """Reviewers' labels, by item; they count before the recorded ones."""
    patients: Mapping[str, str] = field(default_factory=dict)
    """Patients that the records of cases name, by case."""


@dataclass(frozen=True)
class Outcome:
    """A result, and the predictions for every item."""

    result: EvaluationResult
    cells: Cells
    predictions: Sequence[Predictions]
    clusters: Rows
    """For each cell the number of its patient or source: what the intervals are drawn by."""


def evaluate(
    store: Store,
    card: EncoderCard,
    whole: Whole,
    plan: EvaluationPlan,
    uploaded: Uploaded | None = None,
    progress: Progress = lambda done, total: None,
) -> Outcome:
    """Evaluate a collection, or an uploaded set against it.

    Args:
        store: Of the collection.
        card: Of its encoder.
        whole: Facts about the collection.
        plan: What is evaluated, and how.
        uploaded: Facts about a set, and what reads it.
        progress: Callback with how far it is.

    Raises:
        CannotEvaluate: too few labelled items, one label only, or a split that the data does
            not allow; says which.
    """
    steps = Steps(progress)
    with steps.timed("reading"):
        cells, queries, labelled = _data(store, plan, uploaded, whole, steps)
        cells, same = cells.grouped()
    notes = [*_checked(cells, queries, labelled), *_notes(same, len(cells), plan, card)]
    alone = uploaded is not None and plan.teach == "collection"
    split = uploaded_split(cells, plan) if alone else make_split(cells, plan)
    if plan.adapt is not None:
        split = replace(split, vectors=adapted(cells, plan.adapt, card))
    steps.total = 1 + len(queries) + len(split.probe) * max(1, len(queries) // 4)
    names, truth = np.unique(cells.labels, return_inverse=True)
    task = Task(cells, truth, names, queries, plan)
    with steps.timed("neighbours"):
        predictions = by_neighbours(task, split, steps)
    if plan.probe:
        with steps.timed("probe"):
            predictions.append(by_probe(task, split, steps))
    index = None
    if plan.ann and plan.adapt is None and (uploaded is None or alone):
        with steps.timed("index"):
            index = by_index(store, task, steps.look)
    with steps.timed("bias"):
        bias = bias_of(cells, queries, plan, steps.look) if plan.adapt is None else None
        notes += _bias_notes(bias)
    unit, clusters = unit_of(cells, queries)
    methods = []
    with steps.timed("scoring"):
        for one in predictions:
            methods.append(scored(one, task))
            steps.look(0)
        notes += unanswerable(predictions, methods, cells)
    steps.add(steps.total)
    result = EvaluationResult(
        data=_data_facts(cells, whole, labelled, len(predictions[0].rows), uploaded).model_copy(
            update={"labels": plan.labels, "reviewed": len(whole.labels.keys() & set(cells.ids))}
        ),
        encoder=EncoderFacts(id=card.id, fingerprint=card.fingerprint),
        code=code_facts(),
        split=split.facts,
        unit=unit,
        clusters=len(np.unique(clusters[predictions[0].rows])),
        labels=tuple(str(name) for name in names),
        methods=tuple(methods),
        index=index,
        bias=bias,
        notes=(*notes, *split.notes, *_unit_notes(unit)),
        seconds=steps.seconds,
    )
    return Outcome(result, cells, predictions, clusters)


def unanswerable(
    predictions: Sequence[Predictions], methods: Sequence[MethodResult], cells: Cells
) -> list[str]:
    """Which labels cannot be answered right, and the means with and without their queries."""
    notes = []
    for made, method in zip(predictions, methods, strict=True):
        lost = Counter(map(str, cells.labels[made.rows[made.references == 0]]))
        if not lost:
            continue
        words = ", ".join(f"{label} ({count})" for label, count in sorted(lost.items()))
        sentence = (
            f"{method.method}: {lost.total()} of {len(made.rows)} queries cannot be answered "
            "right, since no reference outside their own patient, case and source has their "
            f"label: {words}"
        )
        if (without := method.answerable) is not None:
            means = (
                f"{name} {100 * getattr(method.scores, key):.1f} % with them counted as wrong, "
                f"{100 * getattr(without, key):.1f} % without them"
                for name, key in MEANS.items()
            )
            sentence += f"; {'; '.join(means)}"
        notes.append(sentence)
    return notes


def _data(
    store: Store,
    plan: EvaluationPlan,
    uploaded: Uploaded | None,
    whole: Whole,
    steps: Steps,
) -> tuple[Cells, Rows, int]:
    """Cells, the rows that are queries, and how many labelled ones there were before any limit."""
    if uploaded is None or plan.teach == "collection":
        cells = read_labelled(store, plan.where, steps.look, whole.labels, whole.patients)
        labelled = len(cells)
        cells = most(cells, plan.limit, plan.seed)
        cells = replace(cells, hashes=tuple(whole.hashes(cells.ids)))
    if uploaded is None:
        rows = np.arange(len(cells))
    else:
        came = uploaded[1](steps.look)
        if plan.teach == "set":
            labelled = len(came)
            cells = most(came, plan.limit, plan.seed)
            rows = np.arange(len(cells))
        else:
            there = set(came.ids)
            kept = [at for at, id in enumerate(cells.ids) if id not in there]
            cells = cells.take(np.array(kept, np.int64)).joined(came)
            rows = np.flatnonzero(~cells.own)
    if plan.ask is not None and plan.ask < len(rows):
        chosen = subset(cells.labels[rows], cells.group[rows].astype(str), plan.ask, plan.seed)
        rows = rows[chosen]
    return cells, rows, labelled


def _data_facts(
    cells: Cells, whole: Whole, labelled: int, queries: int, uploaded: Uploaded | None
) -> DataFacts:
    facts = uploaded and uploaded[0].model_copy(update={"items": int((~cells.own).sum())})
    return DataFacts(
        collection=whole.collection,
        version=whole.version,
        items=whole.items,
        labelled=labelled,
        used=len(cells),
        asked=queries,
        digest=cells.digest(),
        content=whole.content,
        patients=len(set(cells.patients) - {None}),
        sources=len(set(cells.sources)),
        sites=len(set(cells.sites) - {None}),
        without_patient=sum(patient is None for patient in cells.patients),
        uploaded=facts,
    )


def _notes(same: int, cells: int, plan: EvaluationPlan, card: EncoderCard) -> list[str]:
    """Notes about near-duplicates (`same` pairs; negative where there are too many cells to look
    for them), and about adapted vectors.
    """
    notes = []
    if same:
        notes.append(
            f"{same} pair{'' if same == 1 else 's'} of near-duplicates joined"
            if same > 0
            else f"near-duplicates were not looked for among {cells} pictures"
        )
    if plan.adapt is not None:
        notes.append(
            f"vectors adapted by {plan.adapt!r}, fitted anew on the training part of each fold; "
            "index and site bias are those of vectors that are stored, and were left out"
        )
        return notes
    return [*notes, *flattered(card)]


def _checked(cells: Cells, queries: Rows, labelled: int) -> list[str]:
    classes = len(np.unique(cells.labels))
    if len(cells) < FEWEST or classes < 2 or not len(queries):
        raise CannotEvaluate(
            f"an evaluation needs at least {FEWEST} labelled items of two labels, got "
            f"{len(cells)} of {classes}; ingest labelled items, or raise the limit"
        )
    notes = []
    if len(cells) < labelled and cells.own.any():
        notes.append(f"a subset of {len(cells)} of {labelled} labelled items")
    lost = sorted(set(cells.labels[queries]) - set(np.delete(cells.labels, queries)))
    if not cells.own.all() and lost:
        notes.append(f"labels of queries without a reference: {', '.join(map(str, lost))}")
    return notes


def bias_of(
    cells: Cells, rows: Rows, plan: EvaluationPlan, progress: Callable[[int], None]
) -> BiasResult | None:
    """The site bias of the neighbours of `rows`; `None` where there are fewer than two sites."""
    names, sites = numbered(cells.sites)
    if len(names) < 2:
        return None
    labels = np.unique(cells.labels, return_inverse=True)[1]
    items = Origins(cells.vectors, sites, labels, cells.group)
    queries = drawn(rows[sites[rows] >= 0], BIAS_QUERIES, plan.seed)
    found = site_bias(items, queries, max(plan.ks), progress)
    if found is None:
        return None
    return BiasResult(
        k=max(plan.ks),
        asked=len(found.queries),
        sites=len(names),
        own_site=found.share,
        expected=found.expected_share,
        excess=found.share - found.expected_share,
        robustness=found.robustness,
    )


def unit_of(cells: Cells, queries: Rows) -> tuple[Unit, Rows]:
    """What the bootstrap draws, by name, and the cluster of every row."""
    unknown = sum(cells.patients[at] is None for at in queries.tolist())
    unit: Unit = "patient" if not unknown else "source" if unknown == len(queries) else "mixed"
    return unit, cells.group


def _bias_notes(bias: BiasResult | None) -> list[str]:
    if bias is None or bias.robustness is not None:
        return []
    return [
        "the robustness index cannot be known: no item has possible neighbours both "
        "of its label from another site and of another label from its own site"
    ]


def _unit_notes(unit: Unit) -> list[str]:
    if unit == "source":
        return [
            "no patient ids: the intervals are by source and may be too narrow, and nothing "
            "here is a patient-level score"
        ]
    if unit == "mixed":
        return ["some items have no patient id: for these the intervals are by source"]
    return []


def code_facts() -> CodeFacts:
    """The version of what scores: of the package, of the modules' text, of the libraries."""
    libraries = {}
    for name in ("numpy", "scikit-learn", "torch"):
        with suppress(PackageNotFoundError):  # torch is not there in the light installation
            libraries[name] = version(name)
    return CodeFacts(version=version("hemaseek"), digest=code_digest(CODE), libraries=libraries)


def code_digest(modules: Iterable[str]) -> str:
    """Twelve hex digits over the text of modules, by their dotted names."""
    text = "".join(getsource(import_module(name)) for name in modules)
    return sha256(text.encode()).hexdigest()[:12]
