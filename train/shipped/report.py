"""What the shipped encoder is held to, and the card that says how it did."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from encoder.contract import RGB, Encoder
from encoder.image import read_rgb, resize
from search.evaluation import splits
from search.evaluation.metrics import METRICS
from search.neighbours import exact
from search.votes.knn import nearest_label, votes
from train.data import datasets
from train.data.datasets import Labelled
from train.evaluation.confusions import commonest, sheets
from train.evaluation.robustness import SHIFTS, SLIGHT, robustness
from train.evaluation.run import EvaluateConfig, evaluate
from train.evaluation.vectors import vectors_of
from train.shipped.abroad import Side, abroad, sites, zooms
from train.shipped.config import DefaultConfig
from train.shipped.data import held_out

Say = Callable[[str], None]
RAW_PX = 32
"""Side of the pictures whose pixels are the vector of `raw pixels`."""
HOME = "pbc, held-out quarter"


def raw_pixels(labelled: Labelled) -> NDArray[np.float32]:
    """The pixels of every picture at `RAW_PX`, less the mean picture of the training cells.

    Without taking off the mean, all cosines are near 1 and the scores some ten points lower.
    """
    rows = np.stack([resize(image, RAW_PX, "bilinear").ravel() for image in labelled.images()])
    pixels = rows.astype(np.float32) / 255
    return np.asarray(pixels - pixels[~held_out(labelled)].mean(axis=0), np.float32)


def quarter(labelled: Labelled) -> list[splits.Fold]:
    """Queries from the held-out quarter, references from the other three."""
    return splits.fixed(held_out(labelled), labelled.groups)


def scored(
    vectors: NDArray[np.float32],
    labelled: Labelled,
    folds: list[splits.Fold],
    *,
    probe: bool = True,
) -> list[dict[str, Any]]:
    """1-NN, 20-NN and linear probe: the mean of the folds, and intervals by the set's unit."""
    results = evaluate(vectors, labelled, folds, EvaluateConfig(probe=probe))
    return [
        {
            "method": one.method,
            **one.mean,
            "interval": one.intervals["balanced_accuracy"],
            "recall": one.recall,
            "notes": one.notes,
        }
        for one in results
    ]


def evaluate_all(config: DefaultConfig, folder: Path, say: Say) -> dict[str, Any]:
    """Everything that the card reports about the encoder in a folder."""
    from encoder import registry

    own, colour = registry.load(str(folder)), registry.load("colour")
    cache = config.work / "vectors"
    pbc = datasets.pbc(config.root / "pbc")
    record: dict[str, Any] = {
        "encoder": own.card.id,
        "fingerprint": own.card.fingerprint,
        "recipe": config.recipe,
        "training": training(config),
        "machine": machine(),
        "sets": {
            HOME: {
                "unit": pbc.unit,
                "queries": int(held_out(pbc).sum()),
                "references": int((~held_out(pbc)).sum()),
                "encoders": {
                    "raw pixels": scored(raw_pixels(pbc), pbc, quarter(pbc), probe=False),
                    "colour": scored(vectors_of(colour, pbc, cache), pbc, quarter(pbc)),
                    own.card.id: scored(vectors_of(own, pbc, cache), pbc, quarter(pbc)),
                },
            }
        },
    }
    say(table(record["sets"][HOME]))
    record["abroad"] = laboratories(config, own, cache)
    record["abroad of colour"] = laboratories(config, colour, cache)
    say(elsewhere(record))
    record["codecs"] = codecs(own, pbc, cache)
    (fold,) = quarter(pbc)
    train = pbc.take(fold.train, "train"), vectors_of(own, pbc, cache)[fold.train]
    record["zooms"] = zooms(own, pbc, fold.test[::4], train)
    record["robustness"] = {
        encoder.card.id: _robust(encoder, pbc, cache, say) for encoder in (colour, own)
    }
    record["confusions"] = confusions(own, pbc, cache, config.reports / config.recipe)
    return record


def laboratories(config: DefaultConfig, encoder: Encoder, cache: Path) -> dict[str, Any]:
    """Each laboratory that was not learned from, against PBC and BMC; and who chooses neighbours.

    BMC gives queries where the run left it out, else references.
    """
    pbc, bmc, bccd, attri = (
        datasets.read(name, config.root) for name in ("pbc", "bmc", "bccd", "attri")
    )
    train = np.flatnonzero(~held_out(pbc))
    home: Side = (pbc.take(train, "train"), vectors_of(encoder, pbc, cache)[train])
    marrow, smears, leukemia = (
        (one, vectors_of(encoder, one, cache)) for one in (bmc, bccd, attri)
    )
    left_out = "bmc" not in config.sets
    index = [home] if left_out else [home, marrow]
    found = {
        "bccd": abroad(smears, index),
        "bccd, index PBC alone": abroad(smears, [home]),
        "attri, patient 27": abroad(leukemia, index),
    }
    if left_out:
        found["bmc"] = abroad(marrow, index)
    return {**found, "sites": sites([home, marrow, smears])}


