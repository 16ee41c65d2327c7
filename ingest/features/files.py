"""One file of vectors with the places of their tiles: HDF5, slide2vec's, or safetensors."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import numpy as np
from numpy.typing import NDArray

SUFFIXES = (".h5", ".hdf5", ".npz", ".pt", ".safetensors")
UNFOLDED, SMALL = 100, 1 << 24
"""A file may unfold to so many times its own size, and to some bytes in any case."""
SLIDE2VEC = ".meta.json"
"""Ending of what slide2vec writes beside its vectors."""


class BadFeatures(ValueError):
    """A file of vectors that cannot be read, and why."""


@dataclass(frozen=True)
class Features:
    """The vectors of one slide."""

    path: Path
    name: str
    """Of the slide."""
    vectors: NDArray[np.float32]
    """n x dim, as they were computed."""
    coords: NDArray[np.int64] | None
    """Left and top of each tile in level-0 pixels (n x 2); `None` for the vector of a whole
    slide."""
    side: int | None = None
    """Of a tile, in level-0 pixels; `None` where the file does not say."""
    encoder: str | None = None
    """Whose vectors, where the file says."""
    slide: Path | None = None
    """The slide, where the file says."""


def feature_files(path: Path) -> list[Path]:
    """The files of vectors below a folder, or the one that is named, in order of name.

    Of slide2vec's output those of its tiles are taken, and never its coordinates; of CLAM's, the
    HDF5 files, whose vectors the `.pt` files repeat without places.

    Raises:
        BadFeatures: there is none.
    """
    if path.is_file():
        return [path]
    found = sorted(
        one
        for one in path.rglob("*")
        if one.suffix.lower() in SUFFIXES and not one.name.endswith(".coordinates.npz")
    )
    for folder in ("h5_files", "tile_embeddings"):
        inner = [one for one in found if one.parent.name == folder]
        found = inner or found
    if not found:
        raise BadFeatures(f"{path} holds no vectors; expected are files {', '.join(SUFFIXES)}")
    return found


def read_features(path: Path) -> Features:
    """Read one file.

    Raises:
        BadFeatures: damaged, without `features`, or with places that do not fit.
    """
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise BadFeatures(f"{path} is no file of vectors; expected are {', '.join(SUFFIXES)}")
    try:
        found = reader(path)
    except BadFeatures:
        raise
    except Exception as error:  # h5py, torch and NumPy raise what they like on damaged files
        raise BadFeatures(f"{path} cannot be read: {error}") from error
    return _checked(found)


def need_size(path: Path, unfolded: int) -> None:
    """Refuse what unfolds to far more than vectors do, before memory is taken for it.

    Raises:
        BadFeatures: says how much.
    """
    most = UNFOLDED * path.stat().st_size + SMALL
    if unfolded > most:
        raise BadFeatures(
            f"{path} has {path.stat().st_size:,} bytes and unfolds to {unfolded:,}, at most "
            f"{most:,} are read; it is damaged, or no file of vectors"
        )


def _checked(found: Features) -> Features:
    vectors, coords = found.vectors, found.coords
    if vectors.ndim == 3 and len(vectors) == 1:  # TRIDENT's slide encoders take a batch of one
        vectors = vectors[0]
    if vectors.ndim == 1:
        vectors = vectors[None]
    if vectors.ndim != 2 or not vectors.size or vectors.dtype.kind != "f":
        raise BadFeatures(
            f"{found.path}: features must be a table of numbers (tiles x dim), got "
            f"{vectors.dtype} {vectors.shape}"
        )
    if coords is not None and coords.ndim == 3 and len(coords) == 1:
        coords = coords[0]
    if coords is not None and (coords.shape[0] != len(vectors) or coords.shape[1:] != (2,)):
        if len(vectors) > 1:
            raise BadFeatures(
                f"{found.path}: {len(vectors)} vectors need coords of {len(vectors)} x 2, got "
                f"{coords.shape}"
            )
        coords = None  # one vector of a slide beside the places of all its tiles
    if coords is None and len(vectors) > 1:
        raise BadFeatures(
            f"{found.path}: {len(vectors)} vectors and no coords, so their tiles cannot be told "
            "apart; give the file that has both (CLAM: h5_files)"
        )
    return replace(found, vectors=vectors.astype(np.float32), coords=coords)


def _hdf5(path: Path) -> Features:
    """`features` and `coords` of CLAM or TRIDENT; the side of a tile is an attribute of `coords`,
    of CLAM's in the file of its patches."""
    from search.exports.arrays import need

    need("h5py")
    import h5py

    with h5py.File(path) as file:
        for name in {"features", "coords"} & set(file):
            need_size(path, file[name].nbytes)
        if "features" not in file:
            raise BadFeatures(f"{path} has no dataset 'features', only {', '.join(file) or 'none'}")
        vectors = np.asarray(file["features"][()])
        coords = np.asarray(file["coords"][()], np.int64) if "coords" in file else None
        said = dict(file["coords"].attrs) if coords is not None else {}
        encoder = file["features"].attrs.get("encoder", file.attrs.get("encoder"))
    for near in (path.parents[1] / "patches", path.parents[1], path.parents[2] / "patches"):
        for name in (path.name, f"{path.stem}_patches.h5"):
            beside = near / name
            if side_of(said) is None and beside != path and beside.is_file():
                with h5py.File(beside) as file:
                    said = dict(file["coords"].attrs) if "coords" in file else {}
    return Features(path, path.stem, vectors, coords, side_of(said), _text(encoder))


