"""Answers as HTML: every text escaped, every picture with alternative text."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from io import BytesIO

from PIL import Image

from search.records import Answer, Hit, VoteAnswer
from ui.card import card, data_url
from ui.states import notes

EXCLUSION = {
    "applied": "own patient left out",
    "partial": "some patients unknown",
    "impossible": "patient exclusion not possible",
    "off": "own patient included, as asked",
}
"""`Answer.patient_exclusion` in words."""


def shown(content: bytes, side: int = 640) -> bytes:
    """Any image as a JPEG that a browser shows, at most `side` pixels a side."""
    with Image.open(BytesIO(content)) as image:
        small = image.convert("RGB")
    small.thumbnail((side, side))
    out = BytesIO()
    small.save(out, "JPEG", quality=92)
    return out.getvalue()


def query_card(content: bytes, caption: str) -> str:
    """The query, pinned beside its neighbours."""
    return (
        f'<figure class="hs-query"><img src="{data_url(shown(content))}" alt="The query image">'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


def vote_panel(found: VoteAnswer, most: int = 6) -> str:
    """The vote: one label where it is clear, a plain "not sure" where it is not."""
    if found.sure:
        head = f'<p class="hs-verdict">{escape(str(found.vote.label))}</p>'
    else:
        head = '<p class="hs-verdict hs-unsure">Not sure</p>'
    bars = "".join(
        f'<div class="hs-bar"><span title="{escape(label)}">{escape(label)}</span>'
        f'<span class="hs-track"><i style="width:{share:.1%}"></i></span><b>{share:.0%}</b></div>'
        for label, share in list(found.vote.shares.items())[:most]
    )
    reason = found.reason.removeprefix("Not sure: ")
    return (
        f'<section class="hs-panel" aria-label="Vote of the neighbours">{head}'
        f'<p class="hs-reason">{escape(reason)}</p>{bars}</section>'
    )


def facts(answer: Answer) -> str:
    """What stands behind an answer, and what to beware of."""
    said = [
        f"{answer.items:,} items searched",
        f"{answer.sources} sources",
        f"{answer.patients} patients" if answer.patients else "patients unknown",
        f"{answer.sites} sites" if answer.sites else "sites unknown",
        EXCLUSION[answer.patient_exclusion],
        f"encoder {answer.encoder}",
    ]
    chips = "".join(f"<li>{escape(text)}</li>" for text in said)
    return f'{notes(answer.warnings)}<ul class="hs-facts">{chips}</ul>'


def gallery(hits: Sequence[Hit], pictures: Sequence[bytes]) -> str:
    """Neighbours as a grid of cards."""
    cards = "".join(
        card(hit.item, content, at=at, score=hit.score)
        for at, (hit, content) in enumerate(zip(hits, pictures, strict=True), 1)
    )
    return f'<ol class="hs-grid" aria-label="Neighbours, most similar first">{cards}</ol>'
