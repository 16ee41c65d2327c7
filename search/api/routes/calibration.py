"""Routes that calibrate votes."""

from __future__ import annotations

from typing import Annotated

from fastapi import Body

from search.api.access import Reads, Writes, api_router
from search.schemas.calibration import Calibration, CalibrationPlan
from search.schemas.items import Record

router = api_router()


class CalibrationFacts(Record):
    """The calibration of a collection, and whether it still holds."""

    stale: bool
    """Whether the collection has changed since; it is then not applied to votes."""
    calibration: Calibration


@router.post("/collections/{name}/calibration")
def calibrate(
    name: str,
    service: Writes,
    plan: Annotated[
        CalibrationPlan, Body(examples=[{"ks": [5, 10, 20], "weighting": "similarity"}])
    ] = CalibrationPlan(),  # noqa: B008 - frozen
) -> CalibrationFacts:
    """Fit the calibration of votes on the collection itself, own patients left out."""
    return CalibrationFacts(stale=False, calibration=service.calibrate(plan, name))


@router.get("/collections/{name}/calibration")
def calibration(name: str, service: Reads) -> CalibrationFacts:
    """The calibration of a collection: curves, errors, and whether it still holds."""
    fitted, stale = service.calibration(name)
    return CalibrationFacts(stale=stale, calibration=fitted)
