"""A running job with its progress and a button to cancel it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import streamlit as st

from search.client.client import Client
from search.client.transport import ServiceDown, ServiceError
from search.schemas.evaluations import EvaluationRecord
from search.schemas.versions import JobRecord
from ui.look import states

ENDED = {"done", "failed", "stopped", "interrupted"}
SECONDS = 1.0


def follow(
    client: Client,
    key: str,
    words: str,
    ended: Callable[[Any], None],
    ask: Callable[[str], JobRecord | EvaluationRecord] | None = None,
    stop: Callable[[str], object] | None = None,
) -> bool:
    """Draw the progress of the job whose id the session keeps under `key`.

    Args:
        client: Of the service.
        key: In the session; taken out when the job has ended.
        words: What is done, for instance "Computing the map".
        ended: Callback with the job, once it has ended; the page is then drawn again.
        ask: Returns its `state`, `done`, `total` and `error`; default: `client.job`.
        stop: Cancels it; default: `client.stop_job`.

    Returns:
        Whether there is such a job.
    """
    id = st.session_state.get(key)
    if not id:
        return False

    @st.fragment(run_every=SECONDS)
    def bar() -> None:
        try:
            job = (ask or client.job)(str(id))
        except (ServiceDown, ServiceError) as error:
            st.html(states.notes([f"The state of the job is unknown: {error}"], "bad"))
            return
        if job.state in ENDED:
            st.session_state.pop(key, None)
            ended(job)
            st.rerun(scope="app")
        share = job.done / job.total if job.total else 0.0
        waiting = job.state == "queued"
        text = "waiting for other jobs" if waiting else f"{job.done:,} of {job.total:,}"
        if not waiting and not job.total:
            text = "started"
        with st.container(horizontal=True, vertical_alignment="center", key=f"hs-job-{key}"):
            st.progress(min(share, 1.0), text=f"{words}: {text}")
            if st.button("Cancel", key=f"{key}-stop"):
                (stop or client.stop_job)(str(id))

    bar()
    return True


def outcome(job: JobRecord | EvaluationRecord) -> tuple[str, str]:
    """The message of a job that has ended, and its tone (`good`, `warn`, `bad`)."""
    if job.state == "done":
        return "", "good"
    if job.state == "stopped":
        return "Cancelled; nothing was changed.", "warn"
    why = job.error or "the service stopped first"
    return f"It failed: {why}", "bad"
