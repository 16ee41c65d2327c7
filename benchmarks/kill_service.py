"""The service killed (SIGKILL) while it is written to, and started again: nothing is lost.

    uv run --extra all python benchmarks/kill_service.py [CYCLES] [SEED] [SECONDS]

A real `hemaseek serve` takes shards from four writers over HTTP, one of them sending again what
was taken before, and is killed at a random moment. After each start every point that was ever
acknowledged must be there, with the metadata it was acknowledged with; no id twice, none that
was never sent; the vectors must find themselves; and the audit log must verify.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

import httpx
import numpy as np

from encoder.registry import load
from search.library.shards import Entry, make_shard_bytes, make_thumbnail, payload_digest
from search.schemas.items import Item, item_id
from search.security.audit import verify
from search.settings import Settings
from ui.cli.demo import free_port
from ui.cli.serving import service_command

CARD = load("colour").card
BLANK = make_thumbnail(np.full((8, 8, 3), 230, np.uint8))
ROWS = 40
WRITERS = 4
START_S = 900
"""Patience with a start, and with any answer: other work may have the machine."""


@dataclass
class Ledger:
    """What the writers know."""

    sent: dict[str, str] = field(default_factory=dict)
    """Digest by id, of everything that left a writer."""
    acknowledged: dict[str, str] = field(default_factory=dict)
    kept: list[bytes] = field(default_factory=list)
    """Shards that were acknowledged, to be sent again."""
    kills: int = 0
    lost: int = 0
    duplicates: int = 0
    phantoms: int = 0
    wrong: int = 0
    torn: int = 0
    """Cycles in which the kill fell into a write: the writer got no answer."""
    lock: threading.Lock = field(default_factory=threading.Lock)


def shard(number: int, dim: int) -> tuple[bytes, dict[str, str]]:
    """A shard of random unit vectors, and the digests of its items."""
    rng, entries = np.random.default_rng(number), []
    for row in range(ROWS):
        source = sha256(f"{number}/{row}".encode()).hexdigest()[:32]
        item = Item(
            id=item_id("kill", source), dataset="kill", source=source, patient=f"P{number % 9}"
        )
        entries.append(Entry(item, rng.normal(size=dim).astype(np.float32), BLANK))
    content = make_shard_bytes(entries, CARD)
    return content, {entry.item.id: payload_digest(entry.item) for entry in entries}


def start(settings: Settings) -> subprocess.Popen[bytes]:
    """The service, once it answers."""
    environment = {**os.environ, "HEMASEEK_RATE_LIMIT": ""}
    process = subprocess.Popen(service_command(settings), env=environment)
    end = time.monotonic() + START_S
    with httpx.Client(base_url=settings.url, timeout=START_S) as client:  # one for each try costs
        while time.monotonic() < end:
            try:
                if client.get("/health").is_success:
                    return process
            except httpx.HTTPError:
                time.sleep(0.05)
            if process.poll() is not None:
                break
    process.kill()
    raise RuntimeError(f"the service did not start again: exit code {process.poll()}")


def write_until_killed(
    url: str, ledger: Ledger, numbers: range, again: bool, rng: random.Random, cut: list[int]
) -> None:
    """Send shards until nobody answers; what is acknowledged goes into the ledger."""
    with httpx.Client(base_url=url, timeout=START_S) as client:
        for number in numbers:
            repeat = again and ledger.kept and rng.random() < 0.7
            content, digests = (rng.choice(ledger.kept), {}) if repeat else shard(number, CARD.dim)
            with ledger.lock:
                ledger.sent.update(digests)
            try:
                answer = client.put("/v1/collections/cells/shards", content=content)
            except httpx.HTTPError:
                cut.append(number)
                return
            assert answer.status_code == 200, answer.text
            with ledger.lock:
                ledger.acknowledged.update(digests)
                if digests:
                    ledger.kept.append(content)


def check(url: str, ledger: Ledger) -> None:
    """Compare what is served with the ledger."""
    with httpx.Client(base_url=url, timeout=START_S) as client:
        known: dict[str, str] = {}
        ids = list(ledger.sent)
        for at in range(0, len(ids), 5000):
            body = {"ids": ids[at : at + 5000]}
            known |= client.post("/v1/collections/cells/known", json=body).json()["known"]
        count = client.get("/v1/collections").json()[0]["items"]
        ledger.lost += len(set(ledger.acknowledged) - set(known))
        ledger.wrong += sum(known[id] != ledger.sent[id] for id in known)
        ledger.duplicates += max(0, count - len(known))
        ledger.phantoms += max(0, len(known) - count)  # catalogued, but not in the index
        for id in random.Random(len(ids)).sample(sorted(known), min(5, len(known))):
            asked = {"item": id, "k": 1, "exclude": [], "exact": True}
            (hit,) = client.post("/v1/search", json=asked).json()["hits"]
            ledger.wrong += hit["item"]["id"] != id or hit["score"] < 0.9999


def cycles(folder: Path, count: int, seed: int, seconds: float = 1e9) -> Ledger:
    """Write, kill, start, check; as often as asked, or until the time is over."""
    rng, ledger = random.Random(seed), Ledger()
    settings = Settings(library=folder / "library", port=free_port())
    process = start(settings)
    made = httpx.put(
        f"{settings.url}/v1/collections/cells", content=CARD.to_json(), timeout=START_S
    )
    assert made.is_success, made.text
    try:
        end = time.monotonic() + seconds
        for cycle in range(count):
            if time.monotonic() > end:
                break
            cut: list[int] = []
            threads = [
                threading.Thread(
                    target=write_until_killed,
                    args=(
                        settings.url,
                        ledger,
                        range((cycle * WRITERS + writer) * 10_000, 1 << 60),
                        writer == 0,
                        random.Random(rng.random()),
                        cut,
                    ),
                )
                for writer in range(WRITERS)
            ]
            for thread in threads:
                thread.start()
            time.sleep(rng.uniform(0.05, 4))
            process.send_signal(signal.SIGKILL)
            process.wait()
            for thread in threads:
                thread.join()
            ledger.torn += bool(cut)
            ledger.kills += 1
            process = start(settings)
            check(settings.url, ledger)
            if cycle % 10 == 9:
                print(f"{cycle + 1} kills, lost {ledger.lost}", file=sys.stderr, flush=True)
    finally:
        process.terminate()
        process.wait(30)
    verify(settings.library / "audit")
    return ledger


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else 0
    seconds = float(sys.argv[3]) if len(sys.argv) > 3 else 1e9
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        told = cycles(Path(folder), count, seed, seconds)
    print("| kills | in a write | acknowledged points | lost | duplicates | phantoms | wrong | s |")
    print("|---|---|---|---|---|---|---|---|")
    print(
        f"| {told.kills} | {told.torn} | {len(told.acknowledged):,} | **{told.lost}** "
        f"| **{told.duplicates}** | **{told.phantoms}** | **{told.wrong}** "
        f"| {time.perf_counter() - started:.0f} |"
    )


if __name__ == "__main__":
    main()
