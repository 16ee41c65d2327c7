"""Gates on a map: parts that were cut out, kept with the version under a name, and counted."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from search.atlas.maps import FOLDER, CannotMap, Map
from search.disk.atomic import write_durably
from search.disk.lock import wait_for_lock
from search.errors import NoSuchItem, StoreError
from search.library.versions import now
from search.schemas.maps import GateCount, GateFacts, GateRecord, GateWanted, inside

if TYPE_CHECKING:
    from collections.abc import Iterator

FILE = "gates.json"
MOST_GATES = 200
"""Of one version."""


class NoSuchGate(NoSuchItem):
    """A gate that is not kept."""

    def __init__(self, name: str, known: Sequence[str]) -> None:
        have = ", ".join(known) or "none"
        LookupError.__init__(self, f"there is no gate {name!r}; kept are {have}")


def read_gates(version: Path) -> tuple[GateRecord, ...]:
    """The gates of a version, in order of name.

    Raises:
        StoreError: the file is damaged.
    """
    path = version / FOLDER / FILE
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        found = [GateRecord.model_validate(one) for one in kept]
    except FileNotFoundError:
        return ()
    except ValueError as error:
        raise StoreError(
            f"{path} is damaged ({str(error)[:200]}); delete it, and draw the gates again"
        ) from error
    return tuple(sorted(found, key=lambda one: one.name))


def keep_gate(version: Path, name: str, wanted: GateWanted, map: Map, by: str) -> GateRecord:
    """Keep a gate on a map that was computed; one of that name is replaced.

    Args:
        version: Folder of the version.
        name: What it is called.
        wanted: Its outline.
        map: The map that it was drawn on.
        by: Who keeps it.

    Raises:
        CannotMap: there are `MOST_GATES` others.
    """
    made = GateRecord(
        name=name, method=wanted.method, corners=wanted.corners, note=wanted.note,
        map_made=map.made, by=by, at=now(),
    )  # fmt: skip
    with _changing(version):
        others = [one for one in read_gates(version) if one.name != name]
        if len(others) >= MOST_GATES:
            raise CannotMap(f"{MOST_GATES} gates are kept already; remove one first")
        _write(version, [*others, made])
    return made


def drop_gate(version: Path, name: str) -> None:
    """Remove a gate.

    Raises:
        NoSuchGate: it is not kept.
    """
    with _changing(version):
        kept = read_gates(version)
        left = [one for one in kept if one.name != name]
        if len(left) == len(kept):
            raise NoSuchGate(name, [one.name for one in kept])
        _write(version, left)


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


@contextmanager
def _changing(version: Path) -> Iterator[None]:
    (version / FOLDER).mkdir(exist_ok=True)
    with wait_for_lock(version / FOLDER / "gates.lock"):
        yield


def _write(version: Path, gates: Sequence[GateRecord]) -> None:
    body = [one.model_dump(mode="json") for one in sorted(gates, key=lambda one: one.name)]
    write_durably(version / FOLDER / FILE, json.dumps(body, indent=1).encode())
