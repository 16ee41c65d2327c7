"""Damaged and malicious tables, archives and outlines: each is read, or refused in words.

    uv run --extra all python benchmarks/mutants_files.py [--count 6000] [--only KIND]

Shards and labelled sets (Parquet, ZIP), cards, questions and case records (JSON), COCO and GeoJSON,
YOLO's YAML, manifests and tables of cases (CSV), vectors (HDF5, safetensors, npz) and DICOM
headers are cut short, bit-flipped, spliced, given extreme values or blown up, always the same for
the same number, and read by the functions that the product reads them with, in a child with a bound
on its address space. A child that dies, an error that is none of the product's own words, or more
than `SLOW_S` seconds is a fault.
"""

from __future__ import annotations

import argparse
import copy
import io
import json
import os
import pickle
import resource
import shutil
import signal
import sys
import tempfile
import time
import zipfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks.kill_operations import item, shard
from encoder.card import EncoderCard
from encoder.contract import EncoderError
from encoder.registry import load
from ingest.features.files import read_features
from ingest.layouts.known import scan
from ingest.layouts.mixed import series
from ingest.sandbox.messages import Refusal
from ingest.slides.regions import Regions
from ingest.sources.text import decode_text
from search.cases.table import read_cases
from search.errors import StoreError
from search.evaluation.uploaded_sets import _pictures
from search.library import uploads
from search.library.shards import ShardError
from search.query.pictures import MemoryBudget, Pictures
from search.schemas.cases import CaseRecordsWanted
from search.schemas.questions import Question

CARD = load("colour").card
ADDRESS_SPACE = 6 << 30
SLOW_S = 20
TABLE, CASES = (
    "path,label,patient,x,y,w,h\na.png,LY,P1,1,2,9,9\na.png,MO,P2,5,5,9,9\n",
    ("case;diagnosis;sex;age_band;date;blasts\nC1;AML;f;60-69;2024-03-01;12\nC2;CLL;m;90+;;3\n"),
)
EXTREMES: tuple[Any, ...] = (
    None, True, -1, 0, 2**63, 10**400, 1e308, float("nan"), float("inf"), "", "\0", "\ud800",
    "x" * 10**6, [], [[]], {}, [None], {"a": []}, ["x"] * 10_000,
    "../../../../etc/passwd", "=cmd()", 1.5, "١٢",
)  # fmt: skip
Reader = Callable[[Path], object]


def picture(side: int = 40) -> bytes:
    out = io.BytesIO()
    pixels = np.random.default_rng(side).integers(0, 255, (side, side, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


def in_folder(name: str) -> Reader:
    """Read a file as the annotations of a folder with two pictures."""

    def read(path: Path) -> object:
        folder = path.parent / "folder"
        shutil.rmtree(folder, ignore_errors=True)
        for part in ("images", "labels"):
            (folder / part).mkdir(parents=True)
        if name == "data.yaml":
            (folder / "images" / "b.png").write_bytes(picture())
            (folder / "labels" / "b.txt").write_text("0 0.5 0.5 0.2 0.2\n")
        else:
            (folder / "a.png").write_bytes(picture())
        path.rename(folder / name)
        return scan(folder / name if name.endswith((".csv", ".json")) else folder)

    return read


def a_set(path: Path) -> object:
    """A ZIP of labelled pictures, decoded as the service does."""
    found: list[Any] = []
    decoder = Pictures(MemoryBudget(256 << 20, 1), 20_000_000, 1_000_000_000)
    return [len(b) for b in decoder.batches(_pictures(path.read_bytes(), 1 << 26, found))]


def a_shard(path: Path) -> object:
    """As the child of `search.library.uploads` reads it, which turns every error into words."""
    try:
        return uploads._check(path.read_bytes(), CARD.to_json())
    except Exception as error:
        raise ShardError(f"{type(error).__name__}: {error}") from error


def coco() -> dict[str, Any]:
    box = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 2, 9, 9], "iscrowd": 0}
    outline = {**box, "id": 2, "bbox": [], "segmentation": [[1, 1, 9, 1, 9, 9]]}
    runs = {"size": [40, 40], "counts": [100, 30, 1470]}
    crowd = {**box, "id": 3, "iscrowd": 1, "segmentation": runs}
    packed = {**crowd, "segmentation": {"size": [40, 40], "counts": "T3o0a1"}}
    return {
        "images": [{"id": 1, "file_name": "a.png", "width": 40, "height": 40}],
        "categories": [{"id": 1, "name": "LY"}],
        "annotations": [box, outline, crowd, packed],
    }


