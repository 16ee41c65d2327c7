"""Rows as bytes, and the centres of lists of like ones."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from search.index.contract import Vectors

Codes = NDArray[np.int8]
SAMPLE = 64
"""Rows for each list that its centre is found from."""
TOLD = 0.7
"""Share of the variance of rows that their main axes tell at least."""
ROUNDS = 8
CHUNK = 8_192
"""Rows compared with the centres at once."""


def in_bytes(rows: Vectors) -> tuple[Codes, NDArray[np.float32]]:
    """Rows of n x dim as one byte a number, and what each row's bytes are to be multiplied by."""
    scales = np.maximum(np.abs(rows).max(axis=1), np.float32(1e-12)) / np.float32(127)
    return np.rint(rows / scales[:, None]).astype(np.int8), scales.astype(np.float32)


def find_centres(codes: Codes, count: int) -> Vectors:
    """Directions of so many groups of like rows, by k-means over a sample; count x dim.

    The same centres for the same rows.

    Args:
        codes: Rows in bytes; n x dim. Their lengths do not matter.
        count: At most n.
    """
    rng = np.random.default_rng(0)
    sample = _drawn(codes, SAMPLE * count, rng)
    centres = sample[rng.choice(len(sample), count, replace=False)]
    for _ in range(ROUNDS):
        of = assigned(sample, centres)
        order = np.argsort(of, kind="stable")
        starts = np.searchsorted(of[order], np.arange(count + 1))
        filled = np.flatnonzero(starts[1:] > starts[:-1])
        centres = sample[rng.choice(len(sample), count)]  # an empty group starts anew
        centres[filled] = np.add.reduceat(sample[order], starts[filled])
        centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    return centres


def main_axes(codes: Codes, count: int) -> Vectors:
    """The axes along which rows are longest, by a sample; dim x `count` or, where those tell less
    than `TOLD` of how rows differ, as many as do.

    Args:
        codes: Rows in bytes; n x dim. Their lengths do not matter.
        count: Of axes, at least.
    """
    sample = _drawn(codes, SAMPLE * codes.shape[1], np.random.default_rng(0))
    squares, axes = np.linalg.eigh(sample.T @ sample / np.float32(len(sample)))
    variances = np.maximum(squares - (sample.mean(axis=0) @ axes) ** 2, 0)
    needed = int(np.searchsorted(np.cumsum(variances[::-1]), TOLD * variances.sum())) + 1
    return np.ascontiguousarray(axes[:, : -max(count, needed) - 1 : -1])


def assigned(rows: Codes | Vectors, centres: Vectors) -> NDArray[np.int64]:
    """For each row the number of its nearest centre."""
    return np.concatenate([np.argmax(part @ centres.T, axis=1) for part in _parts(rows)])


def _parts(rows: Codes | Vectors) -> Iterator[Vectors]:
    for at in range(0, len(rows), CHUNK):
        yield rows[at : at + CHUNK].astype(np.float32, copy=False)


def _drawn(codes: Codes, count: int, rng: np.random.Generator) -> Vectors:
    """Directions of so many rows, or of all."""
    drawn = rng.choice(len(codes), min(len(codes), count), replace=False)
    return _directions(codes[np.sort(drawn)])


def _directions(codes: Codes) -> Vectors:
    rows = codes.astype(np.float32)
    rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    return rows
