"""What the cards of a gallery, and the lines about an answer, say."""

from __future__ import annotations

from search.schemas.answers import Alignment, Answer, Group, Hit, ReviewedLabel, Vote, VoteAnswer
from search.schemas.filters import Filter
from search.schemas.items import Item, item_id
from ui.address import Searching
from ui.look.gallery import Shelf, aligned, gallery, trust_line, vote_panel
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


def test_an_answer_counts_what_there_is_and_says_what_its_calibration_holds_for() -> None:
    tile = Item(id=item_id("d", "s"), dataset="d", source="s", label="blast", kind="tile")
    hits = (Hit(item=tile, score=0.5),)
    answer = Answer(
        hits=hits, collection="mixed", items=9, encoder="colour", fingerprint="f" * 16, k=1,
        exact=False, where=Filter(), patients=0, sources=1, sites=0, patient_exclusion="applied",
        kinds=("cell", "tile"), searched=4,
    )  # fmt: skip
    vote = VoteAnswer(
        vote=Vote(label="blast", shares={"blast": 1}, voters=1, unlabelled=0, margin=1),
        sure=False, reason="Not sure.", answer=answer, calibration="other question",
        calibrated_ks=(7, 30),
    )  # fmt: skip

    assert trust_line(answer, ()).startswith("Searched 4 of 9 items. Shown: 1 tile ")
    assert "holds for 7 or 30 neighbours" in vote_panel(vote)
    assert "own label did not choose" in vote_panel(
        vote.model_copy(update={"answer": answer.model_copy(update={"in_sample": True})})
    )


def test_an_answer_says_as_of_which_site_the_query_was_compared() -> None:
    assert aligned(None) == ""
    assert "site lima, as was said" in aligned(Alignment(site="lima", by="named"))
    assert "site lima, the one that it looks" in aligned(Alignment(site="lima", by="nearest"))
    assert "known by its cells" in aligned(Alignment(site=None, by="own cells"))
