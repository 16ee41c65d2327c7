"""What callers with small keys can do to the others: each kind of attack, bounded, on this machine.

    uv run --extra all python benchmarks/hostile.py [KIND ...]
    ENCODER=hemaseek-s uv run ... : with another encoder than `colour`

Starts a real `hemaseek serve` on the loopback address with a read key and a write key, replays each
kind, and prints a table: the highest memory of the service and its children, the slowest `/health`
beside it, the answers, and whether a plain search still worked afterwards. Every loop is bounded.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from encoder.registry import load
from ingest.samples.synthetic import draw_field
from search.library.shards import Entry, make_shard_bytes, make_thumbnail
from search.schemas.items import Item, item_id
from search.security.keys import Keys
from search.settings import Settings
from ui.cli.demo import free_port
from ui.cli.serving import service_command

CARD = load(os.environ.get("ENCODER", "colour")).card
PICTURES = 300
TAKEN = 60
"""Pictures of 50 megapixels that one call may bring."""
PARALLEL = 60
FORMS = 3
CALLERS = 12
SLOW = 400


@dataclass
class Served:
    """The service under attack."""

    settings: Settings
    process: subprocess.Popen[bytes]
    read: str
    write: str
    item: str
    """A stored item that anybody may ask about."""

    def client(self, key: str, timeout: float = 300) -> httpx.Client:
        return httpx.Client(
            base_url=self.settings.url, headers={"X-API-Key": key}, timeout=timeout, trust_env=False
        )


@dataclass
class Watched:
    """Memory and `/health`, looked at several times a second while something goes on."""

    peak_mb: float = 0.0
    slowest_s: float = 0.0
    failed: int = 0


class Watch:
    """Looks at a service from a process of its own, which no work of the attack delays."""

    def __init__(self, served: Served) -> None:
        context = multiprocessing.get_context("spawn")
        self._here, there = context.Pipe()
        about = (served.settings.url, served.process.pid, there)
        self._process = context.Process(target=_watch, args=about, daemon=True)

    @contextmanager
    def running(self) -> Iterator[Watched]:
        """What was seen is there once the block has ended."""
        seen = Watched()
        self._process.start()
        self._here.recv()  # it looks
        try:
            yield seen
        finally:
            self._here.send("over")
            seen.peak_mb, seen.slowest_s, seen.failed = self._here.recv()
            self._process.join()


def _watch(url: str, pid: int, pipe: Any) -> None:
    peak, slowest, failed, over = 0.0, 0.0, 0, threading.Event()

    def memory() -> None:
        nonlocal peak
        ended = False
        while not ended:
            peak = max(peak, sum(resident_mb(one) for one in family(pid)))
            ended = over.wait(0.1)

    thread = threading.Thread(target=memory)
    thread.start()
    with httpx.Client(base_url=url, timeout=30, trust_env=False) as client:
        client.get("/health")
        pipe.send("looking")
        ended = False
        while not ended:
            ended = pipe.poll(0.25)
            began = time.monotonic()
            try:
                client.get("/health").raise_for_status()
            except httpx.HTTPError:
                failed += 1
            slowest = max(slowest, time.monotonic() - began)
    over.set()
    thread.join()
    pipe.send((peak, slowest, failed))


def family(pid: int) -> list[int]:
    """A process and all of its children."""
    found = [pid]
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):
            for child in task.read_text().split():
                found += family(int(child))
    return found


def resident_mb(pid: int) -> float:
    """Memory of a process that no other process shares and that is no cache, in MiB."""
    with suppress(OSError, StopIteration):
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        return sum(int(x.split()[1]) for x in lines if x.startswith(("RssAnon", "RssShmem"))) / 1024
    return 0.0


@contextmanager
def service(folder: Path) -> Iterator[Served]:
    """`hemaseek serve` over a few stored cells, with two keys."""
    settings = Settings(library=folder / "library", port=free_port())
    settings.library.mkdir(parents=True)
    keys = Keys(settings.library / "keys.json")
    _, read = keys.add("reader", {"*": "read"})
    _, write = keys.add("writer", {"*": "write"})
    environment = {**os.environ, "HEMASEEK_RATE_LIMIT": "", "HEMASEEK_LOG_LEVEL": "error"}
    process = subprocess.Popen(service_command(settings), env=environment)
    try:
        wait(settings)
        served = Served(settings, process, read, write, "")
        with served.client(write) as client:
            client.put("/v1/collections/cells", content=CARD.to_json()).raise_for_status()
            content, served.item = shard(30)
            client.put("/v1/collections/cells/shards", content=content).raise_for_status()
            small = form({"k": 3}, "image", [large_png(64)])  # loads the encoder, as a start does
            client.post("/v1/search", **small).raise_for_status()  # type: ignore[arg-type]
        yield served
    finally:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(30)
        process.kill()


def wait(settings: Settings) -> None:
    end = time.monotonic() + 120
    while time.monotonic() < end:
        with suppress(httpx.HTTPError):
            if httpx.get(f"{settings.url}/health", trust_env=False).status_code == 200:
                return
        time.sleep(0.2)
    raise SystemExit("the service did not start")


def shard(n: int, path: str | None = None) -> tuple[bytes, str]:
    """A shard of random vectors, and the id of its last item."""
    rng, made = np.random.default_rng(n), []
    blank = make_thumbnail(np.full((9, 9, 3), 220, np.uint8))
    for at in range(n):
        source = f"{at + 1000 * n:032x}"
        item = Item(id=item_id("h", source), dataset="h", source=source, label="LY", case="C1")
        made.append(Entry(item, rng.normal(size=CARD.dim).astype(np.float32), blank, path))
    return make_shard_bytes(made, CARD), made[-1].item.id


def large_png(side: int = 7070) -> bytes:
    """50 megapixels in a few kilobytes."""
    out = BytesIO()
    Image.new("L", (side, side), 200).save(out, "PNG", compress_level=9)
    return out.getvalue()


def form(question: dict[str, object], name: str, images: list[bytes]) -> dict[str, object]:
    files = [(name, (f"{at}.png", image, "image/png")) for at, image in enumerate(images)]
    return {"data": {"question": json.dumps(question)}, "files": files}


def many_pictures(served: Served, answers: Counter[str]) -> None:
    """300 pictures of 50 megapixels in one form, and as many as are taken, to cases and a map."""
    with served.client(served.read) as client:
        for path in ("/v1/cases/similar", "/v1/collections/cells/map/place"):
            for many in (PICTURES, TAKEN):
                images = [large_png()] * many
                answers[status(client, "POST", path, **form({}, "images", images))] += 1


def parallel_forms(served: Served, answers: Counter[str]) -> None:
    """Three callers at once, each with as many pictures of 50 megapixels as one call may bring."""
    images = [large_png()] * TAKEN

    def one(_: int) -> str:
        with served.client(served.read) as client:
            return status(client, "POST", "/v1/cases/similar", **form({}, "images", images))

    with ThreadPoolExecutor(FORMS) as pool:
        answers.update(pool.map(one, range(FORMS)))


def parallel_pictures(served: Served, answers: Counter[str]) -> None:
    """60 searches at once, each with a picture of 50 megapixels."""
    image = large_png()

    def one(_: int) -> str:
        with served.client(served.read) as client:
            return status(client, "POST", "/v1/search", **form({"k": 3}, "image", [image]))

    with ThreadPoolExecutor(PARALLEL) as pool:
        answers.update(pool.map(one, range(PARALLEL)))


def crops(served: Served, answers: Counter[str]) -> None:
    """12 searches at once, each for a box twice as wide as its picture of 50 megapixels."""
    box = {"x": -3000, "y": 0, "w": 14_000, "h": 7000}
    with served.client(served.read) as client, ThreadPoolExecutor(CALLERS) as pool:
        sent = form({"k": 3, "crop": box}, "image", [large_png()])
        asked = [pool.submit(status, client, "POST", "/v1/search", **sent) for _ in range(CALLERS)]
        answers.update(one.result() for one in asked)


def coarse_fields(served: Served, answers: Counter[str]) -> None:
    """12 fields at once at a scale at which cells are looked for in twice as many pixels."""
    out = BytesIO()
    Image.fromarray(draw_field(5, width=1000, height=1000).image).save(out, "PNG")
    with served.client(served.read) as client, ThreadPoolExecutor(CALLERS) as pool:
        sent = form({"um_per_px": 0.8}, "image", [out.getvalue()])
        asked = [pool.submit(status, client, "POST", "/v1/cells", **sent) for _ in range(CALLERS)]
        answers.update(one.result() for one in asked)


def unfolding_files(served: Served, answers: Counter[str]) -> None:
    """A small Parquet file and a small ZIP that unfold to gigabytes, as shard and as test set."""
    content = parquet_bomb()
    with served.client(served.write) as client:
        answers[status(client, "PUT", "/v1/collections/cells/shards", content=content)] += 1
        for name, body in (("set.parquet", content), ("set.zip", zip_of_pictures(64))):
            sent = {
                "data": {"plan": json.dumps({"collection": "cells"})},
                "files": {"labelled": (name, body)},
            }
            answers[status(client, "POST", "/v1/evaluations", **sent)] += 1
        end = time.monotonic() + 60
        while time.monotonic() < end and running(client):
            time.sleep(0.5)


def running(client: httpx.Client) -> bool:
    found = client.get("/v1/evaluations").json()
    rows = found if isinstance(found, list) else found.get("evaluations", [])
    return any(one.get("state") in {"queued", "running"} for one in rows)


def parquet_bomb() -> bytes:
    """100 kB that unfold to 4.5 GB: one long text, five thousand times."""
    part = pq.read_table(BytesIO(shard(1)[0]))
    part = pa.concat_tables([part] * 50)
    at = part.schema.get_field_index("path")
    part = part.set_column(at, part.schema.field(at), pa.array(["x" * 900_000] * 50))
    out = BytesIO()
    with pq.ParquetWriter(out, part.schema, compression="zstd") as writer:
        for _ in range(100):
            writer.write_table(part)
    return out.getvalue()


def zip_of_pictures(n: int) -> bytes:
    out, picture = BytesIO(), large_png()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for at in range(n):
            archive.writestr(f"set/{'LY' if at % 2 else 'MO'}/{at}.png", picture)
    return out.getvalue()


def paths(served: Served, answers: Counter[str]) -> None:
    """Shards whose paths are devices, pipes and other people's files."""
    pipe = served.settings.library.parent / "pipe"
    with suppress(FileExistsError):
        os.mkfifo(pipe)
    with served.client(served.write, 30) as client:
        for at, path in enumerate(("/dev/zero", str(pipe), "/etc/passwd", "/no/such")):
            content, id = shard(3 + at, path)
            client.put("/v1/collections/cells/shards", content=content)
            answers[status(client, "GET", f"/v1/items/{id}/image?size=full")] += 1
            source = client.get(f"/v1/items/{id}").json().get("source", "")
            answers[status(client, "GET", f"/v1/sources/{source}")] += 1


