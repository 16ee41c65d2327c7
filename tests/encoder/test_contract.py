"""Whatever a network returns, the caller gets what the card promises, or an error in words."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import numpy as np
import pytest

from encoder.card import EncoderCard
from encoder.contract import RGB, Encoder, EncoderError, NoPatchTokens

CARD = EncoderCard(id="fake", architecture="fake", dim=4, input_px=28, patch_px=14)
IMAGE = np.zeros((28, 28, 3), np.uint8)


class Fake:
    """Returns what it is told to."""

    def __init__(self, rows: object, patches: object = None) -> None:
        self.rows, self.patches = rows, patches
        self.sizes: list[int] = []

    def vectors(self, images: Sequence[RGB]) -> np.ndarray:
        self.sizes.append(len(images))
        return np.repeat(np.asarray(self.rows), len(images), axis=0)

    def tokens(self, images: Sequence[RGB]) -> tuple[np.ndarray, np.ndarray]:
        return self.vectors(images), np.asarray(self.patches)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([[1.0, 2.0, 3.0]], r"returned shape \(1, 3\); its card says \(1, 4\)"),
        ([1.0, 2.0, 3.0, 4.0], r"returned shape \(4,\)"),
        ([[1, 2, 3, 4]], "returned int64; floating point was expected"),
        ([[1.0, np.nan, 0.0, 0.0]], "NaN or infinity for 1 of 1"),
        ([[np.inf, 0.0, 0.0, 0.0]], "NaN or infinity for 1 of 1"),
        ([[0.0, 0.0, 0.0, 0.0]], "zero vector for 1 of 1"),
        ([[1e-20, 0.0, 0.0, 0.0]], "zero vector for 1 of 1"),
    ],
    ids=["width", "rank", "integers", "NaN", "infinity", "zero", "nearly zero"],
)
def test_a_network_that_breaks_its_card_is_named(rows: object, message: str) -> None:
    with pytest.raises(EncoderError, match=message) as caught:
        Encoder(CARD, Fake(rows)).embed([IMAGE])
    assert "'fake'" in str(caught.value)


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
def test_rows_of_any_length_and_float_come_back_as_float32_of_length_one(kind: type) -> None:
    rows = Encoder(CARD, Fake(np.array([[3, 4, 0, 0]], kind))).embed([IMAGE, IMAGE])
    assert rows.dtype == np.float32
    assert rows == pytest.approx(np.array([[0.6, 0.8, 0, 0]] * 2))


def test_very_long_rows_do_not_overflow() -> None:
    rows = Encoder(CARD, Fake(np.array([[3e38, 3e38, 0, 0]], np.float32))).embed([IMAGE])
    assert rows == pytest.approx(np.array([[0.5**0.5, 0.5**0.5, 0, 0]]))


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((28, 28), np.uint8), r"image 1: expected height x width x 3, got \(28, 28\)"),
        (np.zeros((28, 28, 4), np.uint8), "image 1: expected height x width x 3"),
        (np.zeros((0, 28, 3), np.uint8), "image 1: expected height x width x 3"),
        (np.zeros((28, 28, 3), np.float32), "image 1: expected a uint8 array, got float32"),
        ("cell.jpg", "image 1: expected a uint8 array, got str"),
    ],
)
def test_an_image_of_another_kind_is_refused_by_its_place(image: object, message: str) -> None:
    fake = Fake([[1.0, 0, 0, 0]])
    with pytest.raises(EncoderError, match=message):
        Encoder(CARD, fake).embed([IMAGE, image])  # type: ignore[list-item]
    assert fake.sizes == []


def test_images_go_through_in_batches_and_none_gives_none() -> None:
    fake = Fake([[1.0, 0, 0, 0]])
    encoder = Encoder(CARD, fake, batch_size=3)
    assert encoder.embed([IMAGE] * 7).shape == (7, 4)
    assert fake.sizes == [3, 3, 1]
    assert encoder.embed([]).shape == (0, 4)
    vectors, patches = encoder.tokens([])
    assert vectors.shape == (0, 4)
    assert patches.shape == (0, 2, 2, 4)


def test_patch_tokens_keep_their_length_and_are_held_to_the_grid() -> None:
    patches = np.full((1, 2, 2, 4), 7.0)
    cls, kept = Encoder(CARD, Fake([[1.0, 0, 0, 0]], patches)).tokens([IMAGE])
    assert cls.shape == (1, 4)
    assert kept.dtype == np.float32
    assert (kept == 7).all()
    with pytest.raises(EncoderError, match=r"\(1, 4, 4\); its card says \(1, 2, 2, 4\)"):
        Encoder(CARD, Fake([[1.0, 0, 0, 0]], patches.reshape(1, 4, 4))).tokens([IMAGE])


def test_patch_tokens_of_an_encoder_without_them_are_refused() -> None:
    card = EncoderCard(id="flat", architecture="fake", dim=4)
    with pytest.raises(NoPatchTokens, match="'flat' has no patch tokens"):
        Encoder(card, Fake([[1.0, 0, 0, 0]])).tokens([IMAGE])


def test_an_encoder_answers_several_threads() -> None:
    from encoder import registry

    encoder = registry.load("colour")
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (40, 40, 3), dtype=np.uint8) for _ in range(16)]
    expected = encoder.embed(images)
    got: dict[int, np.ndarray] = {}
    threads = [
        threading.Thread(target=lambda at=at: got.update({at: encoder.embed(images)}))
        for at in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(np.array_equal(got[at], expected) for at in range(4))
