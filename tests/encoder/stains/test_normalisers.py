"""Stain normalisation: what it does, where it is refused, where it fails."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy.optimize import nnls

from benchmarks.made import STAINS, glass, tissue
from encoder.stains import normalisers as st
from encoder.stains.normalisers import (
    NORMALISERS,
    Macenko,
    Normaliser,
    NotForBlood,
    Reinhard,
    StainError,
    Vahadane,
)

every = pytest.mark.parametrize("kind", NORMALISERS, ids=lambda kind: kind.method)
two = pytest.mark.parametrize("kind", [Macenko, Vahadane], ids=lambda kind: kind.method)


def mixed(rng, stains=STAINS, n=128):
    """Pixels of known stains in known amounts."""
    amounts = rng.gamma(0.6, 1.0, (n * n, 2)) + 0.08
    od = amounts @ (stains / np.linalg.norm(stains, axis=1, keepdims=True))
    return np.clip(255 * np.exp(-od), 1, 255).astype(np.uint8).reshape(n, n, 3)


@two
def test_known_stains_are_found(kind, rng):
    found = kind.measure(mixed(rng))["stains"]
    truth = STAINS / np.linalg.norm(STAINS, axis=1, keepdims=True)

    assert (np.sum(found.T * truth, axis=1) > 0.985).all()


@every
def test_two_scanners_look_alike_afterwards(kind, rng):
    tile = tissue(192, rng)
    other = np.clip(tile.astype(float) * (0.9, 0.8, 1.0) + (10, 0, 0), 0, 255).astype(np.uint8)
    normaliser = kind()
    before = np.abs(tile.mean((0, 1)) - other.mean((0, 1))).max()
    after = np.abs(normaliser.apply(tile).mean((0, 1)) - normaliser.apply(other).mean((0, 1))).max()

    assert after < 0.6 * before


@every
def test_a_tile_normalised_to_itself_stays_what_it_is(kind, rng):
    tile = mixed(rng)
    change = np.abs(kind.fit(tile).apply(tile).astype(int) - tile)

    assert change.mean() < 6


@every
@pytest.mark.parametrize("tile", ["glass", "white", "black", "grey"])
def test_a_tile_without_two_stains_is_an_error_not_a_picture(kind, tile, rng):
    tiles = {
        "glass": glass(128, 128, rng),
        "white": np.full((128, 128, 3), 255, np.uint8),
        "black": np.zeros((128, 128, 3), np.uint8),
        "grey": np.full((128, 128, 3), 128, np.uint8),
    }

    with pytest.raises(StainError):
        kind().apply(tiles[tile])


@every
@pytest.mark.parametrize(
    "blood", ["MGG", "May-Grünwald-Giemsa", "may-grunwald giemsa", "Wright", "Leishman", "Giemsa"]
)
def test_blood_stains_are_refused_in_words(kind, blood):
    with pytest.raises(NotForBlood, match="Leave it off for blood"):
        kind().check(blood)

    kind().check("H&E")
    kind().check(None)


@every
def test_the_name_tells_the_version_and_the_target(kind, rng):
    fitted = kind.fit(mixed(rng))

    assert kind().name == f"{kind.method}-{kind.version}"
    assert fitted.name.startswith(f"{kind.method}-{kind.version}-")
    assert fitted.name != kind.fit(tissue(128, rng)).name


@every
def test_a_normaliser_survives_a_journey_as_json(kind, rng):
    tile = mixed(rng)
    for first in (kind(), kind.fit(tissue(128, rng))):
        second = Normaliser.from_json(json.loads(json.dumps(first.to_json())))

        assert second.name == first.name
        assert (second.apply(tile) == first.apply(tile)).all()


def test_concentrations_are_the_non_negative_least_squares(rng):
    stains = (STAINS / np.linalg.norm(STAINS, axis=1, keepdims=True)).T
    density = rng.normal(0.4, 0.6, (300, 3))
    truth = np.array([nnls(stains, row)[0] for row in density])

    assert np.allclose(st.concentrations(stains, density), truth, atol=1e-9)


def test_lab_is_undone(rng):
    pixels = rng.uniform(5, 250, (50, 3))

    assert np.allclose(st.from_lab(st.to_lab(pixels)), pixels, rtol=1e-6)


def test_glass_stays_glass_under_reinhard(rng):
    tile = tissue(128, rng)
    tile[:64] = 244
    assert (Reinhard().apply(tile)[:64] == 244).all()


def test_an_unknown_method_lists_the_known_ones():
    with pytest.raises(StainError, match="macenko, reinhard, vahadane"):
        st.by_name("ruifrok")
