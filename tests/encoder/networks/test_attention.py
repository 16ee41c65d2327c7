"""The last block's attention, held against the model's own unfused kernel."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import timm
import torch
from torch import nn

from encoder.card import EncoderCard
from encoder.contract import Encoder, NoPatchTokens
from encoder.features.colour import CARD, Colour
from encoder.networks.engines import Torch
from encoder.networks.forward import Forward, Pool
from encoder.networks.vit import Vit


def made(pool: Pool = "cls", **kwargs: object) -> tuple[Encoder, nn.Module]:
    torch.manual_seed(0)
    model: nn.Module = timm.create_model(
        "vit_tiny_patch16_224", num_classes=0, img_size=64, depth=2, **kwargs
    )
    card = EncoderCard(
        id="tiny", architecture="vit", dim=192, input_px=64, patch_px=16, pooling=pool
    )
    forward = Forward(model, card, pool).eval()
    return Encoder(card, Vit(card, Torch(forward, torch.device("cpu")), forward)), model


@pytest.fixture(name="unfused")
def _unfused() -> Iterator[None]:
    timm.layers.set_fused_attn(False)
    yield
    timm.layers.set_fused_attn(True)


@pytest.mark.usefixtures("unfused")
def test_it_is_the_attention_that_the_model_itself_computes(rng: np.random.Generator) -> None:
    encoder, model = made()
    kept: list[torch.Tensor] = []
    model.blocks[-1].attn.attn_drop.register_forward_pre_hook(  # type: ignore[union-attr]
        lambda _module, given: kept.append(given[0])
    )
    images = [rng.integers(0, 255, (64, 64, 3), np.uint8) for _ in range(3)]

    found = encoder.attention(images)

    assert found.shape == (3, 4, 4)
    expected = kept[-1].mean(dim=1)[:, 0, 1:].numpy()
    assert found.reshape(3, -1) == pytest.approx(expected, abs=1e-6)


def test_without_a_class_token_it_is_what_all_patches_look_at(rng: np.random.Generator) -> None:
    encoder, _ = made("mean", class_token=False, global_pool="avg")

    found = encoder.attention([rng.integers(0, 255, (64, 64, 3), np.uint8)])

    assert found.sum() == pytest.approx(1, abs=1e-5)


def test_an_encoder_without_patches_says_so() -> None:
    encoder = Encoder(CARD, Colour(CARD))

    with pytest.raises(NoPatchTokens, match="need a ViT encoder"):
        encoder.attention([np.zeros((8, 8, 3), np.uint8)])
