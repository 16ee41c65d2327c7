"""What a trained case model computes, in numpy: bags of vectors to outputs and attention."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from search.schemas.mil import Pooling

Floats = NDArray[np.float32]
Weights = Mapping[str, Floats]
"""By the names that `train.mil.networks` gives them."""
HEADS = 4
"""Attention heads of `transmil`."""
KERNELS = (7, 5, 3)
"""Of its position encoding (Shao et al. 2021, section 3.3)."""
EPSILON = 1e-5


@dataclass(frozen=True)
class Network:
    """One trained network."""

    pooling: Pooling
    weights: Weights

    def __call__(self, bag: Floats) -> tuple[Floats, Floats]:
        """The outputs of a bag, and how much each cell counted.

        Args:
            bag: cells x dim, at least one cell.

        Returns:
            One output per class (a logit), or one risk; and one weight per cell, summing to 1.
        """
        cells = self.entered(np.asarray(bag, np.float32))
        if self.pooling == "transmil":
            return self._transmil(cells)
        if self.pooling == "max":
            each = self._head(cells)
            outputs = each.max(axis=0)
            alone = np.zeros(len(cells), np.float32)
            alone[each[:, outputs.argmax()].argmax()] = 1
            return outputs, alone
        attention = softmax(self._scores(cells))
        return self._head(attention @ cells), attention

    def left_out(self, bag: Floats) -> Floats | None:
        """The outputs of a bag without each of its cells in turn, however it pools them.

        What an answer loses with a cell says what the cell did for it; attention alone does not:
        a head may read an attended cell as a sign against its class ("one removed" in Early,
        Evers and Ramchurn 2022, section 3.1).

        Returns:
            cells x outputs; `None` of a single cell, and of `transmil`, whose cells change each
            other: every one left out would be a whole pass.
        """
        cells = self.entered(np.asarray(bag, np.float32))
        if self.pooling == "transmil" or len(cells) < 2:
            return None
        if self.pooling == "max":
            each = self._head(cells)
            second, first = np.sort(each, axis=0)[-2:]
            alone = (each == first) & ((each == first).sum(axis=0) == 1)
            return np.asarray(np.where(alone, second, first), np.float32)
        scores = self._scores(cells)
        attention = softmax(scores)[:, None]
        most = int(attention.argmax())  # of the others none has more than half
        rest = np.delete(np.arange(len(cells)), most)
        share = np.maximum(1 - attention, np.float32(0.5))
        pooled = np.asarray((attention.T @ cells - attention * cells) / share, np.float32)
        pooled[most] = softmax(scores[rest]) @ cells[rest]
        return self._head(pooled)

    def entered(self, bag: Floats) -> Floats:
        """The cells as the network takes them: centred, scaled, without what factors explain."""
        cells = (bag - self.weights["centre"]) / self.weights["scale"]
        removed = self.weights["removed"]
        cells = cells - (cells @ removed.T) @ removed
        if "embed.weight" in self.weights:
            cells = np.maximum(self._linear("embed", cells), 0)
        return np.asarray(cells, np.float32)

    def _scores(self, cells: Floats) -> Floats:
        """What attention is the softmax of."""
        if self.pooling == "mean":
            return np.zeros(len(cells), np.float32)
        hidden = np.tanh(self._linear("tanh", cells))
        if "gate.weight" in self.weights:
            hidden = hidden / (1 + np.exp(-self._linear("gate", cells)))
        return self._linear("score", hidden)[:, 0]

    def _head(self, vectors: Floats) -> Floats:
        return self._linear("head.2", np.maximum(self._linear("head.0", vectors), 0))

    def _linear(self, name: str, rows: NDArray[np.floating]) -> Floats:
        found = rows @ self.weights[f"{name}.weight"].T + self.weights[f"{name}.bias"]
        return np.asarray(found, np.float32)

    def _transmil(self, cells: Floats) -> tuple[Floats, Floats]:
        n = len(cells)
        side = int(np.ceil(np.sqrt(n)))
        at = np.arange(side * side) % n  # the square is filled up with the first cells again
        rows = np.concatenate([self.weights["token"], cells[at]])
        rows = rows + self._mixed("first", rows)[0]
        rows[1:] = self._placed(rows[1:], side)
        more, looked = self._mixed("second", rows)
        token = self._normed("last", (rows + more)[:1])
        weights = np.bincount(at, looked[1:], n)
        return self._linear("out", token)[0], np.asarray(weights / weights.sum(), np.float32)

    def _mixed(self, layer: str, rows: Floats) -> tuple[Floats, Floats]:
        """Self-attention of a layer, and how the first row looks at all (mean of the heads)."""
        n, dim = rows.shape
        three = self._linear(f"{layer}.qkv", self._normed(f"{layer}.norm", rows))
        query, key, value = three.reshape(n, 3, HEADS, dim // HEADS).transpose(1, 2, 0, 3)
        looked = softmax(query @ key.transpose(0, 2, 1) / np.sqrt(np.float32(dim // HEADS)))
        out = (looked @ value).transpose(1, 0, 2).reshape(n, dim)
        return self._linear(f"{layer}.out", out), looked[:, 0].mean(axis=0)

    def _normed(self, name: str, rows: Floats) -> Floats:
        off = rows - rows.mean(axis=-1, keepdims=True)
        spread = np.sqrt((off * off).mean(axis=-1, keepdims=True) + np.float32(EPSILON))
        found = off / spread * self.weights[f"{name}.weight"] + self.weights[f"{name}.bias"]
        return np.asarray(found, np.float32)

    def _placed(self, rows: Floats, side: int) -> Floats:
        """Position encoding: depthwise convolutions over the cells laid out in a square."""
        square = rows.T.reshape(-1, side, side)
        total = square.copy()
        for size in KERNELS:
            kernel = self.weights[f"place{size}.weight"][:, 0]
            padded = np.pad(square, ((0, 0), (size // 2,) * 2, (size // 2,) * 2))
            for y in range(size):
                for x in range(size):
                    part = padded[:, y : y + side, x : x + side]
                    total = total + kernel[:, y, x, None, None] * part
            total = total + self.weights[f"place{size}.bias"][:, None, None]
        return np.asarray(total.reshape(len(square), -1).T, np.float32)


def softmax(rows: NDArray[np.floating]) -> Floats:
    """Over the last axis."""
    raised = np.exp(rows - rows.max(axis=-1, keepdims=True))
    return np.asarray(raised / raised.sum(axis=-1, keepdims=True), np.float32)
