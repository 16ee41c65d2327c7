"""*Atlas*: a collection as a map with gates, new patients on it, and batch effects."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import partial
from html import escape
from typing import Any

import numpy as np
import streamlit as st
from numpy.typing import NDArray

from search.client.transport import ServiceError
from search.schemas.filters import Filter
from search.schemas.maps import BatchEffects, GateRecord, GateWanted, MapAnswer, PlacedCell
from search.schemas.versions import JobRecord
from ui.exports.selection import MOST_EXPORTED, cells_csv, selection
from ui.look import states
from ui.look.card import Action, card
from ui.look.palette import CATEGORIES, UNKNOWN, colours
from ui.look.tables import badge, count, plain, table
from ui.screens.detail import Shown, open_item
from ui.session.jobs import follow, outcome
from ui.session.navigation import begin_with, goto, show_in_address
from ui.session.pictures import measurable
from ui.session.place import Place, collection_state, guarded, opened, show_note
from ui.session.results import selected, set_selected
from ui.widgets.board import board
from ui.widgets.gates import read, simplified, written
from ui.widgets.saving import save_button
from ui.widgets.scatter import Gate, Kind, scatter

COLUMNS = {
    "label": "Label",
    "site": "Site",
    "stain": "Stain",
    "scanner": "Scanner",
    "patient": "Patient",
    "case": "Case",
    "dataset": "Dataset",
    "kind": "Kind",
}
ORIGINS = ("site", "scanner", "stain", "dataset", "patient")
METHODS = {"pca": "PCA", "tsne": "t-SNE", "umap": "UMAP"}
MOST_GATES = 6
SEPARABLE = 0.9
"""Share of own-site neighbours that labels alone explain, beyond which nothing is left to tell."""
LISTED = 12
"""Values of a column that are counted beside the map."""
SHOWN = 24
"""Pictures of a gate that are shown at once."""
NAMED = len(CATEGORIES)
"""Values of a column that get a colour of their own: no colour stands for two; any other value
can be highlighted."""
GAVE_UP = "atlas-gave-up"
"""Where the session keeps of which collection a map could not be computed, or was cancelled."""
MOVED = (
    "The gates of this link were drawn on a map that has been computed again since; its cells lie "
    "elsewhere now, so the gates are left out."
)
JOB = "atlas-job"
EVERYONE = "All others"


def show() -> None:
    """Draw the page."""
    place = opened(
        "Atlas", "A collection as a map: draw around cells to see what lies there, and how many."
    )
    if place is None:
        return
    with guarded():
        left, right = st.columns([3, 2], gap="medium")
        with left:
            one, two = st.columns([1, 1], vertical_alignment="bottom")
            with one:
                begin_with("atlas-method", "method", METHODS)
                # written in every run: the browser may miss it in one that is drawn again at once
                st.session_state["atlas-method"] = st.session_state.get("atlas-method", "tsne")
                method = st.segmented_control(
                    "Map by",
                    list(METHODS),
                    format_func=METHODS.__getitem__,
                    key="atlas-method",
                    help="t-SNE and UMAP show clusters and are computed by themselves, once after "
                    "an import; PCA is ready at once, and packs most cells into one cloud.",
                )
            found = _read(place, method or "pca")
            names = [name for name in COLUMNS if found.columns[name].values]
            with two:
                begin_with("atlas-colour", "colour", names)
                by = st.selectbox(
                    "Colour by", names, format_func=COLUMNS.__getitem__, key="atlas-colour",
                    help="Labels are the recorded ones: a reviewer's label votes and stands on the "
                    "cell's card, and colours and counts nothing here.",
                )  # fmt: skip
                highlighted = st.selectbox(
                    "Highlight",
                    sorted(found.columns[by].values),
                    index=None,
                    placeholder=f"Highlight one {by} of {len(found.columns[by].values)}",
                    key=f"atlas-highlight-{by}",
                    label_visibility="collapsed",
                )
        with right:
            view = st.segmented_control(
                "Beside it", ["Gates", "Patient", "Batch effects"], default="Gates",
                key="atlas-view", label_visibility="collapsed",
            )  # fmt: skip
            patient = _patient(place, found) if view == "Patient" else None
        with left:
            gates = _gates(place, found)
            shown = written(gates)
            show_in_address(
                method=method,
                colour=by,
                gates=shown,
                map=found.made if shown else None,
                collection=place.in_address,
            )
            _map(found, by, gates, patient, highlighted)
        with right:
            if view == "Batch effects":
                _effects(place, found)
            else:
                _inside(place, found, by, gates, patient)


# ---------------------------------------------------------------- the map


@st.cache_data(max_entries=4, show_spinner="Reading the map")
def _fetch(_place: Place, collection: str, method: str, stamp: str) -> MapAnswer:
    return _place.client.map(collection, method)  # type: ignore[arg-type]


def _read(place: Place, method: str) -> MapAnswer:
    """The map; one that is lacking is computed, and PCA shown until it is there."""
    going = follow(place.client, JOB, "Computing the map", _ended)
    show_note("atlas-note")
    stamp = f"{collection_state()}-{st.session_state.get('atlas-made', 0)}"
    try:
        found = _fetch(place, place.name, method, stamp)
    except ServiceError as error:
        if error.status != 404 or method == "pca":
            raise
        why = f"There is no {METHODS[method]} map yet; PCA is shown until it is computed."
        _compute(place, going, why, method)
        return _fetch(place, place.name, "pca", stamp)
    if found.stale:
        _compute(place, going, "The collection has changed since this map was computed.", method)
    return found


def _compute(place: Place, going: bool, why: str, method: str) -> None:
    """Start a map, once for what is stored now; a button where that did not work."""
    st.html(states.notes([why], "good"))
    if going:
        return
    now = (place.name, place.facts.items, method)
    gave_up = st.session_state.get(GAVE_UP) == now
    if gave_up and not st.button("Compute", type="primary", key="atlas-compute"):
        return
    st.session_state[GAVE_UP] = now
    try:
        job = place.client.start_map(place.name, method)  # type: ignore[arg-type]
    except ServiceError as error:
        st.html(states.notes([f"It was not computed: {error}."]))
        return
    st.session_state[JOB] = job.id
    st.rerun()


def _ended(job: JobRecord) -> None:
    words, tone = outcome(job)
    if job.state == "done":
        st.session_state.pop(GAVE_UP, None)
    st.session_state["atlas-note"] = (words, tone)
    st.session_state["atlas-made"] = st.session_state.get("atlas-made", 0) + 1


def _map(
    found: MapAnswer,
    by: str,
    gates: Sequence[Gate],
    patient: dict[str, Any] | None,
    highlighted: str | None,
) -> None:
    if patient is not None:
        codes, kinds, legend = _sides(found, patient)
    elif highlighted is not None:
        codes, kinds, legend = _one_of(found, by, highlighted)
    else:
        codes, kinds, legend = _kinds(found, by)
    drawn = scatter(
        found.x,
        found.y,
        codes,
        kinds,
        f"atlas-{found.collection}-{found.method}",
        gates=gates,
        placed=patient["placed"] if patient else (),
        pictured=(f"hemaseek/thumbnails/{found.collection}", found.ids),
    )
    st.html(legend)
    words = [f"{len(found.ids):,} of {found.of:,} items"]
    if found.explained:
        words.append("the axes explain " + " and ".join(f"{one:.0%}" for one in found.explained))
    if found.perplexity:
        words.append(f"perplexity {found.perplexity:g}")
    if found.neighbours:
        words.append(f"{found.neighbours} neighbours")
    if found.method != "pca":
        words.append("distances between distant groups have no meaning")
    words.append(f"encoder {found.encoder}")
    st.html(states.facts(words))
    if drawn.lasso is not None and len(gates) < MOST_GATES:
        name = f"Gate {next(n for n in range(1, 99) if f'Gate {n}' not in {g.name for g in gates})}"
        gate = Gate(name, simplified(drawn.lasso))
        st.session_state["atlas-gates"] = (_of(found), [*gates, gate])
        st.session_state["atlas-open"] = name
        st.rerun()
    elif drawn.lasso is not None:
        st.html(states.notes([f"There are {MOST_GATES} gates already; remove one first."]))
    if drawn.point is not None:
        st.session_state["atlas-point"] = found.ids[drawn.point]
        st.rerun()


def _of(found: MapAnswer) -> tuple[str, str, str]:
    """What gates belong to: a map that is computed again lies otherwise."""
    return (found.collection, found.method, found.made)


def _gates(place: Place, found: MapAnswer) -> list[Gate]:
    """The gates of this map: those of the link, else those that are kept in the library."""
    if "atlas-gates" not in st.session_state and (named := st.query_params.get("gates")):
        if st.query_params.get("map", found.made) == found.made:
            st.session_state["atlas-gates"] = (_of(found), read(named)[:MOST_GATES])
        else:
            st.html(states.notes([MOVED]))
    of, gates = st.session_state.get("atlas-gates", (("", "", ""), []))
    if of == _of(found):
        return list(gates)
    of, gates = st.session_state.get("atlas-kept", (("", "", ""), []))
    if of != _of(found):
        gates = [
            Gate(one.gate.name, one.gate.corners)
            for one in place.client.gates(place.name).gates
            if one.gate.method == found.method and not one.stale
        ][:MOST_GATES]
        st.session_state["atlas-kept"] = (_of(found), gates)
    return list(gates)


def _keep(place: Place, found: MapAnswer, gates: Sequence[Gate], name: str, open_gate: str) -> None:
    """Keep a gate in the library, under the name that was given."""
    gate = next(one for one in gates if one.name == open_gate)
    wanted = GateWanted(method=found.method, corners=gate.corners)
    place.client.keep_gate(place.name, name, wanted)
    if name != open_gate and any(one.name == open_gate for one in _kept(place)):
        place.client.drop_gate(place.name, open_gate)
    renamed = [Gate(name, one.corners) if one is gate else one for one in gates]
    st.session_state["atlas-gates"] = (_of(found), renamed)
    st.session_state["atlas-open"] = name
    st.session_state["atlas-note"] = (f"{name} is kept in the library.", "good")


def _kept(place: Place) -> list[GateRecord]:
    return [one.gate for one in place.client.gates(place.name).gates]


def _one_of(found: MapAnswer, by: str, value: str) -> tuple[list[int], list[Kind], str]:
    """As `_kinds`, one value against all others."""
    at = found.columns[by].values.index(value)
    codes = [int(code == at) for code in found.columns[by].codes]
    kinds = [Kind("all others", UNKNOWN, faint=True), Kind(value, "accent", strong=True)]
    entries = _entry(kinds[1], sum(codes)) + _entry(kinds[0], len(codes) - sum(codes))
    return codes, kinds, f'<ul class="hs-legend">{entries}</ul>'


def _kinds(found: MapAnswer, by: str) -> tuple[list[int], list[Kind], str]:
    """Which kind each point is, the kinds, and the legend, by the values of a column."""
    values, codes = found.columns[by].values, found.columns[by].codes
    counts = Counter(codes)
    order = sorted(range(len(values)), key=lambda at: (-counts[at], values[at]))
    kept = order[:NAMED]
    names = [values[at] for at in kept]
    fill = colours(names)
    kinds = [Kind(name, str(fill[name])) for name in names]
    place = {at: to for to, at in enumerate(kept)}
    rest = sum(counts[at] for at in order[NAMED:])
    if rest:
        kinds.append(Kind(f"{len(order) - NAMED} more (highlight one)", UNKNOWN, faint=True))
        place |= dict.fromkeys(order[NAMED:], len(kinds) - 1)
    if counts[-1]:
        kinds.append(Kind(f"no {by}", UNKNOWN, faint=True))
        place[-1] = len(kinds) - 1
    seen = Counter(place[code] for code in codes)
    entries = "".join(_entry(kind, seen[at]) for at, kind in enumerate(kinds))
    return [place[code] for code in codes], kinds, f'<ul class="hs-legend">{entries}</ul>'


SIGNS = {
    "circle": "●", "square": "■", "diamond": "◆", "triangle-up": "▲", "cross": "✚", "star": "★",
}  # fmt: skip


def _entry(kind: Kind, count: int) -> str:
    colour = {"accent": "var(--hs-accent)", "edge": "var(--hs-edge)"}.get(kind.colour, kind.colour)
    return (
        f'<li><i class="hs-sign" style="color:{escape(colour)}" aria-hidden="true">'
        f"{SIGNS[kind.shape]}</i>{escape(kind.name)} <b>{count:,}</b></li>"
    )


# ---------------------------------------------------------------- a patient against a group


def _patient(place: Place, found: MapAnswer) -> dict[str, Any] | None:
    """The patient and the reference group: masks over the items of the map, and new cells."""
    kinds = [name for name in ("patient", "case") if found.columns[name].values]
    how = st.radio(
        "Cells of", [*(COLUMNS[name] for name in kinds), "New images"], horizontal=True,
        key="atlas-who",
    )  # fmt: skip
    group = _group(found)
    if how == "New images":
        return _new_patient(place, found, group)
    column = next(name for name in kinds if COLUMNS[name] == how)
    values = found.columns[column].values
    wanted = st.query_params.get(column, "")
    value = st.selectbox(
        how, values, index=values.index(wanted) if wanted in values else 0, key=f"atlas-{column}"
    )
    mine = np.array(found.columns[column].codes) == values.index(value)
    return {
        "name": value,
        "mine": mine,
        "group": group[1] & ~mine,
        "reference": group[0],
        "placed": [],
        "labels": None,
    }


def _new_patient(
    place: Place, found: MapAnswer, group: tuple[str, NDArray[np.bool_]]
) -> dict[str, Any] | None:
    name = st.text_input(
        "Patient (pseudonym)", key="atlas-new-patient",
        help="Stored cells of this patient are then left out when the new ones are placed.",
    )  # fmt: skip
    files = st.file_uploader(
        "Images of single cells", type=["jpg", "jpeg", "png", "tif", "tiff", "bmp", "webp"],
        accept_multiple_files=True, key="atlas-files",
    )  # fmt: skip
    if not files:
        st.html(states.notes(["Drop in the cells of one patient, one image each."], "good"))
        return None
    answer = place.client.place(
        place.name, found.method, images=[one.getvalue() for one in files],
        patient=name.strip() or None,
    )  # fmt: skip
    if not answer.patient_known:
        st.html(
            states.notes(
                ["The patient is unknown: stored cells of the same patient are not left out."]
            )
        )
    cells = answer.cells
    return {
        "name": name.strip() or "the new patient",
        "mine": np.zeros(len(found.ids), bool),
        "group": group[1],
        "reference": group[0],
        "placed": [(cell.x, cell.y) for cell in cells],
        "labels": _nearest_labels(found, cells),
    }


def _group(found: MapAnswer) -> tuple[str, NDArray[np.bool_]]:
    """The reference group: its name, and a mask over the items of the map."""
    names = [name for name in COLUMNS if len(found.columns[name].values) > 1]
    which = {
        f"{COLUMNS[name]}: {value}": (name, value)
        for name in names
        for value in found.columns[name].values
    }
    options = [EVERYONE, *which]
    chosen = st.selectbox("Against", options, key="atlas-reference")
    if chosen == EVERYONE:
        return chosen, np.ones(len(found.ids), bool)
    name, value = which[chosen]
    column = found.columns[name]
    return chosen, np.array(column.codes) == column.values.index(value)


def _nearest_labels(found: MapAnswer, cells: Sequence[PlacedCell]) -> list[str | None]:
    """The label of the nearest item of the map, for each new cell."""
    place = {id: at for at, id in enumerate(found.ids)}
    column = found.columns["label"]
    codes = [column.codes[place[cell.nearest[0]]] for cell in cells]
    return [column.values[code] if code >= 0 else None for code in codes]


def _sides(found: MapAnswer, patient: dict[str, Any]) -> tuple[list[int], list[Kind], str]:
    kinds = [
        Kind("not compared", UNKNOWN, faint=True),
        Kind(patient["reference"], "#0072b2"),
        Kind(patient["name"], "accent", strong=True),
    ]
    codes = np.where(patient["mine"], 2, np.where(patient["group"], 1, 0))
    seen = Counter(codes.tolist())
    parts = [_entry(kind, seen[at]) for at, kind in enumerate(kinds) if seen[at]]
    if patient["placed"]:
        new = Kind(f"{patient['name']}, placed", "accent", "star")
        parts.append(_entry(new, len(patient["placed"])))
    return codes.tolist(), kinds, f'<ul class="hs-legend">{"".join(parts)}</ul>'


# ---------------------------------------------------------------- gates


def _inside(
    place: Place,
    found: MapAnswer,
    by: str,
    gates: list[Gate],
    patient: dict[str, Any] | None,
) -> None:
    x, y = np.array(found.x), np.array(found.y)
    inside = {gate.name: gate.holds(x, y) for gate in gates}
    if patient is not None:
        st.html(_against(found, patient, gates, inside))
    elif gates:
        st.html(_counted(found, by, inside))
    else:
        st.html(
            '<section class="hs-panel"><h2 class="hs-section">No gate yet</h2>'
            '<p class="hs-reason">Draw around cells on the map with the mouse. What lies inside is '
            "counted here, and its pictures are shown. A click on a point shows that cell.</p>"
            "</section>"
        )
    _by_value(found, by, inside)
    if gates:
        with st.container(horizontal=True, vertical_alignment="bottom"):
            names = [gate.name for gate in gates]
            opened_now = st.session_state.get("atlas-open", names[-1])
            open_gate = st.selectbox(
                "Show the cells of", names,
                index=names.index(opened_now) if opened_now in names else len(names) - 1,
            )  # fmt: skip
            name = st.text_input("Name", open_gate, max_chars=60, key=f"atlas-name-{open_gate}")
            if st.button("Keep", key="atlas-keep", help="In the library, for everybody."):
                _keep(place, found, gates, name.strip() or open_gate, open_gate)
                st.rerun()
            if st.button("Remove this gate", key="atlas-remove"):
                if any(one.name == open_gate for one in _kept(place)):
                    place.client.drop_gate(place.name, open_gate)
                left = [gate for gate in gates if gate.name != open_gate]
                st.session_state["atlas-gates"] = (_of(found), left)
                st.rerun()
            ids = [found.ids[at] for at in np.flatnonzero(inside[open_gate])]
            content = partial(cells_csv, place, ids)
            words = "All that is known of each cell."
            if len(ids) > MOST_EXPORTED:
                part = f"Only the first {MOST_EXPORTED:,} of its {len(ids):,} cells"
                st.html(states.notes([f"{part} go into a table or a selection."]))
            save_button("CSV of its cells", content, "gate.csv", help=words)
            if st.button("Select its cells", key="atlas-select"):
                set_selected(place.name, [*selected(place.name), *ids][:MOST_EXPORTED])
            selection(place)
        _pictures(place, found, np.flatnonzero(inside[open_gate]), patient)
    elif st.session_state.get("atlas-point"):
        on_map, point = found.ids, st.session_state["atlas-point"]
        if point in on_map:
            _pictures(place, found, np.array([on_map.index(point)]), None)


def _by_value(found: MapAnswer, by: str, inside: dict[str, NDArray[np.bool_]]) -> None:
    """The counts of a column as a table that can be read without seeing the map."""
    if inside:
        return
    column = found.columns[by]
    counts = Counter(column.codes)
    named = [(at, n) for at, n in counts.most_common() if at >= 0]
    rows = [
        [escape(column.values[at]), plain(n), f"{n / len(found.ids):.1%}"]
        for at, n in named[:LISTED]
    ]
    words = f", the {LISTED} most frequent of {len(named)}" if len(named) > LISTED else ""
    st.html(table([COLUMNS[by], "Items", "Share"], rows, f"On the whole map{words}."))


def _counted(found: MapAnswer, by: str, inside: dict[str, NDArray[np.bool_]]) -> str:
    values, codes = found.columns[by].values, np.array(found.columns[by].codes)
    rows = []
    for name, mask in inside.items():
        counts = Counter(codes[mask].tolist())
        most = ", ".join(
            f"{values[at] if at >= 0 else 'none'} {n:,}" for at, n in counts.most_common(4)
        )
        rows.append([escape(name), plain(int(mask.sum())), f"{mask.mean():.1%}", escape(most)])
    return table(["Gate", "Items", "Of the map", f"By {COLUMNS[by].lower()}"], rows, text=[3])


def _against(
    found: MapAnswer,
    patient: dict[str, Any],
    gates: Sequence[Gate],
    inside: dict[str, NDArray[np.bool_]],
) -> str:
    """Shares of the patient's cells beside those of the group, by gate and by label."""
    new = np.array(patient["placed"]).reshape(-1, 2)
    mine, group = patient["mine"], patient["group"]
    total, others = int(mine.sum()) + len(new), int(group.sum())
    rows = []
    for gate in gates:
        there = int((mine & inside[gate.name]).sum()) + int(gate.holds(new[:, 0], new[:, 1]).sum())
        rows.append(_row(gate.name, there, total, int((group & inside[gate.name]).sum()), others))
    column = found.columns["label"]
    codes = np.array(column.codes)
    named = Counter(patient["labels"] or ())
    by_label = []
    for at, label in enumerate(column.values):
        here = int((mine & (codes == at)).sum()) + named[label]
        theirs = int((group & (codes == at)).sum())
        if here or theirs:
            by_label.append((here, _row(label, here, total, theirs, others)))
    by_label.sort(key=lambda pair: -pair[0])
    rows += [row for _, row in by_label[:12]]
    caption = (
        f"Of {count(total, 'cell')} of {patient['name']} and {others:,} of the reference group"
        + ("; new cells count under the label of their nearest neighbour." if len(new) else ".")
    )
    return table(["Gate or label", patient["name"][:20], "Reference", "Ratio"], rows, caption)


