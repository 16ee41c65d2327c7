"""Vectors of CLAM, TRIDENT, slide2vec and safetensors, in files laid out as these write them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image

from ingest.features.files import BadFeatures, feature_files, read_features
from ingest.features.taking import FeaturesPlan, card_of, read_table, take_features
from ingest.layouts.known import scan
from ingest.pipeline.sink import LibrarySink
from search.exports.files import export
from search.exports.rows import rows_of
from search.index.contract import scroll_all
from search.library.library import Library
from search.schemas.exports import ExportWanted

COORDS = np.array([[0, 0], [512, 0], [0, 512]], np.int64)


def vectors(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((3, 8)).astype(np.float32)


def trident(folder: Path) -> Path:
    """`features_uni_v1/SLIDE.h5`; attributes of the places copied from its patches."""
    path = folder / "20x_256px_0px_overlap" / "features_uni_v1" / "slide1.h5"
    path.parent.mkdir(parents=True)
    with h5py.File(path, "w") as file:
        file.create_dataset("features", data=vectors())
        said = {"patch_size": 256, "patch_size_level0": 512, "level0_magnification": 40}
        file.create_dataset("coords", data=COORDS).attrs.update(said | {"target_magnification": 20})
    return path


@pytest.mark.parametrize("name", ["bomb.h5", "bomb.npz"])
def test_a_small_file_that_unfolds_to_gigabytes_is_refused_before_memory_is_taken(
    tmp_path: Path, name: str
) -> None:
    path = tmp_path / name
    if name == "bomb.h5":
        with h5py.File(path, "w") as file:
            file.create_dataset("features", (10**7, 4096), "f4", chunks=(64, 64), compression=9)
    else:
        np.savez_compressed(path, features=np.zeros((8000, 1024), np.float32))

    with pytest.raises(BadFeatures, match="unfolds to"):
        read_features(path)


def clam(folder: Path) -> Path:
    """`FEATURES/h5_files/SLIDE.h5` without attributes, beside `patches/SLIDE.h5` with them."""
    path = folder / "clam" / "features" / "h5_files" / "slide1.h5"
    for where in (path.parent, path.parents[1] / "pt_files", folder / "clam" / "patches"):
        where.mkdir(parents=True)
    with h5py.File(path, "w") as file:
        file.create_dataset("features", data=vectors())
        file.create_dataset("coords", data=COORDS.astype(np.int32))
    with h5py.File(folder / "clam" / "patches" / "slide1.h5", "w") as file:
        said = {"patch_size": 256, "patch_level": 1, "downsample": np.array([2.0, 2.0])}
        file.create_dataset("coords", data=COORDS).attrs.update(said)
    (path.parents[1] / "pt_files" / "slide1.pt").write_bytes(b"the same without places")
    return path


def slide2vec(folder: Path) -> Path:
    """`tile_embeddings/SLIDE.npz` and `.meta.json`, places in `tiles/SLIDE.coordinates.npz`."""
    path = folder / "s2v" / "tile_embeddings" / "slide1.npz"
    path.parent.mkdir(parents=True)
    (folder / "s2v" / "tiles").mkdir()
    np.savez_compressed(path, features=vectors()[[2, 0]], tile_index=np.array([2, 0]))
    x, y = COORDS.T
    places = folder / "s2v" / "tiles" / "slide1.coordinates.npz"
    np.savez_compressed(places, tile_index=np.arange(3), x=x, y=y)
    meta = {"sample_id": "slide1", "encoder_name": "uni_v1", "tile_size_lv0": 512}
    (path.parent / "slide1.meta.json").write_text(
        json.dumps(meta | {"coordinates_npz_path": "/elsewhere/slide1.coordinates.npz"})
    )
    return path


@pytest.mark.parametrize("layout", [trident, clam, slide2vec])
def test_each_layout_gives_vectors_places_and_the_side_of_a_tile(layout, tmp_path: Path) -> None:
    path = layout(tmp_path)
    (found,) = feature_files(tmp_path)
    read = read_features(found)
    rows = [2, 0] if layout is slide2vec else [0, 1, 2]

    assert found == path
    assert np.array_equal(read.vectors, vectors()[rows])
    assert read.coords is not None
    assert np.array_equal(read.coords, COORDS[rows])
    assert (read.name, read.side) == ("slide1", 512)


@pytest.fixture(name="taken")
def _taken(tmp_path: Path) -> Iterator[tuple[Path, LibrarySink, FeaturesPlan]]:
    slides = tmp_path / "slides"
    slides.mkdir()
    pixels = np.random.default_rng(1).integers(0, 255, (1024, 1024, 3), np.uint8)
    Image.fromarray(pixels).save(slides / "slide1.png")
    table = tmp_path / "table.csv"
    table.write_text("slide,patient,label\nslide1,P7,tumour\n")
    plan = FeaturesPlan(encoder="uni_v1", dataset="d", slides=slides, facts=read_table(table))
    library = Library.open(tmp_path / "library")
    with LibrarySink.open(library, "uni", card_of("uni_v1", 8), "uni_v1") as sink:
        yield tmp_path, sink, plan


def test_vectors_become_a_collection_with_pictures_and_facts_once(taken) -> None:
    folder, sink, plan = taken
    path = trident(folder)
    first, again = (take_features([path], plan, sink) for _ in range(2))
    found = list(scroll_all(sink._collection.store, None))
    nearest = sink._collection.store.nearest(vectors()[1] / np.linalg.norm(vectors()[1]), 1)

    assert (first.stored, first.without_picture, first.failures) == (3, 0, [])
    assert (again.stored, again.unchanged) == (0, 3)
    assert {one.item.patient for one in found} == {"P7"}
    assert (nearest[0].item.bbox.x, nearest[0].item.kind) == (512, "tile")
    assert nearest[0].score == pytest.approx(1, abs=1e-5)
    assert len({sink._collection.rows.thumbnail(one.item.id) for one in found}) == 3


def test_what_was_exported_comes_in_again(taken) -> None:
    folder, sink, plan = taken
    take_features([trident(folder)], plan, sink)
    for format, ending in (("hdf5", ".h5"), ("safetensors", ".safetensors")):
        rows = rows_of(sink._collection, ExportWanted(format=format))
        path = folder / f"out{ending}"
        path.write_bytes(export(rows, format, lambda id: None).content)
        read = read_features(path)

        assert np.allclose(read.vectors, rows.vectors)
        assert (read.side, read.encoder) == (512, "uni_v1")


def test_outlines_for_qupath_are_read_as_its_own(taken) -> None:
    folder, sink, plan = taken
    take_features([trident(folder)], plan, sink)
    rows = rows_of(sink._collection, ExportWanted(format="geojson"))
    made = export(rows, "geojson", lambda id: None)
    root = folder / "qupath"
    root.mkdir()
    (root / made.name).write_bytes(made.content)
    pixels = np.full((1024, 1024, 3), 200, np.uint8)
    Image.fromarray(pixels).save(root / made.name.replace(".geojson", ".png"))
    (task,) = scan(root, "qupath").tasks
    marks = {(mark.x, mark.y, mark.w, mark.h, mark.facts.label) for mark in task.reader.marks}

    assert marks == {(x, y, 512, 512, "tumour") for x, y in COORDS.tolist()}


def test_files_that_do_not_fit_are_left_out_and_named(taken) -> None:
    folder, sink, plan = taken
    store = folder / "bad"
    store.mkdir()
    for name, shape in (("narrow", (3, 5)), ("placeless", (3, 8))):
        with h5py.File(store / f"{name}.h5", "w") as file:
            file.create_dataset("features", data=np.ones(shape, np.float32))
            if name == "narrow":
                file.create_dataset("coords", data=COORDS).attrs["patch_size_level0"] = 512
    with h5py.File(store / "sideless.h5", "w") as file:
        file.create_dataset("features", data=vectors())
        file.create_dataset("coords", data=COORDS)
    (store / "torn.h5").write_bytes(b"no HDF5")
    other = slide2vec(folder)
    meta = other.parent / "slide1.meta.json"
    meta.write_text(meta.read_text().replace("uni_v1", "virchow"))
    done = take_features([store, other], plan, sink)

    assert done.stored == 0
    assert len(done.failures) == 5
    for part in ("8 numbers a vector were expected", "no coords", "--tile-px", "torn.h5",
                 "of encoder 'virchow', not 'uni_v1'"):  # fmt: skip
        assert any(part in one for one in done.failures), part


def test_a_known_encoder_must_fit_and_another_gets_a_card_that_says_so() -> None:
    with pytest.raises(BadFeatures, match=r"have .* numbers, those of the files 8"):
        card_of("colour", 8)

    assert "computed elsewhere" in card_of("virchow", 8).architecture
