"""Block masks for iBOT (Bao et al. 2022, algorithm 1), for all views at once."""

from __future__ import annotations

from dataclasses import dataclass
from math import log

import torch
from torch import Tensor

ASPECT = (log(0.3), log(1 / 0.3))
"""Logarithm of a block's height over its width."""
SMALLEST = 4
"""Patches in the smallest block that is drawn."""
TRIES = 10
"""Blocks in a row that may fail before a view keeps the mask it has."""


@dataclass(frozen=True)
class Masks:
    """Which patches the student does not see."""

    patches: Tensor
    """views x patches, bool, in reading order."""
    index: Tensor
    """Positions of the masked patches in the flattened `patches`."""
    weights: Tensor
    """For each of them, 1 / (masked patches of its view)."""

    def to(self, device: torch.device) -> Masks:
        """The same on another device."""
        return Masks(*(t.to(device, non_blocking=True) for t in vars(self).values()))


def draw_masks(
    views: int,
    side: int,
    probability: float,
    ratio: tuple[float, float],
    generator: torch.Generator,
) -> Masks:
    """Draw the masks of one batch on the CPU, where their number is known without waiting.

    As in DINOv2's collation, a share `probability` of the views is masked; their shares of
    masked patches are spread evenly over `ratio`.

    Args:
        views: Number of views.
        side: Patches along one side of a view.
        probability: Share of views that have a mask.
        ratio: Least and largest share of masked patches in such a view.
        generator: Of the CPU.
    """
    masked = round(views * probability)
    steps = torch.linspace(ratio[0], ratio[1], masked + 1)
    shares = steps[:-1] + torch.rand(masked, generator=generator) * steps.diff()
    goals = torch.zeros(views, dtype=torch.long)
    goals[:masked] = (shares * side * side).long()
    goals = goals[torch.randperm(views, generator=generator)]
    patches = _blocks(goals, side, generator).flatten(1)
    index = patches.flatten().nonzero().flatten()
    counts = patches.sum(dim=1).clamp_min(1)
    weights = (1.0 / counts).unsqueeze(1).expand_as(patches).flatten()[index]
    return Masks(patches, index, weights)


def _blocks(goals: Tensor, side: int, generator: torch.Generator) -> Tensor:
    """Cover `goals[i]` patches of view i with rectangles, every view one rectangle a round."""
    views = len(goals)
    mask = torch.zeros(views, side, side, dtype=torch.bool)
    done = torch.zeros(views, dtype=torch.long)
    failures = torch.zeros(views, dtype=torch.long)
    most = side * side // 2
    line = torch.arange(side)
    while True:
        open_ = (done < goals) & (failures < TRIES)
        if not open_.any():
            return mask
        left = (goals - done).clamp(max=most)
        u = torch.rand(4, views, generator=generator)
        area = SMALLEST + u[0] * (left - SMALLEST)
        aspect = torch.exp(ASPECT[0] + u[1] * (ASPECT[1] - ASPECT[0]))
        high = (area * aspect).sqrt().round().long()
        wide = (area / aspect).sqrt().round().long()
        top = (u[2] * (side - high + 1)).long()
        start = (u[3] * (side - wide + 1)).long()
        rows = (line >= top[:, None]) & (line < (top + high)[:, None])
        columns = (line >= start[:, None]) & (line < (start + wide)[:, None])
        fresh = rows[:, :, None] & columns[:, None, :] & ~mask
        new = fresh.sum(dim=(1, 2))
        taken = open_ & (high < side) & (wide < side) & (new > 0) & (new <= left)
        mask |= fresh & taken[:, None, None]
        done += new * taken
        failures = torch.where(taken, 0, failures + 1)
