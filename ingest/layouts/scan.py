"""What a layout finds in a folder, and the walk that every layout shares."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from ingest.slides.source import SLIDES, SlideReader
from ingest.sources.marked import BOXED, CropRule, Mark, Marked
from ingest.sources.report import Failure, Report
from ingest.sources.source import NOTHING, Facts, Reader, Task, Whole
from search.schemas.items import Kind

IMAGES = frozenset({".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp", ".webp"})
"""Endings of the files that are taken for images."""


class LayoutError(ValueError):
    """A folder that cannot be read as it was asked, and what to do about it."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """What a person says about a folder, beside where it is."""

    dataset: str | None = None
    """Name of the dataset; the folder's name if `None`."""
    facts: Facts = NOTHING
    """What holds for every item that says nothing else."""
    rule: CropRule = BOXED
    """How cells are cut from fields."""
    kind: Kind = "cell"
    """What a whole image shows."""
    slides: SlideReader = field(default_factory=SlideReader)
    """How whole slides are cut into tiles."""
    find: bool | None = None
    """Whether unlabelled images are searched for cells; `None`: by what they look like."""


@dataclass(frozen=True)
class Layout:
    """A way in which published and own sets lie on disk."""

    name: str
    describes: str
    """One line for the help."""
    read: Callable[[Scan], None]
    """Fills in the tasks and what is wrong already."""
    sure: Callable[[Path], bool] | None = None
    """Whether a path is unmistakably of this layout; `None`: only when it is named."""


@dataclass
class Scan:
    """The tasks of a folder, and what is wrong with it already."""

    root: Path
    options: Options
    known: Mapping[str, Layout] = field(default_factory=dict)
    """Every layout by name, for a tree that holds folders of several."""
    tasks: list[Task] = field(default_factory=list)
    report: Report = field(default_factory=Report)
    """Hand it to `ingest`, so that one report tells all."""

    @property
    def dataset(self) -> str:
        """The name of the dataset."""
        named = self.options.dataset
        return named or (self.root.parent if self.root.is_file() else self.root).resolve().name

    def add(
        self,
        path: Path,
        reader: Reader,
        facts: Facts = NOTHING,
        dataset: str | None = None,
    ) -> None:
        """One more source; the folder's facts hold where its own say nothing."""
        told = facts.over(self.options.facts)
        self.tasks.append(
            Task(path=path, dataset=dataset or self.dataset, reader=reader, facts=told)
        )

    def whole(self, path: Path, facts: Facts = NOTHING) -> None:
        """One more image that is an item as it is; a slide gives its tiles."""
        slide = path.suffix.lower() in SLIDES
        self.add(path, self.options.slides if slide else Whole(self.options.kind), facts)

    def marked(
        self,
        path: Path,
        marks: Sequence[Mark],
        size: tuple[int, int] | None = None,
        rule: CropRule | None = None,
    ) -> None:
        """One more field with marked cells."""
        self.add(path, Marked(tuple(marks), rule or self.options.rule, size))

    def fail(self, path: Path, reason: str, where: str = "") -> None:
        """One more thing that cannot be ingested."""
        self.report.failures.append(Failure(str(path), reason, where))

    def warn(self, text: str) -> None:
        """One more thing that a person should know."""
        self.report.warnings.append(text)

    def left_alone(self, others: Iterable[Path]) -> None:
        """Count the files that are no images and that the layout does not know."""
        others = list(others)
        kinds = Counter(path.suffix.lower() or path.name for path in others)
        tables = [path for path in others if path.suffix.lower() == ".csv" and names_files(path)]
        if kinds:
            told = ", ".join(f"{name} {count}" for name, count in sorted(kinds.items()))
            self.warn(f"{kinds.total()} files in {self.root} are no images and stay out: {told}")
        for path in tables:
            self.warn(f"{path} looks like a manifest, which is read only when it is named itself")


def names_files(path: Path) -> bool:
    """Whether the first line of a CSV file has the column `path`, as a manifest has."""
    try:
        with path.open("rb") as handle:
            first = handle.readline(4096)
    except OSError:
        return False
    return b"path" in [name.strip().strip(b'"\xef\xbb\xbf') for name in first.split(b",")]


def walk(root: Path) -> tuple[list[Path], list[Path]]:
    """The images and the other files under a folder, in order of path; hidden ones are left out.

    Raises:
        LayoutError: not a folder, or it cannot be read.
    """
    if not root.is_dir():
        what = "is a file" if root.exists() else "does not exist"
        raise LayoutError(f"{root} {what}; name a folder")
    images: list[Path] = []
    others: list[Path] = []

    def refuse(error: OSError) -> None:
        raise LayoutError(f"cannot look into {error.filename}: {error.strerror}") from error

    for folder, names, files in os.walk(root, onerror=refuse):
        names[:] = sorted(n for n in names if not n.startswith(".") and n != "__MACOSX")
        for name in files:
            if not name.startswith("."):
                path = Path(folder, name)
                (images if path.suffix.lower() in IMAGES else others).append(path)
    return sorted(images), sorted(others)


def by_stem(images: Iterable[Path]) -> dict[Path, list[Path]]:
    """Images by their path without ending, to find the one that an annotation belongs to."""
    found: dict[Path, list[Path]] = {}
    for path in images:
        found.setdefault(path.with_suffix(""), []).append(path)
    return found


def points(rule: CropRule, px: int) -> CropRule:
    """The rule, with a size for points where it has none."""
    return rule if rule.point_px is not None else replace(rule, point_px=px)


def read_text(path: Path) -> str:
    """A text file, UTF-8 with or without a byte order mark, or Latin-1.

    Raises:
        LayoutError: it cannot be read.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise LayoutError(f"cannot read {path}: {error.strerror}") from error
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("latin-1")
