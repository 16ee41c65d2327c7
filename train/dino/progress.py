"""What a run says while it runs: a log of JSON lines, TensorBoard events, and time left."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any

LOG = "log.jsonl"


class Progress:
    """The log of one run; only the first process writes."""

    def __init__(
        self,
        folder: Path,
        step: int,
        total: int,
        *,
        writes: bool = True,
        tensorboard: bool = False,
        say: Callable[[str], None] | None = None,
    ) -> None:
        self.path = folder / LOG
        self.total = total
        self.writes = writes
        self.say = say if say and writes else lambda text: None
        self._mark = (perf_counter(), step, 0, 0.0)
        self._events: Any = None
        if writes:
            truncate(self.path, step)
            if tensorboard:
                from torch.utils.tensorboard import SummaryWriter

                self._events = SummaryWriter(str(folder / "tensorboard"), purge_step=step or None)

    def write(self, kind: str, step: int, **values: Any) -> None:
        """One line: its kind, the step it belongs to, and numbers or texts."""
        if not self.writes:
            return
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"kind": kind, "step": step, **values}) + "\n")
        if self._events:
            for name, value in values.items():
                if isinstance(value, int | float):
                    self._events.add_scalar(f"{kind}/{name}", value, step)

    def rate(self, step: int, images: int, waited: float) -> dict[str, float]:
        """Images per second, share of time waiting for data, and minutes left, since the last call.

        Args:
            step: Steps done.
            images: Images drawn by this run of the process so far.
            waited: Seconds spent waiting for data so far.
        """
        now = perf_counter()
        then, step_then, images_then, waited_then = self._mark
        spent = max(now - then, 1e-9)
        self._mark = (now, step, images, waited)
        steps = max(step - step_then, 1)
        return {
            "images_per_s": round((images - images_then) / spent, 2),
            "data_share": round((waited - waited_then) / spent, 4),
            "minutes_left": round((self.total - step) * spent / steps / 60, 2),
        }

    def close(self) -> None:
        """Finish the events file."""
        if self._events:
            self._events.close()


def truncate(path: Path, step: int) -> None:
    """Drop what was logged after the checkpoint that the run goes on from."""
    if not path.exists():
        return
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            break  # cut short by a kill
        if row["step"] <= step and (step or row["kind"] == "run"):
            kept.append(line)
    path.write_text("".join(line + "\n" for line in kept), encoding="utf-8")


def read_log(folder: Path, kind: str | None = None) -> list[dict[str, Any]]:
    """The lines of a run's log, all or of one kind."""
    lines = (folder / LOG).read_text(encoding="utf-8").splitlines()
    rows: list[dict[str, Any]] = [json.loads(line) for line in lines]
    return [row for row in rows if kind is None or row["kind"] == kind]
