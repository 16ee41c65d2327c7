"""A transform is scored on cells that it was not fitted on."""

from __future__ import annotations

import numpy as np
import pytest

from encoder.card import EncoderCard
from search.adaptation.comparison import Comparison, Confounded, compare, refuse_confounded
from search.maintenance.checks import Check
from search.transforms.contract import CannotFit, Sample, unit

DIM = 10
BASE = EncoderCard(id="base", architecture="drawn", dim=DIM)


def library(sites: int = 3, each: int = 100, *, loud: float = 2, quiet: float = 0.6) -> Sample:
    """Two labels separated by one direction, sites by louder ones; groups of two cells."""
    rng = np.random.default_rng(1)
    n = sites * each
    labels = np.array(["blast", "monocyte"])[np.arange(n) // 2 % 2]
    site = np.repeat(np.arange(sites), each)
    rows = rng.normal(0, [0.3] + [1] * (DIM - 1), (n, DIM))
    rows[:, 0] += np.where(labels == "blast", quiet, -quiet)
    rows[np.arange(n), 1 + site] += loud
    names = np.array([f"site {at}" for at in range(sites)])
    return Sample(unit(rows), names[site], labels, np.arange(n) // 2)


def checks(found: Comparison) -> dict[str, Check]:
    return {check.name: check for check in found.checks}


def test_axes_that_separate_labels_at_held_out_sites_pass() -> None:
    found = checks(compare("metric", library(), BASE))

    assert found["transfer"].passed
    assert found["transfer"].figures["weighted_f1_gain_low"] > 0
    assert "each site held out in turn" in found["transfer"].note
    assert [found[f"within site {at}"].passed for at in range(3)] == [True] * 3


def test_robustness_and_own_site_are_reported_before_and_after() -> None:
    figures = checks(compare("metric", library(), BASE))["robustness"].figures

    assert figures["robustness"] > figures["robustness_before"]
    assert figures["own_site"] < figures["own_site_before"]


def test_labels_that_were_shuffled_gain_nothing() -> None:
    cells = library(each=200)
    labels = np.random.default_rng(0).permutation(cells.labels)
    shuffled = Sample(cells.vectors, cells.sites, labels, cells.groups)

    assert not checks(compare("metric", shuffled, BASE))["transfer"].passed


def test_one_site_is_compared_over_whole_groups() -> None:
    found = compare("metric", library(sites=1), BASE)

    assert found.split == "5 folds of whole patients, cases or sources"
    assert [check.name for check in found.checks] == ["transfer", "within site 0"]


def test_equal_libraries_give_equal_figures() -> None:
    assert compare("align", library(), BASE) == compare("align", library(), BASE)


def test_a_library_whose_labels_say_the_site_is_refused_with_the_table() -> None:
    cells = library(sites=2)
    labels = np.where(cells.sites == "site 0", "blast", "monocyte")

    with pytest.raises(Confounded, match="blast: site 0 100\n  monocyte: site 1 100"):
        compare("metric", Sample(cells.vectors, cells.sites, labels, cells.groups), BASE)


def test_one_label_at_two_sites_is_not_enough_to_separate_labels_from_sites() -> None:
    cells = library(sites=2)
    labels = np.where(cells.sites == "site 0", "blast", cells.labels)

    with pytest.raises(Confounded, match="fewer than two labels occur at more than one site"):
        refuse_confounded(Sample(cells.vectors, cells.sites, labels, cells.groups))


def test_cells_without_a_site_confound_nothing() -> None:
    cells = library()

    refuse_confounded(Sample(cells.vectors, np.full(len(cells), ""), cells.labels, cells.groups))


def test_a_library_of_one_patient_cannot_be_compared() -> None:
    cells = library(sites=1)

    with pytest.raises(CannotFit, match="nothing can be held out"):
        compare("metric", Sample(cells.vectors, cells.sites, cells.labels, cells.groups * 0), BASE)


@pytest.mark.parametrize(("label", "found"), [("", 0), ("blast", 1)])
def test_a_library_of_fewer_than_two_labels_cannot_be_compared(label: str, found: int) -> None:
    cells = library()
    alike = Sample(cells.vectors, cells.sites, np.full(len(cells), label), cells.groups)

    with pytest.raises(CannotFit, match=f"two are needed, got {found}; ingest labelled items"):
        compare("align", alike, BASE)
