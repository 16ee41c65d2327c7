from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from encoder import registry
from encoder.contract import EncoderError, NoPatchTokens
from encoder.features.descriptors import Axes
from encoder.features.measured import AXES, read_axes, write_axes
from train.smoke import KINDS, draw_cell


def cells(kind: str, count: int = 3) -> list[np.ndarray]:
    return [draw_cell(kind, 96, np.random.default_rng(seed)) for seed in range(count)]


def test_it_needs_no_download_and_says_what_it_is() -> None:
    encoder = registry.load("measured")
    assert encoder.card.dim == 256
    assert encoder.card.weights_sha256
    assert "No network" in encoder.card.notes
    assert encoder.card.fingerprint == registry.load("measured").card.fingerprint


def test_cells_of_one_kind_are_nearer_than_cells_of_another() -> None:
    encoder = registry.load("measured")
    vectors = encoder.embed([image for kind in KINDS for image in cells(kind)])
    kinds = np.repeat(np.arange(len(KINDS)), 3)
    cosines = vectors @ vectors.T
    same = (kinds[:, None] == kinds) & ~np.eye(len(kinds), dtype=bool)
    assert cosines[same].mean() > cosines[kinds[:, None] != kinds].mean() + 0.2


def test_a_blank_image_has_a_vector_too() -> None:
    (vector,) = registry.load("measured").embed([np.full((30, 40, 3), 240, np.uint8)])
    assert np.linalg.norm(vector) == pytest.approx(1.0, abs=1e-5)


def test_it_has_no_patches_to_explain() -> None:
    with pytest.raises(NoPatchTokens):
        registry.load("measured").tokens(cells("lymphocyte", 1))


def test_other_axes_are_another_encoder(tmp_path: Path) -> None:
    ours = read_axes(AXES)
    write_axes(tmp_path / "axes.npz", Axes(ours.mean, ours.axes[:, :16]))
    other = registry.load("measured", weights=tmp_path / "axes.npz")
    assert other.card.dim == 16
    assert other.card.fingerprint != registry.load("measured").card.fingerprint


def test_axes_that_are_damaged_are_named(tmp_path: Path) -> None:
    (tmp_path / "axes.npz").write_bytes(b"PK not a table")
    with pytest.raises(
        EncoderError, match=r"axes\.npz cannot be read as axes.*train\.shipped\.axes"
    ):
        registry.load("measured", weights=tmp_path / "axes.npz")
