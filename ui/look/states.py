"""What a page shows when there is nothing to show: empty, loading, refused, down."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

from search.client.transport import ServiceDown, ServiceError

TO_DO = {
    401: "Set HEMASEEK_API_KEY to a key of this service where the page runs, and start it again. "
    "`hemaseek keys` makes keys.",
    403: "Ask whoever runs the service for a key with more rights, or choose another collection.",
    404: "It may have been deleted or re-indexed. Go back to the search and choose another.",
    409: "Choose a collection that was made with this encoder.",
    413: "Crop or shrink it first; one cell needs no more than a few hundred pixels.",
    415: "Export it as JPEG, PNG, TIFF, BMP or WebP and drop that in.",
    422: "Change the request and try again.",
    429: "Wait a few seconds, then reload the page.",
    503: "Wait a few seconds, then reload the page.",
}
"""What to do about a refusal, by its status."""
TITLES = {
    401: "The service requires a key",
    403: "This key is not allowed to do that",
    404: "This is not in the library any more",
    409: "Two encoders cannot be compared",
    413: "This picture is too large",
    415: "This is not a picture that can be read",
    422: "This request is not valid",
    429: "Too many requests",
    503: "The service is not ready",
}


def state(kind: str, title: str, text: str, command: str = "", role: str = "status") -> str:
    """A calm panel in the middle of the page.

    Args:
        kind: `empty`, `bad` or `down`.
        title: A few words.
        text: What to do.
        command: A command line that helps, shown as code.
        role: `status` for what is so, `alert` for what went wrong.
    """
    code = f"<pre><code>{escape(command)}</code></pre>" if command else ""
    return (
        f'<section class="hs-state hs-state-{escape(kind)}" role="{escape(role)}">'
        f'<i class="hs-icon hs-icon-{escape(kind)}" aria-hidden="true"></i>'
        f"<h2>{escape(title)}</h2><p>{escape(text)}</p>{code}</section>"
    )


def empty(title: str, text: str, command: str = "") -> str:
    """Nothing is there yet, and how that changes."""
    return state("empty", title, text, command)


def failed(error: ServiceError) -> str:
    """The service refused: its own sentence, and what to do."""
    title = TITLES.get(error.status, error.title or "The service refused")
    words = sentence(str(error))
    what = TO_DO.get(error.status, "Reload the page; if it stays, look into the service's log.")
    return state("bad", title, f"{words} {what}", role="alert")


def down(error: ServiceDown) -> str:
    """Nobody answers at the service's address."""
    return state(
        "down",
        "The service is down",
        f"No service answers at {error.url}. Start it in a terminal, then try again.",
        role="alert",
    )


def skeleton(n: int = 10) -> str:
    """Empty cards where pictures are about to appear."""
    cards = '<li class="hs-card hs-ghost"><figure></figure><div></div></li>' * n
    return (
        '<p class="hs-sr" role="status">Looking for similar cells</p>'
        f'<ol class="hs-grid" aria-hidden="true">{cards}</ol>'
    )


def notes(texts: tuple[str, ...] | list[str], tone: str = "warn") -> str:
    """Warnings, one line each; `tone` is `warn`, `bad` or `good`."""
    return "".join(f'<p class="hs-note hs-{tone}" role="note">{escape(text)}</p>' for text in texts)


def facts(texts: Iterable[str]) -> str:
    """What something rests on, as a line of short facts."""
    return f'<ul class="hs-facts">{"".join(f"<li>{escape(text)}</li>" for text in texts)}</ul>'


def sentence(text: str) -> str:
    """Words with a capital and a full stop."""
    text = text.strip()
    text = text[:1].upper() + text[1:]
    return text if text.endswith((".", "!", "?")) else f"{text}."
