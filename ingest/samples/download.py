"""Openly licensed sample sets: downloaded from their public addresses, verified file by file.

`samples.sha256` beside this module names every file with its digest, in the form that
`sha256sum --check` reads. After a change of a set, write it again from a folder that holds the
sets: `python -c "from ingest.samples.download import write_index; write_index('../shared/data')"`.

Left out on purpose: the 13 elliptocyte fields 707 to 732 of Chula with their labels (published as
PNG, and the digests of the published files are not known here), and the white-cell subtypes of
BCCD (a third party's table without a licence).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import file_digest, sha256
from importlib.resources import files
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING
from urllib.parse import quote

from ingest.sources.report import Failure
from search.disk.atomic import write_durably

if TYPE_CHECKING:
    import httpx

GITHUB = "https://raw.githubusercontent.com"
MAX_BYTES = 64 * 1024 * 1024
"""No sample is larger; more than this is not the file that was asked for."""
WORKERS = 8
"""Files that are fetched at once."""
ATTEMPTS = 3
"""How often a file is asked for while the network or the server stumbles."""
GIVE_UP_AFTER = 8
"""After so many files in a row that could not reach the server, the rest is not tried."""
OnProgress = Callable[[int, int], None]
"""Called with files finished and files in all, from the thread that runs `download`."""


@dataclass(frozen=True, kw_only=True)
class SampleSet:
    """One published set, pinned."""

    name: str
    """Also the folder that it is kept in."""
    host: str
    root: str
    """Where its files are below the host."""
    folders: Mapping[str, str] = field(default_factory=dict)
    """Folders that are named otherwise there: ours to theirs."""
    licence: str
    credit: str
    """Whose work it is."""

    def address(self, path: str, base_url: str | None = None) -> str:
        """Public address of a file, given its path below the set's folder here."""
        head, slash, rest = path.partition("/")
        theirs = self.folders.get(head, head) + slash + rest
        return f"{(base_url or self.host).rstrip('/')}/{self.root}/{quote(theirs)}"


SETS: dict[str, SampleSet] = {
    one.name: one
    for one in (
        SampleSet(
            name="bccd",
            host=GITHUB,
            root="Shenggan/BCCD_Dataset/d272fb14cdff6e473fafeeeba32aba5f560e9e43",
            folders={"JPEGImages": "BCCD/JPEGImages", "Annotations": "BCCD/Annotations"},
            licence="MIT",
            credit="(c) 2017 shenggan; original data from cosmicad and akshaylamba",
        ),
        SampleSet(
            name="aslan",
            host=GITHUB,
            root="draaslan/blood-cell-detection-dataset/721d642",
            licence="MIT",
            credit="(c) 2020 Abdüssamet Aslan",
        ),
        SampleSet(
            name="chula",
            host=GITHUB,
            root="Chula-PIC-Lab/Chula-RBC-12-Dataset/fa130f48135d79bbd69f8e540b533511017d6896",
            licence="MIT",
            credit="(c) 2021 Chula PIC Lab; Naruenatthanaset et al., arXiv 2012.01321",
        ),
        SampleSet(
            name="wsi",
            host="https://openslide.cs.cmu.edu",
            root="download/openslide-testdata/Aperio",
            licence="CC0-1.0",
            credit="Carnegie Mellon University, OpenSlide test data",
        ),
    )
}
"""The sets by name."""


class SampleError(RuntimeError):
    """Samples that cannot be had at all, and what to do instead."""


class _Unreachable(Exception):
    """The server was not reached, or stumbled every time."""


class _Refused(Exception):
    """The server's answer is not the file."""


@dataclass(frozen=True)
class SamplesReport:
    """What a download did."""

    folder: Path
    wanted: int
    """Files of the sets that were asked for."""
    present: int
    """Files that were there already, and right."""
    fetched: int
    """Files that were downloaded, verified and kept."""
    failures: tuple[Failure, ...]
    """Files that are not there now, each with its reason."""

    @property
    def ok(self) -> bool:
        """Whether every file that was asked for is there."""
        return not self.failures

    def __str__(self) -> str:
        said = (
            f"{self.wanted} sample files in {self.folder}: {self.fetched} downloaded, "
            f"{self.present} there already, {len(self.failures)} failed"
        )
        if not self.failures:
            return said
        few = "".join(f"\n  {failure}" for failure in self.failures[:5])
        more = f"\n  and {len(self.failures) - 5} more" if len(self.failures) > 5 else ""
        return f"{said}. Run it again to fetch what is missing.{few}{more}"


def default_folder() -> Path:
    """Where samples are kept unless told otherwise: in the user's cache."""
    return Path("~/.cache/hemaseek/samples").expanduser()


