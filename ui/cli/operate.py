"""The operator's verbs: versions of a collection, backups, calibration, capacity."""

from __future__ import annotations

from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from ui.cli.cases.models import mil
from ui.cli.cases.records import cases
from ui.cli.evaluating import evaluate, trust
from ui.cli.exchange import export, ingest_features
from ui.cli.keys import audit, keys
from ui.cli.options import (
    Adaptation,
    CollectionOption,
    LibraryOption,
    Origin,
    opened,
)


def show(found: Any) -> None:
    """A record, or a list of them: a summary for a person, else JSON lines."""
    import json

    from ui.cli.output import for_people, summary

    for at, one in enumerate(found if isinstance(found, list | tuple) else [found]):
        line = json.dumps(one, default=_facts)
        if for_people():
            typer.echo("\n".join(["", *summary(json.loads(line))][0 if at else 1 :]))
        else:
            typer.echo(line)


def show_built(done: Any, *, force: bool) -> None:
    """What a re-index or an adaptation did; exits 1, with figures and limits, if it was refused."""
    show(done)
    for check in done.checks:
        if check.passed is False:
            typer.echo(f"failed: {in_figures(check)}", err=True)
    if done.refused_by and not force:
        typer.echo(
            "the version was built and is not active; --force activates it all the same", err=True
        )
        raise typer.Exit(1)


def in_figures(check: Any) -> str:
    """A check with what was measured and what the limits are."""
    values = [
        ", ".join(f"{name.replace('_', ' ')} {value:.4g}" for name, value in figures.items())
        for figures in (check.figures, check.limits)
    ]
    words = f"{check.name}: measured {values[0] or 'nothing'}; limit {values[1] or 'none'}"
    return f"{words}. {check.note}" if check.note else words


def _facts(one: Any) -> Any:
    if hasattr(one, "model_dump"):
        return one.model_dump()
    return asdict(one) if is_dataclass(one) and not isinstance(one, type) else str(one)


def versions(library: LibraryOption = None, collection: CollectionOption = None) -> None:
    """List the versions of a collection: which one is active, and the results of its checks."""
    from search.maintenance.rollback import list_versions

    lib, name, _ = opened(library, collection)
    show(list_versions(lib, name))


def reindex(
    encoder: Annotated[str, typer.Option("--encoder", help="Encoder of the new version.")],
    library: LibraryOption = None,
    collection: CollectionOption = None,
    allow_missing: Annotated[
        bool, typer.Option("--allow-missing", help="Leave out items whose source is gone.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Activate it even if a check fails; this is recorded.")
    ] = False,
) -> None:
    """Build a version with another encoder beside the active one; switch if it passes its checks.

    Killed at any point, the same command continues. Exits 1 if a check fails.
    """
    from encoder.registry import load
    from ingest.slides.rereading import Rereader
    from search.maintenance.reindex import ReindexPlan
    from search.maintenance.reindex import reindex as run

    lib, name, settings = opened(library, collection)
    with Rereader() as reader:
        done = run(
            lib,
            name,
            load(encoder, device=settings.device),
            reference=encoder,
            plan=ReindexPlan(allow_missing=allow_missing, force=force),
            read_pixels=reader,
        )
    show_built(done, force=force)


def adapt(
    kind: Annotated[Adaptation, typer.Option("--kind", help="What is fitted.")] = "metric",
    field: Annotated[
        Origin,
        typer.Option("--field", help="What tells sites apart."),
    ] = "site",
    library: LibraryOption = None,
    collection: CollectionOption = None,
    force: Annotated[
        bool, typer.Option("--force", help="Activate it even if a check fails; this is recorded.")
    ] = False,
) -> None:
    """Fit a transform on the stored vectors and build a version with it; embeds nothing again.

    align brings sites together without labels; metric lets labels choose what counts; fuse, for
    two encoders (a+b), lets the second add what it agrees on. Kinds are joined by a plus. It is
    scored on sites (else patients, else sources) that it was not fitted on. Exits 1 if a check
    fails.
    """
    from encoder.registry import load
    from ingest.slides.rereading import Rereader
    from search.adaptation.run import AdaptPlan
    from search.adaptation.run import adapt as run

    held, name, settings = opened(library, collection)
    encoder = load(held.reference(name), device=settings.device)
    with Rereader() as reader:
        plan = AdaptPlan(kind=kind, field=field, force=force)
        done = run(held, name, encoder, plan, read_pixels=reader)
    show_built(done, force=force)


