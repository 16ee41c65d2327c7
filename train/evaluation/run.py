"""The papers' evaluation: nearest neighbours and a linear probe on frozen vectors.

    python -m train.evaluation.run --data pbc chula lc25000 --encoders colour random-vit-s PATH

prints a table of the papers' shape and writes everything it knows as JSON.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator
from rich.console import Console

from encoder.contract import Encoder
from search.evaluation import splits
from search.evaluation.metrics import METRICS, bootstrap, confusion, scores
from search.evaluation.probe import Rule, linear_probe
from search.evaluation.run import code_digest
from search.neighbours import exact
from search.neighbours.exact import Metric
from search.votes.knn import votes
from train.data import datasets
from train.data.datasets import Labelled
from train.evaluation import table
from train.evaluation.command import Scoring, config_of, status_of, write_json
from train.evaluation.vectors import open_encoder, vectors_of

if TYPE_CHECKING:
    from train.evaluation.abmil import MilResult

SplitName = Literal[
    "auto", "stratified", "grouped", "one-source-in", "leave-one-source-out", "fixed"
]
CODE = (
    "train.evaluation.run",
    "train.data.datasets",
    "train.evaluation.abmil",
    "train.evaluation.vectors",
    "search.neighbours.exact",
    "search.evaluation.probe",
    "search.evaluation.splits",
    "search.evaluation.metrics",
    "search.votes.knn",
)
"""The modules whose text is the version of an evaluation."""


class EvaluateConfig(Scoring):
    """Score encoders as DinoBloom and RedDino do: 1-NN, 20-NN and a linear probe.

    Every encoder meets the same cells in the same folds. Vectors are kept on disk under the
    encoder's fingerprint, so that a second run costs only the scoring and a run that was
    stopped goes on where it was.
    """

    data: tuple[str, ...] = ("pbc", "chula", "lc25000")
    """Sets, by name (pbc, chula, chula-no-12, lc25000, bccd, pbc-bccd), folder:PATH (a folder per
    label, or a manifest.csv with path, label and perhaps patient and source), or as published:
    aml-hehr:PATH, aml-matek:, bmc-full:, lisc:, sslseg:, warty-pig:, elsafty:, dse:."""
    encoders: tuple[str, ...] = ("colour", "random-vit-s")
    """Names, folders or timm sources that the registry loads, and random-vit-s, -b, -l."""
    split: SplitName = "auto"
    """auto: folds that keep the set's groups whole; stratified: by cell, as the papers, and
    refused where groups are larger than a cell; one-source-in: train on one source, test on each
    other one (RedDino's Table 1); leave-one-source-out: train on all others, test on one; fixed:
    the test images that `split_file` names (BMC and AML Matek in DinoBloom, 80/20)."""
    split_file: Path | None = None
    """With fixed: a CSV whose first column is a path, as published, or a path on each line."""
    folds: int = Field(default=5, ge=2)
    """Number of folds; the splits by source have one for each pair of sources, or each source."""
    ours: tuple[str, ...] = ()
    """Those of the encoders whose gain over all the others is shown, as RedDino's rows
    Improvement (best less best) and Avg improvement (mean less mean)."""
    k: tuple[int, ...] = (1, 20)
    """Neighbours that vote, heads counted."""
    metric: Metric = "cosine"
    """Of the neighbours. On vectors of length 1 both rank alike."""
    features: Literal["unit", "raw"] = "unit"
    """unit: vectors of length 1, as they are served; raw: as the network gives them, which with
    euclidean is what the papers' code scored."""
    probe: bool = True
    """Fit the linear probe too (the slowest part)."""
    probe_rule: Rule = "samples"
    """What n counts in C = c x n / 100: training samples (the paper), or features (its code)."""
    bags: bool = False
    """Also score patients by ABMIL, without a gate (the paper's) and gated; needs a set with
    patients, each of one label."""
    limit: int | None = Field(default=None, ge=1)
    """About so many cells per set, classes in proportion, from as many groups as there are;
    stated in the report."""
    seed: int = Field(default=0, ge=0)
    """Of subsets, folds, bootstrap and random encoders."""
    resamples: int = Field(default=1000, ge=1)
    """Bootstrap resamples of the intervals."""
    threads: int | None = Field(default=None, ge=1)
    """Threads of torch; all cores if not given."""

    @model_validator(mode="after")
    def _known(self) -> EvaluateConfig:
        if unknown := [name for name in self.ours if name not in self.encoders]:
            raise ValueError(f"ours names {unknown[0]}, which is not among the encoders")
        if (self.split == "fixed") != (self.split_file is not None):
            raise ValueError("split fixed and split_file belong together: give both, or neither")
        if self.ours and len(set(self.ours)) == len(set(self.encoders)):
            raise ValueError("ours names every encoder; a gain needs others to compare with")
        return self


@dataclass(frozen=True)
class Result:
    """One encoder, one set, one method."""

    method: str
    """`1-NN`, `20-NN`, `linear probe`."""
    mean: dict[str, float]
    """Mean of the folds: what the papers print."""
    sd: dict[str, float]
    """Standard deviation over the folds."""
    per_fold: list[dict[str, Any]]
    pooled: dict[str, float]
    """Scores of all answers together."""
    intervals: dict[str, dict[str, Any]]
    """Cluster bootstrap of `pooled`."""
    recall: dict[str, float]
    """Recall of each class over all answers."""
    notes: list[str]
    answerable: dict[str, float] | None = None
    """`pooled` without cells whose class has no training cell in their fold, which no method can
    get right; `None` where there are none."""


@dataclass(frozen=True)
class _Answers:
    """What one method predicted, fold after fold."""

    predicted: list[NDArray[np.int64]] = field(default_factory=list)
    """Class numbers of each fold's test cells."""
    notes: list[str] = field(default_factory=list)


def evaluate(
    vectors: NDArray[np.float32],
    labelled: Labelled,
    folds: Sequence[splits.Fold],
    config: EvaluateConfig,
) -> list[Result]:
    """Score one encoder's vectors on one set.

    Args:
        vectors: n x dim, in the order of the set.
        labelled: The set.
        folds: Which cells are train and which test.
        config: Methods, metric, seed.
    """
    names, truth = np.unique(labelled.labels, return_inverse=True)
    by_method: dict[str, _Answers] = {}
    for fold in folds:
        train, test, known = vectors[fold.train], vectors[fold.test], truth[fold.train]
        k = min(max(config.k), len(train))
        near, near_scores = exact.search(test, train, k, metric=config.metric)
        for count in config.k:
            made = by_method.setdefault(f"{count}-NN", _Answers())
            if count > k:
                made.notes.append(f"fold {fold.name}: only {k} training cells, so {k} voted")
            near_labels, cosines = known[near[:, :count]], near_scores[:, :count]
            made.predicted.append(votes(near_labels, cosines, len(names), "uniform").first)
        if config.probe:
            made = by_method.setdefault("linear probe", _Answers())
            fitted = linear_probe(train, known, test, rule=config.probe_rule)
            made.predicted.append(fitted.predicted)
            if not fitted.converged:
                words = f"not converged after {fitted.iterations} steps"
                made.notes.append(f"fold {fold.name}: {words}")
    return [_result(name, made, labelled, folds, config) for name, made in by_method.items()]


def _result(
    method: str,
    made: _Answers,
    labelled: Labelled,
    folds: Sequence[splits.Fold],
    config: EvaluateConfig,
) -> Result:
    names, truth = np.unique(labelled.labels, return_inverse=True)
    classes = len(names)
    per_fold: list[dict[str, Any]] = [
        {
            "fold": fold.name,
            "train": len(fold.train),
            "test": len(fold.test),
            **scores(confusion(truth[fold.test], predicted, classes)),
        }
        for fold, predicted in zip(folds, made.predicted, strict=True)
    ]
    rows, predicted = np.concatenate([fold.test for fold in folds]), np.concatenate(made.predicted)
    matrix = confusion(truth[rows], predicted, classes)
    support = matrix.sum(axis=1)
    can = np.concatenate([np.isin(truth[fold.test], truth[fold.train]) for fold in folds])
    without = can.any() and not can.all()
    spread = {name: [fold[name] for fold in per_fold] for name in METRICS}
    intervals = bootstrap(
        truth[rows], predicted, labelled.groups[rows], classes,
        resamples=config.resamples, seed=config.seed,
    )  # fmt: skip
    return Result(
        method=method,
        mean={name: float(np.mean(values)) for name, values in spread.items()},
        sd={name: float(np.std(values)) for name, values in spread.items()},
        per_fold=per_fold,
        pooled=scores(matrix),
        intervals={name: asdict(interval) for name, interval in intervals.items()},
        recall={
            str(names[at]): float(matrix[at, at] / support[at]) for at in np.flatnonzero(support)
        },
        notes=made.notes,
        answerable=scores(confusion(truth[rows][can], predicted[can], classes))
        if without
        else None,
    )


def make_folds(labelled: Labelled, config: EvaluateConfig) -> tuple[str, list[splits.Fold]]:
    """The split that the config names, and its name with its unit.

    Raises:
        splits.BadSplit: a split by cell of a set whose groups are larger, or one source.
    """
    alone = len(np.unique(labelled.groups)) == len(labelled)
    if config.split_file is not None:
        test = datasets.fixed_test(labelled, config.split_file)
        share = f"{100 * test.mean():.0f} % test"
        return f"fixed by {config.split_file.name}, {share}", splits.fixed(test, labelled.groups)
    if config.split in ("one-source-in", "leave-one-source-out"):
        if labelled.sources is None:
            raise splits.BadSplit(f"{labelled.name} names no sources; {config.split} needs two")
        if config.split == "one-source-in":
            made = splits.one_source_in(labelled.sources, labelled.groups)
            return f"train on one {labelled.source_unit}, test on each other", made
        made = splits.leave_one_source_out(labelled.sources, labelled.groups)
        return f"leave one {labelled.source_unit} out", made
    if config.split == "stratified" and not alone:
        raise splits.BadSplit(
            f"a split by cell would part a {labelled.unit} of {labelled.name}; use --split grouped"
        )
    if alone and config.split != "grouped":
        made = splits.stratified(labelled.labels, config.folds, config.seed)
    else:
        made = splits.grouped(labelled.labels, labelled.groups, config.folds, config.seed)
    return f"{config.folds}-fold by {labelled.unit}", made


def run(config: EvaluateConfig, console: Console) -> dict[str, Any]:
    """Everything that the config names; prints as it goes and returns the record."""
    if config.threads:
        limit_threads(config.threads)
    encoders = [open_encoder(id, config.seed, config.device) for id in config.encoders]
    record: dict[str, Any] = {
        "config": config.model_dump(mode="json"),
        "code_version": code_digest(CODE),
        "libraries": {one: version(one) for one in ("numpy", "scikit-learn", "torch", "timm")},
        "sets": [],
    }
    for name in config.data:
        labelled = datasets.read(name, config.root).at_most(config.limit, config.seed)
        record["sets"].append(_one_set(labelled, encoders, config, console))
        if config.out:
            write_json(config.out, record)
    return record


def limit_threads(threads: int) -> None:
    """Hold torch and scikit-learn's libraries to so many threads for the rest of the process."""
    import sklearn.linear_model  # noqa: F401 - loads the libraries that are to be limited
    import torch
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    torch.set_num_threads(threads)
    threadpool_limits(threads)


def _one_set(
    labelled: Labelled, encoders: list[Encoder], config: EvaluateConfig, console: Console
) -> dict[str, Any]:
    split, folds = make_folds(labelled, config)
    entry: dict[str, Any] = {
        "data": labelled.name,
        "data_digest": labelled.digest(),
        "n": len(labelled),
        "classes": len(np.unique(labelled.labels)),
        "split": split,
        "seed": config.seed,
        "unit": labelled.unit,
        "clusters": len(np.unique(labelled.groups)),
        "patients": labelled.patients,
        "notes": [*labelled.notes, *_fold_notes(labelled, folds)],
        "encoders": [],
    }
    for given, encoder in zip(config.encoders, encoders, strict=True):
        started = time.monotonic()

        def report(done: int, total: int, id: str = encoder.card.id) -> None:
            sys.stderr.write(f"\r{labelled.name}: {id} embedded {done} of {total} crops ")
            sys.stderr.flush()

        vectors = vectors_of(
            encoder, labelled, config.cache, raw=config.features == "raw", progress=report
        )
        embedded = time.monotonic()
        results = evaluate(vectors, labelled, folds, config)
        mil = _bags(vectors, labelled, config) if config.bags else {}
        entry["encoders"].append(
            {
                "id": encoder.card.id,
                "fingerprint": encoder.card.fingerprint,
                "ours": given in config.ours,
                "features": config.features,
                "metric": config.metric,
                "results": [asdict(result) for result in results],
                "abmil": mil.get("abmil"),
                "abmil_gated": mil.get("abmil_gated"),
                "seconds_embedding": round(embedded - started, 1),
                "seconds_scoring": round(time.monotonic() - embedded, 1),
            }
        )
    console.out("\n" + table.markdown(entry), highlight=False)
    return entry


def _fold_notes(labelled: Labelled, folds: Sequence[splits.Fold]) -> list[str]:
    """Classes of test cells without a training cell in their fold: no method can get them right."""
    lost = {
        fold.name: sorted(set(labelled.labels[fold.test]) - set(labelled.labels[fold.train]))
        for fold in folds
    }
    return [
        f"fold {name}: in test but not in train: {', '.join(classes)}"
        for name, classes in lost.items()
        if classes
    ]


def _bags(
    vectors: NDArray[np.float32], labelled: Labelled, config: EvaluateConfig
) -> dict[str, Any]:
    if not labelled.patients:
        raise datasets.BadDataset(f"--bags needs patients, and {labelled.name} names none")
    patients, member = np.unique(labelled.groups, return_inverse=True)
    names = [np.unique(labelled.labels[member == at]) for at in range(len(patients))]
    if mixed := [str(patients[at]) for at, labels in enumerate(names) if len(labels) != 1]:
        raise datasets.BadDataset(f"{len(mixed)} patients have several labels, first {mixed[0]}")
    _, truth = np.unique([labels[0] for labels in names], return_inverse=True)
    bags = [vectors[member == at] for at in range(len(patients))]
    from train.evaluation.abmil import MilConfig, cross_validate

    scored: dict[str, Any] = {}
    poolings: tuple[Literal["abmil", "abmil_gated"], ...] = ("abmil", "abmil_gated")
    for pooling in poolings:
        how = MilConfig(pooling=pooling, folds=config.folds, seed=config.seed)
        scored[pooling] = _crossed(cross_validate(bags, truth, patients, how), patients)
    return scored


def _crossed(crossed: MilResult, patients: NDArray[np.str_]) -> dict[str, Any]:
    return {
        "unit": "patient",
        "n": len(patients),
        "mean": crossed.mean,
        "sd": crossed.sd,
        "per_fold": crossed.per_fold,
        "attention": {
            str(name): [round(float(w), 6) for w in weights]
            for name, weights in zip(patients, crossed.attention, strict=True)
        },
    }


def main(words: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    config = config_of(EvaluateConfig, words)
    return status_of(lambda: run(config, Console()))


if __name__ == "__main__":
    sys.exit(main())
