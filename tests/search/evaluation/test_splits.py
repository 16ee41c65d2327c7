from __future__ import annotations

import numpy as np
import pytest

from search.evaluation.splits import (
    BadSplit,
    fixed,
    grouped,
    leave_one_source_out,
    one_source_in,
    stratified,
    subset,
)


def _cells(rng, n=400, groups=37, classes=4):
    group = rng.integers(0, groups, n)
    return rng.integers(0, classes, n).astype(str), group.astype(str), (group % 5).astype(str)


@pytest.mark.parametrize("seed", range(5))
def test_grouped_folds_never_split_a_group_and_test_every_cell_once(seed):
    labels, groups, _ = _cells(np.random.default_rng(seed))

    folds = grouped(labels, groups, 5, seed)

    for fold in folds:
        assert not set(groups[fold.train]) & set(groups[fold.test])
        assert len(fold.train) + len(fold.test) == len(labels)
    assert np.array_equal(np.sort(np.concatenate([f.test for f in folds])), np.arange(len(labels)))


def test_leaving_a_source_out_tests_each_source_once(rng):
    _, groups, sources = _cells(rng)

    folds = leave_one_source_out(sources, groups)

    assert [fold.name for fold in folds] == ["0", "1", "2", "3", "4"]
    for fold in folds:
        assert set(sources[fold.test]) == {fold.name}
        assert fold.name not in set(sources[fold.train])


def test_one_source_in_trains_on_each_source_and_tests_on_each_other(rng):
    _, groups, sources = _cells(rng)

    folds = one_source_in(sources, groups)

    assert len(folds) == 5 * 4
    pairs = {(*set(sources[fold.train]), *set(sources[fold.test])) for fold in folds}
    assert pairs == {(a, b) for a in "01234" for b in "01234" if a != b}
    assert all(
        fold.name == f"{sources[fold.train][0]} to {sources[fold.test][0]}" for fold in folds
    )
    for fold in folds:
        assert len(fold.train) == (sources == sources[fold.train][0]).sum()


def test_a_patient_seen_in_two_sources_is_refused():
    with pytest.raises(BadSplit, match="fold x parts 1 groups, the first is 'p1'"):
        leave_one_source_out(np.array(["x", "y"]), np.array(["p1", "p1"]))


def test_one_source_cannot_be_left_out():
    with pytest.raises(BadSplit, match="needs two sources"):
        leave_one_source_out(np.array(["x", "x"]), np.array(["a", "b"]))


def test_a_fixed_split_that_parts_a_group_is_refused():
    with pytest.raises(BadSplit, match="parts 1 groups, the first is 'b'"):
        fixed(np.array([True, False, True]), np.array(["a", "b", "b"]))


def test_a_fixed_split_keeps_what_was_decided():
    (fold,) = fixed(np.array([True, False, True]), np.array(["a", "b", "c"]))

    assert fold.train.tolist() == [1]
    assert fold.test.tolist() == [0, 2]


def test_stratified_folds_have_each_class_in_proportion_and_repeat(rng):
    labels = np.repeat(["a", "b"], [100, 20])

    folds = stratified(labels, 5, 3)

    assert [int((labels[fold.test] == "b").sum()) for fold in folds] == [4] * 5
    assert all(
        np.array_equal(a.test, b.test) for a, b in zip(folds, stratified(labels, 5, 3), strict=True)
    )


def test_too_few_groups_for_the_folds_are_refused():
    with pytest.raises(BadSplit, match="5 folds need 5 groups, got 2"):
        grouped(np.array(["a", "b"]), np.array(["g", "h"]), 5)


def test_a_subset_keeps_classes_in_proportion_and_takes_from_every_group(rng):
    labels = np.repeat(["common", "half", "rare"], [600, 300, 3])
    groups = np.char.add(labels, (np.arange(903) // 10).astype(str))

    rows = subset(labels, groups, 90)

    assert [(labels[rows] == name).sum() for name in ("common", "half", "rare")] == [60, 30, 1]
    assert len(set(groups[rows])) == 60 + 30 + 1
    assert np.array_equal(rows, subset(labels, groups, 90))
    assert len(subset(labels, groups, 10_000)) == 903


def test_a_smaller_subset_and_one_without_a_class_reuse_the_same_cells():
    labels = np.tile(["a", "b", "c", "d"], 100)
    groups = (np.arange(400) // 7).astype(str)
    without = np.flatnonzero(labels != "d")

    large = subset(labels, groups, 200)
    small = subset(labels, groups, 80)
    fewer = without[subset(labels[without], groups[without], 150)]

    assert set(small) < set(large)
    assert set(fewer) == {row for row in large if labels[row] != "d"}


def test_more_folds_than_cells_of_any_class_are_refused():
    with pytest.raises(BadSplit, match="4 cells cannot be split so"):
        stratified(np.array(["a", "a", "b", "b"]), 3)
