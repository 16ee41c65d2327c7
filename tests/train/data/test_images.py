from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from train.data.images import Feed, Images, Order, open_source
from train.data.packs import pack
from train.data.source import DataError
from train.smoke import KINDS, draw_cells

CPU = torch.device("cpu")


@pytest.fixture(name="cells", scope="module")
def _cells(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cells")
    draw_cells(folder, 4, 24, seed=0)
    return folder


@pytest.fixture(name="spoiled")
def _spoiled(tmp_path: Path) -> Path:
    draw_cells(tmp_path, 4, 24, seed=0)
    (tmp_path / "eosinophil" / "0001.jpg").write_bytes(b"no image at all")
    return tmp_path


def feed(path: Path, hold: str, limit: float = 0.5) -> Feed:
    source = open_source(path)
    images = Images([source], 16, "bilinear", limit)
    return Feed(images, Order([len(source)], seed=3), CPU, hold, workers=2)


def test_a_folder_gives_its_images_with_their_folders_as_labels(cells):
    source = open_source(cells)
    assert len(source) == 16
    assert {source.label(at) for at in range(16)} == set(KINDS)


def test_a_manifest_gives_the_paths_beside_it_and_their_labels(cells):
    manifest = cells / "some.csv"
    with manifest.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerows([["path", "label"], ["eosinophil/0000.jpg", "eos"]])
    source = open_source(manifest)
    assert (len(source), source.label(0)) == (1, "eos")
    manifest.unlink()


def test_a_manifest_without_paths_and_an_empty_folder_are_refused(tmp_path):
    (tmp_path / "bad.csv").write_text("file\nx.jpg\n")
    with pytest.raises(DataError, match="needs a column `path`"):
        open_source(tmp_path / "bad.csv")
    with pytest.raises(DataError, match="holds no images"):
        open_source(tmp_path)


def test_a_pack_holds_the_same_bytes_as_the_folder(cells, tmp_path):
    source = open_source(cells)
    report = pack([source], tmp_path / "packed")
    packed = open_source(tmp_path / "packed")
    assert (report.images, report.corrupt) == (16, {})
    for at in range(16):
        assert packed.content(at) == source.content(at)
        assert packed.label(at) == source.label(at)


def test_a_pack_of_another_size_and_a_cut_shard_are_noticed(cells, tmp_path):
    pack([open_source(cells)], tmp_path / "packed", px=12)
    images = Images([open_source(tmp_path / "packed")], 12, "bilinear")
    image = images.decode(0)
    assert image is not None
    assert image.shape == (12, 12, 3)
    shard = tmp_path / "packed" / "shard-00000.bin"
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(DataError, match="pack again"):
        open_source(tmp_path / "packed")


def test_packing_names_the_images_it_had_to_leave_out(spoiled, tmp_path):
    report = pack([open_source(spoiled)], tmp_path / "packed")
    assert report.images == 15
    assert [Path(title).name for title in report.corrupt] == ["0001.jpg"]


@pytest.mark.parametrize("hold", ["disk", "memory"])
def test_a_corrupt_image_is_reported_not_replaced(spoiled, hold):
    one = feed(spoiled, hold)
    batch = one.batch(0, 16)
    assert batch.shape == (15, 3, 16, 16)
    assert [Path(title).name for title in one.images.corrupt.titles] == ["0001.jpg"]
    one.close()


def test_too_many_corrupt_images_stop_the_run_and_are_named(spoiled):
    with pytest.raises(DataError, match=r"1 of 16 images cannot be read.*0001\.jpg"):
        feed(spoiled, "memory", limit=0.01)


def test_images_held_in_memory_are_those_decoded_from_disk(cells):
    held, decoded = feed(cells, "memory"), feed(cells, "disk")
    for position in (0, 10, 20):
        assert torch.equal(held.batch(position, 6), decoded.batch(position, 6))
    held.close()
    decoded.close()


def test_a_batch_that_was_expected_is_the_batch_that_comes(cells):
    one, other = feed(cells, "disk"), feed(cells, "disk")
    one.expect(4, 5)
    assert torch.equal(one.batch(4, 5), other.batch(4, 5))
    one.close()
    other.close()


def test_every_image_comes_once_per_epoch_in_another_order():
    order = Order([7, 5], seed=1)
    first, second = order.take(0, 12), order.take(12, 12)
    assert sorted(first) == sorted(second) == list(range(12))
    assert list(first) != list(second)


def test_any_position_can_be_taken_without_what_came_before():
    whole = Order([7, 5], (3.0, 1.0), seed=1).take(0, 100)
    for position in (0, 11, 12, 57):
        fresh = Order([7, 5], (3.0, 1.0), seed=1)
        assert list(fresh.take(position, 20)) == list(whole[position : position + 20])


def test_sources_come_in_proportion_to_their_weights():
    drawn = Order([30, 10], (1.0, 3.0), seed=0).take(0, 400)
    assert int((drawn >= 30).sum()) == 300


def test_within_a_weighted_source_nothing_comes_twice_before_all_came_once():
    drawn = Order([30, 10], (1.0, 3.0), seed=0).take(0, 120)
    counts = Counter(int(at) for at in drawn)
    assert {counts[at] for at in range(30)} == {1}
    assert {counts[at] for at in range(30, 40)} == {9}


def test_another_seed_gives_another_order():
    assert list(Order([20], seed=1).take(0, 20)) != list(Order([20], seed=2).take(0, 20))


def test_decoding_squashes_to_the_asked_side(cells):
    images = Images([open_source(cells)], 20, "lanczos")
    image = images.decode(3)
    assert image is not None
    assert image.shape == (20, 20, 3)
    assert image.dtype == np.uint8


@pytest.mark.parametrize("hold", ["disk", "memory"])
def test_a_batch_says_which_images_it_holds(spoiled, hold):
    source = feed(spoiled, hold)
    batch = source.batch(0, len(source.images))
    assert len(source.numbers) == len(batch) < len(source.images)
    again = [source.images.decode(int(at)) for at in source.numbers]
    assert np.array_equal(batch.permute(0, 2, 3, 1).numpy(), np.stack(again))


def test_more_images_than_memory_are_refused_before_they_are_decoded(cells, monkeypatch):
    monkeypatch.setattr("train.data.images.free_bytes", lambda: 10_000)
    with pytest.raises(DataError, match=r"16 images of 16 px take .*--hold disk"):
        feed(cells, "memory")
    feed(cells, "disk").close()
