"""Training of a case model: one network for each fold of patients, and what each held out says."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from search.evaluation.splits import grouped
from search.mil.pooling import Network
from search.schemas.mil import MilPlan
from train.mil.factors import difficulty, explained, standardised
from train.mil.losses import clustering, cox, following
from train.mil.networks import Entry, network, weights_of

HELD_BACK = 5
"""One part in so many of the training patients chooses the best epoch."""
PENALTY = 0.3
"""Weight of attention that follows factors."""
CLUSTERED = 0.3
"""Weight of CLAM's second loss (Lu et al. 2021)."""
BATCH = 8
"""Cases of one step; of survival, whose loss compares cases, all."""
DECAY = 1e-4
"""Weight decay."""
Rows = NDArray[np.int64]
Bags = Sequence[NDArray[np.float32]]
"""The vectors of each case: cells x dim."""


@dataclass(frozen=True)
class Cases:
    """What a model is trained on; every sequence has one entry for each case."""

    bags: Bags
    patients: NDArray[np.str_]
    """Cases of one patient stay together."""
    labels: Rows
    """Class numbers; of survival, 1 where the event came, else 0."""
    times: NDArray[np.float64] | None = None
    """Of survival: until the event or the last news."""
    factors: Sequence[NDArray[np.floating]] = ()
    """Cells x factors of each case, NaN where not known; empty where none must be held off."""

    def __post_init__(self) -> None:
        lengths = {len(self.bags), len(self.patients), len(self.labels)}
        lengths |= {len(self.factors)} if self.factors else set()
        if len(lengths) > 1:
            raise ValueError(f"cases, patients, labels and factors differ in number: {lengths}")
        if any(not len(bag) for bag in self.bags):
            raise ValueError("a case has no cells; leave it out and say so")


@dataclass(frozen=True)
class Fitted:
    """The networks of all folds, and the held-out outputs."""

    networks: tuple[Network, ...]
    fold: Rows
    """Of each case: the network that did not see its patient."""
    outputs: NDArray[np.float32]
    """Cases x classes (logits), or cases x 1 (risk): of that network."""
    attention: tuple[NDArray[np.float32], ...]
    """Of each case: one weight per cell, by that network."""


def fit(
    cases: Cases, plan: MilPlan, progress: Callable[[int, int], None] = lambda done, total: None
) -> Fitted:
    """Train one network for each fold; no patient is on both sides of one.

    Deterministic for one seed on one machine; the caller's random state is left as it was.

    Args:
        cases: What to train on.
        plan: How; its collection, label and values are not looked at.
        progress: Told the epochs done and those there may be; it may raise to stop.

    Raises:
        BadSplit: fewer patients than folds.
    """
    folds = grouped(cases.labels.astype(str), cases.patients, plan.folds, plan.seed)
    outputs = 1 if cases.times is not None else int(cases.labels.max()) + 1
    found = np.zeros((len(cases.bags), outputs), np.float32)
    attention: list[NDArray[np.float32]] = [np.empty(0, np.float32)] * len(cases.bags)
    networks, of = [], np.zeros(len(cases.bags), np.int64)
    with torch.random.fork_rng(devices=[]), _one_thread():
        for at, fold in enumerate(folds):
            torch.manual_seed(plan.seed * 1000 + at)

            def report(epoch: int, at: int = at) -> None:
                progress(at * plan.epochs + epoch, plan.folds * plan.epochs)

            made = _Training(cases, fold.train, plan, outputs).run(report)
            networks.append(made)
            of[fold.test] = at
            for case in fold.test:
                found[case], attention[case] = made(cases.bags[case])
    return Fitted(tuple(networks), of, found, tuple(attention))


