from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from encoder.contract import Encoder, EncoderError
from encoder.registry import load
from train.data.datasets import folder
from train.evaluation.vectors import open_encoder, random_vit, vectors_of


class _Counting:
    """The colour network, counting the images it is given."""

    def __init__(self):
        self.inner = load("colour")._network
        self.seen = 0

    def vectors(self, images):
        self.seen += len(images)
        return 3 * self.inner.vectors(images)


@pytest.fixture(name="labelled")
def _labelled(tmp_path):
    for at in range(6):
        path = tmp_path / "set" / "ab"[at % 2] / f"{at}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((9, 9, 3), 40 * min(at, 4), np.uint8)).save(path)
    return folder(tmp_path / "set")


def test_vectors_are_embedded_once_and_then_read(labelled, tmp_path):
    network = _Counting()
    encoder = Encoder(load("colour").card, network)
    told = []

    first = vectors_of(encoder, labelled, tmp_path / "c", progress=lambda *at: told.append(at))
    again = vectors_of(encoder, labelled, tmp_path / "c")

    assert network.seen == 5  # two of the six pictures are equal
    assert told == [(5, 5)]
    assert np.array_equal(first, again)
    assert np.array_equal(first, encoder.embed(list(labelled.images())))


def test_a_subset_finds_the_vectors_of_the_whole(labelled, tmp_path):
    network = _Counting()
    encoder = Encoder(load("colour").card, network)
    whole = vectors_of(encoder, labelled, tmp_path / "c")

    part = vectors_of(encoder, labelled.take(np.array([3, 1]), "two"), tmp_path / "c")

    assert network.seen == 5
    assert np.array_equal(part, whole[[3, 1]])


def test_raw_vectors_keep_their_length_and_their_own_place(labelled, tmp_path):
    encoder = Encoder(load("colour").card, _Counting())

    unit = vectors_of(encoder, labelled, tmp_path / "c")
    raw = vectors_of(encoder, labelled, tmp_path / "c", raw=True)

    lengths = np.linalg.norm(raw, axis=1)
    assert (lengths > 3).all()
    assert np.allclose(raw / lengths[:, None], unit, atol=1e-6)


def test_random_weights_follow_their_seed_and_are_in_the_fingerprint():
    (first, _), (again, _), (other, _) = (random_vit("random-vit-s", seed) for seed in (1, 1, 2))

    assert first.fingerprint == again.fingerprint != other.fingerprint
    assert first.id == "random-vit-s-seed1"
    assert (first.dim, first.input_px, first.patch_px) == (384, 224, 14)


def test_random_weights_tell_pictures_apart():
    _, model = random_vit("random-vit-s", 0)
    pictures = torch.stack([torch.full((3, 224, 224), shade) for shade in (-1.0, 1.0)])

    with torch.inference_mode():
        a, b = model.eval()(pictures)

    assert torch.cosine_similarity(a, b, dim=0) < 0.9999


def test_an_unknown_random_encoder_names_the_known():
    with pytest.raises(EncoderError, match="random ones are random-vit-s, -b and -l"):
        open_encoder("random-vit-xl", 0)