def geojson() -> dict[str, Any]:
    ring = [[1, 1], [30, 1], [30, 30], [1, 30], [1, 1]]
    area = {"type": "Polygon", "coordinates": [ring, [[5, 5], [9, 5], [9, 9]]]}
    one = {"type": "Feature", "geometry": area, "properties": {"classification": {"name": "LY"}}}
    many = {"type": "Feature", "geometry": {"type": "MultiPolygon", "coordinates": [[ring]]}}
    return {"type": "FeatureCollection", "features": [one, many]}


def arrays(kind: str) -> bytes:
    """Vectors as one of the formats that are taken."""
    vectors = np.zeros((5, 8), np.float32)
    coords, out = np.zeros((5, 2), np.int64), io.BytesIO()
    if kind == "h5":
        import h5py

        with h5py.File(out, "w") as file:
            file["features"], file["coords"] = vectors, coords
            file["coords"].attrs["patch_size"] = 256
    elif kind == "npz":
        np.savez(out, features=vectors[:1], tile_index=np.arange(1))
    else:
        from safetensors.numpy import save

        return save({"features": vectors, "coords": coords})
    return out.getvalue()


def dicom() -> bytes:
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, generate_uid

    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = meta.MediaStorageSOPInstanceUID = "1.2.840.10008.5.1"
    made = FileDataset("x", {}, file_meta=meta, preamble=b"\0" * 128)
    made.PatientName, made.SeriesInstanceUID = "Roe^Jane", generate_uid(entropy_srcs=["a"])
    out = io.BytesIO()
    made.save_as(out, enforce_file_format=True)
    return out.getvalue()


def zipped() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("manifest.csv", "path,label,patient\na.png,LY,P1\nb.png,MO,P2\n")
        for name in ("a.png", "b.png"):
            archive.writestr(name, picture())
    return out.getvalue()


def kinds() -> dict[str, tuple[str, bytes | dict[str, Any], Reader]]:
    """By name: ending, a healthy file (bytes, or what JSON writes), and what reads it."""
    question = {"item": "0" * 8 + "-0000-0000-0000-" + "0" * 12, "k": 3, "where": {"label": ["LY"]}}
    record = {"changes": [{"case": "C1", "diagnosis": "AML", "more": {"blasts": 3}}]}
    return {
        "shard (Parquet)": (
            ".parquet", shard([item(at) for at in range(6)]),
            a_shard,
        ),
        "labelled set (ZIP)": (".zip", zipped(), a_set),
        "card (JSON)": (
            ".json", json.loads(CARD.to_json()),
            lambda path: EncoderCard.from_json(path.read_text(errors="replace"), "the card"),
        ),
        "question (JSON)": (
            ".json", question | {"vector": [0.5, 0.5]},
            lambda path: Question.model_validate_json(path.read_bytes()),
        ),
        "case records (JSON)": (
            ".json", record, lambda path: CaseRecordsWanted.model_validate_json(path.read_bytes()),
        ),
        "COCO (JSON)": (".json", coco(), in_folder("a.json")),
        "QuPath (GeoJSON)": (".geojson", geojson(), in_folder("a.geojson")),
        "regions (GeoJSON)": (".geojson", geojson(), Regions.read),
        "classes (YAML)": (".yaml", b"names:\n  0: LY\n  1: MO\nnc: 2\npath: .\ntrain: images\n",
                           in_folder("data.yaml")),
        "manifest (CSV)": (".csv", TABLE.encode(), in_folder("table.csv")),
        "cases (CSV)": (
            ".csv", CASES.encode(), lambda path: read_cases(decode_text(path.read_bytes())[0]),
        ),
        "vectors (HDF5)": (".h5", arrays("h5"), read_features),
        "vectors (npz)": (".npz", arrays("npz"), read_features),
        "vectors (safetensors)": (".safetensors", arrays("safetensors"), read_features),
        "DICOM header": (".dcm", dicom(), series),
    }  # fmt: skip


