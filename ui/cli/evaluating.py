"""The command `evaluate`: the service's evaluation from the terminal, as a table or a report."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ui.cli.options import (
    Adaptation,
    CollectionOption,
    LibraryOption,
    Split,
    Weighting,
    Where,
    by_records,
    conditions,
    settings_for,
)
from ui.look.tables import count

if TYPE_CHECKING:
    from search.client.client import Client
    from search.schemas.calibration import Calibration
    from search.schemas.evaluations import EvaluationRecord
    from search.schemas.versions import JobRecord
    from ui.cli.backend import Local


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How a collection is evaluated: the options that are fields of an `EvaluationPlan`."""

    teach: Annotated[
        Literal["collection", "set"],
        typer.Option(
            help="Training items of an uploaded set; set: it is split itself.",
        ),
    ] = "collection"
    split: Annotated[
        Split,
        typer.Option(help="Train-test split; one-site-in is RedDino's."),
    ] = "auto"
    folds: Annotated[int, typer.Option(min=2, max=20, help="Of stratified, and of the probe.")] = 5
    cutoff: Annotated[
        str | None, typer.Option(help="Of temporal: YYYY-MM-DD; earlier items are for training.")
    ] = None
    ks: Annotated[
        list[int] | None, typer.Option("-k", help="Neighbours that vote; repeat for more.")
    ] = None
    weighting: Annotated[Weighting, typer.Option(help="Weight of each neighbour.")] = "similarity"
    recorded: Annotated[
        bool, typer.Option("--recorded", help="Recorded labels alone, without reviewers'.")
    ] = False
    where: Where = None
    ask: Annotated[int | None, typer.Option(min=1, help="Most queries, sampled by class.")] = None
    probe: Annotated[bool, typer.Option(help="Fit a linear probe too.")] = True
    ann: Annotated[
        bool, typer.Option("--index/--no-index", help="Search through the index too.")
    ] = True
    adapt: Annotated[
        Adaptation | None,
        typer.Option(help="Score an adaptation fitted in each fold."),
    ] = None
    resamples: Annotated[int, typer.Option(min=1, help="Of the bootstrap.")] = 1000
    seed: Annotated[int, typer.Option(min=0, help="Of folds, subsets and bootstrap.")] = 0


@by_records
def evaluate(
    plan: Plan,
    library: LibraryOption = None,
    collection: CollectionOption = None,
    labelled: Annotated[
        Path | None,
        typer.Option("--set", help="Labelled test set: a ZIP of pictures, or a shard."),
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option(help="Write a report here (.md), its curves beside it (.svg)."),
    ] = None,
) -> None:
    """Score neighbours and a linear probe on a collection, or on a labelled set against it.

    No item is judged by its own group: in every split its patient, case and source are left out.
    Prints the record as JSON, or a table at a terminal. Exits 1 if the data does not allow it.

    Example: hemaseek evaluate --split leave-one-site-out -k 1 -k 20 --report evaluation.md
    """
    from search.schemas.evaluations import EvaluationPlan
    from ui.cli.backend import serving
    from ui.cli.output import told

    settings = settings_for(library=library, collection=collection)
    facts = vars(plan) | {"collection": settings.collection, "where": conditions(plan.where)}
    facts["labels"] = "recorded" if facts.pop("recorded") else "reviewed"
    if not plan.ks:
        del facts["ks"]
    with serving(settings) as backend:
        record = finished(backend, EvaluationPlan.model_validate(facts), labelled)
        calibration = _calibration(backend, settings.collection) if report else None
    if report is not None and record.result is not None:
        from ui.exports.evaluation_report import write_report

        command = " ".join(["hemaseek", *(argument for argument in sys.argv[1:])])
        for path in write_report(report, record.result, calibration, [command]):
            typer.echo(f"wrote {path}", err=True)
    told(record, print_scores)


