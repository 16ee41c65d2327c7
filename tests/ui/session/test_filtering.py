"""What is hidden for its similarity."""

from __future__ import annotations

from datetime import UTC, datetime

from search.schemas.answers import Answer, Group, Hit, Vote, VoteAnswer
from search.schemas.filters import Filter
from search.schemas.items import Box, Item, item_id
from ui.address import Searching
from ui.session.filtering import active_filters, at_least
from ui.session.results import Results


def hit(score: float) -> Hit:
    source = f"{score}"
    return Hit(item=Item(id=item_id("d", source), dataset="d", source=source), score=score)


def results() -> Results:
    hits = (hit(0.9), hit(0.7), hit(0.5))
    groups = tuple(
        Group(value=name, items=1, score=some[0].score, hits=some)
        for name, some in (("a", hits[:2]), ("b", hits[2:]))
    )
    facts = {"collection": "c", "items": 3, "encoder": "e", "fingerprint": "f", "k": 3}
    facts |= {"exact": False, "where": Filter(), "patients": 0, "sources": 3, "sites": 0}
    answer = Answer.model_validate(
        {"hits": hits, "groups": groups, "patient_exclusion": "impossible", **facts}
    )
    vote = Vote(label=None, shares={}, voters=0, unlabelled=3, margin=0)
    voted = VoteAnswer(vote=vote, sure=False, reason="", answer=answer)
    return Results(voted, answer, datetime.now(UTC))


def test_what_is_less_similar_is_hidden_and_counted_and_still_votes() -> None:
    found = results()

    shown, words = at_least(found, 0.6)

    assert [one.score for one in shown.answer.hits] == [0.9, 0.7]
    assert [group.value for group in shown.answer.groups] == ["a"]
    assert words == "1 neighbour less similar than 0.6 hidden"
    assert shown.voted == found.voted
    assert at_least(found, None) == (found, "")


def test_the_filters_are_part_of_the_link_and_counted() -> None:
    where = Filter(case=("C-1",), acquired_from="2024-01-02", um_per_px_max=0.3)
    search = Searching(where=where, least=0.8, region=Box(x=1, y=2, w=3, h=4))

    assert active_filters(search) == 4
    assert Searching.of_address(search.address()) == search
