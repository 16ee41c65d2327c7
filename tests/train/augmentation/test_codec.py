from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from train.augmentation.codec import jpeg


@pytest.mark.parametrize("quality", [30, 50, 90])
def test_what_comes_back_is_what_a_jpeg_library_gives(quality: int) -> None:
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (12, 12, 3), dtype=np.uint8)
    image = cv2.resize(coarse, (96, 96), interpolation=cv2.INTER_CUBIC)
    _, coded = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    expected = np.asarray(cv2.imdecode(coded, cv2.IMREAD_COLOR))[..., ::-1].astype(float)

    pixels = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255
    back = 255 * jpeg(pixels, torch.tensor([float(quality)]))[0].permute(1, 2, 0).numpy()

    lost = np.abs(expected - image).mean()
    assert np.abs(back - expected).mean() < 0.5 * lost
    assert np.abs(back - image).mean() == pytest.approx(lost, rel=0.25)


def test_each_image_has_its_own_quality() -> None:
    torch.manual_seed(0)
    image = torch.rand(1, 1, 16, 16).expand(2, 3, -1, -1)

    poor, good = jpeg(image, torch.tensor([10.0, 98.0]))

    assert (poor - image[0]).abs().mean() > 2 * (good - image[0]).abs().mean()
