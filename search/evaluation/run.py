"""Evaluation of the labels of a collection's neighbours: splits, predictions and scores."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from functools import lru_cache
from hashlib import sha256
from importlib import import_module
from importlib.metadata import version
from inspect import getsource

import numpy as np
from numpy.typing import NDArray

from encoder.card import EncoderCard
from search.errors import BadQuestion
from search.evaluation import splits
from search.evaluation.labelled import UNDATED, Cells, most, read_labelled
from search.evaluation.probe import linear_probe
from search.evaluation.ranking import average_precision_at_k
from search.evaluation.scores import Predictions, by_index, scored
from search.evaluation.splits import Fold, subset
from search.index.contract import Store
from search.neighbours.duplicates import PictureHash
from search.neighbours.groups import Rows, neighbours_outside
from search.neighbours.site_bias import Origins, drawn, site_bias
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
    SplitFacts,
    SplitName,
    Unit,
)
from search.transforms.contract import CannotFit, Sample, Vectors
from search.transforms.folds import in_fold
from search.votes.knn import votes

CODE = (
    "search.evaluation.run",
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
"""What is told with and without the queries that cannot be answered."""
BIAS_QUERIES = 2000
"""Most items whose neighbours are compared by site."""
WORDS = {
    "leave-one-patient-out": "each patient left out in turn",
    "leave-one-source-out": "each source left out in turn",
    "leave-one-site-out": "each site left out in turn",
}


class CannotEvaluate(BadQuestion):
    """Data that cannot be evaluated by this plan."""


Progress = Callable[[int, int], None]
"""Callback with how much is done, of how much; may raise to stop."""


@dataclass(frozen=True)
class Whole:
    """Where the data came from."""

    collection: str
    version: str
    items: int
    content: str
    hashes: Callable[[Sequence[str]], Sequence[PictureHash | None]] = lambda ids: [None] * len(ids)
    """Perceptual hashes of stored items."""


@dataclass(frozen=True)
class Split:
    """What is train and what is test."""

    facts: SplitFacts
    folds: Sequence[Fold]
    """One without a name where each patient or source is left out in turn."""
    probe: Sequence[Fold]
    notes: tuple[str, ...] = ()
    vectors: Callable[[Fold], Vectors] | None = None
    """Vectors (n x dim) under the transform of a fold; `None` for those that are stored."""

    @property
    def in_turn(self) -> bool:
        """Whether each patient or source is left out in turn."""
        return not self.folds[0].name


@dataclass(frozen=True)
class Outcome:
    """A result, and the predictions for every item."""

    result: EvaluationResult
    cells: Cells
    predictions: Sequence[Predictions]
    clusters: Rows
    """For each cell the number of its patient or source: what the intervals are drawn by."""


@dataclass
class _Steps:
    """How far an evaluation is, and what its parts took."""

    progress: Progress
    total: int = 0
    done: int = 0
    seconds: dict[str, float] = field(default_factory=dict)

    def add(self, count: int) -> None:
        """So much more was done."""
        self.done = min(self.done + count, self.total)
        self.progress(self.done, self.total)

    def look(self, _: int) -> None:
        """Call back without progress, so that it can stop."""
        self.progress(self.done, self.total)

    @contextmanager
    def timed(self, part: str) -> Iterator[None]:
        """Count the time of a part."""
        began = time.perf_counter()
        yield
        took = time.perf_counter() - began
        self.seconds[part] = round(self.seconds.get(part, 0.0) + took, 3)


def evaluate(
    store: Store,
    card: EncoderCard,
    whole: Whole,
    plan: EvaluationPlan,
    uploaded: tuple[SetFacts, Callable[[Callable[[int], None]], Cells]] | None = None,
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
    steps = _Steps(progress)
    with steps.timed("reading"):
        cells, queries, labelled = _data(store, plan, uploaded, whole, steps)
        cells, same = cells.grouped()
    notes = _checked(cells, queries, labelled)
    if same:
        notes.append(
            f"{same} pair{'' if same == 1 else 's'} of near-duplicates joined"
            if same > 0
            else f"near-duplicates were not looked for among {len(cells)} pictures"
        )
    alone = uploaded is not None and plan.teach == "collection"
    split = uploaded_split(cells, plan) if alone else make_split(cells, plan)
    if plan.adapt is not None:
        split = replace(split, vectors=_adapted(cells, plan.adapt, card))
        notes.append(
            f"vectors adapted by {plan.adapt!r}, fitted anew on the training part of each fold; "
            "index and site bias are those of vectors that are stored, and were left out"
        )
    elif "metric" in (card.adapted or ""):
        notes.append(
            "the stored vectors were fitted on labels of this collection, so that these scores "
            "flatter them; go back to the version before and evaluate with --adapt"
        )
    steps.total = 1 + len(queries) + len(split.probe) * max(1, len(queries) // 4)
    names, truth = np.unique(cells.labels, return_inverse=True)
    with steps.timed("neighbours"):
        predictions = _by_neighbours(cells, truth, len(names), queries, split, plan, steps)
    if plan.probe:
        with steps.timed("probe"):
            predictions.append(_by_probe(cells, truth, len(names), queries, split, plan, steps))
    index = None
    if plan.ann and plan.adapt is None and (uploaded is None or alone):
        with steps.timed("index"):
            index = by_index(store, cells, truth, names, queries, plan, steps.look)
    with steps.timed("bias"):
        bias = bias_of(cells, queries, plan, steps.look) if plan.adapt is None else None
    if bias and bias.robustness is None:
        notes.append(
            "the robustness index cannot be known: no item has possible neighbours both "
            "of its label from another site and of another label from its own site"
        )
    unit, clusters = unit_of(cells, queries)
    methods = []
    with steps.timed("scoring"):
        for one in predictions:
            methods.append(scored(one, cells, truth, names, clusters, plan))
            steps.look(0)
        notes += unanswerable(predictions, methods, cells)
    steps.add(steps.total)
    result = EvaluationResult(
        data=DataFacts(
            collection=whole.collection,
            version=whole.version,
            items=whole.items,
            labelled=labelled,
            used=len(cells),
            asked=len(predictions[0].rows),
            digest=cells.digest(),
            content=whole.content,
            patients=len(set(cells.patients) - {None}),
            sources=len(set(cells.sources)),
            sites=len(set(cells.sites) - {None}),
            without_patient=sum(patient is None for patient in cells.patients),
            uploaded=_counted(uploaded[0], cells) if uploaded else None,
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
    uploaded: tuple[SetFacts, Callable[[Callable[[int], None]], Cells]] | None,
    whole: Whole,
    steps: _Steps,
) -> tuple[Cells, Rows, int]:
    """Cells, the rows that are queries, and how many labelled ones there were before any limit."""
    if uploaded is None or plan.teach == "collection":
        cells = read_labelled(store, plan.where, steps.look)
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


def _counted(facts: SetFacts, cells: Cells) -> SetFacts:
    return facts.model_copy(update={"items": int((~cells.own).sum())})


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


def make_split(cells: Cells, plan: EvaluationPlan) -> Split:
    """The folds of a plan; no group lies on both sides of one.

    Raises:
        CannotEvaluate: the data does not allow the split.
    """
    some = any(patient is not None for patient in cells.patients)
    name: SplitName = plan.split
    if name == "auto":
        name = "leave-one-patient-out" if some else "leave-one-source-out"
    if plan.adapt is not None and name in ("leave-one-patient-out", "leave-one-source-out"):
        name = "stratified"  # a transform is fitted for each fold
    everything = np.arange(len(cells))
    notes: list[str] = []
    unit = "patient" if some else "source"
    cutoff = None
    try:
        if name in ("leave-one-patient-out", "leave-one-source-out"):
            if name == "leave-one-patient-out" and not some:
                raise CannotEvaluate(
                    "no item has a patient id, so that no patient can be left out; "
                    "use leave-one-source-out, and read the figures as being of sources"
                )
            if name == "leave-one-source-out" and some:
                notes.append("the own patient and case were left out with each source")
            folds = [Fold("", everything, everything)]
            words = WORDS[name]
        elif name == "leave-one-site-out":
            folds, words = _by_site(cells, notes), WORDS[name]
        elif name == "temporal":
            cutoff = plan.cutoff or _latest_quarter(cells)
            folds = _by_day(cells, cutoff, notes)
            words = f"items before {cutoff} are the references, later ones the queries"
        else:
            folds = _stratified(cells, plan)
            words = f"{plan.folds} stratified folds by {unit}"
        in_turn = not folds[0].name
        probe = (_stratified(cells, plan) if in_turn else folds) if plan.probe else []
    except splits.BadSplit as error:
        raise CannotEvaluate(str(error)) from error
    facts = SplitFacts(
        name=name,
        words=words,
        folds=len(np.unique(cells.group)) if in_turn else len(folds),
        probe=(f"{len(probe)} stratified folds by {unit}" if in_turn else words)
        if plan.probe
        else None,
        cutoff=cutoff,
        seed=plan.seed,
    )
    return Split(facts, folds, probe, tuple(notes))


def uploaded_split(cells: Cells, plan: EvaluationPlan) -> Split:
    """The collection is train, the uploaded set test; groups in both are left out of train."""
    fold = _fold(cells, "uploaded", np.flatnonzero(cells.own), ~cells.own)
    words = "the collection is the reference, the uploaded set the queries"
    facts = SplitFacts(name="uploaded", words=words, folds=1, probe=words, seed=plan.seed)
    dropped = int(cells.own.sum()) - len(fold.train)
    notes = (
        f"{dropped} items of the collection share a patient, case or source with the set: left out",
    )
    return Split(facts, [fold], [fold] if plan.probe else [], notes if dropped else ())


def _stratified(cells: Cells, plan: EvaluationPlan) -> list[Fold]:
    words = cells.group.astype(str)
    count = min(plan.folds, len(np.unique(words)))
    if count < 2:
        raise CannotEvaluate(
            "every item belongs to one patient, case or source; nothing is left to train on"
        )
    if len(np.unique(words)) == len(cells):
        return splits.stratified(cells.labels, count, plan.seed)
    return splits.grouped(cells.labels, words, count, plan.seed)


def _by_site(cells: Cells, notes: list[str]) -> list[Fold]:
    sites = np.array([site if site is not None else "" for site in cells.sites], np.str_)
    known = np.array([site is not None for site in cells.sites])
    names = np.unique(sites[known])
    if len(names) < 2:
        raise CannotEvaluate(
            f"leaving one site out needs two sites, got {len(names)}; "
            "give --site when you ingest, or use another split"
        )
    if not known.all():
        notes.append(f"{int((~known).sum())} items without a site were left out")
    folds = [
        _fold(cells, str(name), np.flatnonzero(known & (sites != name)), sites == name)
        for name in names
    ]
    dropped = sum(int((known & (sites != f.name)).sum()) - len(f.train) for f in folds)
    if dropped:
        notes.append(
            f"{dropped} times a reference was left out: its patient, case or source was held out"
        )
    return folds


def _by_day(cells: Cells, cutoff: date, notes: list[str]) -> list[Fold]:
    at = (cutoff - date(1970, 1, 1)).days
    dated = cells.days != UNDATED
    early = np.flatnonzero(dated & (cells.days < at))
    late = dated & (cells.days >= at)
    if not len(early) or not late.any():
        raise CannotEvaluate(
            f"of {int(dated.sum())} dated items {len(early)} are before {cutoff} and "
            f"{int(late.sum())} are not; both must be at least one: choose another cutoff"
        )
    if not dated.all():
        notes.append(f"{int((~dated).sum())} items without a date were left out")
    fold = _fold(cells, f"from {cutoff}", early, late)
    if len(fold.train) < len(early):
        notes.append(
            f"{len(early) - len(fold.train)} earlier items share a patient, case or source with "
            "later ones: left out"
        )
    return [fold]


def _latest_quarter(cells: Cells) -> date:
    dated = np.sort(cells.days[cells.days != UNDATED])
    if not len(dated):
        raise CannotEvaluate("no item has a date of acquisition; use another split")
    return date(1970, 1, 1) + timedelta(days=int(dated[(3 * len(dated)) // 4]))


def _fold(cells: Cells, name: str, train: Rows, of: NDArray[np.bool_]) -> Fold:
    """A fold of the test rows that `of` marks, and of the train rows of other groups."""
    queries = np.flatnonzero(of)
    train = train[~np.isin(cells.group[train], cells.group[queries])]
    if not len(train):
        raise CannotEvaluate(
            f"fold {name!r}: everything outside it shares a patient, case or source with it; "
            "use another split"
        )
    return Fold(name, train, queries)


def _by_neighbours(
    cells: Cells,
    truth: Rows,
    classes: int,
    queries: Rows,
    split: Split,
    plan: EvaluationPlan,
    steps: _Steps,
) -> list[Predictions]:
    wide = max(plan.ks)
    parts: list[tuple[Fold, Rows, Rows, NDArray[np.float32]]] = []
    for fold in split.folds:
        rows = np.intersect1d(fold.test, queries)
        before = steps.done

        def report(done: int, before: int = before) -> None:
            steps.add(before + done - steps.done)

        vectors = cells.vectors if split.vectors is None else split.vectors(fold)
        near, cosines = neighbours_outside(vectors, cells.group, rows, fold.train, wide, report)
        parts.append((fold, rows, near, cosines))
    rows = np.concatenate([part[1] for part in parts])
    near = np.concatenate([part[2] for part in parts])
    cosines = np.concatenate([part[3] for part in parts])
    there = np.concatenate([_relevant(cells, truth, part[0], part[1]) for part in parts])
    near_labels = np.where(near >= 0, truth[near], -1)
    relevant = near_labels == truth[rows][:, None]
    found = []
    for k in plan.ks:
        one = votes(near_labels[:, :k], cosines[:, :k], classes, plan.weighting, plan.temperature)
        empty = int((one.first < 0).sum())
        few = int(((near[:, :k] >= 0).sum(axis=1) < k).sum())
        notes = [f"{few} items had fewer than {k} neighbours"] if few else []
        notes += [f"{empty} items had no neighbour"] if empty else []
        found.append(
            Predictions(
                method=f"{k}-NN",
                k=k,
                rows=rows,
                shares=one.shares,
                first=one.first,
                margin=one.margin,
                tied=one.tied,
                precision=average_precision_at_k(relevant[:, :k], there),
                references=there,
                folds=()
                if split.in_turn
                else tuple((fold.name, len(fold.train), len(part)) for fold, part, _, _ in parts),
                notes=tuple(notes),
            )
        )
    return found


def _adapted(cells: Cells, kind: str, card: EncoderCard) -> Callable[[Fold], Vectors]:
    """The vectors of a fold under a transform that was fitted on its train rows."""
    if card.adapted is not None:
        raise CannotEvaluate(
            f"the collection is adapted already ({card.adapted}); go back to the version before "
            "it, and evaluate that with --adapt"
        )
    sites = np.array([site or "" for site in cells.sites], np.str_)
    sample = Sample(cells.vectors, sites, cells.labels, cells.group)

    @lru_cache(maxsize=1)
    def of_rows(train: bytes, test: bytes) -> Vectors:
        rows = (np.frombuffer(part, np.int64) for part in (train, test))
        try:
            return in_fold(kind, sample, card, *rows)
        except CannotFit as error:
            raise CannotEvaluate(str(error)) from error

    return lambda fold: of_rows(fold.train.tobytes(), fold.test.tobytes())


def _relevant(cells: Cells, truth: Rows, fold: Fold, rows: Rows) -> Rows:
    """How many references of each query have its label, its own group left out."""
    classes = int(truth.max()) + 1
    per_class = np.bincount(truth[fold.train], minlength=classes)
    pairs = cells.group[fold.train] * classes + truth[fold.train]
    size = (int(cells.group.max()) + 1) * classes
    own = np.bincount(pairs, minlength=size)[cells.group[rows] * classes + truth[rows]]
    return np.asarray(per_class[truth[rows]] - own)


def _by_probe(
    cells: Cells,
    truth: Rows,
    classes: int,
    queries: Rows,
    split: Split,
    plan: EvaluationPlan,
    steps: _Steps,
) -> Predictions:
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    rows, shares, there, folds, notes = [], [], [], [], []
    each = max(1, len(queries) // 4)
    for fold in split.probe:
        test = np.intersect1d(fold.test, queries)
        train = fold.train
        if plan.probe_limit < len(train):
            words = cells.group[train].astype(str)
            train = train[subset(cells.labels[train], words, plan.probe_limit, plan.seed)]
        if len(np.unique(truth[train])) < 2:
            raise CannotEvaluate(f"fold {fold.name}: fewer than two labels to train the probe on")
        steps.look(0)
        if len(test):
            with threadpool_limits(1, "blas"):  # questions are answered beside it, equal sums
                vectors = cells.vectors if split.vectors is None else split.vectors(fold)
                fitted = linear_probe(vectors[train], truth[train], vectors[test])
            part = np.zeros((len(test), classes))
            part[:, fitted.classes] = fitted.shares
            rows.append(test)
            shares.append(part)
            there.append(_relevant(cells, truth, Fold(fold.name, train, test), test))
            folds.append((fold.name, len(train), len(test)))
            if not fitted.converged:
                notes.append(f"fold {fold.name}: not converged after {fitted.iterations} steps")
        steps.add(each)
    if any(trained < len(f.train) for (_, trained, _), f in zip(folds, split.probe, strict=False)):
        notes.append(f"trained on at most {plan.probe_limit} items of a fold")
    together = np.concatenate(shares)
    order = np.argsort(-together, axis=1, kind="stable")
    at = np.arange(len(together))
    first, second = order[:, 0], order[:, 1]
    margin = together[at, first] - together[at, second]
    return Predictions(
        method="linear probe",
        k=None,
        rows=np.concatenate(rows),
        shares=together,
        first=first,
        margin=margin,
        tied=margin <= 0,
        precision=None,
        references=np.concatenate(there),
        folds=tuple(folds),
        notes=tuple(notes),
    )


def bias_of(
    cells: Cells, rows: Rows, plan: EvaluationPlan, progress: Callable[[int], None]
) -> BiasResult | None:
    """The site bias of the neighbours of `rows`; `None` where there are fewer than two sites."""
    names = {site: at for at, site in enumerate(sorted({s for s in cells.sites if s is not None}))}
    if len(names) < 2:
        return None
    sites = np.array([-1 if s is None else names[s] for s in cells.sites], np.int64)
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
    libraries = {name: version(name) for name in ("numpy", "scikit-learn", "torch")}
    return CodeFacts(version=version("hemaseek"), digest=code_digest(CODE), libraries=libraries)


def code_digest(modules: Iterable[str]) -> str:
    """Twelve hex digits over the text of modules, by their dotted names."""
    text = "".join(getsource(import_module(name)) for name in modules)
    return sha256(text.encode()).hexdigest()[:12]
