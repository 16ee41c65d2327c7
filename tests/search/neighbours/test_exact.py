from __future__ import annotations

import numpy as np
import pytest

from search.neighbours import screen
from search.neighbours.exact import BadSearch, search
from search.neighbours.scores import top
from search.votes.knn import vote_many


def _unit(rows):
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def _clusters(rng, n, noise, dim=96, count=12):
    centres = np.random.default_rng(3).standard_normal((count, dim))
    of = rng.integers(0, count, n)
    return _unit(centres[of] + noise * rng.standard_normal((n, dim)))


def _oracle(queries, library, k, metric="cosine"):
    q, x = queries.astype(np.float64), library.astype(np.float64)
    scores = q @ x.T if metric == "cosine" else -((q[:, None] - x[None]) ** 2).sum(axis=2)
    scores = scores.round(12)
    order = np.lexsort((np.broadcast_to(np.arange(len(x)), scores.shape), -scores), axis=1)[:, :k]
    return order, np.take_along_axis(scores, order, axis=1)


@pytest.mark.parametrize("route", ["double", "single"])
@pytest.mark.parametrize("k", [1, 20, 300])
def test_neighbours_equal_those_of_a_plain_search(rng, route, k):
    queries, library = _clusters(rng, 50, 1.0), _clusters(rng, 300, 1.0)

    places, scores = search(queries, library, k, route=route)

    wanted, values = _oracle(queries, library, k)
    assert np.array_equal(places, wanted)
    assert np.abs(scores - values).max() < 1e-6


@pytest.mark.parametrize("route", ["double", "single", "screen"])
def test_equal_rows_come_in_order_of_position_however_many_there_are(rng, route):
    library = _clusters(rng, 2400, 0.7)
    copies = rng.permutation(2400)[:60]
    library[copies] = library[copies[0]]
    queries = np.concatenate([library[copies[:1]], _clusters(rng, 600, 0.7)])

    places, scores = search(queries, library, 20, route=route)

    assert places[0].tolist() == np.sort(copies)[:20].tolist()
    assert len(set(scores[0].tolist())) == 1
    assert np.array_equal(places, _oracle(queries, library, 20)[0])


@pytest.mark.parametrize("tiles", [True, False])
@pytest.mark.parametrize("noise", [0.3, 0.8, 1.5])
def test_screening_gives_the_same_answer_as_every_score(rng, noise, tiles, monkeypatch):
    monkeypatch.setattr(screen, "tiles_work", lambda: tiles)
    queries, library = _clusters(rng, 700, noise, 384), _clusters(rng, 3000, noise, 384)

    screened = search(queries, library, 20, route="screen")
    every = search(queries, library, 20, route="double")

    assert np.array_equal(screened[0], every[0])
    assert np.abs(screened[1] - every[1]).max() < 1e-5


def test_queries_between_the_lists_and_small_lists_are_answered_too(rng):
    library = np.concatenate([_clusters(rng, 2500, 0.4), _unit(rng.standard_normal((40, 96)))])
    queries = _unit(rng.standard_normal((600, 96)))

    assert np.array_equal(
        search(queries, library, 30, route="screen")[0], _oracle(queries, library, 30)[0]
    )


def test_queries_unlike_everything_are_answered_by_another_route(rng, monkeypatch):
    monkeypatch.setattr(screen, "tiles_work", lambda: True)
    library = _clusters(rng, 2500, 0.4)
    queries = np.concatenate([_clusters(rng, 600, 0.4), -library.mean(axis=0, keepdims=True)])

    assert np.array_equal(
        search(queries, library, 5, route="screen")[0], _oracle(queries, library, 5)[0]
    )


def test_euclidean_takes_rows_as_they_are(rng):
    queries, library = rng.standard_normal((30, 8)), 3 * rng.standard_normal((200, 8))
    queries, library = queries.astype(np.float32), library.astype(np.float32)

    places, scores = search(queries, library, 5, metric="euclidean")

    wanted, values = _oracle(queries, library, 5, "euclidean")
    assert np.array_equal(places, wanted)
    assert np.abs(scores - values).max() < 1e-4


def test_on_rows_of_length_one_both_metrics_rank_alike(rng):
    queries, library = _clusters(rng, 40, 1.0), _clusters(rng, 300, 1.0)

    near = search(queries, library, 10)[0]

    assert np.array_equal(near, search(queries, library, 10, metric="euclidean")[0])


def test_cosine_does_not_see_length(rng):
    queries, library = _clusters(rng, 20, 1.0), _clusters(rng, 100, 1.0)

    longer = search(5 * queries, library * rng.uniform(0.5, 2, (100, 1)), 7)[0]

    assert np.array_equal(longer, search(queries, library, 7)[0])


def test_votes_equal_scikit_learns_where_no_vote_is_tied(rng):
    from sklearn.neighbors import KNeighborsClassifier

    queries, library = _clusters(rng, 200, 1.2), _clusters(rng, 800, 1.2)
    known = rng.integers(0, 4, 800)

    places, scores = search(queries, library, 20)
    said = vote_many(known[places], scores, 4)

    counts = np.sort([np.bincount(row, minlength=4) for row in known[places]], axis=1)
    tied = counts[:, -1] == counts[:, -2]
    other = KNeighborsClassifier(20).fit(library, known).predict(queries)
    assert (~tied).sum() > 100
    assert np.array_equal(said[~tied], other[~tied])


def test_the_best_by_groups_are_the_best(rng):
    import torch

    scores = torch.from_numpy(rng.standard_normal((6, 5000)))

    best, places = top(scores, 9)

    assert torch.equal(best, scores.topk(9).values)
    assert torch.equal(scores.gather(1, places), best)


def test_what_cannot_be_searched_is_refused(rng):
    rows = _clusters(rng, 10, 1.0)
    broken = rows.copy()
    broken[3, 0] = np.nan

    with pytest.raises(BadSearch, match="queries: row 3 is not finite"):
        search(broken, rows, 2)
    with pytest.raises(BadSearch, match="library: row 2 is zero"):
        search(rows, np.where(np.arange(10)[:, None] == 2, 0, rows), 2)
    with pytest.raises(BadSearch, match="k must be 1 to 10"):
        search(rows, rows, 11)
    with pytest.raises(BadSearch, match="expected m x dim and n x dim"):
        search(rows[:, :5], rows, 1)
    with pytest.raises(BadSearch, match="euclidean is searched by route 'double'"):
        search(rows, rows, 1, metric="euclidean", route="screen")


def test_no_queries_have_no_neighbours(rng):
    places, scores = search(np.empty((0, 96), np.float32), _clusters(rng, 30, 1.0), 3)

    assert places.shape == scores.shape == (0, 3)
