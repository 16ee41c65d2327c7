"""Damaged slides, smear fields and images through the whole product: an ingest and a service.

    python benchmarks/mutants_ingest.py [--count 3000] [--portion 500]

The mutants of `benchmarks/mutants.py`, with drawn smear fields among the images, are ingested as
a lab would do it, folder after folder into one collection, while the service that owns the
library runs in a process of its own; every picture among them is also sent to it as a question,
and every fifth as a field. Every file must end done or quarantined with a reason; neither the run
nor the service may die, and at the end the index must equal the shards.
"""

from __future__ import annotations

import argparse
import io
import json
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import httpx
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks.mutants import KINDS, bases, mutant
from ingest.pipeline.ledger import Ledger, ledger_path
from ingest.samples.synthetic import draw_field
from search.library.library import Library
from search.maintenance.reconcile import reconcile
from search.settings import Settings
from ui.cli.demo import free_port
from ui.cli.ingesting import Request, perform

PICTURES = (".png", ".jpg", ".bmp", ".webp")
START_S = 300.0


@dataclass
class Outcome:
    """How it went."""

    ended: Counter[tuple[str, str]] = field(default_factory=Counter)
    """By kind of mutation and end."""
    reasons: Counter[str] = field(default_factory=Counter)
    """Numbers blanked."""
    answers: Counter[str] = field(default_factory=Counter)
    """Of the service, by route and status."""
    items: int = 0
    run_mib: float = 0.0
    """Largest resident size of the process that ingests."""
    child_mib: float = 0.0
    """Largest of any reader."""
    service_mib: float = 0.0
    again: str = ""
    """What the last folder gave when it was ingested once more."""
    equal: bool = False
    """Whether the index equals the shards afterwards."""
    seconds: float = 0.0

    @property
    def total(self) -> int:
        """Mutants that ended."""
        return sum(self.ended.values())

    def of(self, end: str) -> int:
        """Mutants with one end."""
        return sum(count for (_, how), count in self.ended.items() if how == end)


def fields(files: dict[str, bytes]) -> dict[str, bytes]:
    """Healthy files with smear fields for pictures, each with cells to be found in it."""
    smear = Image.fromarray(draw_field(5, width=420, height=420).image)
    out = {}
    for suffix, content in files.items():
        if suffix in (".png", ".jpg"):
            held = io.BytesIO()
            smear.save(held, "PNG" if suffix == ".png" else "JPEG")
            content = held.getvalue()
        out[suffix] = content
    return out


def run(count: int, portion: int, tell: Callable[[str], None] = lambda line: None) -> Outcome:
    """Ingest `count` mutants, and tell how they ended."""
    outcome, began = Outcome(), time.perf_counter()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "bases").mkdir()
        files = fields(bases(folder / "bases"))
        settings = Settings(
            library=folder / "library",
            encoder="colour",
            port=free_port(),
            rate_limit="",
            _env_file=None,
        )
        perform(Request(paths=[_healthy(folder, files)], dataset="mutants"), settings)
        service = _serve(settings)
        try:
            for first in range(0, count, portion):
                lab = folder / f"lab-{first}"
                last = min(first + portion, count)
                _portion(lab, range(first, last), files, settings, outcome)
                tell(f"{outcome.total} ended after {time.perf_counter() - began:.0f} s")
                if service.poll() is not None:
                    raise AssertionError(f"the service died with status {service.returncode}")
                if last == count:
                    outcome.again = str(perform(_request(lab), settings).report)
                for path in lab.iterdir():
                    path.unlink()
            outcome.service_mib = _peak_mib(service.pid)
        finally:
            service.terminate()
            service.wait()
        with Library.open(settings.library).collection("cells") as held:
            found = reconcile(held, mend=False)
            outcome.equal, outcome.items = found.equal, held.store.count()
    outcome.run_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    outcome.child_mib = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    outcome.seconds = time.perf_counter() - began
    return outcome


def _request(lab: Path) -> Request:
    return Request(paths=[lab], dataset="mutants", tile_px=64, layout="mixed")


