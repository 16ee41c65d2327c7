"""The page. It speaks to the service only, and needs neither torch nor a store."""

from __future__ import annotations

import streamlit as st

from ui.find_similar import show
from ui.theme import CSS

st.set_page_config(page_title="Hemaseek", page_icon="🔬", layout="wide")
st.html(CSS)  # a path to a .css file is read and put into the page
st.navigation([st.Page(show, title="Find similar", icon=":material/search:")]).run()
