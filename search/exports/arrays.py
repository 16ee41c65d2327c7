"""Vectors with what is known of their items: HDF5, safetensors and AnnData."""

from __future__ import annotations

import json
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from search.errors import BadQuestion
from search.exports.rows import Rows
from search.schemas.items import Item

COLUMNS = tuple(name for name in Item.model_fields if name not in ("id", "bbox"))
"""The facts of an item that become columns, beside its id and its box."""
NUMBERS = ("um_per_px",)


def need(package: str) -> None:
    """Raise `BadQuestion` where a package of the extra `formats` is not installed."""
    from importlib.util import find_spec

    if find_spec(package) is None:
        raise BadQuestion(
            f"{package} is not installed where the library is; install hemaseek[formats] there"
        )


def facts_of(rows: Rows) -> dict[str, Any]:
    """What a file says of its vectors: collection, version, encoder with its card, and which
    labels are reviewers'."""
    return {
        "collection": rows.collection,
        "version": rows.version,
        "encoder": rows.card.id,
        "fingerprint": rows.card.fingerprint,
        "card": rows.card.to_json(),
        "made_by": "Hemaseek; research use only",
        "reviewed": json.dumps(
            {
                id: {**one.model_dump(), "recorded": recorded}
                for id, (one, recorded) in rows.reviewed.items()
            }
        ),
    }


def column(rows: Rows, name: str) -> list[str | float | None]:
    """One fact of every item: numbers, or text."""
    values = [getattr(item, name) for item in rows.items]
    if name in NUMBERS:
        return [float("nan") if value is None else float(value) for value in values]
    return [None if value is None else str(value) for value in values]


def hdf5(rows: Rows) -> bytes:
    """`features` (n x dim) and `coords` (n x 2), as CLAM and TRIDENT keep them, and every fact.

    Where all boxes have one size, `coords` says it (`patch_size_level0`). A text that is not known
    is empty; `um_per_px` is NaN, a whole image lies at -1, -1.
    """
    need("h5py")
    import h5py

    out = BytesIO()
    places = rows.places()
    with h5py.File(out, "w") as file:
        file.attrs.update(facts_of(rows))
        features = file.create_dataset("features", data=rows.vectors)
        features.attrs["encoder"] = rows.card.id
        coords = file.create_dataset("coords", data=places[:, :2])
        sides = np.unique(places[:, 2:])
        if len(sides) == 1 and sides[0] > 0:
            coords.attrs["patch_size_level0"] = int(sides[0])
        file.create_dataset("boxes", data=places)
        file.create_dataset("ids", data=[item.id for item in rows.items])
        for name in COLUMNS:
            values = column(rows, name)
            file.create_dataset(name, data=[value or "" for value in values] if name not in NUMBERS
                                else np.array(values, np.float64))  # fmt: skip
        if rows.scores is not None:
            file.create_dataset("scores", data=rows.scores)
    return out.getvalue()


def safetensors(rows: Rows) -> bytes:
    """`features`, `coords`, `boxes` and `scores`; the items and the encoder's card as metadata."""
    from safetensors.numpy import save

    places = rows.places()
    tensors: dict[str, Any] = {
        "features": rows.vectors,
        "coords": np.ascontiguousarray(places[:, :2]),
    }
    tensors["boxes"] = places
    if rows.scores is not None:
        tensors["scores"] = rows.scores
    items = json.dumps([item.model_dump(mode="json") for item in rows.items])
    return bytes(save(tensors, metadata={**facts_of(rows), "items": items}))


def h5ad(rows: Rows) -> bytes:
    """AnnData: `X` the vectors, `obs` the facts, `obsm["spatial"]` the middles of the boxes in
    level-0 pixels, `uns["hemaseek"]` the encoder with its card."""
    need("anndata")
    import anndata
    import pandas as pd

    def words(values: list[str]) -> Any:
        return pd.Index(values, dtype=object)  # AnnData writes no other text yet

    table: dict[str, Any] = {}
    for name in COLUMNS:
        values = column(rows, name)
        known = sorted({str(value) for value in values if value is not None})
        table[name] = (
            np.array(values, np.float64)
            if name in NUMBERS
            else pd.Categorical(np.array(values, object), categories=words(known))
        )
    if rows.scores is not None:
        table["score"] = rows.scores
    index = words([item.id for item in rows.items])
    made = anndata.AnnData(X=rows.vectors, obs=pd.DataFrame(table, index=index))
    made.var.index = words([f"{rows.card.id} {at}" for at in range(rows.card.dim)])
    places = rows.places().astype(np.float64)
    places[places[:, 2] < 0] = np.nan
    made.obsm["spatial"] = places[:, :2] + places[:, 2:] / 2
    made.uns["hemaseek"] = facts_of(rows)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "rows.h5ad"
        made.write_h5ad(path)
        return path.read_bytes()
