"""An adapted encoder gives the vectors that the version holds, and its own fingerprint."""

from __future__ import annotations

import numpy as np

from encoder.registry import load
from search.transforms.adaptation import Adaptation
from search.transforms.contract import Sample
from search.transforms.encoder import AdaptedEncoder


def images(count: int = 120) -> list[np.ndarray]:
    """Flat pictures, the second half bluer, as of another stain."""
    rng = np.random.default_rng(0)
    rows = rng.integers(0, 160, (count, 24, 24, 3), np.uint8)
    rows[count // 2 :, :, :, 2] += 90
    return list(rows)


def adapted() -> tuple[AdaptedEncoder, Sample]:
    base = load("colour")
    vectors = base.embed(images())
    sites = np.repeat(["one", "two"], 60)
    sample = Sample(vectors, sites, np.full(120, ""), np.arange(120))
    return AdaptedEncoder(base, Adaptation.fit("align", sample, base.card)), sample


def test_an_image_becomes_what_the_adaptation_makes_of_its_base_vector() -> None:
    encoder, sample = adapted()

    seen = encoder.at("two").embed(images()[:3])

    wanted = encoder.adaptation.apply(sample.vectors[:3], np.full(3, "two"))
    assert np.allclose(seen, wanted, atol=1e-6)
    assert encoder.at("two").card == encoder.card != encoder.base.card


def test_images_of_no_named_site_are_aligned_by_the_nearest() -> None:
    encoder, sample = adapted()

    assert np.allclose(
        encoder.embed(images()), encoder.adaptation.apply(sample.vectors, sample.sites), atol=1e-5
    )
