"""Import from the page: sample cells, an upload, or a folder, with progress."""

from __future__ import annotations

from html import escape
from pathlib import Path

import streamlit as st

from search.client.transport import ServiceDown, ServiceError
from search.settings import Settings
from ui.look import states
from ui.session import imports
from ui.session.current import FIRST
from ui.session.navigation import goto
from ui.session.place import Place

RUN, NOTE = "hs-import", "hs-import-note"
SECONDS = 1.0
UPLOAD_MB = 400
"""Of one file; larger archives are unpacked and imported as a folder."""
WAYS = ("Sample cells", "Upload", "Folder")


def importing(place: Place) -> None:
    """Begin an import, or show the one that runs."""
    note = st.session_state.get(NOTE)  # kept: the press of the button below is another run
    if note:
        st.html(states.notes([note[0]], note[1]))
        if note[1] != "bad" and st.button("Find similar cells", icon=":material/search:"):
            del st.session_state[NOTE]
            st.session_state[FIRST] = True
            goto("")
    if RUN in st.session_state:
        _progress(place)
        return
    settings = Settings()
    with st.container(border=True, key="hs-importing"):
        st.html('<h2 class="hs-section">Import</h2>')
        if not imports.here(settings):
            where = f" ({settings.library.absolute()})" if _for_this_machine() else ""
            st.html(
                '<p class="hs-reason">The library of this service is not in the folder that this '
                f"page looks in{escape(where)}. On the machine that holds it, start the page with "
                "that folder, or import in a terminal:</p>"
            )
            st.code("hemaseek page --library FOLDER", language=None)
            st.code("hemaseek ingest PATH --dataset NAME --library FOLDER", language=None)
            return
        way = st.segmented_control(
            "What to import", WAYS, default=WAYS[0], key="import-way", label_visibility="collapsed"
        )
        {"Upload": _upload, "Folder": _folder}.get(way or "", _samples)(place, settings)


def _samples(place: Place, settings: Settings) -> None:
    st.html(
        '<p class="hs-reason">About 200 cells of six invented patients, drawn by a program: to '
        "look around before your own cells are in. They are their own dataset, "
        "<code>synthetic-smear</code>.</p>"
    )
    if st.button("Import sample cells", type="primary", icon=":material/download:"):
        with st.spinner("Drawing cells"):
            path = imports.samples(settings)
        _begin(path, settings, {"collection": place.name})


def _upload(place: Place, settings: Settings) -> None:
    with st.form("import-upload", border=False):
        files = st.file_uploader(
            "Pictures of single cells or of fields, or a ZIP whose folders are labels",
            type=[*(one.lstrip(".") for one in imports.PICTURES), "zip"],
            accept_multiple_files=True,
            max_upload_size=UPLOAD_MB,
            key="import-files",
        )
        label = st.text_input(
            "Label of these cells", placeholder="leave empty for none, or for fields"
        )
        options = _facts(place)
        sent = st.form_submit_button("Import", type="primary")
    if not sent:
        return
    if not files or not options["dataset"]:
        st.html(states.notes(["Give at least one file, and the name of the dataset."]))
        return
    given = [(one.name, one.getvalue()) for one in files]
    try:
        path = imports.kept(given, settings, options["dataset"], label.strip())
    except imports.CannotImport as error:
        _refused(error)
        return
    _begin(path, settings, options)


def _folder(place: Place, settings: Settings) -> None:
    if not _for_this_machine():
        st.html(
            '<p class="hs-reason">This page is open to other machines, so it reads no folder of '
            "this one. In a terminal here:</p>"
        )
        st.code("hemaseek ingest PATH --dataset NAME", language=None)
        return
    with st.form("import-folder", border=False):
        path = st.text_input(
            "Folder, table (CSV) or COCO file on this machine", placeholder="/data/clinic-2024"
        )
        options = _facts(place)
        sent = st.form_submit_button("Import", type="primary")
    if not sent:
        return
    if not path.strip():
        st.html(states.notes(["Give the path of a folder or of a table."]))
        return
    _begin(Path(path.strip()).expanduser(), settings, options)


def _for_this_machine() -> bool:
    """Whether the page listens to its own machine alone."""
    return st.get_option("server.address") in {"127.0.0.1", "localhost", "::1"}


def _facts(place: Place) -> dict[str, str]:
    """What is known of all that is imported, as options of the command."""
    one, two, three = st.columns(3)
    dataset = one.text_input("Dataset", placeholder="clinic-2024")
    site = two.text_input("Site", placeholder="not known")
    stain = three.text_input("Stain", placeholder="not known")
    facts = {"dataset": dataset, "site": site, "stain": stain}
    return {name: value.strip() for name, value in facts.items()} | {"collection": place.name}


def _begin(path: Path, settings: Settings, options: dict[str, str]) -> None:
    try:
        st.session_state[RUN] = imports.begin(path, settings, options)
        st.session_state.pop(NOTE, None)
    except imports.CannotImport as error:
        _refused(error)
        return
    st.rerun()


def _refused(error: imports.CannotImport) -> None:
    st.html(states.notes([states.sentence(str(error))], "bad"))


@st.fragment(run_every=SECONDS)
def _progress(place: Place) -> None:
    running: imports.Running = st.session_state[RUN]
    if running.ended:
        st.session_state.pop(RUN)
        st.session_state[NOTE] = running.result()
        st.cache_data.clear()  # counts, samples and maps are of before
        st.rerun(scope="app")
    words = "Opening the encoder"
    try:
        runs = place.client.ingests(place.name or Settings().collection).runs
        if runs and runs[0].state == "running" and runs[0].summary:
            words = runs[0].summary
    except (ServiceDown, ServiceError):
        pass  # the first import makes the collection
    with st.container(horizontal=True, vertical_alignment="center", key="hs-job-import"):
        st.html(
            f'<p class="hs-lead" role="status">Importing: {escape(words)}…</p>', width="stretch"
        )
        if st.button("Cancel", key="import-cancel"):
            running.cancel()
