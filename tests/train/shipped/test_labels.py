from __future__ import annotations

import pytest

from train.shipped.labels import LEAVES, MEANING, NUCLEATED, PARENTS, allowed, shared, siblings


def test_each_leaf_has_one_parent() -> None:
    assert sorted(leaf for parent in PARENTS for leaf in parent) == sorted(LEAVES)


def test_a_fine_label_is_one_leaf_and_a_coarse_one_several() -> None:
    assert allowed("EO").sum() == 1
    assert allowed("EOS").equal(allowed("EO"))
    assert allowed("rbc").sum() == 13
    assert int(allowed("wbc").sum()) == len(NUCLEATED)


def test_band_and_segmented_neutrophils_are_siblings_and_eosinophils_are_not() -> None:
    near = siblings()
    band, segmented, eosinophil = (LEAVES.index(name) for name in ("BNE", "SNE", "EO"))

    assert near[band, segmented]
    assert not near[band, eosinophil]
    assert near.equal(near.T)


def test_laboratories_are_compared_by_names_that_they_share() -> None:
    assert {shared(label) for label in ("SNE", "NGS", "BNE", "Neutrophil")} == {"neutrophil"}
    assert shared("Metamyelocyte") == shared("MMY")
    assert shared("Myeloblast") == shared("BLA")


def test_a_label_outside_the_tree_is_refused() -> None:
    assert "plasma cell" not in MEANING
    with pytest.raises(KeyError):
        allowed("plasma cell")
