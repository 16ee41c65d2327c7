"""Hits that do not all come from one place: quotas by site, and what to expect of the own site."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from math import ceil

from search.index.contract import in_order
from search.query.searcher import ANYTHING, Searcher
from search.schemas.answers import Hit, SiteShare
from search.schemas.filters import Filter
from search.schemas.items import with_patient
from search.schemas.questions import BalanceField


def quotas(counts: Mapping[str | None, int], k: int) -> dict[str | None, int]:
    """How many of `k` hits each value may have: its share of the items, rounded up.

    Args:
        counts: Items of each value; `None` stands for those without one.
        k: How many hits are wanted.
    """
    whole = sum(counts.values())
    return {value: ceil(n * k / whole) for value, n in counts.items() if n}


def balanced(
    searcher: Searcher,
    by: BalanceField,
    k: int,
    allowed: Mapping[str | None, int],
    patients: Mapping[str, str],
) -> list[Hit]:
    """The best `k` of which no more than `allowed` are of one value.

    A value that has its number is left out of the next search, so the others are searched as
    deep as need be. Where the quotas together cannot be met (a value has fewer items that may
    be found), the best of what remains fills the places. `patients` are those that the records of
    cases name, by case.

    Returns:
        Falling score, equal scores in order of id.
    """
    taken: dict[str, Hit] = {}
    used: Counter[str | None] = Counter()
    limit = max(2 * k, 10)
    while len(taken) < k:
        full = [value for value, n in allowed.items() if used[value] >= n]
        hits = searcher.nearest(limit, ANYTHING, _without(by, full, taken))
        before = len(taken)
        for hit in hits:
            value = getattr(with_patient(hit.item, patients), by)
            if len(taken) < k and used[value] < allowed.get(value, 1):
                taken[hit.item.id] = hit
                used[value] += 1
        if len(hits) < limit:
            break
        if len(taken) == before:
            limit *= 4
    if len(taken) < k:
        rest = searcher.nearest(k - len(taken), ANYTHING, Filter(ids=tuple(taken)))
        taken |= {hit.item.id: hit for hit in rest}
    return in_order(list(taken.values()))


def site_share(hits: list[Hit], site: str | None, of_site: int, items: int) -> SiteShare | None:
    """The share of the hits that are of the query's own site, beside what is to be expected.

    Args:
        hits: What was found.
        site: The query's site; `None` if it is not known.
        of_site: Items of that site among `items`.
        items: Items that could have been hits.
    """
    if site is None or not hits or not items:
        return None
    own = sum(hit.item.site == site for hit in hits)
    return SiteShare(site=site, share=own / len(hits), expected=of_site / items)


def _without(by: str, full: list[str | None], taken: Mapping[str, Hit]) -> Filter:
    values = tuple(value for value in full if value is not None)
    return Filter.model_validate({"ids": tuple(taken), by: values})
