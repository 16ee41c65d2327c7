from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from train.augmentation.randomisation import RED, WHITE
from train.data import datasets
from train.data.datasets import Labelled
from train.data.source import DataError
from train.shipped.data import (
    PX,
    Draw,
    Pictures,
    around,
    carry,
    held_out,
    pbc_files,
    pictures,
)
from train.shipped.labels import LEAVES


def _cells(labels: list[str], groups: list[str] | None = None) -> Labelled:
    paths = tuple(Path(f"{at:03d}.jpg") for at in range(len(labels)))
    return Labelled(
        name="cells",
        paths=paths,
        squares=(None,) * len(paths),
        labels=np.array(labels),
        groups=np.array(groups or [path.stem for path in paths]),
        unit="image",
    )


def test_a_quarter_of_every_class_is_held_out() -> None:
    cells = _cells(["a"] * 40 + ["b"] * 8)

    held = held_out(cells)

    assert held[:40].sum() == 10
    assert held[40:].sum() == 2


def test_the_held_out_cells_follow_from_names_and_not_from_the_order_of_files() -> None:
    cells = _cells(["a"] * 40 + ["b"] * 8)
    mixed = cells.take(np.random.default_rng(0).permutation(48), "mixed")

    held = {path for path, flag in zip(cells.paths, held_out(cells), strict=True) if flag}
    again = {path for path, flag in zip(mixed.paths, held_out(mixed), strict=True) if flag}

    assert held == again


def test_another_seed_holds_out_others() -> None:
    cells = _cells(["a"] * 40)

    assert not np.array_equal(held_out(cells), held_out(cells, seed=1))


def test_near_duplicates_stay_on_one_side() -> None:
    alone = _cells(["a"] * 40)
    held = held_out(alone)
    inside, outside = int(np.flatnonzero(held)[0]), int(np.flatnonzero(~held)[0])
    groups = [path.stem for path in alone.paths]
    groups[inside] = groups[outside] = "twins"

    now = held_out(_cells(["a"] * 40, groups))

    assert not now[inside]
    assert not now[outside]
    assert now.sum() == held.sum() - 1


def test_a_square_about_a_point_mirrors_what_lies_outside() -> None:
    field = np.arange(300, dtype=np.uint8).reshape(10, 10, 3)

    assert np.array_equal(around(field, 5, 5, 4), field[3:7, 3:7])
    corner = around(field, 0, 0, 4)
    assert np.array_equal(corner[2:, 2:], field[:2, :2])
    assert np.array_equal(corner[0, 2:], field[2, :2])


def _set(name: str, labels: list[str], value: int) -> Pictures:
    images = torch.full((len(labels), 8, 8, 3), value, dtype=torch.uint8)
    return Pictures(name, images, tuple(labels), 20.0)


def test_a_batch_mixes_laboratories_and_says_what_each_picture_may_be() -> None:
    torch.manual_seed(0)
    sets = [_set("pbc", ["EO"] * 90 + ["BA"] * 10, 0), _set("aslan", ["rbc"] * 5, 255)]

    batch = Draw(sets, torch.device("cpu")).batch(2000)

    assert batch.images.shape == (2000, 3, 8, 8)
    first = batch.laboratories == 0
    assert float(batch.images[first].max()) == 0
    assert float(batch.images[~first].min()) == 1
    assert 0.9 < float(first.float().mean()) < 0.97  # 58 to 4
    assert batch.allowed[~first].sum(1).unique().tolist() == [13]
    assert torch.equal(batch.fields[first].unique(dim=0)[0], WHITE.row())
    assert torch.equal(batch.fields[~first].unique(dim=0)[0], RED.row())


def test_rare_classes_are_drawn_more_often_than_they_occur() -> None:
    torch.manual_seed(0)
    cells = _set("pbc", ["EO"] * 90 + ["BA"] * 10, 0)

    batch = Draw([cells], torch.device("cpu")).batch(4000)
    rare = float(batch.allowed[:, LEAVES.index("BA")].float().mean())

    assert 0.25 < rare < 0.33  # 10^0.4 to 90^0.4


def test_some_rows_can_be_left_out() -> None:
    cells = replace(_set("chula", ["normal", "teardrop", "normal"], 0), sources=("a", "b", "b"))

    some = cells.of(np.array([True, True, False]))

    assert some.labels == ("normal", "teardrop")
    assert some.sources == ("a", "b")
    assert len(some.images) == 2


def test_a_carried_set_comes_back_with_its_labels(tmp_path: Path) -> None:
    images = np.full((3, PX, PX, 3), (200, 120, 180), np.uint8)
    images[1, 60:160, 60:160] = (90, 20, 120)
    np.save(tmp_path / f"bmc-{PX}.npy", images)
    facts = {"labels": ["NGS", "LYT", "NGS"], "um": 22.1, "sources": []}
    (tmp_path / f"bmc-{PX}.json").write_text(json.dumps(facts))

    path = carry("bmc", tmp_path, tmp_path / "there")
    back = pictures("bmc", tmp_path / "no data", tmp_path / "there")

    assert path.stat().st_size < 20_000
    assert back.labels == ("NGS", "LYT", "NGS")
    assert np.abs(back.images.numpy().astype(int) - images).mean() < 2


def test_nothing_to_learn_from_is_refused() -> None:
    with pytest.raises(DataError, match="no set"):
        Draw([], torch.device("cpu"))


def test_a_missing_data_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(datasets.BadDataset, match="pbc"):
        pictures("pbc", tmp_path / "nowhere", tmp_path / "packs")


@pytest.mark.data
def test_no_held_out_cell_is_learned_from(data_dir: Path) -> None:
    pbc = datasets.pbc(data_dir / "pbc")
    held = {pbc.paths[row] for row in np.flatnonzero(held_out(pbc))}
    files = pbc_files(data_dir / "pbc")

    assert len(held) == 3034
    assert not {Path(files.title(at)) for at in range(len(files))} & held


@pytest.mark.data
def test_boxed_cells_are_packed_whole_with_their_kind(data_dir: Path, tmp_path: Path) -> None:
    cells = pictures("aslan", data_dir, tmp_path)
    again = pictures("aslan", tmp_path / "not read", tmp_path)

    assert set(cells.labels) == {"rbc", "wbc"}
    assert cells.images.shape == (1146, 224, 224, 3)
    assert torch.equal(cells.images[:4], again.images[:4])
