"""How many bytes, machines and hours a library of a given size takes, by arithmetic."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

from search.index.contract import IndexSettings

GB = 1e9
LINK = 4
"""Bytes of one link of the graph before packing."""
ID = 56
"""Bytes of the id tracker for one point: id, internal number and version, both ways."""
ROW = 120
"""Bytes of one row of a shard beside vector and thumbnail: ids, words, digest, compressed."""
DIGEST = 90
"""Bytes of one row of the catalogue."""


@dataclass(frozen=True, kw_only=True)
class Rates:
    """How fast things go; measure your own, these are of one laboratory machine."""

    embed_per_s: float = 1000.0
    """Cells that one GPU, or one worker, embeds a second, reading included."""
    workers: int = 1
    """GPUs, or workers."""
    upsert_per_s: float = 7000.0
    """Points that one node stores a second (qdrant-edge on two cores: 6,600 to 8,100)."""
    graph_per_core_s: float = 300.0
    """Points that one core puts into a graph of m 16 and ef_construct 128 a second, with payload
    indexes (qdrant-edge: 100,000 in 302 core seconds)."""


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """What the nodes are, and how careful one is."""

    node_ram_gb: float = 64.0
    """Memory of one node."""
    usable: float = 0.75
    """Share of it that the index may take; the rest is for the system and for rebuilding."""
    cores: int = 16
    """Of one node."""
    replicas: int = 2
    """Copies of each shard; with 2, one node may be lost."""
    points_per_shard: float = 20e6
    """Most points in one Qdrant shard, so that its graph is rebuilt in hours and not days."""


@dataclass(frozen=True, kw_only=True)
class Capacity:
    """What it takes."""

    cells: int
    dim: int
    settings: IndexSettings
    disk: dict[str, float]
    """Bytes by part, of one copy: `vectors`, `int8`, `graph`, `payload`, `ids`, `catalogue`,
    `shards`, `thumbnails`."""
    ram: dict[str, float]
    """Bytes that have to stay in memory, by part, of one copy of the index."""
    nodes: int
    """Qdrant nodes, replicas included."""
    shards: int
    """Qdrant shards, a multiple of the nodes that one copy takes."""
    ram_per_node: float
    disk_per_node: float
    """Bytes of index on one node, with room for one rebuild of its largest shard."""
    hours: dict[str, float]
    """`embed`, `upsert`, `graph` one after the other, and `all` with the three overlapped."""

    @property
    def disk_total(self) -> float:
        """Bytes of one copy of everything."""
        return sum(self.disk.values())

    @property
    def ram_total(self) -> float:
        """Bytes of memory of one copy of the index."""
        return sum(self.ram.values())


def capacity(
    cells: float,
    dim: int,
    *,
    settings: IndexSettings = IndexSettings(),  # noqa: B008 - frozen
    payload: float = 600.0,
    thumbnail: float = 6000.0,
    rates: Rates = Rates(),
    cluster: Cluster = Cluster(),
) -> Capacity:
    """Bytes, nodes and hours for a number of cells.

    Args:
        cells: How many.
        dim: Length of a vector.
        settings: Of the index: links, int8, what lies on the disk.
        payload: Bytes of metadata and its indexes for one point; half of them are indexes.
        thumbnail: Bytes of one JPEG.
        rates: How fast things go.
        cluster: What the nodes are.

    Raises:
        ValueError: a number below what makes sense.
    """
    n = round(cells)
    if n < 1 or dim < 1 or payload < 0 or thumbnail < 0:
        raise ValueError(
            f"capacity needs at least 1 cell of at least 1 dimension, got {cells:g} and {dim}"
        )
    disk = _disk(n, dim, settings, payload, thumbnail)
    ram = _ram(disk, settings)
    index = sum(disk[name] for name in ("vectors", "int8", "graph", "payload", "ids"))
    per_copy = max(
        1,
        ceil(sum(ram.values()) / (cluster.node_ram_gb * GB * cluster.usable)),
    )
    nodes = max(per_copy * cluster.replicas, cluster.replicas)
    shards = per_copy * ceil(max(1.0, n / cluster.points_per_shard) / per_copy)
    largest = index / shards
    return Capacity(
        cells=n,
        dim=dim,
        settings=settings,
        disk=disk,
        ram=ram,
        nodes=nodes,
        shards=shards,
        ram_per_node=sum(ram.values()) * cluster.replicas / nodes,
        disk_per_node=index * cluster.replicas / nodes + largest,
        hours=_hours(n, settings, rates, cluster, nodes),
    )


def _disk(
    n: int, dim: int, settings: IndexSettings, payload: float, thumbnail: float
) -> dict[str, float]:
    """Each part of one copy.

    A point has 2 m links on the lowest level, and m on each level above it, which one in m
    points reaches (Malkov and Yashunin 2018, section 4): 2 m + m / (m - 1) together.
    """
    links = 2 * settings.m + settings.m / (settings.m - 1)
    return {
        "vectors": n * dim * 4.0,
        "int8": n * (dim + 4.0) if settings.quantize == "int8" else 0.0,
        "graph": n * links * LINK,
        "payload": n * payload,
        "ids": n * float(ID),
        "catalogue": n * float(DIGEST),
        "shards": n * (dim * 4.0 + ROW),
        "thumbnails": n * thumbnail,
    }


def _ram(disk: dict[str, float], settings: IndexSettings) -> dict[str, float]:
    """What has to be in memory for answers in milliseconds.

    Payload lies on the disk and its indexes in memory. What is on the disk by choice counts
    nothing here, and is as fast as the disk.
    """
    return {
        "vectors": 0.0 if settings.vectors_on_disk else disk["vectors"],
        "int8": disk["int8"],
        "graph": 0.0 if settings.graph_on_disk else disk["graph"],
        "payload indexes": disk["payload"] / 2,
        "ids": disk["ids"],
    }


def _hours(
    n: int, settings: IndexSettings, rates: Rates, cluster: Cluster, nodes: int
) -> dict[str, float]:
    """Every replica stores each point and makes its own graph."""
    work = settings.m / 16 * settings.ef_construct / 128
    embed = n / (rates.embed_per_s * rates.workers) / 3600
    upsert = n * cluster.replicas / (rates.upsert_per_s * nodes) / 3600
    graph = n * cluster.replicas * work / (rates.graph_per_core_s * cluster.cores * nodes) / 3600
    return {"embed": embed, "upsert": upsert, "graph": graph, "all": max(embed, upsert, graph)}


def table(found: Capacity) -> str:
    """The figures as Markdown."""
    lines = [
        f"{found.cells:,} cells x {found.dim}, m {found.settings.m}, "
        f"{found.settings.quantize}, vectors "
        f"{'on disk' if found.settings.vectors_on_disk else 'in memory'}, graph "
        f"{'on disk' if found.settings.graph_on_disk else 'in memory'}",
        "",
        "| part | disk, one copy | memory, one copy |",
        "|---|---|---|",
    ]
    names = {**found.disk, **found.ram}
    for name in names:
        disk, ram = found.disk.get(name), found.ram.get(name)
        if disk or ram:
            lines.append(f"| {name} | {_size(disk)} | {_size(ram)} |")
    lines += [
        f"| all | {_size(found.disk_total)} | {_size(found.ram_total)} |",
        "",
        f"Qdrant: {found.nodes} nodes with {_size(found.ram_per_node)} of memory and "
        f"{_size(found.disk_per_node)} of disk for the index each; {found.shards} shards.",
        "",
        "Time: " + ", ".join(f"{name} {_time(hours)}" for name, hours in found.hours.items()) + ".",
    ]
    return "\n".join(lines)


def _size(count: float | None) -> str:
    if not count:
        return "-"
    for unit, size in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count:.0f} B"


def _time(hours: float) -> str:
    if hours >= 48:
        return f"{hours / 24:.1f} days"
    return f"{hours:.1f} h" if hours >= 1 else f"{hours * 60:.1f} min"
