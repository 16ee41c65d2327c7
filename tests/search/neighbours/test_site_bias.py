"""One measure for whether neighbours are chosen by origin or by what they show."""

from __future__ import annotations

import numpy as np
import pytest

from search.neighbours.site_bias import Origins, drawn, site_bias


def items(rng, *, label, origin, group=None, by_label=0.0, by_origin=0.0):
    label, origin = np.asarray(label), np.asarray(origin)
    rows = rng.normal(size=(len(label), 12))
    rows[np.arange(len(label)), label] += by_label
    rows[np.arange(len(label)), 6 + origin] += by_origin
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    every = np.arange(len(label)) if group is None else np.asarray(group)
    return Origins(rows.astype(np.float32), origin, label, every)


def test_the_figures_are_those_of_a_plain_count(rng):
    n, k = 60, 5
    some = items(
        rng,
        label=rng.integers(3, size=n),
        origin=rng.integers(2, size=n),
        group=rng.integers(20, size=n),
        by_label=1.0,
    )
    found = site_bias(some, np.arange(n), k)
    label, origin, cosines = some.label, some.origin, some.vectors @ some.vectors.T
    own, expected, same, good, bad = [], [], [], 0, 0
    for at in range(n):
        possible = [i for i in range(n) if some.group[i] != some.group[at]]
        near = sorted(possible, key=lambda i: -cosines[at, i])[:k]
        own.append(np.mean([origin[i] == origin[at] for i in near]))
        same.append(np.mean([label[i] == label[at] for i in near]))
        alike = [[origin[j] == origin[at] for j in possible if label[j] == label[i]] for i in near]
        expected.append(np.mean([np.mean(flags) for flags in alike]))
        good += sum(label[i] == label[at] and origin[i] != origin[at] for i in near)
        bad += sum(label[i] != label[at] and origin[i] == origin[at] for i in near)

    assert found.own == pytest.approx(own)
    assert found.expected == pytest.approx(expected)
    assert found.same_label == pytest.approx(same)
    assert found.robustness == pytest.approx(good / (good + bad))


def test_without_labels_the_expected_share_is_that_of_all_possible_neighbours(rng):
    some = items(rng, label=[0] * 40, origin=[0] * 30 + [1] * 10)
    some = Origins(some.vectors, some.origin, np.full(40, -1), some.group)

    found = site_bias(some, np.array([0, 39]), 5)

    assert found.expected.tolist() == pytest.approx([29 / 39, 9 / 39])
    assert found.robustness is None


def test_robustness_cannot_be_known_where_an_origin_is_no_more_than_a_group(rng):
    origin = np.arange(40) // 2 % 6
    some = items(rng, label=np.arange(40) % 2, origin=origin, group=origin)

    assert site_bias(some, np.arange(40), 5).robustness is None


def test_items_of_unknown_origin_are_no_neighbours(rng):
    some = items(rng, label=np.arange(40) % 2, origin=np.arange(40) % 3)
    origin = np.where(np.arange(40) < 20, some.origin, -1)

    found = site_bias(Origins(some.vectors, origin, some.label, some.group), np.arange(20), 30)

    assert found.expected == pytest.approx(found.own)  # all 19 others are neighbours


def test_where_all_are_of_one_group_there_is_nothing_to_measure(rng):
    some = items(rng, label=[0, 1] * 5, origin=[0, 1] * 5, group=[0] * 10)

    assert site_bias(some, np.arange(10), 3) is None


def test_the_same_rows_are_drawn_every_time():
    rows = np.arange(100) * 3

    assert drawn(rows, 10).tolist() == drawn(rows, 10).tolist() == sorted(drawn(rows, 10).tolist())
    assert drawn(rows, 200) is rows
