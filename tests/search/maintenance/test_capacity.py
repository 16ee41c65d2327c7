"""The arithmetic of a library's size: each part by hand, and what follows from it."""

from __future__ import annotations

import pytest
from live import REPOSITORY

from search.index.contract import IndexSettings
from search.maintenance.capacity import Cluster, Rates, capacity, table

INT8 = IndexSettings(quantize="int8", vectors_on_disk=True)


def test_each_part_is_what_a_pencil_says() -> None:
    found = capacity(1e6, 384, payload=500, thumbnail=4000)

    assert found.disk["vectors"] == 1e6 * 384 * 4
    assert found.disk["graph"] == pytest.approx(1e6 * (32 + 16 / 15) * 4)
    assert found.disk["payload"] == 5e8
    assert found.disk["thumbnails"] == 4e9
    assert found.disk["int8"] == 0
    assert found.ram["vectors"] == found.disk["vectors"]
    assert found.ram["payload indexes"] == 2.5e8
    assert found.disk_total == sum(found.disk.values())


def test_int8_with_floats_on_disk_takes_about_a_quarter_of_the_vectors_in_memory() -> None:
    plain, small = capacity(1e8, 384), capacity(1e8, 384, settings=INT8)

    assert small.ram["vectors"] == 0
    assert small.ram["int8"] / plain.ram["vectors"] == pytest.approx(0.25, abs=0.01)
    assert small.disk_total > plain.disk_total, "the bytes come on top of the floats"
    assert small.nodes < plain.nodes


@pytest.mark.parametrize("cells", [1, 1e5, 3e7, 1e8, 1e9])
@pytest.mark.parametrize("settings", [IndexSettings(), INT8])
def test_the_nodes_have_room_for_every_replica(cells: float, settings: IndexSettings) -> None:
    cluster = Cluster(node_ram_gb=64, replicas=3)
    found = capacity(cells, 384, settings=settings, cluster=cluster)

    assert found.ram_per_node <= 64e9 * cluster.usable * 1.0001
    assert found.nodes % 3 == 0
    assert found.shards % (found.nodes // 3) == 0
    assert cells / found.shards <= cluster.points_per_shard


def test_time_falls_with_workers_and_rises_with_links() -> None:
    one = capacity(1e8, 384)
    assert one.hours["embed"] == pytest.approx(1e8 / 1000 / 3600)
    assert one.hours["all"] == max(one.hours["embed"], one.hours["upsert"], one.hours["graph"])
    eight = capacity(1e8, 384, rates=Rates(workers=8))
    assert eight.hours["embed"] == pytest.approx(one.hours["embed"] / 8)
    dense = capacity(1e8, 384, settings=IndexSettings(m=32, ef_construct=256))
    assert dense.hours["graph"] == pytest.approx(one.hours["graph"] * 4)


def test_the_table_says_every_part_that_counts() -> None:
    text = table(capacity(1e8, 384, settings=INT8))
    for part in ("100,000,000 cells x 384", "| int8 |", "| vectors | 154 GB | - |", "Qdrant:"):
        assert part in text


def test_what_makes_no_sense_is_refused() -> None:
    for cells, dim in ((0, 384), (10, 0)):
        with pytest.raises(ValueError, match="at least 1"):
            capacity(cells, dim)


def test_the_tables_of_the_documentation_are_those_of_the_function() -> None:
    text = (REPOSITORY / "docs" / "capacity.md").read_text()
    dense = IndexSettings(m=32, ef_construct=256, quantize="int8", vectors_on_disk=True)
    large = Cluster(node_ram_gb=256, cores=64)

    assert table(capacity(1e8, 384, settings=dense, rates=Rates(workers=8))) in text
    whole = capacity(1e9, 384, settings=dense, rates=Rates(workers=32), cluster=large)
    assert table(whole) in text
