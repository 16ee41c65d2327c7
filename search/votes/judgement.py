"""Whether a vote is shown as a label: sure, not sure, or out of distribution, and why."""

from __future__ import annotations

from dataclasses import dataclass

from search.schemas.answers import Answer, CalibrationState, LineageSpread, State, Vote, VoteAnswer
from search.schemas.calibration import Calibration, CalibrationFit
from search.schemas.questions import RELATIONS, Question, Refinement, Weighting
from search.text import count
from search.votes.calibration import kth_distance
from search.votes.knn import vote
from search.votes.lineage import spread

CLEAR_MARGIN = 0.2
"""A vote whose first two labels are closer than this is not shown as one label."""
FEW_VOTERS = 3
"""Fewer labelled neighbours than this say nothing."""
DANGEROUS_SHARE = 0.1
"""A label is not shown while this much of the vote would take a blast for a mature cell or the
reverse."""
CIRCULAR = (
    "No vote: the neighbours were chosen by their label, so that a vote would only repeat the "
    "filter. Remove the label filter to see one."
)
LIKELY = 0.5
"""A label with a calibrated probability below this is not shown."""


@dataclass(frozen=True)
class Foreign:
    """How foreign a query is to the collection that it is compared with."""

    residual: float
    """`search.votes.familiarity.Familiar.residual` of its vector."""
    far: float
    """Residual beyond which it is out of distribution."""


def judge(
    found: Vote,
    fit: CalibrationFit | None = None,
    answer: Answer | None = None,
    lineage: LineageSpread | None = None,
    foreign: Foreign | None = None,
    *,
    choice: bool = True,
) -> tuple[State, str, float | None]:
    """Whether a vote is clear enough to be shown as one label, why, and its probability.

    Args:
        found: The vote.
        fit: Of the collection's calibration, where it fits the question.
        answer: The neighbours that voted.
        lineage: The vote along maturation.
        foreign: How foreign the query is; where that is unknown, the distance of its last
            neighbour is held to the calibration's.
        choice: Whether items of another label could have voted.
    """
    if answer is not None and answer.unfit:
        return "not sure", f"Not sure: {' '.join(answer.unfit)}", None
    if (far := _far(fit, answer, foreign)) is not None:
        return "out of distribution", f"Out of distribution: {far}", None
    if found.label is None:
        why = "no neighbour carries a label" if found.unlabelled else "no neighbour was found"
        return "not sure", f"Not sure: {why}.", None
    if not choice:
        words = f"everything that could vote is labelled {found.label}"
        return "not sure", f"Not sure: {words}, so that the vote had no choice.", None
    probability = fit.curve.at(list(found.shares.values())) if fit else None
    reason = _doubt(found, probability, lineage)
    if reason is not None:
        return "not sure", f"Not sure: {reason}", probability
    share = found.shares[found.label]
    reason = f"{share:.0%} of the weight of {found.voters} labelled neighbours."
    if probability is not None:
        reason += f" Votes like this one were right {probability:.0%} of the time in this library."
    return "sure", reason, probability


def _far(fit: CalibrationFit | None, answer: Answer | None, foreign: Foreign | None) -> str | None:
    if foreign is not None:
        if foreign.residual <= foreign.far:
            return None
        return (
            f"it lies {foreign.residual / max(foreign.far, 1e-9):.1f} times as far from this "
            "collection as 99 % of its own items do, so that a vote says nothing."
        )
    if fit is None or answer is None or not answer.hits:
        return None
    distance = kth_distance(answer.hits)
    if distance <= fit.far:
        return None
    return (
        f"its neighbour number {len(answer.hits)} is farther ({distance:.3f}) than is usual "
        f"among the library's own items ({fit.far:.3f})."
    )


def _doubt(found: Vote, probability: float | None, lineage: LineageSpread | None) -> str | None:
    if found.voters < FEW_VOTERS:
        return f"only {count(found.voters, 'labelled neighbour')}."
    if found.margin < CLEAR_MARGIN:
        first, second = list(found.shares)[:2]
        return f"{first} and {second} are close ({found.margin:.0%} apart)."
    if lineage is not None and lineage.dangerous >= DANGEROUS_SHARE:
        return (
            f"{lineage.dangerous:.0%} of the weight lies between a blast and a mature cell, "
            "which must not be confused."
        )
    if probability is not None and probability < LIKELY:
        return f"votes like this one were right only {probability:.0%} of the time."
    return None


def judged(
    question: Question,
    answer: Answer,
    weighting: Weighting,
    temperature: float,
    calibration: Calibration | None,
    holds: CalibrationState,
    *,
    foreign: Foreign | None = None,
    choice: bool = True,
) -> VoteAnswer:
    """The vote of the neighbours in an answer, with all that is needed to trust it or not.

    `holds` says whether the calibration does, as far as that needs no look at the question.
    There is no vote where the question filters by label: it could only say the filter again.
    """
    ks = () if calibration is None else tuple(fit.k for fit in calibration.fits)
    if question.where.label or question.not_these.label:
        return VoteAnswer(
            vote=Vote(label=None, shares={}, voters=0, unlabelled=0, margin=0.0),
            sure=False,
            reason=CIRCULAR,
            answer=answer,
            calibration="other question",
            calibrated_ks=ks,
        )
    found = vote(answer.hits, weighting, temperature)
    state_of, fit = applicable(question, weighting, temperature, calibration, holds)
    if fit is not None and answer.in_sample:  # it was fitted on votes that held their query out
        state_of, fit = "other question", None
    lineage = spread(found)
    state, reason, probability = judge(found, fit, answer, lineage, foreign, choice=choice)
    return VoteAnswer(
        vote=found,
        sure=state == "sure",
        reason=reason,
        answer=answer,
        state=state,
        probability=probability,
        calibration=state_of,
        calibrated_ks=ks,
        lineage=lineage,
        residual=None if foreign is None else foreign.residual,
        far=None if foreign is None else foreign.far,
    )


def applicable(
    question: Question,
    weighting: Weighting,
    temperature: float,
    calibration: Calibration | None,
    holds: CalibrationState,
) -> tuple[CalibrationState, CalibrationFit | None]:
    """What of a calibration applies to a query: it was fitted for votes without a filter that
    exclude every relation, with one weighting and a few k."""
    if calibration is None or holds != "applied":
        return holds, None
    plan, fit = calibration.plan, calibration.fit(question.k)
    plain = (
        question.where.empty
        and question.not_these.empty
        and set(RELATIONS) == set(question.exclude)
        and (question.group_by, question.mmr, question.balance) == (None, None, None)
        and question.fuse_with is None
        and not (
            isinstance(question, Refinement)
            and (question.like or question.unlike or question.region)
        )
    )
    same = weighting == plan.weighting and (
        weighting != "softmax" or temperature == plan.temperature
    )
    if fit is None or not plain or not same:
        return "other question", None
    return "applied", fit
