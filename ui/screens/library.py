"""*Library*: collections, their versions and encoders, imports and jobs."""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import escape

import streamlit as st

from encoder.registry import known
from search.client.transport import ServiceError
from search.schemas.collections import Brought
from search.schemas.versions import GateFacts, JobRecord, VersionRecord
from ui.exports.downloads import reviews_csv
from ui.look import states
from ui.look.card import data_url
from ui.look.tables import badge, count, moment, plain, table
from ui.screens.importing import importing
from ui.session.jobs import follow, outcome
from ui.session.navigation import begin_with, show_in_address
from ui.session.place import Place, guarded, needs_role, nothing, opened, show_note
from ui.widgets.saving import save_button

JOB = "library-job"
NOTE = "library-note"
FACETS = ("kind", "dataset", "label", "site", "stain", "scanner")
VIEWS = ("Overview", "Versions", "Imports", "Jobs")
PICTURES = 12
"""Rejected files of which a thumbnail is shown."""
CARD = {
    "architecture": "Architecture",
    "input_px": "Input, px",
    "resample": "Resampling",
    "pooling": "Vector from",
    "patch_px": "Patch, px",
    "stain": "Stain normalisation",
    "field_of_view_um": "Trained on a field of view of, µm",
    "fields_um": "Pictures cut to, µm",
    "licence": "Licence",
    "weights_sha256": "Weights, SHA-256",
    "source": "Source",
    "notes": "Notes",
}


def show() -> None:
    """Draw the page."""
    place = opened(
        "Library", "Collections, their versions and encoders, imports and jobs.", needs_items=False
    )
    if place is None:
        return
    with guarded():
        if not place.collections:
            importing(place)
            return
        show_note(NOTE)
        begin_with("library-view", "view", VIEWS)
        st.session_state.setdefault("library-view", VIEWS[0])
        view = st.segmented_control("View", VIEWS, key="library-view", label_visibility="collapsed")
        shown = None if view == VIEWS[0] else view
        show_in_address(view=shown, collection=place.in_address)
        views = {"Versions": _versions, "Imports": _imports, "Jobs": _jobs}
        views.get(view or "", _overview)(place)


# ---------------------------------------------------------------- overview


def _overview(place: Place) -> None:
    rows = [
        [
            escape(collection.name),
            plain(collection.items),
            escape(collection.encoder),
            f"<code>{escape(collection.fingerprint)}</code>",
            plain(collection.dim),
            badge("default", "good") if collection.default else "",
        ]
        for collection in place.collections
    ]
    heads = ["Collection", "Items", "Encoder", "Fingerprint", "Dimensions", ""]
    st.html(table(heads, rows, text=[2, 3, 5]))
    left, right = st.columns([1, 1], gap="medium")
    with left:
        st.html(f'<h2 class="hs-section">Contents of {escape(place.name)}</h2>')
        st.html(_counts(place))
        _reviews(place)
    with right:
        st.html('<h2 class="hs-section">Encoder</h2>')
        st.html(_card(place))


def _counts(place: Place) -> str:
    rows = []
    for field in FACETS:
        counts = place.client.facets(place.name, field, 1000)
        most = ", ".join(f"{value} {n:,}" for value, n in list(counts.items())[:6])
        rest = f", {len(counts) - 6} more" if len(counts) > 6 else ""
        rows.append(
            [
                field.capitalize(),
                plain(len(counts)),
                plain(sum(counts.values())),
                escape(most + rest) if counts else plain(None),
            ]
        )
    return table(["Field", "Values", "Items", "Most frequent"], rows, text=[3])


def _card(place: Place) -> str:
    facts = place.client.card(place.name)
    rows = [
        [name, escape(_fact(facts[key]))]
        for key, name in CARD.items()
        if facts.get(key) not in (None, "")
    ]
    head = f"{facts['id']}, {facts['dim']} dimensions"
    return table(["", head], rows, text=[1])


def _fact(value: object) -> str:
    """A fact of a card in words; one of several parts with their names."""
    if isinstance(value, dict):
        return ", ".join(f"{name} {part:g}" for name, part in value.items())
    return str(value)


