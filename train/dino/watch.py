"""The watch over a run: a kNN probe with the vote that is served, and signs of collapse."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from search.votes.knn import votes
from train.config import TrainConfig
from train.data.images import Images, open_source
from train.data.source import DataError


@dataclass(frozen=True)
class Look:
    """What one look at the encoder saw."""

    step: int
    rank: float
    """Effective rank of the centred vectors."""
    cosine: float
    """Mean cosine between two images."""
    knn: float | None = None
    """Balanced accuracy of the probe; `None` without one."""
    knn_accuracy: float | None = None
    """Share of the probe's images that the vote gets right."""


@dataclass(frozen=True)
class Probe:
    """Images to look at, and labels where there are any."""

    images: Tensor
    """n x 3 x px x px uint8."""
    labels: NDArray[np.int64] | None
    names: tuple[str, ...] = ()
    """Of the label numbers."""


def load_probe(config: TrainConfig, px: int) -> Probe | None:
    """The labelled images of `config.probe`, evenly over the labels; `None` without one.

    Raises:
        DataError: no labels, or fewer than two of them.
    """
    if config.probe is None:
        return None
    source = open_source(config.probe)
    labels = [source.label(at) for at in range(len(source))]
    names = tuple(sorted({label for label in labels if label is not None}))
    if len(names) < 2:
        raise DataError(f"probe {config.probe} needs at least two labels, it has {names}")
    each = max(config.probe_images // len(names), 2)
    rng = np.random.default_rng((config.seed, 3))
    images = Images([source], px, config.resample, config.max_corrupt)
    rows: list[NDArray[np.uint8]] = []
    numbers: list[int] = []
    for number, name in enumerate(names):
        own = np.array([at for at, label in enumerate(labels) if label == name])
        for at in rng.permutation(own)[:each]:
            image = images.decode(int(at))
            if image is not None:
                rows.append(image)
                numbers.append(number)
    stack = torch.from_numpy(np.stack(rows)).permute(0, 3, 1, 2)
    return Probe(stack, np.array(numbers), names)


def knn_probe(
    vectors: Tensor, labels: NDArray[np.int64], classes: int, k: int
) -> tuple[float, float]:
    """Leave-one-out vote of the k nearest by cosine.

    Returns:
        Balanced accuracy (mean over the labels) and accuracy.
    """
    rows = functional.normalize(vectors.float(), dim=1)
    k = min(k, len(rows) - 1)
    near, scores = [], []
    for start in range(0, len(rows), 1024):
        cosines = rows[start : start + 1024] @ rows.T
        own = torch.arange(len(cosines), device=rows.device)
        cosines[own, own + start] = -torch.inf
        top = cosines.topk(k, dim=1)
        near.append(top.indices.cpu().numpy())
        scores.append(top.values.cpu().numpy())
    predicted = votes(
        labels[np.concatenate(near)], np.concatenate(scores), classes, "uniform"
    ).first
    right = predicted == labels
    balanced = [float(right[labels == c].mean()) for c in range(classes) if (labels == c).any()]
    return float(np.mean(balanced)), float(right.mean())


def effective_rank(vectors: Tensor) -> float:
    """exp of the entropy of the centred vectors' singular values (Roy and Vetterli 2007)."""
    rows = vectors.double()
    values = torch.linalg.svdvals(rows - rows.mean(dim=0))
    shares = values / values.sum().clamp_min(1e-12)
    return float(torch.exp(-(shares * torch.log(shares.clamp_min(1e-12))).sum()))


def mean_cosine(vectors: Tensor) -> float:
    """Mean cosine over all pairs of different images."""
    rows = functional.normalize(vectors.double(), dim=1)
    n = len(rows)
    return float((rows.sum(dim=0).square().sum() - n) / (n * (n - 1)))


def look(
    step: int, probe: Probe, embed: Callable[[Tensor], Tensor], k: int, batch: int = 128
) -> Look:
    """Embed the probe's images and judge them."""
    parts = [embed(probe.images[at : at + batch]) for at in range(0, len(probe.images), batch)]
    vectors = torch.cat(parts).float().cpu()
    rank, cosine = effective_rank(vectors[:1000]), mean_cosine(vectors)
    if probe.labels is None:
        return Look(step, rank, cosine)
    balanced, accuracy = knn_probe(vectors, probe.labels, len(probe.names), k)
    return Look(step, rank, cosine, balanced, accuracy)


def collapsed(looks: list[Look], config: TrainConfig) -> str | None:
    """Why the last looks show a collapse; `None` if they do not.

    Random weights give nearly equal vectors, so a high cosine counts only once the warm-up of
    the learning rate is over and when it has not come down from the start's.
    """
    if len(looks) <= config.collapse_patience:
        return None
    start, last = looks[0], looks[-config.collapse_patience :]
    if last[0].step < config.warmup_steps:
        return None
    if all(one.cosine > max(config.collapse_cosine, start.cosine) for one in last):
        return f"the mean cosine between images is {last[-1].cosine:.4f}"
    if all(one.rank < max(config.collapse_rank * start.rank, 1.5) for one in last):
        return f"the effective rank fell from {start.rank:.1f} to {last[-1].rank:.1f}"
    return None