def index(path: Path | None = None) -> dict[str, str]:
    """Every sample file with its sha256: the committed list, or another one in its form."""
    text = (
        files("ingest.samples").joinpath("samples.sha256").read_text(encoding="utf-8")
        if path is None
        else path.read_text(encoding="utf-8")
    )
    pairs = (line.split("  ", 1) for line in text.splitlines() if line)
    return {name: digest for digest, name in pairs}


def is_complete(folder: Path, sets: Sequence[str], listed: Mapping[str, str] | None = None) -> bool:
    """Whether every file of these sets is in a folder; names only, digests are not computed."""
    return set(_known(sets)) <= set(available(folder, listed))


def available(folder: Path, listed: Mapping[str, str] | None = None) -> tuple[str, ...]:
    """The sets of which every file is in a folder; names only, digests are not computed."""
    missing = {
        PurePosixPath(path).parts[0]
        for path in (index() if listed is None else listed)
        if not (folder / path).is_file()
    }
    return tuple(name for name in SETS if name not in missing)


def download(
    folder: Path,
    *,
    sets: Sequence[str] | None = None,
    on_progress: OnProgress | None = None,
    base_url: str | None = None,
    listed: Mapping[str, str] | None = None,
) -> SamplesReport:
    """Fetch sample sets; what is there and right is left alone, so a cut run can be repeated.

    Each file appears under its name only when it is whole, verified and on disk. A file that is
    there but has another digest is reported and not replaced.

    Args:
        folder: Gets one folder per set, laid out as published, and `SOURCES.md`.
        sets: Names from `SETS`; all of them by default.
        on_progress: Told after each file.
        base_url: A mirror that holds the same paths, asked instead of each set's host.
        listed: Digest by path, instead of the committed index.

    Raises:
        SampleError: an unknown set, or nothing is here and no server can be reached.
    """
    names = tuple(SETS) if sets is None else _known(sets)
    entries = {
        path: digest
        for path, digest in (index() if listed is None else listed).items()
        if PurePosixPath(path).parts[0] in names
    }
    run = _Run(folder, base_url, on_progress, len(entries))
    missing = run.check(entries)
    if missing:
        _write(folder / "SOURCES.md", sources().encode())
        with _client() as client:
            run.fetch_all(client, missing)
    return run.report()


def sources() -> str:
    """What is said of the sets beside their files: origin, licence, credit."""
    lines = [
        f"- `{one.name}/`: {one.licence}, {one.credit}. {one.host}/{one.root}"
        for one in SETS.values()
    ]
    return "# Sources of the samples\n\nKeep this file with the images.\n\n" + "\n".join(
        [*lines, ""]
    )


def write_index(data: str | Path, to: Path | None = None) -> int:
    """Write the list of sample files with their digests from a folder that holds the sets.

    Returns:
        How many files it names.
    """
    data = Path(data)
    patterns = {
        "bccd": ("LICENSE", "JPEGImages/*.jpg", "Annotations/*.xml"),
        "aslan": ("LICENSE", "annotations.csv", "images/*.png"),
        "chula": ("Dataset/*.jpg", "Label/*.txt"),
        "wsi": ("CMU-1-Small-Region.svs",),
    }
    paths = sorted(
        path
        for name, globs in patterns.items()
        for glob in globs
        for path in (data / name).glob(glob)
        if not (name == "chula" and 707 <= int(path.stem) <= 732)
    )
    lines = [f"{_digest(path)}  {path.relative_to(data).as_posix()}\n" for path in paths]
    target = Path(str(files("ingest.samples").joinpath("samples.sha256"))) if to is None else to
    _write(target, "".join(lines).encode())
    return len(lines)


