"""Centre bias: whether neighbours are chosen by laboratory rather than by what they show."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from search.evaluation.labelled import Cells
from search.neighbours import kin
from search.neighbours.groups import Rows
from search.schemas.evaluations import BiasResult

ASKED = 2000
"""Most items that are asked."""


def bias_of(
    cells: Cells,
    asked: Rows,
    k: int,
    seed: int,
    tell: Callable[[int], None] = lambda done: None,
) -> BiasResult | None:
    """Share of the own site among neighbours, and the robustness index (de Jong et al. 2025).

    The own patient, case and source of each item are left out; the site is not.

    Args:
        cells: All that may be a neighbour.
        asked: Rows that may be asked; those without a site are not.
        k: Neighbours of each.
        seed: Of the choice of `ASKED` rows.
        tell: May raise to stop.

    Returns:
        `None` where there are fewer than two sites.
    """
    names = {site: at for at, site in enumerate(sorted({s for s in cells.sites if s is not None}))}
    if len(names) < 2:
        return None
    sites = np.array([-1 if site is None else names[site] for site in cells.sites], np.int64)
    asked = asked[sites[asked] >= 0]
    if len(asked) > ASKED:
        asked = np.sort(np.random.default_rng(seed).choice(asked, ASKED, replace=False))
    if not len(asked):
        return None
    near, _ = kin.neighbours(cells.vectors, cells.group, asked, np.flatnonzero(sites >= 0), k, tell)
    there = near >= 0
    own = there & (sites[near] == sites[asked][:, None])
    same = cells.labels[near] == cells.labels[asked][:, None]
    seen = float(own.sum() / max(1, there.sum()))
    expected = float(expected_share(cells.group, sites, asked).mean())
    good, bad = int((there & same & ~own).sum()), int((there & ~same & own).sum())
    return BiasResult(
        k=k,
        asked=len(asked),
        sites=len(names),
        own_site=seen,
        expected=expected,
        excess=seen - expected,
        robustness=good / (good + bad) if good + bad else None,
    )


def expected_share(group: Rows, sites: Rows, asked: Rows) -> Rows:
    """Share of the own site among all that may be a neighbour of each asked row."""
    known = sites >= 0
    of_site = np.bincount(sites[known])
    members = np.bincount(group[known], minlength=int(group.max()) + 1)
    pairs = group * len(of_site) + sites
    together = np.bincount(pairs[known], minlength=len(members) * len(of_site))
    site = of_site[sites[asked]] - together[pairs[asked]]
    rest = int(known.sum()) - members[group[asked]]
    return np.asarray(np.divide(site, rest, out=np.zeros(len(asked)), where=rest > 0))
