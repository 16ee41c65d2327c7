"""Routes that calibrate votes."""

from __future__ import annotations

from typing import Annotated

from fastapi import Body

from search.api.access import Reads, Writes, api_router
from search.schemas.calibration import CalibrationFacts, CalibrationPlan

router = api_router()


@router.post("/collections/{name}/calibration")
def calibrate(
    name: str,
    access: Writes,
    plan: Annotated[
        CalibrationPlan, Body(examples=[{"ks": [5, 10, 20], "weighting": "similarity"}])
    ] = CalibrationPlan(),  # noqa: B008 - frozen
) -> CalibrationFacts:
    """Fit the calibration of votes on the collection itself, own patients excluded."""
    return CalibrationFacts(stale=False, calibration=access.context(name).calibrate(plan))


@router.get("/collections/{name}/calibration")
def calibration(name: str, access: Reads) -> CalibrationFacts:
    """The calibration of a collection: curves, errors, and whether it is still valid."""
    fitted, stale = access.context(name).fitted()
    return CalibrationFacts(stale=stale, calibration=fitted)