def _reviews(place: Place) -> None:
    reviewed = list(place.client.reviews(place.name))
    if not reviewed:
        return
    disputed = sum(one.disputed for one in reviewed)
    words = f"{count(len(reviewed), 'cell')} reviewed; reviewers disagree on {disputed:,}."
    words += " Their labels vote before the recorded ones, which stay as they are."
    st.html(f'<p class="hs-reason">{words}</p>')
    pairs = place.client.agreement(place.name).pairs
    if pairs:
        rows = [
            [
                escape(f"{pair.one} and {pair.other}"),
                plain(pair.items),
                f"{pair.agreed / pair.items:.0%}",
                plain(None) if pair.kappa is None else f"{pair.kappa:.2f}",
            ]
            for pair in pairs
        ]
        heads = ["Reviewers", "Cells of both", "Same label", "Cohen's kappa"]
        st.html(table(heads, rows, "Kappa: 1 for full agreement, 0 for that of chance."))
    save_button("Download the reviews as CSV", reviews_csv(reviewed), f"{place.name}-reviews.csv")


# ---------------------------------------------------------------- versions


def _versions(place: Place) -> None:
    versions = place.client.versions(place.name)
    rows = [
        [
            f"Version {escape(one.id)}",
            escape(one.encoder),
            plain(one.items),
            _size(one.bytes),
            _state(one),
            _passed(one.gates),
            moment(one.made),
        ]
        for one in reversed(versions)
    ]
    heads = ["Version", "Encoder", "Items", "On disk", "State", "Checks", "Started (UTC)"]
    st.html(table(heads, rows, text=[1, 4, 5]))
    under_way = follow(place.client, JOB, "Building the version", _reindexed)
    left, right = st.columns([3, 2], gap="medium")
    with left:
        _gates(versions)
    with right:
        if not under_way:
            _adapt(place)
            _reindex(place)
        _rollback(place, versions)


def _state(one: VersionRecord) -> str:
    if one.served:
        return badge("active", "good")
    if one.state == "refused":
        return badge("failed a check", "bad")
    if one.state == "building":
        return badge("incomplete", "warn")
    return badge("active before" if one.previous else "ready")


def _passed(gates: Sequence[GateFacts]) -> str:
    if not gates:
        return plain(None)
    bad = [gate.name for gate in gates if gate.passed is False]
    unmeasured = sum(gate.passed is None and not gate.figures for gate in gates)
    if bad:
        return badge(f"failed: {', '.join(bad)}", "bad")
    text = f"{sum(gate.passed is True for gate in gates)} passed" + (
        f", {unmeasured} not measured" if unmeasured else ""
    )
    return badge(text, "good")


def _outcome(gate: GateFacts) -> str:
    """Whether a check passed; figures without a limit are only told."""
    if gate.passed is None:
        return badge("for information") if gate.figures else badge("not measured", "warn")
    return badge("passed", "good") if gate.passed else badge("failed", "bad")


def _gates(versions: Sequence[VersionRecord]) -> None:
    built = [one for one in versions if one.gates]
    if not built:
        st.html(
            '<section class="hs-panel"><h2 class="hs-section">No checks yet</h2>'
            '<p class="hs-reason">Checks are made when a re-index builds a version: '
            "collapse, golden vectors, recall, accuracy and bias against the version before.</p>"
            "</section>"
        )
        return
    ids = [one.id for one in reversed(built)]
    id = st.selectbox("Checks of version", ids) if len(ids) > 1 else ids[0]
    one = next(one for one in built if one.id == id)
    rows = [
        [
            escape(gate.name.capitalize()),
            _outcome(gate),
            _figures(gate.figures),
            _figures(gate.limits),
        ]
        for gate in one.gates
    ]
    heads = ["Check", "", "Measured", "Limit"]
    st.html(table(heads, rows, f"Version {id}, encoder {one.encoder}.", text=[1, 2, 3]))
    notes = [f"{gate.name}: {gate.note}" for gate in one.gates if gate.note]
    if notes:
        st.html(states.notes(notes))


def _figures(figures: dict[str, float]) -> str:
    words = ", ".join(f"{name.replace('_', ' ')} {value:.4g}" for name, value in figures.items())
    return escape(words) or plain(None)


