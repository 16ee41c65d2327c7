"""How each type of blood cell is drawn: its outline, nucleus, granules and colours."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ingest.drawing import (
    Grid,
    Ink,
    Plane,
    Point,
    cover,
    disc,
    ellipse,
    far,
    grains,
    joined,
    noise,
    outline,
    stroke,
    turned,
)

Kind = Literal["white", "red", "platelet"]
EDGE = 0.32
"""Width of a cell's edge in micrometres: the resolution of an oil immersion lens, roughly."""


@dataclass(frozen=True)
class Drawn:
    """One cell, drawn: what it absorbs, and where it is."""

    density: Plane
    """Optical density, height x width x 3."""
    body: Plane
    """How much of each pixel the cell covers, 0 to 1."""


@dataclass(frozen=True)
class Build:
    """What varies between the patients, beside the stain."""

    diameter: float
    """Of a red cell, in micrometres."""
    variation: float
    """Relative spread of the red cells' diameters."""
    pallor: float
    """How much paler the middle of a red cell is, 0 to 1."""


Painter = Callable[[np.random.Generator, Grid, Ink, float], Drawn]
Lobes = list[tuple[Point, Point, float]]


# Red cells. A profile of thickness, times the density of haemoglobin.


def red_cell(rng: np.random.Generator, g: Grid, ink: Ink, size: float, build: Build) -> Drawn:
    """The usual biconcave disc: round, paler in the middle third."""
    wide = rng.uniform(1, 1.1)
    rho = _rho(rng, g, size / 2, wide, 0.022)
    middle = np.float32(rng.uniform(0.42, 0.56))
    dip = build.pallor * rng.uniform(0.75, 1.15)
    return _haemoglobin(
        rng, g, ink, rho, size, 1 - np.float32(dip) * np.exp(-((rho / middle) ** 3))
    )


def target_cell(rng: np.random.Generator, g: Grid, ink: Ink, size: float, build: Build) -> Drawn:
    """A disc of haemoglobin in the middle of a pale ring."""
    rho = _rho(rng, g, size / 2, rng.uniform(1, 1.08), 0.02)
    ring = np.exp(-(((rho - np.float32(rng.uniform(0.5, 0.56))) / np.float32(0.16)) ** 2))
    return _haemoglobin(rng, g, ink, rho, size, 0.95 - np.float32(rng.uniform(0.6, 0.72)) * ring)


def spherocyte(rng: np.random.Generator, g: Grid, ink: Ink, size: float, build: Build) -> Drawn:
    """Small, round and dense, without a paler middle."""
    small = size * rng.uniform(0.74, 0.84)
    rho = _rho(rng, g, small / 2, rng.uniform(1, 1.04), 0.015)
    return _haemoglobin(rng, g, ink, rho, small, 1.42 - np.float32(0.16) * rho**2)


def teardrop(rng: np.random.Generator, g: Grid, ink: Ink, size: float, build: Build) -> Drawn:
    """One end drawn out into a single tail."""
    u, v = turned(g, (0.0, 0.0), rng.uniform(0, 2 * np.pi))
    u = u + np.float32(0.2 * size)
    radius, tail = size * rng.uniform(0.40, 0.46), size * rng.uniform(0.72, 0.92)
    bend, body = rng.normal(0, 0.5), far(u, v)
    distance = body - np.float32(radius)
    for t in np.linspace(0.12, 1, 12):  # discs that shrink towards the tip
        shrunk = radius * (1 - t) ** rng.uniform(1.5, 1.6) + 0.3 * t
        step = far(u - np.float32(t * tail), v - np.float32(bend * t * t)) - np.float32(shrunk)
        distance = joined(distance, step, 0.3)
    rho = np.clip(1 + distance / np.float32(radius), 0, None)
    dip = np.float32(build.pallor * 0.8) * np.exp(-((body / np.float32(radius * 0.5)) ** 3))
    return _haemoglobin(rng, g, ink, rho, 2 * radius, 1 - dip)


