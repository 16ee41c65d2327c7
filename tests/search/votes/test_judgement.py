"""Sure, not sure, or out of distribution: each for its own reason."""

from __future__ import annotations

import pytest

from search.schemas.answers import Answer, Vote
from search.schemas.filters import Filter
from search.votes.judgement import Foreign, judge
from search.votes.lineage import spread


def vote_of(voters: int = 10, unlabelled: int = 0, **shares: float) -> Vote:
    values = [*shares.values(), 0.0, 0.0]
    label = next(iter(shares), None)
    return Vote(
        label=label,
        shares=shares,
        voters=voters,
        unlabelled=unlabelled,
        margin=values[0] - values[1],
    )


@pytest.mark.parametrize(
    ("vote", "state", "words"),
    [
        (vote_of(0), "not sure", "no neighbour was found"),
        (vote_of(0, unlabelled=4), "not sure", "no neighbour carries a label"),
        (vote_of(1, SNE=1.0), "not sure", "only 1 labelled neighbour."),
        (vote_of(2, SNE=1.0), "not sure", "only 2 labelled neighbours"),
        (vote_of(SNE=0.55, BNE=0.45), "not sure", "SNE and BNE are close"),
        (vote_of(SNE=0.85, BL=0.15), "not sure", "between a blast and a mature cell"),
        (vote_of(SNE=0.85, BNE=0.15), "sure", "85% of the weight of 10"),
    ],
)
def test_a_vote_is_judged_with_a_reason(vote: Vote, state: str, words: str) -> None:
    found, reason, probability = judge(vote, lineage=spread(vote))

    assert found == state
    assert words in reason
    assert probability is None


def answered(*unfit: str) -> Answer:
    return Answer(
        hits=(),
        collection="cells",
        items=10,
        encoder="e",
        fingerprint="f",
        k=10,
        exact=False,
        where=Filter(),
        patients=0,
        sources=0,
        sites=0,
        patient_exclusion="applied",
        unfit=unfit,
    )


def test_no_verdict_stands_on_a_picture_that_shows_nothing() -> None:
    blank = answered("The image is nearly blank.")

    found, reason, _ = judge(vote_of(SNE=1.0), answer=blank, foreign=Foreign(0.1, 0.5))

    assert (found, reason) == ("not sure", "Not sure: The image is nearly blank.")


def test_no_verdict_stands_on_a_stranger_whatever_its_neighbours_say() -> None:
    stranger, own = Foreign(1.0, 0.5), Foreign(0.5, 0.5)

    assert judge(vote_of(WBC=1.0), answer=answered(), foreign=stranger)[::2] == (
        "out of distribution",
        None,
    )
    assert judge(vote_of(WBC=1.0), answer=answered(), foreign=own)[0] == "sure"
