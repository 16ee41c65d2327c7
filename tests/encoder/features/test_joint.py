"""A network and measured numbers as one encoder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from encoder import registry
from encoder.card import EncoderCard
from encoder.contract import EncoderError
from encoder.features.descriptors import (
    SIDE,
    WEIGHTS,
    Axes,
    Cast,
    evened_out,
    in_a_row,
    measure,
    without,
)
from encoder.features.joint import Beside
from encoder.image import resize
from encoder.networks import export
from train.smoke import KINDS, draw_cell

NAME = "vit_tiny_patch16_224"
SHAPE = {"embed_dim": 16, "num_heads": 2, "depth": 1, "class_token": False, "global_pool": "avg"}
DIM, SHORT = 16, 6


def cells(count: int = 2) -> list[NDArray[np.uint8]]:
    return [draw_cell(kind, 80, np.random.default_rng(n)) for kind in KINDS for n in range(count)]


def beside(weight: float = 2.0) -> Beside:
    numbers = len(in_a_row(measure(cells(1)[0])))
    axes = np.random.default_rng(1).normal(size=(numbers, SHORT)).astype(np.float32)
    return Beside(Axes(np.zeros(numbers, np.float32), axes), weight)


def written(folder: Path, part: Beside | None) -> EncoderCard:
    from encoder.networks import vit

    torch.manual_seed(0)
    model = vit.timm_model(NAME, 32, SHAPE)
    card = EncoderCard(
        id="both", architecture="", dim=DIM + (SHORT if part else 0), input_px=32, patch_px=16,
        pooling="mean",
    )  # fmt: skip
    return export.save(
        folder, card, model.state_dict(), timm_name=NAME, img_size=32, model_kwargs=SHAPE,
        beside=part,
    )  # fmt: skip


def test_a_joint_encoder_comes_back_from_disk_with_both_halves(tmp_path: Path) -> None:
    card = written(tmp_path / "both", beside(2.0))
    encoder = registry.load(str(tmp_path / "both"), device="cpu")

    vectors = encoder.embed(cells())

    assert encoder.card == card
    assert vectors.shape == (2 * len(KINDS), DIM + SHORT)
    lengths = np.linalg.norm(vectors[:, DIM:], axis=1) / np.linalg.norm(vectors[:, :DIM], axis=1)
    assert lengths == pytest.approx(2.0, rel=1e-3)


def test_its_first_half_is_the_network_on_images_without_their_cast(tmp_path: Path) -> None:
    written(tmp_path / "both", beside())
    written(tmp_path / "alone", None)
    both, alone = (registry.load(str(tmp_path / name), device="cpu") for name in ("both", "alone"))
    image = cells(1)[0]

    first = both.embed([image])[0, :DIM]
    _, cast = evened_out(resize(image, SIDE, "lanczos"))
    seen = without(resize(image, 32, both.card.resample), cast)
    assert first / np.linalg.norm(first) == pytest.approx(alone.embed([seen])[0], abs=2e-2)


def test_a_shift_of_all_hues_changes_next_to_nothing(tmp_path: Path) -> None:
    written(tmp_path / "both", beside())
    encoder = registry.load(str(tmp_path / "both"), device="cpu")
    images = cells()
    plain = encoder.embed(images)
    for by in (-0.1, 0.1):
        shifted = encoder.embed([without(image, Cast(by, 1)) for image in images])
        assert (plain * shifted).sum(axis=1).min() > 0.97


def test_patch_tokens_are_the_networks_and_silent_about_what_is_measured(tmp_path: Path) -> None:
    written(tmp_path / "both", beside())
    encoder = registry.load(str(tmp_path / "both"), device="cpu")

    vectors, patches = encoder.tokens(cells(1))

    assert patches.shape == (len(KINDS), 2, 2, DIM + SHORT)
    assert not patches[..., DIM:].any()
    assert patches[..., :DIM].any(axis=-1).all()
    assert vectors == pytest.approx(encoder.embed(cells(1)), abs=1e-2)


def test_the_weight_is_part_of_the_fingerprint(tmp_path: Path) -> None:
    prints = {written(tmp_path / str(w), beside(w)).fingerprint for w in (1.0, 2.0)}
    prints.add(written(tmp_path / "alone", None).fingerprint)
    assert len(prints) == 3


def test_training_on_from_a_joint_encoder_takes_its_network(tmp_path: Path) -> None:
    written(tmp_path / "both", beside())
    card, model = export.load_model(tmp_path / "both")
    assert (card.dim, card.architecture) == (DIM, NAME)
    assert not any(name.startswith("measured") for name in model.state_dict())


def test_numbers_of_another_version_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written(tmp_path / "both", beside())
    monkeypatch.setattr("encoder.features.joint.VERSION", "cells-v9")
    with pytest.raises(EncoderError, match=r"'measured-.*installation measures 'cells-v9'"):
        registry.load(str(tmp_path / "both"), device="cpu")


def test_every_group_has_its_place_in_the_row() -> None:
    groups = measure(cells(1)[0])
    assert len(in_a_row(groups)) == sum(len(groups[name]) for name in WEIGHTS)
