"""The networks of case models in torch; `search.mil.pooling` computes the same without it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from search.mil.pooling import HEADS, KERNELS
from search.schemas.mil import Pooling


@dataclass(frozen=True)
class Looked:
    """What a network gives for some bags, padded to the size of the largest."""

    outputs: Tensor
    """Bags x classes, or bags x 1 (risk)."""
    attention: Tensor
    """Bags x cells, each row summing to 1; 0 where a bag has no cell."""
    cells: Tensor
    """The cells as the network pools them: bags x cells x width."""


class Entry(nn.Module):
    """Centres and scales vectors, and takes out the directions that factors explain."""

    centre: Tensor
    scale: Tensor
    removed: Tensor

    def __init__(
        self,
        centre: NDArray[np.floating],
        scale: float,
        removed: NDArray[np.floating] | None = None,
    ) -> None:
        """`removed`: r x dim, rows of length 1 at right angles."""
        super().__init__()
        none = np.zeros((0, len(centre)))
        for name, value in (("centre", centre), ("scale", scale), ("removed", removed)):
            kept = none if value is None else np.asarray(value)
            self.register_buffer(name, torch.tensor(kept, dtype=torch.float32))

    def forward(self, bag: Tensor) -> Tensor:
        """... x dim, the same shape."""
        cells = (bag - self.centre) / self.scale
        return cells - (cells @ self.removed.T) @ self.removed


class CaseNetwork(nn.Module):
    """A bag of cells to outputs and attention, by one of the poolings but `transmil`.

    `abmil`: attention pooling (Ilse, Tomczak, Welling 2018, equation 8), with the head of
    DinoBloom's code; `abmil_gated`: its equation 9; `clam_sb`: the single branch of CLAM (Lu et
    al. 2021), a layer before gated attention and a clustering of the extreme cells
    (`train.mil.losses.clustering`); `mean` and `max`: without attention.
    """

    def __init__(self, pooling: Pooling, entry: Entry, outputs: int, width: int = 128) -> None:
        super().__init__()
        self.pooling = pooling
        self.entry = entry
        dim = len(entry.centre)
        if pooling == "clam_sb":
            self.embed = nn.Linear(dim, width)
            self.instances = nn.ModuleList([nn.Linear(width, 2) for _ in range(outputs)])
            dim = width
        if pooling not in ("mean", "max"):
            self.tanh = nn.Linear(dim, width)
            self.score = nn.Linear(width, 1)
        if pooling in ("abmil_gated", "clam_sb"):
            self.gate = nn.Linear(dim, width)
        self.head = nn.Sequential(nn.Linear(dim, 64), nn.ReLU(), nn.Linear(64, outputs))

    def forward(self, bags: Tensor, there: Tensor) -> Looked:
        """Bags x cells x dim, and bags x cells flags of what is no padding."""
        cells = self.entry(bags)
        if self.pooling == "clam_sb":
            cells = torch.relu(self.embed(cells))
        even = there / there.sum(dim=1, keepdim=True)
        if self.pooling == "max":
            each = self.head(cells).masked_fill(~there[..., None], -torch.inf)
            return Looked(each.max(dim=1).values, even, cells)
        attention = even if self.pooling == "mean" else self._attention(cells, there)
        pooled = (attention[:, None] @ cells)[:, 0]
        return Looked(self.head(pooled), attention, cells)

    def _attention(self, cells: Tensor, there: Tensor) -> Tensor:
        hidden = torch.tanh(self.tanh(cells))
        if self.pooling != "abmil":
            hidden = hidden * torch.sigmoid(self.gate(cells))
        return torch.softmax(self.score(hidden)[..., 0].masked_fill(~there, -torch.inf), dim=1)


class _Mixing(nn.Module):
    """Self-attention of all rows, exact: bags of cells are small enough."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.out = nn.Linear(dim, dim)

    def forward(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """The mixed rows, and how the first row looks at all."""
        n, dim = rows.shape
        three = self.qkv(self.norm(rows)).reshape(n, 3, HEADS, dim // HEADS)
        query, key, value = three.permute(1, 2, 0, 3)
        looked = torch.softmax(query @ key.transpose(1, 2) / (dim // HEADS) ** 0.5, dim=-1)
        return self.out((looked @ value).transpose(0, 1).reshape(n, dim)), looked[:, 0].mean(dim=0)


class TransMIL(nn.Module):
    """A transformer over the cells with a class token (Shao et al. 2021, figure 3).

    Its Nystrom approximation is left out: attention is exact. Cells have no order; the square
    that positions are encoded in follows their ids, as the paper's follows its list of patches.
    """

    def __init__(self, entry: Entry, outputs: int, width: int = 128) -> None:
        super().__init__()
        self.entry = entry
        self.embed = nn.Linear(len(entry.centre), width)
        self.token = nn.Parameter(0.02 * torch.randn(1, width))
        self.first, self.second = _Mixing(width), _Mixing(width)
        for size in KERNELS:
            fold = nn.Conv2d(width, width, size, padding=size // 2, groups=width)
            self.add_module(f"place{size}", fold)
        self.last = nn.LayerNorm(width)
        self.out = nn.Linear(width, outputs)

    def forward(self, bags: Tensor, there: Tensor) -> Looked:
        """Bags x cells x dim, and bags x cells flags of what is no padding."""
        cells = torch.relu(self.embed(self.entry(bags)))
        outputs, attention = [], torch.zeros(there.shape)
        for at, size in enumerate(there.sum(dim=1).tolist()):
            found, looked = self._one(cells[at, :size])
            outputs.append(found)
            attention[at, :size] = looked.detach()
        return Looked(torch.stack(outputs), attention, cells)

    def _one(self, cells: Tensor) -> tuple[Tensor, Tensor]:
        n = len(cells)
        side = int(np.ceil(np.sqrt(n)))
        at = torch.arange(side * side) % n
        rows = torch.cat([self.token, cells[at]])
        rows = rows + self.first(rows)[0]
        square = rows[1:].T.reshape(1, -1, side, side)
        placed = square + sum(getattr(self, f"place{size}")(square) for size in KERNELS)
        rows = torch.cat([rows[:1], placed.flatten(2)[0].T])
        more, looked = self.second(rows)
        weights = torch.zeros(n).index_add(0, at, looked[1:])
        return self.out(self.last((rows + more)[0])), weights / weights.sum()


def network(pooling: Pooling, entry: Entry, outputs: int, width: int = 128) -> nn.Module:
    """A network with fresh weights."""
    if pooling == "transmil":
        return TransMIL(entry, outputs, width)
    return CaseNetwork(pooling, entry, outputs, width)


def weights_of(network: nn.Module) -> dict[str, NDArray[np.float32]]:
    """What `search.mil.pooling.Network` computes with."""
    return {
        name.removeprefix("entry."): value.detach().numpy().astype(np.float32)
        for name, value in network.state_dict().items()
        if not name.startswith("instances.")
    }