def elliptocyte(rng: np.random.Generator, g: Grid, ink: Ink, size: float, build: Build) -> Drawn:
    """A rod or a cigar with round ends, twice as long as wide or more."""
    angle, length = rng.uniform(0, 2 * np.pi), size * rng.uniform(1.1, 1.3)
    radius = length / rng.uniform(2.1, 2.8) / 2
    u, v = turned(g, (0.0, 0.0), angle)
    straight = np.float32(length / 2 - radius) * np.float32(0.55)
    u = np.maximum(np.abs(u) - straight, 0) * np.float32(radius / (length / 2 - straight))
    rho = far(u, v) / np.float32(radius)
    dip = np.float32(build.pallor * rng.uniform(0.5, 0.9)) * np.exp(-((rho / np.float32(0.5)) ** 3))
    return _haemoglobin(rng, g, ink, rho, 2 * radius, 1.05 - dip)


def stomatocyte(rng: np.random.Generator, g: Grid, ink: Ink, size: float, build: Build) -> Drawn:
    """The pale middle is a slit, like a mouth."""
    rho = _rho(rng, g, size / 2, rng.uniform(1, 1.08), 0.02)
    u, v = turned(g, (0.0, 0.0), rng.uniform(0, 2 * np.pi))
    v = v - np.float32(rng.uniform(0.02, 0.05)) * u * u
    slit = far(u / np.float32(0.25 * size), v / np.float32(0.1 * size))
    return _haemoglobin(rng, g, ink, rho, size, 1.05 - np.float32(0.68) * np.exp(-(slit**2.5)))


def burr_cell(rng: np.random.Generator, g: Grid, ink: Ink, size: float, build: Build) -> Drawn:
    """Ten to sixteen short, even projections all around."""
    angle = np.arctan2(g.y, g.x)
    spikes, turn = int(rng.integers(10, 17)), rng.uniform(0, 6.28)
    even = angle + np.float32(0.12) * np.sin(2 * angle + np.float32(rng.uniform(0, 6.28)))
    wave = 0.5 + 0.5 * np.cos(np.float32(spikes) * even + np.float32(turn))
    line = np.float32(size / 2 * 0.9) * (1 + np.float32(rng.uniform(0.11, 0.16)) * wave**2)
    rho = far(g.x, g.y) / line
    dip = np.float32(build.pallor * 0.8) * np.exp(-((rho / np.float32(0.45)) ** 3))
    knobs = 1 + 0.14 * noise(rng, g, 0.9)
    return _haemoglobin(rng, g, ink, rho, size, (1.02 - dip) * knobs)


def schistocyte(rng: np.random.Generator, g: Grid, ink: Ink, size: float, build: Build) -> Drawn:
    """A fragment: a disc with one or two straight cuts, which leave sharp horns."""
    radius, angle = size * rng.uniform(0.40, 0.48), rng.uniform(0, 2 * np.pi)
    u, v = turned(g, (0.0, 0.0), angle)
    hollow = np.float32(rng.uniform(0.02, 0.1))
    away = np.float32(rng.uniform(0.05, 0.45) * radius)
    distance = -joined(np.float32(radius) - far(u, v), away - u - hollow * v * v, 0.4)
    if rng.random() < 0.5:
        w, _ = turned(g, (0.0, 0.0), angle + rng.uniform(1.7, 2.6))
        distance = -joined(-distance, np.float32(rng.uniform(0.3, 0.6) * radius) - w, 0.5)
    rho = np.clip(1 + distance / np.float32(radius * 0.6), 0, None)
    return _haemoglobin(rng, g, ink, rho, 1.2 * radius, 1.12 - 0.1 * rho)


def _rho(rng: np.random.Generator, g: Grid, radius: float, wide: float, depth: float) -> Plane:
    """Distance from the middle as a share of the outline's: 1 on the outline."""
    u, v = turned(g, (0.0, 0.0), rng.uniform(0, 2 * np.pi))
    u, v = u / np.float32(wide**0.5), v * np.float32(wide**0.5)
    return far(u, v) / (np.float32(radius) * outline(rng, np.arctan2(v, u), 5, depth * 2))


