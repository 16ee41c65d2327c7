"""What the shipped encoder is held to, and the card that says how it did."""

from __future__ import annotations

import json
import platform
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from encoder.contract import Encoder
from encoder.features.measured import CARD as MEASURED
from encoder.image import resize
from search.evaluation import splits
from search.evaluation.metrics import METRICS
from search.neighbours import exact
from search.votes.knn import votes
from train.data import datasets
from train.data.datasets import Labelled
from train.evaluation.confusions import commonest, sheets
from train.evaluation.robustness import SHIFTS, SLIGHT, robustness
from train.evaluation.run import EvaluateConfig, evaluate, make_folds
from train.evaluation.vectors import vectors_of
from train.shipped.axes import POWER
from train.shipped.data import held_out
from train.shipped.recipes import RECIPES

if TYPE_CHECKING:
    from train.shipped.config import DefaultConfig

Say = Callable[[str], None]
RAW_PX = 32
"""Side of the pictures whose pixels are the vector of `raw pixels`."""


def raw_pixels(labelled: Labelled, px: int = RAW_PX) -> NDArray[np.float32]:
    """The pixels of every picture at `px`, less the mean picture of the cells that teach.

    Without taking off the mean, all cosines are near 1 and the scores some ten points lower.
    """
    rows = np.stack([resize(image, px, "bilinear").ravel() for image in labelled.images()])
    pixels = rows.astype(np.float32) / 255
    return np.asarray(pixels - pixels[~held_out(labelled)].mean(axis=0), np.float32)


def quarter(labelled: Labelled) -> list[splits.Fold]:
    """The held-out quarter asks, the three quarters teach."""
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

    own = registry.load(str(folder), device="auto")
    colour = registry.load("colour")
    measured = registry.load("measured")
    cache = config.work / "vectors"
    record: dict[str, Any] = {
        "encoder": own.card.id,
        "fingerprint": own.card.fingerprint,
        "recipe": config.recipe,
        "external": config.external,
        "training": _training(config),
        "machine": machine(),
        "sets": {},
    }
    pbc = datasets.pbc(config.root / "pbc")
    record["sets"]["pbc, held-out quarter"] = {
        "unit": pbc.unit,
        "asked": int(held_out(pbc).sum()),
        "taught": int((~held_out(pbc)).sum()),
        "encoders": {
            "raw pixels": scored(raw_pixels(pbc), pbc, quarter(pbc), probe=False),
            "colour": scored(vectors_of(colour, pbc, cache), pbc, quarter(pbc)),
            "measured": scored(vectors_of(measured, pbc, cache), pbc, quarter(pbc)),
            own.card.id: scored(vectors_of(own, pbc, cache), pbc, quarter(pbc)),
        },
    }
    say(table(record["sets"]["pbc, held-out quarter"]))
    record["robustness"] = {
        encoder.card.id: _robust(encoder, pbc, cache, say) for encoder in (colour, own)
    }
    record["confusions"] = confusions(own, pbc, cache, config.reports / config.recipe)
    for name in config.also:
        labelled = datasets.read(name, config.root)
        split, folds = make_folds(labelled, EvaluateConfig())
        record["sets"][f"{labelled.name}, {split}"] = {
            "unit": labelled.unit,
            "asked": len(labelled),
            "encoders": {
                encoder.card.id: scored(vectors_of(encoder, labelled, cache), labelled, folds)
                for encoder in (colour, measured, own)
            },
        }
        say(table(record["sets"][f"{labelled.name}, {split}"]))
    return record


def _robust(encoder: Encoder, pbc: Labelled, cache: Path, say: Say) -> list[dict[str, Any]]:
    (fold,) = quarter(pbc)
    return [
        asdict(loss)
        for loss in robustness(
            encoder, pbc, vectors_of(encoder, pbc, cache), fold.train, fold.test,
            shifts=(*SHIFTS, *SLIGHT), progress=lambda name: say(f"{encoder.card.id}: {name}"),
        )
    ]  # fmt: skip


def confusions(
    encoder: Encoder, pbc: Labelled, cache: Path, pictures: Path, k: int = 20
) -> list[dict[str, Any]]:
    """The commonest errors of the 20-NN vote; their pictures go to a folder that git ignores."""
    (fold,) = quarter(pbc)
    vectors = vectors_of(encoder, pbc, cache)
    names, truth = np.unique(pbc.labels, return_inverse=True)
    near, near_scores = exact.search(vectors[fold.test], vectors[fold.train], k)
    said = votes(truth[fold.train][near], near_scores, len(names), "uniform").first
    kinds = commonest(truth[fold.test], said, names.tolist())
    sheets(pictures, pbc, fold.test, names[said], fold.train[near[:, :6]], kinds)
    return [{**asdict(kind), "words": kind.words()} for kind in kinds]


def _training(config: DefaultConfig) -> dict[str, Any]:
    spent = config.run_folder / "seconds.json"
    log = config.run_folder / "log.jsonl"
    lines = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    steps = [line for line in lines if line["kind"] == "step"]
    return {
        "settings": json.loads((config.run_folder / "config.json").read_text()),
        "seconds": sum(json.loads(spent.read_text())) if spent.exists() else None,
        "run": next((line for line in lines if line["kind"] == "run"), None),
        "first": steps[0] if steps else None,
        "last": steps[-1] if steps else None,
    }


def machine() -> dict[str, Any]:
    """What this runs on."""
    import os

    import torch

    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    names = [
        line.partition(":")[2].strip()
        for line in _lines(Path("/proc/cpuinfo"))
        if line.startswith("model name")
    ]
    return {
        "gpu": gpu,
        "cpu": names[0] if names else platform.processor(),
        "cores": os.cpu_count(),
        "torch": torch.__version__,
    }


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines() if path.exists() else []


