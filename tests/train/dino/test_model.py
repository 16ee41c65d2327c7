from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from encoder.contract import EncoderError
from train.config import TrainConfig
from train.dino.export import merged
from train.dino.model import Backbone, Head, build_networks, load_start, move_teacher, run_block


def settings(**changes) -> TrainConfig:
    base = {
        "preset": "scratch",
        "data": (Path("x"),),
        "out": Path("y"),
        "embed_dim": 16,
        "depth": 2,
        "heads": 2,
        "patch_px": 8,
        "global_px": 32,
        "prototypes": 8,
        "head_hidden": 8,
        "head_bottleneck": 4,
    }
    return TrainConfig.model_validate(base | changes)


@pytest.fixture(name="pixels")
def _pixels() -> torch.Tensor:
    return torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def test_without_masks_and_drops_the_backbone_is_timms_own_forward(pixels):
    vit = load_start(settings()).vit
    assert torch.allclose(Backbone(vit)(pixels), vit.forward_features(pixels), atol=1e-6)


def test_smaller_views_get_resampled_positions(pixels):
    tokens = Backbone(load_start(settings()).vit)(pixels[..., :16, :16])
    assert tokens.shape == (4, 1 + 4, 16)


def test_a_hidden_patch_cannot_be_seen(pixels):
    backbone = Backbone(load_start(settings()).vit)
    hidden = torch.zeros(4, 16, dtype=torch.bool)
    hidden[:, 5] = True  # row 1, column 1 of 4 x 4
    other = pixels.clone()
    other[:, :, 8:16, 8:16] = 3.0
    assert torch.equal(backbone(pixels, hidden), backbone(other, hidden))
    assert not torch.equal(backbone(pixels), backbone(other))


def test_dropped_branches_keep_the_sums_expectation():
    block = load_start(settings(layer_scale=0.0)).vit.blocks[0]
    torch.manual_seed(0)
    x = torch.randn(1, 5, 16).expand(400, -1, -1).contiguous()
    with torch.no_grad():
        dropped, kept = run_block(block, x, 0.5), run_block(block, x, 0.0)
    untouched = (dropped == x).all(dim=2).all(dim=1).float().mean()
    assert 0.15 < float(untouched) < 0.35  # half of the images, twice
    assert torch.allclose(dropped.mean(0) - x[0], kept[0] - x[0], atol=0.2)


def test_a_head_scores_cosines_to_its_prototypes():
    head = Head(6, 8, 4, 3, 10)
    tokens = torch.randn(5, 6)
    rows = head.mlp(tokens)
    cosines = torch.stack(
        [nn.functional.cosine_similarity(rows, p[None], dim=1) for p in head.prototypes], dim=1
    )
    assert torch.allclose(head(tokens), cosines, atol=1e-5)


@pytest.mark.parametrize("separate", [True, False])
def test_only_masked_patches_go_through_the_ibot_head(pixels, separate):
    student, _ = build_networks(
        load_start(settings()), settings(separate_ibot_head=separate, ibot_prototypes=6)
    )
    index = torch.tensor([3, 17, 40])
    out = student(pixels, torch.zeros(4, 16, dtype=torch.bool), index)
    assert out["dino"].shape == (4, 8)
    assert out["ibot"].shape == (3, 6 if separate else 8)
    assert "local" not in out
    tokens = student.backbone(pixels)[:, 1:].flatten(0, 1)[index]
    head = student.ibot_head if separate else student.dino_head
    assert torch.allclose(out["ibot"], head(tokens), atol=1e-5)


def test_a_frozen_backbone_gets_no_gradients_and_its_heads_do(pixels):
    student, _ = build_networks(load_start(settings()), settings())
    student(pixels, None, None, frozen=True)["dino"].sum().backward()
    assert all(p.grad is None for p in student.backbone.parameters())
    assert student.dino_head.prototypes.grad is not None


def test_the_teacher_moves_by_one_minus_momentum(pixels):
    student, teacher = build_networks(load_start(settings()), settings())
    before = teacher.dino_head.prototypes.clone()
    with torch.no_grad():
        student.dino_head.prototypes += 1.0
    move_teacher(teacher, student, 0.75)
    assert torch.allclose(teacher.dino_head.prototypes, before + 0.25)


def test_lora_trains_only_adapters_and_merges_into_plain_weights(pixels):
    config = settings(tuning="lora", lora_rank=2)
    start = load_start(config)
    names = set(start.vit.state_dict())
    student, _ = build_networks(start, config)
    trained = [n for n, p in student.backbone.named_parameters() if p.requires_grad]
    assert all("lora_" in n or n == "mask_token" for n in trained)
    assert len(trained) == 1 + 2 * 2 * 4  # two blocks, four layers, A and B
    with torch.no_grad():
        for name, parameter in student.backbone.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.1)
    state = merged(student.backbone.vit)
    assert set(state) == names
    plain = load_start(settings()).vit
    plain.load_state_dict(state)
    assert torch.allclose(plain.forward_features(pixels), student.backbone(pixels), atol=1e-5)


@pytest.mark.parametrize(("given", "kept"), [(0.0, False), (0.1, True)])
def test_a_layer_scale_of_zero_leaves_it_out(given, kept):
    names = load_start(settings(layer_scale=given)).vit.state_dict()

    assert any(".ls1." in name for name in names) is kept


def test_sizes_that_do_not_fit_and_unknown_encoders_are_refused():
    with pytest.raises(EncoderError, match="no multiple of patch_px 8"):
        load_start(settings(global_px=30))
    with pytest.raises(EncoderError, match="no multiple of heads 3"):
        load_start(settings(heads=3))
    with pytest.raises(EncoderError, match="cannot train from 'nobody'"):
        load_start(settings(start="nobody"))


def test_register_tokens_are_kept(pixels):
    import timm

    vit = timm.create_model(
        "vit_small_patch14_reg4_dinov2", num_classes=0, img_size=32, patch_size=8, embed_dim=16,
        depth=1, num_heads=2,
    )  # fmt: skip
    tokens = Backbone(vit)(pixels)
    assert tokens.shape == (4, 1 + 4 + 16, 16)
    assert torch.allclose(tokens, vit.forward_features(pixels), atol=1e-6)
