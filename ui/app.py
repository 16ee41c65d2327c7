"""The page. It speaks to the service only, and needs neither torch nor a store."""

from __future__ import annotations

import streamlit as st

from search.schemas.items import DISCLAIMER
from ui.look.theme import LOGO, css
from ui.screens.menu import pages
from ui.session.navigation import register

st.set_page_config(page_title="Hemaseek", page_icon="🔬", layout="wide")
st.html(f"<style>{css()}</style>")
st.logo(LOGO, size="large")
table = pages()
register(table)
st.navigation(list(table.values()), position="top").run()
st.html(f'<p class="hs-foot">{DISCLAIMER}</p>')