def codecs(encoder: Encoder, pbc: Labelled, cache: Path) -> dict[str, dict[str, float]]:
    """Points of 20-NN lost where queries went through JPEG of quality 50, or through none.

    For none the queries are the untouched originals of held-out cells, as the published set has
    them, beside the same cells as they are packed here.
    """
    (fold,) = quarter(pbc)
    vectors = vectors_of(encoder, pbc, cache)
    names, truth = np.unique(pbc.labels, return_inverse=True)
    train, known = vectors[fold.train], truth[fold.train]

    def right(queries: NDArray[np.float32], rows: Sequence[int] | NDArray[np.intp]) -> float:
        return float((nearest_label(queries, train, known, len(names)) == truth[rows]).mean())

    rows = fold.test[::3]
    poor = encoder.embed([_jpeg(image, 50) for image in pbc.images(rows)])
    found = {
        "quality 50": {
            "cells": len(rows),
            "lost": 100 * (right(vectors[rows], rows) - right(poor, rows)),
        }
    }
    originals = {
        row: path
        for row in fold.test.tolist()
        if (path := _original(pbc.paths[row])) and path.is_file()
    }
    if originals:
        rows_of_originals = np.array(list(originals))
        clean = encoder.embed([read_rgb(path) for path in originals.values()])
        lost = 100 * (
            right(vectors[rows_of_originals], rows_of_originals) - right(clean, rows_of_originals)
        )
        found["originals, not recompressed"] = {"cells": len(rows_of_originals), "lost": lost}
    return found


def _original(path: Path) -> Path:
    return path.parents[2] / "originals" / path.parent.name / path.name


def _jpeg(image: RGB, quality: int) -> RGB:
    from PIL import Image

    buffer = BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=quality)
    return read_rgb(buffer.getvalue())


def _robust(encoder: Encoder, pbc: Labelled, cache: Path, say: Say) -> list[dict[str, Any]]:
    (fold,) = quarter(pbc)
    return [
        asdict(loss)
        for loss in robustness(
            encoder, pbc, vectors_of(encoder, pbc, cache), fold.train, fold.test[::3],
            shifts=(*SHIFTS, *SLIGHT), progress=lambda name: say(f"{encoder.card.id}: {name}"),
        )
    ]  # fmt: skip


def confusions(
    encoder: Encoder, pbc: Labelled, cache: Path, pictures: Path
) -> list[dict[str, Any]]:
    """The commonest errors of the 20-NN vote; their pictures go to a folder that git ignores."""
    (fold,) = quarter(pbc)
    vectors = vectors_of(encoder, pbc, cache)
    names, truth = np.unique(pbc.labels, return_inverse=True)
    near, near_scores = exact.search(vectors[fold.test], vectors[fold.train], 20)
    predicted = votes(truth[fold.train][near], near_scores, len(names), "uniform").first
    kinds = commonest(truth[fold.test], predicted, names.tolist())
    sheets(pictures, pbc, fold.test, names[predicted], fold.train[near[:, :6]], kinds)
    return [{**asdict(kind), "words": kind.words()} for kind in kinds]


def training(config: DefaultConfig) -> dict[str, Any]:
    """What the run's log says."""
    log = config.run_folder / "log.jsonl"
    lines = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    return {
        "settings": next((line["recipe"] for line in lines if "recipe" in line), None),
        "sets": next((line["sets"] for line in lines if "sets" in line), None),
        "steps": max((line["step"] for line in lines), default=0),
        "seconds": max((line["seconds"] for line in lines), default=None),
        "notes": [line["note"] for line in lines if "note" in line],
    }


def machine() -> dict[str, Any]:
    """What this runs on."""
    import torch

    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    facts = Path("/proc/cpuinfo")
    lines = facts.read_text(encoding="utf-8").splitlines() if facts.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "gpu": gpu,
        "cpu": names[0] if names else platform.processor(),
        "cores": os.cpu_count(),
        "torch": torch.__version__,
    }


def of_method(rows: list[dict[str, Any]], method: str) -> dict[str, Any]:
    """The row of `1-NN`, `20-NN` or `linear probe`."""
    return next(row for row in rows if row["method"] == method)


def beats_colour(record: Mapping[str, Any]) -> bool:
    """Whether the encoder is above the colour histogram in both scores of the 20-NN vote."""
    encoders = record["sets"][HOME]["encoders"]
    own = of_method(encoders[record["encoder"]], "20-NN")
    floor = of_method(encoders["colour"], "20-NN")
    return all(own[name] > floor[name] for name in ("weighted_f1", "balanced_accuracy"))


def table(entry: Mapping[str, Any]) -> str:
    """One set as a Markdown table: weighted F1 / balanced accuracy in percent."""
    methods = ("1-NN", "20-NN", "linear probe")
    lines = [
        "| | " + " | ".join(f"{m} wF1 / bAcc" for m in methods) + " |",
        "|---|" + "---|" * len(methods),
    ]
    for id, rows in entry["encoders"].items():
        cells = []
        for method in methods:
            row = next((row for row in rows if row["method"] == method), None)
            f1, balanced = METRICS[0], METRICS[1]
            cells.append(f"{100 * row[f1]:.1f} / {100 * row[balanced]:.1f}" if row else "–")
        lines.append(f"| {id} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def elsewhere(record: Mapping[str, Any]) -> str:
    """The laboratories that were not learned from, as a Markdown table with intervals."""
    lines = [
        "| queries | cells | wF1 (95 %) | bAcc (95 %) | recall of each type (cells) | `colour` |",
        "|---|---|---|---|---|---|",
    ]
    for name, found in record["abroad"].items():
        if name == "sites":
            continue
        both = [_with_interval(found, metric) for metric in METRICS[:2]]
        recall = ", ".join(f"{k} {100 * s:.0f} ({n})" for k, (s, n) in found["recall"].items())
        floor = record["abroad of colour"][name]
        pair = " / ".join(f"{100 * floor[metric]:.1f}" for metric in METRICS[:2])
        cells = (name, str(found["queries"]), *both, recall, pair)
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _with_interval(found: Mapping[str, Any], metric: str) -> str:
    interval = found["intervals"][metric]
    low, high = 100 * interval["low"], 100 * interval["high"]
    return f"{100 * found[metric]:.1f} ({low:.0f} to {high:.0f})"
