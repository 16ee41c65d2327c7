"""Gates on a map: parts that were cut out, kept with the version under a name, and counted."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from search.atlas.maps import FOLDER, Map
from search.disk.named import Named
from search.library.versions import now
from search.schemas.maps import GateCount, GateFacts, GateRecord, GateWanted, inside

FILE = "gates.json"
MOST_GATES = 200
"""Of one version."""


def gates_of(version: Path) -> Named[GateRecord]:
    """The gates that are kept on the maps of a version."""
    return Named(version / FOLDER / FILE, GateRecord, "gate", MOST_GATES)


def keep_gate(version: Path, name: str, wanted: GateWanted, map: Map, by: str) -> GateRecord:
    """Keep a gate on a map that was computed; one of that name is replaced.

    Args:
        version: Folder of the version.
        name: What it is called.
        wanted: Its outline.
        map: The map that it was drawn on.
        by: Who keeps it.

    Raises:
        BadQuestion: there are `MOST_GATES` others.
    """
    made = GateRecord(
        name=name, method=wanted.method, corners=wanted.corners, note=wanted.note,
        map_made=map.made, by=by, at=now(),
    )  # fmt: skip
    gates_of(version).keep(made)
    return made


def counted(
    gate: GateRecord, map: Map, here: NDArray[np.bool_], group: Mapping[str, str] | str
) -> GateFacts:
    """How many cells, and patients, of each group lie inside a gate.

    Args:
        gate: The gate.
        map: The map of its method, as it is now.
        here: Which items of the map are still in the collection (n).
        group: A column of the map; or case to group, for what is known of cases alone.
    """
    held = inside(gate.corners, map.places[:, 0], map.places[:, 1]) & here
    if isinstance(group, str):
        values, codes = map.columns[group]
    else:
        cases, of_case = map.columns["case"]
        values = tuple(sorted({group[case] for case in cases if case in group}))
        place = {value: at for at, value in enumerate(values)}
        code = np.array([place.get(group.get(case, ""), -1) for case in cases] + [-1], np.int32)
        codes = code[of_case]
    patients = map.columns["patient"][1]
    counts = []
    for at in range(-1, len(values)):
        of_group = (codes == at) & here
        if not of_group.any():
            continue
        both = of_group & held
        known = patients[both]
        counts.append(
            GateCount(
                value=None if at < 0 else values[at],
                cells=int(both.sum()),
                of=int(of_group.sum()),
                share=float(both.sum() / of_group.sum()),
                patients=len(np.unique(known[known >= 0])),
                of_patients=len(np.unique(patients[of_group & (patients >= 0)])),
            )
        )
    return GateFacts(
        gate=gate,
        cells=int(held.sum()),
        stale=gate.map_made != map.made,
        counts=tuple(sorted(counts, key=lambda one: (-one.cells, one.value or ""))),
    )
