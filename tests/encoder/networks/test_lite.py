"""The convolutional encoder: what it computes, how it is exported, what its patches are."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from encoder import registry
from encoder.card import EncoderCard
from encoder.contract import EncoderError
from encoder.networks import convolutional, export
from encoder.networks.engines import Torch
from encoder.networks.lite import NAME, Conv, Lite

CARD = EncoderCard(
    id="ours", architecture="", dim=8, input_px=64, patch_px=16, pooling="mean",
    mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5), resample="bilinear",
)  # fmt: skip


@pytest.fixture(name="model")
def _model() -> Lite:
    torch.manual_seed(0)
    return Lite(8, (1.0, 0.75)).eval()


def _saved(folder: Path, model: Lite, card: EncoderCard = CARD) -> EncoderCard:
    return export.save(
        folder, card, model.state_dict(), timm_name=NAME, img_size=card.input_px,
        model_kwargs={"dim": 8, "looks": [1.0, 0.75]},
    )  # fmt: skip


def test_a_gain_is_folded_into_its_convolution_without_a_change() -> None:
    torch.manual_seed(0)
    layer = Conv(4, 6, 3, 2)
    layer.gain = torch.nn.Parameter(torch.rand(6) + 0.5)
    x = torch.randn(2, 4, 8, 8)

    before = layer(x)
    layer.fold()

    assert layer.gain is None
    assert (layer(x) - before).abs().max() < 1e-6


def test_same_padding_is_that_of_timm() -> None:
    from timm.layers import Conv2dSame

    torch.manual_seed(0)
    for kernel in (3, 5):
        ours, theirs = Conv(3, 5, kernel, 2, act=False), Conv2dSame(3, 5, kernel, 2)
        theirs.load_state_dict({"weight": ours.weight, "bias": ours.bias})
        x = torch.randn(1, 3, 10, 10)
        assert (ours(x) - theirs(x)).abs().max() < 1e-5


def test_no_gradient_reaches_the_frozen_parts(model: Lite) -> None:
    model.forward_features(torch.randn(1, 3, 32, 32), frozen=2).sum().backward()

    assert model.stem.weight.grad is None
    assert all(p.grad is None for p in model.stages[0].parameters())
    assert all(p.grad is not None for p in model.stages[1].parameters())


def test_an_exported_network_gives_its_own_vectors_and_a_fine_grid_of_patches(
    model: Lite, rng: np.random.Generator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(convolutional, "choose", lambda f, device, side: Torch(f, device))
    card = _saved(tmp_path / "e", model)
    encoder = registry.load(str(tmp_path / "e"), device="cpu")
    images = rng.integers(0, 256, (3, 64, 64, 3), dtype=np.uint8)

    rows, patches = encoder.tokens(list(images))

    assert encoder.card == card
    assert card.architecture == NAME
    x = (torch.from_numpy(images).permute(0, 3, 1, 2) / 255 - 0.5) / 0.5
    inner = functional.interpolate(
        x[..., 8:56, 8:56], size=(64, 64), mode="bilinear", align_corners=False
    )
    with torch.inference_mode():
        each = [
            functional.normalize(model.project(model.forward_features(part).mean(1)))
            for part in (x, inner)
        ]
    assert np.abs(rows - functional.normalize(sum(each)).numpy()).max() < 1e-5  # type: ignore[arg-type]
    assert patches.shape == (3, 4, 4, 8)
    assert np.array_equal(encoder.embed(list(images)), rows)


def test_a_side_that_is_no_multiple_of_the_stride_is_refused(model: Lite, tmp_path: Path) -> None:
    with pytest.raises(EncoderError, match="multiple of 32"):
        _saved(tmp_path, model, replace(CARD, input_px=80))
