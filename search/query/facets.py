"""Exact counts of what may be found: items that meet one filter and are not in another."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping
from itertools import combinations

from search.index.contract import Store
from search.schemas.filters import Filter
from search.schemas.items import Keyword

MOST = 10_000
"""Different values of a field that are looked at among what is left out."""


def count(counted: Callable[[Filter], int], where: Filter, exclude: Filter) -> int:
    """How many items meet `where` and are not in `exclude`, exactly.

    Args:
        counted: How many items meet a filter.
        where: Conditions.
        exclude: What is left out.
    """
    return _left(lambda f: Counter({"": counted(f)}), where, exclude)[""]


def facet(
    store: Store, field: Keyword, where: Filter, exclude: Filter, limit: int = 100
) -> dict[str, int]:
    """Values of a field among the items that meet `where` and are not in `exclude`.

    Returns:
        Exact counts, most frequent first, ties by value, at most `limit`; no zeros.
    """
    found = _left(lambda f: Counter(store.facet(field, f, MOST)), where, exclude)
    order = sorted(found.items(), key=lambda pair: (-pair[1], pair[0]))
    return dict([(value, n) for value, n in order if n > 0][:limit])


def has_choice(
    counted: Callable[[Filter], Mapping[str, int]],
    where: Filter,
    exclude: Filter,
    reviewed: Collection[str] = (),
) -> bool:
    """Whether items of two labels could vote under a question.

    Args:
        counted: Recorded labels of the items that meet a filter, with their counts.
        where: Conditions.
        exclude: What is left out.
        reviewed: Labels that reviewers gave, wherever their items are.
    """
    left = _left(lambda f: Counter(counted(f)), where, exclude)
    return len({label for label, n in left.items() if n > 0} | set(reviewed)) > 1


def _left(
    measure: Callable[[Filter], Counter[str]], where: Filter, exclude: Filter
) -> Counter[str]:
    """A measure of `where` less that of the union of what `exclude` hits in it.

    The union is by inclusion and exclusion, over the conditions that hit anything and do not
    lie inside another one: an item lies inside its source, its case and its patient, so
    that mostly one remains.
    """
    whole = measure(where)
    hit: list[tuple[Filter, Counter[str]]] = []
    for part in exclude.parts:
        met = where.both(part)
        if met is not None and (counts := measure(met)).total():
            hit.append((met, counts))
    widest: list[tuple[Filter, Counter[str]]] = []
    for met, counts in sorted(hit, key=lambda pair: -pair[1].total()):
        inside = any(
            (shared := met.both(other)) is not None and measure(shared) == counts
            for other, _ in widest
        )
        if not inside:
            widest.append((met, counts))
    for size in range(1, len(widest) + 1):
        for chosen in combinations(widest, size):
            shared = _all(chosen)
            if shared is not None:
                counts = chosen[0][1] if size == 1 else measure(shared)
                for value, n in counts.items():
                    whole[value] += n if size % 2 == 0 else -n
    return whole


def _all(chosen: tuple[tuple[Filter, Counter[str]], ...]) -> Filter | None:
    shared: Filter | None = chosen[0][0]
    for met, _ in chosen[1:]:
        shared = None if shared is None else shared.both(met)
    return shared
