"""The commands `hemaseek cases`: import a table, list, show and correct records, find similar."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from typer.core import TyperGroup

from ui.cli.options import CollectionOption, Distance, GroupField, LibraryOption, settings_for
from ui.look.tables import count

if TYPE_CHECKING:
    from search.schemas.cases import CaseAnswer, CaseChange, CaseRecord, CaseRecordsWritten
    from search.schemas.evaluations import EvaluationRecord


class ByName(TyperGroup):
    """Commands, and the name of a case alone, which means `similar`."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """As click does; an unknown first word is the name of a case."""
        if args and not args[0].startswith("-") and args[0] not in self.commands:
            args = ["similar", *args]
        return super().resolve_command(ctx, args)


cases = typer.Typer(
    cls=ByName,
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Cases: import what is known of them, list, show, correct; find similar ones.",
)
AuthorOption = Annotated[
    str | None, typer.Option("--author", help="Your name or initials, kept with each change.")
]
IdentifyingOption = Annotated[
    bool,
    typer.Option(
        "--keep-identifying", help="Keep columns and texts that seem to say who a person is."
    ),
]


TableArgument = Annotated[
    Path, typer.Argument(exists=True, dir_okay=False, help="CSV with a column `case`.")
]


def changes_in(table: Path) -> tuple[CaseChange, ...]:
    """What a file says of cases.

    Raises:
        BadCaseTable: it cannot be read, or see `read_cases`.
    """
    from ingest.sources.text import TextError, decode_text
    from search.cases.table import BadCaseTable, read_cases

    try:
        text, _ = decode_text(table.read_bytes())
    except (OSError, TextError) as error:
        raise BadCaseTable(f"{table.name} is no table that can be read: {error}") from error
    return read_cases(text, table.name)


@cases.command("import")
def import_cases(
    table: TableArgument,
    library: LibraryOption = None,
    collection: CollectionOption = None,
    column: Annotated[
        list[str] | None,
        typer.Option(
            "--column",
            metavar="NAME=TYPE",
            help="Type of a further column: text, number, flag, date.",
        ),
    ] = None,
    author: AuthorOption = None,
    keep_identifying: IdentifyingOption = False,
) -> None:
    """Import a table of cases: diagnosis, diagnosis_code, treatment, outcome, date, sex, age_band,
    report, patient, and any further columns. All of it is kept, or nothing.

    Example: hemaseek cases import cases.csv --column blasts=number
    """
    facts = {"changes": changes_in(table), "columns": _columns(column), "author": author}
    _write(facts, library, collection, keep_identifying)


@cases.command("set")
def set_values(
    case: Annotated[str, typer.Argument(help="Name of the case.")],
    values: Annotated[
        list[str], typer.Argument(metavar="COLUMN=VALUE...", help="Empty: withdraw.")
    ],
    library: LibraryOption = None,
    collection: CollectionOption = None,
    author: AuthorOption = None,
    keep_identifying: IdentifyingOption = False,
) -> None:
    """Correct values of one case; what was there before is kept in its history.

    Example: hemaseek cases set C-0117 diagnosis="AML with maturation" diagnosis_code=9874/3
    """
    from search.cases.table import change_of, check_columns

    row, clear = {"case": case}, []
    for one in values:
        name, sign, value = one.partition("=")
        if not sign:
            raise typer.BadParameter(f"expected COLUMN=VALUE, got {one!r}")
        if value:
            row[name] = value
        else:
            clear.append(name)
    check_columns(list(row), "the command")
    change = change_of(row, "the command").model_copy(update={"clear": tuple(clear)})
    _write({"changes": (change,), "author": author}, library, collection, keep_identifying)


@cases.command("list")
def list_cases(
    library: LibraryOption = None,
    collection: CollectionOption = None,
    where: Annotated[
        list[str] | None,
        typer.Option("--where", metavar="COLUMN=VALUE", help="Only such cases; repeat for more."),
    ] = None,
) -> None:
    """List the records of cases."""
    from search.schemas.cases import CaseFilter, CaseRecordsQuestion
    from ui.cli.backend import serving
    from ui.cli.output import for_people

    chosen = CaseFilter.model_validate(_conditions(where))
    settings = settings_for(library=library, collection=collection)
    after: str | None = None
    found: list[CaseRecord] = []
    with serving(settings) as backend:
        while True:
            question = CaseRecordsQuestion(where=chosen, limit=1000, after=after)
            page = backend.case_records(settings.collection, question)
            found += page.records
            if (after := page.next) is None:
                break
    if for_people():
        _print_records(found, settings.collection)
    else:
        for record in found:
            typer.echo(record.model_dump_json(exclude={"edits"}, exclude_none=True))


@cases.command("show")
def show_case(
    case: Annotated[str, typer.Argument(help="Name of the case.")],
    library: LibraryOption = None,
    collection: CollectionOption = None,
) -> None:
    """Show what is known of one case, with the history of its record."""
    from ui.cli.backend import serving

    settings = settings_for(library=library, collection=collection)
    with serving(settings) as backend:
        typer.echo(backend.case(case, settings.collection).model_dump_json())


@cases.command("similar")
def similar(
    case: Annotated[str, typer.Argument(help="A stored case (or patient, or source).")],
    library: LibraryOption = None,
    collection: CollectionOption = None,
    by: Annotated[GroupField, typer.Option(help="What makes a bag.")] = "case",
    k: Annotated[int, typer.Option("-k", min=1, max=100, help="How many cases.")] = 10,
    distance: Annotated[Distance, typer.Option(help="How cases are compared.")] = "composition",
    model: Annotated[
        str | None, typer.Option(help="Of learned: id of a case model; see `hemaseek mil list`.")
    ] = None,
    where: Annotated[
        list[str] | None,
        typer.Option("--where", metavar="COLUMN=VALUE", help="Only cases with such a record."),
    ] = None,
) -> None:
    """Find the stored cases with the most similar cells; none of them of the same patient."""
    from search.schemas.cases import CaseQuestion
    from ui.cli.backend import serving
    from ui.cli.output import told

    settings = settings_for(library=library, collection=collection)
    question = {"case": case, "by": by, "k": k, "distance": distance, "model": model}
    question |= {"collection": settings.collection, "of_cases": _conditions(where)}
    with serving(settings) as backend:
        found = backend.similar_cases(CaseQuestion.model_validate(question))
    told(found, _print_similar)


@cases.command("evaluate")
def evaluate(
    library: LibraryOption = None,
    collection: CollectionOption = None,
    column: Annotated[str, typer.Option(help="Column of the records.")] = "diagnosis",
    distance: Annotated[
        list[str] | None, typer.Option(help="How cases are compared; repeat for more.")
    ] = None,
    white: Annotated[bool, typer.Option("--white", help="Leave red cells out.")] = False,
    k: Annotated[int, typer.Option("-k", min=1, max=50, help="Cases that vote.")] = 5,
    ask: Annotated[int | None, typer.Option(min=1, help="Most cases asked about.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the bootstrap.")] = 0,
) -> None:
    """Score similar cases: do the nearest cases of other patients have the same diagnosis?

    Intervals are 95 %, over whole patients. Prints the record as JSON, or tables at a terminal.
    """
    from search.schemas.cases import CasePlan
    from search.schemas.evaluations import EvaluationPlan
    from ui.cli.backend import serving
    from ui.cli.evaluating import finished
    from ui.cli.output import told

    settings = settings_for(library=library, collection=collection)
    facts: dict[str, Any] = {"column": column, "k": k, "ask": ask}
    facts |= {"found": "white" if white else "all"}
    if distance:
        facts["distances"] = distance
    cases_plan = CasePlan.model_validate(facts)
    plan = EvaluationPlan(collection=settings.collection, cases=cases_plan, seed=seed)
    with serving(settings) as backend:
        record = finished(backend, plan)
    told(record, print_case_scores)


@cases.command("build")
def build_vectors(
    library: LibraryOption = None,
    collection: CollectionOption = None,
    found: Annotated[
        Literal["all", "white"], typer.Option(help="All cells, or white: without red cells.")
    ] = "all",
    by: Annotated[
        Literal["case", "source"], typer.Option(help="Cases, or sources: slides of tiles.")
    ] = "case",
) -> None:
    """Make mosaics and vectors of the cases of a large collection, after its ingest.

    In a collection of up to 50,000 cells the first question makes them.
    """
    from search.cases.represented import build
    from ui.cli.options import opened

    lib, name, _ = opened(library, collection)
    with lib.collection(name) as one:
        count = build(one, by, found)
    typer.echo(json.dumps({"collection": name, "by": by, "found": found, "represented": count}))


def print_case_scores(record: EvaluationRecord) -> None:
    """Print the scores of every distance with their intervals, by label, and notes."""
    from ui.cli.output import table

    found = record.cases
    if found is None:
        return
    names = ("top_1", "top_3", "top_5", "map", "vote")
    rows = []
    for one in found.scores:
        cells: list[str] = [one.distance]
        for name in names:
            span = one.intervals[name]
            ends = f" [{100 * span.low:.0f}, {100 * span.high:.0f}]"
            cells.append(f"{100 * getattr(one, name):.1f}{ends}")
        over = one.over_mean and one.over_mean["map"]
        cells.append(f"{100 * over.difference:+.1f}, p {over.p:.3f}" if over else "")
        rows.append((*cells, one.worst))
    chance = [f"{100 * found.chance[name]:.1f}" if name in found.chance else "" for name in names]
    rows.append(("chance", *chance, "", ""))
    cases = f"{count(found.cases, 'case')} of {count(found.patients, 'patient')}"
    title = f"{found.asked} of {cases} by {found.column}"
    table(title, ("", "top 1", "top 3", "top 5", "mAP", "vote", "mAP over mean", "worst"), rows)
    best = max(found.scores, key=lambda one: one.map)
    labels = [
        (one.label, one.cases, f"{100 * one.top_1:.0f}", f"{100 * one.vote:.0f}")
        for one in best.labels
    ]
    table(f"by {best.distance}", (found.column, "n", "top 1", "vote"), labels)
    for note in found.notes:
        typer.echo(f"- {note}")


def _write(facts: dict[str, Any], library: Path | None, collection: str | None, keep: bool) -> None:
    from search.schemas.cases import CaseRecordsWanted
    from ui.cli.backend import serving
    from ui.cli.output import told

    facts["identifying"] = "keep" if keep else "refuse"
    settings = settings_for(library=library, collection=collection)
    with serving(settings) as backend:
        done: CaseRecordsWritten = backend.change_cases(
            settings.collection, CaseRecordsWanted.model_validate(facts)
        )
    told(done, _print_written)


def _print_written(done: CaseRecordsWritten) -> None:
    columns = ", ".join(f"{one.name} ({one.type})" for one in done.columns) or "none"
    typer.echo(f"{count(done.written, 'case')} changed, {done.unchanged:,} as before")
    typer.echo(f"further columns: {columns}")


def _columns(words: list[str] | None) -> list[dict[str, str]]:
    found = []
    for word in words or []:
        name, sign, type = word.partition("=")
        if not sign or type not in ("text", "number", "flag", "date"):
            raise typer.BadParameter(
                f"expected NAME=TYPE with text, number, flag or date, got {word!r}",
                param_hint="--column",
            )
        found.append({"name": name, "type": type})
    return found


def _conditions(words: list[str] | None) -> dict[str, Any]:
    """`COLUMN=VALUE` words as the fields of a `CaseFilter`."""
    from search.schemas.cases import CaseFilter

    found: dict[str, Any] = {}
    for word in words or []:
        name, sign, value = word.partition("=")
        if not sign or not value:
            raise typer.BadParameter(f"expected COLUMN=VALUE, got {word!r}", param_hint="--where")
        if name in ("date", "date_from", "date_to"):
            found |= dict.fromkeys(
                ("date_from", "date_to") if name == "date" else (name,), _day(word)
            )
        elif name in CaseFilter.model_fields:
            found.setdefault(name, []).append(value)
        else:
            number = value.replace(".", "", 1).lstrip("-").isdigit()
            plain = {"yes": True, "no": False}.get(value, float(value) if number else value)
            found.setdefault("more", {}).setdefault(name, []).append(plain)
    return found


def _day(word: str) -> date:
    name, _, value = word.partition("=")
    try:
        return date.fromisoformat(value)
    except ValueError as error:
        raise typer.BadParameter(
            f"{name} {value!r} is not a day; write it as 2024-03-01", param_hint="--where"
        ) from error


def _print_records(found: list[CaseRecord], collection: str) -> None:
    from ui.cli.output import table

    rows = [
        (one.case, one.diagnosis, one.diagnosis_code, one.treatment, one.outcome, one.date)
        for one in found
    ]
    title = f"{collection}: {count(len(found), 'case')} with a record"
    table(title, ("name", "diagnosis", "code", "treatment", "outcome", "date"), rows)


def _print_similar(found: CaseAnswer) -> None:
    from ui.cli.output import table

    rows = []
    for at, one in enumerate(found.cases, 1):
        known = one.records[0] if one.records else None
        facts = (known.diagnosis, known.treatment, known.date) if known else (None, None, None)
        rows.append((at, one.value, f"{one.distance:.4f}", *facts, ", ".join(one.patients)))
    title = f"{found.collection}: {count(found.compared, 'case')} compared by {found.distance}"
    table(title, ("", "name", "distance", "diagnosis", "treatment", "date", "patient"), rows)
    for warning in found.warnings:
        typer.echo(f"- {warning}")