def of_method(rows: list[dict[str, Any]], method: str) -> dict[str, Any]:
    """The row of `1-NN`, `20-NN` or `linear probe`."""
    return next(row for row in rows if row["method"] == method)


def beats_colour(record: Mapping[str, Any]) -> bool:
    """Whether the encoder is above the colour histogram in both scores of the 20-NN vote."""
    encoders = record["sets"]["pbc, held-out quarter"]["encoders"]
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


def write_json(path: Path, record: Mapping[str, Any]) -> None:
    """Whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(path.name + ".part")
    draft.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    draft.replace(path)


SOURCES = """\
- PBC, three quarters of 12,141 crops (CC BY 4.0; Acevedo et al. 2020, doi 10.17632/snkd93bnjr)
- Chula RBC-12, 8,542 red-cell crops (MIT; Naruenatthanaset et al., arXiv 2012.01321)
- BCCD, 4,886 boxed cells (MIT; shenggan/BCCD_Dataset)
- Aslan, 2,339 boxed cells (MIT; draaslan/blood-cell-detection-dataset)
"""
LIMITS = """\
- Trained on some 25,000 small images, most from one laboratory and one analyser. Other stains,
  scanners and magnifications are outside of what it has seen.
- The figures are image-level: no set names patients, so none of them shows how it does on cells
  of a patient it has not seen. The held-out quarter comes from the laboratory that was trained on.
- Chula, BCCD and Aslan cells were seen in training, without their labels; LC25000 was not.
- Neighbours are similar pictures. They are no finding about a patient. Research use only.
"""


def model_card(
    config: DefaultConfig, record: Mapping[str, Any], external: Mapping[str, Any] | None = None
) -> str:
    """The text of MODEL.md.

    Args:
        config: Of the run.
        record: Of the encoder (`evaluate_all`).
        external: Of the same recipe without any image of PBC; `None` if that was not run.
    """
    training, there = record["training"], record["machine"]
    first = training["run"] or {}
    robust = [
        f"| {own['shift']} | {own['lost']['weighted_f1']:.1f} / "
        f"{own['lost']['balanced_accuracy']:.1f} | {floor['lost']['weighted_f1']:.1f} / "
        f"{floor['lost']['balanced_accuracy']:.1f} |"
        for own, floor in zip(
            record["robustness"][record["encoder"]], record["robustness"]["colour"], strict=True
        )
    ]
    flag = " --external" if config.external else ""
    parts = [
        f"# {record['encoder']}",
        f"Fingerprint `{record['fingerprint']}`. Licence of the weights: Apache-2.0.",
        "## Trained on",
        "Images without labels. A quarter of PBC, each class in proportion and near-duplicates "
        "together, was held out and never seen.",
        SOURCES.strip(),
        "## How",
        f"`python -m train.shipped.run --recipe {config.recipe}{flag}`: {_seconds(training)} on "
        f"{there['gpu'] or there['cpu']} ({there['cores']} cores, torch {there['torch']}), "
        f"{first.get('parameters', 0):,} parameters. Settings:",
        "```json\n" + json.dumps(_settings(training["settings"]), indent=1) + "\n```",
        "## Figures",
        "Weighted F1 / balanced accuracy in percent.",
        *(
            f"**{name}** ({entry['asked']} cells asked; unit: {entry['unit']})\n\n{table(entry)}"
            for name, entry in record["sets"].items()
        ),
        *(
            [
                "Beside the network's vector stand measured numbers of the same image "
                "(`encoder.features.joint`), on axes fitted without labels to the largest set "
                "trained on: "
                f"{MEASURED.dim} numbers, each divided by its spread to the power {POWER}, of "
                f"{beside} times the network's length. Figures are of both together; `measured` "
                "is the second half alone."
            ]
            if (beside := RECIPES[config.recipe].beside)
            else []
        ),
        "### The same recipe without any image of PBC (external protocol)",
        "Not run." if external is None else _external(external),
        "### Stain shift of the queries: points lost at 20-NN, wF1 / bAcc",
        "\n".join([f"| shift | {record['encoder']} | colour |", "|---|---|---|", *robust]),
        "### Commonest confusions at 20-NN on the held-out quarter",
        "\n".join(f"- {kind['words']}" for kind in record["confusions"]),
        "## Limits",
        "\n".join([*costly(record["robustness"][record["encoder"]]), LIMITS.strip()]),
    ]
    return "\n\n".join(parts) + "\n"


def costly(losses: list[dict[str, Any]], points: float = 3.0) -> list[str]:
    """A line for each shift of stain that costs more points of weighted F1 than it may."""
    return [
        f"- Queries of {one['shift']} lose {one['lost']['weighted_f1']:.1f} points of weighted F1: "
        "do not compare images that differ so."
        for one in losses
        if one["lost"]["weighted_f1"] > points
    ]


def _external(record: Mapping[str, Any]) -> str:
    name = "pbc, held-out quarter"
    spent = _seconds(record["training"])
    return (
        f"Trained for {spent} on the other sets, which decided the measured axes too; asked about "
        "PBC. No image of PBC is in it; the recipe, with the weights of the measured groups, "
        "was chosen by labels of PBC's training cells all the same. `measured` is the one that "
        f"ships, whose axes PBC decided.\n\n{table(record['sets'][name])}"
    )


def _seconds(training: Mapping[str, Any]) -> str:
    spent = training["seconds"]
    return "time not noted" if spent is None else f"{spent:,.0f} s"


def _settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """What decided the weights: without folders and what belongs to the machine."""
    from train.config import RUNTIME

    return {k: v for k, v in settings.items() if k not in RUNTIME | {"data", "probe"}}
