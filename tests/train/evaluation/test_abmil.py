from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from search.evaluation.splits import grouped
from train.evaluation.abmil import MilConfig, cross_validate

QUICK = MilConfig(folds=3, epochs=15, attention=16, lr=1e-2)


def _patients(count=36, cells=12):
    """Two cells tell the class, and the second undoes the first: every bag has the same mean."""
    rng = np.random.default_rng(5)
    bags, labels, telling = [], [], []
    for at in range(count):
        label = at % 2
        first, second = rng.permutation(cells)[:2]
        bag = 0.3 * rng.standard_normal((cells, 6))
        bag[first] = [3, 3 if label else -3, 0, 0, 0, 0]
        bag[second] = 0
        bag[second] = -bag.sum(axis=0)
        bags.append(bag.astype(np.float32))
        labels.append(label)
        telling.append({int(first), int(second)})
    return bags, np.array(labels), np.arange(count).astype(str), telling


@pytest.mark.parametrize("pooling", ["abmil", "abmil_gated"])
def test_attention_solves_what_the_mean_cannot(pooling):
    bags, labels, patients, telling = _patients()
    means = np.stack([bag.mean(axis=0) for bag in bags])

    crossed = cross_validate(bags, labels, patients, replace(QUICK, pooling=pooling))

    assert np.abs(means).max() < 1e-6  # nothing is left to the mean
    assert crossed.mean["balanced_accuracy"] > 0.9
    seen = [int(w.argmax()) in cells for w, cells in zip(crossed.attention, telling, strict=True)]
    assert np.mean(seen) > 0.9


def test_attention_comes_back_for_every_cell_and_sums_to_one():
    bags, labels, patients, _ = _patients(20)
    bags[3] = bags[3][:1]

    crossed = cross_validate(bags, labels, patients, MilConfig(epochs=1))

    assert [len(weights) for weights in crossed.attention] == [len(bag) for bag in bags]
    assert all(weights.sum() == pytest.approx(1, abs=1e-5) for weights in crossed.attention)
    assert crossed.probabilities.sum(axis=1) == pytest.approx(np.ones(20), abs=1e-5)
    assert len(crossed.per_fold) == 5
    assert crossed.sd["accuracy"] == pytest.approx(
        np.std([f["accuracy"] for f in crossed.per_fold])
    )


def test_one_seed_gives_one_answer_and_leaves_the_random_state_alone():
    bags, labels, patients, _ = _patients(20)
    torch.manual_seed(1)
    before = torch.random.get_rng_state()

    first = cross_validate(bags, labels, patients, MilConfig(epochs=2, seed=3))
    again = cross_validate(bags, labels, patients, MilConfig(epochs=2, seed=3))

    assert np.array_equal(first.probabilities, again.probabilities)
    assert torch.equal(before, torch.random.get_rng_state())


def test_it_stops_after_twenty_passes_without_a_lower_loss(monkeypatch):
    bags, labels, patients, _ = _patients(20)
    passes = []
    real = torch.randperm
    monkeypatch.setattr(torch, "randperm", lambda n: passes.append(n) or real(n))

    hasty = MilConfig(folds=2, epochs=150, attention=4, lr=1.0, patience=3)  # never settles
    cross_validate(bags, labels, patients, hasty)

    assert 2 * 4 <= len(passes) < 2 * 150


def test_bags_of_one_patient_stay_on_one_side():
    bags, labels, _, _ = _patients(40)
    patients = (np.arange(40) // 2 % 20).astype(str)
    labels = (np.arange(40) // 2) % 2

    crossed = cross_validate(bags, labels, patients, MilConfig(epochs=1))

    assert len(crossed.predicted) == 40
    for fold in grouped(labels.astype(str), patients, 5, 0):
        assert not set(patients[fold.train]) & set(patients[fold.test])


def test_an_empty_bag_is_refused():
    bags, labels, patients, _ = _patients(20)
    bags[4] = bags[4][:0]

    with pytest.raises(ValueError, match="bag 4 has no cells"):
        cross_validate(bags, labels, patients)
