"""How white cells and platelets are drawn: cytoplasm, granules, and a nucleus over them."""

from __future__ import annotations

import numpy as np

from ingest.samples.drawing import (
    EDGE,
    Drawn,
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
)

Lobes = list[tuple[Point, Point, float]]


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
