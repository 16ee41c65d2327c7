"""*Compare*: a query and up to four hits at one physical scale, and why each was found."""

from __future__ import annotations

from dataclasses import replace
from html import escape

import streamlit as st

from search.client.client import Client
from search.client.transport import ServiceError
from search.schemas.explanations import ExplainMap, ExplainQuestion, Explanation, MapName
from search.schemas.items import Item
from ui.address import MOST_COMPARED, BadAddress, Searching
from ui.look import states
from ui.look.card import data_url, pixels, scale_words
from ui.look.overlays import NAMES, WHOLE, Part, checked, heat, legend, patches
from ui.look.scalebar import side_um
from ui.screens.detail import SHOWN
from ui.session.current import SEARCH
from ui.session.navigation import goto
from ui.session.place import Place, collection_state, guarded, opened
from ui.session.results import (
    best_of_each,
    cells_of,
    compared,
    search_results,
    set_compared,
    stored_item,
    uploads,
)
from ui.session.uploads import Upload
from ui.widgets.lenses import Dot, Pane, lenses

WITH = "with"
"""Parameter of the address: the hits, by id."""
ADDRESS = "hs-compare-address"
PICTURE_PX = 640
DOTS = 6


def show() -> None:
    """Draw the page."""
    place = opened(
        "Compare",
        "The query and its neighbours at the same physical scale, and why they were found.",
    )
    if place is None:
        return
    with guarded():
        search, ids = _current(place)
        upload = None if search.upload is None else uploads().get(search.upload)
        if not search.asks or (search.upload is not None and upload is None):
            st.html(
                states.empty(
                    "Nothing is chosen to compare",
                    "Search first, then mark up to four neighbours with ⇄ or the key c.",
                )
            )
            with st.container(horizontal=True, horizontal_alignment="center"):
                if st.button("Find similar cells", type="primary", icon=":material/search:"):
                    goto("")
            return
        if not ids:
            found = search_results(place.client, search, None if upload is None else upload.content)
            ids = best_of_each(found.answer, MOST_COMPARED - 1)
        _write(search, ids)
        _compared(place, search, upload, ids)


def _current(place: Place) -> tuple[Searching, list[str]]:
    """The search and the hits: of the address where it names them, else of the session."""
    params = st.query_params.to_dict()
    search: Searching = st.session_state.get(SEARCH, Searching())
    ids: list[str] | None = None
    named_there = "item" in params or "upload" in params
    if named_there and params != st.session_state.get(ADDRESS):
        named = [id for id in params.pop(WITH, "").split(",") if id][:MOST_COMPARED]
        try:
            search = Searching.of_address(params)
            Searching.of_address({"like": ",".join(named)})  # are they ids?
            ids = named
        except BadAddress as error:
            st.html(states.notes([states.sentence(str(error))], "bad"))
    if search.collection != place.name:
        if search.collection is not None and search.item is not None:
            return Searching(collection=place.name), []
        search = search.model_copy(update={"collection": place.name})
    st.session_state[SEARCH] = search
    if ids is None:
        return search, compared(search)
    set_compared(search, ids)
    return search, ids


def _write(search: Searching, ids: list[str]) -> None:
    address = {**search.address(), WITH: ",".join(ids)}
    if st.query_params.to_dict() != address:
        st.query_params.from_dict(address)
    st.session_state[ADDRESS] = address


