"""A stand-in for a Qdrant server: its HTTP interface over the client's own local engine.

    python tests/qdrant_standin.py PORT FOLDER [--die-after N]

It speaks what `search.index.server` asks, parsed and answered with the client's own models, in a
process of its own that can be killed. It searches exactly and has no graph, so it says nothing
about Qdrant's index; what it shows is that our side holds over a network. `--die-after` kills it
after so many upserts, before the last one is answered.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx

READY_S = 120.0


@contextmanager
def standin(port: int, folder: Path, die_after: int = 0) -> Iterator[subprocess.Popen[bytes]]:
    """A running stand-in; what it stored stays in the folder."""
    command = [sys.executable, __file__, str(port), str(folder), "--die-after", str(die_after)]
    process = subprocess.Popen(command)
    try:
        end = time.monotonic() + READY_S
        while True:
            try:
                httpx.get(f"http://127.0.0.1:{port}/collections", timeout=5).raise_for_status()
                break
            except httpx.HTTPError:
                assert process.poll() is None
                assert time.monotonic() < end
                time.sleep(0.1)
        yield process
    finally:
        process.kill()
        process.wait()


class Server:
    """The routes, over one local client."""

    def __init__(self, folder: Path, die_after: int) -> None:
        from qdrant_client import QdrantClient

        folder.mkdir(parents=True, exist_ok=True)
        self.client = QdrantClient(path=str(folder / "held"), force_disable_check_same_thread=True)
        self.kept = folder / "indexes.json"
        self.indexes: dict[str, dict[str, str]] = (
            json.loads(self.kept.read_text()) if self.kept.is_file() else {}
        )
        self.die_after, self.upserts = die_after, 0
        self.turn = threading.Lock()

    def answer(self, method: str, path: str, body: dict[str, Any]) -> Any:
        """The result of a request; `LookupError` for what is not there."""
        from qdrant_client import models

        if (method, path) == ("GET", "/collections"):
            return self.client.get_collections()
        if (method, path) == ("GET", "/aliases"):
            return self.client.get_aliases()
        if (method, path) == ("POST", "/collections/aliases"):
            wanted = models.ChangeAliasesOperation(**body)
            return self.client.update_collection_aliases(wanted.actions)
        found = re.fullmatch(r"/collections/([^/]+)(?:/(.*))?", path)
        if found is None:
            raise LookupError(path)
        name, what = found[1], found[2] or ""
        if what == "exists":
            return {"exists": self.client.collection_exists(name)}
        if (method, what) == ("PUT", ""):
            made = models.CreateCollection(**body)
            assert made.vectors is not None
            self.indexes[name] = {}
            self._keep()
            return self.client.create_collection(name, made.vectors, metadata=made.metadata)
        if not self.client.collection_exists(name):
            raise LookupError(f"Not found: Collection `{name}` doesn't exist!")
        return self._within(name, method, what, body)

    def _within(self, name: str, method: str, what: str, body: dict[str, Any]) -> Any:
        from qdrant_client import models

        client = self.client
        match method, what:
            case "GET", "":
                info = client.get_collection(name).model_dump(mode="json")
                schema = {
                    field: {"data_type": kind, "points": 0}
                    for field, kind in self.indexes.get(name, {}).items()
                }
                return info | {"payload_schema": schema, "indexed_vectors_count": 0}
            case "PATCH", "":
                return client.update_collection(name, metadata=body.get("metadata"))
            case "DELETE", "":
                self.indexes.pop(name, None)
                self._keep()
                return client.delete_collection(name)
            case "PUT", "index":
                self.indexes.setdefault(name, {})[body["field_name"]] = body["field_schema"]
                self._keep()
                return done()
            case "PUT", "points":
                client.upsert(name, models.Batch(**body["batch"]))
                self.upserts += 1
                if self.upserts == self.die_after:
                    os.kill(os.getpid(), signal.SIGKILL)
                return done()
            case "POST", "points":
                wanted = models.PointRequest(**body)
                return client.retrieve(
                    name, wanted.ids, wanted.with_payload or False, wanted.with_vector or False
                )
            case "POST", "points/scroll":
                page = models.ScrollRequest(**body)
                points, after = client.scroll(
                    name,
                    page.filter,
                    limit=page.limit or 10,
                    offset=page.offset,
                    with_payload=page.with_payload or False,
                    with_vectors=page.with_vector or False,
                )
                return {"points": [plain(point) for point in points], "next_page_offset": after}
            case "POST", "points/count":
                return client.count(name, models.CountRequest(**body).filter)
            case "POST", "points/delete":
                client.delete(name, models.PointIdsList(**body))
                return done()
            case "POST", "facet":
                facet = models.FacetRequest(**body)
                return client.facet(name, facet.key, facet.filter, limit=facet.limit or 10)
            case "POST", "points/query/batch":
                asked = models.QueryRequestBatch(**body).searches
                return client.query_batch_points(name, asked)
        raise LookupError(f"{method} {what}")

    def _keep(self) -> None:
        self.kept.write_text(json.dumps(self.indexes))


def done() -> dict[str, Any]:
    """What a write is answered with."""
    return {"operation_id": 0, "status": "completed"}


def plain(answer: Any) -> Any:
    """An answer of the local engine as JSON."""
    if isinstance(answer, list):
        return [plain(one) for one in answer]
    return answer.model_dump(mode="json") if hasattr(answer, "model_dump") else answer


def handler(server: Server) -> type[BaseHTTPRequestHandler]:
    """What speaks HTTP for a server."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _serve(self) -> None:
            content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            path = self.path.partition("?")[0].replace("%40", "@")
            status, said = 200, {"status": "ok", "time": 0.0}
            try:
                with server.turn:
                    body = json.loads(content) if content else {}
                    said["result"] = plain(server.answer(self.command, path, body))
            except LookupError as error:
                status, said = 404, {"status": {"error": str(error)}, "time": 0.0}
            raw = json.dumps(said).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

        do_GET = do_PUT = do_POST = do_PATCH = do_DELETE = _serve

        def log_message(self, *_: object) -> None:
            """Quietly."""

    return Handler


def main(port: int, folder: Path, die_after: int) -> None:
    """Serve until killed."""
    warnings.simplefilter("ignore")
    ThreadingHTTPServer(("127.0.0.1", port), handler(Server(folder, die_after))).serve_forever()


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[4]))
