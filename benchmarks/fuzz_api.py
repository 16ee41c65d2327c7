"""Random calls of every route of a real service: no fault, and nothing the OpenAPI file denies.

    uv run --extra all python benchmarks/fuzz_api.py [CASES] [SEED]

Half of the cases fit the OpenAPI file, half break it on purpose (schemathesis). Two of three are
then pointed at what is really stored - names, ids, cases, vectors of the right length - or most
would end at "no such item". Each answer is held to the file: its status, its content type, its
body, its headers, and no status of 5xx but the declared 503.
"""

from __future__ import annotations

import io
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
import requests
import schemathesis
from PIL import Image
from schemathesis import checks
from schemathesis.core.failures import Failure, FailureGroup
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi import checks as openapi_checks

from encoder.registry import load
from search.library.library import Library
from search.library.shards import Entry, make_shard_bytes, make_thumbnail
from search.schemas.items import Item, item_id, source_id
from search.settings import Settings

CHECKS = [
    checks.not_a_server_error,
    openapi_checks.status_code_conformance,
    openapi_checks.content_type_conformance,
    openapi_checks.response_headers_conformance,
    openapi_checks.response_schema_conformance,
]
PATIENCE_S = 900
"""With one answer: other work may have the machine."""
LABELS = {"EO": (200, 90, 60), "LY": (70, 60, 160), "PLT": (190, 160, 200)}


@dataclass
class Stored:
    """What is really there, to ask for."""

    ids: list[str]
    vector: list[float]
    fingerprint: str
    image: bytes
    shard: bytes
    card: str
    evaluations: list[str] = field(default_factory=list)


@dataclass
class Told:
    """What came of it."""

    cases: int = 0
    statuses: Counter[int] = field(default_factory=Counter)
    routes: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)


def png(colour: tuple[int, int, int], seed: int) -> bytes:
    noise = np.random.default_rng(seed).normal(0, 25, (40, 40, 3))
    out = io.BytesIO()
    Image.fromarray(np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8)).save(out, "PNG")
    return out.getvalue()


def small_library(folder: Path, items: int = 60) -> Stored:
    """A library of squares in three colours: six patients, three sites, a collection beside it."""
    encoder, entries, content = load("colour"), [], b""
    for at in range(items):
        label = list(LABELS)[at % 3]
        content = png(LABELS[label], at)
        pixels = np.asarray(Image.open(io.BytesIO(content)))
        source, patient = source_id(content), at // 10
        item = Item(
            id=item_id("squares", source),
            dataset="squares",
            source=source,
            label=label,
            patient=f"P{patient}",
            case=f"C{patient}",
            site=f"site {patient % 3}",
        )
        entries.append(Entry(item, encoder.embed([pixels])[0], make_thumbnail(pixels)))
    library = Library.open(folder)
    for name in ("cells", "other"):
        with library.create(name, encoder.card) as collection:
            collection.add(entries)
    return Stored(
        [entry.item.id for entry in entries],
        [float(x) for x in entries[0].vector],
        encoder.card.fingerprint,
        content,
        make_shard_bytes(entries[:5], encoder.card),
        encoder.card.to_json(),
    )


def point(case: Any, stored: Stored, rng: random.Random) -> None:
    """Turn a random case towards what is stored."""
    path, query = case.path_parameters or {}, case.query or {}
    for name, values in (
        ("name", ["cells", "other"]),
        ("id", stored.ids),
        ("case", ["C0", "C3"]),
        ("field", ["label", "site"]),
    ):
        if name in path:
            path[name] = rng.choice(values)
    if case.path.startswith("/v1/evaluations/{id}") and stored.evaluations:
        path["id"] = rng.choice(stored.evaluations)
        if "method" in query:
            query["method"] = rng.choice(["1-NN", "5-NN"])
    if "collection" in query:
        query["collection"] = rng.choice(["cells", "other"])
    if isinstance(case.body, dict):
        point_body(case.body, case.media_type or "", stored, rng)
        if case.path.endswith("/remove"):
            case.body["ids"] = stored.ids[:1]  # or soon nothing would be left
    elif case.path.endswith("/shards"):
        case.body = stored.shard[: rng.choice([len(stored.shard), rng.randrange(9000)])]


