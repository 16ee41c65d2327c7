"""Training of case models: what they find, what they must not follow, and how it is scored."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from search.schemas.mil import MilPlan
from train.mil.factors import explained, of_cell
from train.mil.fit import Cases, fit
from train.mil.losses import cox, following
from train.mil.scores import NEVER, c_index, threshold_of

DIM = 12


def _bags(
    rng: np.random.Generator, labels: np.ndarray, tint: np.ndarray, cells: int = 8
) -> list[np.ndarray]:
    """One telling cell in each bag of class 1 (axis 0), and all cells tinted along axis 1."""
    made = []
    for label, shade in zip(labels, tint, strict=True):
        bag = 0.5 * rng.normal(size=(cells, DIM))
        bag[2, 0] += 4 * label
        bag[:, 1] += shade
        made.append(bag.astype(np.float32))
    return made


def test_attention_lies_on_the_cell_that_tells(rng: np.random.Generator) -> None:
    labels = np.arange(40) % 2
    bags = _bags(rng, labels, np.zeros(40))
    patients = np.array([f"P{at // 4 * 2 + at % 2}" for at in range(40)])

    fitted = fit(Cases(bags, patients, labels), MilPlan(epochs=30, folds=3, lr=5e-3))

    assert (fitted.outputs.argmax(axis=1) == labels).mean() > 0.9
    told = [fitted.attention[at].argmax() == 2 for at in np.flatnonzero(labels)]
    assert np.mean(told) >= 0.75
    for one in np.unique(patients):
        assert len(np.unique(fitted.fold[patients == one])) == 1


def test_a_factor_that_goes_with_the_class_in_training_does_not_decide(
    rng: np.random.Generator,
) -> None:
    labels = np.arange(48) % 2
    along = np.where(rng.random(48) < 0.9, labels, 1 - labels)  # nine in ten go with the class
    bags = _bags(rng, labels, 2.0 * along)
    turned = _bags(rng, labels, 2.0 * (1 - labels))  # where it is used: against it
    factors = [bag[:, 1:2] + 0.1 * rng.normal(size=(len(bag), 1)) for bag in bags]
    patients = np.arange(48).astype(str)
    plan = MilPlan(epochs=20, folds=2, lr=5e-3)

    plain = fit(Cases(bags, patients, labels), plan)
    held = fit(Cases(bags, patients, labels, None, factors), plan)

    def right(networks: tuple) -> float:  # type: ignore[type-arg]
        said = [np.mean([one(bag)[0] for one in networks], axis=0).argmax() for bag in turned]
        return float(np.mean(np.array(said) == labels))

    assert right(held.networks) > right(plain.networks) + 0.2


def test_the_directions_of_factors_are_found_within_classes(rng: np.random.Generator) -> None:
    labels = np.arange(60) % 2
    factor = rng.normal(size=(60, 1)) + labels[:, None]
    means = 0.01 * rng.normal(size=(60, DIM))
    means[:, 3] += factor[:, 0]
    means[:, 0] += 5 * labels  # the class itself, which the factor goes with

    found = explained(means, factor, labels)

    assert abs(found[0, 3]) > 0.99
    assert np.abs(found[:, 0]).max() < 0.2


def test_risks_rise_with_early_events(rng: np.random.Generator) -> None:
    burden = rng.random(40)
    bags = [
        np.concatenate(
            [rng.normal(size=(6, DIM)), rng.normal(size=(round(6 * one) + 1, DIM)) + 2]
        ).astype(np.float32)
        for one in burden
    ]
    times = np.exp(-3 * burden) * 10 + 0.1 * rng.random(40)
    events = (rng.random(40) < 0.7).astype(np.int64)
    plan = MilPlan(task="survival", label="months", pooling="mean", epochs=40, folds=3, lr=1e-2)

    fitted = fit(Cases(bags, np.arange(40).astype(str), events, times), plan)

    values = [
        c_index(fitted.outputs[own, 0].astype(float), times[own], events[own])[0]
        for own in (fitted.fold == at for at in range(3))
    ]
    assert np.mean(values) > 0.75


def test_cox_and_the_c_index_agree_with_hand_made_ones() -> None:
    risks, times = np.array([2.0, 1.0, 0.0]), np.array([1.0, 2.0, 3.0])
    events = np.array([1, 0, 1])

    loss = cox(torch.tensor(risks), torch.tensor(times), torch.tensor(events).bool())

    first = np.log(np.exp(risks).sum()) - 2.0  # at the first event all three were at risk
    assert float(loss) == pytest.approx(first / 2)  # at the last one only itself
    assert c_index(risks, times, events) == (1.0, 2)
    assert c_index(-risks, times, events) == (0.0, 2)


def test_attention_that_follows_a_factor_is_told_from_attention_that_does_not() -> None:
    factor = torch.tensor([[[0.0], [1.0], [2.0], [9.0]]])
    there = torch.tensor([[True, True, True, False]])

    along = following(torch.tensor([[0.1, 0.3, 0.6, 0.0]]), factor, there)
    apart = following(torch.tensor([[0.25, 0.5, 0.25, 0.0]]), factor, there)

    assert float(along) > 0.9
    assert float(apart) < 1e-6


def test_a_model_answers_from_where_enough_of_its_answers_were_right() -> None:
    top = np.array([0.95, 0.9, 0.85, 0.8, 0.75, 0.6, 0.55, 0.5])
    right = np.array([1, 1, 1, 1, 1, 0, 0, 1], float)

    assert threshold_of(top, right, 0.9) == 0.75
    assert threshold_of(top, 1 - right, 0.9) == NEVER


def test_factors_are_measured_where_the_cell_is_not(rng: np.random.Generator) -> None:
    field = np.full((96, 96, 3), (220, 200, 210), np.uint8)
    field[::4] = (200, 180, 190)
    other = field.copy()
    other[30:66, 30:66] = (250, 120, 40)  # another cell on the same glass

    one, two = of_cell(field, 12.0), of_cell(other, 12.0)
    dark = of_cell((field * 0.7).astype(np.uint8), None)

    for name in ("brightness", "hue", "saturation", "size"):
        assert one[name] == pytest.approx(two[name], abs=1e-6)
    assert dark["brightness"] < one["brightness"] - 0.1
    assert np.isnan(dark["size"])
