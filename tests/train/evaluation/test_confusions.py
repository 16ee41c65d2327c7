from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from train.data.datasets import Labelled
from train.evaluation.confusions import commonest, sheets


def test_errors_are_counted_by_kind_and_right_answers_are_not_listed() -> None:
    truth = np.array([0, 0, 0, 0, 1, 1, 2])
    predicted = np.array([1, 1, 2, 0, 0, 1, 2])

    found = commonest(truth, predicted, ["MMY", "MY", "SNE"])

    assert [(kind.truth, kind.predicted, kind.count, kind.of) for kind in found] == [
        ("MMY", "MY", 2, 4),
        ("MMY", "SNE", 1, 4),
        ("MY", "MMY", 1, 2),
    ]
    assert found[0].words() == "metamyelocyte taken for myelocyte: 2 of 4 (50 %)"


def test_only_as_many_kinds_as_asked_for_are_named() -> None:
    found = commonest(np.array([0, 1, 2]), np.array([1, 2, 0]), ["a", "b", "c"], top=2)

    assert len(found) == 2


def test_a_sheet_shows_each_wrong_query_beside_its_neighbours(tmp_path: Path) -> None:
    paths = tuple(tmp_path / f"{at}.png" for at in range(4))
    for at, path in enumerate(paths):
        Image.fromarray(np.full((8, 8, 3), 60 * at, np.uint8)).save(path)
    cells = Labelled(
        name="cells",
        paths=paths,
        squares=(None,) * 4,
        labels=np.array(["a", "a", "b", "b"]),
        groups=np.arange(4).astype(str),
        unit="image",
    )
    queries, predicted = np.array([0, 1]), np.array(["b", "a"])
    near = np.array([[2, 3], [3, 2]])
    kinds = commonest(np.array([0, 0]), np.array([1, 0]), ["a", "b"])

    (sheet,) = sheets(tmp_path / "out", cells, queries, predicted, near, kinds, px=8)

    assert sheet.name == "a-as-b.png"
    shown = np.asarray(Image.open(sheet))
    assert shown.shape == (8, 8 + 8 + 16, 3)
    assert (shown[0, 0, 0], shown[0, 8, 0], shown[0, 16, 0], shown[0, 24, 0]) == (0, 255, 120, 180)
