"""How red cells are drawn: a profile of thickness, times the density of haemoglobin."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ingest.samples.drawing import (
    EDGE,
    Drawn,
    Grid,
    Ink,
    Plane,
    cover,
    far,
    joined,
    noise,
    outline,
    turned,
)


@dataclass(frozen=True)
class Build:
    """What varies between the patients, beside the stain."""

    diameter: float
    """Of a red cell, in micrometres."""
    variation: float
    """Relative spread of the red cells' diameters."""
    pallor: float
    """How much paler the middle of a red cell is, 0 to 1."""


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
