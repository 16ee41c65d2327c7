from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from search.evaluation.splits import Fold
from train.data.datasets import Labelled
from train.evaluation.few_shot import (
    FewShotConfig,
    drawn,
    label_efficiency,
    main,
    n_shot,
    simple_shot,
)
from train.evaluation.shift import (
    between_sites,
    linear_cka,
    representation_shift,
    same_neighbours,
    wasserstein,
)


def labelled_of(labels, groups, sources=None) -> Labelled:
    n = len(labels)
    return Labelled(
        name="made up", paths=(None,) * n, squares=(None,) * n, labels=np.array(labels),
        groups=np.array(groups), unit="image",
        sources=None if sources is None else np.array(sources),
    )  # fmt: skip


def test_the_nearest_class_mean_is_found_after_centring(rng):
    """A large common offset hides the classes from the cosine; centring takes it away."""
    means = np.eye(3, 16, dtype=np.float32)
    truth = np.arange(300) % 3
    rows = 100 + means[truth] + 0.1 * rng.standard_normal((300, 16)).astype(np.float32)

    assert np.array_equal(simple_shot(rows[:30], truth[:30], rows[30:]), truth[30:])


def test_what_is_drawn_comes_from_as_many_groups_as_there_are(rng):
    labels = np.array([0] * 9 + [1] * 2)
    groups = np.array(["a"] * 7 + ["b", "c"] + ["d", "d"])
    rows = drawn(labels, groups, {0: 3, 1: 5}, rng)

    assert set(groups[rows[labels[rows] == 0]]) == {"a", "b", "c"}
    assert (labels[rows] == 1).sum() == 2  # all of a class that has fewer


@pytest.fixture(name="blobs")
def _blobs(rng):
    truth = np.arange(240) % 4
    rows = np.eye(4, 12, dtype=np.float32)[truth] + rng.normal(0, 0.35, (240, 12))
    labelled = labelled_of([f"label {one}" for one in truth], [str(at) for at in range(240)])
    return rows.astype(np.float32), labelled, Fold("1", np.arange(160), np.arange(160, 240))


def test_more_shots_score_better_and_vary_less(blobs):
    one, many = n_shot(*blobs, FewShotConfig(shots=(1, 25), draws=40))

    assert (one.cells, many.cells) == (4, 100)
    assert one.mean["accuracy"] < many.mean["accuracy"] - 0.05
    width = [p.high["accuracy"] - p.low["accuracy"] for p in (one, many)]
    assert width[0] > 2 * width[1]
    assert one.low["accuracy"] < one.mean["accuracy"] < one.high["accuracy"]
    assert one.short == many.short == ()


def test_a_class_without_so_many_images_is_told(blobs):
    (point,) = n_shot(*blobs, FewShotConfig(shots=(41,), draws=2))

    assert point.short == ("label 0", "label 1", "label 2", "label 3")
    assert point.cells == 160


def test_label_efficiency_takes_shares_of_each_class(blobs):
    points = label_efficiency(*blobs, FewShotConfig(shares=(5, 100), share_draws=3))

    assert [(p.method, p.labels, p.cells, p.draws) for p in points] == [
        ("20-NN", "5 %", 8, 3), ("linear probe", "5 %", 8, 3),
        ("20-NN", "100 %", 160, 1), ("linear probe", "100 %", 160, 1),
    ]  # fmt: skip
    assert points[1].mean["accuracy"] < points[3].mean["accuracy"]


def test_the_command_writes_every_point(tmp_path):
    for at in range(40):
        path = tmp_path / "set" / "ab"[at % 2] / f"{at}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((9, 9, 3), 40 + 5 * at, np.uint8)).save(path)
    words = ["--data", f"folder:{tmp_path / 'set'}", "--encoders", "colour", "--shots", "1", "2",
             "--draws", "3", "--shares", "50", "100", "--cache", str(tmp_path / "c"),
             "--out", str(tmp_path / "out.json")]  # fmt: skip

    assert main(words) == 0
    (record,) = json.loads((tmp_path / "out.json").read_text())
    assert [p["labels"] for p in record["encoders"]["colour"]] == [
        "1 a class", "2 a class", "50 %", "50 %", "100 %", "100 %",
    ]  # fmt: skip
    assert Console  # the table goes to the terminal


def test_the_wasserstein_distance_is_that_of_scipy(rng):
    from scipy.stats import wasserstein_distance

    a, b = rng.standard_normal((400, 1)), 0.5 + 2 * rng.standard_normal((300, 1))
    both = np.concatenate([a, b]).std()

    assert wasserstein(a, b) == pytest.approx(
        wasserstein_distance(a[:, 0], b[:, 0]) / both, rel=0.03
    )


def test_a_site_shift_stands_out_from_chance_and_other_labels_are_none(rng):
    labels = np.array(["x", "y"] * 200)
    sites = np.repeat(["bergen", "lima"], 200)
    rows = rng.standard_normal((400, 8)) + 3 * (labels == "x")[:, None]
    moved = rows + 1.0 * (sites == "lima")[:, None]
    groups = [str(at) for at in range(400)]
    plain, shifted = (
        between_sites(
            made, labelled_of(labels, groups, sites), "bergen", "lima", resamples=20, seed=0
        )
        for made in (rows, moved)
    )

    assert plain.chance is not None
    assert plain.low < plain.value < 2 * plain.chance
    assert shifted.low > 2 * plain.high
    assert shifted.labels == ("x", "y")
    with pytest.raises(ValueError, match="no label in common"):
        representation_shift(
            rows[:200], np.repeat(["x", "y"], 100), sites[100:300], "bergen", "lima"
        )


def test_turned_and_scaled_vectors_are_one_representation_and_noise_is_another(rng):
    rows = rng.standard_normal((200, 6)).astype(np.float32)
    turned = 3 * rows @ np.linalg.qr(rng.standard_normal((6, 6)))[0].astype(np.float32)
    noise = rng.standard_normal((200, 6)).astype(np.float32)

    assert linear_cka(rows, turned) == pytest.approx(1, abs=1e-5)
    assert linear_cka(rows, noise) < 0.2
    assert same_neighbours(rows, turned) > 0.99
    assert same_neighbours(rows, noise) < 0.2