def _healthy(folder: Path, files: dict[str, bytes]) -> str:
    (folder / "healthy").mkdir()
    path = folder / "healthy" / "0.svs"
    path.write_bytes(files[".svs"])
    return str(path)


def _serve(settings: Settings) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "ui", "serve", "--library", str(settings.library)]
    service = subprocess.Popen([*command, "--port", str(settings.port)])
    end = time.monotonic() + START_S
    while time.monotonic() < end and service.poll() is None:
        try:
            httpx.get(f"{settings.url}/v1/collections", timeout=5).raise_for_status()
        except httpx.HTTPError:
            time.sleep(0.5)
        else:
            return service
    service.kill()
    raise AssertionError(f"the service did not start within {START_S:g} s")


def _portion(
    lab: Path, numbers: range, files: dict[str, bytes], settings: Settings, outcome: Outcome
) -> None:
    lab.mkdir()
    kinds: dict[str, str] = {}
    for number in numbers:
        kind, suffix, data = mutant(number, files)
        path = lab / f"{number}{suffix}"
        path.write_bytes(data)
        kinds[str(path.resolve())] = kind
    perform(_request(lab), settings)
    with Ledger(ledger_path(settings.library), "cells") as ledger:
        rows = {row.path: row for row in ledger.rows()}
    for path, kind in kinds.items():
        row = rows.get(path)
        end = "missing" if row is None else row.state
        if row is not None and row.state == "quarantined":
            if not row.reason:
                raise AssertionError(f"{path} was quarantined without a reason")
            end = "its reader died" if row.reason.startswith("the reader") else "quarantined"
            outcome.reasons[re.sub(r"\d[\d,]*", "N", row.reason)] += 1
        outcome.ended[kind, end] += 1
    with httpx.Client(base_url=settings.url, timeout=300) as client:
        for path in map(Path, kinds):
            if path.suffix in PICTURES or path.name.endswith(".plain.tif"):
                _ask(client, path, outcome)


def _ask(client: httpx.Client, path: Path, outcome: Outcome) -> None:
    fifth = int(path.name.split(".")[0]) % 5 == 0
    for route in ["/v1/search", *["/v1/cells"] * fifth]:
        answer = client.post(route, files={"image": (path.name, path.read_bytes())})
        outcome.answers[f"{route} {answer.status_code}"] += 1
        if answer.status_code >= 500:
            raise AssertionError(f"{route} answered {answer.status_code} to {path.name}")
        if answer.status_code >= 400 and not json.loads(answer.content).get("detail"):
            raise AssertionError(f"{route} refused {path.name} without a word")


def _peak_mib(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--count", type=int, default=3000)
    options.add_argument("--portion", type=int, default=500)
    chosen = options.parse_args()
    outcome = run(chosen.count, chosen.portion, lambda line: print(line, file=sys.stderr))
    print(
        f"{outcome.total:,} mutants, {outcome.items:,} items stored, {outcome.seconds:.0f} s; the "
        "run and the service never died.\nLargest resident sizes: the run "
        f"{outcome.run_mib:,.0f} MiB, a reader {outcome.child_mib:,.0f} MiB, the service "
        f"{outcome.service_mib:,.0f} MiB. Index equal to shards: {outcome.equal}."
    )
    print(f"The last folder again: {outcome.again}.\n")
    ends = ("done", "quarantined", "its reader died", "pending", "missing")
    print("| mutation | " + " | ".join(ends) + " |\n|---" + "|---" * len(ends) + "|")
    for kind in KINDS:
        print(f"| {kind} | " + " | ".join(str(outcome.ended[kind, end]) for end in ends) + " |")
    print("| all | " + " | ".join(str(outcome.of(end)) for end in ends) + " |\n")
    print("service:", ", ".join(f"{how}: {n}" for how, n in sorted(outcome.answers.items())), "\n")
    for reason, times in outcome.reasons.most_common():
        print(f"- {times}: {reason}")


if __name__ == "__main__":
    main()