def rollback(
    library: LibraryOption = None,
    collection: CollectionOption = None,
    to: Annotated[str | None, typer.Option(help="Another version than the one before.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Also one that failed a check.")] = False,
) -> None:
    """Serve the version that was served before; a second time, it goes back."""
    from search.maintenance.rollback import rollback as run

    lib, name, _ = opened(library, collection)
    show(run(lib, name, to, force=force))


def prune(
    library: LibraryOption = None,
    collection: CollectionOption = None,
    keep: Annotated[int, typer.Option(min=0, help="Older versions to keep.")] = 1,
) -> None:
    """Delete old versions; the one that answers always stays."""
    from search.errors import StoreBusy
    from search.maintenance.rollback import prune as run
    from ui.cli.backend import running_service

    lib, name, settings = opened(library, collection)
    before = {version.id for version in lib.versions(name).all()}
    try:
        run(lib, name, keep)
    except StoreBusy:  # a service keeps the version before a switch open until its next request
        client = running_service(settings)
        if client is None:
            raise
        with client:
            client.prune(name, keep)
    gone = before - {version.id for version in lib.versions(name).all()}
    show({"pruned": sorted(gone, key=int)})


def reconcile(
    library: LibraryOption = None,
    collection: CollectionOption = None,
    check: Annotated[bool, typer.Option("--check", help="Only compare; change nothing.")] = False,
) -> None:
    """Compare the index with the shards, and correct it where they differ."""
    from search.maintenance.reconcile import reconcile as run

    lib, name, _ = opened(library, collection)
    with lib.collection(name) as one:
        found = run(one, mend=not check)
    show(found)
    if not found.equal:
        raise typer.Exit(1)


def undo(library: LibraryOption = None, collection: CollectionOption = None) -> None:
    """Restore the items that the last import removed because their sources changed.

    What that ingest stored in their place stays.
    """
    from ingest.pipeline.ledger import Ledger, ledger_path

    lib, name, _ = opened(library, collection)
    with Ledger(ledger_path(lib.folder), name) as ledger:
        run, ids = ledger.replaced()
    with lib.collection(name) as one:
        back = one.bring_back(ids)
        if back:
            one.build()
    show({"run": run, "removed": len(ids), "back": back})


def snapshot(
    out: Annotated[Path, typer.Argument(help="A folder, or a file that ends in .tar.")],
    library: LibraryOption = None,
    collection: CollectionOption = None,
) -> None:
    """Write a backup of a collection's shards, with the digest of every file."""
    from search.maintenance.snapshots import snapshot as run

    lib, name, _ = opened(library, collection)
    show(run(lib, name, out))


def restore(
    source: Annotated[Path, typer.Argument(help="What `hemaseek snapshot` wrote.")],
    library: LibraryOption = None,
    collection: CollectionOption = None,
) -> None:
    """Verify a backup and make its collection again."""
    from search.maintenance.snapshots import restore as run

    lib, _, _ = opened(library, collection)
    show(run(lib, source, collection))


def capacity(
    cells: Annotated[float, typer.Option(min=1, help="How many cells, for instance 100e6.")],
    dim: Annotated[int, typer.Option(min=1, help="Length of a vector.")] = 384,
) -> None:
    """Bytes, nodes and hours that a number of cells takes."""
    from search.index.contract import IndexSettings
    from search.maintenance.capacity import capacity as run
    from search.maintenance.capacity import table

    settings = IndexSettings().for_points(round(cells))
    typer.echo(table(run(cells, dim, settings=settings)))


def calibrate(
    library: LibraryOption = None,
    collection: CollectionOption = None,
    sample: Annotated[int, typer.Option(min=100, help="Labelled items used as queries.")] = 2000,
    recorded: Annotated[
        bool, typer.Option("--recorded", help="Recorded labels alone, without reviewers'.")
    ] = False,
) -> None:
    """Fit probabilities to the votes of a collection, leaving one patient out at a time."""
    from search.schemas.calibration import CalibrationPlan
    from ui.cli.backend import serving

    _, _, settings = opened(library, collection)
    with serving(settings) as backend:
        plan = CalibrationPlan(sample=sample, labels="recorded" if recorded else "reviewed")
        found = backend.calibrate(plan, settings.collection)
    show(found)


VERBS = (
    versions,
    reindex,
    adapt,
    rollback,
    prune,
    reconcile,
    undo,
    snapshot,
    restore,
    capacity,
    calibrate,
    evaluate,
    trust,
    export,
    ingest_features,
)
"""In the order of the help."""


def mount(app: typer.Typer) -> None:
    """Add the operator's verbs to the command."""
    for verb in VERBS:
        app.command()(verb)
    app.add_typer(cases, name="cases")
    app.add_typer(mil, name="mil")
    app.add_typer(keys, name="keys")
    app.add_typer(audit, name="audit")
