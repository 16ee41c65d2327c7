"""Bytes become RGB or an error in words; nothing is replaced."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps, PngImagePlugin

from encoder.image import Frame, NotAnImage, TooManyPixels, frame_of, plain_jpeg, read_rgb, resize


def encoded(image: Image.Image, format: str, **settings: object) -> bytes:
    out = BytesIO()
    image.save(out, format, **settings)
    return out.getvalue()


@pytest.mark.parametrize("format", ["PNG", "TIFF", "BMP"])
def test_lossless_formats_come_back_red_first(format: str, rng: np.random.Generator) -> None:
    pixels = rng.integers(0, 256, (5, 7, 3), dtype=np.uint8)
    assert np.array_equal(read_rgb(encoded(Image.fromarray(pixels), format)), pixels)


def test_transparency_is_laid_on_white() -> None:
    clear = Image.new("RGBA", (2, 1), (255, 0, 0, 0))
    clear.putpixel((1, 0), (255, 0, 0, 255))
    assert read_rgb(encoded(clear, "PNG")).tolist() == [[[255, 255, 255], [255, 0, 0]]]
    palette = Image.new("P", (1, 1), 0)
    palette.putpalette([10, 20, 30])
    assert read_rgb(encoded(palette, "PNG", transparency=0)).tolist() == [[[255, 255, 255]]]
    assert read_rgb(encoded(palette, "PNG")).tolist() == [[[10, 20, 30]]]


def test_sixteen_bit_grey_is_scaled() -> None:
    deep = Image.fromarray(np.array([[0, 32896, 65535]], np.uint16))
    assert read_rgb(encoded(deep, "PNG"))[0, :, 0].tolist() == [0, 128, 255]


def test_an_image_over_the_cap_is_refused_before_decoding() -> None:
    big = encoded(Image.new("L", (2000, 2000)), "PNG")
    cut = big[: len(big) // 2]  # decoding would fail in another way
    with pytest.raises(TooManyPixels, match=r"big\.png has 2000 x 2000 pixels"):
        read_rgb(cut, name="big.png", max_pixels=3_999_999)
    assert read_rgb(big, max_pixels=4_000_000).shape == (2000, 2000, 3)


def turned_png(how: str) -> bytes:
    """A PNG of 20 x 10 pixels that lies on its side, which is said before or behind its pixels."""
    exif = Image.Exif()
    exif[274] = 6
    text = PngImagePlugin.PngInfo()
    if how == "XMP behind":
        text.add_itxt("XML:com.adobe.xmp", '<x tiff:Orientation="6"/>')
    more = {"pnginfo": text} if how == "XMP behind" else {"exif": exif}
    whole = encoded(Image.new("RGB", (20, 10), (9, 99, 199)), "PNG", **more)
    chunks, at = [], 8
    while at < len(whole):
        end = at + 12 + int.from_bytes(whole[at : at + 4], "big")
        chunks.append(whole[at:end])
        at = end
    if how.endswith("behind"):
        chunks.sort(key=lambda one: [b"IHDR", b"IDAT", b"eXIf", b"iTXt", b"IEND"].index(one[4:8]))
    return whole[:8] + b"".join(chunks)


@pytest.mark.parametrize("how", ["EXIF before", "EXIF behind", "XMP behind"])
def test_a_png_is_upright_and_its_header_is_read_without_its_pixels(
    how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = turned_png(how)
    (tmp_path / "cell.png").write_bytes(content)
    with Image.open(BytesIO(content)) as image:
        assert image.getexif()[274] == 6  # as Pillow sees it, with all of its pixels
    assert read_rgb(content).shape == (20, 10, 3)

    def decoded(_: object) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr(PngImagePlugin.PngImageFile, "load", decoded)
    for source in (content, tmp_path / "cell.png"):
        assert frame_of(source) == Frame(10, 20, 6)
    with pytest.raises(TooManyPixels):
        read_rgb(content, max_pixels=199)


def test_what_is_no_image_is_named_with_what_is_accepted(tmp_path: Path) -> None:
    (tmp_path / "notes.jpg").write_text("no image")
    with pytest.raises(NotAnImage, match=r"notes.jpg is not an image .* JPEG, PNG"):
        read_rgb(tmp_path / "notes.jpg")
    with pytest.raises(NotAnImage):
        read_rgb(b"")
    with pytest.raises(FileNotFoundError):
        read_rgb(tmp_path / "absent.png")


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP"])
def test_an_image_cut_short_is_an_error_and_not_half_grey(
    format: str, rng: np.random.Generator
) -> None:
    whole = encoded(Image.fromarray(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)), format)
    with pytest.raises(NotAnImage, match=r"cell is (damaged|not an image)"):
        read_rgb(whole[: len(whole) // 2], name="cell")


JPEGS: dict[str, tuple[str, dict[str, object]]] = {
    "full colour": ("RGB", {"quality": 97, "subsampling": 0}),
    "chroma halved in width": ("RGB", {"quality": 88, "subsampling": 1}),
    "chroma halved": ("RGB", {"quality": 30, "subsampling": 2}),
    "progressive": ("RGB", {"progressive": True, "optimize": True}),
    "restarts": ("RGB", {"restart_marker_rows": 1}),
    "grey": ("L", {}),
    "without a colour transform": ("RGB", {"keep_rgb": True}),
    "CMYK": ("CMYK", {}),
}
BY_PILLOW = {"without a colour transform", "CMYK"}


@pytest.mark.parametrize("turn", [1, 6])
@pytest.mark.parametrize("name", JPEGS)
def test_a_jpeg_has_the_pixels_that_pillow_gives(
    name: str, turn: int, rng: np.random.Generator
) -> None:
    mode, settings = JPEGS[name]
    coarse = Image.fromarray(rng.integers(0, 256, (9, 8, 3), dtype=np.uint8))
    picture = coarse.resize((61, 75), Image.Resampling.BICUBIC).convert(mode)
    exif = Image.Exif()
    exif[0x0112] = turn
    content = encoded(picture, "JPEG", exif=exif, **settings)
    wanted = ImageOps.exif_transpose(Image.open(BytesIO(content))).convert("RGB")

    assert np.array_equal(read_rgb(content), np.asarray(wanted))
    assert (plain_jpeg(content) is None) == (name in BY_PILLOW)


@pytest.mark.parametrize(
    ("mode", "saved"),
    [
        ("RGB", {}),
        ("L", {}),
        ("CMYK", {}),
        ("RGB", {"progressive": True, "comment": b"a smear"}),
        ("RGB", {"turn": 6}),
        ("RGB", {"turn": 3, "icc_profile": b"profile" * 20_000}),
        ("L", {"turn": 8, "comment": b"before the turn"}),
    ],
)
def test_a_jpeg_in_memory_has_the_frame_that_pillow_finds_in_its_file(
    mode: str, saved: dict[str, Any], tmp_path: Path, rng: np.random.Generator
) -> None:
    picture = Image.fromarray(rng.integers(0, 255, (20, 36, 3), np.uint8)).convert(mode)
    settings = dict(saved)
    if turn := settings.pop("turn", None):
        settings["exif"] = Image.Exif()
        settings["exif"][274] = turn
    path = tmp_path / "cell.jpg"
    picture.save(path, **settings)
    content = path.read_bytes()

    assert frame_of(content) == frame_of(path)
    assert frame_of(content).orientation == (turn or 1)
    doubled = content[:2] + b"\xff" + content[2:]  # padding before a marker, which is allowed
    path.write_bytes(doubled)
    assert frame_of(doubled) == frame_of(path)
    for length in (2, 3, 4, 20, len(content) // 2):
        path.write_bytes(content[:length])
        assert frame_or_none(content[:length]) == frame_or_none(path)


def frame_or_none(source: bytes | Path) -> Frame | None:
    try:
        return frame_of(source)
    except NotAnImage:
        return None


def test_resizing_squashes_the_whole_image_and_leaves_the_right_size_alone() -> None:
    half = np.zeros((10, 40, 3), np.uint8)
    half[:, 20:] = 200
    small = resize(half, 8, "bilinear")
    assert small.shape == (8, 8, 3)
    assert small[:, 0].max() == 0
    assert small[:, -1].min() == 200
    assert resize(small, 8, "lanczos") is small