def _compared(place: Place, search: Searching, upload: Upload | None, ids: list[str]) -> None:
    items, gone = _items(place, ids)
    if gone:
        words = "One of the neighbours is" if gone == 1 else f"{gone} of the neighbours are"
        st.html(states.notes([f"{words} not in the library any more; the others are shown."]))
    if not items:
        st.html(states.empty("Nothing is left to compare", "Search again and mark neighbours."))
        return
    with st.container(horizontal=True, vertical_alignment="bottom", key="hs-compare"):
        kind = st.segmented_control(
            "Explanation",
            list(NAMES),
            default="none",
            format_func=lambda kind: NAMES[kind],
            key="hs-map",
        )
        numbers = [str(at) for at in range(1, len(items) + 1)]
        against = st.segmented_control(
            "Query map for neighbour", numbers, default="1", key=f"hs-against-{len(items)}"
        )
    kind = kind or "none"
    first = items[int(against or "1") - 1]
    explained: dict[str, Explanation] = {}
    if kind != "none":
        explained = _explained(place, search, upload, items, kind)
        if not any(kind in one.left_out for one in explained.values()):
            st.html(legend(kind))
    panes = [
        _query_pane(place, search, upload),
        *(_pane(place, at, item) for at, item in enumerate(items, 1)),
    ]
    panes = [
        _laid(pane, kind, None if at == 0 else items[at - 1].id, first.id, explained)
        for at, pane in enumerate(panes)
    ]
    lenses(panes, "lenses")
    if any(pane.span is None for pane in panes):
        st.html(
            states.notes(["A picture without a scale fills its pane: its size cannot be compared."])
        )
    st.html(
        '<p class="hs-keys"><span>Wheel or <kbd>+</kbd> <kbd>-</kbd> zoom all</span> '
        "<span>Drag or arrow keys move all</span> <span><kbd>0</kbd> whole picture</span></p>"
    )
    known = stored_item(place.client, search.item, place.name) if search.item else None
    st.html('<h2 class="hs-section">Differences</h2>' + differences(known, search, items))


def _items(place: Place, ids: list[str]) -> tuple[list[Item], int]:
    items, gone = [], 0
    for id in ids:
        try:
            items.append(stored_item(place.client, id, place.name))
        except ServiceError as error:
            if error.status != 404:
                raise
            gone += 1
    return items, gone


def _explained(
    place: Place, search: Searching, upload: Upload | None, items: list[Item], kind: str
) -> dict[str, Explanation]:
    """By hit: one question for what is of all hits together, else one for each."""
    content = None if upload is None else upload.content
    asked = (search.model_dump_json(), collection_state())
    ids = [item.id for item in items]
    groups = [ids] if kind in {"colours", "vote"} else [[id] for id in ids]
    found: dict[str, Explanation] = {}
    waiting = st.empty()
    for at, group in enumerate(groups, 1):
        waiting.html(
            f'<p class="hs-lead" role="status">Computing the maps: {at} of {len(groups)}…</p>'
        )
        one = _explain(place.client, asked, content, tuple(group), kind)
        found.update(dict.fromkeys(group, one))
        if kind in one.left_out:
            st.html(states.notes([one.left_out[kind]]))
            break
    waiting.empty()
    return found


@st.cache_data(max_entries=64, ttl=600, show_spinner=False)
def _explain(
    _client: Client,
    asked: tuple[str, tuple[str, int]],
    image: bytes | None,
    hits: tuple[str, ...],
    kind: str,
) -> Explanation:
    search = Searching.model_validate_json(asked[0])
    plain = search.question().model_dump()
    wanted: tuple[MapName, ...] = (kind,)  # type: ignore[assignment]
    question = ExplainQuestion.model_validate({**plain, "hits": hits, "maps": wanted})
    return _client.explain(question, image)


def _query_pane(place: Place, search: Searching, upload: Upload | None) -> Pane:
    if upload is None:
        item = stored_item(place.client, str(search.item), place.name)
        return _pane(place, 0, item)
    jpeg = upload.part(search.crop, PICTURE_PX)
    width, height = pixels(jpeg)
    size = (search.crop.w, search.crop.h) if search.crop is not None else upload.size
    um, estimated = search.um_per_px, search.um_estimated
    if um is None and search.crop is not None:
        um = cells_of(place.client, upload.content, upload.id, None).um_per_px
        estimated = True
    return Pane(
        title="Query",
        src=data_url(jpeg),
        alt="The query image",
        width=width,
        height=height,
        span=None if um is None or size is None else max(size) * um,
        estimated=estimated,
        query=True,
        lines=(upload.name,),
    )


