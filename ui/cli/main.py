"""The command `hemaseek`: each verb imports only what it runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ui.cli.ingesting import Request
from ui.cli.operate import mount
from ui.cli.options import (
    CollectionOption,
    EncoderOption,
    Grouped,
    LibraryOption,
    by_records,
    settings_for,
)
from ui.cli.searching import refine, search, vote

app = typer.Typer(
    name="hemaseek",
    help="Find the historical cells and cases that look like the one under the microscope. "
    "Research use only.",
    cls=Grouped,
    epilog="--json, anywhere on the line: JSON lines at a terminal too; they come by themselves "
    "where the output is piped.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # rich help costs 0.3 s of start-up
    context_settings={"help_option_names": ["-h", "--help"]},
)


def compact(report: str, **more: Any) -> str:
    """A report as one line of JSON, with more beside it."""
    import json

    return json.dumps(json.loads(report) | more)


@app.command()
def demo(
    data: Annotated[
        Path | None,
        typer.Option(help="Folder with real sets (pbc, bccd, chula, aslan). [HEMASEEK_DATA]"),
    ] = None,
    out: Annotated[Path, typer.Option(help="Where the demo keeps its files.")] = Path("demo"),
    encoder: EncoderOption = None,
    serve: Annotated[
        bool, typer.Option(help="Serve the API and the page afterwards, until Ctrl-C.")
    ] = True,
) -> None:
    """Ingest cells, ask one query, show its neighbours; then serve the API and the page.

    Real cells come first: from --data or HEMASEEK_DATA, else openly licensed sets that are
    downloaded, else, without a network, a synthetic smear that is drawn.
    """
    from ui.cli.demo import run_demo

    run_demo(settings_for(data=data, encoder=encoder), out, serve=serve)


@app.command()
@by_records
def ingest(
    request: Request,
    collection: CollectionOption = None,
    library: LibraryOption = None,
    report: Annotated[
        Path | None, typer.Option(help="Keep the whole report here, as JSON.")
    ] = None,
) -> None:
    """Import images and slides into the library: read, cut, embed, store. Exits 1 if any failed.

    Running it again changes nothing; after a crash it completes what is missing.

    Example: hemaseek ingest photos/ --dataset clinic-2024 --site Bergen
    """
    from dataclasses import asdict

    from ingest.layouts.known import LAYOUTS
    from ui.cli.ingesting import perform, print_report
    from ui.cli.output import for_people

    if request.layout == "help":
        for one in LAYOUTS.values():
            typer.echo(f"{one.name:10} {one.describes}")
        return
    settings = settings_for(library=library, collection=collection, encoder=request.encoder)
    run = perform(request, settings)
    if report is not None:
        run.report.write(report)
    if for_people():
        print_report(run)
    else:
        index = None if run.index is None else asdict(run.index)
        typer.echo(compact(run.report.to_json(), index=index))
    if not run.report.ok:
        raise typer.Exit(1)


@app.command()
def jobs(
    library: LibraryOption = None,
    collection: CollectionOption = None,
    sources: Annotated[bool, typer.Option(help="List every source instead of the runs.")] = False,
) -> None:
    """Show the runs of ingest and the states of their sources; one that runs shows its progress."""
    from ui.cli.jobs import print_runs, print_sources

    settings = settings_for(library=library, collection=collection)
    (print_sources if sources else print_runs)(settings)


@app.command()
def quarantine(
    paths: Annotated[list[Path] | None, typer.Argument(help="Only these files.")] = None,
    retry: Annotated[bool, typer.Option("--retry", help="Read them again.")] = False,
    library: LibraryOption = None,
    collection: CollectionOption = None,
) -> None:
    """List the rejected files with reason and attempts; `--retry` reads them again.

    Exits 1 while there are any.
    """
    from ui.cli.jobs import print_quarantined, retry_quarantined

    settings = settings_for(library=library, collection=collection)
    chosen = [str(path.resolve()) for path in paths or []]
    if retry:
        retry_quarantined(settings, chosen)
    if print_quarantined(settings, chosen):
        raise typer.Exit(1)


@app.command()
def samples(
    folder: Annotated[
        Path | None, typer.Argument(help="Where to put them. [~/.cache/hemaseek/samples]")
    ] = None,
    sets: Annotated[
        list[str] | None, typer.Option("--set", help="Only this set; repeat for more.")
    ] = None,
) -> None:
    """Download openly licensed cells and a slide: BCCD, Aslan, Chula, CMU-1-Small-Region."""
    from ui.cli.demo import fetch_samples

    if not fetch_samples(folder, sets):
        raise typer.Exit(1)


app.command()(search)
app.command()(refine)
app.command()(vote)


@app.command()
def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on. [127.0.0.1]")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on. [8000]")] = None,
    library: LibraryOption = None,
    collection: CollectionOption = None,
) -> None:
    """Serve the library over HTTP until Ctrl-C; the documentation is at /docs."""
    import uvicorn

    from search.api.connections import ConnectionLimits, bounded
    from search.disk.space import try_to_write
    from search.library.library import Library
    from search.security.audit import need_free
    from ui.cli.serving import application, return_freed_memory

    settings = settings_for(host=host, port=port, library=library, collection=collection)
    Library.open(settings.library)  # says what is wrong before the server starts
    try_to_write(settings.audit or settings.library)  # no call without its line in the log
    need_free(settings.audit_folder)
    if settings.host not in {"127.0.0.1", "localhost", "::1"} and settings.api_key is None:
        typer.echo(
            f"warning: listening on {settings.host} without a key; set HEMASEEK_API_KEY", err=True
        )
    return_freed_memory()
    uvicorn.run(
        application(settings),
        host=settings.host,
        port=settings.port,
        log_level="warning",
        timeout_graceful_shutdown=10,
        http=bounded(
            ConnectionLimits(
                connections=settings.max_connections,
                per_address=settings.max_connections_per_address,
            )
        ),
        proxy_headers=bool(settings.trusted_proxies),
        forwarded_allow_ips=settings.trusted_proxies or None,
    )


@app.command()
def page(
    library: LibraryOption = None,
    port: Annotated[int | None, typer.Option(help="Port of the page. [8501]")] = None,
    service: Annotated[str | None, typer.Option(help="Address of the service.")] = None,
    address: Annotated[
        str, typer.Option(help="Address to listen on; 0.0.0.0 for other machines too.")
    ] = "127.0.0.1",
) -> None:
    """Open the page over the running service."""
    import os

    from ui.cli.backend import answers
    from ui.cli.serving import page_command, page_environment

    settings = settings_for(library=library, page_port=port, service_url=service)
    typer.echo(f"page: http://{address}:{settings.page_port} (service: {settings.url})", err=True)
    if not answers(settings):
        typer.echo(
            f"warning: no service answers at {settings.url}; start it with `hemaseek serve`, or "
            "name another with --service",
            err=True,
        )
    command = page_command(settings, address)
    os.execve(command[0], command, page_environment(settings))  # noqa: S606 - our own command


@app.command()
def encoders() -> None:
    """List the encoders that this installation knows."""
    from encoder.registry import default_encoder, known
    from ui.cli.output import for_people, table

    cards = known()
    if not for_people():
        for card in cards.values():
            typer.echo(" ".join(card.to_json().split()))
        return
    chosen = default_encoder()
    rows = [
        (f"{id} *" if id == chosen else id, card.dim, card.input_px, card.licence, card.source)
        for id, card in cards.items()
    ]
    table("Encoders (* is the default)", ("name", "dim", "pixels", "licence", "source"), rows)


@app.command()
def doctor(library: LibraryOption = None) -> None:
    """Check this installation: packages, weights, library, service. Exits 1 if anything fails."""
    from ui.cli.doctor import examine
    from ui.cli.output import for_people, table

    findings = examine(settings_for(library=library))
    if for_people():
        rows = [(("ok" if f.ok else "FAILED"), f.what, f.detail) for f in findings]
        table("Doctor", ("", "what", "detail"), rows)
    else:
        for finding in findings:
            typer.echo(finding.to_json())
    if not all(finding.ok for finding in findings):
        raise typer.Exit(1)


mount(app)


def main() -> None:
    """Run the command; expected errors become one sentence and exit status 1."""
    from ui.cli.errors import in_one_sentence

    with in_one_sentence():
        app()
