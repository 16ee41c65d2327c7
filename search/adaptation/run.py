"""A version whose vectors are adapted to its own collection: fitted, compared, built, served."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass

import numpy as np

from encoder.contract import Encoder
from search.adaptation.comparison import compare
from search.errors import StoreError
from search.library.case_records import CaseRecords
from search.library.catalogue import Catalogue
from search.library.contents import Truth
from search.library.library import Library
from search.library.rows import ShardRows
from search.library.sources import ReadPixels
from search.maintenance.checks import Check
from search.maintenance.reindex import Progress, Reindexed, ReindexPlan, Stopped, reindex
from search.transforms.adaptation import Adaptation, kinds_in
from search.transforms.contract import CannotFit
from search.votes.held_out import sample_of

FIELDS = ("site", "scanner", "stain", "dataset")
"""Fields of an item that can distinguish sites."""


class CannotAdapt(StoreError):
    """A collection that cannot be adapted as it is; says what is missing."""


@dataclass(frozen=True, kw_only=True)
class AdaptPlan:
    """How a collection is adapted."""

    kind: str = "metric"
    """Names of `search.transforms.adaptation.KINDS`, joined by a plus."""
    field: str = "site"
    """One of `FIELDS`."""
    force: bool = False
    """Serve it even if a check fails; that is kept with the version."""


def adapt(
    library: Library,
    name: str,
    encoder: Encoder,
    plan: AdaptPlan = AdaptPlan(),
    *,
    read_pixels: ReadPixels | None = None,
    progress: Progress = lambda done, total: None,
    stop: Callable[[], bool] = lambda: False,
) -> Reindexed:
    """Fit a transform on a collection, and make a version with an index of transformed vectors.

    The shards of the version keep the encoder's vectors, so that any other version can be built
    from it. A collection that is adapted already is adapted anew from those.

    Args:
        library: Where the collection is.
        name: Of the collection.
        encoder: Of the collection, before any adaptation; embeds a few stored images again as a
            check, and nothing else.
        plan: What is wanted.
        read_pixels: Reads a stored item again; see `reindex`.
        progress: Callback with steps done: folds of the comparison, then items.
        stop: Called now and then; true ends the run with `Stopped`.

    Raises:
        CannotAdapt: too few sites, labels or patients, labels that say the site (with the table
            that shows it), or another encoder than that of the stored vectors.
        StoreError: as `reindex`.
    """
    versions = library.versions(name)
    versions.finish_interrupted()
    served = versions.current()
    truth = Truth.read(versions.path(served.id), served.card)
    if plan.field not in FIELDS:
        raise CannotAdapt(f"sites are distinguished by {', '.join(FIELDS)}, got {plan.field!r}")

    def compared(done: int, total: int) -> None:
        progress(done, total)
        if stop():
            raise Stopped("stopped before a version was begun; the same command begins again")

    try:
        kinds_in(plan.kind)
        _, items, vectors = truth.table(stored=True)
        patients = CaseRecords(versions).patients()
        with closing(Catalogue(truth.folder.parent / "catalogue.sqlite")) as catalogue:
            hashes = ShardRows(truth.folder, truth.base, catalogue).picture_hashes
            sample = sample_of(items, vectors, plan.field, patients, hashes)
        found = compare(plan.kind, sample, truth.base, compared)
        adaptation = Adaptation.fit(plan.kind, sample, truth.base, plan.field)
    except CannotFit as error:
        raise CannotAdapt(f"collection {name!r} cannot be adapted: {error}") from error
    fitted_on = Check(
        "fitted on",
        None,
        {
            "items": float(len(sample)),
            "labelled": float((sample.labels != "").sum()),
            "sites": float(len(np.unique(sample.sites[sample.sites != ""]))),
            "compared": float(found.rows),
        },
        note=f"{plan.kind} by {plan.field}; digest {adaptation.fitted_on}",
    )
    return reindex(
        library,
        name,
        encoder,
        reference=served.encoder,
        plan=ReindexPlan(
            force=plan.force,
            adaptation=adaptation,
            checked=(*found.checks, fitted_on),
        ),
        read_pixels=read_pixels,
        progress=progress,
        stop=stop,
    )
