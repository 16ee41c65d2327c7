"""How few labels are enough: n-shot by class means, and scores over growing shares of labels.

    python -m train.evaluation.few_shot --data pbc --encoders hemaseek-s dinov2-s

The test part is a fifth of the set, groups whole; what is drawn is drawn from the rest.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from rich.console import Console

from search.evaluation.metrics import confusion, ends, scores
from search.evaluation.probe import linear_probe
from search.evaluation.splits import Fold
from search.votes.knn import nearest_label
from train.data import datasets
from train.data.datasets import Labelled
from train.evaluation.command import LISTS, Scoring, config_of, status_of, write_json
from train.evaluation.run import EvaluateConfig, make_folds
from train.evaluation.vectors import open_encoder, vectors_of

Vectors = NDArray[np.float32]
Labels = NDArray[np.int64]
SHOWN = ("weighted_f1", "balanced_accuracy", "accuracy")
NEIGHBOURS = 20
"""That vote for the curves of label efficiency, or as many as there are."""


class FewShotConfig(Scoring):
    """Score encoders on few labels: SimpleShot with n images a class, and label efficiency."""

    data: tuple[str, ...] = ("pbc",)
    """Sets, as `train.evaluation.run` names them."""
    encoders: tuple[str, ...] = ("colour",)
    """Names, folders or timm sources that the registry loads."""
    shots: tuple[int, ...] = (1, 5, 10, 25)
    """Images of each class that are shown."""
    draws: int = Field(default=100, ge=2)
    """How often they are drawn."""
    shares: tuple[float, ...] = (5, 25, 50, 100)
    """Per cent of the training labels, class by class."""
    share_draws: int = Field(default=5, ge=1)
    """How often each share below 100 is drawn."""
    seed: int = Field(default=0, ge=0)
    """Of the split and of the draws."""
    limit: int | None = Field(default=None, ge=1)
    """About so many cells of each set, classes in proportion."""


@dataclass(frozen=True)
class Point:
    """Scores at one number of labels."""

    method: str
    """`SimpleShot`, `20-NN` or `linear probe`."""
    labels: str
    """`5 a class`, or `25 %`."""
    cells: float
    """Labelled cells, mean of the draws."""
    draws: int
    mean: dict[str, float]
    low: dict[str, float]
    """The 2.5th percentile of the draws; of one draw, the score itself."""
    high: dict[str, float]
    short: tuple[str, ...] = ()
    """Classes with fewer images than were asked for; all of theirs were shown."""


def simple_shot(train: Vectors, labels: Labels, test: Vectors) -> Labels:
    """Class numbers of the nearest class mean (SimpleShot, Wang et al. 2019, CL2N).

    The mean of the labelled images is taken from every vector, which is then brought to length 1;
    a class is the mean of its vectors, and the nearest by Euclidean distance is the answer.

    Args:
        train: n x dim, the labelled ones.
        labels: n class numbers.
        test: m x dim.
    """
    centre = train.mean(axis=0)

    def laid(rows: Vectors) -> Vectors:
        moved = rows - centre
        long = np.maximum(np.linalg.norm(moved, axis=1, keepdims=True), 1e-12)
        return np.asarray(moved / long, np.float32)

    near, known = laid(test), laid(train)
    classes = np.unique(labels)
    means = np.stack([known[labels == one].mean(axis=0) for one in classes])
    distances = (means**2).sum(axis=1) - 2 * near @ means.T
    return np.asarray(classes[distances.argmin(axis=1)], np.int64)


def drawn(
    labels: Labels, groups: NDArray[np.str_], wanted: dict[int, int], rng: np.random.Generator
) -> NDArray[np.int64]:
    """So many rows of each class, of as many groups as there are: all of a class that has fewer.

    Args:
        labels: n class numbers.
        groups: n names; two images of one group (a field, a patient) tell less than two of two.
        wanted: Class number to rows.
        rng: Draws.
    """
    found: list[int] = []
    for one, count in wanted.items():
        rows = rng.permutation(np.flatnonzero(labels == one))
        turn: dict[str, int] = {}
        order = []
        for row in rows:
            turn[groups[row]] = turn.get(groups[row], -1) + 1
            order.append(turn[groups[row]])
        found += rows[np.argsort(order, kind="stable")][:count].tolist()
    return np.sort(np.array(found, np.int64))


def n_shot(vectors: Vectors, labelled: Labelled, fold: Fold, config: FewShotConfig) -> list[Point]:
    """SimpleShot with n images of each class, `draws` times each."""
    names, truth = np.unique(labelled.labels, return_inverse=True)
    known, groups = truth[fold.train], labelled.groups[fold.train]
    there = np.bincount(known, minlength=len(names))
    points = []
    for shots in config.shots:
        wanted = {one: shots for one in range(len(names)) if there[one]}
        rng = np.random.default_rng((config.seed, shots))
        made, cells = [], []
        for _ in range(config.draws):
            rows = drawn(known, groups, wanted, rng)
            shown = fold.train[rows]
            predicted = simple_shot(vectors[shown], truth[shown], vectors[fold.test])
            made.append(scores(confusion(truth[fold.test], predicted, len(names))))
            cells.append(len(rows))
        short = tuple(str(names[one]) for one in wanted if there[one] < shots)
        points.append(_point("SimpleShot", f"{shots} a class", made, cells, short))
    return points


def label_efficiency(
    vectors: Vectors, labelled: Labelled, fold: Fold, config: FewShotConfig
) -> list[Point]:
    """20-NN and the linear probe on growing shares of the training labels."""
    names, truth = np.unique(labelled.labels, return_inverse=True)
    known, groups = truth[fold.train], labelled.groups[fold.train]
    there = np.bincount(known, minlength=len(names))
    methods: dict[str, Callable[[Vectors, Labels, Vectors], Labels]] = {
        f"{NEIGHBOURS}-NN": lambda train, labels, test: nearest_label(
            test, train, labels, len(names), NEIGHBOURS
        ),
        "linear probe": lambda train, labels, test: linear_probe(train, labels, test).predicted,
    }
    points = []
    for share in config.shares:
        wanted = {one: max(1, round(n * share / 100)) for one, n in enumerate(there) if n}
        times = 1 if share >= 100 else config.share_draws
        rng = np.random.default_rng((config.seed, round(1000 * share)))
        shown = [fold.train[drawn(known, groups, wanted, rng)] for _ in range(times)]
        for name, method in methods.items():
            predicted = [method(vectors[rows], truth[rows], vectors[fold.test]) for rows in shown]
            made = [scores(confusion(truth[fold.test], one, len(names))) for one in predicted]
            cells = [len(rows) for rows in shown]
            points.append(_point(name, f"{share:g} %", made, cells))
    return points


def _point(
    method: str,
    labels: str,
    made: Sequence[dict[str, float]],
    cells: Sequence[int],
    short: tuple[str, ...] = (),
) -> Point:
    values = {name: np.array([one[name] for one in made]) for name in SHOWN}
    between = {name: ends(of) for name, of in values.items()}
    return Point(
        method=method,
        labels=labels,
        cells=float(np.mean(cells)),
        draws=len(made),
        mean={name: float(of.mean()) for name, of in values.items()},
        low={name: float(low) for name, (low, _) in between.items()},
        high={name: float(high) for name, (_, high) in between.items()},
        short=short,
    )


def markdown(labelled: Labelled, encoders: Sequence[tuple[str, Sequence[Point]]]) -> str:
    """A line for each number of labels, a column for each encoder."""
    head = ["method", "labels", *(f"{id} wF1 / bAcc" for id, _ in encoders)]
    lines = [f"### {labelled.name}: few labels", "", f"| {' | '.join(head)} |"]
    lines.append("|---" * len(head) + "|")
    for row in zip(*(points for _, points in encoders), strict=True):
        cells = [row[0].method, f"{row[0].labels} ({row[0].cells:,.0f} cells)"]
        for point in row:
            shown = [
                f"{100 * point.mean[name]:.1f} [{100 * point.low[name]:.1f}, "
                f"{100 * point.high[name]:.1f}]"
                for name in SHOWN[:2]
            ]
            cells.append(" / ".join(shown))
        lines.append(f"| {' | '.join(cells)} |")
    draws = encoders[0][1][0].draws
    lines += ["", f"In per cent, [95 % of the draws]; {draws} draws of n a class."]
    short = sorted({name for point in encoders[0][1] for name in point.short})
    if short:
        lines.append(f"Classes with fewer images than some n, all shown: {', '.join(short)}.")
    return "\n".join(lines)


def run(config: FewShotConfig, console: Console) -> list[dict[str, Any]]:
    """Everything that the config names; prints as it goes and returns the record."""
    record = []
    plan = EvaluateConfig(seed=config.seed, root=config.root)
    loaded = [open_encoder(id, config.seed, config.device) for id in config.encoders]
    for name in config.data:
        labelled = datasets.read(name, config.root).at_most(config.limit, config.seed)
        split, folds = make_folds(labelled, plan)
        found: list[tuple[str, list[Point]]] = []
        for encoder in loaded:
            vectors = vectors_of(encoder, labelled, config.cache)
            points = n_shot(vectors, labelled, folds[0], config)
            points += label_efficiency(vectors, labelled, folds[0], config)
            found.append((encoder.card.id, points))
        console.out("\n" + markdown(labelled, found), highlight=False)
        record.append(
            {
                "data": labelled.name,
                "split": f"first fold of {split}",
                "config": config.model_dump(mode="json"),
                "encoders": {id: [asdict(point) for point in points] for id, points in found},
            }
        )
    if config.out:
        write_json(config.out, record)
    return record


def main(words: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    config = config_of(FewShotConfig, words, (*LISTS, "--shots", "--shares"))
    return status_of(lambda: run(config, Console()))


if __name__ == "__main__":
    sys.exit(main())
