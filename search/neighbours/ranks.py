"""Two rankings of the same things as one: reciprocal rank fusion."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeVar

DEEP = 100
"""Places of each ranking that count, where no more are wanted."""
FLAT = 60
"""Added to every place, so that the first few differ little (Cormack et al. 2009)."""

Thing = TypeVar("Thing", str, int)


def fused(rankings: Iterable[Sequence[Thing]]) -> list[Thing]:
    """All that is in any ranking, by falling sum of 1 / (`FLAT` + place).

    What is missing from a ranking gains nothing by it. Equal sums come in order of the things.

    Args:
        rankings: Best first, no thing twice in one.

    Reference:
        Cormack, Clarke and Buettcher 2009, Reciprocal Rank Fusion outperforms Condorcet.
    """
    sums: dict[Thing, float] = {}
    for ranking in rankings:
        for place, thing in enumerate(ranking, 1):
            sums[thing] = sums.get(thing, 0.0) + 1 / (FLAT + place)
    return sorted(sums, key=lambda thing: (-sums[thing], thing))
