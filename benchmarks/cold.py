"""What a cold start takes: a search without a service, and a service until it answers.

    python benchmarks/cold.py
    python benchmarks/cold.py --before ../checkout-of-another-commit

draws 220 cells, ingests them with each checkout, and then measures the checkouts in turn with the
same Python: `hemaseek search IMAGE` as a process of its own, and `hemaseek serve` up to the first
answer of `/health`, its first search by image and a later one. Wall time is that of the machine
as it is; processor time (of all cores) and memory say what the work is.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import httpx

HERE = Path(__file__).resolve().parents[1]
EACH = 55
"""Cells of each of four kinds."""


def command(checkout: Path, *words: str) -> tuple[list[str], dict[str, str]]:
    environment = os.environ | {"PYTHONPATH": str(checkout), "HEMASEEK_LOG_LEVEL": "error"}
    return [sys.executable, "-m", "ui", *words], environment


def cpu_of(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def searched(checkout: Path, library: Path, image: Path) -> dict[str, float]:
    words, environment = command(checkout, "search", str(image), "--library", str(library))
    begun = time.perf_counter()
    process = subprocess.Popen(words, env=environment, cwd=checkout, stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{words} failed")
    return {
        "search, s": time.perf_counter() - begun,
        "search, processor s": used.ru_utime + used.ru_stime,
        "search, MB": used.ru_maxrss / 1024,
    }


def served(checkout: Path, library: Path, image: Path) -> dict[str, float]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words, environment = command(
        checkout, "serve", "--library", str(library), "--port", str(port)
    )  # fmt: skip
    begun = time.perf_counter()
    process = subprocess.Popen(words, env=environment, cwd=checkout, stderr=subprocess.DEVNULL)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=300) as client:
            while not answers(client):
                time.sleep(0.02)
            up, cpu = time.perf_counter() - begun, cpu_of(process.pid)
            took = [asked(client, image) for _ in range(9)]
    finally:
        process.terminate()
        process.wait(120)
    warm = statistics.median(took[3:])
    return {
        "/health, s": up,
        "/health, processor s": cpu,
        "first /v1/search, s": took[0],
        "warm /v1/search, s": warm,
        "first less warm, s": took[0] - warm,
    }


def answers(client: httpx.Client) -> bool:
    try:
        return client.get("/health").status_code == 200
    except httpx.TransportError:
        return False


def asked(client: httpx.Client, image: Path) -> float:
    begun = time.perf_counter()
    answer = client.post(
        "/v1/search", files={"image": image.read_bytes()}, data={"question": json.dumps({"k": 10})}
    )
    answer.raise_for_status()
    return time.perf_counter() - begun


def library_of(checkout: Path, cells: Path, folder: Path) -> Path:
    words, environment = command(
        checkout, "ingest", str(cells), "--dataset", "drawn", "--library", str(folder)
    )  # fmt: skip
    subprocess.run(words, env=environment, cwd=checkout, check=True, stdout=subprocess.DEVNULL)
    return folder


def main(words: Sequence[str] | None = None) -> None:
    ask = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ask.add_argument("--before", type=Path, help="a checkout of another commit")
    ask.add_argument("--times", type=int, default=5, help="runs of each; medians are printed")
    given = ask.parse_args(words)
    checkouts = {"now": HERE} | ({"before": given.before.resolve()} if given.before else {})
    with tempfile.TemporaryDirectory() as held:
        cells = Path(held) / "cells"
        # In a process of its own: a child's peak of memory is never below its parent's.
        drawing = "import sys; from pathlib import Path; from train.smoke import draw_cells; "
        drawing += f"draw_cells(Path(sys.argv[1]), {EACH}, 96, seed=1)"
        subprocess.run([sys.executable, "-c", drawing, str(cells)], cwd=HERE, check=True)
        image = next(cells.rglob("*.jpg"))
        libraries = {
            name: library_of(checkout, cells, Path(held) / name)
            for name, checkout in checkouts.items()
        }
        runs: dict[str, list[dict[str, float]]] = {name: [] for name in checkouts}
        for _ in range(given.times):
            for name, checkout in checkouts.items():
                there = (checkout, libraries[name], image)
                runs[name].append(searched(*there) | served(*there))
    print(f"load {os.getloadavg()[0]:.1f}, {os.cpu_count()} cores, medians of {given.times}\n")
    print("| | " + " | ".join(checkouts) + " |\n|---" + "|---" * len(checkouts) + "|")
    for what in runs["now"][0]:
        medians = (statistics.median(run[what] for run in runs[name]) for name in checkouts)
        print(f"| {what} | " + " | ".join(f"{value:.2f}" for value in medians) + " |")


if __name__ == "__main__":
    main()
