"""A tiny student learns what a teacher sees of drawn cells."""

from __future__ import annotations

import numpy as np

from encoder.registry import load
from train.dino.progress import read_log
from train.smoke import SETTINGS
from train.tuning.distillation import DistilConfig, distil, teacher_vectors


def test_a_small_student_learns_what_its_teacher_sees(cells, tmp_path):
    told: list[str] = []
    facts = SETTINGS | {
        "data": (cells,), "out": tmp_path / "student", "teacher": "colour", "steps": 30, "lr": 3e-3,
        "force": True, "tensorboard": False, "checkpoint_every": 100, "watch_every": 30,
        "name": "student",
    }  # fmt: skip
    config = DistilConfig.model_validate(facts)
    distil(config, told.append)
    student, teacher = load(str(tmp_path / "student")), load("colour")
    rows = teacher_vectors(teacher, [cells], lambda done, total: None)
    kept = np.load(tmp_path / "student" / "teacher.npy")

    assert (config.dino_weight, config.ibot_weight) == (0, 0)
    assert np.allclose(rows.mean(axis=0), 0, atol=1e-5)
    assert np.array_equal(rows, kept)
    assert student.card.dim == teacher.card.dim
    steps = [line for line in read_log(tmp_path / "student") if line["kind"] == "step"]
    assert steps[-1]["guide"] < 0.9 * steps[0]["guide"]