def _haemoglobin(
    rng: np.random.Generator, g: Grid, ink: Ink, rho: Plane, size: float, profile: Plane
) -> Drawn:
    """A red cell from its outline (`rho` is 1 there) and the thickness inside."""
    distance = (rho - 1) * np.float32(size / 2)
    body = cover(distance, EDGE)
    rim = 0.87 + 0.13 * np.clip(rho, 0, 1) ** 2
    thick = body * rim * np.clip(profile, 0.06, None) * np.float32(rng.normal(1, 0.05))
    thick *= 1 + 0.02 * noise(rng, g, 1.2)
    # The lens throws a faint bright line around a cell.
    halo = np.exp(-(((distance - np.float32(0.34)) / np.float32(0.2)) ** 2))
    density = thick[..., None] * ink.red - (np.float32(0.016) * halo)[..., None]
    return Drawn(density, body)


# White cells.


def segmented(rng: np.random.Generator, g: Grid, ink: Ink, size: float) -> Drawn:
    """Three to five lobes on thin threads; pale pink cytoplasm with fine granules."""
    lobes = _lobes(rng, size / 2, int(rng.choice([2, 3, 4, 5], p=[0.08, 0.42, 0.38, 0.12])))
    nucleus = _chain(g, lobes, 0.17)
    return _granulocyte(rng, g, ink, size, nucleus)


def band(rng: np.random.Generator, g: Grid, ink: Ink, size: float) -> Drawn:
    """A bent rod of even width as nucleus; pale pink cytoplasm with fine granules."""
    radius, angle = size / 2, rng.uniform(0, 2 * np.pi)
    bow, span = radius * rng.uniform(0.46, 0.54), rng.uniform(3.2, 4.4)
    turns = angle + np.linspace(-span / 2, span / 2, 9)
    if rng.random() < 0.3:  # an S instead of a C
        turns = angle + np.linspace(-1.9, 1.9, 9) * np.sign(np.linspace(-1, 1, 9)) ** 2
    points = [(float(bow * np.cos(t)), float(bow * np.sin(t))) for t in turns]
    nucleus = stroke(g, points, radius * rng.uniform(0.2, 0.24))
    return _granulocyte(rng, g, ink, size, nucleus)


def _granulocyte(rng: np.random.Generator, g: Grid, ink: Ink, size: float, nucleus: Plane) -> Drawn:
    body = _body(rng, g, size, 0.03)
    tone = body * (0.9 + 0.1 * noise(rng, g, 1.5))
    dust = grains(rng, g, 0.55, 0.12, 0.5) * body * np.float32(rng.uniform(0.35, 0.65))
    density = tone[..., None] * ink.pale + dust[..., None] * ink.fine
    return _with_nucleus(rng, g, ink.nucleus, density, body, nucleus, clump=0.3)


def eosinophil(rng: np.random.Generator, g: Grid, ink: Ink, size: float) -> Drawn:
    """Two lobes; the cytoplasm is packed with round orange granules of even size."""
    lobes = _lobes(rng, size / 2, 2 if rng.random() < 0.85 else 3)
    body = _body(rng, g, size, 0.03)
    packed = grains(rng, g, 0.84, 0.44, 0.12) * body * cover(disc(g, (0, 0), size / 2 - 0.25), 0.5)
    shade = (0.3 + (0.62 + 0.14 * noise(rng, g, 0.8)) * packed) * body
    density = (0.9 * body)[..., None] * ink.pale + shade[..., None] * ink.orange
    nucleus = _chain(g, lobes, 0.3)
    return _with_nucleus(rng, g, ink.nucleus * 0.92, density, body, nucleus, clump=0.22)


