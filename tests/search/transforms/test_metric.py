"""Labels choose axes on which cells of one label lie together, also at sites not seen."""

from __future__ import annotations

import numpy as np
import pytest

from search.transforms.contract import CannotFit, Sample, unit
from search.transforms.metric import REST, Metric

LABELS = ("blast", "lymphocyte", "monocyte")


def cells(sites: tuple[str, ...], each: int = 40, dim: int = 12) -> Sample:
    """Three labels separated by three quiet directions, under louder ones of each site."""
    rng = np.random.default_rng(len(sites))
    rows, labels, names = [], [], []
    for at, site in enumerate(sites):
        loud = np.zeros(dim)
        loud[6:] = np.random.default_rng(at + 10 * len(site)).normal(scale=2, size=dim - 6)
        for number, label in enumerate(LABELS):
            quiet = np.zeros(dim)
            quiet[number] = 1
            rows.append(
                quiet + loud + rng.normal(scale=[0.3] * 3 + [1] * (dim - 3), size=(each, dim))
            )
            labels += [label] * each
            names += [site] * each
    vectors = unit(np.concatenate(rows) + 2)
    return Sample(vectors, np.array(names), np.array(labels), np.arange(len(vectors)))


def nearest_label(train: Sample, test: Sample) -> float:
    """Share of test rows whose nearest train row has their label."""
    near = np.argmax(test.vectors @ train.vectors.T, axis=1)
    return float((train.labels[near] == test.labels).mean())


def test_labels_are_told_apart_at_a_site_that_was_not_fitted() -> None:
    train, test = cells(("rome", "lima", "oslo")), cells(("kyoto-lab",))
    metric = Metric.fit(train)

    after = nearest_label(
        train.with_vectors(metric.apply(train.vectors, train.sites)),
        test.with_vectors(metric.apply(test.vectors, test.sites)),
    )

    assert after > 0.85
    assert after > nearest_label(train, test) + 0.3


def test_rows_keep_their_length_and_number_of_values() -> None:
    train = cells(("rome", "lima"))

    given = Metric.fit(train).apply(train.vectors, train.sites)

    assert given.shape == train.vectors.shape
    assert np.allclose(np.linalg.norm(given, axis=1), 1, atol=1e-5)


def test_a_share_of_each_vector_keeps_what_labels_say_nothing_of() -> None:
    train = cells(("rome", "lima"))
    metric = Metric.fit(train)

    rest = metric.apply(train.vectors, train.sites)[:, metric.axes.shape[1] :]

    assert np.allclose((rest**2).sum(axis=1), REST, atol=1e-4)


def test_rows_without_a_label_do_not_change_the_axes() -> None:
    train = cells(("rome", "lima"))
    silent = Sample(train.vectors[:5], train.sites[:5], np.full(5, ""), train.groups[:5])
    both = Sample(
        np.concatenate([train.vectors, silent.vectors]),
        np.concatenate([train.sites, silent.sites]),
        np.concatenate([train.labels, silent.labels]),
        np.concatenate([train.groups, silent.groups]),
    )

    assert np.allclose(Metric.fit(both).axes, Metric.fit(train).axes)


def test_one_site_is_enough() -> None:
    assert Metric.fit(cells(("rome",))).labels == LABELS


def test_one_label_is_refused() -> None:
    train = cells(("rome", "lima"))

    with pytest.raises(CannotFit, match="two labels, got 1"):
        Metric.fit(train.take(train.labels == "blast"))