def forged_records(served: Served, answers: Counter[str]) -> None:
    """Cards, ids and questions that are no records."""
    card = json.loads(CARD.to_json())
    card.pop("fingerprint")
    changes: list[dict[str, object]] = [
        {"dim": 1.5}, {"dim": 1e30}, {"mean": [float("inf")] * 3}, {"id": "x" * 900_000},
        {"id": "a\0b"}, {"std": [0, 0, 0]}, {"input_px": -1},
    ]  # fmt: skip
    with served.client(served.write) as client:
        for at, change in enumerate(changes):
            text = json.dumps(card | change)
            answers[status(client, "PUT", f"/v1/collections/forged{at}", content=text)] += 1
        for body in ("[" * 100_000, '{"item": "' + "x" * 900_000 + '"}', '{"vector": [1e999]}'):
            answers[status(client, "POST", "/v1/search", content=body)] += 1


def slow_headers(served: Served, answers: Counter[str]) -> None:
    """400 headers that do not end, from one address."""
    opened = []
    for _ in range(SLOW):
        with suppress(OSError):
            one = socket.create_connection(("127.0.0.1", served.settings.port), 5)
            one.sendall(b"GET /v1/search HTTP/1.1\r\nhost: loc")
            opened.append(one)
    time.sleep(12)
    with suppress(OSError):
        for one in opened:
            one.setblocking(False)
            answers[_said(one)] += 1
            one.close()


