"""Two independent decoders agree with the product's: formats by depths by colour models."""

from __future__ import annotations

from io import BytesIO
from typing import Any, Literal

import cv2
import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image

from encoder.image import UnclearImage, decode, frame_of, read_rgb

Colour = Literal["grey", "rgb", "rgba"]
DEPTHS = {"8": (np.uint8, 255), "12 in 16": (np.uint16, 4095), "16": (np.uint16, 65535)}
TIFF_DEPTHS = {**DEPTHS, "32": (np.uint32, 2**32 - 1), "float": (np.float32, 1.0)}
PIXELS = {"grey": 1, "rgb": 3, "rgba": 4}


def samples(colour: str, depth: str) -> NDArray[Any]:
    """A gradient that reaches both ends of the depth; opaque where there is an alpha channel."""
    kind, top = TIFF_DEPTHS[depth]
    ramp = np.linspace(0, 1, 12 * 10).reshape(12, 10)
    planes = [ramp, ramp[::-1], ramp.T.reshape(12, 10), np.ones_like(ramp)]
    chosen = planes[: PIXELS[colour]]
    return (np.stack(chosen, axis=-1).squeeze() * top).astype(kind)


def shown(values: NDArray[Any], depth: str) -> NDArray[np.uint8]:
    """What a viewer shows, computed on its own."""
    top = TIFF_DEPTHS[depth][1]
    eight = np.rint(values.astype(np.float64) / top * 255).astype(np.uint8)
    return np.repeat(eight[..., None], 3, axis=2) if eight.ndim == 2 else eight[..., :3]


def agree(one: NDArray[np.uint8], other: NDArray[np.uint8], by: int = 1) -> bool:
    return one.shape == other.shape and int(np.abs(one.astype(int) - other).max()) <= by


def swapped(pixels: NDArray[Any]) -> NDArray[Any]:
    """Red and blue changed places, as OpenCV has them."""
    return pixels if pixels.ndim == 2 else pixels[..., [2, 1, 0, *range(3, pixels.shape[2])]]


def by_opencv(content: bytes) -> NDArray[Any]:
    return swapped(cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED))


@pytest.mark.parametrize("depth", DEPTHS)
@pytest.mark.parametrize("colour", PIXELS)
def test_png_of_any_depth_and_colour_is_what_opencv_and_pillow_read(
    colour: Colour, depth: str
) -> None:
    values = samples(colour, depth)
    content = cv2.imencode(".png", swapped(values))[1].tobytes()
    found = read_rgb(content)

    assert agree(found, shown(by_opencv(content), depth))
    if depth != "12 in 16":  # Pillow keeps the upper 8 bits of colours and shows those black
        with Image.open(BytesIO(content)) as image:
            deep = np.asarray(image)
        other = shown(deep, "16" if deep.dtype == np.uint16 else "8")
        assert agree(found, other)


