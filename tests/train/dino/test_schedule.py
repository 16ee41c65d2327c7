from __future__ import annotations

from math import cos, pi, sqrt
from pathlib import Path

import pytest
import torch

from train.config import TrainConfig
from train.dino.model import Backbone, Network, load_start
from train.dino.schedule import at, param_groups, part_at, set_groups


def settings(**changes) -> TrainConfig:
    base = {
        "preset": "scratch",
        "data": (Path("x"),),
        "out": Path("y"),
        "steps": 101,
        "batch": 256,
        "lr": 1e-3,
        "min_lr": 1e-6,
        "warmup_steps": 10,
        "teacher_warmup_steps": 20,
        "embed_dim": 16,
        "depth": 2,
        "heads": 2,
        "patch_px": 8,
        "global_px": 16,
        "prototypes": 8,
        "head_hidden": 8,
        "head_bottleneck": 4,
    }
    return TrainConfig.model_validate(base | changes)


def test_the_learning_rate_rises_then_falls_along_half_a_cosine():
    config = settings()
    peak = 1e-3 * sqrt(256 / 1024)
    assert at(config, 0).lr == 0
    assert at(config, 5).lr == pytest.approx(peak / 2)
    assert at(config, 10).lr == pytest.approx(peak)
    assert at(config, 55).lr == pytest.approx(1e-6 + (peak - 1e-6) * (1 + cos(pi / 2)) / 2)
    assert at(config, 100).lr == pytest.approx(1e-6)


def test_weight_decay_momentum_and_temperature_go_from_start_to_end():
    config = settings()
    first, last = at(config, 0), at(config, 100)
    assert (first.weight_decay, last.weight_decay) == pytest.approx((0.04, 0.2))
    assert (first.momentum, last.momentum) == pytest.approx((0.99, 1.0))
    assert first.teacher_temperature == pytest.approx(0.04)
    assert at(config, 10).teacher_temperature == pytest.approx(0.055)
    assert last.teacher_temperature == pytest.approx(0.07)


def test_stages_follow_one_another_and_keep_count_of_images():
    config = settings(steps=4, batch=8, stages=[{"steps": 3, "global_px": 32, "batch": 2}])
    assert config.total_steps == 7
    assert [part_at(config, s)[0].global_px for s in range(7)] == [16] * 4 + [32] * 3
    assert [part_at(config, s)[1] for s in range(7)] == [0, 8, 16, 24, 32, 34, 36]


def test_layer_decay_counts_blocks_from_the_last_and_bare_parameters_do_not_decay():
    config = settings(layer_decay=0.5, patch_embed_lr=0.2)
    network = Network(Backbone(load_start(config).vit), config)
    groups = param_groups(network, config, depth=2)
    place = {id(p): group for group in groups for p in group["params"]}
    named = dict(network.named_parameters())

    def group(name: str):
        return place[id(named[name])]

    assert group("backbone.vit.blocks.1.attn.qkv.weight")["factor"] == 0.5
    assert group("backbone.vit.blocks.0.attn.qkv.weight")["factor"] == 0.25
    assert group("backbone.vit.patch_embed.proj.weight")["factor"] == pytest.approx(0.2 * 0.125)
    assert group("backbone.vit.norm.weight")["factor"] == 1.0
    assert group("dino_head.prototypes")["factor"] == 1.0
    for bare in ("blocks.0.norm1.weight", "blocks.0.attn.qkv.bias", "pos_embed", "cls_token"):
        assert not group(f"backbone.vit.{bare}")["decays"]
    assert not group("backbone.mask_token")["decays"]
    assert group("dino_head.prototypes")["decays"]
    assert len(place) == sum(1 for _ in network.parameters())


def test_frozen_groups_have_a_learning_rate_of_zero():
    config = settings(head_warmup_steps=20, freeze_last_layer_steps=30)
    network = Network(Backbone(load_start(config).vit), config)
    groups = param_groups(network, config, depth=2)
    optimizer = torch.optim.AdamW(groups)
    set_groups(optimizer.param_groups, at(config, 15))
    for group in optimizer.param_groups:
        still = group["of_backbone"] or group["last_layer"]
        assert (group["lr"] == 0) == still
    set_groups(optimizer.param_groups, at(config, 25))
    assert all((g["lr"] == 0) == g["last_layer"] for g in optimizer.param_groups)
