from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from encoder import registry
from encoder.card import EncoderCard
from encoder.networks.export import save
from encoder.networks.stem import ConvStem
from encoder.networks.vit import timm_model

NAME = "vit_small_patch14_dinov2"
KWARGS = {"stem": "conv", "patch_size": 8, "embed_dim": 32, "depth": 1, "num_heads": 2}


@pytest.mark.parametrize("patch", [4, 8, 16])
def test_the_stem_gives_one_token_for_each_patch(patch: int) -> None:
    stem = ConvStem(img_size=48, patch_size=patch, embed_dim=32)

    tokens = stem(torch.randn(2, 3, 48, 48))

    assert tokens.shape == (2, (48 // patch) ** 2, 32)
    assert stem.grid_size == (48 // patch, 48 // patch)


@pytest.mark.parametrize("patch", [2, 14, 12])
def test_a_patch_that_halving_cannot_reach_is_refused(patch: int) -> None:
    with pytest.raises(ValueError, match=f"4, 8 or 16, got {patch}"):
        ConvStem(img_size=84, patch_size=patch, embed_dim=32)


def test_tokens_of_fresh_weights_are_neither_tiny_nor_huge() -> None:
    torch.manual_seed(0)
    stem = ConvStem(img_size=64, patch_size=8, embed_dim=128)

    spread = stem(torch.randn(4, 3, 64, 64)).std().item()

    assert 0.1 < spread < 3  # torch's own start would leave about 0.01


def test_a_token_sees_beyond_its_patch_but_not_the_whole_image() -> None:
    torch.manual_seed(0)
    stem = ConvStem(img_size=64, patch_size=8, embed_dim=32)
    image = torch.zeros(1, 3, 64, 64)
    before = stem(image)
    image[0, :, 0, 0] = 1.0

    changed = (stem(image) - before).abs().amax(dim=2)[0] > 0

    assert changed[0]
    assert int(changed.sum()) <= 4


def test_an_encoder_with_a_stem_comes_back_from_its_export(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = timm_model(NAME, 48, KWARGS).eval()
    card = EncoderCard(id="stemmed", architecture=NAME, dim=32, input_px=48, patch_px=8)
    save(tmp_path, card, model.state_dict(), timm_name=NAME, img_size=48, model_kwargs=KWARGS)
    image = np.random.default_rng(0).integers(0, 256, (48, 48, 3), dtype=np.uint8)

    loaded = registry.load(str(tmp_path), device="cpu").embed([image])

    x = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255
    x = (x - torch.tensor(card.mean)[:, None, None]) / torch.tensor(card.std)[:, None, None]
    with torch.no_grad():
        expected = model.forward_features(x)[0, 0].numpy()
    assert loaded[0] @ expected / np.linalg.norm(expected) > 0.999
