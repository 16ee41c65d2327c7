"""Routes of gates: parts of a map that are kept under a name, and counted by group."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, get_args

import numpy as np
from fastapi import Path, Query

from search.api.access import Reads, Writes, api_router
from search.api.routes.atlas import map_of
from search.atlas.gates import counted, gates_of, keep_gate
from search.atlas.maps import NoMap, with_recorded
from search.query.context import Context
from search.schemas.maps import (
    GateFacts,
    GateGroup,
    GateRecord,
    Gates,
    GateWanted,
    ItemGroup,
)

router = api_router()
GateName = Annotated[str, Path(min_length=1, max_length=60, pattern=r"^[^/\x00-\x1f]+$")]
Group = Annotated[
    GateGroup, Query(description="A fact of the items, or what is recorded of their cases.")
]


@router.get("/collections/{name}/gates")
def list_gates(name: str, access: Reads, by: Group = "label") -> Gates:
    """The gates that are kept on the maps of a collection, each counted by group."""
    context = access.context(name)
    group = _groups(context, by)
    found = []
    for gate in gates_of(context.collection.folder).all():
        try:
            found.append(_counted(context, gate, group))
        except NoMap:  # its map went with a re-index or was damaged
            continue
    access.note(query="gates", k=len(found))
    return Gates(collection=context.collection.name, by=by, gates=tuple(found))


@router.put("/collections/{name}/gates/{gate}")
def put_gate(
    name: str, gate: GateName, wanted: GateWanted, access: Writes, by: Group = "label"
) -> GateFacts:
    """Keep a gate on a map under a name; one of that name is replaced."""
    context = access.context(name)
    drawn = map_of(context.collection, wanted.method)
    made = keep_gate(context.collection.folder, gate, wanted, drawn, access.caller.id)
    access.note(written=1)
    return _counted(context, made, _groups(context, by))


@router.delete("/collections/{name}/gates/{gate}")
def delete_gate(name: str, gate: GateName, access: Writes) -> Gates:
    """Remove a gate."""
    collection = access.context(name).collection
    gates_of(collection.folder).drop(gate)
    access.note(written=1)
    return Gates(collection=collection.name, by="label", gates=())


def _counted(context: Context, gate: GateRecord, group: Mapping[str, str] | str) -> GateFacts:
    drawn = with_recorded(map_of(context.collection, gate.method), context.patients())
    known = context.collection.known(drawn.ids)
    here = np.array([id in known for id in drawn.ids], bool)
    return counted(gate, drawn, here, group)


def _groups(context: Context, by: GateGroup) -> Mapping[str, str] | str:
    """A column of the map, or what is recorded of each case."""
    if by in get_args(ItemGroup):
        return by
    known = context.collection.cases.labels(by)
    return {case: str(value) for case, value in known.items()}
