"""The report of a search: all that is needed to judge it later, and nobody's name."""

from __future__ import annotations

from datetime import UTC, datetime
from io import BytesIO

import pytest
from pdf_text import words
from PIL import Image

from search.schemas.answers import Answer, Hit, Vote, VoteAnswer
from search.schemas.filters import Filter
from search.schemas.items import Item, item_id
from ui.exports.pdf import search_report

MADE = datetime(2026, 11, 26, 9, 30, tzinfo=UTC)


def jpeg(colour: tuple[int, int, int]) -> bytes:
    out = BytesIO()
    Image.new("RGB", (60, 40), colour).save(out, "JPEG")
    return out.getvalue()


def answered(n: int = 3, *, sure: bool = True, label: str = "monocyte") -> VoteAnswer:
    hits = tuple(
        Hit(
            item=Item(
                id=item_id("made", f"{at:032x}"),
                dataset="made",
                source=f"{at:032x}",
                label=label,
                patient="SECRETPATIENT",
                case="SECRETCASE",
                site="site A",
            ),
            score=0.9 - at / 100,
        )
        for at in range(n)
    )
    answer = Answer(
        hits=hits,
        collection="cells",
        items=1234,
        encoder="colour",
        fingerprint="0123456789abcdef",
        k=n,
        exact=False,
        where=Filter(site=("site A",)),
        patients=1,
        sources=n,
        sites=1,
        patient_exclusion="partial",
        warnings=("The scale is unknown.",),
    )
    vote = Vote(label=label, shares={label: 1.0}, voters=n, unlabelled=0, margin=1.0)
    return VoteAnswer(
        vote=vote, sure=sure, reason="Not sure: few." if not sure else "All.", answer=answer
    )


def report(found: VoteAnswer, **more: bool) -> str:
    pictures = [jpeg((90, 60, 120))] * len(found.answer.hits)
    return words(search_report(found, pictures, jpeg((200, 100, 90)), "a cell", MADE, **more))


def test_a_report_names_query_collection_encoder_and_date() -> None:
    text = report(answered())

    for part in ("a cell", "2026-11-26 09:30 UTC", "1,234 items", "colour", "0123456789abcdef"):
        assert part in text
    for part in ("monocyte", "0.900", "0.880", "site: site A", "The scale is unknown.", "100%"):
        assert part in text
    assert "some patients unknown" in text
    assert text.count("Research use only") >= 2
    assert "diagnos" not in text.lower()


def test_pseudonyms_are_printed_only_on_request() -> None:
    assert "SECRET" not in report(answered())
    assert "SECRETPATIENT" in report(answered(), pseudonyms=True)


def test_doubt_is_printed_as_doubt() -> None:
    text = report(answered(sure=False))

    assert "Not sure" in text


def test_a_long_answer_runs_over_pages_and_equal_input_gives_equal_bytes() -> None:
    found = answered(40)
    pictures = [jpeg((90, 60, 120))] * 40
    one, other = (search_report(found, pictures, None, "a cell", MADE) for _ in range(2))

    assert one == other
    assert one.startswith(b"%PDF-")
    assert "page 2" in words(one)


def test_letters_that_the_font_lacks_are_replaced_not_fatal() -> None:
    text = report(answered(label="limfocyt \u0142agodny <b>\u8840"))

    assert "limfocyt?agodny<b>?" in text.replace(" ", "")


def test_a_report_without_hits_says_so() -> None:
    assert "No stored cell meets the conditions." in report(answered(0))


def test_a_picture_for_each_hit_is_needed() -> None:
    with pytest.raises(ValueError, match="3 hits need as many pictures, got 0"):
        search_report(answered(), [], None, "a cell", MADE)
