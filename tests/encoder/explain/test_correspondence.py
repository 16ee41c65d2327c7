"""Colours and matches of patches."""

from __future__ import annotations

import numpy as np
import pytest

from encoder.explain.correspondence import correspondence, joint_colours, matches, told_apart


def scene(rng: np.random.Generator, shift: int = 0) -> np.ndarray:
    """Tokens of a 12 x 12 image: glass all around, a cell of two parts in the middle."""
    basis = np.eye(3, 16) * 4
    kind = np.zeros((12, 12), int)
    kind[3:9, 3 + shift : 9 + shift] = 1
    kind[5:7, 5 + shift : 7 + shift] = 2
    return (basis[kind] + rng.normal(0, 0.05, (12, 12, 16))).astype(np.float32)


def test_the_cell_is_told_from_the_glass(rng: np.random.Generator) -> None:
    one, other = joint_colours([scene(rng), scene(rng, 1)])

    assert one.foreground[3:9, 3:9].all()
    assert not one.foreground[0].any()
    assert not one.rgb[~one.foreground].any()
    assert other.foreground[4, 4]


def test_the_same_part_has_the_same_colour_in_every_image(rng: np.random.Generator) -> None:
    one, other = joint_colours([scene(rng), scene(rng, 2)])

    nucleus = one.rgb[5, 5].astype(int), other.rgb[5, 7].astype(int)
    rest = one.rgb[3, 3].astype(int), other.rgb[3, 5].astype(int)
    assert abs(nucleus[0] - nucleus[1]).max() < 60
    assert abs(nucleus[0] - rest[0]).max() > 100
    assert abs(rest[0] - rest[1]).max() < 60


def test_tokens_that_do_not_vary_are_grey() -> None:
    (found,) = joint_colours([np.ones((4, 4, 8), np.float32)])

    assert found.foreground.all()
    assert set(found.rgb.ravel().tolist()) == {128}


def test_every_patch_of_an_image_corresponds_to_itself(rng: np.random.Generator) -> None:
    tokens = scene(rng)

    here, there = correspondence(tokens, tokens)

    assert here == pytest.approx(np.ones((12, 12)))
    assert there == pytest.approx(np.ones((12, 12)))


def test_a_part_that_the_other_image_lacks_is_matched_worst(rng: np.random.Generator) -> None:
    one, other = scene(rng), scene(rng)
    other[5:7, 5:7] = other[4, 4]

    here, _ = correspondence(one, other)

    assert here[5:7, 5:7].max() < here[3, 3]
    assert here[5:7, 5:7].max() < here[0, 0]


def test_matches_are_mutual_and_follow_what_moved(rng: np.random.Generator) -> None:
    one = scene(rng)
    other = np.roll(one, 2, axis=1)

    found = matches(one, other, most=144)

    assert len(found) == 144
    assert all(
        pair.other == (pair.one[0], (pair.one[1] + 2) % 12) and pair.cosine == pytest.approx(1)
        for pair in found
    )


def test_only_foreground_is_matched_where_asked(rng: np.random.Generator) -> None:
    one, other = joint_colours([scene(rng), scene(rng, 1)])
    inside = one.foreground, other.foreground

    found = matches(scene(rng), scene(rng, 1), inside)

    assert found
    assert all(inside[0][pair.one] and inside[1][pair.other] for pair in found)


def test_cells_beside_the_one_in_the_middle_are_not_coloured(rng: np.random.Generator) -> None:
    crowded = scene(rng)
    crowded[0:3, 0:2] = crowded[4, 4]  # another cell, cut by the border

    found = joint_colours([crowded, scene(rng, 1)])

    assert not found[0].foreground[0:3, 0:2].any()
    assert told_apart(found)


def test_a_picture_without_a_cell_in_its_middle_is_not_told_apart(
    rng: np.random.Generator,
) -> None:
    noise = rng.normal(size=(12, 12, 16)).astype(np.float32)

    assert not told_apart(joint_colours([noise, noise[::-1].copy()]))