def _reindex(place: Place) -> None:
    with st.form("library-reindex"):
        st.html(
            '<h2 class="hs-section">Re-index</h2><p class="hs-reason">A new version is '
            "built with another encoder. It becomes active once it has passed its checks; until "
            "then nothing changes.</p>"
        )
        encoder = st.selectbox(
            "Encoder",
            sorted(known()),
            index=None,
            accept_new_options=True,
            placeholder="A name, or a folder on the machine of the service",
        )
        missing = st.checkbox("Leave out items whose file is gone")
        force = st.checkbox("Activate it even if a check fails", help="This is recorded.")
        sent = st.form_submit_button("Build the version", type="primary")
    if not sent:
        return
    if not encoder:
        st.html(states.notes(["Choose the encoder of the new version."]))
        return
    with needs_role("admin", "The re-index was not started"):
        job = place.client.reindex(place.name, encoder, allow_missing=missing, force=force)
        st.session_state[JOB] = job.id
        st.rerun()


ADAPTATIONS = {
    "metric": "Labels choose what counts",
    "align": "Sites are aligned, without labels",
    "align+metric": "Sites are aligned, then labels choose",
}
FUSIONS = {
    "fuse": "The encoders are fused by what they agree on, without labels",
    "fuse+metric": "The encoders are fused, then labels choose",
}
"""For a collection of several encoders."""


def _adapt(place: Place) -> None:
    with st.form("library-adapt"):
        st.html(
            '<h2 class="hs-section">Adapt</h2><p class="hs-reason">The stored vectors are '
            "transformed so that neighbours share labels rather than sites. Nothing is embedded "
            "again. The new version becomes active only if it scores better on sites (or patients) "
            "that it was not fitted on.</p>"
        )
        kinds = ADAPTATIONS | (FUSIONS if "+" in place.facts.encoder else {})
        kind = st.selectbox("Kind", list(kinds), format_func=kinds.__getitem__)
        field = st.selectbox("Sites are distinguished by", ["site", "scanner", "stain", "dataset"])
        sent = st.form_submit_button("Adapt the collection")
    if not sent:
        return
    with needs_role("admin", "It was not started"):
        st.session_state[JOB] = place.client.adapt(place.name, kind, field).id
        st.rerun()


def _reindexed(job: JobRecord) -> None:
    words, tone = outcome(job)
    if job.state == "done":
        done = job.result or {}
        refused = ", ".join(done["refused_by"])
        if done["switched"]:
            words = f"Version {done['version']} is active now: {count(done['items'], 'item')}."
            if refused:
                words, tone = f"{words} These checks failed and were overridden: {refused}.", "warn"
        else:
            words = f"Version {done['version']} was built and is not active: {refused} failed."
            tone = "warn"
    st.session_state[NOTE] = (words, tone)


def _rollback(place: Place, versions: Sequence[VersionRecord]) -> None:
    others = [one for one in versions if not one.served and one.state != "building"]
    if not others:
        return
    before = next((at for at, one in enumerate(others) if one.previous), len(others) - 1)
    with st.form("library-rollback"):
        st.html(
            '<h2 class="hs-section">Roll back</h2><p class="hs-reason">Another version '
            "becomes active at once. Deletions and newer metadata are carried over.</p>"
        )
        which = st.selectbox(
            "Version",
            [one.id for one in others],
            index=before,
            format_func=lambda id: _called(next(one for one in others if one.id == id)),
        )
        sure = st.checkbox("Confirm")
        sent = st.form_submit_button("Activate this version")
    if not sent:
        return
    if not sure:
        st.html(states.notes(["Confirm first: the answers of all users change."]))
        return
    forced = next(one for one in others if one.id == which).state == "refused"
    with needs_role("admin", "Nothing was changed"):
        done = place.client.rollback(place.name, which, force=forced)
        words = f"Version {done.served} is active now in place of version {done.left}."
        if done.lacking:
            words += f" It lacks {count(done.lacking, 'item')} added later: ingest them again."
        st.session_state[NOTE] = (words, "warn" if done.lacking else "good")
        st.rerun()


def _called(one: VersionRecord) -> str:
    refused = ", failed a check" if one.state == "refused" else ""
    return f"{one.id} · {one.encoder} · {count(one.items, 'item')}{refused}"


# ---------------------------------------------------------------- imports and jobs


