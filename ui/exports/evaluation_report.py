"""An evaluation and a calibration as Markdown, with their curves as SVG."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ui.look.curves import as_file, chart
from ui.look.tables import count

if TYPE_CHECKING:
    from search.schemas.calibration import Calibration, CoveragePoint, ReliabilityBin
    from search.schemas.evaluations import EvaluationResult, MethodResult, Scores


def write_report(
    path: Path, result: EvaluationResult, calibration: Calibration | None, commands: Sequence[str]
) -> list[Path]:
    """Write a report, and its curves beside it.

    Args:
        path: Ends in `.md`; the curves are `NAME-reliability.svg` and `NAME-abstention.svg`.
        result: Of an evaluation.
        calibration: Of the same collection, where there is one.
        commands: What made the figures.

    Returns:
        The files that were written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    files = {path: markdown(result, calibration, commands, path.stem)}
    for name, drawing in drawings(result, calibration).items():
        files[path.with_name(f"{path.stem}-{name}.svg")] = drawing
    for file, text in files.items():
        file.write_text(text, encoding="utf-8")
    return list(files)


def markdown(
    result: EvaluationResult,
    calibration: Calibration | None,
    commands: Sequence[str],
    stem: str,
) -> str:
    """The report; figures in per cent, intervals in brackets."""
    data, split = result.data, result.split
    best = headline(result)
    parts = [
        f"# Evaluation of `{data.collection}` as it is served",
        "Made through the running API by:",
        "\n".join(f"    {command}" for command in commands),
        f"Encoder `{result.encoder.id}` (`{result.encoder.fingerprint}`), {data.used:,} labelled "
        f"items of {len(result.labels)} classes, {data.asked:,} queries; {split.words}, exact "
        f"neighbours, own patient, case and source left out. Confidence intervals: 95 % bootstrap "
        f"over {result.clusters:,} {_units(result.unit)}. Data `{data.digest}`, seed {split.seed}, "
        f"code {result.code.version} `{result.code.digest}`.",
        "\n".join(f"- {note}" for note in _notes(result)),
        "## Scores",
        _scores(result),
        _folds(result),
        f"AUROC, AUPRC: mean over the classes, each against the rest. mAP: mean average precision "
        f"of the neighbours. A tied vote is no answer and counts as wrong; {best.method} had "
        f"{best.tied}. Probe: {split.probe or 'not fitted'}.",
        f"## Classes ({best.method})",
        _classes(best),
        f"Worst class: **{best.worst}**. Blasts taken for mature cells, or the reverse: "
        f"{best.dangerous}.",
        f"## Confusion ({best.method})",
        _confusion(result, best),
        "Rows: recorded label; columns: prediction.",
    ]
    if result.index is not None:
        parts += ["## Through the index", _index(result)]
    if result.bias is not None:
        parts += ["## Sites", _bias(result)]
    parts += _calibration(calibration, stem) if calibration else [_curves(stem, best)]
    return "\n\n".join(part for part in parts if part) + "\n"


def headline(result: EvaluationResult) -> MethodResult:
    """The best of the neighbours by weighted F1; the probe where there are no neighbours."""
    some = [one for one in result.methods if one.k is not None] or list(result.methods)
    return max(some, key=lambda one: one.scores.weighted_f1)


def drawings(result: EvaluationResult, calibration: Calibration | None) -> dict[str, str]:
    """Reliability and abstention as SVG, by name."""
    if calibration is None:
        best = headline(result)
        return {
            "reliability": reliability_svg({f"share, {best.method}": best.reliability}),
            "abstention": abstention_svg({f"by margin, {best.method}": best.by_margin}),
        }
    fit = calibration.fits[-1]
    return {
        "reliability": reliability_svg(
            {
                f"share of the vote, k = {fit.k}": fit.reliability_before,
                f"calibrated, k = {fit.k}": fit.reliability,
            }
        ),
        "abstention": abstention_svg(
            {
                "by margin": fit.by_margin,
                "by probability": fit.by_probability,
                "by distance": fit.by_distance,
            }
        ),
    }


def reliability_svg(curves: dict[str, Sequence[ReliabilityBin]]) -> str:
    """Accuracy against probability; the diagonal is perfect."""
    lines = {name: [(b.probability, b.accuracy) for b in bins] for name, bins in curves.items()}
    return as_file(chart(lines, "predicted probability", "share correct", diagonal=True))


def abstention_svg(curves: dict[str, Sequence[CoveragePoint]]) -> str:
    """Accuracy of the votes that are answered, against the share that is answered."""
    lines = {
        name: sorted((p.coverage, p.accuracy) for p in points) for name, points in curves.items()
    }
    least = min((y for line in lines.values() for _, y in line), default=0.0)
    low = max(0.0, int(least * 10 - 0.5) / 10)
    return as_file(chart(lines, "share answered", "share correct", low=low))


def _table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(str(cell) for cell in line)} |" for line in lines)


def _share(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f}"