class _Run:
    """One download: what was found, fetched and refused so far."""

    def __init__(
        self, folder: Path, base_url: str | None, on_progress: OnProgress | None, wanted: int
    ) -> None:
        self.folder = folder
        self.base_url = base_url
        self.on_progress = on_progress
        self.wanted = wanted
        self.present = 0
        self.fetched = 0
        self.failures: list[Failure] = []
        self._missing = 0
        self._unreachable = 0
        self._reached: set[str] = set()
        self._in_a_row: dict[str, int] = {}
        self._lock = threading.Lock()

    def check(self, entries: Mapping[str, str]) -> dict[str, str]:
        """What has to be fetched; files that are right or wrong already are counted."""
        missing: dict[str, str] = {}
        for path, expected in entries.items():
            at = self.folder / path
            if not at.exists():
                missing[path] = expected
            elif (got := _digest(at)) == expected:
                self.present += 1
            else:
                reason = (
                    f"it has sha256 {got}, expected {expected}; delete it and run again, "
                    "or choose another folder"
                )
                self.failures.append(Failure(str(at), reason))
        self._missing = len(missing)
        self._tell()
        return missing

    def fetch_all(self, client: httpx.Client, missing: Mapping[str, str]) -> None:
        """Fetch files side by side; the first of each host alone, to learn if it is there."""
        first: dict[str, str] = {}
        for path in missing:
            first.setdefault(self._host(path), path)
        for path in first.values():
            self._one(client, path, missing[path])
        rest = [path for path in missing if path not in first.values()]
        with ThreadPoolExecutor(WORKERS) as pool:
            waiting = [pool.submit(self._one, client, path, missing[path]) for path in rest]
            try:
                for done in as_completed(waiting):
                    done.result()
                    self._tell()
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise

    def report(self) -> SamplesReport:
        """The outcome.

        Raises:
            SampleError: nothing is here, and nothing could be reached.
        """
        if self._missing and self._unreachable == self._missing and not self.present:
            raise SampleError(
                f"the samples could not be downloaded ({self.failures[0].reason}): connect this "
                "machine to the network, copy the sets from another machine into "
                f"{self.folder}, or go on with your own images or the synthetic smear"
            )
        failures = tuple(sorted(self.failures, key=lambda failure: failure.path))
        return SamplesReport(self.folder, self.wanted, self.present, self.fetched, failures)

    def _host(self, path: str) -> str:
        return self.base_url or SETS[PurePosixPath(path).parts[0]].host

    def _one(self, client: httpx.Client, path: str, expected: str) -> None:
        name, _, rest = path.partition("/")
        url, host = SETS[name].address(rest, self.base_url), self._host(path)
        try:
            if self._given_up(host):
                raise _Unreachable(f"not tried, because {host} could not be reached")
            content = _get(client, url)
            got = sha256(content).hexdigest()
            if got != expected:
                raise _Refused(f"{url} has sha256 {got}, expected {expected}; it was not kept")
            _write(self.folder / path, content)
        except _Unreachable as error:
            self._count(host, reached=False)
            self._fail(path, str(error))
        except _Refused as error:
            self._count(host, reached=True)  # it answered, if not with the file
            self._fail(path, str(error))
        except OSError as error:
            self._fail(path, f"it could not be written: {error}")
        else:
            self._count(host, reached=True)
            with self._lock:
                self.fetched += 1

    def _given_up(self, host: str) -> bool:
        with self._lock:
            patience = GIVE_UP_AFTER if host in self._reached else 1
            return self._in_a_row.get(host, 0) >= patience

    def _count(self, host: str, *, reached: bool) -> None:
        with self._lock:
            self._in_a_row[host] = 0 if reached else self._in_a_row.get(host, 0) + 1
            if reached:
                self._reached.add(host)
            else:
                self._unreachable += 1

    def _fail(self, path: str, reason: str) -> None:
        with self._lock:
            self.failures.append(Failure(str(self.folder / path), reason))

    def _tell(self) -> None:
        if self.on_progress is not None:
            self.on_progress(self.present + self.fetched + len(self.failures), self.wanted)


def _known(sets: Sequence[str]) -> tuple[str, ...]:
    for name in sets:
        if name not in SETS:
            raise SampleError(f"there is no sample set {name!r}; the sets are {', '.join(SETS)}")
    return tuple(sets)


@contextmanager
def _client() -> Iterator[httpx.Client]:
    import httpx

    timeout = httpx.Timeout(30.0, connect=5.0)
    with httpx.Client(follow_redirects=True, timeout=timeout) as client:
        yield client


def _get(client: httpx.Client, url: str) -> bytes:
    """The body at an address, asked for again while the network or the server stumbles."""
    import httpx

    reason = ""
    for attempt in range(ATTEMPTS):
        if attempt:
            time.sleep(0.3 * 3 ** (attempt - 1))
        try:
            with client.stream("GET", url) as answer:
                if answer.status_code == 429 or answer.status_code >= 500:
                    reason = f"{url} answered {answer.status_code}"
                    continue
                if answer.status_code != 200:
                    raise _Refused(f"{url} answered {answer.status_code}")
                return _body(answer, url)
        except httpx.HTTPError as error:
            reason = f"{url} could not be reached: {str(error) or type(error).__name__}"
    raise _Unreachable(reason)


def _body(answer: httpx.Response, url: str) -> bytes:
    parts, size = [], 0
    for part in answer.iter_bytes():
        size += len(part)
        if size > MAX_BYTES:
            raise _Refused(f"{url} gave more than {MAX_BYTES // 2**20} MiB")
        parts.append(part)
    return b"".join(parts)


def _digest(path: Path) -> str:
    with path.open("rb") as handle:
        return file_digest(handle, "sha256").hexdigest()


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_durably(path, content)
