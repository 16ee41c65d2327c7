from __future__ import annotations

from math import exp, log

import pytest
import torch

from train.dino.loss import (
    MovingAverage,
    contrastive_loss,
    cross_entropy,
    dino_loss,
    guide_loss,
    ibot_loss,
    koleo_loss,
    sinkhorn_knopp,
)


def softmax(row: list[float], temperature: float) -> list[float]:
    powers = [exp(v / temperature) for v in row]
    return [p / sum(powers) for p in powers]


def slow_cross_entropy(student: list[float], target: list[float], temperature: float) -> float:
    chances = softmax(student, temperature)
    return -sum(t * log(c) for t, c in zip(target, chances, strict=True))


@pytest.fixture(name="scores")
def _scores() -> torch.Tensor:
    return torch.randn(6, 5, generator=torch.Generator().manual_seed(1))


@pytest.fixture(name="targets")
def _targets() -> torch.Tensor:
    return torch.softmax(torch.randn(6, 5, generator=torch.Generator().manual_seed(2)) * 3, dim=1)


def test_cross_entropy_is_minus_target_times_log_softmax(scores, targets):
    slow = [
        slow_cross_entropy(s, t, 0.1)
        for s, t in zip(scores.tolist(), targets.tolist(), strict=True)
    ]
    assert cross_entropy(scores, targets, 0.1).tolist() == pytest.approx(slow, rel=1e-5)


def test_the_dino_loss_sums_over_pairs_of_views_and_averages_over_images(scores, targets):
    students, teachers = list(scores.chunk(3)), list(targets.chunk(3))[:2]
    slow = 0.0
    for s in students:
        for t in teachers:
            rows = zip(s.tolist(), t.tolist(), strict=True)
            slow += sum(slow_cross_entropy(a, b, 0.1) for a, b in rows) / 2
    assert float(dino_loss(students, teachers, 0.1)) == pytest.approx(slow, rel=1e-5)


def test_the_ibot_loss_averages_within_each_view_and_then_over_all_views(scores, targets):
    owner = [0, 0, 0, 2, 2, 5]  # views 1, 3, 4 and 6 of 7 have no mask
    counts = {view: owner.count(view) for view in owner}
    slow = 0.0
    for view in range(7):
        mine = [i for i, o in enumerate(owner) if o == view]
        if mine:
            values = [
                slow_cross_entropy(scores[i].tolist(), targets[i].tolist(), 0.1) for i in mine
            ]
            slow += sum(values) / len(values)
    weights = torch.tensor([1 / counts[o] for o in owner])
    assert float(ibot_loss(scores, targets, weights, 7, 0.1)) == pytest.approx(slow / 7, rel=1e-5)


def test_no_masked_patch_gives_an_ibot_loss_of_zero():
    empty = torch.empty(0, 5)
    assert float(ibot_loss(empty, empty, torch.empty(0), 4, 0.1)) == 0.0


def test_koleo_is_minus_the_mean_log_distance_to_the_nearest_other(scores):
    rows = [[v / sum(w * w for w in row) ** 0.5 for v in row] for row in scores.tolist()]
    slow = 0.0
    for i, a in enumerate(rows):
        distances = [
            sum((x - y) ** 2 for x, y in zip(a, b, strict=True)) ** 0.5
            for j, b in enumerate(rows)
            if j != i
        ]
        slow -= log(min(distances)) / len(rows)
    assert float(koleo_loss(scores)) == pytest.approx(slow, rel=1e-4)


def test_koleo_is_finite_for_equal_vectors():
    tokens = torch.ones(4, 5, requires_grad=True)
    value = koleo_loss(tokens)
    value.backward()
    assert value.isfinite()
    assert tokens.grad is not None
    assert tokens.grad.isfinite().all()


def slow_sinkhorn(scores: torch.Tensor, temperature: float, iterations: int) -> torch.Tensor:
    """Algorithm of Caron et al. 2020, appendix: prototypes x images, one loop per division."""
    q = torch.exp(scores.double() / temperature).T.clone()
    prototypes, images = q.shape
    q = q / q.sum()
    for _ in range(iterations):
        for k in range(prototypes):
            q[k] = q[k] / q[k].sum() / prototypes
        for n in range(images):
            q[:, n] = q[:, n] / q[:, n].sum() / images
    return (q * images).T


def test_sinkhorn_knopp_follows_its_algorithm(scores):
    got = sinkhorn_knopp(scores, 0.5)
    assert torch.allclose(got.double(), slow_sinkhorn(scores, 0.5, 3), atol=1e-6)


def test_sinkhorn_knopp_gives_every_image_one_and_every_prototype_its_share(scores):
    got = sinkhorn_knopp(scores, 0.5, iterations=50)
    assert torch.allclose(got.sum(dim=1), torch.ones(6), atol=1e-5)
    assert torch.allclose(got.sum(dim=0), torch.full((5,), 6 / 5), atol=1e-3)


def test_sinkhorn_knopp_stays_finite_at_a_low_temperature():
    wide = torch.randn(8, 16, generator=torch.Generator().manual_seed(3)) * 20
    got = sinkhorn_knopp(wide, 0.04)
    assert got.isfinite().all()
    assert torch.allclose(got.sum(dim=1), torch.ones(8), atol=1e-5)


def test_sinkhorn_knopp_of_nothing_is_nothing():
    assert sinkhorn_knopp(torch.empty(0, 5), 0.1).shape == (0, 5)


def test_the_moving_average_centres_with_the_past_and_then_moves(scores):
    centring = MovingAverage(5, momentum=0.9)
    first = centring(scores, 0.1)
    assert torch.allclose(first, torch.softmax(scores / 0.1, dim=1))
    mean = scores.mean(dim=0, keepdim=True)
    assert torch.allclose(centring.center, 0.1 * mean, atol=1e-6)
    second = centring(scores, 0.1)
    assert torch.allclose(second, torch.softmax((scores - 0.1 * mean) / 0.1, dim=1), atol=1e-5)


def test_the_contrastive_loss_is_the_cross_entropy_of_finding_the_other_view():
    rows = torch.randn(6, 4, generator=torch.Generator().manual_seed(3))
    unit = [[v / sum(w * w for w in row) ** 0.5 for v in row] for row in rows.tolist()]
    slow = 0.0
    for at, one in enumerate(unit):
        cosines = {
            other: sum(a * b for a, b in zip(one, unit[other], strict=True)) / 0.5
            for other in range(6)
            if other != at
        }
        slow -= cosines[(at + 3) % 6] - log(sum(exp(c) for c in cosines.values()))
    assert float(contrastive_loss(rows, 0.5)) == pytest.approx(slow / 6, rel=1e-5)


def test_equal_views_of_different_images_leave_little_to_contrast():
    rows = torch.eye(4).repeat(2, 1)
    assert float(contrastive_loss(rows, 0.05)) < 1e-6


def test_the_guide_loss_is_one_for_predicting_nothing_and_nothing_for_the_truth():
    wanted = torch.randn(5, 3, generator=torch.Generator().manual_seed(4))
    assert float(guide_loss(torch.zeros(5, 3), wanted)) == pytest.approx(1.0)
    assert float(guide_loss(wanted, wanted)) == 0.0
