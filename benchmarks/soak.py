"""Half an hour of mixed requests, with an ingest and a re-index inside: what the service holds.

    uv run --extra all python benchmarks/soak.py [--minutes 30] [--rate 6] [--writes 2]

A real `hemaseek serve` over drawn cells gets searches by item, by picture and by vector, votes,
similar cases, pages, counts, thumbnails, metrics, reviews, relabelled batches, broken pictures and
refused questions, from four threads. Between 0.3 and 0.8 of the time pictures are ingested by the
command and the collection is re-indexed and pruned, as often as `--writes` says. Memory (of the
process and its children, without what is shared or cached), open files, threads and children are
looked at every ten seconds; given are the medians of the minutes 3 to 8, once all was used for the
first time, and of the last five.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import httpx

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks.fuzz_api import LABELS, Stored, png, small_library
from benchmarks.hostile import family, resident_mb
from search.settings import Settings
from ui.cli.demo import free_port, process, wait_for
from ui.cli.serving import service_command

CELLS = "/v1/collections/cells"
THREADS = 4


@dataclass
class Soak:
    """The service, what it is asked, and what was seen of it."""

    settings: Settings
    stored: Stored
    rate: float
    statuses: Counter[int] = field(default_factory=Counter)
    seen: list[tuple[float, float, int, int, int]] = field(default_factory=list)
    """Seconds, MiB, open files, threads, children."""
    before: list[float] = field(default_factory=list)
    """MiB in the minute before each ingest."""
    over: threading.Event = field(default_factory=threading.Event)

    def ask(self, seed: int) -> None:
        """Mixed requests until it is over."""
        rng = random.Random(seed)
        with httpx.Client(base_url=self.settings.url, timeout=120, trust_env=False) as client:
            while not self.over.wait(rng.uniform(0, 2 * THREADS / self.rate)):
                method, path, sent = self.one(rng)
                try:
                    self.statuses[client.request(method, path, **sent).status_code] += 1
                except httpx.TransportError:  # a connection that was closed while it was idle
                    self.statuses[0] += 1

    def one(self, rng: random.Random) -> tuple[str, str, dict[str, Any]]:
        """A request, by chance."""
        id, some = rng.choice(self.stored.ids), rng.sample(self.stored.ids, 10)
        image = png(rng.choice(list(LABELS.values())), rng.randrange(1000))
        broken = image[: rng.randrange(len(image))]
        vector = {"vector": self.stored.vector, "fingerprint": self.stored.fingerprint}
        labels = [{"item": one, "label": rng.choice(["EO", "LY"])} for one in some]
        return rng.choice(
            [
                ("POST", "/v1/search", {"json": {"item": id, "k": 5, "facets": ["label"]}}),
                ("POST", "/v1/search", {"files": {"image": image}}),
                ("POST", "/v1/search", {"files": {"image": broken}}),
                ("POST", "/v1/search", {"json": {**vector, "k": 7, "mmr": 0.5}}),
                ("POST", "/v1/search", {"json": {"item": "no id"}}),
                ("POST", "/v1/vote", {"json": {"item": id, "k": 5}}),
                ("POST", "/v1/cases/similar", {"json": {"case": f"C{rng.randrange(6)}", "k": 3}}),
                ("POST", f"{CELLS}/cases/count", {"json": {"case": "C1", "k": 3}}),
                ("POST", f"{CELLS}/items/page", {"json": {"limit": 20}}),
                ("POST", f"{CELLS}/reviews", {"json": {"reviews": labels}}),
                ("POST", f"{CELLS}/export", {"json": {"format": "geojson", "items": some}}),
                ("GET", f"/v1/items/{id}/image", {}),
                ("GET", "/v1/collections", {}),
                ("GET", "/metrics", {}),
            ]
        )

    def watch(self, pid: int) -> None:
        """Look every ten seconds."""
        began = time.monotonic()
        while not self.over.wait(10):
            here = family(pid)
            files = len(list(Path(f"/proc/{pid}/fd").iterdir()))
            threads = len(list(Path(f"/proc/{pid}/task").iterdir()))
            mib = sum(map(resident_mb, here))
            self.seen.append((time.monotonic() - began, mib, files, threads, len(here) - 1))
            print(*map(round, self.seen[-1]), file=sys.stderr, flush=True)

    def write(self, folder: Path, part: int) -> None:
        """An ingest by the command, and a re-index that then serves."""
        pictures = folder / f"lab-{part}"
        pictures.mkdir()
        for at in range(40):
            (pictures / f"{at}.png").write_bytes(png((90, 120, 180), 10_000 * part + at))
        library = ["--library", str(self.settings.library), "--collection", "cells"]
        words = ["ingest", str(pictures), "--dataset", "lab", "--encoder", "colour", "--no-find"]
        subprocess.run([sys.executable, "-m", "ui", *words, *library], check=True)
        again = httpx.HTTPTransport(retries=3, limits=httpx.Limits(max_keepalive_connections=0))
        with httpx.Client(base_url=self.settings.url, timeout=300, transport=again) as client:
            wanted = {"encoder": "colour", "force": True}
            job = client.post(f"{CELLS}/reindex", json=wanted).json()
            while job["state"] in ("queued", "running"):
                time.sleep(0.5)
                job = client.get(f"/v1/jobs/{job['id']}").json()
            assert job["state"] == "done", job["error"]
            while client.post(f"{CELLS}/prune?keep=0").status_code == 503:
                time.sleep(1)  # the version before still answers a question

    def between(self, first: float, last: float) -> tuple[float, ...]:
        """Medians of what was seen in a time."""
        rows = [row[1:] for row in self.seen if first <= row[0] <= last]
        return tuple(median(column) for column in zip(*rows, strict=True))


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--minutes", type=float, default=30)
    options.add_argument("--rate", type=float, default=6)
    options.add_argument("--writes", type=int, default=2)
    chosen = options.parse_args()
    seconds = 60 * chosen.minutes
    with tempfile.TemporaryDirectory() as name:
        settings = Settings(
            library=Path(name) / "library", port=free_port(), rate_limit="", collection="cells"
        )
        soak = Soak(settings, small_library(settings.library, 120), chosen.rate)
        with process(service_command(settings), {**os.environ, "HEMASEEK_RATE_LIMIT": ""}):
            wait_for(f"{settings.url}/health", "the service")
            pid = int(json.loads((settings.library / "service.json").read_text())["pid"])
            threads = [threading.Thread(target=soak.ask, args=(at,)) for at in range(THREADS)]
            threads.append(threading.Thread(target=soak.watch, args=(pid,)))
            began = time.monotonic()
            for thread in threads:
                thread.start()
            for part in range(chosen.writes):
                at = (0.3 + 0.5 * part / chosen.writes) * seconds
                time.sleep(max(0, began + at - time.monotonic()))
                soak.before.append(soak.between(time.monotonic() - began - 60, math.inf)[0])
                soak.write(Path(name), part)
            time.sleep(max(0, began + seconds - time.monotonic()))
            soak.over.set()
            for thread in threads:
                thread.join()
    report(soak, seconds)


def report(soak: Soak, seconds: float) -> None:
    """The figures, as a table."""
    tenth = seconds / 10
    print("| | memory, MiB | open files | threads | children |\n|---|---|---|---|---|")
    for words, first, last in (
        ("minutes 3 to 8", tenth, 2.67 * tenth),
        ("the last five minutes", seconds - 1.67 * tenth, seconds),
    ):
        print(f"| {words} | " + " | ".join(f"{x:.0f}" for x in soak.between(first, last)) + " |")
    most = [max(column) for column in zip(*(row[1:] for row in soak.seen), strict=True)]
    print("| the most | " + " | ".join(f"{x:.0f}" for x in most) + " |\n")
    said = ", ".join(f"{status}: {n:,}" for status, n in sorted(soak.statuses.items()))
    print(f"{sum(soak.statuses.values()):,} requests in {seconds / 60:.0f} minutes; {said}")
    print("MiB before each ingest:", *map(round, soak.before))
    each = [f"{row[1]:.0f}" for row in soak.seen[:: max(1, len(soak.seen) // 30)]]
    print("MiB over time:", " ".join(each))


if __name__ == "__main__":
    main()
