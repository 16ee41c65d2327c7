"""Cases as a case model pools them: one vector each, kept beside those of the other poolings."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from search.cases.distances import Floats
from search.cases.represented import AT_ONCE, Cases
from search.errors import BadQuestion
from search.index.contract import Vectors
from search.neighbours.groups import patients_digest
from search.query.context import Context

Pool = Callable[[Sequence[str], Vectors, Floats], Vectors]
"""Patients of a bag, its cells and their weights to one vector of length 1, by networks that did
not see those patients."""


def pool_of(context: Context, model: str | None) -> Pool:
    """How a case model pools cells.

    Raises:
        BadQuestion: no model is named, or none can be read here.
        NoSuchModel, OtherEncoder: as they say.
    """
    if model is None or context.learned is None:
        raise BadQuestion(
            "the distance 'learned' needs `model`, the id of a case model of this collection; "
            "`hemaseek mil list` shows them"
        )
    return context.learned(model)


def nearest(
    context: Context, cases: Cases, model: str, query: Vectors, k: int
) -> list[tuple[str, float]]:
    """Names and cosines of the cases nearest to a pooled vector, of all cases, nearest first."""
    key = ("learned", cases.folder.name, model)
    records, named = context.collection.cases.revision, context.patients()
    names, points = context.prototypes.of(
        context.collection, key, lambda: _kept(context, cases, model, named), records
    )
    scores = points @ query
    best = np.argsort(-scores, kind="stable")[:k]
    return [(str(names[at]), float(scores[at])) for at in best]


def _kept(
    context: Context, cases: Cases, model: str, named: Mapping[str, str]
) -> tuple[list[str], Vectors]:
    """The points of all cases, made once for each content of the collection and for each state of
    the patients that records name."""
    recorded = patients_digest(named)
    path = cases.folder / f"learned-{model}-{recorded or 'none'}.npz"
    if not path.exists():
        pool, names = pool_of(context, model), cases.values(cases.total)
        rows = []
        for at in range(0, len(names), AT_ONCE):
            found = cases.get(names[at : at + AT_ONCE])
            rows += [
                pool(one.patients(named), one.vectors, one.weights)
                for one in (found[name] for name in names[at : at + AT_ONCE])
            ]
        part = path.with_name(f".{path.name}.{os.getpid()}.npz")
        np.savez(part, names=np.array(names), points=np.stack(rows).astype(np.float32))
        part.rename(path)
    with np.load(path, allow_pickle=False) as file:
        return [str(one) for one in file["names"]], file["points"]
