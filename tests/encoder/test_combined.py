"""Several encoders make one vector, and every one of them is in its fingerprint."""

from __future__ import annotations

import numpy as np
import pytest

from encoder.card import CardError, EncoderCard
from encoder.contract import RGB, Encoder, EncoderError
from encoder.registry import UnknownEncoder, load

IMAGES = list(np.random.default_rng(0).integers(0, 255, (3, 40, 40, 3), np.uint8))


def test_the_cosine_of_two_encoders_is_the_mean_of_theirs() -> None:
    both, parts = load("colour+measured"), [load("colour"), load("measured")]

    seen = both.embed(IMAGES)

    cosines = [rows @ rows.T for rows in (part.embed(IMAGES) for part in parts)]
    assert np.allclose(seen @ seen.T, np.mean(cosines, axis=0), atol=1e-5)
    assert both.card.parts == (parts[0].card.dim, parts[1].card.dim)


def test_the_fingerprint_follows_each_encoder_and_their_order() -> None:
    prints = {
        load(id).card.fingerprint
        for id in ("colour", "measured", "colour+measured", "measured+colour")
    }

    assert len(prints) == 4


def test_the_card_of_two_encoders_survives_its_file() -> None:
    card = load("colour+measured").card

    assert EncoderCard.from_json(card.to_json()) == card


class _Patched:
    """A network whose patch tokens are the mean colours of a 2 x 2 grid."""

    def vectors(self, images: list[RGB]) -> np.ndarray:
        return self.tokens(images)[1].mean(axis=(1, 2))

    def tokens(self, images: list[RGB]) -> tuple[np.ndarray, np.ndarray]:
        grid = np.stack([one.reshape(2, 20, 2, 20, 3).mean(axis=(1, 3)) for one in images]) / 255
        return grid.mean(axis=(1, 2)), grid


def test_patches_are_those_of_the_encoder_that_has_them() -> None:
    from encoder.combined import combined

    card = EncoderCard(id="patched", architecture="drawn", dim=3, input_px=40, patch_px=20)
    patched = Encoder(card, _Patched())

    pooled, patches = combined([load("colour"), patched]).tokens(IMAGES)

    own, grid = patched.tokens(IMAGES)
    assert np.allclose(pooled[:, -3:], own / np.sqrt(2), atol=1e-6)
    assert np.allclose(patches[..., -3:], grid)
    assert not patches[..., :-3].any()


def test_one_encoder_twice_is_refused() -> None:
    with pytest.raises(EncoderError, match="each once"):
        load("colour+colour")


def test_an_unknown_part_is_named() -> None:
    with pytest.raises(UnknownEncoder, match=r"'measurd'\. Did you mean 'measured'"):
        load("colour+measurd")


@pytest.mark.parametrize("parts", [(3,), (1, 1), (4, -1)])
def test_parts_that_do_not_make_the_vector_are_refused(parts: tuple[int, ...]) -> None:
    with pytest.raises(CardError, match="whose sum is dim 3"):
        EncoderCard(id="x", architecture="drawn", dim=3, parts=parts)
