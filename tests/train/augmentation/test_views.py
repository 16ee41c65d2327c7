from __future__ import annotations

import colorsys
from pathlib import Path

import numpy as np
import pytest
import torch

from train.augmentation.colour import (
    Draw,
    brightness,
    contrast,
    gaussian_blur,
    grayscale,
    hed_jitter,
    saturation,
    shift_hue,
)
from train.augmentation.views import _view, crop, make_views
from train.config import TrainConfig
from train.smoke import KINDS, draw_cell

PLAIN = {
    "flip": 0.0,
    "rotate": 0.0,
    "jitter": 0.0,
    "grayscale": 0.0,
    "blur": (0.0, 0.0, 0.0),
    "solarise": (0.0, 0.0, 0.0),
    "global_scale": (1.0, 1.0),
}


def settings(**changes) -> TrainConfig:
    base = {"preset": "scratch", "data": (Path("x"),), "out": Path("y"), "patch_px": 8}
    return TrainConfig.model_validate(base | changes)


def draw(seed: int = 0) -> Draw:
    return Draw(torch.Generator().manual_seed(seed), torch.device("cpu"))


@pytest.fixture(name="cells", scope="module")
def _cells() -> torch.Tensor:
    rng = np.random.default_rng(0)
    rows = np.stack([draw_cell(kind, 48, rng) for kind in list(KINDS) * 2])
    return torch.from_numpy(rows).permute(0, 3, 1, 2)


@pytest.fixture(name="bright")
def _bright(cells: torch.Tensor) -> torch.Tensor:
    return cells.float() / 255


def views(cells: torch.Tensor, seed: int = 0, **changes):
    generator = torch.Generator().manual_seed(seed)
    return make_views(
        cells, settings(**changes), 32, 16, generator, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)
    )


def test_views_have_the_asked_shapes_and_lie_in_the_normalised_range(cells):
    made = views(cells, local_crops=3)
    assert made.globals_.shape == (16, 3, 32, 32)
    assert made.locals_ is not None
    assert made.locals_.shape == (24, 3, 16, 16)
    assert float(made.globals_.min()) >= -2.0001
    assert float(made.globals_.max()) <= 2.0001


def test_zero_local_crops_cut_nothing(cells):
    assert views(cells, local_crops=0).locals_ is None


def test_a_seed_gives_the_same_views_and_another_seed_others(cells):
    first, again, other = views(cells, 7), views(cells, 7), views(cells, 8)
    assert torch.equal(first.globals_, again.globals_)
    assert not torch.equal(first.globals_, other.globals_)


def test_the_two_global_views_of_an_image_differ(cells):
    one, two = views(cells).globals_.chunk(2)
    assert float((one - two).abs().mean(dim=(1, 2, 3)).min()) > 0.01


def test_a_whole_crop_without_turns_is_the_image_itself(bright):
    config = settings(**PLAIN, interpolation="bilinear")
    # an area of 1 leaves room only for an aspect ratio of 1
    rows = crop(bright, config, 48, (1.0, 1.0), draw(3))
    assert float((rows - bright).abs().mean()) < 0.06


@pytest.mark.parametrize("change", ["flip", "rotate", "rotate90"])
def test_flips_and_turns_move_pixels_and_keep_their_colours(bright, change):
    plain = crop(bright, settings(**PLAIN), 48, (1.0, 1.0), draw(1))
    moved = crop(bright, settings(**(PLAIN | {change: 1.0})), 48, (1.0, 1.0), draw(1))
    assert float((plain - moved).abs().mean()) > 0.01
    assert float((plain.mean(dim=(2, 3)) - moved.mean(dim=(2, 3))).abs().max()) < 0.06


def test_each_colour_operation_changes_the_image_and_keeps_shape_and_range(bright):
    n = len(bright)
    half = torch.full((n,), 0.5)
    made = {
        "brightness": brightness(bright, half),
        "contrast": contrast(bright, half),
        "saturation": saturation(bright, half),
        "hue": shift_hue(bright, half),
        "grayscale": grayscale(bright),
        "blur": gaussian_blur(bright, half * 2),
        "hed": hed_jitter(bright, 0.3, draw()).clamp(0, 1),
    }
    for name, changed in made.items():
        assert changed.shape == bright.shape, name
        assert float((changed - bright).abs().mean(dim=(1, 2, 3)).min()) > 1e-3, name
        assert float(changed.min()) >= -1e-6, name
        assert float(changed.max()) <= 1 + 1e-6, name


@pytest.mark.parametrize("turns", [0.1, -0.25, 0.5])
def test_a_hue_shift_turns_the_hue_and_nothing_else(turns):
    colours = torch.rand(1, 3, 4, 4, generator=torch.Generator().manual_seed(0)) * 0.8 + 0.1
    shifted = shift_hue(colours, torch.tensor([turns]))
    for before, after in zip(
        colours.flatten(2)[0].T.tolist(), shifted.flatten(2)[0].T.tolist(), strict=True
    ):
        h, s, v = colorsys.rgb_to_hsv(*before)
        wanted = colorsys.hsv_to_rgb((h + turns) % 1, s, v)
        assert after == pytest.approx(wanted, abs=1e-5)


def test_a_hed_jitter_of_zero_changes_nothing(bright):
    same = hed_jitter(bright.clamp(0.02, 1), 0.0, draw())
    assert torch.allclose(same, bright.clamp(0.02, 1), atol=1e-3)


def test_a_blur_keeps_the_mean_and_lowers_the_spread(bright):
    soft = gaussian_blur(bright, torch.full((len(bright),), 2.0))
    assert torch.allclose(soft.mean(), bright.mean(), atol=5e-3)
    assert float(soft.std()) < float(bright.std())


def test_probability_zero_leaves_and_one_takes_all_colour(cells):
    gray = views(cells, **(PLAIN | {"grayscale": 1.0})).globals_
    assert float((gray[:, 0] - gray[:, 1]).abs().max()) < 1e-5
    colour = views(cells, **PLAIN).globals_
    assert float((colour[:, 0] - colour[:, 1]).abs().max()) > 0.1


@pytest.mark.parametrize("kind", [0, 2])
def test_views_that_keep_to_the_middle_show_the_middle(kind):
    spot = torch.zeros(64, 3, 40, 40)
    spot[:, :, 18:22, 18:22] = 1.0
    area = (0.2, 0.2)
    plain = {"flip": 0.0, "jitter": 0.0, "grayscale": 0.0, "blur": (0, 0, 0), "solarise": (0, 0, 0)}

    def shown(centre: float) -> float:
        config = settings(**plain, global_centre=centre, local_centre=centre)
        seen = _view(spot, config, 16, area, kind, draw())[:, 0].amax(dim=(1, 2)) > 0.9
        return float(seen.float().mean())

    assert shown(1.0) == 1.0
    assert shown(0.0) < 0.9
