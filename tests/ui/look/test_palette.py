"""The colours of data: distinct for readers who see fewer of them."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from ui.look.palette import CATEGORIES, OPPOSITES, SEQUENCE, UNKNOWN, colours, lines, shade, shapes

# Machado, Oliveira and Fernandes (2009), severity 1.0, on linear RGB.
SEEN = {
    "all three cones": np.eye(3),
    "no red cones": np.array(
        [
            [0.152286, 1.052583, -0.204868],
            [0.114503, 0.786281, 0.099216],
            [-0.003882, -0.048116, 1.051998],
        ]
    ),
    "no green cones": np.array(
        [
            [0.367322, 0.860646, -0.227968],
            [0.280085, 0.672501, 0.047413],
            [-0.011820, 0.042940, 0.968881],
        ]
    ),
}
XYZ = np.array(
    [
        [0.4124564, 0.3575761, 0.1804375],
        [0.2126729, 0.7151522, 0.0721750],
        [0.0193339, 0.1191920, 0.9503041],
    ]
)


def lab(colour: str, seen: str) -> np.ndarray:
    part = np.array([int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)])
    linear = np.where(part <= 0.04045, part / 12.92, ((part + 0.055) / 1.055) ** 2.4)
    xyz = XYZ @ np.clip(SEEN[seen] @ linear, 0, 1) / np.array([0.95047, 1.0, 1.08883])
    f = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("seen", list(SEEN))
def test_any_two_categories_differ_clearly(seen: str) -> None:
    apart = [
        float(np.linalg.norm(lab(one, seen) - lab(other, seen)))
        for one, other in combinations(CATEGORIES, 2)
    ]

    assert min(apart) > 11  # a difference of 2.3 is just seen


@pytest.mark.parametrize("seen", list(SEEN))
def test_the_sequence_grows_lighter_for_everybody(seen: str) -> None:
    lightness = [lab(colour, seen)[0] for colour in SEQUENCE]

    assert lightness == sorted(lightness)
    assert lightness[-1] - lightness[0] > 60


@pytest.mark.parametrize("seen", list(SEEN))
def test_the_two_ends_of_opposites_differ(seen: str) -> None:
    assert np.linalg.norm(lab(OPPOSITES[0], seen) - lab(OPPOSITES[-1], seen)) > 40


def test_a_name_has_the_same_colour_in_any_order() -> None:
    names = ["b", None, "a", "c"]

    assert colours(names) == colours(reversed(names))
    assert colours(names)[None] == UNKNOWN


def test_more_names_than_colours_differ_by_shape() -> None:
    names = [f"label {at:02}" for at in range(20)]
    looks = {(colours(names)[name], shapes(names)[name]) for name in names}

    assert len(looks) == len(names)


def test_boxes_of_more_kinds_than_colours_differ_by_their_line() -> None:
    names = [f"label {at:02}" for at in range(20)]
    looks = {(colours(names)[name], lines(names)[name]) for name in names}

    assert len(looks) == len(names)
    assert {line for name, line in lines(names[:8]).items()} == {"solid"}


def test_a_shade_lies_between_the_ends() -> None:
    assert shade(0) == SEQUENCE[0]
    assert shade(1) == SEQUENCE[-1]
    assert shade(2) == SEQUENCE[-1]
    assert shade(0.5) not in SEQUENCE