def basophil(rng: np.random.Generator, g: Grid, ink: Ink, size: float) -> Drawn:
    """Coarse dark violet granules of uneven size that lie over the nucleus and hide it."""
    body = _body(rng, g, size, 0.035)
    nucleus = _chain(g, _lobes(rng, size / 2, int(rng.integers(2, 4)), wide=1.15), 0.5)
    density = body[..., None] * (0.8 * ink.pale + 0.25 * ink.sky)
    drawn = _with_nucleus(rng, g, ink.nucleus * 0.62, density, body, nucleus, clump=0.2)
    inside = cover(disc(g, (0, 0), size / 2 - 0.35), 0.6) * body
    coarse = grains(rng, g, 1.15, 0.42, 0.4) * (0.85 + 0.15 * noise(rng, g, 0.8)) * inside
    small = grains(rng, g, 0.9, 0.2, 0.6) * inside
    over = np.clip(np.maximum(coarse, 0.7 * small), 0, 1)
    return Drawn(drawn.density * (1 - 0.55 * over)[..., None] + over[..., None] * ink.violet, body)


def lymphocyte(rng: np.random.Generator, g: Grid, ink: Ink, size: float) -> Drawn:
    """A round, dense nucleus that nearly fills the cell; a thin rim of sky blue."""
    body = _body(rng, g, size, 0.04)
    off = size * rng.uniform(0.02, 0.07)
    turn = rng.uniform(0, 2 * np.pi)
    centre = (off * np.cos(turn), off * np.sin(turn))
    half = size / 2 * rng.uniform(0.78, 0.86)
    nucleus = ellipse(g, centre, (half, half * rng.uniform(0.9, 0.99)), rng.uniform(0, 3.14))
    tone = body * (0.95 + 0.12 * noise(rng, g, 1.3))
    drawn = tone[..., None] * ink.sky
    return _with_nucleus(rng, g, ink.nucleus, drawn, body, nucleus, clump=0.3, feature=1.5)


def monocyte(rng: np.random.Generator, g: Grid, ink: Ink, size: float) -> Drawn:
    """Large; an indented nucleus with lacy chromatin; grey-blue cytoplasm with vacuoles."""
    body = _body(rng, g, size, 0.09)
    radius, angle = size / 2, rng.uniform(0, 2 * np.pi)
    off = 0.08 * radius
    centre = (off * np.cos(angle), off * np.sin(angle))
    whole = ellipse(g, centre, (0.6 * radius, 0.72 * radius), angle)
    deep = rng.uniform(0.55, 0.95) * radius
    notch = disc(g, (-deep * np.cos(angle), -deep * np.sin(angle)), rng.uniform(0.4, 0.5) * radius)
    nucleus = -joined(-whole, notch, 1.2)
    tone = body * (0.92 + 0.13 * noise(rng, g, 0.9) + 0.07 * noise(rng, g, 2.5))
    dust = grains(rng, g, 0.7, 0.1, 0.5) * body * 0.35
    density = tone[..., None] * ink.grey + dust[..., None] * ink.fine
    for _ in range(int(rng.integers(0, 5))):
        reach, turn = radius * rng.uniform(0.45, 0.85), rng.uniform(0, 2 * np.pi)
        place = (reach * np.cos(turn), reach * np.sin(turn))
        density = (
            density * (1 - 0.8 * cover(disc(g, place, rng.uniform(0.25, 0.6)), 0.4))[..., None]
        )
    return _with_nucleus(rng, g, ink.nucleus * 0.8, density, body, nucleus, clump=0.26, feature=1.1)


def blast(rng: np.random.Generator, g: Grid, ink: Ink, size: float) -> Drawn:
    """A large round nucleus with fine chromatin and pale nucleoli; a rim of deep blue."""
    body = _body(rng, g, size, 0.05)
    radius, turn = size / 2, rng.uniform(0, 2 * np.pi)
    centre = (0.1 * radius * np.cos(turn), 0.1 * radius * np.sin(turn))
    half = radius * rng.uniform(0.78, 0.85)
    nucleus = ellipse(g, centre, (half, half * rng.uniform(0.86, 0.97)), rng.uniform(0, 3.14))
    halo = np.exp(-((np.clip(nucleus, 0, None) / np.float32(0.5)) ** 2)) * np.float32(0.22)
    density = (body * (0.97 + 0.06 * noise(rng, g, 1.1)) * (1 - halo))[..., None] * ink.deep
    pale = np.zeros_like(body)
    for _ in range(int(rng.integers(1, 4))):
        reach, at = half * rng.uniform(0.1, 0.55), rng.uniform(0, 2 * np.pi)
        place = (centre[0] + reach * np.cos(at), centre[1] + reach * np.sin(at))
        spot = ellipse(g, place, (rng.uniform(0.7, 1.1), rng.uniform(0.6, 0.9)), at)
        pale = np.maximum(pale, cover(spot, 0.7))
    dye = ink.immature
    return _with_nucleus(
        rng, g, dye, density, body, nucleus, clump=0.13, feature=0.6, ragged=0.06, pale=pale
    )


