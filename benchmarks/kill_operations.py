"""`kill -9` in the middle of every operation that writes: nothing acknowledged is lost.

    uv run --extra all python benchmarks/kill_operations.py [CYCLES] [SEED] [SECONDS]
    LATE=1 uv run ... : re-index, adapt and switch alone, killed in their last steps

Each cycle starts the real command `hemaseek serve` (in a forked process, so that it need not import
everything again), compares everything that it serves with what was ever acknowledged, begins one
operation - shards, ingest, re-index, adapt, switch, snapshot, restore, calibrate, build, prune,
removal, selection, case model - beside a writer of reviews, case records and relabelled batches
of ten, and kills the service, the command, or both, at a random moment. What was under way may be
there or not, but whole; what was acknowledged must be there. The index must equal the shards, and
nothing may lie about that a finished run would not leave.
"""

from __future__ import annotations

import importlib
import json
import os
import random
import shutil
import signal
import sys
import tarfile
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from PIL import Image

from encoder.registry import load
from search.library.shards import Entry, make_shard_bytes, make_thumbnail, payload_digest
from search.library.versions import Versions
from search.maintenance.snapshots import verify as verify_snapshot
from search.mil.models import CARD as MODEL_CARD
from search.schemas.items import Item, item_id, source_id
from search.security.audit import verify
from search.settings import Settings
from ui.cli import serving
from ui.cli.demo import free_port
from ui.cli.main import app

CARD = load("colour").card
SITES, PATIENTS, START = 3, 12, 330
MOST = 420
"""Items above which some are removed."""
TEN = 10
LONGEST_S = 45.0
"""A kill comes at the latest after so long."""
USUAL_S = {"adapt": 10.0, "model": 5.0, "switch": 5.0, "reindex": 4.0, "ingest": 4.0, "shards": 4.0}
"""What operations take, to begin with; then what they took here."""
LATE = ("reindex", "adapt", "switch")
"""Operations that make or serve a version, which `LATE=1` kills in their last steps."""
STEPS = ("items written", "checked", "served", "served again")
"""Such steps, by what is on the disk."""
LEFTOVERS = ("**/*.part", "**/*.tmp", "**/.restore-*", "**/gone-*", "**/incoming*")
Digests = dict[str, frozenset[str | None]]


class Wrong(AssertionError):
    """Something acknowledged is not there, or something is there that nobody sent."""


@dataclass
class Ledger:
    """What was acknowledged. A set has several values where a call got no answer."""

    items: Digests = field(default_factory=dict)
    """Digest of each id that was ever sent; `None` for gone."""
    known: dict[str, Item] = field(default_factory=dict)
    reviews: dict[str, set[str | None]] = field(default_factory=dict)
    cases: dict[str, set[str | None]] = field(default_factory=dict)
    selections: dict[str, set[str | None]] = field(default_factory=dict)
    models: set[str] = field(default_factory=set)
    calibrated: str | None = None
    """The version that was."""
    served: str | None = "1"
    """The version; `None` where a switch got no answer."""
    restored: int | None = None
    """Points of the collection that a restore made."""
    batches: list[list[str]] = field(default_factory=list)
    """Ids of the batches that got no answer: each is seen whole."""
    acknowledged: int = 0


@dataclass
class Figures:
    """What came of it."""

    kills: Counter[str] = field(default_factory=Counter)
    within: Counter[str] = field(default_factory=Counter)
    """Kills at which the operation had begun and had not been answered."""
    finished: Counter[str] = field(default_factory=Counter)
    steps: Counter[tuple[str, str]] = field(default_factory=Counter)
    """The step that a late kill met."""
    wrong: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)


def state_of(path: Path) -> str:
    """Of a version, by its `collection.json`."""
    return str(json.loads(path.read_bytes())["state"])


def item(number: int, label: str | None = None) -> Item:
    source = sha256(f"k{number}".encode()).hexdigest()[:32]
    patient = number % PATIENTS
    return Item(
        id=item_id("kill", source),
        dataset="kill",
        source=source,
        label=label or f"L{number % 3}",
        case=f"C{patient}",
        patient=f"P{patient}",
        site=f"S{number // PATIENTS % SITES}",
    )


