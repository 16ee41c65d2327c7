"""Find a weights file, or fetch it: to a temporary name, verified, then renamed."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import file_digest, sha256
from pathlib import Path
from string import hexdigits
from typing import IO

from encoder.contract import EncoderError
from encoder.durable import replacing


@dataclass(frozen=True, kw_only=True)
class WeightsFile:
    """One published file."""

    name: str
    """Its name below the weights folder, as published; a folder in front where it is ambiguous."""
    url: str
    """Its public address."""
    sha256: str | None = None
    """Its digest, where it is known."""


class MissingWeights(EncoderError):
    """Weights that are not here and could not be fetched."""


class NotPublished(OSError):
    """The server answers, but has no such file."""


class WrongDigest(EncoderError):
    """A file that is not the one that was published or recorded."""


def weights_folder() -> Path:
    """Where weights are looked for and kept: `HEMASEEK_WEIGHTS`, else in the user's cache."""
    return Path(os.environ.get("HEMASEEK_WEIGHTS") or "~/.cache/hemaseek/weights").expanduser()


def digest_of(path: Path) -> str:
    """The sha256 of a file, in hex."""
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()


def locate(id: str, files: Sequence[WeightsFile], given: Path | None = None) -> tuple[Path, str]:
    """The weights of an encoder: the given file, one from the weights folder, or a download.

    Args:
        id: What errors call the encoder.
        files: Its published files, the preferred one first.
        given: A local file, used as it is.

    Returns:
        The file and its sha256, computed from the file as it now lies on disk.

    Raises:
        MissingWeights: not there, and no download succeeded.
        WrongDigest: another digest than the pinned one or the one recorded at the download.
    """
    if given is not None:
        if not given.is_file():
            raise MissingWeights(f"encoder {id!r}: there is no weights file at {given}")
        pinned = {file.sha256 for file in files if Path(file.name).name == given.name} - {None}
        return given, verified(given, next(iter(pinned)) if len(pinned) == 1 else None)
    folder = weights_folder()
    for file in files:
        path = folder / file.name
        if path.is_file():
            return path, verified(path, file.sha256)
    why = "no address is known"
    for file in files:
        try:
            return folder / file.name, fetch(file, folder / file.name)
        except NotPublished as error:
            why = str(error)
        except OSError as error:
            # Not the next file: which layout is loaded, and with it the fingerprint, must not
            # depend on the network of the day.
            why = str(error)
            break
    choices = " or ".join(f"{file.name} ({file.url})" for file in files)
    raise MissingWeights(
        f"encoder {id!r} needs weights that are not here and could not be downloaded "
        f"({why}): put {choices} into {folder}, or set HEMASEEK_WEIGHTS to the folder "
        "that holds it"
    )


def verified(path: Path, pinned: str | None) -> str:
    """The digest of a file, held against the pinned one and the one recorded beside it.

    Raises:
        WrongDigest: it is another.
    """
    record = path.with_name(path.name + ".sha256")
    expected = pinned or (record.read_text().split()[0] if record.is_file() else None)
    got = digest_of(path)
    if expected is not None and got != expected:
        raise WrongDigest(
            f"{path} has sha256 {got}, expected {expected}: it is damaged or another file; "
            "delete it and fetch it again, or give a file of your own by its path"
        )
    return got


def fetch(file: WeightsFile, to: Path) -> str:
    """Download a file with a progress bar on stderr and record its digest beside it.

    The digest is held against the pinned one, else against the one that the server declares
    (`X-Linked-ETag` of the Hugging Face hub), else only recorded. The file appears under its
    name only when it is whole, verified and on disk.

    Returns:
        The sha256.

    Raises:
        OSError: the network or the disk failed.
        WrongDigest: what came is not what was promised.
    """
    to.parent.mkdir(parents=True, exist_ok=True)
    with replacing(to) as out:
        got, declared = _stream(file.url, out, to.name)
        expected = file.sha256 or declared
        if expected is not None and got != expected:
            raise WrongDigest(
                f"{file.url} gave a file with sha256 {got}, expected {expected}; nothing was kept"
            )
        # The record first: a file without it would be taken unverified after a crash.
        with replacing(to.with_name(to.name + ".sha256")) as record:
            record.write(f"{got}  {to.name}\n".encode())
    return got


def _stream(url: str, out: IO[bytes], name: str) -> tuple[str, str | None]:
    """Write the body of `url`; its digest, and the one that the server declares."""
    import httpx
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    running = sha256()
    timeout = httpx.Timeout(30.0, connect=10.0)
    try:
        with (
            httpx.stream("GET", url, follow_redirects=True, timeout=timeout) as answer,
            Progress(*columns, console=Console(stderr=True)) as progress,
        ):
            answer.raise_for_status()
            length = answer.headers.get("Content-Length")
            task = progress.add_task(name, total=int(length) if length else None)
            for chunk in answer.iter_bytes(1 << 20):
                out.write(chunk)
                running.update(chunk)
                progress.update(task, advance=len(chunk))
            hops = [*answer.history, answer]
    except httpx.HTTPStatusError as error:
        status = error.response.status_code
        kind = NotPublished if status in (404, 410) else OSError
        raise kind(f"{url} answered {status}") from error
    except httpx.HTTPError as error:
        raise OSError(f"{url}: {error or type(error).__name__}") from error
    tags = [hop.headers.get("X-Linked-ETag", "").strip('W/"') for hop in hops]
    digests = [tag for tag in tags if len(tag) == 64 and set(tag) <= set(hexdigits)]
    return running.hexdigest(), digests[0].lower() if digests else None
