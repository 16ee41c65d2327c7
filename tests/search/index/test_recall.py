"""The measure of an index: what it counts as found, and which filters it tries."""

from __future__ import annotations

from typing import Any, cast
from uuid import UUID

import numpy as np
import pytest

from encoder.card import EncoderCard
from search.index.contract import Page, Store, Stored
from search.index.recall import agreement, filter_of_share, gauge
from search.schemas.answers import Hit
from search.schemas.filters import Filter
from search.schemas.items import KEYWORDS, Item


def hits(*pairs: tuple[int, float]) -> list[Hit]:
    return [
        Hit(item=Item(id=str(UUID(int=at)), dataset="d", source="s"), score=score)
        for at, score in pairs
    ]


def test_agreement_is_the_share_of_the_true_neighbours() -> None:
    truth = [hits((1, 0.9), (2, 0.8)), hits((3, 0.9), (4, 0.8))]
    found = [hits((1, 0.9), (7, 0.5)), hits((3, 0.9), (4, 0.8))]

    assert agreement(truth, truth) == 1
    assert agreement(truth, found) == pytest.approx(3 / 4)
    assert agreement(truth, [[], []]) == 0
    assert agreement([[]], [[]]) == 1


def test_another_item_as_near_as_the_last_true_one_is_as_good() -> None:
    assert agreement([hits((1, 0.9), (2, 0.8))], [hits((1, 0.9), (5, 0.8))]) == 1


class Counts:
    """A store of so many items that knows nothing but its facets."""

    def __init__(self, total: int, **facets: dict[str, int]) -> None:
        self._total, self._facets = total, facets

    def count(self, where: Any = None) -> int:
        return self._total

    def facet(self, field: str, where: Any = None, limit: int = 100) -> dict[str, int]:
        assert field in KEYWORDS
        return dict(list(self._facets.get(field, {}).items())[:limit])


def share(of: float, **facets: dict[str, int]) -> tuple[float, Filter] | None:
    return filter_of_share(cast(Store, Counts(1000, **facets)), of)


def test_the_value_nearest_to_the_share_is_the_filter() -> None:
    found = share(0.1, label={"a": 600, "b": 290, "c": 110}, site={"s": 1000})

    assert found == (0.11, Filter(label=("c",)))


def test_rare_values_are_joined_to_reach_a_share() -> None:
    cases = {f"{at:04}": 1 for at in range(1000)}

    for aim, values in ((0.1, 100), (0.01, 10)):
        found = share(aim, case=cases)
        assert found is not None
        assert found[0] == pytest.approx(aim)
        assert len(found[1].case) == values


def test_one_value_is_preferred_to_a_set_that_comes_nearer_to_the_share() -> None:
    cases = {f"{at:04}": 1 for at in range(1000)}
    counts = cast(Store, Counts(1000, label={"a": 910, "b": 90}, case=cases))

    one = filter_of_share(counts, 0.1)
    some = filter_of_share(counts, 0.1, several=True)

    assert one == (0.09, Filter(label=("b",)))
    assert some is not None
    assert len(some[1].case) == 100


@pytest.mark.parametrize("facets", [{}, {"kind": {"cell": 1000}}])
def test_where_nothing_sets_items_apart_there_is_no_filter(facets: dict[str, Any]) -> None:
    assert share(0.1, **facets) is None


@pytest.mark.parametrize(
    ("needed", "kept"),
    [(1, 64), (65, 80), (100, 112), (200, 224), (256, 256), (2000, 1024)],
)
def test_a_search_is_widened_no_further_than_it_needs(needed: int, kept: int) -> None:
    """`ef` doubles until the recall is enough, then goes half of the way back, twice."""
    searched = {"ef": 64}

    class Walk(Counts):
        """Finds everything once it looks at enough candidates, else nothing."""

        card = EncoderCard(id="none", architecture="none", dim=2)

        def nearest_batch(self, *question: Any, exact: bool = False) -> list[list[Hit]]:
            return [hits((1, 0.5)) if exact or searched["ef"] >= needed else []]

        def scroll(self, limit: int = 1, cursor: str | None = None) -> Page:
            return Page([Stored(hits((2, 1.0))[0].item, np.ones(2, np.float32))], None)

    report = gauge(cast(Store, Walk(1000)), 64, lambda ef: searched.update(ef=ef), 0.0)

    assert report.ef == kept
    assert searched["ef"] == kept
