"""Weights are found, fetched from a real local server, verified, and never half there."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from encoder import download
from encoder.download import MissingWeights, WeightsFile, WrongDigest
from encoder.networks import published

BODY = bytes(range(256)) * 5000
DIGEST = sha256(BODY).hexdigest()


class Server(BaseHTTPRequestHandler):
    """`/whole`, `/cut` (ends early), `/hub` and `/liar` (declare a digest and redirect)."""

    def do_GET(self) -> None:
        if self.path in ("/hub", "/liar"):
            self.send_response(302)
            self.send_header("Location", "/whole")
            self.send_header("X-Linked-ETag", f'"{DIGEST if self.path == "/hub" else "0" * 64}"')
            self.end_headers()
        elif self.path in ("/whole", "/cut"):
            self.send_response(200)
            self.send_header("Content-Length", str(len(BODY)))
            self.end_headers()
            self.wfile.write(BODY if self.path == "/whole" else BODY[:1000])
        else:
            self.send_error(404 if self.path == "/absent" else 503)

    def log_message(self, *_: object) -> None:
        """Quiet."""


@pytest.fixture(name="server", scope="module")
def _server() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Server) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture(name="folder", autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HEMASEEK_WEIGHTS", str(tmp_path / "weights"))
    return tmp_path / "weights"


def test_a_missing_file_is_fetched_once_and_its_digest_is_recorded(
    server: str, folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    file = WeightsFile(name="some/w.pth", url=f"{server}/whole", sha256=DIGEST)
    assert download.locate("x", [file]) == (folder / "some/w.pth", DIGEST)
    assert (folder / "some/w.pth").read_bytes() == BODY
    assert (folder / "some/w.pth.sha256").read_text().split() == [DIGEST, "w.pth"]
    assert sorted(p.name for p in (folder / "some").iterdir()) == ["w.pth", "w.pth.sha256"]
    seen = capfd.readouterr()
    assert "w.pth" in seen.err
    assert seen.out == ""
    again = WeightsFile(name="some/w.pth", url="http://127.0.0.1:9/never", sha256=DIGEST)
    assert download.locate("x", [again])[1] == DIGEST


def test_the_digest_that_the_server_declares_is_enforced(server: str, folder: Path) -> None:
    honest = WeightsFile(name="honest.bin", url=f"{server}/hub")
    assert download.locate("x", [honest])[1] == DIGEST
    with pytest.raises(WrongDigest, match="expected 0000"):
        download.locate("x", [WeightsFile(name="liar.bin", url=f"{server}/liar")])
    assert not list(folder.glob("liar*"))


def test_a_pinned_digest_that_does_not_match_is_refused_and_nothing_is_kept(
    server: str, folder: Path
) -> None:
    with pytest.raises(WrongDigest, match="nothing was kept"):
        download.locate("x", [WeightsFile(name="w", url=f"{server}/whole", sha256="1" * 64)])
    assert list(folder.iterdir()) == []


def test_a_download_that_breaks_off_leaves_nothing(server: str, folder: Path) -> None:
    with pytest.raises(MissingWeights):
        download.locate("x", [WeightsFile(name="w", url=f"{server}/cut")])
    assert list(folder.iterdir()) == []


def test_another_layout_is_fetched_only_where_the_first_is_not_published(server: str) -> None:
    second = WeightsFile(name="second", url=f"{server}/whole")
    absent = WeightsFile(name="first", url=f"{server}/absent")
    assert download.locate("x", [absent, second])[0].name == "second"
    broken = WeightsFile(name="third", url=f"{server}/broken")
    other = WeightsFile(name="fourth", url=f"{server}/whole")
    with pytest.raises(MissingWeights, match="answered 503"):
        download.locate("x", [broken, other])


def test_a_file_that_changed_since_its_download_is_refused(server: str, folder: Path) -> None:
    file = WeightsFile(name="w", url=f"{server}/whole")
    download.locate("x", [file])
    (folder / "w").write_bytes(BODY[:-1])
    with pytest.raises(WrongDigest, match="damaged or another file"):
        download.locate("x", [file])


def test_a_pinned_file_that_is_given_by_path_is_held_to_its_pin(tmp_path: Path) -> None:
    file = WeightsFile(name="DinoBloom-S.pth", url="", sha256=DIGEST)
    (tmp_path / "DinoBloom-S.pth").write_bytes(b"other")
    (tmp_path / "mine.pth").write_bytes(b"other")
    with pytest.raises(WrongDigest):
        download.locate("x", [file], tmp_path / "DinoBloom-S.pth")
    own = download.locate("x", [file], tmp_path / "mine.pth")
    assert own == (tmp_path / "mine.pth", sha256(b"other").hexdigest())
    with pytest.raises(MissingWeights, match="no weights file at"):
        download.locate("x", [file], tmp_path / "absent.pth")


def test_offline_without_weights_one_sentence_says_which_file_goes_where(folder: Path) -> None:
    files = [
        WeightsFile(name=file.name, url="http://127.0.0.1:9/" + file.name)
        for file in published.dinobloom("s").files
    ]
    with pytest.raises(MissingWeights) as caught:
        download.locate("dinobloom-s", files)
    told = str(caught.value)
    for file in files:
        assert f"{file.name} ({file.url})" in told
    assert str(folder) in told
    assert "HEMASEEK_WEIGHTS" in told
    assert "\n" not in told
    assert ". " not in told


def test_weights_are_looked_for_in_the_users_cache_by_default(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("HEMASEEK_WEIGHTS")
    assert download.weights_folder() == Path.home() / ".cache/hemaseek/weights"
