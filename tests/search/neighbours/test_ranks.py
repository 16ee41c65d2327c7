"""Two rankings of the same things as one."""

from __future__ import annotations

import pytest

from search.neighbours.ranks import FLAT, fused


def test_what_both_rank_well_comes_before_what_one_ranks_best() -> None:
    assert fused([["a", "b", "c"], ["d", "b", "e"]])[0] == "b"


def test_each_place_counts_by_its_reciprocal_and_equal_sums_by_name() -> None:
    first, second = ["a", "b", "c", "d"], ["d", "c", "x", "a"]
    sums = {
        name: sum(1 / (FLAT + one.index(name) + 1) for one in (first, second) if name in one)
        for name in "abcdx"
    }

    assert fused([first, second]) == sorted(sums, key=lambda name: (-sums[name], name))
    assert sums["a"] == pytest.approx(sums["d"])


def test_one_ranking_alone_stays_as_it_is() -> None:
    assert fused([[3, 1, 2], []]) == [3, 1, 2]
