from __future__ import annotations

import pytest
import torch

from train.augmentation.randomisation import PARTS, RED, WHITE, Field, Randomisation, _turned

STILL = Field(10.0, 10.0, 10.0, 0.0, 4.0)


def _pictures(n: int = 6, side: int = 48) -> torch.Tensor:
    torch.manual_seed(0)
    return torch.rand(n, 3, side, side)


def _rows(*fields: Field) -> torch.Tensor:
    return torch.stack([field.row() for field in fields])


def test_views_have_the_asked_size_and_stay_within_0_and_1() -> None:
    views = Randomisation(32)(_pictures(), torch.full((6,), 34.0), _rows(*[WHITE] * 3, *[RED] * 3))

    assert views.shape == (6, 3, 32, 32)
    assert views.isfinite().all()
    assert float(views.min()) >= 0
    assert float(views.max()) <= 1


def test_the_same_seed_makes_the_same_views() -> None:
    def made() -> torch.Tensor:
        torch.manual_seed(3)
        return Randomisation(32)(_pictures(), torch.full((6,), 34.0), _rows(*[WHITE] * 6))

    pictures = _pictures()
    torch.manual_seed(3)
    first = Randomisation(32)(pictures, torch.full((6,), 34.0), _rows(*[WHITE] * 6))
    torch.manual_seed(3)
    again = Randomisation(32)(pictures, torch.full((6,), 34.0), _rows(*[WHITE] * 6))

    assert torch.equal(first, again)
    assert not torch.equal(first, made().flip(0))


def test_with_every_part_left_out_only_the_mirror_and_a_shift_are_left() -> None:
    grey = torch.full((4, 3, 32, 32), 0.5)

    views = Randomisation(32, PARTS)(grey, torch.full((4,), 10.0), _rows(*[STILL] * 4))

    assert (views - 0.5).abs().max() < 1e-4


def test_a_part_that_is_left_out_changes_nothing() -> None:
    grey = torch.full((64, 3, 16, 16), 0.5)
    um, fields = torch.full((64,), 10.0), _rows(*[STILL] * 64)
    but = [part for part in PARTS if part != "light"]

    torch.manual_seed(0)
    lit = Randomisation(16, but)(grey, um, fields)

    assert lit.std((1, 2, 3)).max() < 1e-3  # no colour, no texture
    assert lit.mean((1, 2, 3)).std() > 0.01  # only how bright


def test_zoom_shows_more_or_less_of_the_picture() -> None:
    rings = torch.zeros(2, 3, 64, 64)
    rings[:, :, 24:40, 24:40] = 1
    parts = [part for part in PARTS if part != "zoom"]
    near, far = Field(10, 10, 10, 0, 4), Field(40, 40, 40, 0, 4)

    torch.manual_seed(0)
    views = Randomisation(32, parts)(rings, torch.full((2,), 20.0), _rows(near, far))

    assert views[0].mean() > 3 * views[1].mean()


def test_an_unknown_part_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match="saturation"):
        Randomisation(32, ["stains"])


def test_hues_turn_about_the_grey_axis() -> None:
    turns = _turned(torch.tensor([0.0, 2 * torch.pi / 3]))

    assert torch.allclose(turns[0], torch.eye(3))
    assert torch.allclose(turns @ torch.ones(3), torch.ones(2, 3), atol=1e-6)
    assert sorted((turns[1] @ torch.tensor([1.0, 0, 0])).round().tolist()) == [0, 0, 1]
    assert not torch.allclose(turns[1], torch.eye(3), atol=0.1)