@contextmanager
def _one_thread() -> Iterator[None]:
    """Networks this small are slower on several: they wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class _Training:
    """One network on the training cases of one fold."""

    def __init__(self, cases: Cases, train: Rows, plan: MilPlan, outputs: int) -> None:
        self._cases = cases
        self._plan = plan
        self._train, self._validation = _held_back(cases, train, plan.seed)
        factors = standardised(cases.factors, self._train) if cases.factors else []
        self._factors = factors
        hard = difficulty(factors) if factors else np.zeros(len(cases.bags))
        self._easiest = self._train[np.argsort(hard[self._train], kind="stable")]
        self._network = network(plan.pooling, _entry(cases, self._train, factors), outputs)
        self._optimiser = torch.optim.Adam(
            self._network.parameters(), lr=plan.lr, weight_decay=DECAY
        )

    def run(self, progress: Callable[[int], None]) -> Network:
        """The network after its best epoch."""
        best, kept, since = np.inf, weights_of(self._network), 0
        for epoch in range(self._plan.epochs):
            progress(epoch)
            self._epoch(self._due(epoch))
            loss = self._held_out_loss()
            if loss < best:
                best, kept, since = loss, weights_of(self._network), 0
            else:
                since += 1
            if since >= max(10, self._plan.epochs // 4) and epoch > self._plan.epochs // 2:
                break
        return Network(self._plan.pooling, {name: value.copy() for name, value in kept.items()})

    def _held_out_loss(self) -> float:
        with torch.no_grad():
            return float(self._loss(self._validation))

    def _due(self, epoch: int) -> Rows:
        """The cases of an epoch: with factors the easier half first, then ever harder ones."""
        half = max(1, self._plan.epochs // 2)
        share = min(1.0, 0.5 + 0.5 * epoch / half) if self._factors else 1.0
        return self._easiest[: max(2, round(share * len(self._easiest)))]

    def _epoch(self, rows: Rows) -> None:
        rows = rows[torch.randperm(len(rows)).numpy()]
        size = BATCH if self._cases.times is None else len(rows)
        for at in range(0, len(rows), size):
            self._step(self._loss(rows[at : at + size], training=True))

    def _loss(self, rows: Rows, *, training: bool = False) -> Tensor:
        bags, there = padded([self._cases.bags[at] for at in rows])
        looked = self._network(bags, there)
        labels = torch.from_numpy(self._cases.labels[rows])
        if self._cases.times is None:
            loss = nn.functional.cross_entropy(looked.outputs, labels)
        elif labels.any():
            times = torch.from_numpy(self._cases.times[rows])
            loss = cox(looked.outputs[:, 0], times, labels.bool())
        else:
            loss = looked.outputs.sum() * 0
        if training and self._plan.pooling == "clam_sb" and self._cases.times is None:
            second = clustering(self._network, looked, labels, there)
            loss = (1 - CLUSTERED) * loss + CLUSTERED * second
        if training and self._factors and looked.attention.requires_grad:
            factors, _ = padded([self._factors[at].astype(np.float32) for at in rows])
            loss = loss + PENALTY * following(looked.attention, factors, there)
        return loss

    def _step(self, loss: Tensor) -> None:
        self._optimiser.zero_grad()
        torch.autograd.backward(loss)
        self._optimiser.step()


def padded(bags: Sequence[NDArray[np.float32]]) -> tuple[Tensor, Tensor]:
    """Bags of different sizes as one tensor, and flags of what is no padding."""
    there = torch.zeros(len(bags), max(len(bag) for bag in bags), dtype=torch.bool)
    found = torch.zeros(*there.shape, bags[0].shape[1])
    for at, bag in enumerate(bags):
        found[at, : len(bag)] = torch.from_numpy(np.ascontiguousarray(bag, np.float32))
        there[at, : len(bag)] = True
    return found, there


def _held_back(cases: Cases, train: Rows, seed: int) -> tuple[Rows, Rows]:
    """The training cases, and those of patients on which the best epoch is chosen."""
    labels, patients = cases.labels[train], cases.patients[train]
    parts = min(HELD_BACK, len(np.unique(patients)), int(np.bincount(labels).max()))
    if parts < 2:
        return train, train
    inner = grouped(labels.astype(str), patients, parts, seed)[0]
    return train[inner.train], train[inner.test]


def _entry(cases: Cases, train: Rows, factors: Sequence[NDArray[np.float64]]) -> Entry:
    bags = [cases.bags[at] for at in train]
    cells = np.concatenate(bags).astype(np.float64)
    centre, scale = cells.mean(axis=0), float(np.sqrt(cells.var(axis=0).mean())) or 1.0
    if not factors:
        return Entry(centre, scale)
    means = np.stack([bag.mean(axis=0) for bag in bags])
    mean_factors = np.stack([factors[at].mean(axis=0) for at in train])
    strata = cases.labels[train] if cases.times is None else np.zeros(len(train), np.int64)
    return Entry(centre, scale, explained(means, mean_factors, strata))