def _row(name: str, here: int, total: int, there: int, others: int) -> list[str]:
    mine, theirs = here / max(total, 1), there / max(others, 1)
    times = f"{mine / theirs:.1f}" if theirs else ("only here" if here else "–")
    tone = "warn" if here >= 3 and (not theirs or not 0.5 <= mine / theirs <= 2) else ""
    return [escape(name), f"{mine:.1%}", f"{theirs:.1%}", badge(times, tone) if tone else times]


def _pictures(
    place: Place, found: MapAnswer, inside: NDArray[np.int64], patient: dict[str, Any] | None
) -> None:
    if patient is not None and patient["mine"].any():
        inside = np.array(
            [*inside[patient["mine"][inside]], *inside[~patient["mine"][inside]]], int
        )
    chosen = np.random.default_rng(0).permutation(len(inside))[:SHOWN] if patient is None else None
    shown = inside[:SHOWN] if chosen is None else inside[np.sort(chosen)]
    ids = [found.ids[at] for at in shown]
    if not ids:
        st.html(states.notes(["No cell lies inside this gate."]))
        return
    page = place.client.items_page(place.name, Filter(ids=tuple(ids)), SHOWN).items
    items = {item.id: item for item in page}
    images = measurable(place.client, page, place.name)
    cards = "".join(
        card(
            items[id],
            images[id],
            act="open",
            mark="hs-chosen" if patient is not None and patient["mine"][at] else "",
            actions=(
                Action("search", "lens", "Find similar cells", key="f"),
                Action("case", "sheet", "Open this case", key="o"),
            ),
        )
        for id, at in zip(ids, shown, strict=True)
        if id in images and id in items
    )
    words = f"{len(ids)} of {len(inside):,} cells" if len(inside) > len(ids) else ""
    pressed = board(
        f'<div class="hs-small"><p class="hs-reason">{words}</p>'
        f'<ol class="hs-grid" aria-label="Cells of the gate">{cards}</ol></div>',
        "atlas-board",
    )
    if pressed is None:
        return
    if pressed.act == "open":
        open_item(place, [Shown(items[id]) for id in ids if id in items], pressed.id)
        return
    if pressed.act == "case":
        case = items[pressed.id].case
        if case is None:
            st.html(states.notes(["This cell has no case."]))
            return
        goto("case", {"by": "case", "case": case, "collection": place.name})
    goto("", {"item": pressed.id, "collection": place.name})


