"""Answers as HTML: every text escaped, every picture with alternative text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

from search.schemas.answers import Alignment, Answer, Group, Hit, VoteAnswer
from ui.address import Searching
from ui.look.card import SIMILARITY, Action, card, data_url
from ui.look.scalebar import ScaleBar, bar_html
from ui.look.states import facts as fact_line
from ui.look.states import notes
from ui.look.tables import count

EXCLUSION = {
    "applied": "own patient left out",
    "partial": "own patient left out, some patients unknown",
    "impossible": "patient exclusion not possible",
    "off": "own patient included, as requested",
}
"""`Answer.patient_exclusion` in words."""
MOST_SHARES = 4
"""Labels of a vote whose shares are shown."""
CALIBRATION = {
    "none": "this collection is not calibrated",
    "stale": "the collection, its reviews or its records have changed since it was calibrated",
}
"""Why a vote carries no probability (`VoteAnswer.calibration`)."""
KEYS = (
    ("1 to 9", "go to a neighbour"),
    ("← →", "the next one"),
    ("Enter", "open"),
    ("+", "more like it"),
    ("-", "less like it"),
    ("c", "mark for comparison"),
    ("l", "reclassify"),
    ("s", "select"),
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


def vote_panel(found: VoteAnswer) -> str:
    """The vote: one label where it is clear, a plain "not sure" where it is not.

    Shares are folded away where the picture is no basis for a verdict, or a stranger.
    """
    head, voted = _verdict(found), bool(found.vote.voters)
    bars = "".join(
        f'<div class="hs-bar"><span title="{escape(label)}">{escape(label)}</span>'
        f'<span class="hs-track"><i style="width:{share:.1%}"></i></span><b>{share:.0%}</b></div>'
        for label, share in list(found.vote.shares.items())[:MOST_SHARES]
    )
    reason = without_verdict(found.reason)
    rest = len(found.vote.shares) - MOST_SHARES
    more = f'<p class="hs-reason">and {count(rest, "more label")}</p>' if rest > 0 else ""
    if voted and withheld(found):
        bars = f"<details><summary>What the neighbours say</summary>{bars}{more}</details>"
        more = ""
    foot = "".join(f'<p class="hs-reason hs-rule">{escape(text)}</p>' for text in _how(found))
    kicker = f"Vote of {count(found.vote.voters, 'neighbour')}" if voted else "Vote"
    return (
        '<section class="hs-panel" aria-label="Vote of the neighbours">'
        f'<p class="hs-kicker">{kicker}</p>{head}'
        f'<p class="hs-reason">{escape(reason)}</p>{bars}{more}{foot}</section>'
    )


def _verdict(found: VoteAnswer) -> str:
    mark = "hs-verdict" if found.sure else "hs-verdict hs-unsure"
    return f'<p class="{mark}">{escape(verdict(found))}</p>'


def verdict(found: VoteAnswer) -> str:
    """The label of a vote where it is clear, else what stands in its place."""
    if found.sure:
        return str(found.vote.label)
    if found.answer.unfit:
        return "No verdict on this picture"
    if found.state == "out of distribution":
        return "Unlike anything here"
    return "Not sure" if found.vote.voters else "No vote"


def without_verdict(reason: str) -> str:
    """The reason of a vote without the verdict that it begins with."""
    for start in ("Not sure: ", "Out of distribution: ", "No vote: "):
        reason = reason.removeprefix(start)
    return reason[:1].upper() + reason[1:]


def withheld(found: VoteAnswer) -> bool:
    """Whether the shares of a vote would mislead: of a stranger, or a picture of nothing."""
    return bool(found.answer.unfit) or found.state == "out of distribution"


def _how(found: VoteAnswer) -> list[str]:
    """What the shares are, and whose labels voted."""
    how = [] if found.answer.reviewed == 0 else [
        f"{count(found.answer.reviewed, 'label')} of these neighbours "
        f"{'is' if found.answer.reviewed == 1 else 'are'} a reviewer's, not the recorded one."
    ]  # fmt: skip
    disputed = sum(hit.reviewed is not None and hit.reviewed.disputed for hit in found.answer.hits)
    if disputed:
        how.append(f"Reviewers disagree on {disputed} of them; the last label voted.")
    if found.vote.voters and found.probability is None and found.calibration != "applied":
        how.append(f"Shares of neighbours, not probabilities: {_uncalibrated(found)}.")
    return how


def _uncalibrated(found: VoteAnswer) -> str:
    """Why a calibration does not hold for a vote."""
    if found.calibration in CALIBRATION:
        return CALIBRATION[found.calibration]
    if found.answer.in_sample:
        return "the calibration holds for cells whose own label did not choose the axes"
    *most, last = map(str, found.calibrated_ks or ("other numbers of",))
    ks = f"{', '.join(most)} or {last}" if most else last
    return (
        f"the calibration holds for {ks} neighbours by the labels that it counted, without "
        "filters, examples and other orders"
    )


def looked_at(answer: Answer) -> str:
    """What of an uploaded picture was compared, how its scale is known, and as of which site."""
    words = "" if answer.looked_at is None else answer.looked_at.words
    whole = " ".join(part for part in (words, aligned(answer.alignment)) if part)
    return f'<p class="hs-reason">{escape(whole)}</p>' if whole else ""


def aligned(found: Alignment | None) -> str:
    """By which site a query was aligned, as a sentence; empty where no sites are aligned."""
    if found is None:
        return ""
    if found.by == "own cells":
        return "Compared as of a site of its own, known by its cells."
    how = "as was said" if found.by == "named" else "the one that it looks most like"
    return f"Compared as of site {found.site}, {how}."


def warned(answer: Answer) -> str:
    """The warnings of an answer, without the one that fewer than `k` neighbours were found."""
    return notes([text for text in answer.warnings if not text.startswith("Only ")])


def trust_line(answer: Answer, voters: Sequence[Hit]) -> str:
    """What was searched, what is shown of it, and which of it voted, as one or two sentences."""
    hits = answer.hits
    kinds = {hit.item.kind for hit in hits}
    what = kinds.pop() if len(kinds) == 1 else "item"
    all_of = _only(answer.kinds, what)
    searched = answer.items if answer.searched is None else answer.searched
    patients = len({hit.item.patient for hit in hits} - {None})
    sites = len({hit.item.site for hit in hits} - {None})
    shown = f"Shown: {count(len(hits), what)}"
    shown += f" of {count(patients, 'patient')}" if patients else ""
    items = [hit.item for hit in hits if hit.item.patient is None]
    unknown = len({item.case or item.source for item in items})
    if unknown:
        words = count(unknown, "case or picture", "cases or pictures")
        shown += f"{' and' if patients else ' of'} {words} whose patient is unknown"
    shown += f" at {count(sites, 'site')}" if sites else ", sites unknown"
    there = {hit.item.id for hit in hits}
    voted = sum(hit.item.id in there for hit in voters)
    made = "The one" if voted == 1 else f"The {voted}"
    marked = f" {made} marked “votes” made the vote." if 0 < voted < len(hits) else ""
    if voted < len(voters):
        verb = "is" if voted == 1 else "are"
        marked = f" {voted} of the {len(voters)} that voted {verb} among them."
    return f"Searched {searched:,} of {count(answer.items, all_of)}. {shown}.{marked}"


def _only(kinds: Sequence[str], otherwise: str) -> str:
    """What the items of a collection are called: by their kind, where they have one alone."""
    return kinds[0] if len(kinds) == 1 else "item" if kinds else otherwise


def facts(answer: Answer, voters: Sequence[Hit] = ()) -> str:
    """What an answer is based on: a sentence, and a line of details."""
    words = [EXCLUSION[answer.patient_exclusion], f"encoder {answer.encoder}"]
    if answer.duplicates:
        words.append(f"{count(answer.duplicates, 'copy', 'copies')} of the query left out")
    words += [text.rstrip(".") for text in answer.warnings if text.startswith("Only ")]
    if answer.own_site is not None:
        words.append(
            f"{answer.own_site.share:.0%} from the query's own site, "
            f"{answer.own_site.expected:.0%} expected"
        )
    line = escape(trust_line(answer, voters))
    return f'<p class="hs-trust">{line}</p>{fact_line(words)}'


@dataclass(frozen=True)
class Shelf:
    """What the cards of a gallery show beside their items."""

    pictures: Mapping[str, bytes]
    search: Searching
    compared: Sequence[str]
    """Ids marked for comparison."""
    voters: Sequence[Hit] = ()
    """Neighbours that voted."""
    selected: Sequence[str] = ()
    """Ids selected to be kept or exported."""


def gallery(answer: Answer, shelf: Shelf) -> str:
    """Neighbours as a grid of cards, one for each patient where they are grouped."""
    if answer.groups:
        cards = "".join(
            _group_card(at, group, shelf, answer.kinds) for at, group in enumerate(answer.groups, 1)
        )
    else:
        cards = "".join(_hit_card(at, (hit,), shelf) for at, hit in enumerate(answer.hits, 1))
    words = "Patients, most similar first" if answer.groups else "Neighbours, most similar first"
    return f'<ol class="hs-grid hs-gallery" aria-label="{words}">{cards}</ol>'


def keys() -> str:
    """The keys, in one line."""
    return (
        '<p class="hs-keys">'
        + " ".join(f"<span><kbd>{escape(key)}</kbd> {escape(what)}</span>" for key, what in KEYS)
        + f" <span>{escape(SIMILARITY)}</span>"
        + "</p>"
    )


def _hit_card(at: int, hits: Sequence[Hit], shelf: Shelf, note: str = "", strip: str = "") -> str:
    """The card of the first of some hits; the others are of the same patient."""
    hit, search = hits[0], shelf.search
    id = hit.item.id
    liked, unliked = id in search.like, id in search.unlike
    voters = {one.item.id for one in shelf.voters}
    n = sum(one.item.id in voters for one in hits)
    if hit.reviewed is not None:
        review = f"reviewed by {hit.reviewed.by}, recorded {hit.item.label or 'none'}"
        note = f"{note}\n{review}".strip()
    return card(
        hit.item,
        shelf.pictures[id],
        at=at,
        score=hit.score,
        act="open",
        note=note,
        strip=strip,
        mark="hs-liked" if liked else "hs-unliked" if unliked else "",
        badge="" if not n else "votes" if n == 1 else f"{n} votes",
        label=hit.label,
        actions=(
            Action("like", "+", "More like this", "+", liked),
            Action("unlike", "−", "Less like this", "-", unliked),
            Action("compare", "⇄", "Mark for comparison", "c", id in shelf.compared),
            Action("label", "✎", "Reclassify", "l"),
            Action("select", "✓", "Select", "s", id in shelf.selected),
        ),
    )


def _group_card(at: int, group: Group, shelf: Shelf, kinds: Sequence[str]) -> str:
    strip = "".join(
        f'<button class="hs-mini" data-act="open" data-id="{escape(hit.item.id)}" '
        f'aria-label="Open {escape(hit.label or "no label")}, similarity {hit.score:.3f}">'
        f'<img src="{data_url(shelf.pictures[hit.item.id])}" '
        f'alt="Of the same patient: {escape(hit.label or "no label")}, '
        f'similarity {hit.score:.3f}"></button>'
        for hit in group.hits[1:3]
    )
    cells = count(group.items, _only(kinds, "cell"))
    note = {
        "case": f"patient unknown · case {group.value} · {cells}",
        "source": f"patient unknown · {cells} of one picture",
    }.get(group.by or "patient", f"patient {group.value} · {cells}")
    return _hit_card(at, group.hits, shelf, note, strip)
