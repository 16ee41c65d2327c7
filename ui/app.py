"""The page. It speaks to the service only, and needs neither torch nor a store."""

from __future__ import annotations

import streamlit as st

from ui import atlas, case, compare, evaluate, find_similar, library
from ui.theme import LOGO, css

st.set_page_config(page_title="Hemaseek", page_icon="🔬", layout="wide")
st.html(f"<style>{css()}</style>")
st.logo(LOGO, size="large")
st.navigation(
    [
        st.Page(find_similar.show, title="Find similar", icon=":material/search:", default=True),
        st.Page(compare.show, title="Compare", icon=":material/view_column:", url_path="compare"),
        st.Page(case.show, title="Case", icon=":material/assignment_ind:", url_path="case"),
        st.Page(atlas.show, title="Atlas", icon=":material/scatter_plot:", url_path="atlas"),
        st.Page(evaluate.show, title="Evaluate", icon=":material/monitoring:", url_path="evaluate"),
        st.Page(library.show, title="Library", icon=":material/database:", url_path="library"),
    ],
    position="top",
).run()
st.html(
    '<p class="hs-foot">Research use only. Similar images are not a finding about a patient.</p>'
)
