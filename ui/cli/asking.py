"""The verbs that ask: `search`, `vote` and `refine`, with every way to ask that the service has."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ui.cli.options import LibraryOption, Where, conditions

if TYPE_CHECKING:
    from search.schemas.questions import Question

Query = Annotated[str, typer.Argument(help="An image file, or the id of a stored item.")]
Neighbours = Annotated[int, typer.Option("-k", min=1, max=1000, help="How many neighbours.")]
CollectionOption = Annotated[
    str | None, typer.Option("--collection", help="Collection. [HEMASEEK_COLLECTION, else cells]")
]
Patient = Annotated[
    str | None, typer.Option(help="Patient of the query, whose own cells are then left out.")
]
Case = Annotated[str | None, typer.Option(help="Case of the query, left out likewise.")]
Site = Annotated[
    str | None, typer.Option(help="Site of the query; its share of the hits is then shown.")
]
Allow = Annotated[
    list[str] | None,
    typer.Option(
        help="Kin that may be found: item, source, case, patient or duplicate; repeat for more.",
        metavar="RELATION",
    ),
]
Exact = Annotated[bool, typer.Option("--exact", help="Compare with everything, not by the graph.")]
GroupBy = Annotated[
    str | None, typer.Option(help="One group for each case, patient or source; -k counts groups.")
]
PerGroup = Annotated[int, typer.Option(min=1, max=50, help="Hits shown of each group.")]
Mmr = Annotated[
    float | None, typer.Option(min=0, max=1, help="Diversity: 1 similarity, 0 variety alone.")
]
Balance = Annotated[
    str | None,
    typer.Option(help="No more hits of a site (source, patient, ...) than its share."),
]
Facet = Annotated[
    list[str] | None, typer.Option(help="Count the values of this field; repeat for more.")
]


def asked(
    query: str | None,
    k: int,
    where: list[str] | None,
    collection: str | None,
    allow: list[str] | None,
    **more: Any,
) -> tuple[dict[str, Any], bytes | None]:
    """What a question is made of: an image file, or the id of a stored item, and the rest.

    Raises:
        BadParameter: a query that is neither, or a relation that there is not.
    """
    from uuid import UUID

    from search.schemas.questions import RELATIONS

    if unknown := set(allow or ()) - set(RELATIONS):
        raise typer.BadParameter(
            f"no relation {min(unknown)!r}; there are {', '.join(RELATIONS)}", param_hint="--allow"
        )
    about = {name: more.pop(name, None) for name in ("patient", "case", "site")}
    facts: dict[str, Any] = {
        "k": k,
        "where": conditions(where),
        "collection": collection,
        "about": {name: value for name, value in about.items() if value is not None},
        "exclude": [one for one in RELATIONS if one not in (allow or ())],
        **{name: value for name, value in more.items() if value not in (None, [], False)},
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


def search(
    query: Query,
    k: Neighbours = 10,
    where: Where = None,
    collection: CollectionOption = None,
    library: LibraryOption = None,
    patient: Patient = None,
    case: Case = None,
    site: Site = None,
    allow: Allow = None,
    exact: Exact = False,
    group_by: GroupBy = None,
    per_group: PerGroup = 1,
    mmr: Mmr = None,
    balance: Balance = None,
    facet: Facet = None,
) -> None:
    """Find the stored items most similar to an image or to a stored item.

    Example: hemaseek search cell.jpg -k 5 --patient P-004 --where site=Bergen
    """
    from search.schemas.questions import Question

    facts, image = asked(
        query,
        k,
        where,
        collection,
        allow,
        patient=patient,
        case=case,
        site=site,
        exact=exact,
        group_by=group_by,
        per_group=per_group,
        mmr=mmr,
        balance=balance,
        facets=facet,
    )
    _tell(Question.model_validate(facts), image, library)


def refine(
    query: Annotated[
        str | None, typer.Argument(help="An image file, or the id of a stored item.")
    ] = None,
    like: Annotated[
        list[str] | None, typer.Option(help="Id of an item to resemble; repeat for more.")
    ] = None,
    unlike: Annotated[
        list[str] | None, typer.Option(help="Id of an item not to resemble; repeat for more.")
    ] = None,
    region: Annotated[
        str | None, typer.Option(help="Look at this part of the image alone.", metavar="X,Y,W,H")
    ] = None,
    strategy: Annotated[str, typer.Option(help="average_vector or best_score.")] = "average_vector",
    k: Neighbours = 10,
    where: Where = None,
    collection: CollectionOption = None,
    library: LibraryOption = None,
    patient: Patient = None,
    case: Case = None,
    site: Site = None,
    allow: Allow = None,
    exact: Exact = False,
    mmr: Mmr = None,
    balance: Balance = None,
) -> None:
    """Search again: more like these, less like those, or by a part of the image.

    Example: hemaseek refine cell.jpg --like ID --unlike ID
    """
    from search.schemas.questions import Refinement

    facts, image = asked(
        query,
        k,
        where,
        collection,
        allow,
        patient=patient,
        case=case,
        site=site,
        exact=exact,
        mmr=mmr,
        balance=balance,
        like=like,
        unlike=unlike,
        strategy=strategy,
        region=None if region is None else _box(region),
    )
    _tell(Refinement.model_validate(facts), image, library)


def vote(
    query: Query,
    k: Neighbours = 20,
    where: Where = None,
    collection: CollectionOption = None,
    library: LibraryOption = None,
    patient: Patient = None,
    case: Case = None,
    site: Site = None,
    allow: Allow = None,
    exact: Exact = False,
    weighting: Annotated[str, typer.Option(help="similarity, uniform or softmax.")] = "similarity",
    temperature: Annotated[float, typer.Option(help="Of the softmax weighting.")] = 0.07,
) -> None:
    """Ask the neighbours of an image which label they carry."""
    from typing import cast, get_args

    from search.schemas.questions import Question, Weighting
    from ui.cli.backend import serving
    from ui.cli.options import settings_for
    from ui.cli.output import for_people, vote_table

    if weighting not in get_args(Weighting):
        raise typer.BadParameter(
            f"expected {', '.join(get_args(Weighting))}, got {weighting!r}",
            param_hint="--weighting",
        )
    facts, image = asked(
        query, k, where, collection, allow, patient=patient, case=case, site=site, exact=exact
    )
    with serving(settings_for(library=library)) as backend:
        found = backend.vote(
            Question.model_validate(facts), image, cast("Weighting", weighting), temperature
        )
    if for_people():
        vote_table(found)
    else:
        typer.echo(found.model_dump_json())


def _tell(question: Question, image: bytes | None, library: Path | None) -> None:
    """The answer: a table at a terminal; else a line for each hit, and facets at the end."""
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
        raise typer.BadParameter(
            f"expected X,Y,W,H in pixels, got {region!r}", param_hint="--region"
        ) from None
    return {"x": x, "y": y, "w": w, "h": h}
