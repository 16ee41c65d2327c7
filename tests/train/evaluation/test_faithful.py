from __future__ import annotations

import json

import numpy as np
from PIL import Image

from train.evaluation.faithful import main, middle


def test_the_middle_of_a_crop_is_the_box_of_its_cell():
    inside = middle((6, 6), context=1.5)

    assert inside.sum() == 16
    assert inside[1:5, 1:5].all()


def test_the_command_measures_maps_beside_random_ones(tmp_path):
    rng = np.random.default_rng(0)
    for at in range(8):
        path = tmp_path / "set" / "ab"[at % 2] / f"{at}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        image = np.full((48, 48, 3), 235, np.uint8)
        image[16:32, 16:32] = ((150, 40, 90), (40, 60, 170))[at % 2]
        Image.fromarray((image + rng.integers(0, 9, image.shape)).astype(np.uint8)).save(path)
    words = ["--data", f"folder:{tmp_path / 'set'}", "--encoder", "colour", "--images", "2",
             "--cache", str(tmp_path / "c"), "--out", str(tmp_path / "o.json")]  # fmt: skip

    assert main(words) == 0
    record = json.loads((tmp_path / "o.json").read_text())
    assert set(record["causal"]) == {"deletion", "insertion", "correlation", "monotonicity"}
    causal, chance = record["causal"], record["random"]
    assert causal["correlation"][0] > chance["correlation"][0]