def point_body(body: dict[str, Any], media: str, stored: Stored, rng: random.Random) -> None:
    """The same within a body: one way to ask, of what there is."""
    if media.startswith("multipart"):
        if "set" in body:
            body["set"] = stored.shard[: rng.choice([len(stored.shard), rng.randrange(9000)])]
        for name in ("image", "images"):
            if name in body:
                broken = stored.image[: rng.choice([len(stored.image), rng.randrange(2000)])]
                body[name] = [broken] * rng.randint(1, 3) if name == "images" else broken
        return
    ways = [name for name in ("item", "vector", "case", "items", "like") if name in body]
    for name in ways:
        del body[name]
    if ways:
        way = rng.choice(ways)
        body[way] = {
            "item": rng.choice(stored.ids),
            "vector": stored.vector,
            "case": "C1",
            "items": rng.sample(stored.ids, 3),
            "like": rng.sample(stored.ids, 2),
        }[way]
        if way == "vector":
            body["fingerprint"] = stored.fingerprint
    if "ids" in body:
        body["ids"] = rng.sample(stored.ids, 3)
    for name, value in (("collection", "cells"), ("fingerprint", stored.fingerprint)):
        if name in body:
            body[name] = value


def evaluated(url: str) -> Iterator[str]:
    """The ids of two evaluations that are done: the calls may end one of them."""
    for _ in range(2):
        body = {"ks": [1, 5], "resamples": 20, "collection": "cells"}
        id = requests.post(f"{url}/v1/evaluations", json=body, timeout=60).json()["id"]
        while requests.get(f"{url}/v1/evaluations/{id}", timeout=60).json()["state"] in (
            "queued",
            "running",
        ):
            time.sleep(0.05)
        yield id


def fuzz(url: str, stored: Stored, cases: int, seed: int, seconds: float = 1e9) -> Told:
    """Call every route `cases / routes` times, or until the time is over."""
    schema = schemathesis.openapi.from_url(f"{url}/openapi.json")
    operations = [found.ok() for found in schema.get_all_operations()]
    told, rng, end = Told(), random.Random(seed), time.monotonic() + seconds
    stored.evaluations = list(evaluated(url))
    with requests.Session() as session:
        while told.cases < cases and time.monotonic() < end:
            each = -(-(cases - told.cases) // (2 * len(operations)))
            for operation in operations:
                for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
                    try:
                        strategy = operation.as_strategy(generation_mode=mode)
                        _calls(strategy, each, seed, url, stored, rng, told, session, end)
                    except (hypothesis.errors.Unsatisfiable, hypothesis.errors.HypothesisException):
                        continue  # nothing to break in a route without parameters
                    told.routes[operation.label] += 0
            seed += 1  # routes that cannot be broken had fewer: the rest anew
    return told


def _calls(strategy, each, seed, url, stored, rng, told, session, end) -> None:  # type: ignore[no-untyped-def]
    @hypothesis.seed(seed)
    @hypothesis.settings(
        max_examples=each,
        deadline=None,
        database=None,
        phases=[hypothesis.Phase.generate],
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    @hypothesis.given(strategy)
    def call(case: Any) -> None:
        if time.monotonic() > end:
            return
        if rng.random() < 2 / 3:
            point(case, stored, rng)
        response = case.call(base_url=url, session=session, timeout=PATIENCE_S)
        told.cases += 1
        told.statuses[response.status_code] += 1
        told.routes[case.operation.label] += 1
        try:
            case.validate_response(response, checks=CHECKS)
        except (Failure, FailureGroup) as error:
            if len(told.failures) < 100:
                told.failures.append(f"{case.operation.label}: {error}\n{case.as_curl_command()}")

    call()


def serving(settings: Settings) -> Iterator[str]:
    """The address of a service in a process of its own."""
    from ui.cli.demo import running

    with running(settings) as client:
        yield client.url


def main() -> None:
    import os

    cases = int(sys.argv[1]) if len(sys.argv) > 1 else 20_000
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else 0
    seconds = float(sys.argv[3]) if len(sys.argv) > 3 else 1e9
    os.environ["HEMASEEK_RATE_LIMIT"] = ""  # it would answer most of the calls
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(library=Path(folder) / "library", port=8123)
        stored = small_library(settings.library)
        started = time.perf_counter()
        for url in serving(settings):
            told = fuzz(url, stored, cases, seed, seconds)
        took = time.perf_counter() - started
    for failure in told.failures[:20]:
        print(failure, "\n")
    faults = sum(n for status, n in told.statuses.items() if status >= 500)
    print("| cases | routes | answers of 5xx | violations of the OpenAPI file | seconds |")
    print("|---|---|---|---|---|")
    print(
        f"| {told.cases:,} | {len(told.routes)} | **{faults}** | **{len(told.failures)}** "
        f"| {took:.0f} |\n"
    )
    print("Statuses:", ", ".join(f"{s}: {n:,}" for s, n in sorted(told.statuses.items())))


if __name__ == "__main__":
    main()
