"""The commands `search`, `vote` and `refine`, with all options of the service."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ui.cli.options import (
    BalanceField,
    CollectionOption,
    GroupField,
    LibraryOption,
    Weighting,
    Where,
    by_records,
    conditions,
)

if TYPE_CHECKING:
    from search.schemas.questions import Question

Query = Annotated[str, typer.Argument(help="An image file, or the id of a stored item.")]
Neighbours = Annotated[int, typer.Option("-k", min=1, max=1000, help="How many neighbours.")]


@dataclass(frozen=True, kw_only=True)
class Scope:
    """Where a query is searched for, and what may be found."""

    where: Where = None
    collection: CollectionOption = None
    library: LibraryOption = None
    fuse_with: Annotated[
        str | None,
        typer.Option(
            help="A collection of the same cells under another encoder, whose ranks are fused with "
            "this one's.",
            metavar="COLLECTION",
        ),
    ] = None
    patient: Annotated[
        str | None, typer.Option(help="Patient of the query, whose own cells are then left out.")
    ] = None
    case: Annotated[str | None, typer.Option(help="Case of the query, left out likewise.")] = None
    site: Annotated[
        str | None, typer.Option(help="Site of the query; its share of the hits is then shown.")
    ] = None
    um_per_px: Annotated[
        float | None,
        typer.Option(
            min=0.0001,
            max=1000,
            help="Micrometres per pixel of the image, which is then cut to the encoder's field of "
            "view.",
        ),
    ] = None
    cell: Annotated[
        Literal["white", "red"] | None,
        typer.Option(help="What the image shows; the field of view follows it. [white]"),
    ] = None
    allow: Annotated[
        list[str] | None,
        typer.Option(
            help="What may be found although it is of the query's own group: item, source, case, "
            "patient or duplicate; repeat for more.",
            metavar="RELATION",
        ),
    ] = None
    exact: Annotated[
        bool, typer.Option("--exact", help="Compare with every item, without the index.")
    ] = False
    recorded: Annotated[
        bool, typer.Option("--recorded", help="Recorded labels alone, without reviewers'.")
    ] = False

    @property
    def labels(self) -> Literal["recorded", "reviewed"]:
        """Which labels are shown, and vote."""
        return "recorded" if self.recorded else "reviewed"


@dataclass(frozen=True, kw_only=True)
class Order:
    """How hits are ordered beside their similarity."""

    mmr: Annotated[
        float | None, typer.Option(min=0, max=1, help="Diversity: 1 similarity, 0 variety alone.")
    ] = None
    balance: Annotated[
        BalanceField | None,
        typer.Option(
            help="No more hits of a site (source, patient, ...) than its share.",
        ),
    ] = None


@dataclass(frozen=True, kw_only=True)
class Groups:
    """How hits are grouped and counted."""

    group_by: Annotated[
        GroupField | None,
        typer.Option(
            help="One group for each case, patient or source; -k counts groups.",
        ),
    ] = None
    per_group: Annotated[int, typer.Option(min=1, max=50, help="Hits shown of each group.")] = 1
    facets: Annotated[
        list[str] | None,
        typer.Option(
            "--facet",
            help="Count the values of this field; repeat for more.",
        ),
    ] = None


@dataclass(frozen=True, kw_only=True)
class Examples:
    """What the hits should resemble, and what not."""

    like: Annotated[
        list[str] | None, typer.Option(help="Id of an item to resemble; repeat for more.")
    ] = None
    unlike: Annotated[
        list[str] | None, typer.Option(help="Id of an item not to resemble; repeat for more.")
    ] = None
    region: Annotated[
        str | None, typer.Option(help="Look at this part of the image alone.", metavar="X,Y,W,H")
    ] = None
    strategy: Annotated[
        Literal["average_vector", "best_score"],
        typer.Option(help="How examples are weighed."),
    ] = "average_vector"


def question_of(
    query: str | None, k: int, scope: Scope, more: Mapping[str, Any]
) -> tuple[dict[str, Any], bytes | None]:
    """The fields of a question, and the bytes of the image where the query is a file.

    Raises:
        BadParameter: a query that is neither a file nor an id, or an unknown relation.
    """
    from uuid import UUID

    from search.schemas.questions import RELATIONS

    allowed = set(scope.allow or ())
    if unknown := allowed - set(RELATIONS):
        raise typer.BadParameter(
            f"no relation {min(unknown)!r}; there are {', '.join(RELATIONS)}", param_hint="--allow"
        )
    names = ("patient", "case", "site", "um_per_px", "cell")
    about = {name: getattr(scope, name) for name in names}
    facts: dict[str, Any] = {
        "k": k,
        "where": conditions(scope.where),
        "collection": scope.collection,
        "fuse_with": scope.fuse_with,
        "about": {name: value for name, value in about.items() if value is not None},
        "exclude": [one for one in RELATIONS if one not in allowed],
        "exact": scope.exact,
        "labels": scope.labels,
        **{name: value for name, value in more.items() if value is not None},
    }
    if query is None:
        return facts, None
    path = Path(query)
    if path.is_file():
        return facts, path.read_bytes()
    try:
        return {**facts, "item": str(UUID(query))}, None
    except ValueError:
        raise typer.BadParameter(
            f"{query!r} is neither an image file nor the id of an item", param_hint="QUERY"
        ) from None


@by_records
def search(query: Query, *, k: Neighbours = 10, scope: Scope, groups: Groups, order: Order) -> None:
    """Find the stored items most similar to an image or to a stored item.

    Example: hemaseek search cell.jpg -k 5 --patient P-004 --where site=Bergen
    """
    from search.schemas.questions import Question

    facts, image = question_of(query, k, scope, vars(groups) | vars(order))
    _print(Question.model_validate(facts), image, scope.library)


@by_records
def refine(
    query: Annotated[
        str | None, typer.Argument(help="An image file, or the id of a stored item.")
    ] = None,
    *,
    examples: Examples,
    k: Neighbours = 10,
    scope: Scope,
    order: Order,
) -> None:
    """Search again: more like these, less like those, or by a part of the image.

    Example: hemaseek refine cell.jpg --like ID --unlike ID
    """
    from search.schemas.questions import Refinement

    region = None if examples.region is None else _box(examples.region)
    more = vars(examples) | vars(order) | {"region": region}
    facts, image = question_of(query, k, scope, more)
    _print(Refinement.model_validate(facts), image, scope.library)


@by_records
def vote(
    query: Query,
    *,
    k: Neighbours = 20,
    scope: Scope,
    weighting: Annotated[Weighting, typer.Option(help="Weight of each neighbour.")] = "similarity",
    temperature: Annotated[
        float, typer.Option(min=0.001, max=10, help="Of the softmax weighting.")
    ] = 0.07,
) -> None:
    """Show how the labels of a query's neighbours vote."""

    from search.schemas.questions import Question
    from ui.cli.backend import serving
    from ui.cli.options import settings_for
    from ui.cli.output import told, vote_table

    facts, image = question_of(query, k, scope, {})
    with serving(settings_for(library=scope.library)) as backend:
        found = backend.vote(Question.model_validate(facts), image, weighting, temperature)
    told(found, vote_table)


def _print(question: Question, image: bytes | None, library: Path | None) -> None:
    """Print the answer: a table at a terminal; else a line for each hit, then the facets."""
    import json

    from search.schemas.questions import Refinement
    from ui.cli.backend import serving
    from ui.cli.options import settings_for
    from ui.cli.output import for_people, hits_table, warn

    with serving(settings_for(library=library)) as backend:
        if isinstance(question, Refinement):
            answer = backend.refine(question, image)
        else:
            answer = backend.search(question, image)
    if for_people():
        hits_table(answer)
        return
    warn(answer)
    for hit in answer.hits:
        typer.echo(hit.model_dump_json())
    if answer.facets:
        typer.echo(json.dumps({"facets": answer.facets}))


def _box(region: str) -> dict[str, int]:
    try:
        x, y, w, h = (int(part) for part in region.split(","))
    except ValueError:
        w = h = 0
    if w < 1 or h < 1:
        raise typer.BadParameter(
            f"expected X,Y,W,H in pixels, width and height at least 1, got {region!r}",
            param_hint="--region",
        )
    return {"x": x, "y": y, "w": w, "h": h}
