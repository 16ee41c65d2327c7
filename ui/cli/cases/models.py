"""The commands `hemaseek mil`: train a case model, list, apply to a case, delete."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ui.cli.options import (
    CollectionOption,
    GroupField,
    LibraryOption,
    Pooling,
    Task,
    Where,
    by_records,
    conditions,
    settings_for,
)
from ui.look.tables import count

if TYPE_CHECKING:
    from search.client.client import Client
    from search.schemas.mil import MilAnswer, MilModel
    from ui.cli.backend import Local

mil = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Case models: a label of a case learned from all of its cells (multiple instance "
    "learning). Research use only.",
)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The options of `train` that are fields of a `MilPlan`."""

    label: Annotated[str, typer.Option(help="Column of the cases; of survival, with the time.")] = (
        "diagnosis"
    )
    task: Annotated[Task, typer.Option(help="What is learned.")] = "class"
    event: Annotated[str, typer.Option(help="Of survival: column with yes or no.")] = "event"
    by: Annotated[GroupField, typer.Option(help="What makes a bag.")] = "case"
    pooling: Annotated[Pooling, typer.Option(help="How the cells of a case become one vector.")] = (
        "abmil_gated"
    )
    factors: Annotated[
        list[str] | None,
        typer.Option(
            "--factor",
            help="What must not decide: focus, brightness, hue, saturation, cells, size; repeat.",
        ),
    ] = None
    where: Where = None
    white: Annotated[
        bool, typer.Option("--white", help="Leave out what a finder took for red cells.")
    ] = False
    folds: Annotated[int, typer.Option(min=2, max=20, help="Parts by patient.")] = 5
    epochs: Annotated[int, typer.Option(min=1, max=1000, help="Most passes.")] = 60
    cells: Annotated[int, typer.Option(min=1, max=2000, help="Most cells of a case.")] = 500
    accuracy: Annotated[
        float, typer.Option(help="Share of the answers that should be right; else not sure.")
    ] = 0.9
    name: Annotated[str, typer.Option(help="What to call it.")] = "model"
    seed: Annotated[int, typer.Option(min=0, help="Of folds and weights.")] = 0


@mil.command()
@by_records
def train(
    plan: Plan,
    values: Annotated[
        Path | None,
        typer.Option(help="CSV with a column `case` and the label: in place of what is stored."),
    ] = None,
    library: LibraryOption = None,
    collection: CollectionOption = None,
) -> None:
    """Train a case model on the cases of a collection that have a label, folds by patient.

    Example: hemaseek mil train --label diagnosis --pooling clam_sb
    """
    from search.schemas.mil import MilPlan
    from ui.cli.backend import serving
    from ui.cli.output import percent, told

    settings = settings_for(library=library, collection=collection)
    facts = vars(plan) | {
        "where": conditions(plan.where),
        "factors": plan.factors or (),
        "found": "white" if plan.white else "all",
        "values": {} if values is None else _values(values),
    }
    del facts["white"]
    wanted = MilPlan.model_validate(facts)
    with serving(settings) as backend:
        card = backend.trained_model(settings.collection, wanted, percent)
    percent(None)
    told(card, _show)


@mil.command("list")
def list_models(library: LibraryOption = None, collection: CollectionOption = None) -> None:
    """List the case models of a collection."""
    from ui.cli.backend import serving
    from ui.cli.output import for_people, table

    settings = settings_for(library=library, collection=collection)
    with serving(settings) as backend:
        found = backend.models(settings.collection)
    if not for_people():
        for card in found:
            typer.echo(card.model_dump_json())
        return
    rows = [
        (card.id[:8], card.name, card.plan.pooling, card.plan.label, card.cases, _headline(card))
        for card in found
    ]
    table("Case models", ("id", "name", "pooling", "label", "n", "held out"), rows)


