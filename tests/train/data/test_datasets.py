from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from PIL import Image

from train.data.datasets import BadDataset, cut, folder, read


def _picture(path, shade, side=12):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((side, side, 3), shade, np.uint8)).save(path)


def test_a_folder_per_label_is_read_in_order(tmp_path):
    for at, name in enumerate(("blast/2.png", "blast/1.png", "band/deep/1.png")):
        _picture(tmp_path / name, 40 * at)
    _picture(tmp_path / "loose.png", 9)

    labelled = folder(tmp_path)

    assert labelled.labels.tolist() == ["band", "blast", "blast"]
    assert labelled.unit == "image"
    assert not labelled.patients
    assert [int(image[0, 0, 0]) for image in labelled.images()] == [80, 40, 0]
    assert [int(image[0, 0, 0]) for image in labelled.images([2, 0])] == [0, 80]


def test_patients_of_a_manifest_are_the_groups(tmp_path):
    for name in "ab":
        _picture(tmp_path / f"{name}.png", 1)
    (tmp_path / "manifest.csv").write_text(
        "path,label,patient,source\na.png,x,p1,m\nb.png,y,p2,n\n"
    )

    labelled = folder(tmp_path)

    assert labelled.patients
    assert labelled.unit == "patient"
    assert labelled.groups.tolist() == ["p1", "p2"]
    assert labelled.sources.tolist() == ["m", "n"]


def test_patients_for_some_rows_only_are_refused(tmp_path):
    for name in "ab":
        _picture(tmp_path / f"{name}.png", 1)
    (tmp_path / "manifest.csv").write_text("path,label,patient\na.png,x,p1\nb.png,y,\n")

    with pytest.raises(BadDataset, match="1 rows without patient"):
        folder(tmp_path)


def test_a_manifest_of_missing_files_says_which(tmp_path):
    (tmp_path / "manifest.csv").write_text("path,label\ngone.png,x\n")

    with pytest.raises(BadDataset, match=r"1 files are missing, the first is .*gone\.png"):
        folder(tmp_path)


def test_the_digest_follows_pictures_and_labels(tmp_path):
    _picture(tmp_path / "a" / "1.png", 1)
    _picture(tmp_path / "b" / "1.png", 2)
    first = folder(tmp_path)
    before, keys = first.digest(), first.keys()
    _picture(tmp_path / "b" / "1.png", 3)

    assert folder(tmp_path).digest() != before
    assert (folder(tmp_path).keys() == keys).tolist() == [True, False]


def test_a_square_that_leaves_the_image_is_refused():
    image = np.zeros((10, 20, 3), np.uint8)

    assert cut(image, (12, 2, 8)).shape == (8, 8, 3)
    with pytest.raises(BadDataset, match="leaves an image of 20x10 px"):
        cut(image, (13, 2, 8))
    with pytest.raises(BadDataset, match="leaves"):
        cut(image, (-1, 2, 8))


def test_an_unknown_set_names_the_known_ones(tmp_path):
    with pytest.raises(BadDataset, match=r"unknown data set 'pcb'\. Known: pbc, chula"):
        read("pcb", tmp_path)
    with pytest.raises(BadDataset, match="is the data folder right"):
        read("pbc", tmp_path)


@pytest.mark.data
def test_pbc_joins_its_near_duplicates(data_dir):
    labelled = read("pbc", data_dir)

    assert len(labelled) == 12_141
    assert Counter(labelled.labels.tolist())["PMY"] == 444
    sizes = Counter(labelled.groups.tolist())
    assert [name for name, size in sizes.items() if size > 1] == [
        "EO_246684+EO_409717",
        "MO_231316+MO_415531",
    ]
    assert next(labelled.images()).shape == (224, 224, 3)


@pytest.mark.data
def test_chula_leaves_out_borders_and_marks_and_joins_near_duplicate_fields(data_dir):
    labelled = read("chula", data_dir)

    left_out = sum(int(note.split()[0]) for note in labelled.notes if "left out" in note)
    assert len(labelled) + left_out == 10_361
    assert "1545 points left out: closer than half a crop to the border" in labelled.notes
    assert len(set(labelled.groups)) == 300 - 4
    for pair in ("233+234", "262+263", "270+276", "271+277"):
        assert (
            len({p for p, g in zip(labelled.paths, labelled.groups, strict=True) if g == pair}) == 2
        )
    assert sorted(set(labelled.sources)) == ["2-48", "232-675", "51-222", "676-706", "707-732"]
    assert set(labelled.sources[labelled.labels == "elliptocyte"]) == {"707-732"}
    rows = [0, 4000, len(labelled) - 1]
    assert {image.shape for image in labelled.images(rows)} == {(70, 70, 3)}


@pytest.mark.data
def test_no_crop_of_the_green_bars_batch_shows_green(data_dir):
    labelled = read("chula", data_dir)
    rows = np.flatnonzero(labelled.sources == "51-222")

    for image in labelled.images(rows):
        wide = image.astype(int)
        assert (wide[..., 1] - np.maximum(wide[..., 0], wide[..., 2])).max() < 60


@pytest.mark.data
def test_chula_without_class_12_has_no_elliptocytes(data_dir):
    labelled = read("chula-no-12", data_dir)

    assert "elliptocyte" not in set(labelled.labels)
    assert "395 points left out: elliptocytes (class 12, a batch of their own)" in labelled.notes


@pytest.mark.data
def test_lc25000_groups_are_source_tiles_of_six(data_dir):
    labelled = read("lc25000", data_dir)

    assert set(Counter(labelled.groups.tolist()).values()) == {6}
    assert len(set(labelled.groups)) == 240


@pytest.mark.data
def test_bccd_gives_single_white_cells_of_four_classes(data_dir):
    labelled = read("bccd", data_dir)

    assert Counter(labelled.labels.tolist()) == {
        "neutrophil": 202,
        "eosinophil": 84,
        "lymphocyte": 33,
        "monocyte": 20,
    }
    assert all(image.shape[0] == image.shape[1] for image in labelled.images(range(0, 339, 30)))


@pytest.mark.data
def test_two_laboratories_share_four_classes(data_dir):
    labelled = read("pbc-bccd", data_dir)

    assert set(labelled.labels) == {"neutrophil", "eosinophil", "lymphocyte", "monocyte"}
    assert set(labelled.sources) == {"pbc", "bccd"}
    assert labelled.source_unit == "laboratory"


@pytest.mark.data
def test_marrow_cells_are_five_hundred_of_each_class(data_dir):
    cells = read("bmc", data_dir)

    assert Counter(cells.labels.tolist()) == dict.fromkeys(
        ("BLA", "EOS", "LYT", "MON", "NGS", "PMO"), 500
    )


@pytest.mark.data
def test_a_leukemia_cell_that_is_listed_twice_counts_once(data_dir):
    cells = read("attri", data_dir)

    assert len(cells) == 308
    assert cells.patients
    assert set(cells.groups) == {"27"}
    assert next(cells.images([0])).shape[0] > 40
