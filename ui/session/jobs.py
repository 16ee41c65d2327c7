"""A job under way, drawn as it goes on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import streamlit as st

from search.client.client import Client
from search.client.transport import ServiceDown, ServiceError
from ui.look import states

ENDED = {"done", "failed", "stopped", "interrupted"}
SECONDS = 1.0


def follow(
    client: Client,
    key: str,
    words: str,
    ended: Callable[[dict[str, Any]], None],
    ask: Callable[[str], dict[str, Any]] | None = None,
    stop: Callable[[str], object] | None = None,
) -> bool:
    """Draw the job whose id the session keeps under `key`, until it has ended.

    Args:
        client: Who is asked.
        key: In the session; taken out when the job has ended.
        words: What is done, for instance "Computing the map".
        ended: Told of the job once, when it has ended; the page is then drawn anew.
        ask: How it stands (`state`, `done`, `total`, `error`), where it is no plain job.
        stop: Ends it, where it is no plain job.

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
            st.html(states.notes([f"The job cannot be asked for: {error}"], "bad"))
            return
        if job["state"] in ENDED:
            st.session_state.pop(key, None)
            ended(job)
            st.rerun(scope="app")
        share = job["done"] / job["total"] if job["total"] else 0.0
        waiting = job["state"] == "queued"
        said = "waiting for other jobs" if waiting else f"{job['done']:,} of {job['total']:,}"
        if not waiting and not job["total"]:
            said = "begun"
        with st.container(horizontal=True, vertical_alignment="center"):
            st.progress(min(share, 1.0), text=f"{words}: {said}")
            if st.button("Stop", key=f"{key}-stop"):
                (stop or client.stop_job)(str(id))

    bar()
    return True


def told(job: dict[str, Any]) -> tuple[str, str]:
    """What to say of a job that has ended, and in which tone."""
    if job["state"] == "done":
        return "", "good"
    if job["state"] == "stopped":
        return "It was stopped; nothing was changed.", "warn"
    why = job["error"] or "the service ended before it did"
    return f"It did not come to its end: {why}", "bad"
