"""The DINOv2 losses: DINO on class tokens, iBOT on masked patches, KoLeo, and both centrings."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional

LOWEST = -60.0
"""exp of this, divided by millions, is still a normal float32."""


def world() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def summed(value: Tensor) -> Tensor:
    """The sum over all processes, in place."""
    if world() > 1:
        dist.all_reduce(value)
    return value


def cross_entropy(student: Tensor, targets: Tensor, temperature: float) -> Tensor:
    """-sum over k of targets_k log softmax(student / temperature)_k, for each row.

    Args:
        student: n x K scores before the softmax.
        targets: n x K, rows that sum to 1.
        temperature: Of the student.

    Returns:
        n float32 values. Written as logsumexp - <targets, scores>, which spares the n x K
        matrix of log-probabilities.
    """
    scores = student.float() / temperature
    return torch.logsumexp(scores, dim=-1) - (targets * scores).sum(dim=-1)


def dino_loss(students: list[Tensor], targets: list[Tensor], temperature: float) -> Tensor:
    """Cross-entropy of every student view with every teacher view (Caron et al. 2021, eq. 3).

    Args:
        students: Scores of each student view, n x K.
        targets: Probabilities of each teacher view, n x K.
        temperature: Of the student.

    Returns:
        Sum over the pairs of the mean over the images. Which pairs belong together is the
        caller's choice: equal views are to be left out.
    """
    pairs = [cross_entropy(s, t, temperature).mean() for s in students for t in targets]
    return torch.stack(pairs).sum()


def ibot_loss(
    student: Tensor, targets: Tensor, weights: Tensor, views: int, temperature: float
) -> Tensor:
    """Cross-entropy on the masked patches (Zhou et al. 2022, eq. 2).

    Args:
        student: Scores of the masked patches of all views, n x K.
        targets: The teacher's probabilities for the same patches, unmasked, n x K.
        weights: 1 / (masked patches of the patch's view), n.
        views: Views in the batch, those without a mask included.
        temperature: Of the student.

    Returns:
        Mean over the views of the mean over each view's masked patches.
    """
    return (cross_entropy(student, targets, temperature) * weights).sum() / views


def contrastive_loss(rows: Tensor, temperature: float) -> Tensor:
    """NT-Xent: each view has to find the other view of its image among all (Chen et al. 2020).

    Args:
        rows: 2n x dim; the first views of n images, then the second. Scaled to length 1 here.
        temperature: Cosines are divided by it.

    Returns:
        Mean cross-entropy over the 2n views. Other images of this process are the negatives.
    """
    with torch.autocast(rows.device.type, enabled=False):
        unit = functional.normalize(rows.float(), dim=-1)
        scores = unit @ unit.T / temperature
        scores.fill_diagonal_(-torch.inf)
        n = len(rows) // 2
        other = torch.arange(2 * n, device=rows.device).roll(n)
        return functional.cross_entropy(scores, other)


def guide_loss(predicted: Tensor, wanted: Tensor) -> Tensor:
    """Mean squared error over the mean square of what is wanted: 1 for predicting nothing.

    Args:
        predicted: n x numbers.
        wanted: n x numbers, centred over the whole set.
    """
    wanted = wanted.float()
    return (predicted.float() - wanted).square().mean() / wanted.square().mean().clamp_min(1e-12)


def koleo_loss(tokens: Tensor) -> Tensor:
    """-mean log distance to the nearest other row (Sablayrolles et al. 2019, eq. 2).

    Args:
        tokens: n x dim; scaled to length 1 here.

    Returns:
        One number; 0 for a single row, which has no other to keep away from.
    """
    if len(tokens) < 2:
        return tokens.float().sum() * 0
    eps = 1e-8
    with torch.autocast(tokens.device.type, enabled=False):
        rows = functional.normalize(tokens.float(), dim=-1, eps=eps)
        with torch.no_grad():
            cosines = rows @ rows.T
            nearest = cosines.fill_diagonal_(-1.0).argmax(dim=1)
        distances = (rows - rows[nearest] + eps).norm(dim=1)
        return -torch.log(distances + eps).mean()


@torch.no_grad()
def sinkhorn_knopp(scores: Tensor, temperature: float, iterations: int = 3) -> Tensor:
    """Targets that use every prototype equally (Caron et al. 2020, section 3.1).

    Args:
        scores: n x K of this process; n may be 0 here, if not everywhere.
        temperature: Of the teacher.
        iterations: Of normalising prototypes, then images.

    Returns:
        n x K float32. Each row sums to 1; with iterations, each prototype's total over all
        processes tends to n / K.
    """
    q = scores.float() / temperature
    top = q.amax() if q.numel() else q.new_tensor(-torch.inf)
    if world() > 1:
        dist.all_reduce(top, op=dist.ReduceOp.MAX)
    q -= top
    if len(q):  # a row so far below the top that exp would make it zero is lifted until it is not
        q += (LOWEST - q.amax(dim=1, keepdim=True)).clamp_min(0)
    q = torch.exp_(q)
    prototypes = q.shape[1]
    images = summed(q.new_tensor(float(q.shape[0])))
    q /= summed(q.sum())
    for _ in range(iterations):
        q /= summed(q.sum(dim=0, keepdim=True)).clamp_min(1e-30) * prototypes
        q /= q.sum(dim=1, keepdim=True).clamp_min(1e-30) * images
    return q * images


class MovingAverage(nn.Module):
    """Centring by a moving average of the teacher's scores (Caron et al. 2021, eq. 4)."""

    center: Tensor

    def __init__(self, prototypes: int, momentum: float = 0.9) -> None:
        super().__init__()
        self.momentum = momentum
        self.register_buffer("center", torch.zeros(1, prototypes))

    @torch.no_grad()
    def forward(self, scores: Tensor, temperature: float) -> Tensor:
        """Softmax of the centred scores; the centre then moves towards these scores."""
        scores = scores.float()
        targets = torch.softmax((scores - self.center) / temperature, dim=-1)
        count = summed(scores.new_tensor(float(len(scores))))
        total = summed(scores.sum(dim=0, keepdim=True))
        if count > 0:
            self.center.lerp_(total / count, 1 - self.momentum)
        return targets


class SinkhornKnopp(nn.Module):
    """Centring without a state."""

    def forward(self, scores: Tensor, temperature: float) -> Tensor:
        """See `sinkhorn_knopp`."""
        return sinkhorn_knopp(scores, temperature)
