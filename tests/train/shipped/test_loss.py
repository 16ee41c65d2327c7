from __future__ import annotations

import torch
from torch.nn import functional

from train.shipped.loss import contrast, marginal, reversed_gradient, total


def test_a_coarse_label_is_content_with_any_of_its_leaves() -> None:
    logits = torch.tensor([[9.0, 0.0, 0.0], [0.0, 9.0, 0.0]])
    coarse = torch.tensor([[True, True, False]] * 2)

    assert marginal(logits, coarse) < 0.001
    assert marginal(logits, ~coarse) > 8


def test_marginal_of_single_leaves_is_cross_entropy() -> None:
    torch.manual_seed(0)
    logits, leaf = torch.randn(5, 4), torch.tensor([0, 1, 2, 3, 0])

    expected = functional.cross_entropy(logits, leaf)

    assert (marginal(logits, functional.one_hot(leaf, 4).bool()) - expected).abs() < 1e-5


def test_contrast_is_low_where_kinds_lie_together() -> None:
    kinds = functional.one_hot(torch.tensor([0, 0, 1, 1]), 2).bool()
    places = torch.tensor([0, 1, 0, 1])
    together = torch.tensor([[1.0, 0], [1, 0], [0, 1], [0, 1]])
    by_place = torch.tensor([[1.0, 0], [0, 1], [1, 0], [0, 1]])

    assert contrast(together, kinds, places, 0.1) < 0.001
    assert contrast(by_place, kinds, places, 0.1) > 5


def test_coarse_labels_have_no_neighbours_to_pull() -> None:
    coarse = torch.ones(4, 2, dtype=torch.bool)
    vectors = functional.normalize(torch.randn(4, 3))

    assert contrast(vectors, coarse, torch.zeros(4), 0.1) == 0


def test_the_total_trains_vectors_and_kinds() -> None:
    torch.manual_seed(0)
    vectors = torch.randn(4, 3, requires_grad=True)
    kinds = torch.randn(2, 3, requires_grad=True)
    allowed = functional.one_hot(torch.tensor([0, 0, 1, 1]), 2).bool()

    total(
        functional.normalize(vectors), kinds, torch.eye(2).bool(), allowed, torch.zeros(4)
    ).backward()

    assert vectors.grad is not None
    assert kinds.grad is not None
    assert vectors.grad.abs().sum() > 0


def test_the_guess_of_the_laboratory_learns_while_its_gradient_is_turned() -> None:
    torch.manual_seed(0)
    places = torch.nn.Linear(4, 2)
    vectors = torch.randn(8, 4, requires_grad=True)
    laboratories = torch.tensor([0, 1] * 4)

    reversed_gradient(vectors, places, laboratories, 0.5).backward()
    turned = vectors.grad
    plain = vectors.detach().requires_grad_()
    torch.nn.functional.cross_entropy(places(plain), laboratories).backward()

    assert turned is not None
    assert plain.grad is not None
    assert torch.allclose(turned, -0.5 * plain.grad, atol=1e-6)
