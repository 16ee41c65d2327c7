"""Causal maps: they point at what the score rests on, and are held against chance."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from encoder.card import EncoderCard
from encoder.contract import RGB, Encoder
from encoder.explain.causal import Hiding, colour_masks, feature_masks, points_at
from encoder.features.colour import CARD, Colour
from encoder.image import resize

SIDE = 64
PLAIN = EncoderCard(id="corner", architecture="test", dim=3, input_px=SIDE, pooling="none")


class Corner:
    """A network that sees the upper left quarter alone: its mean colour, less white."""

    def vectors(self, images: Sequence[RGB]) -> np.ndarray:
        seen = [resize(one, SIDE, "bicubic")[: SIDE // 2, : SIDE // 2] for one in images]
        return np.stack([255.5 - one.reshape(-1, 3).mean(0) for one in seen])

    def tokens(self, images: Sequence[RGB]) -> tuple[np.ndarray, np.ndarray]:
        raise NotImplementedError


@pytest.fixture(name="image")
def _image(rng: np.random.Generator) -> RGB:
    image = np.full((SIDE, SIDE, 3), 240, np.uint8)
    image[8:24, 8:24] = (200, 30, 60)
    image[40:56, 40:56] = (30, 60, 200)
    image[8:24, 40:56] = (60, 200, 30)
    return (image + rng.integers(0, 8, image.shape)).astype(np.uint8)


@pytest.fixture(name="hiding")
def _hiding(image: RGB) -> Hiding:
    encoder = Encoder(PLAIN, Corner())
    wanted = encoder.embed([image])[0]
    return Hiding(encoder, image, lambda vectors: vectors @ wanted)


def test_the_map_points_at_what_the_score_rests_on(hiding: Hiding, image: RGB) -> None:
    found = hiding.causal(colour_masks(image, hiding.grid))

    row, column = np.unravel_index(found.argmax(), found.shape)
    assert (row < 7, column < 7) == (True, True)
    assert found[:7, :7].mean() > 3 * abs(found[7:, 7:].mean())


def test_a_true_map_beats_chance_and_its_opposite_does_not(hiding: Hiding, image: RGB) -> None:
    found = hiding.causal(colour_masks(image, hiding.grid))

    assert hiding.check(found).better
    assert hiding.check(found).gain > 0.5
    assert not hiding.check(-found).better


def test_the_areas_of_a_map_are_those_of_its_definition(hiding: Hiding) -> None:
    ideal = np.zeros(hiding.grid)
    ideal[:7, :7] = np.arange(49, 0, -1).reshape(7, 7)

    check = hiding.check(ideal)

    assert 0 <= check.deletion < 0.4
    assert 0.6 < check.insertion <= 1


def test_a_score_that_does_not_change_is_explained_by_nothing(image: RGB) -> None:
    hiding = Hiding(Encoder(PLAIN, Corner()), image, lambda vectors: np.ones(len(vectors)))

    check = hiding.check(hiding.causal(colour_masks(image, hiding.grid)))

    assert (check.deletion, check.insertion) == (0.5, 0.5)
    assert not check.better


def test_the_same_image_gets_the_same_map(image: RGB) -> None:
    encoder = Encoder(CARD, Colour(CARD))
    wanted = encoder.embed([image])[0]

    def found() -> np.ndarray:
        hiding = Hiding(encoder, image, lambda vectors: vectors @ wanted)
        return hiding.causal(colour_masks(image, hiding.grid))

    assert (found() == found()).all()


def test_masks_of_features_follow_the_parts_that_features_tell_apart(
    rng: np.random.Generator,
) -> None:
    tokens = rng.normal(0, 0.05, (8, 8, 20))
    tokens[:4, :, :5] += 3
    tokens[:, :4, 5:10] += 3

    masks = feature_masks(tokens.astype(np.float32), most=6)

    assert len(masks) <= 6
    assert (masks.min(), masks.max()) == (0, 1)
    tops = [mask for mask in masks if mask[:4].mean() > 0.8 and mask[4:].mean() < 0.2]
    lefts = [mask for mask in masks if mask[:, :4].mean() > 0.8 and mask[:, 4:].mean() < 0.2]
    assert tops
    assert lefts


def test_masks_of_colours_cover_every_square_once(image: RGB) -> None:
    masks = colour_masks(image, (14, 14))

    assert (masks.sum(axis=0) == 1).all()
    assert 2 < len(masks) <= 24


def test_tokens_that_do_not_vary_give_one_mask() -> None:
    assert feature_masks(np.ones((4, 4, 3), np.float32)).shape == (1, 4, 4)


def test_a_true_map_is_faithful_and_its_opposite_is_not(hiding: Hiding, image: RGB) -> None:
    found = hiding.causal(colour_masks(image, hiding.grid))
    true, false = hiding.faithful(found), hiding.faithful(-found)
    flat = hiding.faithful(np.ones(hiding.grid))

    assert true.correlation > 0.5 > -0.5 > false.correlation
    assert flat.correlation == 0
    assert 0 <= true.monotonicity <= 1
    assert true.monotonicity > 0.7


def test_the_pointing_game_looks_at_the_highest_place() -> None:
    found = np.zeros((4, 4))
    found[1, 2] = 1
    inside = np.zeros((4, 4), bool)
    inside[1, 2] = True

    assert points_at(found, inside)
    assert not points_at(found, ~inside)
