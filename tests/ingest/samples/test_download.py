from __future__ import annotations

import socket
import threading
from collections import Counter
from collections.abc import Iterator
from functools import partial
from hashlib import sha256
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from ingest.samples import download as samples
from ingest.samples.download import (
    SETS,
    SampleError,
    available,
    download,
    index,
    is_complete,
    sources,
    write_index,
)

FILES = {
    "bccd/LICENSE": b"MIT, as published\n",
    "bccd/JPEGImages/BloodImage_00000.jpg": b"a field",
    "bccd/JPEGImages/BloodImage_00001.jpg": b"another field",
    "bccd/Annotations/BloodImage_00000.xml": b"<annotation/>",
    "aslan/annotations.csv": b"image,xmin\n",
    "aslan/images/image-1.png": b"png",
    "chula/Dataset/2.jpg": b"red cells",
    "chula/Label/2.txt": b"1 2 3\n",
    "wsi/CMU-1-Small-Region.svs": b"slide",
}
LISTED = {path: sha256(content).hexdigest() for path, content in FILES.items()}


class Upstream:
    """A server with the published paths, on this machine."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.asked: Counter[str] = Counter()
        self.stumbles: dict[str, int] = {}  # answers 503 this many times
        for path, content in FILES.items():
            self.file(path).parent.mkdir(parents=True, exist_ok=True)
            self.file(path).write_bytes(content)
        upstream = self

        class Handler(SimpleHTTPRequestHandler):
            def do_GET(self) -> None:
                upstream.asked[self.path] += 1
                if upstream.stumbles.get(self.path, 0) >= upstream.asked[self.path]:
                    self.send_error(503)
                else:
                    super().do_GET()

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(root)))
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"

    def address(self, path: str) -> str:
        name, _, rest = path.partition("/")
        return SETS[name].address(rest, self.url)

    def file(self, path: str) -> Path:
        name, _, rest = path.partition("/")
        return self.root / SETS[name].address(rest, "http://x").removeprefix("http://x/")


@pytest.fixture(name="upstream")
def _upstream(tmp_path: Path) -> Iterator[Upstream]:
    upstream = Upstream(tmp_path / "upstream")
    thread = threading.Thread(target=upstream.server.serve_forever, args=(0.02,))
    thread.start()
    yield upstream
    upstream.server.shutdown()
    thread.join()
    upstream.server.server_close()


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ingest.samples.download.time.sleep", lambda seconds: None)


def closed_port() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}"


def kept(folder: Path) -> set[str]:
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}


def test_every_set_arrives_in_its_folder_with_the_sources_beside(
    upstream: Upstream, tmp_path: Path
) -> None:
    heard: list[tuple[int, int]] = []
    folder = tmp_path / "samples"
    report = download(
        folder,
        base_url=upstream.url,
        listed=LISTED,
        on_progress=lambda done, total: heard.append((done, total)),
    )
    assert report.ok
    assert (report.wanted, report.fetched, report.present) == (9, 9, 0)
    assert {path: (folder / path).read_bytes() for path in FILES} == FILES
    assert kept(folder) == {*FILES, "SOURCES.md"}  # no temporary file stays
    assert heard[0] == (0, 9)
    assert heard[-1] == (9, 9)
    assert heard == sorted(heard)
    assert available(folder, LISTED) == tuple(SETS)
    assert "9 downloaded" in str(report)


def test_what_is_there_and_right_is_not_fetched_again(upstream: Upstream, tmp_path: Path) -> None:
    download(tmp_path, base_url=upstream.url, listed=LISTED)
    before = Counter(upstream.asked)
    again = download(tmp_path, base_url=upstream.url, listed=LISTED)
    assert (again.fetched, again.present, again.ok) == (0, 9, True)
    assert upstream.asked == before
    (tmp_path / "chula/Label/2.txt").unlink()
    assert available(tmp_path, LISTED) == ("bccd", "aslan", "wsi")
    third = download(tmp_path, base_url=upstream.url, listed=LISTED)
    assert (third.fetched, third.present) == (1, 8)
    assert is_complete(tmp_path, ["chula", "wsi"], LISTED)


def test_only_the_sets_that_are_asked_for_are_fetched(upstream: Upstream, tmp_path: Path) -> None:
    report = download(tmp_path / "s", sets=["aslan"], base_url=upstream.url, listed=LISTED)
    assert report.wanted == report.fetched == 2
    assert kept(tmp_path / "s") == {
        "aslan/annotations.csv",
        "aslan/images/image-1.png",
        "SOURCES.md",
    }
    assert not is_complete(tmp_path / "s", ["aslan", "bccd"], LISTED)


def test_a_wrong_digest_is_refused_with_both_digests(upstream: Upstream, tmp_path: Path) -> None:
    path = "aslan/images/image-1.png"
    upstream.file(path).write_bytes(b"something else")
    report = download(tmp_path / "s", base_url=upstream.url, listed=LISTED)
    (failure,) = report.failures
    assert failure.path == str(tmp_path / "s" / path)
    assert sha256(b"something else").hexdigest() in failure.reason
    assert LISTED[path] in failure.reason
    assert not (tmp_path / "s" / path).exists()
    assert report.fetched == 8
    assert "1 failed" in str(report)


def test_a_file_of_another_content_is_reported_and_not_replaced(
    upstream: Upstream, tmp_path: Path
) -> None:
    mine = tmp_path / "s" / "bccd/LICENSE"
    mine.parent.mkdir(parents=True)
    mine.write_bytes(b"mine")
    report = download(tmp_path / "s", base_url=upstream.url, listed=LISTED)
    (failure,) = report.failures
    assert "delete it and run again" in failure.reason
    assert LISTED["bccd/LICENSE"] in failure.reason
    assert mine.read_bytes() == b"mine"


def test_a_missing_file_is_asked_for_once_and_reported(upstream: Upstream, tmp_path: Path) -> None:
    path = "chula/Dataset/2.jpg"
    upstream.file(path).unlink()
    report = download(tmp_path / "s", base_url=upstream.url, listed=LISTED)
    (failure,) = report.failures
    assert failure.reason == f"{upstream.address(path)} answered 404"
    assert upstream.asked[upstream.address(path).removeprefix(upstream.url)] == 1
    assert (report.fetched, report.ok) == (8, False)


def test_a_stumbling_server_is_asked_again(upstream: Upstream, tmp_path: Path) -> None:
    for path in FILES:
        upstream.stumbles[upstream.address(path).removeprefix(upstream.url)] = 2
    report = download(tmp_path / "s", base_url=upstream.url, listed=LISTED)
    assert report.ok
    assert set(upstream.asked.values()) == {3}


def test_without_a_network_one_sentence_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(SampleError) as refused:
        download(tmp_path / "s", base_url=closed_port(), listed=LISTED)
    assert "could not be downloaded" in str(refused.value)
    assert "synthetic" in str(refused.value)
    assert "\n" not in str(refused.value)
    assert not any((tmp_path / "s" / path).exists() for path in FILES)


def test_without_a_network_what_is_there_still_counts(upstream: Upstream, tmp_path: Path) -> None:
    download(tmp_path / "s", sets=["bccd"], base_url=upstream.url, listed=LISTED)
    report = download(tmp_path / "s", base_url=closed_port(), listed=LISTED)
    assert (report.present, report.fetched, len(report.failures)) == (4, 0, 5)
    assert sum("not tried" in failure.reason for failure in report.failures) == 4


def test_a_server_that_goes_away_is_not_asked_for_every_file(
    upstream: Upstream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(samples, "WORKERS", 1)
    many = {f"chula/Label/{n}.txt": "0" * 64 for n in range(100)}
    first = "chula/Dataset/2.jpg"
    for path in many:
        upstream.stumbles[upstream.address(path).removeprefix(upstream.url)] = 99
    report = download(tmp_path / "s", base_url=upstream.url, listed={first: LISTED[first], **many})
    assert report.fetched == 1
    assert len(report.failures) == 100
    assert len(upstream.asked) == 1 + samples.GIVE_UP_AFTER


def test_an_endless_answer_is_cut_off(
    upstream: Upstream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(samples, "MAX_BYTES", 8)
    report = download(tmp_path / "s", sets=["aslan"], base_url=upstream.url, listed=LISTED)
    (failure,) = report.failures  # the other file is smaller
    assert "gave more than" in failure.reason


def test_an_unknown_set_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(SampleError, match=r"'pbc'; the sets are bccd, aslan, chula, wsi"):
        download(tmp_path, sets=["pbc"])
    with pytest.raises(SampleError, match="there is no sample set 'lc25000'"):
        is_complete(tmp_path, ["lc25000"])


def test_the_committed_index_names_every_set_and_leaves_out_what_is_not_licensed() -> None:
    listed = index()
    assert {path.partition("/")[0] for path in listed} == set(SETS)
    assert all(len(digest) == 64 and int(digest, 16) >= 0 for digest in listed.values())
    counts = Counter("/".join(path.split("/")[:2]) for path in listed)
    assert counts["bccd/JPEGImages"] == counts["bccd/Annotations"] == 364
    assert counts["aslan/images"] == 100
    assert counts["chula/Dataset"] == counts["chula/Label"] == 287
    assert "bccd/wbc_subtypes.csv" not in listed
    assert "chula/Dataset/707.jpg" not in listed
    slide = "ed92d5a9f2e86df67640d6f92ce3e231419ce127131697fbbce42ad5e002c8a7"
    assert listed["wsi/CMU-1-Small-Region.svs"] == slide


def test_addresses_are_the_published_ones_at_the_pinned_commits() -> None:
    github = "https://raw.githubusercontent.com"
    bccd = f"{github}/Shenggan/BCCD_Dataset/d272fb14cdff6e473fafeeeba32aba5f560e9e43"
    assert SETS["bccd"].address("JPEGImages/BloodImage_00000.jpg") == (
        f"{bccd}/BCCD/JPEGImages/BloodImage_00000.jpg"
    )
    assert SETS["bccd"].address("LICENSE") == f"{bccd}/LICENSE"
    chula = "Chula-PIC-Lab/Chula-RBC-12-Dataset/fa130f48135d79bbd69f8e540b533511017d6896"
    assert SETS["chula"].address("Label/2.txt") == f"{github}/{chula}/Label/2.txt"
    assert SETS["wsi"].address("CMU-1-Small-Region.svs") == (
        "https://openslide.cs.cmu.edu/download/openslide-testdata/Aperio/CMU-1-Small-Region.svs"
    )


def test_the_sources_name_every_licence() -> None:
    text = sources()
    for one in SETS.values():
        assert f"`{one.name}/`: {one.licence}" in text


@pytest.mark.data
def test_the_committed_index_is_what_the_real_files_give(data_dir: Path, tmp_path: Path) -> None:
    assert write_index(data_dir, tmp_path / "made") == len(index())
    assert index(tmp_path / "made") == index()
    assert available(data_dir) == tuple(SETS)
