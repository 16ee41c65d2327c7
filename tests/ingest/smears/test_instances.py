"""Maps of instances, as learned segmenters give them, become cells with a kind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ingest.samples.synthetic import Field, draw_field
from ingest.smears.cellpose import Cellpose
from ingest.smears.cells import FinderError
from ingest.smears.instances import cells_of, weights_file
from ingest.smears.instanseg import InstanSeg


@pytest.fixture(name="field", scope="module")
def _field() -> Field:
    return draw_field(5, patient=2, width=400, height=300, um_per_px=0.15)


def labels_of(field: Field) -> np.ndarray:
    """The drawn cells as ellipses in their boxes: what a perfect segmenter would give."""
    labels = np.zeros(field.image.shape[:2], np.int32)
    y, x = np.mgrid[: labels.shape[0], : labels.shape[1]]
    for at, cell in enumerate(field.cells, start=1):
        left, top, w, h = cell.bbox
        inside = ((x - left - w / 2 + 0.5) / (w / 2)) ** 2 + (
            (y - top - h / 2 + 0.5) / (h / 2)
        ) ** 2 <= 1
        labels[inside & (labels == 0)] = at
    return labels


def test_instances_are_told_apart_by_dye_and_size(field: Field) -> None:
    cells = cells_of(labels_of(field), field.image)
    truth = [cell.kind for cell in field.cells]
    for kind in ("white", "red"):
        assert sum(cell.kind == kind for cell in cells) == pytest.approx(truth.count(kind), abs=1)


def test_a_map_without_instances_gives_no_cells(field: Field) -> None:
    assert cells_of(np.zeros(field.image.shape[:2], np.int32), field.image) == []


def test_instances_at_the_border_are_cut(field: Field) -> None:
    labels = np.zeros(field.image.shape[:2], np.int32)
    labels[0:20, 50:80] = 1
    labels[100:130, 100:130] = 7
    assert {cell.bbox: cell.touches_border for cell in cells_of(labels, field.image)} == {
        (50, 0, 30, 20): True,
        (100, 100, 30, 30): False,
    }


def test_a_map_of_another_size_is_refused(field: Field) -> None:
    with pytest.raises(FinderError, match="must agree"):
        cells_of(np.zeros((10, 10), np.int32), field.image)


def test_weights_must_be_given_and_be_there(tmp_path: Path) -> None:
    with pytest.raises(FinderError, match="never downloads one"):
        weights_file(None, "cellpose")
    with pytest.raises(FinderError, match="no such file"):
        weights_file(tmp_path / "none.pt", "cellpose")


class Drawn:
    """Stands where a network would: returns the drawn truth, in each package's own shape."""

    def __init__(self, labels: np.ndarray) -> None:
        self.labels = labels
        self.asked: dict[str, Any] = {}

    def eval(self, image: np.ndarray, diameter: float | None) -> tuple[np.ndarray, list, list]:
        self.asked = {"shape": image.shape, "diameter": diameter}
        return self.labels, [], []

    def eval_small_image(self, image: np.ndarray, **asked: Any) -> Any:
        import torch

        self.asked = {"shape": image.shape, **asked}
        return torch.from_numpy(self.labels[None, None].astype(np.float32))


def test_cellpose_is_told_the_diameter_and_its_map_becomes_cells(field: Field) -> None:
    network = Drawn(labels_of(field))
    found = Cellpose(network).find(field.image, 0.15)
    assert network.asked == {"shape": (300, 400, 3), "diameter": pytest.approx(50)}
    assert found.finder == "cellpose"
    assert found.scale is not None
    assert found.scale.um_per_px == 0.15
    assert len(found.cells) == len(np.unique(labels_of(field))) - 1


def test_instanseg_is_told_the_scale_or_its_estimate(field: Field) -> None:
    network = Drawn(labels_of(field))
    found = InstanSeg(network).find(field.image)
    assert network.asked["shape"] == (3, 300, 400)
    assert network.asked["pixel_size"] == pytest.approx(0.15, rel=0.25)
    assert len(found.cells) == len(np.unique(labels_of(field))) - 1
    assert found.finder == "instanseg"


def test_instanseg_without_any_scale_says_so() -> None:
    with pytest.raises(FinderError, match="needs um_per_px"):
        InstanSeg(Drawn(np.zeros((50, 50), np.int32))).find(np.full((50, 50, 3), 200, np.uint8))