@mil.command()
def predict(
    model: Annotated[str, typer.Argument(help="Name of a model, or the start of its id.")],
    case: Annotated[str | None, typer.Argument(help="A stored case, patient or source.")] = None,
    image: Annotated[
        list[Path] | None, typer.Option("--image", help="A cell of a new case; repeat for more.")
    ] = None,
    field: Annotated[
        list[Path] | None,
        typer.Option("--field", help="A smear field of a new case, whose cells are found."),
    ] = None,
    slide: Annotated[Path | None, typer.Option(help="A slide that is not stored.")] = None,
    patient: Annotated[
        str | None, typer.Option(help="Pseudonym of a new case's patient, as the library has it.")
    ] = None,
    top: Annotated[int, typer.Option(min=0, help="Cells to show, those that count most.")] = 5,
    towards: Annotated[
        str | None, typer.Option(help="Class that cells speak for. [the most probable]")
    ] = None,
    library: LibraryOption = None,
    collection: CollectionOption = None,
) -> None:
    """Apply a case model to a stored case, or to a new one: pictures of its cells, fields, or a
    slide.

    A patient that the model was trained on is answered by the network that did not see it.

    Example: hemaseek mil predict model C-0117
    """
    from search.schemas.mil import MilQuestion
    from search.schemas.questions import About
    from ui.cli.backend import serving
    from ui.cli.output import told

    settings = settings_for(library=library, collection=collection)
    if field and (image or case):
        raise typer.BadParameter("give fields alone, without a case and images of single cells")
    if slide and (field or image or case):
        raise typer.BadParameter("give a slide alone, without a case, fields and images of cells")
    images = [path.read_bytes() for path in image or []]
    fields = [path.read_bytes() for path in field or []]
    with serving(settings) as backend:
        question = MilQuestion(
            model=_named(backend, settings.collection, model),
            case=case,
            about=About(patient=patient),
            top=top,
            order="effect",
            towards=towards,
        )
        if fields:
            answer = backend.predict_fields(settings.collection, question, fields)
        elif slide:
            answer = backend.predict_slide(settings.collection, question, slide.read_bytes())
        else:
            answer = backend.predict_case(settings.collection, question, images)
    told(answer, _print)


@mil.command()
def delete(
    model: Annotated[str, typer.Argument(help="Name of a model, or the start of its id.")],
    library: LibraryOption = None,
    collection: CollectionOption = None,
) -> None:
    """Delete a case model for good."""
    from ui.cli.backend import serving

    settings = settings_for(library=library, collection=collection)
    with serving(settings) as backend:
        id = _named(backend, settings.collection, model)
        gone = backend.forget_model(settings.collection, id)
    typer.echo(f"deleted {gone.name} ({gone.id})")


def _values(path: Path) -> dict[str, dict[str, Any]]:
    from ui.cli.cases.records import changes_in

    found = {}
    for one in changes_in(path):
        facts = one.model_dump(mode="json", exclude={"more", "clear", "case"}, exclude_none=True)
        found[one.case] = {**facts, **one.more}
    return found


def _named(backend: Client | Local, collection: str, word: str) -> str:
    """The id of the newest model of that name, or with that beginning."""
    found = [one for one in backend.models(collection) if word in (one.name, one.id[: len(word)])]
    if not found:
        raise typer.BadParameter(
            f"collection {collection!r} has no case model {word!r}; `hemaseek mil list` shows them"
        )
    return found[-1].id


def _show(card: MilModel) -> None:
    cases = f"{count(card.cases, 'case')} of {count(card.patients, 'patient')}"
    typer.echo(f"{card.name} ({card.id[:8]}): {cases}")
    typer.echo(f"held out: {_headline(card)}")
    for one in card.scores.classes:
        typer.echo(f"  {one.name}: {count(one.cases, 'case')}, {one.recall:.0%} found")
    for note in card.notes:
        typer.echo(f"- {note}")


def _headline(card: MilModel) -> str:
    name = "c_index" if card.plan.task == "survival" else "balanced_accuracy"
    value, span = card.scores.figures[name], card.scores.intervals.get(name)
    ends = f" [{span.low:.2f}, {span.high:.2f}]" if span else ""
    return f"{name.replace('_', ' ').replace('c index', 'c-index')} {value:.2f}{ends}"


def _print(answer: MilAnswer) -> None:
    typer.echo(answer.reason)
    for label, share in answer.probabilities.items():
        typer.echo(f"  {share:6.1%}  {label}")
    if answer.risk is not None:
        typer.echo(f"  log risk {answer.risk:.2f}, percentile {answer.risk_percentile:.0%}")
    towards = answer.towards or "a higher risk"
    typer.echo(f"{count(answer.looked_at, 'cell')}; effect for {towards}, attention:")
    for one in answer.cells:
        effect = "" if one.effect is None else f"{one.effect:+7.2f}"
        where = one.item.id if one.item else f"cell {one.cell}"
        if one.box is not None:
            where = f"picture {one.field}, x {one.box.x}, y {one.box.y}, side {one.box.w} px"
        typer.echo(f"{effect}  {one.attention:6.1%}  {where}")
    for words in answer.warnings:
        typer.echo(f"warning: {words}", err=True)