MINE = (Refusal, StoreError, EncoderError, ValueError, LookupError)
"""What is a refusal in words; of the latter two only classes of our own, or of pydantic."""


def refused(error: BaseException) -> bool:
    module = type(error).__module__
    ours = module.startswith(("ingest.", "search.", "encoder.", "pydantic"))
    return isinstance(error, MINE) and ours and bool(str(error))


# ---------------------------------------------------------------- mutations


def mutant(number: int, base: bytes | dict[str, Any]) -> bytes:
    """A damaged file; the same for the same number. The first is healthy, and must be read."""
    if number == 0:
        return json.dumps(base).encode() if isinstance(base, dict) else base
    rng = np.random.default_rng([11, number])
    if isinstance(base, dict) and number % 4:
        changed = copy.deepcopy(base)
        for _ in range(int(rng.integers(1, 4))):
            at_random(changed, rng)
        text = json.dumps(changed, ensure_ascii=bool(number % 3))
        return text.encode(errors="surrogatepass")
    data = bytearray(json.dumps(base).encode() if isinstance(base, dict) else base)
    match int(rng.integers(7)):
        case 0:
            del data[int(rng.integers(0, len(data))) :]
        case 1:
            for at in rng.integers(0, len(data), int(rng.integers(1, 40))):
                data[at] ^= 1 << int(rng.integers(8))
        case 2:
            at = int(rng.integers(0, len(data)))
            data[at : at + 40] = rng.bytes(40)
        case 3:
            a, b, c = (int(x) for x in rng.integers(0, len(data), 3))
            data[a:a] = data[min(b, c) : max(b, c)] * int(rng.integers(1, 50))
        case 4:
            at = int(rng.integers(0, max(1, len(data) - 8)))
            extreme = int(rng.choice([0, 1, 2**31 - 1, 2**32 - 1, 2**62]))
            data[at : at + 8] = extreme.to_bytes(8, rng.choice(["little", "big"]))
        case 5:
            word = str(EXTREMES[int(rng.integers(len(EXTREMES)))])[:5000]
            at = int(rng.integers(0, len(data)))
            data[at : at + 1] = word.encode(errors="surrogatepass")
        case _:
            return bomb(rng, bytes(data))
    return bytes(data)


def at_random(tree: Any, rng: np.random.Generator) -> None:
    """Put an extreme value at a random place of a tree."""
    while True:
        keys = list(tree) if isinstance(tree, dict) else list(range(len(tree)))
        if not keys:
            return
        key = keys[int(rng.integers(len(keys)))]
        if isinstance(tree[key], dict | list) and tree[key] and rng.random() < 0.8:
            tree = tree[key]
            continue
        tree[key] = copy.deepcopy(EXTREMES[int(rng.integers(len(EXTREMES)))])
        return


def bomb(rng: np.random.Generator, base: bytes) -> bytes:
    """A small file that unfolds, nests, or brings code."""
    laughs = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12)
    )
    out = io.BytesIO()
    match int(rng.integers(8)):
        case 0:
            return b"[" * 200_000
        case 1:
            return b'{"a":' * 100_000
        case 2:
            return (laughs + "names: *a11\npath: *a11\nnc: *a11\n").encode()
        case 3:
            return pickle.dumps({"features": Evil()})
        case 4:
            with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
                archive.writestr("LY/a.png", bytes(300 << 20))
                archive.writestr("../../evil.png", picture())
        case 5:
            np.savez(out, features=np.array([Evil()], object))
        case 6:
            import h5py

            with h5py.File(out, "w") as file:
                shape = (int(rng.choice([10**6, 10**9])), 4096)
                file.create_dataset("features", shape, "f4", chunks=(1024, 64), compression=9)
        case _:
            return base.replace(b"\n", b"\n" + b",;" * 50_000 + b"\n")
    return out.getvalue()


