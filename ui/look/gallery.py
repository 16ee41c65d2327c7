"""Answers as HTML: every text escaped, every picture with alternative text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from search.schemas.answers import Answer, Group, Hit, VoteAnswer
from ui.address import Searching
from ui.look.card import Action, card, data_url
from ui.look.scalebar import ScaleBar, bar_html
from ui.look.states import notes
from ui.look.tables import count

EXCLUSION = {
    "applied": "own patient left out",
    "partial": "own patient left out, some patients unknown",
    "impossible": "patient exclusion not possible",
    "off": "own patient included, as requested",
}
"""`Answer.patient_exclusion` in words."""
CALIBRATION = {
    "none": "Shares of neighbours, not probabilities: this collection is not calibrated.",
    "stale": "Shares of neighbours, not probabilities: the collection has changed since it was "
    "calibrated.",
    "other question": "Shares of neighbours, not probabilities: the calibration holds for 5, 10 "
    "or 20 neighbours without filters.",
}
"""Why a vote carries no probability (`VoteAnswer.calibration`)."""
KEYS = (
    ("1 to 9", "go to a neighbour"),
    ("← →", "the next one"),
    ("Enter", "open"),
    ("+", "more like it"),
    ("-", "less like it"),
    ("c", "mark for comparison"),
)
"""Keys of the gallery, and what they do."""


def query_card(
    jpeg: bytes, caption: str, bar: ScaleBar | None = None, alt: str = "The query image"
) -> str:
    """The query, pinned beside its neighbours."""
    return (
        f'<figure class="hs-query"><span class="hs-frame"><img src="{data_url(jpeg)}" '
        f'alt="{escape(alt)}">{bar_html(bar)}</span>'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


def vote_panel(found: VoteAnswer, most: int = 6) -> str:
    """The vote: one label where it is clear, a plain "not sure" where it is not."""
    if found.sure:
        head = f'<p class="hs-verdict">{escape(str(found.vote.label))}</p>'
    elif found.state == "out of distribution":
        head = '<p class="hs-verdict hs-unsure">Unlike anything here</p>'
    else:
        head = '<p class="hs-verdict hs-unsure">Not sure</p>'
    bars = "".join(
        f'<div class="hs-bar"><span title="{escape(label)}">{escape(label)}</span>'
        f'<span class="hs-track"><i style="width:{share:.1%}"></i></span><b>{share:.0%}</b></div>'
        for label, share in list(found.vote.shares.items())[:most]
    )
    reason = found.reason
    for start in ("Not sure: ", "Out of distribution: "):
        reason = reason.removeprefix(start)
    reason = reason[:1].upper() + reason[1:]
    rest = len(found.vote.shares) - most
    more = f'<p class="hs-reason">and {count(rest, "more label")}</p>' if rest > 0 else ""
    how = CALIBRATION.get(found.calibration)
    if found.probability is not None:
        how = (
            f"Calibrated: of votes like this one, {found.probability:.0%} named the label "
            "of the source."
        )
    foot = f'<p class="hs-reason hs-rule">{escape(how)}</p>' if how else ""
    return (
        '<section class="hs-panel" aria-label="Vote of the neighbours">'
        f'<p class="hs-kicker">Vote of {count(found.vote.voters, "neighbour")}</p>{head}'
        f'<p class="hs-reason">{escape(reason)}</p>{bars}{more}{foot}</section>'
    )


def warned(answer: Answer) -> str:
    """The warnings of an answer, without the one that fewer than `k` neighbours were found."""
    return notes([text for text in answer.warnings if not text.startswith("Only ")])


def facts(answer: Answer) -> str:
    """What an answer is based on, in one line."""
    words = [
        f"{count(answer.items, 'item')} searched",
        count(answer.sources, "source"),
        count(answer.patients, "patient") if answer.patients else "patients unknown",
        count(answer.sites, "site") if answer.sites else "sites unknown",
        EXCLUSION[answer.patient_exclusion],
        f"encoder {answer.encoder}",
    ]
    if answer.duplicates:
        words.append(f"{count(answer.duplicates, 'copy', 'copies')} of the query left out")
    words += [text.rstrip(".") for text in answer.warnings if text.startswith("Only ")]
    if answer.own_site is not None:
        words.append(
            f"{answer.own_site.share:.0%} from the query's own site, "
            f"{answer.own_site.expected:.0%} expected"
        )
    chips = "".join(f"<li>{escape(text)}</li>" for text in words)
    return f'<ul class="hs-facts">{chips}</ul>'


def gallery(
    answer: Answer, pictures: Mapping[str, bytes], search: Searching, compared: Sequence[str]
) -> str:
    """Neighbours as a grid of cards, one for each patient where they are grouped."""
    if answer.groups:
        cards = "".join(
            _group_card(at, group, pictures, search, compared)
            for at, group in enumerate(answer.groups, 1)
        )
    else:
        cards = "".join(
            _hit_card(at, hit, pictures, search, compared) for at, hit in enumerate(answer.hits, 1)
        )
    words = "Patients, most similar first" if answer.groups else "Neighbours, most similar first"
    return f'<ol class="hs-grid" aria-label="{words}">{cards}</ol>'


def keys() -> str:
    """The keys, in one line."""
    return (
        '<p class="hs-keys">'
        + " ".join(f"<span><kbd>{escape(key)}</kbd> {escape(what)}</span>" for key, what in KEYS)
        + "</p>"
    )


def _hit_card(
    at: int,
    hit: Hit,
    pictures: Mapping[str, bytes],
    search: Searching,
    compared: Sequence[str],
    note: str = "",
    strip: str = "",
) -> str:
    id = hit.item.id
    liked, unliked = id in search.like, id in search.unlike
    return card(
        hit.item,
        pictures[id],
        at=at,
        score=hit.score,
        act="open",
        note=note,
        strip=strip,
        mark="hs-liked" if liked else "hs-unliked" if unliked else "",
        actions=(
            Action("like", "+", "More like this", "+", liked),
            Action("unlike", "−", "Less like this", "-", unliked),
            Action("compare", "⇄", "Mark for comparison", "c", id in compared),
        ),
    )


def _group_card(
    at: int,
    group: Group,
    pictures: Mapping[str, bytes],
    search: Searching,
    compared: Sequence[str],
) -> str:
    first, *others = group.hits
    strip = "".join(
        f'<button class="hs-mini" data-act="open" data-id="{escape(hit.item.id)}" '
        f'aria-label="Open {escape(hit.item.label or "no label")}, similarity {hit.score:.3f}">'
        f'<img src="{data_url(pictures[hit.item.id])}" '
        f'alt="Of the same patient: {escape(hit.item.label or "no label")}, '
        f'similarity {hit.score:.3f}"></button>'
        for hit in others
    )
    note = f"patient {group.value} · {count(group.items, 'cell')}"
    return _hit_card(at, first, pictures, search, compared, note, strip)
