from __future__ import annotations

import numpy as np
import pytest

from search.neighbours import exact
from search.neighbours.exact import BadSearch, search
from search.votes.knn import votes


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


@pytest.fixture(params=["float32", "torch", "bfloat16", "faiss"])
def way(request, monkeypatch):
    """Each way by which candidates are found, on as few queries as a test has."""
    if request.param == "float32":
        return
    monkeypatch.setattr(exact, "LARGE", 0)
    monkeypatch.setattr(exact, "bfloat16_is_faster", lambda: request.param != "torch")
    if request.param == "faiss":
        faiss = pytest.importorskip("faiss")
        monkeypatch.setattr("torch.cuda.is_available", lambda: True)
        monkeypatch.setattr(faiss, "get_num_gpus", lambda: 1)
        monkeypatch.setattr(faiss, "StandardGpuResources", lambda: None, raising=False)

        def knn(gpu, *rows, metric):
            return faiss.knn(*rows, metric=metric)

        monkeypatch.setattr(faiss, "knn_gpu", knn, raising=False)


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("k", [1, 20, 300])
def test_neighbours_equal_those_of_a_plain_search(rng, k):
    queries, library = _clusters(rng, 50, 1.0), _clusters(rng, 300, 1.0)

    places, scores = search(queries, library, k)

    wanted, values = _oracle(queries, library, k)
    assert np.array_equal(places, wanted)
    assert np.abs(scores - values).max() < 1e-6


@pytest.mark.usefixtures("way")
def test_equal_rows_come_in_order_of_position_however_many_there_are(rng):
    library = _clusters(rng, 2400, 0.7)
    copies = rng.permutation(2400)[:60]
    library[copies] = library[copies[0]]
    queries = np.concatenate([library[copies[:1]], _clusters(rng, 100, 0.7)])

    places, scores = search(queries, library, 20)

    assert places[0].tolist() == np.sort(copies)[:20].tolist()
    assert len(set(scores[0].tolist())) == 1
    assert np.array_equal(places, _oracle(queries, library, 20)[0])


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("noise", [0.02, 0.3, 0.8, 1.5])
def test_tight_and_loose_clusters_are_searched_alike(rng, noise):
    queries, library = _clusters(rng, 150, noise, 384), _clusters(rng, 2000, noise, 384)

    assert np.array_equal(search(queries, library, 20)[0], _oracle(queries, library, 20)[0])


@pytest.mark.usefixtures("way")
def test_queries_unlike_everything_are_answered(rng):
    library = np.concatenate([_clusters(rng, 2500, 0.4), _unit(rng.standard_normal((40, 96)))])
    unlike = -library.mean(axis=0, keepdims=True)
    queries = np.concatenate([_unit(rng.standard_normal((120, 96))), _unit(unlike)])

    assert np.array_equal(search(queries, library, 30)[0], _oracle(queries, library, 30)[0])


@pytest.mark.usefixtures("way")
def test_vectors_that_all_point_one_way_are_ranked_exactly(rng):
    library = _unit(1 + 1e-3 * rng.standard_normal((500, 64)))
    queries = _unit(1 + 1e-3 * rng.standard_normal((40, 64)))

    assert np.array_equal(search(queries, library, 7)[0], _oracle(queries, library, 7)[0])


def test_the_answer_is_the_same_bit_for_bit_in_whatever_precision_it_began(rng, monkeypatch):
    queries, library = _clusters(rng, 300, 0.8, 384), _clusters(rng, 2000, 0.8, 384)
    single = search(queries, library, 20)
    monkeypatch.setattr(exact, "LARGE", 0)
    monkeypatch.setattr(exact, "bfloat16_is_faster", lambda: True)

    half = search(queries, library, 20)

    assert np.array_equal(single[0], half[0])
    assert np.array_equal(single[1], half[1])


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
    predicted = votes(known[places], scores, 4, "uniform").first

    counts = np.sort([np.bincount(row, minlength=4) for row in known[places]], axis=1)
    tied = counts[:, -1] == counts[:, -2]
    other = KNeighborsClassifier(20).fit(library, known).predict(queries)
    assert (~tied).sum() > 100
    assert np.array_equal(predicted[~tied], other[~tied])


def test_large_searches_do_without_torch(rng, monkeypatch):
    queries, library = _clusters(rng, 30, 1.0), _clusters(rng, 300, 1.0)
    with_torch = search(queries, library, 5)
    monkeypatch.setattr(exact, "LARGE", 0)
    monkeypatch.setattr(exact, "find_spec", lambda name: None)

    without = search(queries, library, 5)

    assert all(np.array_equal(a, b) for a, b in zip(with_torch, without, strict=True))


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


def test_no_queries_have_no_neighbours(rng):
    places, scores = search(np.empty((0, 96), np.float32), _clusters(rng, 30, 1.0), 3)

    assert places.shape == scores.shape == (0, 3)
