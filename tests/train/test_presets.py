from __future__ import annotations

from pathlib import Path

import pytest

from train.config import TrainConfig
from train.presets import PRESETS


def preset(name: str, **changes) -> TrainConfig:
    return TrainConfig.model_validate(
        {"preset": name, "data": (Path("x"),), "out": Path("y")} | changes
    )


def test_dinobloom_has_the_papers_values():
    config = preset("dinobloom")
    assert config.batch == 1216  # Table 1, S
    assert config.steps == 4000  # section 3: peak between 4,000 and 8,000 iterations
    assert config.global_px == 224
    assert config.local_crops == 0  # "we remove the global-local crop loss"
    assert config.batch // (config.micro_batch or 1) == 8  # 8 cards


def test_dinobloom_has_the_published_codes_values():
    config = preset("dinobloom")
    assert config.centering == "sinkhorn_knopp"
    assert config.separate_ibot_head
    assert config.koleo_weight == 0.1
    assert config.dino_global_scale == 0.5
    assert config.lr == 2e-4
    assert config.momentum == (0.994, 1.0)
    assert config.weight_decay == (0.04, 0.2)
    assert config.layer_decay == 1.0
    assert config.global_scale == (0.32, 1.0)
    assert config.rotate == 0.3
    assert (config.jitter, config.brightness, config.contrast) == (0.8, 0.3, 0.2)
    assert (config.saturation, config.hue, config.grayscale) == (0.3, 0.15, 0.1)
    assert config.resample == "lanczos"


def test_reddino_has_the_papers_and_the_codes_values():
    config = preset("reddino")
    assert config.steps == 2000  # section 3.1
    assert config.batch == 512  # section 3.1, small
    assert (config.cut, config.cut_px, config.cut_covered) == (("patches",), 224, 0.0)  # 2.1
    assert config.koleo_weight == 0.0
    assert config.centering == "sinkhorn_knopp"
    assert config.local_crops == 0
    assert not config.separate_ibot_head
    assert config.prototypes == 131_072
    assert (config.pixel_ops, config.pixel_p) == (4, 0.85)
    assert (config.lr, config.clip, config.drop_path) == (2e-4, 3.0, 0.3)


def test_dinov2_has_the_default_configurations_values():
    config = preset("dinov2")
    assert config.centering == "moving_average"
    assert (config.local_crops, config.koleo_weight) == (8, 0.1)
    assert (config.prototypes, config.head_hidden, config.head_bottleneck) == (65536, 2048, 256)
    assert (config.lr, config.layer_decay, config.patch_embed_lr) == (4e-3, 0.9, 0.2)
    assert (config.momentum, config.weight_decay) == ((0.992, 1.0), (0.04, 0.4))
    assert (config.mask_probability, config.mask_ratio) == (0.5, (0.1, 0.5))
    assert (config.blur, config.solarise) == ((1.0, 0.1, 0.5), (0.0, 0.2, 0.0))


def test_scratch_starts_from_random_weights():
    config = preset("scratch")
    assert config.start == "random"
    assert config.global_px % config.patch_px == 0
    assert config.local_px % config.patch_px == 0


@pytest.mark.parametrize(
    ("name", "batches"), [("dinobloom", (1216, 960, 448, 208)), ("reddino", (512, 384, 256))]
)
def test_every_batch_of_the_papers_needs_no_other_setting(name, batches):
    for batch in batches:
        assert preset(name, batch=batch).batch == batch


@pytest.mark.parametrize("name", PRESETS)
def test_every_deviation_says_what_and_why(name):
    for line in PRESETS[name].deviations:
        assert len(line) > 50
        assert any(mark in line for mark in (":", ";", "paper")), line


def test_what_is_given_wins_over_the_preset_and_the_record_loads_back():
    config = preset("dinobloom", lr=1e-3, blur=(0.0, 0.0, 0.0))
    assert config.lr == 1e-3
    assert TrainConfig.model_validate_json(config.model_dump_json()) == config
