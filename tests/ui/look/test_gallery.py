"""What the cards of a gallery, and the lines about an answer, say."""

from __future__ import annotations

from search.schemas.answers import Alignment, Answer, Group, Hit, ReviewedLabel
from search.schemas.filters import Filter
from search.schemas.items import Item, item_id
from ui.address import Searching
from ui.look.gallery import Shelf, aligned, gallery
from ui.session.results import grey


def test_the_card_of_a_patient_keeps_its_name_beside_a_review() -> None:
    item = Item(id=item_id("d", "s"), dataset="d", source="s", label="blast", patient="P7")
    review = ReviewedLabel(label="lymphocyte", by="Ada", at="2026-11-28T00:00:00")
    hit = Hit(item=item, score=0.5, reviewed=review)
    group = Group(value="P7", by="patient", items=3, score=0.5, hits=(hit,))
    answer = Answer(
        hits=(hit,), collection="cells", items=1, encoder="colour", fingerprint="f" * 16, k=1,
        exact=False, where=Filter(), patients=1, sources=1, sites=0, patient_exclusion="applied",
        group_by="group", groups=(group,),
    )  # fmt: skip

    shown = gallery(answer, Shelf({item.id: grey()}, Searching(), ()))

    assert '<span class="hs-note-line">reviewed by Ada, recorded blast</span>' in shown
    assert '<span class="hs-note-line">patient P7 · 3 cells</span>' in shown


def test_an_answer_says_as_of_which_site_the_query_was_compared() -> None:
    assert aligned(None) == ""
    assert "site lima, as was said" in aligned(Alignment(site="lima", by="named"))
    assert "site lima, the one that it looks" in aligned(Alignment(site="lima", by="nearest"))
    assert "known by its cells" in aligned(Alignment(site=None, by="own cells"))