def _said(one: socket.socket) -> str:
    try:
        return one.recv(64).decode(errors="replace")[9:12] or "closed"
    except BlockingIOError:
        return "still open"
    except OSError:
        return "closed"


KINDS: dict[str, Callable[[Served, Counter[str]], None]] = {
    "paths from uploads": paths,
    "forged records": forged_records,
    "many large pictures in one form": many_pictures,
    "such forms in parallel": parallel_forms,
    "large pictures in parallel": parallel_pictures,
    "boxes wider than large pictures": crops,
    "fields at a coarse scale": coarse_fields,
    "small files that unfold": unfolding_files,
    "slow headers": slow_headers,
}


def status(client: httpx.Client, method: str, path: str, **sent: object) -> str:
    """The status of an answer, or why there was none."""
    try:
        return str(client.request(method, path, **sent).status_code)  # type: ignore[arg-type]
    except httpx.HTTPError as error:
        return type(error).__name__


def main() -> None:
    """Replay the kinds and print the table."""
    wanted = [name for name in KINDS if not sys.argv[1:] or name in sys.argv[1:]]
    print("| kind | answers | highest memory, MiB | slowest /health, s | search afterwards |")
    print("|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder, service(Path(folder)) as served:
        for name in wanted:
            answers: Counter[str] = Counter()
            with Watch(served).running() as watch:
                KINDS[name](served, answers)
            with served.client(served.read, 30) as client:
                after = status(client, "POST", "/v1/search", json={"item": served.item, "k": 3})
            said = ", ".join(f"{count} x {one}" for one, count in sorted(answers.items()))
            beside = f"{watch.slowest_s:.2f}"
            if watch.failed:
                beside += f" ({watch.failed} without an answer)"
            print(f"| {name} | {said} | {watch.peak_mb:.0f} | {beside} | {after} |", flush=True)


if __name__ == "__main__":
    main()