class Evil:
    """A pickle that would leave a file behind if it were opened as one."""

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, (f"touch {MARK}",)


MARK = Path(tempfile.gettempdir()) / f"opened-a-pickle-{os.getpid()}"

# ---------------------------------------------------------------- the run


@dataclass
class Outcome:
    """How it went."""

    ended: Counter[tuple[str, str]] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    peak_mib: float = 0.0


def run(count: int, only: str = "") -> Outcome:
    """Read so many mutants, of each kind as many as of the others."""
    outcome = Outcome()
    with tempfile.TemporaryDirectory() as name:
        chosen = [one for one in kinds() if only in one]
        for called in chosen:
            left = list(range(-(-count // len(chosen))))
            while left:  # a child that died is replaced, and goes on after what killed it
                done = in_child(called, left, Path(name), outcome)
                left = left[done:]
    return outcome


def in_child(called: str, numbers: list[int], folder: Path, outcome: Outcome) -> int:
    """Read mutants in one child; how many it got through, the one that killed it included."""
    ending, base, read = kinds()[called]
    into, out = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(into)
        _read_all(numbers, folder / f"m{ending}", base, read, out)
        os._exit(0)
    os.close(out)
    lines = os.fdopen(into).read().splitlines()
    status = os.waitpid(pid, 0)[1]
    for line in lines:
        end, _, rest = line.partition("\t")
        if end == "peak":
            outcome.peak_mib = max(outcome.peak_mib, float(rest))
            continue
        outcome.ended[called, end] += 1
        if end == "fault":
            outcome.faults.append(f"{called}: {rest}")
    done = sum(not line.startswith("peak") for line in lines)
    if status and done < len(numbers):
        outcome.ended[called, "its child died"] += 1
        outcome.faults.append(f"{called}: {numbers[done]} killed its child (status {status})")
        done += 1
    return done


def _read_all(
    numbers: list[int], path: Path, base: bytes | dict[str, Any], read: Reader, out: int
) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    for number in numbers:
        path.write_bytes(mutant(number, base))
        began = time.monotonic()
        signal.alarm(5 * SLOW_S)
        try:
            read(path)
            line = "read"
        except Exception as error:
            line = "refused" if refused(error) and number else "fault"
            if line == "fault":
                where = error.__traceback__
                while where and where.tb_next:
                    where = where.tb_next
                at = f"{where.tb_frame.f_code.co_filename[-50:]}:{where.tb_lineno}" if where else ""
                line += f"\t{number} {type(error).__name__}: {str(error)[:200]!r} {at}"
        if time.monotonic() - began > SLOW_S:
            line = f"fault\t{number} took {time.monotonic() - began:.0f} s"
        if MARK.exists():
            line = f"fault\t{number} ran the code of a pickle"
        os.write(out, f"{line}\n".encode(errors="replace"))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    os.write(out, f"peak\t{peak}\n".encode())


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--count", type=int, default=6000)
    options.add_argument("--only", default="")
    chosen = options.parse_args()
    began = time.perf_counter()
    outcome = run(chosen.count, chosen.only)
    MARK.unlink(missing_ok=True)
    ends = ("read", "refused", "fault", "its child died")
    print("| kind | " + " | ".join(ends) + " |\n|---" + "|---" * len(ends) + "|")
    for kind in kinds():
        print(f"| {kind} | " + " | ".join(str(outcome.ended[kind, end]) for end in ends) + " |")
    whole = [sum(n for (_, how), n in outcome.ended.items() if how == end) for end in ends]
    print("| all | " + " | ".join(map(str, whole)) + " |\n")
    print(f"{sum(whole):,} mutants, {time.perf_counter() - began:.0f} s; largest child "
          f"{outcome.peak_mib:,.0f} MiB")  # fmt: skip
    print(*outcome.faults[:60], sep="\n")


if __name__ == "__main__":
    main()
