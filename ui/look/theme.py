"""Colours, spacing and type of the page, in one place, for light and for dark rooms."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

LIGHT = {
    "paper": "#fbfaf8",
    "panel": "#ffffff",
    "sunk": "#f1eeea",
    "line": "#dcd7cf",
    "edge": "#857c70",
    "ink": "#1d2430",
    "quiet": "#555f6d",
    "accent": "#8a2a5b",
    "on-accent": "#ffffff",
    "accent-soft": "#f8ebf2",
    "warn-ink": "#5c3a00",
    "warn-paper": "#fdf3e1",
    "warn-line": "#e8c98f",
    "bad-ink": "#8c1d18",
    "bad-paper": "#fdeeec",
    "bad-line": "#eeb4ae",
    "good-ink": "#0b5a42",
    "good-paper": "#e8f5ef",
    "good-line": "#a5d3c1",
}
"""Names of colours as the style sheet uses them (`--hs-NAME`), by day. The accent is the magenta
of an eosinophil's granules, darkened until white text on it, and it on paper, exceed 7 to 1."""
DARK = {
    "paper": "#14171c",
    "panel": "#1b2027",
    "sunk": "#242b35",
    "line": "#38414d",
    "edge": "#7d8896",
    "ink": "#e9ebee",
    "quiet": "#adb6c2",
    "accent": "#f09cc4",
    "on-accent": "#2b0a1b",
    "accent-soft": "#3a2030",
    "warn-ink": "#ffd58a",
    "warn-paper": "#33270f",
    "warn-line": "#6a5220",
    "bad-ink": "#ffb4ab",
    "bad-paper": "#3b1a17",
    "bad-line": "#7a3a33",
    "good-ink": "#8fdcbd",
    "good-paper": "#12302a",
    "good-line": "#2c6350",
}
"""The same names by night."""
TEXT_PAIRS = (
    *(("ink", ground) for ground in ("paper", "panel", "sunk", "accent-soft")),
    *(("quiet", ground) for ground in ("paper", "panel", "sunk")),
    *(("accent", ground) for ground in ("paper", "panel", "sunk", "accent-soft")),
    ("on-accent", "accent"),
    *((f"{tone}-ink", f"{tone}-paper") for tone in ("warn", "bad", "good")),
    *((f"{tone}-ink", ground) for tone in ("warn", "bad", "good") for ground in ("paper", "panel")),
)
"""Every text colour on every ground that the style sheet puts it on: at least 4.5 to 1."""
SHAPE_PAIRS = tuple(
    (shape, ground) for shape in ("edge", "accent") for ground in ("paper", "panel", "sunk")
)
"""Shapes that carry meaning, on their grounds: at least 3 to 1."""


def contrast(one: str, other: str) -> float:
    """The contrast of two colours, 1 to 21: WCAG 2.2, "contrast ratio".

    Args:
        one: `#rrggbb`.
        other: `#rrggbb`; the order does not matter.
    """
    light, dark = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def _luminance(colour: str) -> float:
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def _streamlit(tokens: dict[str, str]) -> dict[str, str]:
    return {
        "primaryColor": tokens["accent"],
        "backgroundColor": tokens["paper"],
        "secondaryBackgroundColor": tokens["sunk"],
        "textColor": tokens["ink"],
        "borderColor": tokens["line"],
        "linkColor": tokens["accent"],
        "codeBackgroundColor": tokens["sunk"],
        "codeTextColor": tokens["ink"],
        "dataframeHeaderBackgroundColor": tokens["sunk"],
    }


OPTIONS = {
    **{f"theme.light.{name}": value for name, value in _streamlit(LIGHT).items()},
    **{f"theme.dark.{name}": value for name, value in _streamlit(DARK).items()},
    "theme.baseRadius": "8px",
    "theme.buttonRadius": "8px",
    "theme.baseFontSize": "15",
    "theme.font": "sans-serif",
    "theme.headingFont": "serif",
    "theme.codeFont": "monospace",
    "theme.showWidgetBorder": "true",
    "client.toolbarMode": "minimal",
    "client.showErrorDetails": "none",
    "browser.gatherUsageStats": "false",
    "logger.level": "warning",
    "server.headless": "true",
    "server.fileWatcherType": "none",
    "server.maxUploadSize": "20",
}
"""Command-line options of `streamlit run`. Sans, serif and monospace are the Source family that
comes with Streamlit, so no font is fetched from anywhere."""

LOGO = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32" fill="none" stroke="#b0447d" '
    'stroke-width="2.5"><circle cx="14" cy="14" r="10.5"/><path d="m22 22 7.5 7.5" '
    'stroke-width="4" stroke-linecap="round"/><g fill="#b0447d" stroke="none"><circle cx="11" '
    'cy="12" r="3.6"/><circle cx="17" cy="16" r="3.6"/></g></svg>'
)
"""A two-lobed nucleus under a lens, 32 x 32; its colour is 3 to 1 on both grounds."""
ICONS = {
    "empty": '<circle cx="24" cy="24" r="17"/><circle cx="19" cy="22" r="6"/>'
    '<path d="M30 30c2-1 4-3 4-6"/>',
    "bad": '<circle cx="24" cy="24" r="17"/><path d="M24 15v11M24 32v.5"/>',
    "down": '<path d="M9 32h30M13 32V20h22v12M24 20v-5M17 41l14-14M31 41 17 27"/>',
}
"""Line drawings of `ui.look.states`, 48 x 48; used as masks, so that they take any colour."""
GLYPHS = {
    "target": '<circle cx="24" cy="24" r="14"/><circle cx="24" cy="24" r="3"/>'
    '<path d="M24 3v9M24 36v9M3 24h9M36 24h9"/>',
    "lens": '<circle cx="20" cy="20" r="13"/><path d="m30 30 13 13"/>',
    "sheet": '<path d="M10 5h28v38H10zM17 15h14M17 24h14M17 33h9"/>',
}
"""Drawings on buttons, of the same kind: no letter of a font that a browser may lack."""
SHEETS = tuple(Path(__file__).with_name(name) for name in ("theme.css", "data.css"))
"""Everything that Streamlit's theme cannot say."""


def css() -> str:
    """The whole style sheet: the colours as variables, for light and dark, then the rules."""
    names = " ".join(f"--hs-{name}: light-dark({LIGHT[name]}, {DARK[name]});" for name in LIGHT)
    icons = "\n".join(
        f'.hs-icon-{name} {{ mask-image: url("{_drawing(shape, width)}"); }}'
        for shapes, width in ((ICONS, 2), (GLYPHS, 4))
        for name, shape in shapes.items()
    )
    rules = "\n".join(sheet.read_text() for sheet in SHEETS)
    return f":root {{ {names} }}\n{rules}\n{icons}\n"


def _drawing(shape: str, width: int) -> str:
    svg = (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 48 48" fill="none" stroke="#000" '
        f'stroke-width="{width}" stroke-linecap="round">{shape}</svg>'
    )
    return "data:image/svg+xml," + quote(svg)
