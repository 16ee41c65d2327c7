"""TIFF slides of any make: their pixels, their levels, and the scale that is believed."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray

from ingest.sandbox.messages import Refusal
from ingest.slides.grid import TilePixels, TilePlan
from ingest.slides.scale import believed, ome_scale
from ingest.slides.slide import open_slide
from ingest.slides.tiff import TiffSlide, is_large, is_slide
from ingest.slides.tiling import NoScale, scale_and_cut

MICRO = "\N{MICRO SIGN}m"
OME = {
    "axes": "YXS",
    "PhysicalSizeX": 0.25,
    "PhysicalSizeXUnit": MICRO,
    "PhysicalSizeY": 0.25,
    "PhysicalSizeYUnit": MICRO,
}
TILED: dict[str, Any] = {"tile": (64, 64), "photometric": "rgb"}


@pytest.fixture(name="picture")
def _picture(rng: np.random.Generator) -> NDArray[np.uint8]:
    ramp = np.linspace(60, 250, 300 * 200).reshape(200, 300)
    picture = np.stack([ramp, ramp[::-1], ramp[:, ::-1]], axis=2)
    return (picture + rng.integers(0, 4, picture.shape)).clip(0, 255).astype(np.uint8)


def read(path: Path, level: int = 0) -> NDArray[np.uint8]:
    slide = open_slide(path)
    width, height = slide.facts.levels[level]
    out = np.empty((height, width, 3), np.uint8)
    slide.read(level, 0, 0, width, height, out)
    part = np.empty((70, 90, 3), np.uint8)
    slide.read(0, 50, 60, 90, 70, part)
    if level == 0:
        assert (part == out[60:130, 50:140]).all()
    slide.close()
    return out


@pytest.mark.parametrize("compression", [None, "zlib", "lzw"])
def test_a_pyramid_in_subifds_has_all_its_levels_and_its_scale(
    tmp_path: Path, picture: NDArray[np.uint8], compression: str | None
) -> None:
    path = tmp_path / "a.ome.tif"
    with tifffile.TiffWriter(path, ome=True) as file:
        how = TILED | {"compression": compression}
        file.write(picture, subifds=2, metadata=OME, **how)
        file.write(picture[::2, ::2], subfiletype=1, **how)
        file.write(picture[::4, ::4], subfiletype=1, **how)
    slide = open_slide(path)

    assert isinstance(slide, TiffSlide)
    assert slide.facts.levels == ((300, 200), (150, 100), (75, 50))
    assert slide.facts.um_per_px == (0.25, 0.25)
    slide.close()
    assert (read(path) == picture).all()
    assert (read(path, 1) == picture[::2, ::2]).all()


def test_jpeg_tiles_of_an_ome_tiff_are_read(tmp_path: Path, picture: NDArray[np.uint8]) -> None:
    path = tmp_path / "a.ome.tif"
    smooth = np.repeat(np.repeat(picture[::20, ::20], 20, 0), 20, 1)
    tifffile.imwrite(path, smooth, ome=True, metadata=OME, compression="jpeg", **TILED)
    assert np.abs(read(path).astype(int) - smooth).mean() < 4


@pytest.mark.parametrize(
    ("made", "how"),
    [
        (lambda p: p.astype(np.uint16) << 4, TILED),
        (lambda p: p.astype(np.uint16) * 257, TILED),
        (lambda p: (p / 255).astype(np.float32), TILED),
        (lambda p: p.transpose(2, 0, 1), TILED | {"planarconfig": "separate"}),
        (
            lambda p: p.transpose(2, 0, 1),
            {"tile": (64, 64), "photometric": "minisblack", "ome": True},
        ),
        (lambda p: 255 - p[..., 0], {"tile": (64, 64), "photometric": "miniswhite"}),
    ],
    ids=["12 bits in 16", "16 bits", "fractions", "planar", "three grey pages", "white is zero"],
)
def test_a_tiled_picture_is_shown_as_a_viewer_shows_it(
    tmp_path: Path, picture: NDArray[np.uint8], made: Any, how: dict[str, Any]
) -> None:
    path = tmp_path / ("a.ome.tif" if "ome" in how else "a.tif")
    tifffile.imwrite(path, made(picture), **how)
    expected = np.repeat(picture[..., :1], 3, 2) if "miniswhite" in how.values() else picture
    assert np.abs(read(path).astype(int) - expected).max() <= 2


def test_pages_that_are_no_planes_of_colour_are_refused(
    tmp_path: Path, picture: NDArray[np.uint8]
) -> None:
    path = tmp_path / "a.ome.tif"
    stack = np.stack([picture[..., 0]] * 4)
    tifffile.imwrite(path, stack, ome=True, tile=(64, 64), photometric="minisblack")
    with pytest.raises(Refusal, match="4 "):
        open_slide(path)


@pytest.mark.parametrize(
    ("x", "from_tags", "right"),
    [
        (0.25, True, True),
        (0.05, True, True),
        (8.0, True, True),
        (5.0, False, True),
        (0.025, True, False),
        (0.025, False, False),
        (25_400 / 72, True, False),
        (25_400 / 300, True, False),
        (25_400 / 600, True, False),
        (25_400 / 1200, True, False),
        (25_400 / 4800, True, False),
        (25_400 / 9600, True, False),
    ],
)
def test_only_scales_of_a_light_microscope_are_believed(
    x: float, from_tags: bool, right: bool
) -> None:
    scale, why = believed(x, x, from_tags=from_tags)
    assert (scale is not None) == right
    assert bool(why) != right


@pytest.mark.parametrize(
    ("unit", "size", "um"),
    [(MICRO, 0.25, 0.25), ("nm", 250, 0.25), ("mm", 0.00025, 0.25), ("pixel", 1, None)],
)
def test_ome_names_its_unit(unit: str, size: float, um: float | None) -> None:
    text = (
        '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Image><Pixels '
        f'PhysicalSizeX="{size}" PhysicalSizeXUnit="{unit}" PhysicalSizeY="{size}" '
        f'PhysicalSizeYUnit="{unit}"/></Image></OME>'
    )
    scale, _ = ome_scale(text)
    assert scale == (None if um is None else pytest.approx((um, um)))


@pytest.mark.parametrize(("unit", "per"), [("CENTIMETER", 28.346), ("INCH", 72), ("INCH", 600)])
def test_a_resolution_of_print_is_told_as_no_scale(
    tmp_path: Path, picture: NDArray[np.uint8], unit: str, per: float
) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(
        path, picture, resolution=(per, per), resolutionunit=unit, metadata=None, **TILED
    )
    slide = open_slide(path)
    with pytest.raises(NoScale, match="dots per inch"):
        scale_and_cut(slide, TilePlan(size=TilePixels(64)), None)
    slide.close()


def test_a_large_tiled_tiff_is_a_slide_and_a_cell_is_none(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((1500, 64), np.uint8), tile=(64, 64))
    tifffile.imwrite(tmp_path / "b.tif", np.zeros((300, 300), np.uint8), tile=(64, 64))
    tifffile.imwrite(tmp_path / "c.tif", np.zeros((1500, 64), np.uint8))
    assert [is_slide(tmp_path / f"{name}.tif") for name in "abc"] == [True, False, False]
    files = [BytesIO((tmp_path / f"{name}.tif").read_bytes()) for name in "abc"]
    assert [is_large(one) for one in files] == [True, False, False]