def _pane(place: Place, at: int, item: Item) -> Pane:
    jpeg = place.client.image(item.id, place.name, "full")
    width, height = pixels(jpeg)
    label = item.label or "no label"
    return Pane(
        title=f"{at} · {label}" if at else f"Query · {label}",
        src=data_url(jpeg),
        alt=f"Neighbour {at}: {label}" if at else f"The query: a stored item, {label}",
        width=width,
        height=height,
        span=side_um(item, max(width, height)),
        estimated=item.um_per_px_origin == "estimate",
        query=at == 0,
        lines=tuple(
            line
            for line in (
                f"case {item.case}" if item.case else "case unknown",
                " · ".join(part for part in (item.site, item.stain) if part),
            )
            if line
        ),
    )


def _laid(
    pane: Pane, kind: str, id: str | None, first: str, explained: dict[str, Explanation]
) -> Pane:
    """A pane with its map: the query's is that of the pair with the hit `first`."""
    found = explained.get(id or first)
    if found is None or kind in found.left_out:
        return pane
    name = f"{NAMES[kind]} map over {pane.alt}"
    part = found.parts.get(id or "query", WHOLE)
    if kind == "colours":
        one = next((one for one in found.colours if one.of == id), None)
        return pane if one is None else replace(pane, overlay=patches(one, part), overlay_alt=name)
    if kind == "vote":
        if id is not None or found.vote is None:
            return pane
        shown = _mapped(pane, found.vote, name, part)
        return replace(shown, lines=(*shown.lines, f"for the label {found.label}"))
    pair = next(pair for pair in found.pairs if pair.item == (id or first))
    one_map = next((one for one in pair.maps if one.kind == kind and one.of == id), None)
    if one_map is None:
        return pane
    shown = _mapped(pane, one_map, name, part)
    if kind == "correspondence" and (id or first) == first and one_map.values is not None:
        rows, columns = len(one_map.values), len(one_map.values[0])
        places = [match.query if id is None else match.hit for match in pair.matches[:DOTS]]
        dots = tuple(
            Dot(
                part[0] + part[2] * (column + 0.5) / columns,
                part[1] + part[3] * (row + 0.5) / rows,
                str(at),
            )
            for at, (row, column) in enumerate(places, 1)
        )
        return replace(shown, dots=dots)
    return shown


def _mapped(pane: Pane, found: ExplainMap, name: str, part: Part) -> Pane:
    lines = (*pane.lines, checked(found))
    if found.values is None:
        return replace(pane, lines=lines, withheld=found.withheld or "Not shown.")
    return replace(pane, lines=lines, overlay=heat(found, part), overlay_alt=name)


def differences(known: Item | None, search: Searching, items: list[Item]) -> str:
    """What is known of each, line by line; what differs from the query is marked."""
    heads = "".join(
        f"<th>{at} · {escape(item.label or 'no label')}</th>" for at, item in enumerate(items, 1)
    )
    rows = []
    for name in (*SHOWN, "scale"):
        mine = _value(known, name) if known is not None else _described(search, name)
        cells = []
        for item in items:
            theirs = _value(item, name)
            if theirs is None:
                cells.append('<td class="hs-none">unknown</td>')
            elif mine is not None and theirs != mine:
                cells.append(f'<td class="hs-differs">≠ {escape(theirs)}</td>')
            else:
                cells.append(f"<td>{escape(theirs)}</td>")
        own = '<td class="hs-none">unknown</td>' if mine is None else f"<td>{escape(mine)}</td>"
        rows.append(f"<tr><th>{escape(name)}</th>{own}{''.join(cells)}</tr>")
    return (
        '<div class="hs-wide"><table class="hs-table hs-known"><thead><tr><th></th><th>Query</th>'
        f"{heads}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )


def _value(item: Item, name: str) -> str | None:
    if name == "scale":
        return None if item.um_per_px is None else scale_words(item)
    value = getattr(item, name)
    return None if value is None else str(value)


def _described(search: Searching, name: str) -> str | None:
    if name == "scale" and search.um_per_px is not None:
        return f"{'about ' if search.um_estimated else ''}{search.um_per_px:.3g} µm per px"
    return search.patient if name == "patient" else None
