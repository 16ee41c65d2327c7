"""What case networks are trained to make small."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from train.mil.networks import Looked

EXTREME = 8
"""Cells at each end of the attention that CLAM clusters."""


def cox(risks: Tensor, times: Tensor, events: Tensor) -> Tensor:
    """Negative log partial likelihood of the order of events, per event.

    Cases of equal time share one risk set (Breslow 1974).

    Args:
        risks: n log hazards.
        times: n times until the event or the last news.
        events: n flags, true where the event came; at least one.
    """
    at_risk = times[None, :] >= times[:, None]
    whole = torch.logsumexp(risks[None, :].masked_fill(~at_risk, -torch.inf), dim=1)
    return (whole - risks)[events].mean()


def clustering(network: nn.Module, looked: Looked, labels: Tensor, there: Tensor) -> Tensor:
    """CLAM's second loss: its class tells the most attended cells from the least (Lu et al. 2021).

    With cross-entropy in place of their smooth SVM loss.

    Args:
        network: With `instances`, one classifier of cells for each class.
        looked: What it gave for some bags.
        labels: One class number for each bag.
        there: Bags x cells flags of what is no padding.
    """
    losses = []
    for at, size in enumerate(there.sum(dim=1).tolist()):
        if n := min(EXTREME, size // 2):
            order = looked.attention[at, :size].argsort(descending=True)
            chosen = looked.cells[at, torch.cat([order[:n], order[-n:]])]
            truth = torch.cat([torch.ones(n), torch.zeros(n)]).long()
            instances: nn.Module = network.instances[int(labels[at])]  # type: ignore[index, assignment]
            losses.append(nn.functional.cross_entropy(instances(chosen), truth))
    return torch.stack(losses).mean() if losses else looked.outputs.new_zeros(())


def following(attention: Tensor, factors: Tensor, there: Tensor) -> Tensor:
    """How far attention follows the factors of its cells: the mean squared correlation, 0 to 1.

    Args:
        attention: Bags x cells, 0 where there is no cell.
        factors: Bags x cells x factors; one that is the same for all cells counts 0.
        there: Bags x cells flags of what is no padding.
    """
    sizes = there.sum(dim=1, keepdim=True)
    a = (attention - 1 / sizes) * there
    f = factors - (factors * there[..., None]).sum(dim=1, keepdim=True) / sizes[..., None]
    f = f * there[..., None]
    spread = (a * a).sum(dim=1)[:, None] * (f * f).sum(dim=1)
    return ((a[:, None] @ f)[:, 0] ** 2 / (spread + 1e-12)).mean()