def shard(items: list[Item]) -> bytes:
    """Items with vectors around a centre for each label."""
    blank, entries = make_thumbnail(np.full((8, 8, 3), 230, np.uint8)), []
    for one in items:
        rng = np.random.default_rng(int(one.source[:8], 16))
        middle = np.random.default_rng(ord(str(one.label)[-1])).normal(size=CARD.dim)
        entries.append(Entry(one, (middle + rng.normal(size=CARD.dim)).astype("f4"), blank))
    return make_shard_bytes(entries, CARD)


def forked(work: Callable[[], object], log: Path) -> int:
    """A process that does some work; exit 0 where it returned."""
    if pid := os.fork():
        return pid
    status = 1
    try:
        with log.open("ab") as out:
            os.dup2(out.fileno(), 1)
            os.dup2(out.fileno(), 2)
        work()
        status = 0
    except SystemExit as error:
        status = int(error.code or 0) if isinstance(error.code, int | None) else 1
    except BaseException as error:
        os.write(2, f"{type(error).__name__}: {error}\n".encode())
    finally:
        os._exit(status)


class Cycle:
    """The library, the service of this cycle, and its writers."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.settings = Settings(library=folder / "library", port=free_port(), _env_file=None)  # type: ignore[call-arg]
        self.folder, self.rng = folder, random.Random(seed)
        self.ledger, self.figures = Ledger(), Figures()
        self.log = folder / "log"
        self.service = self.number = 0
        self.commands: list[int] = []
        self.client = httpx.Client(base_url=self.settings.url, timeout=600, trust_env=False)
        self.made, self.folders = START, 0
        self.took: dict[str, float] = {}

    # -- processes

    def start(self) -> None:
        """The service, once it answers."""
        words = ["serve", "--library", str(self.settings.library)]
        words += ["--port", str(self.settings.port)]
        self.service = forked(lambda: app(words, standalone_mode=False), self.log)
        end = time.monotonic() + 300
        while time.monotonic() < end:
            with suppress(httpx.HTTPError):
                if self.client.get("/health").status_code == 200:
                    return
            if os.waitpid(self.service, os.WNOHANG)[0]:
                break
            time.sleep(0.03)
        raise Wrong(f"the service did not start: {self.log.read_text()[-2000:]}")

    def command(self, *words: str) -> bool:
        """Run a command of `hemaseek`; whether it ended well."""
        more = ["--library", str(self.settings.library)]
        pid = forked(lambda: app([*words, *more], standalone_mode=False), self.log)
        self.commands.append(pid)
        status = os.waitpid(pid, 0)[1]
        self.commands.remove(pid)
        return status == 0

    def kill(self) -> None:
        """`kill -9` of the commands, the service, or first the one and then the other."""
        targets = [*self.commands, self.service]
        self.rng.shuffle(targets)
        for pid in targets:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            time.sleep(self.rng.choice([0, 0, 0.05]))
        os.waitpid(self.service, 0)

    # -- calls

    def call(self, method: str, path: str, **sent: Any) -> Any:
        answer = httpx.request(
            method, f"{self.settings.url}/v1/collections/cells/{path}".rstrip("/"),
            timeout=600, trust_env=False, **sent,
        )  # fmt: skip
        if answer.is_success:
            return answer.json()
        if answer.status_code in (409, 503):  # switched meanwhile: nothing was done
            raise httpx.HTTPError(answer.text)
        raise Wrong(f"{method} {path}: {answer.status_code} {answer.text[:500]}")

    def job(self, path: str, **body: object) -> dict[str, Any]:
        """Start a job and wait for its result."""
        found = self.call("POST", path, json=body)
        while found["state"] in ("queued", "running"):
            time.sleep(0.05)
            url = f"{self.settings.url}/v1/jobs/{found['id']}"
            found = httpx.get(url, timeout=60, trust_env=False).json()
        if found["state"] != "done":
            if "switched" in str(found["error"]):
                raise httpx.HTTPError("switched meanwhile")
            raise Wrong(f"{path}: {found['state']} {found['error']}")
        result: dict[str, Any] = found["result"]
        return result

    def may_be(self, kept: dict[str, set[str | None]], name: str, value: str | None) -> None:
        kept[name] = kept.get(name, {None}) | {value}

    def is_now(self, kept: dict[str, set[str | None]], name: str, value: str | None) -> None:
        kept[name] = {value}
        self.ledger.acknowledged += 1

    def send(self, items: list[Item], how: Callable[[], object]) -> None:
        """Write items, by whatever way, with the ledger kept before and after."""
        held = self.ledger
        digests = {one.id: payload_digest(one) for one in items}
        before = {id: held.items.get(id, frozenset({None})) for id in digests}
        held.items |= {id: before[id] | {digest} for id, digest in digests.items()}
        held.known |= {one.id: one for one in items}
        batch = [id for id, digest in digests.items() if digest not in before[id]]
        held.batches.append(batch)
        how()
        held.items |= {id: frozenset({digest}) for id, digest in digests.items()}
        held.batches.remove(batch)
        held.acknowledged += len(digests)

    # -- operations: each returns once it was acknowledged

    def shards(self) -> None:
        new = [item(self.made + at) for at in range(40)]
        self.made += len(new)
        content = shard(new)
        for _ in range(2):  # and once more what was taken before
            self.send(new, lambda: self.call("PUT", "shards", content=content))

    def ingest(self) -> None:
        """A folder of pictures; one whose ingest was cut off comes first."""
        folder = self.folder / f"lab-{self.folders}"
        if not folder.exists():
            folder.mkdir()
            for at in range(6):
                rng = np.random.default_rng([self.folders, at])
                pixels = rng.integers(90, 250, (40, 40, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{at}.png")
        ids = [item_id("lab", source_id(path.read_bytes())) for path in folder.iterdir()]
        self.ledger.items |= {id: frozenset({None, "*"}) for id in ids}
        words = ("ingest", str(folder), "--dataset", "lab", "--encoder", "colour", "--no-find")
        if not self.command(*words, "--collection", "cells"):
            raise httpx.HTTPError("cut off")
        self.ledger.items |= {id: frozenset({"*"}) for id in ids}
        self.ledger.acknowledged += len(ids)
        self.folders += 1

    def reindex(self) -> None:
        self.ledger.served = None
        self.ledger.served = self.job("reindex", encoder="colour", force=True)["version"]

    def adapt(self) -> None:
        self.ledger.served = None
        self.ledger.served = self.job("adapt", kind="align", force=True)["version"]

    def switch(self) -> None:
        """To a new version, back, and to it again: items are the same in both."""
        self.reindex()
        for _ in range(2):
            self.ledger.served = None
            self.ledger.served = self.call("POST", "rollback", json={"force": True})["served"]

    def prune(self) -> None:
        self.call("POST", "prune?keep=0&unfinished=true")
        here = [one["id"] for one in self.call("GET", "versions")]
        if here != [self.ledger.served] and self.ledger.served is not None:
            raise Wrong(f"after a prune there are versions {here}")

    def calibrate(self) -> None:
        self.call("POST", "calibration", json={"sample": 60, "ks": [3]})
        self.ledger.calibrated = self.ledger.served
        self.ledger.acknowledged += 1

    def build(self) -> None:
        self.call("POST", "build")

    def remove(self) -> None:
        gone = [id for id, value in self.ledger.items.items() if value != {None}]
        gone = [id for id in gone if id not in FIRST][: max(TEN, len(gone) - MOST)]
        if gone:
            self.ledger.items |= {id: self.ledger.items[id] | {None} for id in gone}
            self.call("POST", "items/remove", json={"ids": gone})
            self.ledger.items |= {id: frozenset({None}) for id in gone}
            self.ledger.acknowledged += len(gone)

    def select(self) -> None:
        for at in range(20):
            name, note = f"s{at % 5}", f"n{self.rng.random()}"
            self.may_be(self.ledger.selections, name, note)
            body = {"items": self.rng.sample(sorted(FIRST), 5), "note": note}
            self.call("PUT", f"selections/{name}", json=body)
            self.is_now(self.ledger.selections, name, note)

    def model(self) -> None:
        """Trained; and the oldest deleted, where there are several."""
        values = {f"C{at}": {"diagnosis": "AB"[at % 2]} for at in range(PATIENTS)}
        plan = {"pooling": "mean", "folds": 2, "epochs": 1, "cells": 10, "values": values}
        self.ledger.models.add(self.job("mil/models", **plan)["id"])
        self.ledger.acknowledged += 1
        if len(self.ledger.models) > 3:
            gone = self.ledger.models.pop()  # whether it is gone is not known any more
            self.call("DELETE", f"mil/models/{gone}")

    def snapshot(self) -> None:
        out = self.folder / "snapshots" / "one.tar"
        out.unlink(missing_ok=True)
        if not self.command("snapshot", str(out), "--collection", "cells"):
            raise httpx.HTTPError("cut off")
        with tempfile.TemporaryDirectory() as folder, tarfile.open(out) as tar:
            tar.extractall(folder, filter="data")
            verify_snapshot(Path(folder))
        self.figures.left += [str(path) for path in out.parent.glob(".one.tar*")]

    def restore(self) -> None:
        """Of a snapshot that is made here first, as a collection of its own."""
        out = self.folder / "snapshots" / "two.tar"
        if not out.exists() and not self.command("snapshot", str(out), "--collection", "cells"):
            raise httpx.HTTPError("cut off")
        with tarfile.open(out) as tar:
            points = json.loads(tar.extractfile("snapshot.json").read())["points"]  # type: ignore[union-attr]
        if not self.command("restore", str(out), "--collection", "back"):
            raise httpx.HTTPError("cut off")
        self.ledger.restored = points
        self.figures.left += [str(path) for path in out.parent.glob(".restore-*")]
        out.unlink()
        self.ledger.acknowledged += points

    def small_writes(self) -> None:
        """Reviews, case records and relabelled batches of ten, until nobody answers."""
        at, held = 0, self.ledger
        with suppress(httpx.HTTPError):
            while True:
                at += 1
                word = f"w{self.rng.random()}"
                id, case = self.rng.choice(sorted(FIRST)), f"C{at % PATIENTS}"
                self.may_be(held.reviews, id, word)
                said = {"reviews": [{"item": id, "label": word}], "reviewer": "AB"}
                self.call("POST", "reviews", json=said)
                self.is_now(held.reviews, id, word)
                self.may_be(held.cases, case, word)
                body = {"changes": [{"case": case, "diagnosis": word}]}
                self.call("POST", "cases/records", json=body)
                self.is_now(held.cases, case, word)
                ids = self.rng.sample(sorted(FIRST), TEN)
                label = f"L{self.rng.randrange(3)}"
                changed = [held.known[id].model_copy(update={"label": label}) for id in ids]
                bodies = {"items": [one.model_dump(mode="json") for one in changed]}
                self.send(changed, lambda b=bodies: self.call("PATCH", "items", json=b))  # type: ignore[misc]
                time.sleep(0.05)

    # -- what must hold

    def check(self) -> None:
        """Compare what is served with what was acknowledged, and look for what lies about."""
        facts = self.client.get("/health").json()
        if facts["set_aside"]:
            raise Wrong("a collection was set aside")
        served = next(one["id"] for one in self.call("GET", "versions") if one["served"])
        if self.ledger.served not in (None, served):
            raise Wrong(f"version {served} is served, not {self.ledger.served}")
        self.ledger.served = served
        if self.ledger.calibrated == served:
            self.call("GET", "calibration")
        found = self.call("POST", "reconcile?mend=false")
        if not found["equal"]:
            raise Wrong(f"the index is not the shards: {found}")
        self._check_items(found["points"])
        self._check_people()
        self._check_files()

    def _check_items(self, points: int) -> None:
        held = self.ledger
        known = self.call("POST", "known", json={"ids": list(held.items)})["known"]
        if len(known) != points:
            raise Wrong(f"{points} points, {len(known)} of them were sent")
        for batch in held.batches:
            sizes = {known.get(id) == payload_digest(held.known[id]) for id in batch}
            if len(sizes) > 1:
                raise Wrong(f"of a batch of {len(batch)} only a part is there")
        held.batches.clear()
        for id, allowed in held.items.items():
            digest = known.get(id)
            if digest not in allowed and not (digest and "*" in allowed):
                raise Wrong(f"item {id}: {digest} is not one of {allowed}")
            held.items[id] = frozenset({digest})
        for one in self._page("items/page", "items"):
            if one["id"] in FIRST:
                held.known[one["id"]] = Item.model_validate(one)

    def _check_people(self) -> None:
        held = self.ledger
        for kept, path, name, key in (
            (held.reviews, "reviews", "reviewed", lambda one: (one["item"]["id"], one["label"])),
            (held.selections, "selections", "selections", lambda one: (one["name"], one["note"])),
            (held.cases, "cases/records/page", "records", lambda o: (o["case"], o["diagnosis"])),
        ):
            found = self._page(path, name) if path.endswith("page") else self._listed(path, name)
            there = dict(map(key, found))
            for one, allowed in kept.items():
                if there.get(one) not in allowed:
                    raise Wrong(f"{one}: {there.get(one)} is not one of {allowed}")
                kept[one] = {there.get(one)}
        models = {one["id"] for one in self.call("GET", "mil/models")}
        if lost := held.models - models:
            raise Wrong(f"case models {lost} are gone")
        listed = self.client.get("/v1/collections").json()
        back = [one["items"] for one in listed if one["name"] == "back"]
        if held.restored is not None and back != [held.restored]:
            raise Wrong(f"restored were {held.restored} points, there is {back}")

    def _listed(self, path: str, name: str) -> list[Any]:
        found, after = [], ""
        while True:
            page = self.call("GET", path + after)
            found += page[name]
            if page.get("next") is None:
                return found
            after = f"?after={page['next']}"

    def _page(self, path: str, name: str) -> list[Any]:
        found, more = [], {}
        while True:
            page = self.call("POST", path, json={"limit": 1000, **more})
            found += page[name]
            if page.get("next") is None:
                return found
            more = {"after": page["next"]}

    def _check_files(self) -> None:
        library = self.settings.library
        left = {str(path) for pattern in LEFTOVERS for path in library.glob(pattern)}
        left |= {str(p) for p in library.glob("mil/*") if not (p / MODEL_CARD).exists()}
        left |= {
            str(path) for path in library.glob("collections/*/versions/*")
            if not (path / "collection.json").exists()
        }  # fmt: skip
        for path in library.glob("collections/*/versions/*/collection.json"):
            facts = json.loads(path.read_text())
            if facts["state"] == "building" and facts["parent"] is None:
                left.add(f"{path.parent} (half restored)")
        self.figures.left += sorted(left - set(self.figures.left))

    # -- cycles

    def late(self, name: str, over: threading.Event) -> str:
        """Wait for a late step of what makes a version, then up to 0.3 s; the step reached then."""
        folder = self.settings.library / "collections" / "cells"
        old = [path for path in folder.glob(VERSIONS) if state_of(path) != "building"]
        pointer = Versions(folder).pointer()

        def reached() -> int:
            turns = len(Versions(folder).pointer().history) - len(pointer.history)
            if turns:
                return min(1 + turns, 3)
            new = [path for path in folder.glob(VERSIONS) if path not in old]
            new = [path for path in new if any(path.parent.glob("shards/*.parquet"))]
            return max((int(state_of(path) != "building") for path in new), default=-1)

        wanted = self.rng.randrange(4 if name == "switch" else 3)
        end = time.monotonic() + 4 * LONGEST_S
        while reached() < wanted and not over.wait(0.005) and time.monotonic() < end:
            pass
        over.wait(0.3 * self.rng.random())
        at = reached()
        return "answered" if over.is_set() else STEPS[at] if at >= 0 else "earlier"

    def first(self) -> None:
        """A collection with its first items, which are never removed."""
        self.start()
        url = f"{self.settings.url}/v1/collections/cells"
        httpx.put(url, content=CARD.to_json(), timeout=60, trust_env=False).raise_for_status()
        new = [item(at) for at in range(START)]
        self.send(new, lambda: self.call("PUT", "shards", content=shard(new)))
        FIRST.update(one.id for one in new)
        self.call("POST", "build")

    def once(self, name: str) -> None:
        """One operation beside small writes, and a kill; then the start and the check."""
        ended, over = threading.Event(), threading.Event()
        failed: list[BaseException] = []

        def work() -> None:
            try:
                getattr(self, name)()
                ended.set()
            except httpx.HTTPError:
                pass
            except BaseException as error:
                failed.append(error)
            over.set()

        print(f"{name} ...", end=" ", file=sys.stderr, flush=True)
        threads = [threading.Thread(target=work), threading.Thread(target=self.small_writes)]
        began = time.monotonic()
        for thread in threads:
            thread.start()
        usual = self.took.get(name, USUAL_S.get(name, 2.0))
        if "LATE" in os.environ:
            self.figures.steps[name, self.late(name, over)] += 1
        else:
            over.wait(1.15 * self.rng.random() * usual)
        self.figures.within[name] += not over.is_set()
        spent = time.monotonic() - began
        self.took[name] = min(LONGEST_S, spent if ended.is_set() else max(usual, 1.3 * spent))
        self.kill()
        for thread in threads:
            thread.join()
        told = f"{time.monotonic() - began:.1f} s, ended {ended.is_set()}"
        print(told, self.figures.wrong[-2:], self.figures.left[-2:], file=sys.stderr, flush=True)
        self.figures.kills[name] += 1
        self.figures.finished[name] += ended.is_set()
        back = self.settings.library / "collections" / "back"
        if self.ledger.restored is not None and name != "restore":
            shutil.rmtree(back)
            self.ledger.restored = None
        self.start()
        if failed:
            self.figures.wrong.append(f"{name}: {failed[0]!r}")
        try:
            self.check()
        except Wrong as error:
            self.figures.wrong.append(f"after {name}: {error}")


VERSIONS = "versions/*/collection.json"
FIRST: set[str] = set()
"""Ids of the items that are never removed."""
OPERATIONS = (
    "shards", "ingest", "reindex", "adapt", "switch", "prune", "calibrate", "build", "remove",
    "select", "model", "snapshot", "restore",
)  # fmt: skip


NEEDED = (
    "train.mil.run", "train.mil.fit", "search.adaptation.run", "search.maintenance.snapshots",
    "ingest.pipeline.run", "ingest.layouts.known", "ui.cli.ingesting", "search.evaluation.run",
    "ingest.samples.download", "search.votes.calibration", "scipy.optimize", "openslide", "torch",
    "search.transforms.align", "search.transforms.metric", "uvicorn.protocols.http.h11_impl",
)  # fmt: skip


def cycles(folder: Path, count: int, seed: int, seconds: float) -> Cycle:
    """So many kills, or until the time is over."""
    one, end = Cycle(folder, seed), time.monotonic() + seconds
    one.first()
    try:
        while sum(one.figures.kills.values()) < count and time.monotonic() < end:
            chosen = LATE if "LATE" in os.environ else OPERATIONS
            order = [name for name in chosen if name not in SKIP]
            one.rng.shuffle(order)
            for name in order[: count - sum(one.figures.kills.values())]:
                one.once(name)
            print(sum(one.figures.kills.values()), "kills", file=sys.stderr, flush=True)
    finally:
        os.kill(one.service, signal.SIGTERM)
        os.waitpid(one.service, 0)
    verify(one.settings.library / "audit")
    return one


SKIP = frozenset(os.environ.get("SKIP", "").split(","))


def main() -> None:
    count, seed = (int(x) for x in [*sys.argv[1:3], *["500", "0"][len(sys.argv[1:3]) :]])
    seconds = float(sys.argv[3]) if len(sys.argv) > 3 else 1e9
    os.environ |= {"HEMASEEK_RATE_LIMIT": "", "HEMASEEK_LOG_LEVEL": "error"}
    os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    began = time.perf_counter()
    for name in NEEDED:  # once, before the forks
        if "model" not in SKIP or not name.startswith(("torch", "train.")):
            importlib.import_module(name)
    quick = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # a kill needs no real fsync
    with tempfile.TemporaryDirectory(dir=quick) as folder:
        serving.application(Settings(library=Path(folder)))
        one = cycles(Path(folder), count, seed, seconds)
        told, log = one.figures, one.log.read_text()
    print("| operation | kills | within it | finished before |\n|---|---|---|---|")
    for name in OPERATIONS:
        print(f"| {name} | {told.kills[name]} | {told.within[name]} | {told.finished[name]} |")
    print(f"| all | {sum(told.kills.values())} | {sum(told.within.values())} | "
          f"{sum(told.finished.values())} |\n")  # fmt: skip
    for name, step in sorted(told.steps):
        print(f"- {name}, {step}: {told.steps[name, step]}")
    print(f"{one.ledger.acknowledged:,} acknowledged writes; {len(told.wrong)} wrong, "
          f"{len(told.left)} left over; {time.perf_counter() - began:.0f} s")  # fmt: skip
    print(*told.wrong, *told.left, log[-3000:] if told.wrong else "", sep="\n")


if __name__ == "__main__":
    main()
