"""Weakly supervised evaluation: attention over the cells of a patient, without a gate and with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from search.evaluation.metrics import METRICS, confusion, scores
from search.evaluation.splits import Fold, grouped
from train.mil.networks import Entry, network

Bag = NDArray[np.float32]
"""The vectors of one patient: cells x dim."""


@dataclass(frozen=True, kw_only=True)
class MilConfig:
    """How the aggregator is trained."""

    pooling: Literal["abmil", "abmil_gated"] = "abmil"
    """Attention without a gate, as in the paper's code, or gated (Ilse, Tomczak, Welling 2018,
    equations 8 and 9); see `train.mil.networks.CaseNetwork`."""
    folds: int = 5
    """Cross-validation folds by patient (DinoBloom, Table 2)."""
    epochs: int = 150
    """Most passes over the training patients (the paper's code)."""
    patience: int = 20
    """Passes without a lower loss of the held-back patients after which it stops (the code of
    Hehr et al. 2023, whose framework the paper follows)."""
    lr: float = 1e-3
    """Of Adam (the paper's code)."""
    attention: int = 128
    """Width of the attention layers (the paper's code)."""
    held_back: float = 0.2
    """Share of the training patients on which the best epoch is chosen."""
    seed: int = 0
    """Of folds, weights and order."""


@dataclass(frozen=True)
class MilResult:
    """Cross-validated predictions of patients."""

    predicted: NDArray[np.int64]
    """One class number per bag, from the fold in which its patient was held out."""
    probabilities: NDArray[np.float32]
    """Bags x classes."""
    attention: list[NDArray[np.float32]]
    """Per bag one weight per cell, summing to 1, in the order of the cells."""
    per_fold: list[dict[str, float]]
    mean: dict[str, float]
    sd: dict[str, float]
    """Standard deviation over the folds (n, not n - 1: numpy's, as the paper's code)."""


def cross_validate(
    bags: Sequence[Bag],
    labels: NDArray[np.int64],
    patients: NDArray[np.str_],
    config: MilConfig | None = None,
) -> MilResult:
    """Train and test the aggregator; no patient is on both sides.

    Deterministic for one seed on one machine; the caller's random state is left as it was.

    Args:
        bags: One per examination, cells x dim each; at least one cell.
        labels: One class number per bag.
        patients: One pseudonym per bag; bags of a patient stay together.
        config: How to train.

    Raises:
        ValueError: bags, labels and patients of different number, or an empty bag.
    """
    config = config or MilConfig()
    if not len(bags) == len(labels) == len(patients):
        raise ValueError(f"{len(bags)} bags, {len(labels)} labels, {len(patients)} patients")
    if empty := [at for at, bag in enumerate(bags) if not len(bag)]:
        raise ValueError(f"bag {empty[0]} has no cells; leave that patient out and say so")
    classes = int(labels.max()) + 1
    tensors = [torch.from_numpy(np.ascontiguousarray(bag, np.float32)) for bag in bags]
    probabilities = np.zeros((len(bags), classes), np.float32)
    attention: list[NDArray[np.float32]] = [np.empty(0, np.float32)] * len(bags)
    per_fold = []
    with torch.random.fork_rng(devices=[]):
        for at, fold in enumerate(grouped(labels.astype(str), patients, config.folds, config.seed)):
            torch.manual_seed(config.seed * 1000 + at)
            model = _fit(tensors, labels, patients, fold, classes, config)
            for bag in fold.test:
                with torch.no_grad():
                    logits, weights = _looked(model, tensors[bag])
                probabilities[bag] = torch.softmax(logits, dim=0).numpy()
                attention[bag] = weights.numpy()
            predicted = probabilities[fold.test].argmax(axis=1)
            per_fold.append(scores(confusion(labels[fold.test], predicted, classes)))
    spread = {name: [fold[name] for fold in per_fold] for name in METRICS}
    return MilResult(
        predicted=probabilities.argmax(axis=1),
        probabilities=probabilities,
        attention=attention,
        per_fold=per_fold,
        mean={name: float(np.mean(values)) for name, values in spread.items()},
        sd={name: float(np.std(values)) for name, values in spread.items()},
    )


def _fit(
    bags: list[Tensor],
    labels: NDArray[np.int64],
    patients: NDArray[np.str_],
    fold: Fold,
    classes: int,
    config: MilConfig,
) -> nn.Module:
    """The aggregator after its best epoch on training patients that are held out for it."""
    most = int(np.bincount(labels[fold.train]).max())
    parts = max(2, min(round(1 / config.held_back), most, len(np.unique(patients[fold.train]))))
    inner = grouped(labels[fold.train].astype(str), patients[fold.train], parts, config.seed)[0]
    train, validation = fold.train[inner.train], fold.train[inner.test]
    entry = Entry(np.zeros(bags[0].shape[1]), 1.0)
    model = network(config.pooling, entry, classes, config.attention)
    optimiser = torch.optim.Adam(model.parameters(), lr=config.lr)
    truth = torch.from_numpy(labels)
    best, since, kept = float("inf"), 0, {k: v.clone() for k, v in model.state_dict().items()}
    for _ in range(config.epochs):
        for at in train[torch.randperm(len(train)).numpy()]:
            optimiser.zero_grad()
            logits, _ = _looked(model, bags[at])
            torch.autograd.backward(nn.functional.cross_entropy(logits, truth[at]))
            optimiser.step()
        with torch.no_grad():
            logits = torch.stack([_looked(model, bags[at])[0] for at in validation])
            loss = float(nn.functional.cross_entropy(logits, truth[validation]))
        since += 1
        if loss < best:
            best, since = loss, 0
            kept = {k: v.clone() for k, v in model.state_dict().items()}
        if since == config.patience:
            break
    model.load_state_dict(kept)
    return model


def _looked(model: nn.Module, bag: Tensor) -> tuple[Tensor, Tensor]:
    """One bag (cells x dim) to its logits (classes) and attention (cells, sums to 1)."""
    seen = model(bag[None], torch.ones(1, len(bag), dtype=torch.bool))
    return seen.outputs[0], seen.attention[0]
