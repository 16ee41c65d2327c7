"""The vote: whatever the order of the neighbours, the same answer."""

from __future__ import annotations

from itertools import pairwise
from uuid import UUID

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from search.schemas.answers import Hit
from search.schemas.items import Item
from search.votes.knn import vote, votes

fixed = settings(derandomize=True, deadline=None, max_examples=150)

LABELS = ("a", "b", "c", "d")
WEIGHTINGS = ("uniform", "similarity", "softmax")


def hit(label: str | None, score: float, at: int = 0) -> Hit:
    return Hit(item=Item(id=str(UUID(int=at)), dataset="d", source="s", label=label), score=score)


def hits(*pairs: tuple[str | None, float]) -> list[Hit]:
    return [hit(label, score, at) for at, (label, score) in enumerate(pairs)]


neighbours = st.lists(
    st.tuples(
        st.sampled_from((*LABELS, None)),
        st.one_of(st.floats(-1, 1), st.sampled_from((0.5, 0.9, 0.0))),
    ),
    max_size=12,
).map(lambda pairs: hits(*pairs))


def test_the_most_frequent_label_wins_a_count_of_heads() -> None:
    found = vote(hits(("a", 0.9), ("b", 0.5), ("b", 0.4)), "uniform")

    assert found.label == "b"
    assert found.shares == {"b": pytest.approx(2 / 3), "a": pytest.approx(1 / 3)}
    assert found.margin == pytest.approx(1 / 3)
    assert found.voters == 3


def test_similarity_weighs_a_near_one_above_two_far_ones() -> None:
    assert vote(hits(("a", 0.9), ("b", 0.4), ("b", 0.4)), "similarity").label == "a"


def test_softmax_weighs_by_the_exponential_of_the_score() -> None:
    found = vote(hits(("a", 0.9), ("b", 0.8)), "softmax", temperature=0.1)

    assert found.shares["a"] == pytest.approx(np.e / (np.e + 1))


def test_neighbours_without_a_label_do_not_vote_and_are_counted() -> None:
    found = vote(hits((None, 0.99), ("a", 0.1), (None, 0.98)))

    assert (found.label, found.voters, found.unlabelled, found.margin) == ("a", 1, 2, 1.0)


@pytest.mark.parametrize("found", [[], hits((None, 0.9), (None, 0.8))])
def test_nobody_voting_is_no_label(found: list[Hit]) -> None:
    answer = vote(found)

    assert (answer.label, answer.shares, answer.voters, answer.margin) == (None, {}, 0, 0.0)


def test_of_equal_weights_the_label_of_the_nearer_neighbour_wins() -> None:
    assert vote(hits(("b", 0.9), ("a", 0.8), ("a", 0.2), ("b", 0.1)), "uniform").label == "b"


def test_of_equal_weights_and_scores_the_earlier_in_the_alphabet_wins() -> None:
    assert list(vote(hits(("b", 0.5), ("a", 0.5)), "uniform").shares) == ["a", "b"]


def test_neighbours_that_all_point_away_count_alike() -> None:
    assert vote(hits(("a", -0.9), ("b", -0.1), ("a", -0.5))).label == "a"


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan")])
def test_a_temperature_must_be_above_zero(temperature: float) -> None:
    with pytest.raises(ValueError, match="temperature must be above 0"):
        vote(hits(("a", 0.5)), "softmax", temperature)


@fixed
@given(neighbours, st.sampled_from(WEIGHTINGS), st.randoms(use_true_random=False))
def test_the_order_of_the_neighbours_does_not_change_the_vote(
    found: list[Hit], weighting: str, random: object
) -> None:
    shuffled = list(found)
    random.shuffle(shuffled)

    first, second = vote(found, weighting), vote(shuffled, weighting)

    assert first == second
    assert list(first.shares) == list(second.shares)


@fixed
@given(neighbours, st.sampled_from(WEIGHTINGS))
def test_shares_fall_and_sum_to_one(found: list[Hit], weighting: str) -> None:
    answer = vote(found, weighting)
    shares = list(answer.shares.values())

    assert answer.voters + answer.unlabelled == len(found)
    assert set(answer.shares) == {h.item.label for h in found} - {None}
    if shares:
        assert sum(shares) == pytest.approx(1)
        assert all(a >= b - 1e-9 for a, b in pairwise(shares))
        assert answer.label == next(iter(answer.shares))
        assert -1e-9 <= answer.margin <= 1


@st.composite
def rankings(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Labels n x k with -1 for none, and scores that differ and fall along each row."""
    n, k = draw(st.integers(0, 4)), draw(st.integers(1, 9))
    labels = draw(
        st.lists(st.lists(st.integers(-1, 3), min_size=k, max_size=k), min_size=n, max_size=n)
    )
    steps = draw(st.lists(st.integers(1, 50), min_size=k, max_size=k))
    scores = 1 - np.cumsum(steps) / 500
    return np.array(labels, np.int64).reshape(n, k), np.tile(scores, (n, 1)).reshape(n, k)


@fixed
@given(rankings())
def test_many_votes_at_once_equal_one_vote_at_a_time(
    ranked: tuple[np.ndarray, np.ndarray],
) -> None:
    labels, scores = ranked

    many = votes(labels, scores, len(LABELS), "uniform").first

    assert many.shape == (len(labels),)
    for row, score, winner in zip(labels, scores, many, strict=True):
        found = hits(
            *(
                (LABELS[label] if label >= 0 else None, float(s))
                for label, s in zip(row, score, strict=True)
            )
        )
        assert vote(found, "uniform").label == (LABELS[winner] if winner >= 0 else None)


def test_labels_and_scores_of_different_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="differ in shape"):
        votes(np.zeros((2, 3), int), np.zeros((2, 4)), 2)
