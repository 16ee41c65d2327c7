"""A query and its neighbours as one picture."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from search.schemas.answers import Answer, Hit
from search.schemas.items import DISCLAIMER

CELL_PX = 176
"""Side of one picture."""
GAP_PX = 16
"""Space around each."""
TEXT_PX = 56
"""Height of the lines under each."""
INK, FAINT, ACCENT, PAPER = "#1c2430", "#5b6675", "#7a2e5d", "#ffffff"


def contact_sheet(query: bytes, answer: Answer, pictures: Sequence[bytes], path: Path) -> Path:
    """Write a query beside its neighbours, with score, label, case and dataset under each.

    Args:
        query: The query image, any format that Pillow reads.
        answer: The answer to it.
        pictures: One JPEG per hit, in the same order.
        path: The PNG to write.
    """
    per_row = 5
    rows = max(1, -(-len(pictures) // per_row))
    step = CELL_PX + GAP_PX
    left = step + 2 * GAP_PX
    sheet = Image.new(
        "RGB",
        (left + per_row * step + GAP_PX, GAP_PX + rows * (CELL_PX + TEXT_PX + GAP_PX) + 40),
        PAPER,
    )
    draw = ImageDraw.Draw(sheet)
    _place(sheet, query, GAP_PX, GAP_PX)
    draw.rectangle(
        (GAP_PX - 3, GAP_PX - 3, GAP_PX + CELL_PX + 2, GAP_PX + CELL_PX + 2), None, ACCENT, 3
    )
    draw.text((GAP_PX, GAP_PX + CELL_PX + 8), "query", ACCENT, _font(15))
    for at, (hit, picture) in enumerate(zip(answer.hits, pictures, strict=True)):
        x = left + (at % per_row) * step
        y = GAP_PX + (at // per_row) * (CELL_PX + TEXT_PX + GAP_PX)
        _place(sheet, picture, x, y)
        for line, (text, ink, size) in enumerate(_lines(hit)):
            draw.text((x, y + CELL_PX + 6 + line * 17), text, ink, _font(size))
    foot = f"{answer.collection}: {answer.items} items, encoder {answer.encoder}. {DISCLAIMER}"
    draw.text((GAP_PX, sheet.height - 30), foot, FAINT, _font(13))
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path, "PNG", optimize=True)
    return path


def _lines(hit: Hit) -> list[tuple[str, str, int]]:
    where = " · ".join(part for part in (hit.item.dataset, hit.item.case) if part)
    return [
        (f"{hit.score:.3f}  {hit.label or 'no label'}"[:24], INK, 15),
        (where[:28], FAINT, 13),
    ]


def _place(sheet: Image.Image, content: bytes, x: int, y: int) -> None:
    with Image.open(BytesIO(content)) as image:
        picture = image.convert("RGB")
    picture.thumbnail((CELL_PX, CELL_PX), Image.Resampling.LANCZOS)
    if max(picture.size) < CELL_PX:
        scale = CELL_PX / max(picture.size)
        size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
        picture = picture.resize(size, Image.Resampling.BICUBIC)
    sheet.paste(picture, (x + (CELL_PX - picture.width) // 2, y + (CELL_PX - picture.height) // 2))


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)
