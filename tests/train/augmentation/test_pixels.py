from __future__ import annotations

import numpy as np
import pytest
import torch

from train.augmentation.colour import Draw
from train.augmentation.pixels import OPS, some_of
from train.smoke import KINDS, draw_cell


def draw(seed: int = 0) -> Draw:
    return Draw(torch.Generator().manual_seed(seed), torch.device("cpu"))


@pytest.fixture(name="cells", scope="module")
def _cells() -> torch.Tensor:
    rng = np.random.default_rng(0)
    rows = np.stack([draw_cell(kind, 40, rng) for kind in list(KINDS)[:3]])
    return torch.from_numpy(rows).permute(0, 3, 1, 2).float() / 255


def test_the_set_has_the_33_operations_of_the_released_configuration():
    assert len(OPS) == 33


@pytest.mark.parametrize("name", OPS)
def test_an_operation_changes_the_image_keeps_its_shape_and_obeys_the_seed(cells, name):
    first, again = (OPS[name](cells.clone(), draw(3)) for _ in range(2))
    assert first.shape == cells.shape
    assert first.isfinite().all()
    assert torch.equal(first, again)
    assert float((first.clamp(0, 1) - cells).abs().mean()) > 1e-4


def test_four_operations_leave_the_image_between_0_and_1_and_are_each_images_own(cells):
    twins = cells[:1].expand(12, -1, -1, -1).clone()
    made = some_of(twins, 4, 0.85, (), draw())
    assert float(made.min()) >= 0
    assert float(made.max()) <= 1
    assert len({tuple(row.flatten()[::97].tolist()) for row in made}) > 8


def test_probability_zero_leaves_the_image_alone(cells):
    assert torch.equal(some_of(cells.clone(), 4, 0.0, (), draw()), cells)


def test_a_skipped_operation_is_never_drawn(cells):
    only = tuple(name for name in OPS if name != "InvertImg")
    assert torch.allclose(some_of(cells.clone(), 1, 1.0, only, draw()), 1 - cells)


def test_an_unknown_name_is_refused(cells):
    with pytest.raises(ValueError, match="unknown \\['Rainbow'\\]"):
        some_of(cells.clone(), 4, 0.85, ("Rainbow",), draw())
