"""What labels say to an embedding: its kind, its parent kind, and whose neighbour it is."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


def marginal(logits: Tensor, allowed: Tensor) -> Tensor:
    """Cross-entropy where a label may be one of several leaves.

    Args:
        logits: n x leaves.
        allowed: n x leaves, which it may be.

    Returns:
        One number: the mean of minus the logarithm of the allowed leaves' summed probability.
    """
    log_probabilities = logits.log_softmax(1).masked_fill(~allowed, -1e4)
    return -log_probabilities.logsumexp(1).mean()


def contrast(vectors: Tensor, allowed: Tensor, laboratories: Tensor, temperature: float) -> Tensor:
    """Supervised contrast (Khosla et al. 2020, arXiv 2004.11362) among cells of one known leaf.

    Neighbours are what is served, so equal kinds are pulled together; twice as much where the two
    cells are of different laboratories.

    Args:
        vectors: n x dim, of length 1.
        allowed: n x leaves.
        laboratories: n numbers.
        temperature: Of the cosines.
    """
    rows = (allowed.sum(1) == 1).nonzero()[:, 0]
    own, leaf, place = vectors[rows], allowed[rows].int().argmax(1), laboratories[rows]
    itself = torch.eye(len(rows), dtype=torch.bool, device=vectors.device)
    near = (own @ own.T / temperature).masked_fill(itself, -1e4)
    alike = ((leaf[:, None] == leaf) & ~itself).float()
    weight = alike * (1 + (place[:, None] != place).float())
    each = -(weight * near.log_softmax(1)).sum(1) / weight.sum(1).clamp(min=1)
    some = weight.sum(1) > 0
    return each[some].mean() if some.any() else vectors.sum() * 0


def reversed_gradient(
    vectors: Tensor, places: nn.Module, laboratories: Tensor, weight: float
) -> Tensor:
    """Cross-entropy of guessing the laboratory; the gradient that reaches the vectors is reversed.

    So the guess gets better while the vectors give less away (Ganin et al. 2016, arXiv 1505.07818;
    AdvDINO).

    Args:
        vectors: n x dim.
        places: Guesses, dim to laboratories.
        laboratories: n numbers.
        weight: Times the gradient, before its sign is turned.
    """
    turned = (1 + weight) * vectors.detach() - weight * vectors
    return functional.cross_entropy(places(turned), laboratories)


def total(
    vectors: Tensor,
    kinds: Tensor,
    siblings: Tensor,
    allowed: Tensor,
    laboratories: Tensor,
    *,
    scale: float = 16.0,
    temperature: float = 0.1,
) -> Tensor:
    """Kind + 0.3 parent + 0.5 contrast.

    Args:
        vectors: n x dim, of length 1.
        kinds: leaves x dim, a direction for each leaf.
        siblings: leaves x leaves, which are of one parent.
        allowed: n x leaves.
        laboratories: n numbers.
        scale: Of cosines as logits.
        temperature: Of the contrast.
    """
    logits = scale * vectors @ functional.normalize(kinds).T
    family = (allowed.float() @ siblings.float()) > 0
    pulled = contrast(vectors, allowed, laboratories, temperature)
    return marginal(logits, allowed) + 0.3 * marginal(logits, family) + 0.5 * pulled
