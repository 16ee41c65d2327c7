from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from encoder import registry
from train.data.datasets import Labelled
from train.evaluation.robustness import SHIFTS, Shift, robustness, shifted


def _set(folder: Path, rng: np.random.Generator) -> Labelled:
    """Red and blue discs, six of each."""
    paths, labels = [], []
    for label, colour in (("red", (200, 40, 40)), ("blue", (40, 40, 200))):
        for at in range(6):
            image = np.full((24, 24, 3), 230, np.uint8)
            image[6:18, 6:18] = np.clip(np.array(colour) + rng.integers(-15, 16, 3), 0, 255)
            paths.append(folder / f"{label}{at}.png")
            Image.fromarray(image).save(paths[-1])
            labels.append(label)
    names = np.array([path.stem for path in paths])
    return Labelled(
        name="discs",
        paths=tuple(paths),
        squares=(None,) * len(paths),
        labels=np.array(labels),
        groups=names,
        unit="image",
    )


def test_a_turn_of_a_third_of_the_circle_makes_red_green() -> None:
    red = np.full((2, 2, 3), (200, 0, 0), np.uint8)

    (green,) = shifted([red], Shift("hue", 1 / 3))

    assert green.tolist() == np.full((2, 2, 3), (0, 200, 0)).tolist()


def test_brightness_multiplies_and_saturation_leaves_grey_alone() -> None:
    grey = np.full((2, 2, 3), 100, np.uint8)

    assert shifted([grey], Shift("brightness", -0.1))[0].max() == 90
    assert np.array_equal(shifted([grey], Shift("saturation", 0.1))[0], grey)


def test_an_unknown_shift_is_refused() -> None:
    with pytest.raises(ValueError, match="expected hue, saturation or brightness"):
        shifted([np.zeros((2, 2, 3), np.uint8)], Shift("sharpness", 0.1))


def test_a_strong_turn_of_the_hue_costs_a_colour_match_its_answers(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    discs = _set(tmp_path, rng)
    colour = registry.load("colour")
    library = colour.embed(list(discs.images()))
    train, test = np.arange(0, 12, 2), np.arange(1, 12, 2)

    none, swap = robustness(
        colour, discs, library, train, test, k=1, shifts=(Shift("hue", 0.0), Shift("hue", 1 / 3))
    )

    assert none.lost["balanced_accuracy"] == 0
    assert swap.lost["balanced_accuracy"] > 0
    assert swap.scores["balanced_accuracy"] == 1 - swap.lost["balanced_accuracy"] / 100


def test_the_published_shifts_are_a_tenth_in_both_directions() -> None:
    assert [shift.name for shift in SHIFTS] == [
        "hue -10 %",
        "hue +10 %",
        "saturation -10 %",
        "saturation +10 %",
        "brightness -10 %",
        "brightness +10 %",
    ]