def side_of(said: Mapping[str, Any]) -> int | None:
    """Side of a tile in level-0 pixels, from the attributes that TRIDENT or CLAM write.

    TRIDENT: `patch_size_level0`, or `patch_size` by the two magnifications. CLAM: `patch_size` on
    `patch_level`, whose `downsample` it gives too (times `custom_downsample`).
    """
    if "patch_size_level0" in said:
        return round(float(said["patch_size_level0"]))
    if "patch_size" not in said:
        return None
    side = float(said["patch_size"])
    if "level0_magnification" in said and "target_magnification" in said:
        return round(
            side * float(said["level0_magnification"]) / float(said["target_magnification"])
        )
    if "downsample" in said:
        across = float(np.ravel(said["downsample"])[0])
        return round(side * across * float(said.get("custom_downsample", 1)))
    return round(side) if int(said.get("patch_level", 0)) == 0 else None


def _slide2vec(path: Path) -> Features:
    """`NAME.npz` or `NAME.pt`, with `NAME.meta.json`, which names the file of the places."""
    note = path.with_name(path.stem + SLIDE2VEC)
    said: dict[str, Any] = json.loads(note.read_text(encoding="utf-8")) if note.is_file() else {}
    if path.suffix.lower() == ".pt":
        import torch

        vectors = torch.load(path, map_location="cpu", weights_only=True).float().numpy()
        index = np.arange(len(vectors))
    else:
        with ZipFile(path) as archive:
            need_size(path, sum(one.file_size for one in archive.infolist()))
        with np.load(path, allow_pickle=False) as held:
            if "features" not in held:
                raise BadFeatures(f"{path} has no array 'features', only {', '.join(held)}")
            vectors = held["features"]
            index = held["tile_index"] if "tile_index" in held else np.arange(len(vectors))
    named = Path(str(said.get("coordinates_npz_path") or ""))
    beside = path.parents[1] / "tiles" / f"{path.stem}.coordinates.npz"
    coords = None
    for places in (named, beside):
        if coords is None and places.is_file():
            with np.load(places, allow_pickle=False) as held:
                both = np.column_stack([held["x"], held["y"]]).astype(np.int64)
                coords = both[index] if len(both) > index.max(initial=-1) else both
    side, slide = said.get("tile_size_lv0"), said.get("image_path")
    return Features(
        path,
        str(said.get("sample_id") or path.stem),
        vectors,
        coords,
        None if side is None else int(side),
        _text(said.get("encoder_name")),
        None if not slide else Path(str(slide)),
    )


def _safetensors(path: Path) -> Features:
    """Tensors `features` and `coords`; `patch_size_level0` and `encoder` as metadata."""
    from safetensors import safe_open

    with safe_open(path, "np") as held:
        said, names = held.metadata() or {}, set(held.keys())
        if "features" not in names:
            raise BadFeatures(f"{path} has no tensor 'features', only {', '.join(sorted(names))}")
        vectors = held.get_tensor("features")
        coords = held.get_tensor("coords").astype(np.int64) if "coords" in names else None
        boxes = held.get_tensor("boxes") if "boxes" in names else None
    side = side_of(said)
    if side is None and boxes is not None and len(np.unique(boxes[:, 2:])) == 1:
        side = int(boxes[0, 2]) if boxes[0, 2] > 0 else None
    return Features(path, path.stem, vectors, coords, side, _text(said.get("encoder")))


def _text(value: Any) -> str | None:
    if value is None:
        return None
    return value.decode() if isinstance(value, bytes) else str(value)


READERS: dict[str, Callable[[Path], Features]] = {
    ".h5": _hdf5,
    ".hdf5": _hdf5,
    ".npz": _slide2vec,
    ".pt": _slide2vec,
    ".safetensors": _safetensors,
}
