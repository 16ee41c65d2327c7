"""The route that trains case models; handed to the service from above it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import Annotated, Any

from fastapi import Body, Response

from search.api.access import Writes, api_router
from search.api.problems import Expected
from search.api.routes.versions import STARTED, started
from search.errors import StoreError
from search.library.jobs import Run
from search.schemas.mil import MilPlan
from search.schemas.versions import JobRecord

router = api_router()


class NeedsTorch(StoreError):
    """Training where torch is not installed."""

    def __init__(self) -> None:
        super().__init__(
            "training a case model needs torch, which is not installed here: run "
            "`uv sync --extra torch`; models that are trained already answer without it"
        )


PROBLEMS: Sequence[Expected] = ((NeedsTorch, 503, "Torch is not installed"),)
"""What this route raises, for the service's table of refusals."""


@router.post("/collections/{name}/mil/models", **STARTED)
def train_model(
    name: str,
    access: Writes,
    response: Response,
    plan: Annotated[MilPlan, Body(examples=[{"pooling": "clam_sb", "name": "marrow"}])],
) -> JobRecord:
    """Train a case model on the labelled cases of a collection; a job whose result is its card.

    Each patient is held out of one network; probabilities, scores and the point from which the
    model is not sure come from what was held out.
    """
    if find_spec("torch") is None:
        raise NeedsTorch
    called = access.context(name).collection.name  # the job opens its own when it begins

    def work(run: Run) -> Mapping[str, Any]:
        from train.mil.run import train

        trained = train(access.context(called).collection, plan, run.checked_progress)
        return access.models.keep(trained).model_dump(mode="json")

    return started(access, "mil", called, work, response)
