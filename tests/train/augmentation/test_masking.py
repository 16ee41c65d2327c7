from __future__ import annotations

import torch

from train.augmentation.masking import draw_masks


def draw(seed: int = 0, views: int = 64, side: int = 16):
    return draw_masks(views, side, 0.5, (0.1, 0.5), torch.Generator().manual_seed(seed))


def test_half_of_the_views_are_masked():
    masks = draw()
    assert int(masks.patches.any(dim=1).sum()) == 32


def test_no_view_hides_more_than_the_largest_share():
    shares = draw().patches.float().mean(dim=1)
    assert float(shares.max()) <= 0.5


def test_the_shares_spread_over_the_range():
    shares = draw().patches.float().mean(dim=1)
    masked = shares[shares > 0]
    assert float(masked.min()) < 0.15
    assert float(masked.max()) > 0.4
    assert 0.22 < float(masked.mean()) < 0.36


def test_masks_are_blocks_not_dust():
    grid = draw().patches.view(64, 16, 16)
    pairs = (grid[:, :, 1:] & grid[:, :, :-1]).sum() + (grid[:, 1:] & grid[:, :-1]).sum()
    assert float(pairs) / float(grid.sum()) > 1.4  # single patches strewn at random have 0.6


def test_index_and_weights_belong_to_the_masked_patches():
    masks = draw(views=8, side=7)
    flat = masks.patches.flatten()
    assert torch.equal(flat.nonzero().flatten(), masks.index)
    views = masks.index // 49
    for view in views.unique():
        assert float(masks.weights[views == view].sum()) - 1 < 1e-5


def test_a_seed_gives_the_same_masks():
    assert torch.equal(draw(5).patches, draw(5).patches)
    assert not torch.equal(draw(5).patches, draw(6).patches)


def test_a_probability_of_zero_masks_nothing():
    masks = draw_masks(4, 7, 0.0, (0.1, 0.5), torch.Generator().manual_seed(0))
    assert len(masks.index) == 0