# ---------------------------------------------------------------- batch effects


@st.cache_data(max_entries=32, show_spinner="Measuring")
def _measured(_place: Place, collection: str, field: str, state: tuple[str, int]) -> BatchEffects:
    return _place.client.batch_effects(collection, field)


def _effects(place: Place, drawn: MapAnswer) -> None:
    known = [name for name in ORIGINS if len(drawn.columns[name].values) > 1]
    field = st.selectbox(
        "Origin",
        ORIGINS,
        index=ORIGINS.index(known[0]) if known else 0,
        format_func=str.capitalize,
        key="atlas-field",
    )
    found = _measured(place, place.name, field, collection_state())
    if found.notes:
        st.html(states.notes(found.notes))
    heads = ["", "Measured", "Expected"]
    rows = [
        [f"Neighbours of the same {field}", _share(found.share), _share(found.expected)],
        [
            "Neighbours of the same label",
            _share(found.label_share),
            _share(found.label_expected),
        ],
        [f"Silhouette by {field}", _number(found.silhouette_origin), "about 0"],
        ["Silhouette by label", _number(found.silhouette_label), "high"],
        ["Robustness index", _number(found.robustness), "1 by label, 0 by origin"],
    ]
    own = "own source" if field == "patient" else "own source, case and patient"
    caption = f"{found.k} neighbours of each of {found.asked:,} items, {own} left out."
    parts = [verdict(found, field), table(heads, rows, caption)]
    if len(found.origins) > 1:
        lines = [
            [
                escape(one.value),
                plain(one.items),
                _share(one.share),
                _share(one.expected),
            ]
            for one in found.origins[:12]
            if one.asked
        ]
        parts.append('<div style="height:16px"></div>')
        parts.append(table([field.capitalize(), "Items", "Same origin", "Expected"], lines))
    st.html("".join(parts))
    st.html(
        '<p class="hs-reason">Expected: the share if, among the items of each label, '
        f"{field} did not matter: a {field} with labels of its own is no effect.</p>"
    )


def verdict(found: BatchEffects, field: str) -> str:
    """What the measurement says in a sentence; nothing where it could not be made."""
    if found.share is None or not found.expected:  # nobody could have a neighbour of the own origin
        return ""
    excess = found.share - found.expected
    if excess <= 0.1 and (found.robustness is None or found.expected > SEPARABLE):
        text = (
            f"The effect of the {field} cannot be told: {field} and label cannot be separated "
            f"here, since nearly every label was recorded at one {field}. Import cells of the "
            f"same labels from several."
        )
        return states.notes([text])
    if excess > 0.1:
        text = (
            f"Cells of one {field} resemble each other more than their labels explain: "
            f"{found.share:.0%} of the neighbours against {found.expected:.0%}."
        )
        return states.notes([text])
    text = (
        f"Little effect of the {field}: {found.share:.0%} of the neighbours, "
        f"{found.expected:.0%} expected."
    )
    return states.notes([text], "good")


def _share(value: float | None) -> str:
    return plain(None) if value is None else f"{value:.1%}"


def _number(value: float | None) -> str:
    return plain(None) if value is None else f"{value:.2f}"
