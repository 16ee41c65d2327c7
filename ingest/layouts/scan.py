"""What a layout finds in a folder, and the walk that every layout shares."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from ingest.slides.source import SLIDES, SlideReader
from ingest.smears.source import FieldReader
from ingest.sources.marked import BOXED, CropRule, Mark, Marked
from ingest.sources.report import Failure, Report
from ingest.sources.source import NOTHING, Facts, Reader, Task, Whole
from ingest.sources.text import TextError, decode_text, printable
from search.schemas.cases import CaseChange
from search.schemas.items import Kind

IMAGES = frozenset({".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp", ".webp"})
"""Endings of the files that are taken for images."""
SLIDE_REASON = "it is a slide in a set of images; ingest it by itself"
HIDDEN = frozenset({"__MACOSX", "@eaDir", "$RECYCLE.BIN", "System Volume Information"})
"""Folders that systems make for themselves."""


class LayoutError(ValueError):
    """A folder that cannot be read in its layout, and what to do about it."""

    def __init__(self, message: str) -> None:
        super().__init__(printable(message))


@dataclass(frozen=True, kw_only=True)
class Options:
    """What a person states about a folder, beside where it is."""

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
    fields: FieldReader = field(default_factory=FieldReader)
    """How cells of photographs are found."""
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
    sure: Callable[[Files], bool] | None = None
    """Whether a folder is unmistakably of this layout; `None`: only when it is named."""

    def into(self, scan: Scan) -> None:
        """Read a folder; what a damaged table makes its reader raise is a refusal too.

        Raises:
            LayoutError: it cannot be read in this layout.
        """
        try:
            self.read(scan)
        except LayoutError:
            raise
        except (ArithmeticError, AttributeError, LookupError, OSError, TypeError, ValueError) as e:
            raise LayoutError(
                f"{scan.root} cannot be read as layout {self.name!r}: what its tables hold is not "
                f"what the layout has there ({type(e).__name__}: {str(e)[:200]}); mend them, "
                "or name another layout"
            ) from e


@dataclass
class Scan:
    """The tasks of a folder, and what is wrong with it already."""

    root: Path
    options: Options
    uses_find: bool = False
    """Whether `Options.find` decides over an image of it."""
    named: bool = False
    """Whether a person named the layout."""
    known: Mapping[str, Layout] = field(default_factory=dict)
    """Every layout by name, for a tree that holds folders of several."""
    tasks: list[Task] = field(default_factory=list)
    cases: list[CaseChange] = field(default_factory=list)
    """What the tables say of cases, beside their images."""
    report: Report = field(default_factory=Report)
    """Hand it to `ingest`, so that one report holds all."""
    _files: dict[Path, Files] = field(default_factory=dict)
    """What was found below each folder."""
    _seen: set[Path] = field(default_factory=set)
    """Files that are there."""
    _known: set[Path] = field(default_factory=set)
    """Files that became tasks, were read as tables, failed or were left out."""

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
        known = facts.over(self.options.facts)
        self.tasks.append(
            Task(path=path, dataset=dataset or self.dataset, reader=reader, facts=known)
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
        self.report.failures.append(Failure(printable(path), reason, where))
        self._known.add(path)

    def has_failed(self, path: Path) -> bool:
        """Whether something about a file is among the failures."""
        return any(failure.path == printable(path) for failure in self.report.failures)

    def warn(self, text: str) -> None:
        """One more thing that a person should know."""
        self.report.warnings.append(printable(text))

    def text(self, path: Path) -> str:
        """The text of a file that may turn out to be no table; empty if it is no text."""
        try:
            return read_text(path)
        except LayoutError:
            return ""

    def table(self, path: Path) -> str:
        """The text of an annotation file; a warning where its encoding was guessed.

        One that cannot be read, or is no text, is a failure in the report and empty.

        Raises:
            LayoutError: it is the root of the scan, and cannot be read.
        """
        try:
            text, encoding = text_of(path)
        except LayoutError as error:
            if path == self.root:
                raise
            self.fail(path, str(error))
            return ""
        self._known.add(path)
        self.report.tables += 1
        if not encoding.startswith("utf"):
            named = {"cp1252": "Windows-1252", "mac_roman": "Mac Roman"}[encoding]
            self.warn(f"{printable(path)} is not UTF-8; it was read as {named}")
        return text

    def leave(self, paths: Iterable[Path], reason: str) -> None:
        """Files that are not read, and why: counted in the report."""
        new = set(paths) - self._known
        self._known |= new
        if new:
            left = self.report.left_out
            left[reason] = left.get(reason, 0) + len(new)

    def left_alone(self, others: Iterable[Path]) -> None:
        """Files that are no images and that the layout does not know."""
        others = [path for path in others if path not in self._known]
        kinds = Counter(path.suffix.lower() or path.name for path in others)
        tables = [path for path in others if path.suffix.lower() == ".csv" and names_files(path)]
        if kinds:
            listed = ", ".join(f"{name} {count}" for name, count in sorted(kinds.items()))
            self.warn(f"{kinds.total()} files in {self.root} are no images and stay out: {listed}")
        self.account()
        for path in tables:
            self.warn(f"{path} looks like a manifest, which is read only when it is named itself")

    def walk(self, root: Path | None = None) -> tuple[list[Path], list[Path]]:
        """The images and the other files under a folder, in order of path.

        Links are followed. Hidden files and folders do not count. A link back to a folder above
        it, and a name that is no text, are reported.

        Raises:
            LayoutError: not a folder, or it cannot be read.
        """
        folder = root or self.root
        found = self._files[folder] = self._files.get(folder) or Files(folder)
        for path, reason in found.unusable.items():
            if path not in self._known:
                self.fail(path, reason)
                self.report.sources += 1
        self._seen |= {*found.images, *found.others}
        return found.images, found.others

    def account(self) -> None:
        """After the layout: each file that was seen and not named by it is left out, counted."""
        self._known |= {task.path for task in self.tasks}
        rest = sorted(self._seen - self._known)
        images = [path for path in rest if path.suffix.lower() in IMAGES]
        self.leave(images, "the annotations do not name it")
        self.leave((p for p in rest if p.suffix.lower() in SLIDES), SLIDE_REASON)
        self.leave(rest, "it is no image")

    def take_in(self, inner: Scan) -> None:
        """The tasks and the report of a folder that was read on its own."""
        inner.account()
        self.tasks += inner.tasks
        self.cases += inner.cases
        self.report.add(inner.report)
        self.uses_find |= inner.uses_find
        self._known |= inner._known | inner._seen


def names_files(path: Path) -> bool:
    """Whether the first line of a CSV file has the column `path`, as a manifest has."""
    try:
        with path.open("rb") as handle:
            first = handle.readline(4096)
    except OSError:
        return False
    return b"path" in [name.strip().strip(b'"\xef\xbb\xbf') for name in first.split(b",")]


class Files:
    """The visible files under a folder, links followed.

    Raises:
        LayoutError: not a folder, or it cannot be read.
    """

    def __init__(self, root: Path) -> None:
        if not root.is_dir():
            what = "is a file" if root.exists() else "does not exist"
            raise LayoutError(f"{root} {what}; name a folder")
        self.root = root
        self.images: list[Path] = []
        """In order of path."""
        self.others: list[Path] = []
        self.unusable: dict[Path, str] = {}
        """Entries that cannot be read, and why."""
        self._walk(root, (root.resolve(),))
        self.images.sort()
        self.others.sort()

    def near(self, ending: str, depth: int = 2) -> list[Path]:
        """Other files with an ending that lie in the folder itself or, with depth 2, just below.

        A set is recognised at its own root: what lies deeper belongs to a set within the tree.
        """
        return [
            path
            for path in self.others
            if path.suffix.lower() == ending and len(path.relative_to(self.root).parts) <= depth
        ]

    def _walk(self, folder: Path, above: tuple[Path, ...]) -> None:
        try:
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError as error:
            raise LayoutError(f"cannot look into {error.filename}: {error.strerror}") from error
        for entry in entries:
            path = Path(entry.path)
            if is_hidden(entry.name):
                continue
            if path.is_dir():
                real = path.resolve() if entry.is_symlink() else above[-1] / entry.name
                if real in above:
                    self.unusable[path] = "it is a link to a folder above it, and was not followed"
                else:
                    self._walk(path, (*above, real))
            elif printable(path) != str(path):
                self.unusable[path] = "its name is no UTF-8 text; rename it"
            elif path.is_file():
                (self.images if path.suffix.lower() in IMAGES else self.others).append(path)
            elif not path.exists():
                self.unusable[path] = "No such file or directory"  # a link to nothing
            else:
                self.unusable[path] = "it is no regular file"


def is_hidden(name: str) -> bool:
    """Whether a file or folder is not shown to a person, or was made by a system for itself."""
    return name.startswith(".") or name in HIDDEN


def points(rule: CropRule, px: int) -> CropRule:
    """The rule, with a size for points where it has none."""
    return rule if rule.point_px is not None else replace(rule, point_px=px)


def text_of(path: Path) -> tuple[str, str]:
    """A text file in composed form with plain line ends, and its encoding.

    Raises:
        LayoutError: it cannot be read, or is no text.
    """
    try:
        return decode_text(path.read_bytes())
    except OSError as error:
        raise LayoutError(f"cannot read {printable(path)}: {error.strerror}") from error
    except TextError as error:
        raise LayoutError(f"{printable(path)} cannot be read: {error}") from error


def read_text(path: Path) -> str:
    """The text of `text_of`, to look at before a layout is chosen."""
    return text_of(path)[0]