def _scores(result: EvaluationResult) -> str:
    names = {
        "weighted_f1": "wF1",
        "balanced_accuracy": "bAcc",
        "macro_f1": "macro F1",
        "auroc": "AUROC",
        "auprc": "AUPRC",
        "map_at_k": "mAP@k",
    }
    rows = []
    for one in result.methods:
        cells = [one.method]
        for name in names:
            span = one.intervals.get(name)
            ends = f" [{_share(span.low)}, {_share(span.high)}]" if span else ""
            cells.append(_share(getattr(one.scores, name)) + ends)
        rows.append(cells)
    return _table(["", *names.values()], rows)


def _folds(result: EvaluationResult) -> str:
    """Mean and standard deviation over the folds, as the papers print them; empty without."""
    rows = [
        [one.method, *(f"{_share(mean)} ± {_share(sd)}" for mean, sd in spread.values())]
        for one in result.methods
        if len(one.per_fold) > 1 and (spread := one.over_folds())
    ]
    if not rows:
        return ""
    folds = max(len(one.per_fold) for one in result.methods)
    heads = [f"mean ± sd over {folds} folds", "wF1", "bAcc", "Acc", "macro F1"]
    return _table(heads, rows)


def _classes(one: MethodResult) -> str:
    rows = []
    for c in one.classes:
        span = c.recall_span
        ends = f" [{_share(span.low)}, {_share(span.high)}]" if span else ""
        rows.append(
            [
                c.label,
                c.asked,
                _share(c.precision),
                _share(c.recall) + ends,
                _share(c.f1),
                _share(c.auroc),
                _share(c.auprc),
            ]
        )
    return _table(["class", "queries", "precision", "recall", "F1", "AUROC", "AUPRC"], rows)


def _confusion(result: EvaluationResult, one: MethodResult) -> str:
    unanswered = any(one.confusion.unanswered)
    rows: list[list[object]] = [
        [f"**{label}**", *(n or "·" for n in row), *([none] if unanswered else [])]
        for label, row, none in zip(
            result.labels, one.confusion.matrix, one.confusion.unanswered, strict=True
        )
    ]
    return _table(["", *result.labels, *(["no answer"] if unanswered else [])], rows)


def _index(result: EvaluationResult) -> str:
    index = result.index
    if index is None:
        return ""
    rows = [
        [
            one.k,
            f"{one.recall:.4f}",
            f"{one.agree:.4f}",
            _pair(one.exact),
            _pair(one.index),
        ]
        for one in index.by_k
    ]
    head = ["k", "recall@k", "same vote", "exact wF1 / bAcc", "index wF1 / bAcc"]
    return f"{count(index.asked, 'query', 'queries')}, {index.rule}.\n\n{_table(head, rows)}"


def _pair(scores: Scores) -> str:
    return f"{_share(scores.weighted_f1)} / {_share(scores.balanced_accuracy)}"


def _bias(result: EvaluationResult) -> str:
    bias = result.bias
    if bias is None:
        return ""
    robust = "–" if bias.robustness is None else f"{bias.robustness:.3f}"
    return (
        f"{bias.sites} sites: {_share(bias.own_site)} % of {bias.k} neighbours are of the own "
        f"site, {_share(bias.expected)} % were to be expected. Robustness index {robust}: 1 where "
        "only biology counts, 0 where only the site does."
    )


def _calibration(calibration: Calibration, stem: str) -> list[str]:
    rows = [
        [
            fit.k,
            f"{fit.votes:,}",
            _share(fit.accuracy),
            f"{fit.ece_before:.3f}",
            f"{fit.ece:.3f}",
            f"{fit.far:.3f}",
        ]
        for fit in calibration.fits
    ]
    fit = calibration.fits[-1]
    points = [
        [_share(p.coverage), _share(p.accuracy), f"{p.threshold:.2f}"]
        for p in fit.by_margin
        if p.coverage > 0
    ]
    return [
        "## Calibration",
        f"{calibration.sampled:,} of {calibration.labelled:,} labelled items as queries, own "
        f"{_unit(calibration.unit)} left out; probabilities are of held-out folds.",
        _table(["k", "votes", "correct, %", "ECE of the share", "ECE calibrated", "far"], rows),
        f"Farther than *far* (1 - cosine of the k-th neighbour) is out of distribution.\n\n"
        f"![Reliability]({stem}-reliability.svg)",
        "## Abstention",
        f"Accuracy where only votes above a margin are answered, k = {fit.k}:",
        _table(["answered, %", "correct, %", "margin at least"], points),
        f"![Abstention]({stem}-abstention.svg)",
    ]


def _curves(stem: str, best: MethodResult) -> str:
    words = f"Shares of {best.method}, not calibrated: ECE {best.ece:.3f}."
    if not stem:
        return words
    return (
        f"## Curves\n\n{words}\n\n"
        f"![Reliability]({stem}-reliability.svg) ![Abstention]({stem}-abstention.svg)"
    )


def _notes(result: EvaluationResult) -> list[str]:
    found = list(result.notes)
    for one in result.methods:
        found += [f"{one.method}: {note}" for note in one.notes]
    return found


def _unit(unit: str) -> str:
    return {"mixed": "patient, or source where no patient is known,"}.get(unit, unit)


def _units(unit: str) -> str:
    return {"mixed": "patients and sources"}.get(unit, f"{unit}s")