def _imports(place: Place) -> None:
    try:
        found = place.client.ingests(place.name)
    except ServiceError as error:
        if error.status != 404:
            raise
        nothing(
            "This service does not list imports",
            "It was started without the ingest part. The terminal lists the imports:",
            "hemaseek jobs",
        )
        return
    facts = [
        f"<b>{found.done:,}</b> imported completely",
        f"<b>{found.pending:,}</b> left for the next run",
        f"<b>{found.quarantined:,}</b> rejected",
    ]
    st.html(f'<ul class="hs-facts">{"".join(f"<li>{one}</li>" for one in facts)}</ul>')
    left, right = st.columns([1, 1], gap="medium")
    with left:
        st.html('<h2 class="hs-section">Runs</h2>')
        tones = {"done": "good", "failed": "bad", "running": "warn"}
        rows = [
            [
                f"Run {one.id}",
                badge(one.state, tones[one.state]),
                moment(one.started),
                escape(one.summary) or plain(None),
            ]
            for one in found.runs
        ]
        empty = states.empty("No import yet", "Begin one at the right.")
        st.html(
            table(["", "State", "Started (UTC)", "Result"], rows, text=[1, 3]) if rows else empty
        )
    with right:
        importing(place)
        _rejected(place, found)


def _rejected(place: Place, found: Brought) -> None:
    st.html('<h2 class="hs-section">Rejected</h2>')
    if not found.set_aside:
        words, tone = all_read(found)
        st.html(states.notes([words], tone))
        return
    rows = [
        [
            _thumbnail(place, one.key) if at < PICTURES else "",
            f"{escape(one.reason)}<br><span class='hs-faint'>{escape(one.dataset)}, "
            f"{escape(one.ending or 'no ending')}, {_size(one.bytes)}, read "
            f"{_times(one.attempts)}, {escape(one.key)}</span>",
        ]
        for at, one in enumerate(found.set_aside[:50])
    ]
    st.html(table(["", "Why"], rows, text=[1]))
    st.html(
        '<p class="hs-reason">Names of files are not shown here: they often name patients. '
        "<code>hemaseek quarantine</code> prints them.</p>"
    )
    if st.button("Read all again with the next import"):
        with needs_role("write", "Nothing was changed"):
            words = f"{count(place.client.release(place.name), 'file')} will be read again by the"
            st.session_state[NOTE] = (f"{words} next import.", "good")
            st.rerun()


def all_read(found: Brought) -> tuple[str, str]:
    """What is said where no file was rejected, and its tone: items may have failed all the same."""
    failed = re.search(r"([1-9][\d,]*) failed", found.runs[0].summary if found.runs else "")
    if not failed:
        return "Every file could be read.", "good"
    words = f"Every file could be read, but {failed[1]} of the last run's items could not be taken"
    more = "such as boxes of size zero. `hemaseek ingest --report FILE` keeps the reasons."
    return f"{words}, {more}", "warn"


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count:,} times"


@st.cache_data(max_entries=200, ttl=600, show_spinner=False)
def _picture(_place: Place, collection: str, key: str) -> bytes | None:
    try:
        return _place.client.set_aside(collection, key)
    except ServiceError as error:
        if error.status != 404:
            raise
        return None


def _thumbnail(place: Place, key: str) -> str:
    content = _picture(place, place.name, key)
    if content is None:
        return '<span class="hs-faint">no picture</span>'
    return f'<img class="hs-thumb" src="{data_url(content)}" alt="A rejected file">'


def _jobs(place: Place) -> None:
    jobs = list(reversed(place.client.jobs()))
    if not jobs:
        st.html(states.empty("No job yet", "Re-indexes, maps and evaluations are listed here."))
        return
    tones = {
        "done": "good",
        "failed": "bad",
        "interrupted": "bad",
        "running": "warn",
        "queued": "warn",
    }
    rows = [
        [
            escape(one.kind),
            escape(one.collection),
            badge(one.state, tones.get(one.state, "")),
            f"{one.done:,} of {one.total:,}" if one.total else plain(None),
            moment(one.made),
            escape(one.error or "") or plain(None),
        ]
        for one in jobs[:50]
    ]
    heads = ["Job", "Collection", "State", "Done", "Started (UTC)", "Error"]
    st.html(table(heads, rows, text=[1, 2, 5]))
    going = [one for one in jobs if one.state in ("queued", "running")]
    with st.container(horizontal=True):
        if going and st.button(f"Cancel the {going[-1].kind}"):
            place.client.stop_job(going[-1].id)
            st.rerun()
        st.button("Refresh")


def _size(n: int) -> str:
    for unit, step in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if n >= step:
            return f"{n / step:.1f} {unit}"
    return f"{n} bytes"
