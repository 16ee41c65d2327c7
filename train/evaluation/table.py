"""An evaluation as Markdown, in the shape of the papers' tables."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import Any

SHOWN = ("weighted_f1", "balanced_accuracy", "accuracy")
"""The papers' columns, in their order."""
SURE = {"weighted_f1": "wF1", "balanced_accuracy": "bAcc", "macro_f1": "macro F1"}
"""What is shown with an interval."""


def markdown(entry: dict[str, Any]) -> str:
    """One set of `train.evaluation.run.run`'s record: fold means, then pooled scores with
    intervals.

    Whatever limits the scores is listed below the tables: the unit, missing patients, what was
    left out, classes without a training cell, fits that did not converge.
    """
    encoders = entry["encoders"]
    methods = [result["method"] for result in encoders[0]["results"]]
    title = f"{entry['data']}: {entry['n']} cells, {entry['classes']} classes, {entry['split']}"
    means = _table(
        ["encoder", *(f"{method} wF1 / bAcc / Acc" for method in methods)],
        [
            *([one["id"], *(_mean(result) for result in one["results"])] for one in encoders),
            *improvements(encoders),
        ],
    )
    pooled = _table(
        ["encoder", *(f"{method} {' / '.join(SURE.values())}" for method in methods)],
        [[one["id"], *(_pooled(result) for result in one["results"])] for one in encoders],
    )
    parts = [
        f"### {title}",
        means,
        "Mean ± standard deviation over the folds, in per cent.",
        pooled,
        f"All answers together, in per cent, with 95 % bootstrap intervals over "
        f"{entry['clusters']} units ({entry['unit']}).",
        "\n".join(f"- {note}" for note in notes(entry)),
    ]
    return "\n\n".join(part for part in parts if part)


def improvements(encoders: Sequence[dict[str, Any]]) -> list[list[str]]:
    """RedDino's last two rows, in points: our best less the others' best, and mean less mean.

    Args:
        encoders: Of one set's record; those marked `ours` are compared with all the others.

    Returns:
        No row where none is marked.
    """
    sides = [[one for one in encoders if one.get("ours", False) == mine] for mine in (True, False)]
    if not all(sides):
        return []
    rows = []
    for title, over in (("Improvement", max), ("Avg improvement", fmean)):
        cells = [title]
        for at in range(len(encoders[0]["results"])):
            gains = []
            for name in SHOWN:
                ours, others = (
                    over([one["results"][at]["mean"][name] for one in side]) for side in sides
                )
                gains.append(f"{100 * (ours - others):+.1f}")
            cells.append(" / ".join(gains))
        rows.append(cells)
    return rows


def notes(entry: dict[str, Any]) -> list[str]:
    """What a reader of the tables must know."""
    found = []
    if not entry["patients"]:
        found.append(
            f"no patient ids: the intervals are by {entry['unit']}, may be too narrow, "
            "and nothing here is a patient-level score"
        )
    found += entry["notes"]
    for one in entry["encoders"]:
        for result in one["results"]:
            found += [f"{one['id']}, {result['method']}: {note}" for note in result["notes"]]
            if without := result.get("answerable"):
                both, part = (100 * s["balanced_accuracy"] for s in (result["pooled"], without))
                found.append(
                    f"{one['id']}, {result['method']}: bAcc {both:.1f} with, {part:.1f} without "
                    "the cells whose class has no training cell in their fold"
                )
        for name, title in (("abmil", "ABMIL"), ("abmil_gated", "gated ABMIL")):
            if one.get(name):
                means = _mean(one[name])
                found.append(f"{one['id']}, {title} by patient, wF1 / bAcc / Acc: {means}")
    return found


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _mean(result: dict[str, Any]) -> str:
    mean, sd = result["mean"], result["sd"]
    return " / ".join(f"{100 * mean[name]:.1f} ± {100 * sd[name]:.1f}" for name in SHOWN)


def _pooled(result: dict[str, Any]) -> str:
    shown = []
    for name in SURE:
        low, high = (100 * result["intervals"][name][end] for end in ("low", "high"))
        shown.append(f"{100 * result['pooled'][name]:.1f} [{low:.1f}, {high:.1f}]")
    return " / ".join(shown)
