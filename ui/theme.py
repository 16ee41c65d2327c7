"""Colours, spacing and type of the page, in one place."""

from __future__ import annotations

from pathlib import Path

LIGHT = {
    "primaryColor": "#8a2a5b",
    "backgroundColor": "#fbfaf8",
    "secondaryBackgroundColor": "#f1eeea",
    "textColor": "#1d2430",
    "borderColor": "#dcd7cf",
}
"""Streamlit's theme options; the accent is the magenta of an eosinophil's granules, darkened
until white text on it, and it on paper, keep a contrast above 7."""
OPTIONS = {
    "theme.base": "light",
    **{f"theme.{name}": value for name, value in LIGHT.items()},
    "theme.baseRadius": "8px",
    "theme.font": "Inter, 'Source Sans', system-ui, sans-serif",
    "client.toolbarMode": "minimal",
    "browser.gatherUsageStats": "false",
    "logger.level": "warning",
    "server.headless": "true",
    "server.fileWatcherType": "none",
    "server.maxUploadSize": "20",
}
"""Command-line options of `streamlit run`."""

CSS = Path(__file__).with_name("theme.css")
"""Everything that Streamlit's theme cannot say."""
