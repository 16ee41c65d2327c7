"""Stain normalisation: what it does, where it is refused, where it fails."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy.optimize import nnls

from benchmarks.made import STAINS, blob, glass, tissue
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
    passed = rng.uniform(0.02, 0.98, (50, 3))

    assert np.allclose(st.from_lab(st.to_lab(passed)), passed, atol=2e-3)


def by_density(red, green, blue):
    """Another stain or scanner: the optical density of each channel by a factor."""
    powers = np.array([red, green, blue])
    return lambda tile: (255 * (np.maximum(tile, 1) / 255) ** powers).astype(np.uint8)


def by_light(red, green, blue):
    """Another lamp or camera: the light of each channel by a factor."""
    return lambda tile: (tile * np.array([red, green, blue])).astype(np.uint8)


@pytest.mark.parametrize(
    ("other", "most"),
    [
        (by_light(0.97, 0.93, 0.98), 2.0),
        (by_light(0.9, 0.8, 1.0), 1.0),
        (by_density(1.1, 0.95, 1.0), 3.0),
        (by_density(1.4, 1.1, 0.8), 3.0),
        (by_density(0.6, 0.6, 0.6), 6.0),
    ],
    ids=["light", "much light", "stain", "much stain", "pale"],
)
@pytest.mark.parametrize("fitted", [False, True], ids=["reference", "target image"])
def test_reinhard_brings_two_views_of_a_tile_together(other, most, fitted, rng):
    """Mean difference of all pixels in levels of 255; torchstain 1.4 leaves 2.2, 9.7, 2.0, 3.0
    and 6.0 of such tiles, the hard mask of version 1 up to 37."""
    normaliser = Reinhard.fit(tissue(192, rng)) if fitted else Reinhard()
    for tile in (tissue(192, rng), blob(192, 192, rng)):
        one, two = (normaliser.apply(view).astype(int) for view in (tile, other(tile)))
        assert np.abs(one - two).mean() < most


def test_the_share_of_glass_does_not_move_the_colours_of_reinhard(rng):
    tile = tissue(192, rng)
    half = tile.copy()
    half[96:] = 244
    whole, part = Reinhard().apply(tile)[:96], Reinhard().apply(half)[:96]

    assert np.abs(whole.astype(int) - part).mean() < 12


def test_glass_stays_glass_under_reinhard(rng):
    tile = tissue(128, rng)
    tile[:64] = 244
    assert (Reinhard().apply(tile)[:64] == 244).all()


def test_an_unknown_method_lists_the_known_ones():
    with pytest.raises(StainError, match="macenko, reinhard, vahadane"):
        st.by_name("ruifrok")