@by_records
def trust(
    library: LibraryOption = None,
    collection: CollectionOption = None,
    where: Where = None,
    strange: Annotated[
        list[str] | None,
        typer.Option(
            "--outside",
            metavar="FIELD=VALUE",
            help="Items of the collection that belong to none of its kinds (tissue among blood).",
        ),
    ] = None,
    until: Annotated[
        str | None,
        typer.Option(help="Scores by year take neighbours up to this day. [the first year's end]"),
    ] = None,
    most: Annotated[int, typer.Option(min=20, help="Queries of each side.")] = 1000,
    seed: Annotated[int, typer.Option(min=0, help="Of what is drawn.")] = 0,
) -> None:
    """Measure when an answer should not be trusted: labels, sites and kinds that are not there.

    AUROC of the distance that the service warns by, sensitivity and specificity of thresholds, and
    AUROC by year of acquisition.

    Example: hemaseek trust --outside dataset=lc25000
    """
    from dataclasses import asdict

    from search.evaluation.trust import trust_of_collection
    from search.schemas.evaluations import TrustWanted
    from ui.cli.backend import running_service
    from ui.cli.options import opened

    settings = settings_for(library=library, collection=collection)
    facts = {"where": conditions(where), "outside": conditions(strange), "most": most, "seed": seed}
    wanted = TrustWanted.model_validate(facts | ({"until": until} if until else {}))
    client = running_service(settings)
    if client is None:
        held, name, _ = opened(library, collection)
        with held.collection(name) as cells:
            print_trust(asdict(trust_of_collection(cells, wanted)))
        return
    with client:
        print_trust(_of_job(client, client.start_trust(settings.collection, wanted)))


def _of_job(client: Client, job: JobRecord) -> dict[str, Any]:
    """The result of a job, once it is there."""
    from time import sleep

    while job.ended is None:
        sleep(1)
        job = client.job(job.id)
    if job.result is None:
        raise _failed(job)
    return job.result


def _failed(job: JobRecord | EvaluationRecord) -> typer.Exit:
    typer.echo(f"{job.state}: {job.error or 'it did not end'}", err=True)
    return typer.Exit(1)


def print_trust(found: dict[str, Any]) -> None:
    """The figures as a table at a terminal, else as one line of JSON."""
    import json

    from ui.cli.output import for_people, table

    if not for_people():
        typer.echo(json.dumps(found))
        return
    rows = []
    for one in found["strange"]:
        shown = [
            f"{100 * limit['sensitivity']:.0f} / {100 * limit['specificity']:.0f}"
            for limit in one["thresholds"]
        ]
        rows.append((one["kind"], one["value"], _with_ends(one["auroc"], one["interval"]), *shown))
    heads = ("", "", "AUROC", *(f"sens / spec at {x:.0%}" for x in TRUST_AT))
    table("Queries that are not there, told by their distance", heads, rows)
    decay = found["decay"]
    if decay is not None:
        years = [
            (one["year"], one["queries"], _with_ends(one["auroc"], one["interval"]))
            for one in decay["years"]
        ]
        table(f"By year, neighbours up to {decay['cutoff']}", ("", "queries", "AUROC"), years)
        if decay["per_year"] is not None:
            typer.echo(f"{decay['per_year']:+.4f} a year")
    for note in found["notes"]:
        typer.echo(f"- {note}")


def _with_ends(value: float, ends: list[float]) -> str:
    return f"{value:.3f} [{ends[0]:.3f}, {ends[1]:.3f}]"


TRUST_AT = (0.95, 0.99)
"""As `search.evaluation.trust.INSIDE`, for the heads."""


def finished(backend: Client | Local, plan: Any, labelled: Path | None = None) -> EvaluationRecord:
    """Start an evaluation and wait for its result; its progress goes to standard error.

    Raises:
        Exit: it failed or was cancelled; why is said.
    """
    from search.client.evaluations import wait_for
    from ui.cli.output import percent

    record = wait_for(backend.evaluation, backend.evaluate(plan, labelled).id, percent)
    percent(None)
    if record.result is None and record.cases is None:
        raise _failed(record)
    return record


def print_scores(record: EvaluationRecord) -> None:
    """Print the scores of every method, and notes."""
    from ui.cli.output import table

    result = record.result
    if result is None:
        return
    names = ("weighted_f1", "balanced_accuracy", "macro_f1", "auroc", "map_at_k")
    rows = []
    for one in result.methods:
        cells = [one.method]
        for name in names:
            value, span = getattr(one.scores, name), one.intervals.get(name)
            ends = f" [{100 * span.low:.1f}, {100 * span.high:.1f}]" if span else ""
            cells.append("" if value is None else f"{100 * value:.1f}{ends}")
        rows.append((*cells, one.worst))
    queries = count(result.data.asked, "query", "queries")
    title = (
        f"{record.collection}: {queries}, {result.split.words}; "
        f"confidence intervals over {result.clusters} units ({result.unit})"
    )
    table(title, ("", "wF1", "bAcc", "macro F1", "AUROC", "mAP@k", "worst class"), rows)
    for note in result.notes:
        typer.echo(f"- {note}")
    typer.echo(f"id {record.id}")


def _calibration(backend: Client | Local, collection: str) -> Calibration | None:
    from search.client.transport import ServiceError
    from search.errors import NoSuchItem

    try:
        fitted, stale = backend.calibration(collection)
    except (ServiceError, NoSuchItem):
        return None
    return None if stale else fitted
