from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from train.config import TrainConfig
from train.data.source import DataError
from train.dino.export import WorseThanParent, guard
from train.dino.watch import Look, collapsed, effective_rank, knn_probe, load_probe, mean_cosine
from train.smoke import draw_cells


def settings(**changes) -> TrainConfig:
    base = {"preset": "scratch", "data": (Path("x"),), "out": Path("y"), "warmup_steps": 10}
    return TrainConfig.model_validate(base | changes)


def test_the_effective_rank_counts_equal_directions():
    rows = torch.cat([torch.eye(5), -torch.eye(5)])
    assert effective_rank(rows) == pytest.approx(5, rel=1e-6)
    assert effective_rank(torch.randn(8, 1) @ torch.randn(1, 5)) == pytest.approx(1, abs=1e-3)


def test_the_mean_cosine_leaves_out_an_image_with_itself():
    rows = torch.randn(7, 4, generator=torch.Generator().manual_seed(0))
    slow = [
        float(torch.nn.functional.cosine_similarity(rows[i], rows[j], dim=0))
        for i in range(7)
        for j in range(7)
        if i != j
    ]
    assert mean_cosine(rows) == pytest.approx(np.mean(slow), abs=1e-6)


def test_the_probe_leaves_the_image_itself_out_and_votes_by_cosine():
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(3), 10)
    rows = rng.normal(size=(30, 6)) + 2 * np.eye(6)[labels]
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    right = []
    for i in range(30):
        near = [j for j in np.argsort(-(unit @ unit[i])) if j != i][:1]
        right.append(labels[near[0]] == labels[i])
    balanced, accuracy = knn_probe(torch.from_numpy(rows), labels, 3, k=1)
    assert accuracy == pytest.approx(np.mean(right), abs=1e-9)
    assert balanced == pytest.approx(np.mean(right), abs=1e-9)  # equal classes


def test_the_probe_takes_labels_evenly_and_needs_two(tmp_path):
    draw_cells(tmp_path, 6, 24, seed=0)
    probe = load_probe(settings(probe=tmp_path, probe_images=8), 16)
    assert probe is not None
    assert probe.labels is not None
    assert np.bincount(probe.labels).tolist() == [2, 2, 2, 2]
    with pytest.raises(DataError, match="at least two labels"):
        load_probe(settings(probe=tmp_path / "eosinophil"), 16)


def looks(*seen: tuple[float, float]) -> list[Look]:
    return [Look(step * 10, rank, cosine) for step, (rank, cosine) in enumerate(seen)]


def test_a_collapse_is_a_rank_or_a_cosine_that_stays_bad():
    assert collapsed(looks((20, 0.5), (18, 0.6), (15, 0.7)), settings()) is None
    assert "rank fell" in str(collapsed(looks((20, 0.5), (1.2, 0.6), (1.1, 0.7)), settings()))
    assert "cosine" in str(collapsed(looks((20, 0.5), (19, 0.9999), (18, 0.9999)), settings()))


def test_one_bad_look_or_one_in_the_warm_up_is_no_collapse():
    assert collapsed(looks((20, 0.5), (19, 0.5), (1.2, 0.9999)), settings()) is None
    late = settings(warmup_steps=100)
    assert collapsed(looks((20, 0.5), (1.2, 0.6), (1.1, 0.7)), late) is None


def test_random_weights_that_look_all_alike_at_the_start_are_no_collapse():
    assert collapsed(looks((9, 0.9995), (10, 0.9994), (12, 0.9993)), settings()) is None


def test_an_encoder_worse_than_its_parent_is_held_back_unless_forced():
    parent, worse = Look(0, 20, 0.5, 0.8, 0.8), Look(30, 20, 0.5, 0.7, 0.7)
    with pytest.raises(WorseThanParent, match=r"0\.7000; what it started from has 0\.8000"):
        guard(settings(), parent, worse, None)
    guard(settings(force=True), parent, worse, None)
    guard(settings(), worse, parent, None)
    with pytest.raises(WorseThanParent, match="collapsed"):
        guard(settings(), worse, parent, "the rank fell")
