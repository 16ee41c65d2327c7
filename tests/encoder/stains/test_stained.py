"""Normalised images and plain ones never meet, and a query goes the way of the tiles."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from benchmarks.made import glass, tissue
from encoder.registry import load
from encoder.stains import stained as module
from encoder.stains.normalisers import NORMALISERS, Macenko, Normaliser
from encoder.stains.stained import NoSuchNormaliser, as_carded, normaliser_of, seen, stained


@pytest.mark.parametrize("kind", NORMALISERS, ids=lambda kind: kind.method)
def test_an_encoder_normalises_unless_that_was_done(
    kind: type[Normaliser], rng: np.random.Generator
) -> None:
    plain, tile = load("colour"), tissue(96, rng)
    normalised = kind().apply(tile)

    through, done = stained(plain, kind()), stained(plain, kind(), done=True)

    assert np.array_equal(through.embed([tile]), plain.embed([normalised]))
    assert np.array_equal(done.embed([normalised]), plain.embed([normalised]))
    assert through.card.fingerprint == done.card.fingerprint != plain.card.fingerprint


def test_an_image_on_which_it_fails_stays_as_it_is_and_that_is_said(
    rng: np.random.Generator,
) -> None:
    empty = glass(64, 64, rng)

    image, why = seen(Macenko(), empty)

    assert image is empty
    assert "too little stain" in str(why)
    plain = load("colour")
    assert np.array_equal(stained(plain, Macenko()).embed([empty]), plain.embed([empty]))


def test_an_image_larger_than_any_tile_is_shrunk_first(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    tile = tissue(96, rng)
    large = np.repeat(np.repeat(tile, 3, axis=0), 3, axis=1)
    monkeypatch.setattr(module, "MOST_PIXELS", tile.shape[0] * tile.shape[1])

    assert np.array_equal(seen(Macenko(), large)[0], Macenko().apply(tile))


def test_a_card_names_its_normaliser_and_its_target(rng: np.random.Generator) -> None:
    card, tile = load("colour").card, tissue(96, rng)

    assert normaliser_of(card) is None
    for kind in NORMALISERS:
        for made in (kind(), kind.fit(tissue(128, rng))):
            found = normaliser_of(replace(card, stain=made.name))
            assert type(found) is kind
            assert found.name == made.name
            assert np.array_equal(found.apply(tile), made.apply(tile))


@pytest.mark.parametrize("name", ["macenko-0", "macenko-1-0123abcd", "nosuch-1", "reinhard-1"])
def test_a_normaliser_that_is_not_here_is_named(name: str) -> None:
    encoder = load("colour")

    with pytest.raises(NoSuchNormaliser, match=f"{name}.*macenko-1, reinhard-2, vahadane-1"):
        as_carded(encoder, replace(encoder.card, stain=name))


def test_an_encoder_that_has_it_already_is_left_alone() -> None:
    once = stained(load("colour"), Macenko())

    assert as_carded(once, once.card) is once
    assert as_carded(once, load("colour").card) is once
