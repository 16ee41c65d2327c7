from __future__ import annotations

import numpy as np
import pytest
import torch

from search.neighbours import screen


def _unit(rows):
    return torch.nn.functional.normalize(torch.from_numpy(rows).float(), dim=1)


@pytest.mark.parametrize("width", [64, 128, 192])
def test_a_bound_is_never_below_the_score(rng, width):
    q, x = _unit(rng.standard_normal((200, 192))), _unit(rng.standard_normal((500, 192)))
    axes = torch.linalg.eigh(x.T @ x).eigenvectors.flip(1)

    short_q, short_x, unit, slack = screen._short(q, x, axes, width)
    bound = (short_q.long() @ short_x.long().T).double() * unit + slack[:, None]

    scores = q.double() @ x.double().T
    assert (bound >= scores).all()
    assert (bound - scores).max() < 1.2  # and it says something


def test_scores_in_half_precision_are_within_their_slack(rng):
    q, x = _unit(rng.standard_normal((200, 192))), _unit(rng.standard_normal((500, 192)))
    x[:50] = q[:50]  # scores of 1, where a step is largest

    halves = screen._halves(q, x)
    said = (halves.q @ halves.x.T).double()

    apart = (said - q.double() @ x.double().T).abs()
    assert (apart <= halves.slack[:, None]).all()
    assert halves.slack.max() < 0.01


def test_eight_bit_products_are_what_they_should_be_here_or_screening_is_off(rng, monkeypatch):
    a = torch.from_numpy(rng.integers(-127, 128, (64, 128), dtype=np.int8))
    b = torch.from_numpy(rng.integers(-127, 128, (64, 128), dtype=np.int8))

    monkeypatch.setattr(screen, "tiles_work", lambda: False)
    if screen.int8_works():
        assert torch.equal(torch._int_mm(a, b.T).long(), a.long() @ b.long().T)
    else:
        assert screen.screened(_unit(rng.standard_normal((600, 64))), _unit(a.numpy()), 5) is None


def test_vectors_without_structure_are_not_screened(rng, monkeypatch):
    monkeypatch.setattr(screen, "tiles_work", lambda: False)
    rows = _unit(rng.standard_normal((3000, 384)))
    small = _unit(rng.standard_normal((100, 384)))

    assert screen.screened(small, rows, 5) is None
    assert screen.screened(rows, small, 5) is None


def test_lists_hold_every_row_once(rng):
    x = _unit(rng.standard_normal((2100, 32)))
    centres = screen._centres(x)

    lists = screen._sort(x, x @ centres.T)

    held = lists.place[lists.place >= 0]
    assert torch.equal(held.sort().values, torch.arange(2100))
    assert torch.equal(lists.rows[lists.place >= 0], x[held])
    assert not lists.rows[lists.place < 0].any()
    assert torch.allclose(torch.linalg.vector_norm(centres, dim=1), torch.ones(len(centres)))
