"""A fitted chain is kept, read again, and named in the fingerprint."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from encoder.card import EncoderCard
from search.transforms.adaptation import FACTS, TABLES, Adaptation, BadAdaptation
from search.transforms.contract import CannotFit, Sample, unit

BASE = EncoderCard(id="base", architecture="drawn", dim=6, patch_px=14, weights_sha256="0" * 64)


def sample(shift: float = 3.0) -> Sample:
    """Two labels at two sites, 60 cells each."""
    rng = np.random.default_rng(0)
    labels = np.tile(np.repeat(["blast", "monocyte"], 60), 2)
    sites = np.repeat(["one", "two"], 120)
    rows = rng.normal(size=(240, 6))
    rows[:, 0] += np.where(labels == "blast", 3, -3)
    rows[:, 1] += np.where(sites == "one", 0, shift)
    return Sample(unit(rows), sites, labels, np.arange(240))


@pytest.mark.parametrize("kind", ["align", "metric", "align+metric"])
def test_a_fitted_chain_is_the_same_after_it_was_written_and_read(
    kind: str, tmp_path: Path
) -> None:
    made = Adaptation.fit(kind, sample(), BASE)
    made.write(tmp_path)

    read = Adaptation.read(tmp_path, made.card)

    assert read is not None
    assert read.kind == kind
    assert read.card == made.card
    rows, sites = sample().vectors, sample().sites
    assert np.array_equal(read.apply(rows, sites), made.apply(rows, sites))


def test_a_version_whose_card_names_no_adaptation_has_none(tmp_path: Path) -> None:
    assert Adaptation.read(tmp_path, BASE) is None


def test_an_adaptation_that_is_not_that_of_the_card_is_refused(tmp_path: Path) -> None:
    Adaptation.fit("align", sample(), BASE).write(tmp_path)

    with pytest.raises(BadAdaptation, match="it makes vectors of base through align"):
        Adaptation.read(tmp_path, Adaptation.fit("metric", sample(), BASE).card)


@pytest.mark.parametrize("name", [FACTS, TABLES])
def test_a_damaged_file_is_refused(name: str, tmp_path: Path) -> None:
    made = Adaptation.fit("metric", sample(), BASE)
    made.write(tmp_path)
    content = bytearray((tmp_path / name).read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / name).write_bytes(content)

    with pytest.raises(BadAdaptation, match="restore it from a backup"):
        Adaptation.read(tmp_path, made.card)


def test_the_fingerprint_follows_the_kind_and_what_it_was_fitted_on() -> None:
    cards = [
        Adaptation.fit("align", sample(), BASE).card,
        Adaptation.fit("metric", sample(), BASE).card,
        Adaptation.fit("metric", sample(shift=1.0), BASE).card,
        BASE,
    ]

    assert len({card.fingerprint for card in cards}) == 4
    assert cards[1].fingerprint == Adaptation.fit("metric", sample(), BASE).card.fingerprint


def test_a_card_without_an_adaptation_reads_and_counts_as_before() -> None:
    assert "adapted" not in BASE.to_json()
    assert EncoderCard.from_json(BASE.to_json()) == BASE


def test_only_a_chain_that_aligns_tells_sites_apart() -> None:
    assert Adaptation.fit("align+metric", sample(), BASE).sites == ("one", "two")
    assert Adaptation.fit("metric", sample(), BASE).sites == ()


def test_a_new_site_goes_through_the_whole_chain() -> None:
    fitted = Adaptation.fit("align+metric", sample(), BASE)
    moved = unit(sample().vectors[:120] + np.eye(6)[2])

    known = fitted.with_site("three", moved)

    called = (
        known.apply(moved, np.full(120, "three")) @ fitted.apply(sample().vectors, sample().sites).T
    )
    near = sample().labels[called.argmax(axis=1)]
    assert (near == sample().labels[:120]).mean() > 0.9


@pytest.mark.parametrize("kind", ["alignment", "metric+metric", ""])
def test_an_unknown_kind_is_refused_with_the_known_ones(kind: str) -> None:
    with pytest.raises(CannotFit, match="known are align, metric"):
        Adaptation.fit(kind, sample(), BASE)
