"""Do factors that must not decide help where blur and stain go with the class, then against it?

    python benchmarks/complexity.py [--encoder NAME] [--seeds 5] [--with-class 0.9]
        [--planted BNE MMY] [--parts]

Bags are drawn from PBC: normal white cells, and in every second bag a few that are planted (band
neutrophils, metamyelocytes). In training nine in ten bags with them are blurred and stained another
way, and one in ten without; in the test it is the other way round. Both models see the same bags:
gated attention pooling without and with `factors`. Prints how much of the confounded level the
measured factors tell (R2 of a linear fit, within a class of cells), then the AUROC of each seed,
and the paired difference with its interval; with --parts also what is left without each of the
three parts.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.stats import ttest_1samp

import train.mil.fit as fitting
from encoder.registry import default_encoder, load
from search.evaluation.ranking import ranked
from search.schemas.mil import FACTORS, MilPlan
from train.mil.factors import of_cell
from train.mil.fit import Cases, fit

POOL = {"SNE": 220, "LY": 130, "MO": 70, "BNE": 140, "MMY": 140}
NORMAL = ["SNE", "LY", "MO"]
LEVELS = (0.0, 0.35, 0.65, 1.0)
"""How strongly a bag is blurred and stained."""
BAGS, CELLS, PLANTED = 40, 24, (2, 5)
PARTS = ("factor head", "order of difficulty", "attention penalty")
MEASURED = tuple(one for one in FACTORS if one not in ("cells", "size"))


def spoilt(picture: NDArray[np.uint8], level: float) -> NDArray[np.uint8]:
    """A picture (red first), blurred and stained as strongly as `level` says."""
    if level:
        picture = cv2.GaussianBlur(picture, (0, 0), 0.3 + 3.2 * level)
    hsv = cv2.cvtColor(picture.astype(np.float32) / 255, cv2.COLOR_RGB2HSV)
    hsv[..., 0] = (hsv[..., 0] + 30 * level) % 360
    hsv[..., 1] *= 1 - 0.4 * level
    hsv[..., 2] *= 1 - 0.2 * level
    back = cv2.cvtColor(hsv.clip(0, [360, 1, 1]).astype(np.float32), cv2.COLOR_HSV2RGB)
    return np.asarray((back * 255).round(), np.uint8)


class Pool:
    """Cells of each class at every level: vectors and factors."""

    def __init__(self, data: Path, encoder: str) -> None:
        network = load(encoder)
        self.vectors: dict[str, NDArray[np.float32]] = {}
        self.factors: dict[str, NDArray[np.float64]] = {}
        for label, many in POOL.items():
            paths = sorted((data / "pbc" / "cells" / label).iterdir())[:many]
            plain = [cv2.cvtColor(cv2.imread(str(p)), cv2.COLOR_BGR2RGB) for p in paths]
            at = [[spoilt(one, level) for one in plain] for level in LEVELS]
            self.vectors[label] = np.stack([network.embed(rows) for rows in at])
            known = [[of_cell(one, None) for one in rows] for rows in at]
            self.factors[label] = np.array(
                [[[cell[name] for name in MEASURED] for cell in rows] for rows in known]
            )

    def told(self) -> dict[str, float]:
        """The R2 of the level of a cell by its factors within its class: all, and each alone."""
        factors = np.concatenate([one - one.mean(axis=(0, 1)) for one in self.factors.values()], 1)
        level = np.repeat(np.array(LEVELS) - np.mean(LEVELS), factors.shape[1])
        rows = factors.reshape(len(level), -1)
        chosen = {"all": rows} | {name: rows[:, [at]] for at, name in enumerate(MEASURED)}
        found = {}
        for name, x in chosen.items():
            left = level - x @ np.linalg.lstsq(x, level, rcond=None)[0]
            found[name] = float(1 - (left**2).sum() / (level**2).sum())
        return found

    def bags(
        self, rng: np.random.Generator, half: int, share: float, kind: str
    ) -> tuple[Cases, NDArray]:
        """Bags of one half of the cells; in `share` of them the level goes with the class."""
        labels = np.arange(BAGS) % 2
        along = np.where(rng.random(BAGS) < share, labels, 1 - labels)
        levels = np.where(along, rng.integers(2, 4, BAGS), rng.integers(0, 2, BAGS))
        vectors, factors = [], []
        for label, level in zip(labels, levels, strict=True):
            planted = int(rng.integers(*PLANTED)) if label else 0
            names = [kind] * planted + list(rng.choice(NORMAL, CELLS - planted, p=[0.6, 0.3, 0.1]))
            rows = [int(rng.integers(POOL[n] // 2)) + half * (POOL[n] // 2) for n in names]
            pairs = list(zip(names, rows, strict=True))
            vectors.append(np.stack([self.vectors[n][level, at] for n, at in pairs]))
            factors.append(np.stack([self.factors[n][level, at] for n, at in pairs]))
        return Cases(vectors, np.arange(BAGS).astype(str), labels, None, factors), levels


def auroc(cases: Cases, test: Cases, plan: MilPlan) -> float:
    """Of the mean of the networks of all folds, on the test bags."""
    made = fit(cases, plan)
    found = [np.mean([one(bag)[0] for one in made.networks], axis=0) for bag in test.bags]
    shares = np.array([one[1] - one[0] for one in found])
    return float(ranked(shares, test.labels == 1, np.ones((1, BAGS))).auroc[0])


def without(part: str, cases: Cases, test: Cases, plan: MilPlan) -> float:
    """The AUROC with one of the three parts switched off."""
    kept = fitting.PENALTY, fitting.explained, fitting.difficulty
    try:
        if part == "attention penalty":
            fitting.PENALTY = 0.0
        elif part == "factor head":
            fitting.explained = lambda means, factors, strata: np.zeros((0, means.shape[1]))
        else:
            fitting.difficulty = lambda bags: np.zeros(len(bags))
        return auroc(cases, test, plan)
    finally:
        fitting.PENALTY, fitting.explained, fitting.difficulty = kept


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--encoder", default=default_encoder())
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--with-class", type=float, default=0.9)
    parser.add_argument("--planted", nargs="+", default=["BNE", "MMY"])
    parser.add_argument("--parts", action="store_true")
    given = parser.parse_args()
    pool = Pool(Path(os.environ.get("HEMASEEK_DATA", "../shared/data")), given.encoder)
    print("R2 of the level:", ", ".join(f"{n} {v:.2f}" for n, v in pool.told().items()), flush=True)
    for kind in given.planted:
        compare(pool, kind, given.seeds, given.with_class, PARTS if given.parts else ())


def compare(pool: Pool, kind: str, seeds: int, share: float, parts: Sequence[str]) -> None:
    """The table of one kind of planted cells."""
    print(f"\n{kind}\n| seed | plain | with factors |" + "".join(f" without {p} |" for p in parts))
    print("|---" * (3 + len(parts)) + "|")
    rows = []
    for seed in range(seeds):
        rng = np.random.default_rng(seed)
        cases, _ = pool.bags(rng, 0, share, kind)
        test, _ = pool.bags(rng, 1, 1 - share, kind)
        plain = Cases(cases.bags, cases.patients, cases.labels)
        plan = MilPlan(folds=3, epochs=40, seed=seed)
        row = [auroc(plain, test, plan), auroc(cases, test, plan)]
        row += [without(part, cases, test, plan) for part in parts]
        rows.append(row)
        print(f"| {seed} | " + " | ".join(f"{one:.3f}" for one in row) + " |", flush=True)
    table = np.array(rows)
    print("| mean | " + " | ".join(f"{one:.3f}" for one in table.mean(axis=0)) + " |")
    gain = table[:, 1] - table[:, 0]
    test = ttest_1samp(gain, 0)
    low, high = test.confidence_interval(0.95)
    print(f"paired gain {gain.mean():.3f} [{low:.3f}, {high:.3f}], p {test.pvalue:.3f}", flush=True)


if __name__ == "__main__":
    main()
