from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from train.data import datasets
from train.data.datasets import Labelled
from train.data.images import open_source
from train.data.packs import pack
from train.data.source import DataError
from train.shipped.data import Crops, around, held_out, pack_all, sources


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


def test_a_square_about_a_box_stays_inside_the_picture() -> None:
    assert around((10, 10, 30, 20), 100, 100) == (5, 0, 30)
    assert around((90, 90, 100, 100), 100, 100) == (85, 85, 15)
    assert around((0, 0, 90, 10), 100, 50) == (20, 0, 50)


def test_a_box_without_a_size_has_no_square() -> None:
    assert around((5, 5, 5, 30), 100, 100) is None


def test_crops_are_cut_without_loss_and_carry_no_label(tmp_path: Path) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    Image.fromarray(picture).save(tmp_path / "field.png")
    crops = Crops("fields", (tmp_path / "field.png",), ((4, 2, 10),))

    cut = np.asarray(Image.open(BytesIO(crops.content(0))))

    assert np.array_equal(cut, picture[2:12, 4:14])
    assert crops.label(0) is None
    pack([crops], tmp_path / "pack", 8)
    assert len(open_source(tmp_path / "pack")) == 1


@pytest.mark.data
def test_what_is_trained_on_holds_no_held_out_cell_and_no_label(data_dir: Path) -> None:
    found = sources(data_dir)
    pbc = datasets.pbc(data_dir / "pbc")
    held = {pbc.paths[row] for row in np.flatnonzero(held_out(pbc))}

    assert {name: len(source) for name, source in found.items()} == {
        "pbc": 9107,
        "chula": 8542,
        "bccd": 4886,
        "aslan": 2339,
    }
    assert len(held) == 3034
    files = {Path(found["pbc"].title(at)) for at in range(9107)}
    assert not files & held
    assert {source.label(0) for source in found.values()} == {None}


@pytest.mark.data
def test_the_external_protocol_leaves_every_image_of_pbc_out(data_dir: Path) -> None:
    assert set(sources(data_dir, pbc=False)) == {"chula", "bccd", "aslan"}


@pytest.mark.data
def test_the_aslan_fractions_become_pixels(data_dir: Path) -> None:
    source = sources(data_dir)["aslan"]

    image = Image.open(BytesIO(source.content(0)))

    assert 10 < image.width == image.height <= 256


def test_a_missing_data_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(datasets.BadDataset, match="pbc"):
        pack_all(tmp_path / "nowhere", tmp_path / "packs")


def test_without_pbc_a_recipe_of_pbc_alone_has_nothing_to_learn_from(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nothing is left"):
        sources(tmp_path, ("pbc",), pbc=False)
