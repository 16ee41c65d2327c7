"""Each check refuses what it is there for, and says with which figure."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import f1_score
from sklearn.neighbors import KNeighborsClassifier
from versioned import draw, embedded_entries, mixed

from search.index.contract import BuildReport, Vectors, checked_vectors
from search.library.sources import PlainImages
from search.maintenance import checks
from search.maintenance.checks import Limits, Table
from search.neighbours.groups import item_groups
from search.schemas.items import Item, item_id, source_id

LIMITS = Limits(k=3)


def table(vectors: Vectors, **facts: list[str | None]) -> Table:
    items = []
    for at in range(len(vectors)):
        source = source_id(str(at).encode())
        own = {name: values[at] for name, values in facts.items()}
        items.append(Item(id=item_id("d", source), dataset="d", source=source, **own))
    ids = [bytes([at]) for at in range(len(vectors))]
    return Table(ids, items, vectors, item_groups(items, {}))


def spread(n: int, dim: int = 16, seed: int = 0) -> Vectors:
    return checked_vectors(np.random.default_rng(seed).normal(size=(n, dim)), dim)


def report(recall: float, filtered: float, sample: int = 100) -> BuildReport:
    return BuildReport(1000, 1.0, recall, filtered, sample)


def test_vectors_that_all_point_one_way_are_refused() -> None:
    good = checks.collapse(spread(400), LIMITS)
    near = checked_vectors(np.ones((400, 16)) * 20 + spread(400), 16)
    bad = checks.collapse(near, LIMITS)

    assert good.passed
    assert abs(good.figures["mean_cosine"]) < 0.05
    assert bad.passed is False
    assert bad.figures["mean_cosine"] > 0.98


def test_the_effective_rank_counts_the_directions_that_are_used() -> None:
    rows = np.zeros((300, 16))
    angles = np.random.default_rng(0).uniform(0, 2 * np.pi, 300)
    rows[:, 0], rows[:, 1] = np.cos(angles), np.sin(angles)
    flat = checks.collapse(checked_vectors(rows, 16), LIMITS)

    assert flat.figures["effective_rank"] == pytest.approx(2, abs=0.05)
    assert flat.passed is False
    assert checks.collapse(spread(2000), LIMITS).figures["effective_rank"] > 15


@pytest.mark.parametrize("harm", [np.nan, np.inf, 0.0, 2.0])
def test_a_row_that_is_no_direction_is_refused(harm: float) -> None:
    rows = spread(10).copy()
    assert checks.finite(rows).passed
    rows[3] *= harm

    check = checks.finite(rows)
    assert check.passed is False
    assert checks.finite(rows[:0]).passed is False


def test_nothing_else_is_measured_on_broken_vectors() -> None:
    rows = spread(10).copy()
    rows[3] = np.nan
    golden = checks.Check("golden", True)

    found = checks.examine(table(rows), None, report(1, 1), golden)
    assert [check.name for check in checks.failed(found)] == ["finite"]
    assert len(found) == 1


def test_the_duplicate_rate_is_the_share_that_has_a_twin() -> None:
    rows = spread(100).copy()
    rows[1] = rows[0]
    rows[2] = rows[0]
    check = checks.duplicates(table(rows), None, LIMITS)
    assert check.figures["share"] == pytest.approx(0.03)
    assert check.passed is False

    again = checks.duplicates(table(rows), table(rows), LIMITS)
    assert again.passed, "the parent had them too: they are in the data"
    assert again.limits["share"] == pytest.approx(0.04)


def test_an_encoder_that_drifted_fails_its_golden_vectors(tmp_path: Path) -> None:
    entries = embedded_entries(draw(tmp_path, 1), mixed(1))
    same = checks.golden_vectors(entries, mixed(1), PlainImages(), LIMITS)
    assert same.passed
    assert same.figures["least_cosine"] == pytest.approx(1, abs=1e-6)

    drifted = checks.golden_vectors(entries, mixed(1, bias=0.3), PlainImages(), LIMITS)
    assert drifted.passed is False


def test_golden_vectors_without_sources_are_reported_as_unmeasured(tmp_path: Path) -> None:
    entries = embedded_entries(draw(tmp_path, 1), mixed(1))
    for field in tmp_path.glob("*.png"):
        field.unlink()
    check = checks.golden_vectors(entries, mixed(1), PlainImages(), LIMITS)
    assert check.passed is None
    assert "cannot be read" in check.note


@pytest.mark.parametrize(
    ("recall", "filtered", "passed"), [(0.98, 0.98, True), (0.979, 1, False), (1, 0.5, False)]
)
def test_recall_is_checked_against_its_limit_with_and_without_filters(
    recall: float, filtered: float, passed: bool
) -> None:
    assert checks.recall(report(recall, filtered), LIMITS).passed is passed


def test_the_vote_is_that_of_scikit_learn_on_the_same_folds() -> None:
    rng = np.random.default_rng(4)
    truth = rng.integers(3, size=90)
    rows = checked_vectors(np.eye(8)[truth] * 2 + rng.normal(size=(90, 8)), 8)
    patients = rng.integers(9, size=90)
    whole = table(rows, label=[f"l{x}" for x in truth], patient=[f"p{x}" for x in patients])
    reported = np.empty(90, int)
    for patient in range(9):
        out = patients == patient
        voters = KNeighborsClassifier(1, metric="cosine", algorithm="brute")
        reported[out] = voters.fit(rows[~out], truth[~out]).predict(rows[out])

    check = checks.knn(whole, (whole, whole), Limits(k=1))
    wanted = f1_score(truth, reported, average="weighted")
    assert check.figures["weighted_f1"] == pytest.approx(wanted)


def test_a_version_that_votes_worse_than_its_parent_is_refused() -> None:
    truth = np.arange(60) % 3
    good = checked_vectors(np.eye(8)[truth] + 0.01 * spread(60, 8), 8)
    facts = {"label": [f"l{x}" for x in truth]}
    parent, worse = table(good, **facts), table(spread(60, 8), **facts)

    check = checks.knn(worse, checks.common(worse, parent), LIMITS)
    assert check.passed is False
    assert check.figures["parent"] == pytest.approx(1)
    assert checks.knn(parent, checks.common(parent, worse), LIMITS).passed
    assert checks.knn(table(good), None, LIMITS).passed is None


def test_a_version_that_sorts_by_laboratory_is_refused() -> None:
    rng = np.random.default_rng(0)
    biology, site = rng.integers(2, size=80), rng.integers(2, size=80)
    facts = {"label": [f"l{x}" for x in biology], "site": [f"s{x}" for x in site]}
    noise = 0.1 * rng.normal(size=(80, 8))
    parent = table(checked_vectors(np.eye(8)[biology] + noise, 8), **facts)
    biased = table(checked_vectors(np.eye(8)[2 + site] + noise, 8), **facts)

    check = checks.centre(biased, checks.common(biased, parent), LIMITS)
    assert check.passed is False
    assert check.figures["own_site"] == pytest.approx(1)
    assert check.figures["robustness"] == pytest.approx(0)
    assert check.figures["parent_robustness"] == pytest.approx(1)
    assert check.figures["expected"] == pytest.approx(0.5, abs=0.05)


def test_one_site_has_no_bias_to_measure() -> None:
    check = checks.centre(table(spread(5), site=["s"] * 5), None, LIMITS)
    assert (check.passed, check.figures) == (None, {})


def test_only_items_of_both_versions_are_compared() -> None:
    rows = spread(6)
    new = Table([b"a", b"c", b"d"], table(rows).items[:3], rows[:3], np.array([0, 1, 2]))
    old = Table([b"a", b"b", b"d"], table(rows).items[3:], rows[3:], np.array([0, 1, 1]))
    mine, theirs = checks.common(new, old)

    assert mine.ids == theirs.ids == [b"a", b"d"]
    assert np.array_equal(mine.vectors, rows[[0, 2]])
    assert np.array_equal(theirs.vectors, rows[[3, 5]])
    assert mine.group.tolist() == theirs.group.tolist() == [0, 2]
