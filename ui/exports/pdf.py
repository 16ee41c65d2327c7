"""A search as a PDF to keep: query, neighbours, scores, encoder, date, and what it is not."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from datetime import datetime
from functools import partial
from html import escape
from io import BytesIO
from typing import Any

from PIL import Image as PillowImage
from reportlab.lib.colors import HexColor
from reportlab.lib.enums import TA_RIGHT
from reportlab.lib.pagesizes import A4
from reportlab.lib.styles import ParagraphStyle
from reportlab.lib.units import mm
from reportlab.platypus import Image, Paragraph, SimpleDocTemplate, Spacer, Table, TableStyle

from search.schemas.answers import Answer, Hit, VoteAnswer
from ui.look.gallery import EXCLUSION, verdict, withheld, without_verdict
from ui.look.tables import count
from ui.look.theme import LIGHT

PICTURE = 18 * mm
"""Side of the picture of a neighbour."""
QUERY = 42 * mm
FRAME = 6
"""What ReportLab keeps free inside a frame, in points."""
SIDE_PX = 400
"""Longest side of a picture in the file; a report is to be sent by mail."""
INK, QUIET, LINE, ACCENT = (HexColor(LIGHT[name]) for name in ("ink", "quiet", "line", "accent"))
BODY = ParagraphStyle("body", fontName="Helvetica", fontSize=9, leading=12, textColor=INK)
SMALL = ParagraphStyle("small", BODY, fontSize=7.5, leading=10, textColor=QUIET)
HEAD = ParagraphStyle("head", BODY, fontName="Helvetica-Bold", fontSize=12, leading=16)
TITLE = ParagraphStyle("title", HEAD, fontSize=18, leading=22)
NUMBER = ParagraphStyle("number", BODY, alignment=TA_RIGHT)
SMALL_NUMBER = ParagraphStyle("small-number", SMALL, alignment=TA_RIGHT)


def search_report(
    found: VoteAnswer,
    pictures: Sequence[bytes],
    query: bytes | None,
    name: str,
    made: datetime,
    *,
    pseudonyms: bool = False,
) -> bytes:
    """A search as PDF; equal input gives equal bytes.

    Args:
        found: What the service answered.
        pictures: JPEG of each hit, in its order.
        query: The image of the query, where there is one.
        name: What the query is called. File names may name people: pass them only knowingly.
        made: When the search was made, with its time zone.
        pseudonyms: Whether cases and patients of the hits are printed; left out by default.

    Raises:
        ValueError: not one picture for each hit.
    """
    answer = found.answer
    if len(pictures) != len(answer.hits):
        raise ValueError(f"{len(answer.hits)} hits need as many pictures, got {len(pictures)}")
    story = [
        Paragraph("Similar cells", TITLE),
        Paragraph(text(answer.disclaimer), SMALL),
        Spacer(1, 4 * mm),
        _query(found, query, name, made),
        Spacer(1, 4 * mm),
        *([Paragraph(text(answer.looked_at.words), BODY)] if answer.looked_at else []),
        *(Paragraph(f"Warning: {text(one)}", BODY) for one in answer.warnings),
        Spacer(1, 3 * mm),
        Paragraph("How the labels of the neighbours vote", HEAD),
        *_vote(found),
        Spacer(1, 3 * mm),
        Paragraph(_heading(answer), HEAD),
        _hits(answer.hits, pictures, pseudonyms=pseudonyms),
    ]

    words = f"{answer.encoder} {answer.fingerprint}"
    return document("Similar cells", answer.disclaimer, story, words, made)


def document(title: str, subject: str, story: Sequence[Any], encoder: str, made: datetime) -> bytes:
    """A PDF of A4 pages; each says at its foot which encoder, when, and what it is not for."""
    out = BytesIO()
    page = SimpleDocTemplate(
        out,
        pagesize=A4,
        leftMargin=18 * mm - FRAME,
        rightMargin=18 * mm - FRAME,
        topMargin=18 * mm,
        bottomMargin=20 * mm,
        title=title,
        author="Hemaseek",
        subject=subject,
        invariant=1,
    )
    foot = partial(_foot, f"{encoder}   {_stamp(made)}")
    page.build(list(story), onFirstPage=foot, onLaterPages=foot)
    return out.getvalue()


def _foot(words: str, canvas: Any, _: object) -> None:
    canvas.saveState()
    canvas.setFont("Helvetica", 7.5)
    canvas.setFillColor(QUIET)
    canvas.drawString(18 * mm, 11 * mm, "Research use only. Not for clinical decisions.")
    right = _plain(f"{words}   page {canvas.getPageNumber()}")
    canvas.drawRightString(A4[0] - 18 * mm, 11 * mm, right)
    canvas.restoreState()


def _known(number: int, one: str) -> str:
    return count(number, one) if number else f"{one}s unknown"


def _query(found: VoteAnswer, query: bytes | None, name: str, made: datetime) -> Table:
    answer = found.answer
    facts = [
        ("Query", name),
        ("Searched", _stamp(made)),
        ("Collection", f"{answer.collection}, {answer.items:,} items"),
        ("Encoder", f"{answer.encoder}, fingerprint {answer.fingerprint}"),
        ("Search", "every item compared" if answer.exact else "approximate index"),
        ("Conditions", _conditions(answer)),
        ("Same patient", EXCLUSION[answer.patient_exclusion]),
        (
            "Basis",
            f"{count(answer.sources, 'source')}, {_known(answer.patients, 'patient')}, "
            f"{_known(answer.sites, 'site')}",
        ),
    ]
    rows = [[Paragraph(text(one), SMALL), Paragraph(text(other), BODY)] for one, other in facts]
    table = Table(rows, colWidths=[24 * mm, 102 * mm], style=_style(inner=False))
    if query is None:
        return table
    whole = Table([[picture(query, QUERY), table]], colWidths=[48 * mm, 126 * mm])
    whole.setStyle(
        TableStyle([("VALIGN", (0, 0), (-1, -1), "TOP"), ("LEFTPADDING", (0, 0), (-1, -1), 0)])
    )
    return whole


def _heading(answer: Answer) -> str:
    if not answer.groups:
        return f"The {count(len(answer.hits), 'most similar stored cell')}"
    most = count(max(len(group.hits) for group in answer.groups), "cell")
    whole = "patient" if answer.group_by == "group" else answer.group_by
    unknown = any(answer.group_by == "group" and group.by != "patient" for group in answer.groups)
    words = " (where a patient is unknown, case or picture)" if unknown else ""
    groups = count(len(answer.groups), f"most similar {whole}")
    return f"The {groups}{words}, up to {most} of each"


def _conditions(answer: Answer) -> str:
    words = [f"{name}: {' or '.join(values)}" for name, values in answer.where.words.items()]
    words += [
        f"{name} from {'any' if low is None else low} to {'any' if high is None else high}"
        for name, (low, high) in answer.where.ranges.items()
    ]
    return "; ".join(words) or "none"


def _vote(found: VoteAnswer) -> list[Any]:
    head, reason = verdict(found), without_verdict(found.reason)
    rows = [
        [Paragraph(text(label), BODY), Paragraph(f"{share:.0%}", NUMBER)]
        for label, share in list(found.vote.shares.items())[:8]
        if not withheld(found)
    ]
    parts: list[Any] = [Paragraph(f"<b>{text(head)}</b>. {text(reason)}", BODY)]
    if rows:
        parts += [Spacer(1, 2 * mm), lined(rows, (70, 20))]
    words = "Shares are shares of similar cells, not probabilities."
    if found.probability is not None:
        words += (
            f" Calibrated: of votes like this one, {found.probability:.0%} named the label of the "
            "source."
        )
    parts.append(Paragraph(words, SMALL))
    return parts


def _hits(hits: Sequence[Hit], pictures: Sequence[bytes], *, pseudonyms: bool) -> Table | Paragraph:
    if not hits:
        return Paragraph("No stored cell meets the conditions.", BODY)
    rows: list[list[Any]] = [
        [
            *(Paragraph(f"<b>{one}</b>", SMALL) for one in ("", "", "Label", "Where from")),
            Paragraph("<b>Cosine</b>", SMALL_NUMBER),
        ]
    ]
    for at, (hit, content) in enumerate(zip(hits, pictures, strict=True), 1):
        item = hit.item
        origin = [item.dataset, item.site, item.stain, item.scanner]
        if pseudonyms:
            origin += [f"case {item.case}" if item.case else None]
            origin += [f"patient {item.patient}" if item.patient else None]
        where = text(", ".join(part for part in origin if part))
        rows.append(
            [
                Paragraph(str(at), NUMBER),
                picture(content, PICTURE),
                Paragraph(text(hit.label or "no label"), BODY),
                [Paragraph(where, BODY), Paragraph(item.id, SMALL)],
                Paragraph(f"{hit.score:.3f}", NUMBER),
            ]
        )
    return lined(rows, (8, 22, 42, 82, 20), repeatRows=1)


def lined(rows: Sequence[Sequence[Any]], widths_mm: Sequence[float], **how: Any) -> Table:
    """A table at the left with a rule below each row."""
    widths = [width * mm for width in widths_mm]
    return Table(rows, colWidths=widths, hAlign="LEFT", style=_style(), **how)


def _style(*, inner: bool = True) -> TableStyle:
    rules: list[tuple[Any, ...]] = [
        ("VALIGN", (0, 0), (-1, -1), "MIDDLE" if inner else "TOP"),
        ("TOPPADDING", (0, 0), (-1, -1), 2),
        ("BOTTOMPADDING", (0, 0), (-1, -1), 2),
        ("LEFTPADDING", (0, 0), (0, -1), 0),
    ]
    if inner:
        rules.append(("LINEBELOW", (0, 0), (-1, -1), 0.4, LINE))
    return TableStyle(rules)


def picture(content: bytes, side: float, side_px: int = SIDE_PX) -> Image:
    """A picture whose longer side is `side` points on the paper, `side_px` pixels in the file."""
    with PillowImage.open(BytesIO(content)) as opened:
        small = opened.convert("RGB")
    small.thumbnail((side_px, side_px))
    out = BytesIO()
    small.save(out, "JPEG", quality=88)
    longest = max(small.size)
    out.seek(0)
    return Image(out, width=side * small.width / longest, height=side * small.height / longest)


def _stamp(made: datetime) -> str:
    return made.strftime("%Y-%m-%d %H:%M %Z").strip()


def _plain(text: str) -> str:
    """A text in the letters that the built-in fonts have; accents are dropped where need be."""
    kept = []
    for letter in text:
        for one in (letter, unicodedata.normalize("NFKD", letter)[:1], "?"):
            try:
                one.encode("cp1252")
            except UnicodeEncodeError:
                continue
            kept.append(one)
            break
    return "".join(kept)


def text(words: str) -> str:
    """Words as a paragraph takes them: escaped, in letters that the fonts have."""
    return escape(_plain(words), quote=False)