@pytest.mark.parametrize("compression", [None, "zlib", "lzw"])
@pytest.mark.parametrize("depth", TIFF_DEPTHS)
@pytest.mark.parametrize("colour", PIXELS)
def test_tiff_of_any_depth_and_colour_is_what_tifffile_and_opencv_read(
    colour: Colour, depth: str, compression: str | None
) -> None:
    values = samples(colour, depth)
    out = BytesIO()
    extra = ["unassalpha"] if colour == "rgba" else None
    photometric = "minisblack" if colour == "grey" else "rgb"
    tifffile.imwrite(
        out, values, photometric=photometric, compression=compression, extrasamples=extra
    )
    found = read_rgb(out.getvalue())

    assert agree(found, shown(tifffile.imread(BytesIO(out.getvalue())), depth))
    other = cv2.imdecode(np.frombuffer(out.getvalue(), np.uint8), cv2.IMREAD_UNCHANGED)
    if other is not None and other.dtype == values.dtype and other.ndim == values.ndim:
        assert agree(found, shown(swapped(other), depth))
    if depth == "8":
        with Image.open(BytesIO(out.getvalue())) as image:
            assert agree(found, np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("ending", [".bmp", ".jpg", ".webp"])
@pytest.mark.parametrize("colour", ["grey", "rgb"])
def test_eight_bit_formats_are_what_opencv_reads(colour: Colour, ending: str) -> None:
    content = cv2.imencode(ending, swapped(samples(colour, "8")))[1].tobytes()
    other = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)

    assert agree(read_rgb(content), other[..., ::-1], by=6 if ending == ".jpg" else 2)


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "CMYK", "YCbCr"])
def test_colour_models_of_tiff_are_what_pillow_shows(mode: str) -> None:
    out = BytesIO()
    image = Image.fromarray(samples("rgb", "8")).convert(mode)
    image.save(out, "TIFF")
    assert agree(read_rgb(out.getvalue()), np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_a_picture_is_turned_once_in_every_format_and_its_size_with_it(
    format: str, orientation: int
) -> None:
    stored = Image.new("RGB", (64, 32), (10, 10, 10))
    stored.paste((250, 250, 250), (0, 0, 16, 16))  # a mark in one corner
    exif = Image.Exif()
    exif[274] = orientation
    out = BytesIO()
    stored.save(out, format, exif=exif)
    turned = cv2.imdecode(np.frombuffer(out.getvalue(), np.uint8), cv2.IMREAD_COLOR)
    expected = {1: "tl", 2: "tr", 3: "br", 4: "bl", 5: "tl", 6: "tr", 7: "br", 8: "bl"}
    found = read_rgb(out.getvalue())
    high, wide = found.shape[:2]
    corners = {
        "tl": found[4, 4],
        "tr": found[4, wide - 5],
        "bl": found[high - 5, 4],
        "br": found[high - 5, wide - 5],
    }

    assert (wide, high) == ((64, 32) if orientation < 5 else (32, 64))
    assert frame_of(out.getvalue()).size == (wide, high)
    assert frame_of(out.getvalue()).orientation == orientation
    assert [name for name, pixel in corners.items() if pixel.mean() > 128] == [
        expected[orientation]
    ]
    if format in {"JPEG", "TIFF"}:  # what OpenCV turns by itself
        assert agree(found, turned[..., ::-1], by=8)


def tiff(values: NDArray[Any], **settings: Any) -> bytes:
    out = BytesIO()
    tifffile.imwrite(out, values, **settings)
    return out.getvalue()


PURPLE = np.full((24, 20, 3), (90, 40, 160), np.uint8)
PURPLE[4:10] = (235, 225, 235)


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (tiff(PURPLE.transpose(2, 0, 1), photometric="minisblack", ome=True), "OME planes"),
        (tiff(PURPLE.transpose(2, 0, 1), photometric="rgb", planarconfig="separate"), "planar"),
        (
            tiff(
                PURPLE.transpose(2, 0, 1),
                photometric="minisblack",
                imagej=True,
                metadata={"axes": "CYX"},
            ),
            "ImageJ channels",
        ),
        (
            tiff(
                PURPLE.transpose(2, 0, 1)[[2, 1, 0]],
                photometric="minisblack",
                ome=True,
                metadata={"axes": "CYX", "Channel": {"Name": ["Blue", "Green", "Red"]}},
            ),
            "OME planes named from blue to red",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_colour_in_grey_planes_is_colour(content: bytes, what: str) -> None:
    assert agree(read_rgb(content), PURPLE), what


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (tiff(np.stack([PURPLE] * 3), photometric="rgb"), "3 pictures"),
        (tiff(np.stack([PURPLE[..., 0]] * 5), photometric="minisblack"), "5 pictures"),
        (
            tiff(
                PURPLE.transpose(2, 0, 1),
                photometric="minisblack",
                ome=True,
                metadata={"axes": "CYX", "Channel": {"Name": ["DAPI", "FITC", "TRITC"]}},
            ),
            "fluorescence",
        ),
        (tiff(np.full((8, 8), -3, np.int16), photometric="minisblack"), "below zero"),
        (tiff(np.full((8, 8), np.nan, np.float32), photometric="minisblack"), "not numbers"),
    ],
    ids=["colour pages", "grey pages", "dyes", "negative", "nan"],
)
def test_what_is_no_one_picture_is_refused_with_what_was_found(content: bytes, told: str) -> None:
    with pytest.raises(UnclearImage, match=f"field.tif .*{told}"):
        decode(content, name="field.tif")


def test_frames_of_an_animation_are_counted_in_the_refusal() -> None:
    out = BytesIO()
    frames = [Image.new("RGB", (8, 8), (n, 0, 0)) for n in (0, 90, 180)]
    frames[0].save(out, "GIF", save_all=True, append_images=frames[1:])
    with pytest.raises(UnclearImage, match="3 pictures"):
        decode(out.getvalue())


def test_a_smaller_copy_beside_the_picture_is_no_second_picture() -> None:
    out = BytesIO()
    with tifffile.TiffWriter(out) as file:
        file.write(PURPLE, photometric="rgb")
        file.write(PURPLE[::2, ::2], photometric="rgb", subfiletype=1)
    assert agree(read_rgb(out.getvalue()), PURPLE)


@pytest.mark.parametrize("alpha", [0, 1])
@pytest.mark.parametrize("format", ["PNG", "TIFF", "WEBP"])
def test_an_unused_alpha_channel_does_not_make_a_picture_white(format: str, alpha: int) -> None:
    rgba = np.dstack([PURPLE, np.full(PURPLE.shape[:2], alpha, np.uint8)])
    out = BytesIO()
    Image.fromarray(rgba).save(out, format, **({"lossless": True, "exact": True}))
    assert agree(read_rgb(out.getvalue()), PURPLE)


def test_without_more_codecs_eight_bits_are_read_by_pillow_and_deeper_ones_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise ValueError("<COMPRESSION.LZW: 5> requires the 'imagecodecs' package")

    shallow = tiff(PURPLE, photometric="rgb", compression="lzw")
    deep = tiff(PURPLE.astype(np.uint16) * 257, photometric="rgb", compression="lzw")
    monkeypatch.setattr(tifffile.TiffPage, "asarray", refuse)

    assert agree(read_rgb(shallow), PURPLE)
    with pytest.raises(UnclearImage, match="compression that is not read here"):
        read_rgb(deep)


def test_white_is_zero_is_inverted_at_every_depth() -> None:
    grey = PURPLE[..., 0]
    expected = np.repeat(grey[..., None], 3, axis=2)
    for inverted in (255 - grey, 65535 - grey.astype(np.uint16) * 257):
        assert agree(read_rgb(tiff(inverted, photometric="miniswhite")), expected)


def test_a_deep_picture_that_lands_almost_black_is_told() -> None:
    dark = np.zeros((32, 32), np.uint16)
    dark[0, 0] = 65535
    assert "almost black" in decode(tiff(dark, photometric="minisblack")).remark
    ordinary = np.linspace(0, 65535, 32 * 32).reshape(32, 32).astype(np.uint16)
    assert decode(tiff(ordinary, photometric="minisblack")).remark == ""