def erythroblast(rng: np.random.Generator, g: Grid, ink: Ink, size: float) -> Drawn:
    """A very dense, perfectly round nucleus in the cytoplasm of a young red cell."""
    body = _body(rng, g, size, 0.045)
    off, turn = size * rng.uniform(0, 0.09), rng.uniform(0, 2 * np.pi)
    centre = (off * np.cos(turn), off * np.sin(turn))
    nucleus = disc(g, centre, size / 2 * rng.uniform(0.52, 0.66))
    young = rng.uniform(0.2, 0.65)
    tone = (body * (1 + 0.06 * noise(rng, g, 1.5)))[..., None]
    density = tone * ((1.15 - 0.6 * young) * ink.red + young * ink.deep)
    return _with_nucleus(
        rng, g, ink.nucleus * 1.15, density, body, nucleus, clump=0.36, feature=1.9, ragged=0.05
    )


def platelet(rng: np.random.Generator, g: Grid, ink: Ink, size: float) -> Drawn:
    """Small and irregular, pale lilac, with purple granules in the middle."""
    body = _body(rng, g, size, 0.1)
    middle = cover(disc(g, (0, 0), size * 0.32), size * 0.4)
    dust = grains(rng, g, 0.55, 0.2, 0.4) * middle
    density = (body * (0.55 + 0.1 * noise(rng, g, 0.7)))[..., None] * ink.platelet
    return Drawn(density + (0.55 * dust * body)[..., None] * ink.violet, body)


def _body(rng: np.random.Generator, g: Grid, size: float, depth: float) -> Plane:
    angle = np.arctan2(g.y, g.x)
    line = np.float32(size / 2) * outline(rng, angle, 7, 1.6 * depth)
    return cover(far(g.x, g.y) - line, EDGE)


def _lobes(rng: np.random.Generator, radius: float, count: int, wide: float = 1.0) -> Lobes:
    """Lobes along a bow inside a cell of this radius: place, half axes, angle."""
    size = radius * {2: 0.36, 3: 0.3, 4: 0.26}.get(count, 0.23) * wide
    bow = radius * (0.5 if count > 2 else 0.46)
    step = {2: 2.3, 3: 1.5, 4: 1.2}.get(count, 1.0) * rng.uniform(0.92, 1.08)
    first = rng.uniform(0, 2 * np.pi)
    lobes: Lobes = []
    for i in range(count):
        turn = first + i * step + rng.normal(0, 0.1)
        out = bow * rng.uniform(0.72, 1.12)
        half = (size * rng.uniform(1.0, 1.35), size * rng.uniform(0.75, 0.95))
        lean = turn + np.pi / 2 + rng.normal(0, 0.45)
        lobes.append(((float(out * np.cos(turn)), float(out * np.sin(turn))), half, float(lean)))
    return lobes


def _chain(g: Grid, lobes: Lobes, thread: float) -> Plane:
    """Lobes, each joined to the next by a thread."""
    shape = stroke(g, [place for place, _, _ in lobes], thread)
    for place, half, angle in lobes:
        shape = joined(shape, ellipse(g, place, half, angle), 0.45)
    return shape


