"""Sure, not sure, or out of distribution: each for its own reason."""

from __future__ import annotations

import pytest

from search.schemas.answers import Vote
from search.votes.judgement import judge
from search.votes.lineage import spread


def vote_of(voters: int = 10, **shares: float) -> Vote:
    values = [*shares.values(), 0.0, 0.0]
    label = next(iter(shares), None)
    return Vote(
        label=label, shares=shares, voters=voters, unlabelled=0, margin=values[0] - values[1]
    )


@pytest.mark.parametrize(
    ("vote", "state", "words"),
    [
        (vote_of(0), "not sure", "no neighbour carries a label"),
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
