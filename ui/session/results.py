"""The results of searches, requested from the service and cached for minutes."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from io import BytesIO

import streamlit as st
from PIL import Image

from search.client.client import Client
from search.client.transport import ServiceError
from search.schemas.answers import Answer, Hit, VoteAnswer
from search.schemas.cells import FoundCells, JudgedField
from search.schemas.collections import SourceFacts
from search.schemas.filters import Filter
from search.schemas.items import Item, Keyword
from search.schemas.questions import Question, Refinement
from ui.address import MOST_COMPARED, Searching
from ui.look import states
from ui.session.pictures import measurable
from ui.session.place import Place, collection_state
from ui.session.uploads import Uploads

COUNTED: tuple[Keyword, ...] = (
    "label",
    "site",
    "stain",
    "scanner",
    "dataset",
    "kind",
    "patient",
    "case",
)
"""The fields whose values are counted for the filters."""
SAMPLES = 7
"""Labels of which a sample is offered."""
TYPICAL_OF = 16
"""A sample is nearest to the mean of this many items at each end of a direction."""
COMPARED, SELECTED = "hs-compared", "hs-selected"
"""Where the session keeps the ids that are marked for comparison, and the query they belong to."""


@dataclass(frozen=True)
class Results:
    """What a search found."""

    voted: VoteAnswer
    """The vote of the single nearest neighbours, whatever the gallery shows."""
    answer: Answer
    """What the gallery shows: grouped, or more and less like examples."""
    made: datetime
    """When the search was made, UTC."""


@st.cache_resource
def uploads() -> Uploads:
    """The pictures that were uploaded to this page."""
    return Uploads()


def search_results(client: Client, search: Searching, image: bytes | None) -> Results:
    """The results of a search, cached for five minutes."""
    return _search_results(client, search.model_dump_json(), image, collection_state())


@st.cache_data(max_entries=32, ttl=300, show_spinner=False)
def _search_results(
    _client: Client, query: str, image: bytes | None, state: tuple[str, int]
) -> Results:
    search = Searching.model_validate_json(query)
    if not search.grouped and not search.refined:
        voted = _client.vote(search.question(), image)
        return Results(voted, voted.answer, datetime.now(UTC))
    with ThreadPoolExecutor(2) as pool:
        both = (
            pool.submit(_client.vote, search.question(), image),
            pool.submit(_client.refine, search.shown(), image),
        )
        voted, shown = both[0].result(), both[1].result()
    if voted.answer.fingerprint != shown.fingerprint:  # another version began to serve in between
        voted = _client.vote(search.question(), image)
    return Results(voted, shown, datetime.now(UTC))


def stored_item(client: Client, id: str, collection: str) -> Item:
    """A stored item."""
    return _stored_item(client, id, collection, collection_state())


@st.cache_data(max_entries=64, ttl=600, show_spinner=False)
def _stored_item(_client: Client, id: str, collection: str, state: tuple[str, int]) -> Item:
    return _client.item(id.strip(), collection)


@st.cache_data(max_entries=100, ttl=300, show_spinner=False)
def source_facts(_client: Client, source: str, collection: str) -> SourceFacts:
    """What a stored source is, for a viewer."""
    return _client.source(source, collection)


def shown_source(place: Place, id: str) -> SourceFacts | None:
    """What a source is; says why where it cannot be shown."""
    try:
        return source_facts(place.client, id, place.name)
    except ServiceError as error:
        if error.status != 404:
            raise
        st.html(states.empty("This source cannot be shown", f"{error}."))
        return None


@st.cache_data(max_entries=64, ttl=600, show_spinner=False)
def full_picture(_client: Client, id: str, collection: str) -> bytes:
    """The picture of a stored item in full size."""
    return _client.image(id, collection, "full")


def pictures(client: Client, items: Sequence[Item], collection: str) -> dict[str, bytes]:
    """The pictures of items by id; a grey one for an item that was deleted in between."""
    found = measurable(client, items, collection)
    return {item.id: found.get(item.id) or grey() for item in items}


def grey(side: int = 16) -> bytes:
    """A picture of nothing."""
    out = BytesIO()
    Image.new("RGB", (side, side), (154, 154, 154)).save(out, "JPEG")
    return out.getvalue()


@st.cache_data(max_entries=16, show_spinner=False)
def cells_of(_client: Client, _content: bytes, upload: str, um_per_px: float | None) -> FoundCells:
    """The cells of an uploaded field."""
    return _client.find_cells(_content, um_per_px)


def judged_field(client: Client, search: Searching, content: bytes) -> JudgedField:
    """Every white cell of an uploaded field with its vote, cached for five minutes."""
    whole = search.model_copy(update={"crop": None, "um_per_px": search.um_given})
    return _judged_field(client, whole.question().model_dump_json(), content, collection_state())


@st.cache_data(max_entries=16, ttl=300, show_spinner=False)
def _judged_field(
    _client: Client, question: str, content: bytes, state: tuple[str, int]
) -> JudgedField:
    return _client.judge_field(Question.model_validate_json(question), content)


def counted(client: Client, name: str, where: str) -> dict[str, dict[str, int]]:
    """For each field its values with counts, among the items that meet the other filters."""
    return _counted(client, name, where, collection_state())


@st.cache_data(max_entries=64, ttl=60, show_spinner=False)
def _counted(
    _client: Client, name: str, where: str, state: tuple[str, int]
) -> dict[str, dict[str, int]]:
    conditions = Filter.model_validate_json(where)

    def one(field: Keyword) -> dict[str, int]:
        return _client.facet(field, conditions.model_copy(update={field: ()}), name, 200)

    with ThreadPoolExecutor(len(COUNTED)) as pool:
        return dict(zip(COUNTED, pool.map(one, COUNTED), strict=True))


@st.cache_data(max_entries=16, ttl=600, show_spinner=False)
def sampled(_client: Client, name: str, dim: int, fingerprint: str) -> list[Item]:
    """A typical item of each of the most frequent labels; any few where there are no labels."""

    def some(where: Filter, k: int, direction: float = 1.0) -> list[Item]:
        # The nearest to an arbitrary direction: any item will do, but the same one every time.
        vector = (direction,) * dim
        question = Question(
            collection=name, vector=vector, fingerprint=fingerprint, where=where, k=k
        )
        return [hit.item for hit in _client.search(question).hits]

    def typical(label: str) -> list[Item]:
        where = Filter(label=(label,))
        both = {one.id: None for way in (1.0, -1.0) for one in some(where, TYPICAL_OF, way)}
        between = Refinement(
            collection=name,
            like=tuple(both),
            where=where,
            exclude=(),
            show_examples=True,
            k=TYPICAL_OF,
        )
        nearest = [hit.item for hit in _client.refine(between).hits] if both else []
        whole = [one for one in nearest if one.bbox is None or min(one.bbox.x, one.bbox.y) >= 0]
        return (whole or nearest)[:1]

    labels = list(_client.facets(name, "label", limit=SAMPLES))
    with ThreadPoolExecutor(4) as pool:
        found = [item for items in pool.map(typical, labels) for item in items]
    return found or some(Filter(), SAMPLES)


def voting(found: Results) -> list[Hit]:
    """The neighbours that voted; none where there was no vote."""
    voted = found.voted
    return [hit for hit in voted.answer.hits if hit.label] if voted.vote.voters else []


def with_voters(found: Results) -> Answer:
    """What the gallery shows, with every neighbour that voted on the card of its patient."""
    answer = found.answer
    if not answer.groups:
        return answer
    groups = []
    for group in answer.groups:
        there = {hit.item.id for hit in group.hits}
        of = group.by or "patient"
        more = [
            hit
            for hit in voting(found)
            if hit.item.id not in there and getattr(hit.item, of) == group.value
        ]
        hits = tuple(sorted((*group.hits, *more), key=lambda hit: (-hit.score, hit.item.id)))
        groups.append(group.model_copy(update={"hits": hits}))
    hits = tuple(hit for group in groups for hit in group.hits)
    return answer.model_copy(update={"groups": tuple(groups), "hits": hits})


def best_of_each(answer: Answer, most: int) -> list[str]:
    """Ids of the best hits, one of each patient (case, or source, where the patient is unknown)."""
    found: dict[tuple[str, str], str] = {}
    for hit in answer.hits:
        item = hit.item
        of = ("patient", item.patient) if item.patient else ("case", item.case)
        found.setdefault((of[0], of[1]) if of[1] else ("source", item.source), item.id)
    return list(found.values())[:most]


def of_query(search: Searching) -> str:
    """What marks belong to: the query, whatever its filters and examples."""
    crop = None if search.crop is None else search.crop.model_dump_json()
    return f"{search.collection}|{search.item}|{search.upload}|{crop}"


def compared(search: Searching) -> list[str]:
    """Ids of the items marked for comparison with this query; marks of another are forgotten."""
    kept = st.session_state.get(COMPARED, {})
    return list(kept.get("items", [])) if kept.get("of") == of_query(search) else []


def set_compared(search: Searching, items: Sequence[str]) -> None:
    """Mark these items, and no others, for comparison with this query."""
    st.session_state[COMPARED] = {"of": of_query(search), "items": list(items)}


def mark(search: Searching, id: str) -> bool:
    """Mark an item for comparison, or unmark it; `False` where too many are marked already."""
    items = compared(search)
    if id in items:
        items.remove(id)
    elif len(items) >= MOST_COMPARED:
        return False
    else:
        items.append(id)
    set_compared(search, items)
    return True


def selected(collection: str) -> list[str]:
    """Ids of the cells of a collection that are selected in this session, oldest first."""
    return list(st.session_state.get(SELECTED, {}).get(collection, ()))


def set_selected(collection: str, items: Sequence[str]) -> None:
    """Select these cells of a collection, each once, and no others."""
    kept = st.session_state.get(SELECTED, {})
    st.session_state[SELECTED] = {**kept, collection: tuple(dict.fromkeys(items))}


def select(collection: str, id: str) -> None:
    """Select a cell, or remove it from the selection."""
    items = selected(collection)
    left = [one for one in items if one != id]
    set_selected(collection, left if id in items else [*items, id])