def _with_nucleus(
    rng: np.random.Generator,
    g: Grid,
    dye: Plane,
    density: Plane,
    body: Plane,
    nucleus: Plane,
    *,
    clump: float,
    feature: float = 1.2,
    ragged: float = 0.12,
    pale: Plane | None = None,
) -> Drawn:
    """Lay a nucleus over the cytoplasm.

    Args:
        rng: Where chance comes from.
        g: The pixels.
        dye: Density of its chromatin.
        density: What the cytoplasm absorbs, height x width x 3.
        body: Cover of the whole cell; the nucleus never leaves it.
        nucleus: Distance to its outline.
        clump: How uneven the chromatin is.
        feature: Size of the clumps in micrometres.
        ragged: How uneven the outline is, in micrometres.
        pale: Where nucleoli lie.
    """
    shape = nucleus + np.float32(ragged) * noise(rng, g, 1.6)
    inside = cover(shape, EDGE) * body
    lumps = np.tanh(1.3 * noise(rng, g, feature)) + 0.55 * noise(rng, g, 0.45)
    edge = 0.14 * np.exp(-((shape / np.float32(0.5)) ** 2))
    chromatin = np.clip(1 + clump * lumps + edge, 0.45, 1.6)
    if pale is not None:
        chromatin = chromatin * (1 - 0.42 * pale)
    mixed = density * (1 - 0.75 * inside)[..., None] + (inside * chromatin)[..., None] * dye
    return Drawn(mixed, body)


RED: dict[str, Callable[[np.random.Generator, Grid, Ink, float, Build], Drawn]] = {
    "red cell": red_cell,
    "target cell": target_cell,
    "spherocyte": spherocyte,
    "teardrop": teardrop,
    "elliptocyte": elliptocyte,
    "stomatocyte": stomatocyte,
    "burr cell": burr_cell,
    "schistocyte": schistocyte,
}
"""Red cells."""
WHITE: dict[str, tuple[Painter, float, float]] = {
    "segmented neutrophil": (segmented, 12.0, 14.0),
    "band neutrophil": (band, 12.0, 14.2),
    "eosinophil": (eosinophil, 12.5, 15.0),
    "basophil": (basophil, 10.5, 12.5),
    "lymphocyte": (lymphocyte, 8.6, 11.0),
    "monocyte": (monocyte, 14.5, 18.0),
    "blast": (blast, 13.0, 17.0),
    "erythroblast": (erythroblast, 8.5, 11.0),
}
"""White cells and other nucleated cells, with their least and greatest diameter in micrometres."""
PLATELET = ("platelet", 2.0, 3.6)
LABELS: tuple[str, ...] = (*WHITE, *RED, PLATELET[0])
"""Every label that is drawn."""


def kind_of(label: str) -> Kind:
    """Which kind a label is.

    Raises:
        ValueError: it is none of `LABELS`.
    """
    if label in RED:
        return "red"
    if label in WHITE:
        return "white"
    if label == PLATELET[0]:
        return "platelet"
    raise ValueError(f"no cell is drawn for {label!r}; the labels are {', '.join(LABELS)}")


def paint(
    label: str, rng: np.random.Generator, ink: Ink, build: Build, um_per_px: float
) -> tuple[Drawn, float]:
    """Draw one cell in a square that just holds it.

    Returns:
        The drawing, and the radius in micrometres of a circle around the cell.

    Raises:
        ValueError: an unknown label.
    """
    kind = kind_of(label)
    if kind == "red":
        size = build.diameter * float(np.clip(rng.normal(1, build.variation), 0.7, 1.35))
    else:
        low, high = WHITE[label][1:] if kind == "white" else PLATELET[1:]
        size = rng.uniform(low, high)
    reach = size * {"red": 0.56, "white": 0.58, "platelet": 0.68}[kind]
    if label in ("teardrop", "elliptocyte"):
        reach = size * 0.8
    side = 2 * int(np.ceil((reach + 0.6) / um_per_px)) + 1
    g = Grid.around(side, um_per_px)
    if kind == "red":
        return RED[label](rng, g, ink, size, build), reach
    return (WHITE[label][0] if kind == "white" else platelet)(rng, g, ink, size), reach
