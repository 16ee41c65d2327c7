"""The command `hemaseek`: each verb imports only what it runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from search.records import Question
    from search.settings import Settings

app = typer.Typer(
    name="hemaseek",
    help="Find the historical cells and cases that look like the one under the microscope. "
    "Research use only.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # rich help costs 0.3 s of start-up
    context_settings={"help_option_names": ["-h", "--help"]},
)

LibraryOption = Annotated[
    Path | None,
    typer.Option("--library", help="Folder of the library. [HEMASEEK_LIBRARY, else ./library]"),
]
CollectionOption = Annotated[
    str | None, typer.Option("--collection", help="Collection. [HEMASEEK_COLLECTION, else cells]")
]
EncoderOption = Annotated[
    str | None,
    typer.Option(
        "--encoder", help="Encoder: a name of `hemaseek encoders`, or an exported folder."
    ),
]
Neighbours = Annotated[int, typer.Option("-k", min=1, max=1000, help="How many neighbours.")]
Where = Annotated[
    list[str] | None,
    typer.Option(
        "--where", help="Only items with FIELD=VALUE; repeat for more.", metavar="FIELD=VALUE"
    ),
]


def settings_for(**given: Any) -> Settings:
    """The settings of the environment, with what was given on the command line over them."""
    from search.settings import Settings

    return Settings(**{name: value for name, value in given.items() if value is not None})


def question_for(
    query: str, k: int, where: list[str] | None, collection: str | None
) -> tuple[Question, bytes | None]:
    """A query argument as a question: an image file, or the id of a stored item."""
    from uuid import UUID

    from search.records import Filter, Question

    words: dict[str, list[str]] = {}
    for condition in where or []:
        name, sign, value = condition.partition("=")
        if not sign or not value:
            raise typer.BadParameter(
                f"expected FIELD=VALUE, got {condition!r}", param_hint="--where"
            )
        words.setdefault(name, []).append(value)
    known = Filter.model_fields
    for name in words:
        if name not in known:
            raise typer.BadParameter(
                f"no field {name!r}; there are {', '.join(known)}", param_hint="--where"
            )
    asked: dict[str, Any] = {"k": k, "where": words, "collection": collection}
    path = Path(query)
    if path.is_file():
        return Question.model_validate(asked), path.read_bytes()
    try:
        item = str(UUID(query))
    except ValueError:
        raise typer.BadParameter(
            f"{query!r} is neither an image file nor the id of an item", param_hint="QUERY"
        ) from None
    return Question.model_validate({**asked, "item": item}), None


@app.command()
def search(
    query: Annotated[str, typer.Argument(help="An image file, or the id of a stored item.")],
    k: Neighbours = 10,
    where: Where = None,
    collection: CollectionOption = None,
    library: LibraryOption = None,
) -> None:
    """Find the stored items most similar to an image or to a stored item.

    Example: hemaseek search cell.jpg -k 5 --where site=Bergen
    """
    from ui.backend import answers
    from ui.output import for_people, hits_table

    settings = settings_for(library=library)
    question, image = question_for(query, k, where, collection)
    with answers(settings) as backend:
        answer = backend.search(question, image)
    if for_people():
        hits_table(answer)
        return
    for hit in answer.hits:
        typer.echo(hit.model_dump_json())


@app.command()
def vote(
    query: Annotated[str, typer.Argument(help="An image file, or the id of a stored item.")],
    k: Neighbours = 20,
    where: Where = None,
    collection: CollectionOption = None,
    library: LibraryOption = None,
) -> None:
    """Ask the neighbours of an image which label they carry."""
    from ui.backend import answers
    from ui.output import for_people, vote_table

    settings = settings_for(library=library)
    question, image = question_for(query, k, where, collection)
    with answers(settings) as backend:
        found = backend.vote(question, image)
    if for_people():
        vote_table(found)
    else:
        typer.echo(found.model_dump_json())


@app.command()
def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on. [127.0.0.1]")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on. [8000]")] = None,
    library: LibraryOption = None,
    collection: CollectionOption = None,
) -> None:
    """Serve the library over HTTP until Ctrl-C; the documentation is at /docs."""
    import uvicorn

    from search.api import create_app
    from search.library import Library

    settings = settings_for(host=host, port=port, library=library, collection=collection)
    Library.open(settings.library)  # says what is wrong before the server starts
    if settings.host not in {"127.0.0.1", "localhost", "::1"} and settings.api_key is None:
        typer.echo(
            f"warning: listening on {settings.host} without a key; set HEMASEEK_API_KEY", err=True
        )
    uvicorn.run(
        create_app(settings=settings),
        host=settings.host,
        port=settings.port,
        log_level="warning",
        timeout_graceful_shutdown=10,
    )


@app.command()
def page(
    port: Annotated[int | None, typer.Option(help="Port of the page. [8501]")] = None,
    service: Annotated[str | None, typer.Option(help="Address of the service.")] = None,
) -> None:
    """Open the page, which asks the running service."""
    import subprocess

    from ui.launch import page_command, page_environment

    settings = settings_for(page_port=port, service_url=service)
    typer.echo(f"page: http://127.0.0.1:{settings.page_port} (service: {settings.url})", err=True)
    raise SystemExit(
        subprocess.call(page_command(settings), env=page_environment(settings))  # noqa: S603
    )


@app.command()
def encoders() -> None:
    """List the encoders that this installation knows."""
    from encoder.registry import default_encoder, known
    from ui.output import for_people, table

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
    from ui.doctor import examine
    from ui.output import for_people, table

    findings = examine(settings_for(library=library))
    if for_people():
        rows = [(("ok" if f.ok else "FAILED"), f.what, f.detail) for f in findings]
        table("Doctor", ("", "what", "detail"), rows)
    else:
        for finding in findings:
            typer.echo(finding.to_json())
    if not all(finding.ok for finding in findings):
        raise typer.Exit(1)


def main() -> None:
    """Run the command; expected errors become one sentence and exit status 1."""
    from ui.refusal import in_one_sentence

    with in_one_sentence():
        app()
