from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from encoder import registry
from encoder.contract import RGB
from encoder.field_of_view import USUAL, looked_at
from encoder.image import read_rgb
from ingest.smears.finders import scale_of_picture
from search.library.sources import crop
from search.schemas.items import Box
from train.data import datasets
from train.data.datasets import Labelled
from train.shipped.abroad import abroad, sites, zoomed, zooms


def _cells(labels: list[str]) -> Labelled:
    paths = tuple(Path(f"{at:03d}.png") for at in range(len(labels)))
    groups = np.array([path.stem for path in paths])
    return Labelled(
        name="cells", paths=paths, squares=(None,) * len(paths), labels=np.array(labels),
        groups=groups, unit="image",
    )  # fmt: skip


def _side(labels: list[str], directions: dict[str, int], rng: np.random.Generator) -> tuple:  # type: ignore[type-arg]
    rows = np.eye(3, dtype=np.float32)[[directions[label] for label in labels]]
    rows += rng.normal(0, 0.01, rows.shape).astype(np.float32)
    return _cells(labels), rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_only_types_that_both_laboratories_have_are_queries(rng: np.random.Generator) -> None:
    near = {"BNE": 0, "SNE": 0, "LY": 1, "PMY": 2, "NGS": 0, "LYT": 1, "BLA": 2}
    home = _side(["BNE"] * 30 + ["SNE"] * 30 + ["LY"] * 30 + ["PMY"] * 30, near, rng)
    queries = _side(["NGS"] * 12 + ["LYT"] * 12 + ["BLA"] * 12, near, rng)

    found = abroad(queries, [home])

    assert found["queries"] == 24
    assert found["index"] == 90
    assert found["weighted_f1"] == 1
    assert found["recall"] == {"lymphocyte": [1.0, 12], "neutrophil": [1.0, 12]}
    assert found["intervals"]["weighted_f1"]["low"] == 1


def test_a_type_of_few_cells_is_not_scored(rng: np.random.Generator) -> None:
    near = {"SNE": 0, "LY": 1}
    home = _side(["SNE"] * 30 + ["LY"] * 30, near, rng)
    queries = _side(["SNE"] * 12 + ["LY"] * 9, near, rng)

    assert set(abroad(queries, [home])["recall"]) == {"neutrophil"}


def test_vectors_by_laboratory_have_a_low_robustness_index(rng: np.random.Generator) -> None:
    labels = ["SNE"] * 30 + ["LY"] * 30
    by_kind = [_side(labels, {"SNE": 0, "LY": 1}, rng) for _ in range(2)]
    by_place = [_side(labels, {"SNE": at, "LY": at}, rng) for at in range(2)]

    good, bad = sites(by_kind), sites(by_place)

    assert good["robustness"] == 1
    assert bad["robustness"] == 0
    assert bad["own_site"] == 1
    assert abs(good["own_site"] - good["expected"]) < 0.2


def test_a_zoom_out_mirrors_the_border() -> None:
    image = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)

    assert zoomed(image, 0.5).shape == (2, 2, 3)
    wide = zoomed(image, 2.0)
    assert wide.shape == (8, 8, 3)
    assert np.array_equal(wide[1, 2:6], image[0])


def test_the_agreement_over_zooms_is_of_the_voted_labels(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    from PIL import Image

    paths = []
    for at in range(12):
        paths.append(tmp_path / f"{at}.png")
        colour = (200, 40, 40) if at % 2 else (40, 40, 200)
        Image.fromarray(np.full((40, 40, 3), colour, np.uint8)).save(paths[-1])
    cells = Labelled(
        name="cells", paths=tuple(paths), squares=(None,) * 12,
        labels=np.array(["blue", "red"] * 6), groups=np.array([p.stem for p in paths]),
        unit="image",
    )  # fmt: skip
    encoder = registry.load("colour")
    vectors = np.concatenate([encoder.embed(list(cells.images()))] * 4)
    many = cells.take(np.tile(np.arange(12), 4), "four times")

    found = zooms(encoder, cells, np.arange(12), (many, vectors))

    assert found["agreement"] == {"0.75": 1.0, "1.33": 1.0}
    assert found["matched_cosine"] > 0.99


@pytest.mark.data
def test_the_same_cell_from_a_narrow_and_a_wide_crop_is_one_query(data_dir: Path) -> None:
    encoder, rows = registry.load("hemaseek-s", device="cpu"), slice(0, 300, 25)
    cells = datasets.bccd(data_dir / "bccd")
    seen: dict[float, list[RGB]] = {1.5: [], 2.6: []}
    for path, square in zip(cells.paths[rows], cells.squares[rows], strict=True):
        field = read_rgb(path)
        found = scale_of_picture(field)
        assert square is not None
        if found is None:
            continue
        x, y, side = square
        for share, pictures in seen.items():
            box = round(side / 1.5 * share)
            left, top = round(x + (side - box) / 2), round(y + (side - box) / 2)
            picture = crop(field, Box(x=left, y=top, w=box, h=box))
            pictures.append(looked_at(picture, USUAL, found[0]))
    narrow, wide = encoder.embed(seen[1.5]), encoder.embed(seen[2.6])

    cosines = narrow @ wide.T
    assert len(narrow) >= 9
    assert np.median(cosines.diagonal()) >= 0.9
    assert (cosines.argmax(axis=1) == np.arange(len(narrow))).mean() >= 0.9
