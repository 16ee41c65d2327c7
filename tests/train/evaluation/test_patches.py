from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from train.evaluation.patches import GAP, HEAD, main


@pytest.fixture(name="images")
def _images(tmp_path):
    paths = []
    for at in range(2):
        image = np.full((60, 60, 3), 235, np.uint8)
        image[15:40, 15 + 10 * at : 40 + 10 * at] = (120, 50, 140)
        paths.append(tmp_path / f"{at}.png")
        Image.fromarray(image).save(paths[-1])
    return [str(path) for path in paths]


def test_encoders_stand_beside_each_other_on_the_same_images(images, tmp_path):
    out = tmp_path / "figure.png"
    words = [*images, "--encoders", "hemaseek-s", "hemaseek-xs", "--out", str(out), "--side", "64"]

    assert main(words) == 0
    drawn = np.asarray(Image.open(out))
    assert drawn.shape == (HEAD + 2 * (64 + GAP) - GAP, 3 * (64 + GAP) - GAP, 3)
    for column in (1, 2):
        left = column * (64 + GAP)
        cell = drawn[HEAD : HEAD + 64, left : left + 64]
        assert len(np.unique(cell.reshape(-1, 3), axis=0)) > 3  # several colours


def test_an_encoder_without_patches_is_refused(images, tmp_path):
    with pytest.raises(SystemExit, match="has no patch tokens"):
        main([*images, "--encoders", "colour", "--out", str(tmp_path / "f.png")])
