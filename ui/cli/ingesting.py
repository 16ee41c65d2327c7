"""An ingest as a person runs it: the right sink, a progress bar, a report in words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ui.cli.options import EncoderOption
from ui.look.tables import count

if TYPE_CHECKING:
    from encoder.card import EncoderCard
    from encoder.contract import Encoder
    from encoder.stains.normalisers import Normaliser
    from ingest.layouts.scan import Options, Scan
    from ingest.pipeline.ledger import Ledger
    from ingest.pipeline.sink import Destination, Sink
    from ingest.sources.report import OnProgress, Progress, Report
    from ingest.sources.source import Task
    from search.index.contract import BuildReport
    from search.schemas.cases import CaseChange
    from search.settings import Settings

NOTED_S = 2.0
"""Seconds between two updates of the progress that `hemaseek jobs` shows."""
FILES = ("regions", "stain_target")
"""Fields of a request that name one file."""
SHOWN_FAILURES = 20
"""How many failures are printed; the report file has all."""


@dataclass(frozen=True)
class Run:
    """The result of an ingest."""

    report: Report
    index: BuildReport | None
    """What the build of the graph measured; `None` if nothing was stored."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """What is ingested, and how: options of `hemaseek ingest`, kept by the ledger for a retry."""

    paths: Annotated[
        list[Path], typer.Argument(help="Folders, slides, CSV manifests or COCO files.")
    ]
    layout: Annotated[
        str | None,
        typer.Option(
            help="How the files lie; recognised where unmistakable. `--layout help` lists."
        ),
    ] = None
    dataset: Annotated[str | None, typer.Option(help="Dataset; the folder's name if left out.")] = (
        None
    )
    encoder: EncoderOption = None
    site: Annotated[str | None, typer.Option(help="Site, where a source names none.")] = None
    stain: Annotated[str | None, typer.Option(help="Stain, where a source names none.")] = None
    scanner: Annotated[str | None, typer.Option(help="Scanner, where a source names none.")] = None
    um_per_px: Annotated[
        float | None, typer.Option(help="Micrometres per pixel, where a source names none.")
    ] = None
    estimate_scale: Annotated[
        bool,
        typer.Option(
            "--estimate-scale",
            help="Where none is recorded, estimate it from the red cells of each picture (0.1 s).",
        ),
    ] = False
    crop_um: Annotated[
        float | None, typer.Option(help="Side of a crop around a marked cell, in micrometres.")
    ] = None
    crop_px: Annotated[int | None, typer.Option(help="The same in pixels.")] = None
    tile_px: Annotated[int, typer.Option(help="Side of a tile of a slide, in pixels.")] = 256
    tile_um_per_px: Annotated[
        float, typer.Option(help="Scale of a tile, in micrometres per pixel.")
    ] = 0.5
    overlap: Annotated[float, typer.Option(help="Share that neighbouring tiles overlap.")] = 0.0
    regions: Annotated[
        Path | None, typer.Option(help="GeoJSON: only tiles of slides within its areas.")
    ] = None
    stain_norm: Annotated[
        Literal["macenko", "reinhard", "vahadane"] | None,
        typer.Option(help="For H&E slides."),
    ] = None
    stain_target: Annotated[
        Path | None,
        typer.Option(help="Image whose colours --stain-norm gives to tiles. [built-in colours]"),
    ] = None
    find: Annotated[
        bool | None,
        typer.Option(
            "--find/--no-find",
            help="Search unlabelled images for cells, or take each for one cell. [by size]",
        ),
    ] = None
    white: Annotated[
        bool,
        typer.Option("--white", help="Of photographs of smears white cells alone, no red ones."),
    ] = False
    engine: Annotated[Literal["local", "ray"], typer.Option(help="Where the work runs.")] = "local"

    def kept(self) -> dict[str, Any]:
        """The same as JSON values, with absolute paths, so that it can be run from any folder."""
        files: dict[str, Any] = {"paths": [str(path.absolute()) for path in self.paths]}
        files |= {n: str(path.absolute()) for n in FILES if (path := getattr(self, n)) is not None}
        return asdict(self) | files

    @classmethod
    def of_kept(cls, facts: Mapping[str, Any]) -> Request:
        """The request that `kept` wrote."""
        files: dict[str, Any] = {"paths": [Path(path) for path in facts["paths"]]}
        files |= {name: Path(facts[name]) for name in FILES if facts.get(name) is not None}
        return cls(**{**facts, **files})

    def normaliser(self) -> Normaliser | None:
        """The stain normalisation of tiles, towards the target image if there is one.

        Raises:
            StainError: an unknown method, a stain of blood, or a target that cannot be measured.
            NotAnImage: the target cannot be read.
        """
        from encoder.image import read_rgb
        from encoder.stains.normalisers import StainError, by_name

        if self.stain_norm is None:
            if self.stain_target is not None:
                raise StainError("--stain-target needs --stain-norm: macenko, reinhard or vahadane")
            return None
        method = by_name(self.stain_norm)
        if self.stain_target is None:
            made = method()
        else:
            try:
                made = method.fit(read_rgb(self.stain_target))
            except StainError as error:
                raise StainError(f"--stain-target {self.stain_target}: {error}") from error
        made.check(self.stain)
        return made

    def options(self) -> Options:
        """The same as options of `ingest`.

        Raises:
            Refusal, StainError: tiles or a normalisation that cannot be.
        """
        from ingest.layouts.scan import Options
        from ingest.slides.grid import MicronsPerPixel, TilePixels, TilePlan
        from ingest.slides.regions import Regions, text_of
        from ingest.slides.source import SlideReader
        from ingest.smears.source import FieldReader
        from ingest.sources.marked import CropRule
        from ingest.sources.source import Facts

        regions = None
        if self.regions is not None:
            regions = text_of(self.regions)
            Regions.from_geojson(regions)
        facts = Facts(
            site=self.site,
            stain=self.stain,
            scanner=self.scanner,
            um_per_px=self.um_per_px,
            um_per_px_origin=None if self.um_per_px is None else "manifest",
        )
        plan = TilePlan(
            size=TilePixels(self.tile_px),
            um_per_px=MicronsPerPixel(self.tile_um_per_px),
            overlap=self.overlap,
        )
        return Options(
            dataset=self.dataset,
            facts=facts,
            rule=CropRule(um=self.crop_um, px=self.crop_px),
            slides=SlideReader(tiles=plan, regions=regions, stain=self.normaliser()),
            fields=FieldReader(white=self.white),
            find=self.find,
        )


def perform(request: Request, settings: Settings) -> Run:
    """Find, read, embed and store the images of a request."""
    from encoder.registry import load
    from encoder.stains.stained import stained
    from ingest.layouts.known import scan_all

    options = request.options()
    scans = scan_all(request.paths, request.layout, options)
    name = request.encoder or settings.encoder or encoder_of(settings)
    request = replace(request, encoder=name)  # a retry must take the same
    encoder = load(name, device=settings.device)
    if options.slides.stain is not None:
        encoder = stained(encoder, options.slides.stain, done=True)
    return run_ingest(scans, settings, encoder, name, request)


def encoder_of(settings: Settings) -> str:
    """The encoder of the collection if it is there, so that it can grow; else the default one."""
    from encoder.registry import default_encoder
    from search.library.library import Library

    library = Library(settings.library)
    if settings.collection in library.names():
        return library.reference(settings.collection)
    return default_encoder()


def run_ingest(
    scans: list[Scan],
    settings: Settings,
    encoder: Encoder,
    reference: str,
    request: Request | None = None,
) -> Run:
    """Ingest what was found, in one report.

    Args:
        scans: What `ingest.layouts.known.scan` found.
        settings: Which library and collection.
        encoder: The encoder, loaded.
        reference: What loads it again.
        request: For the ledger.
    """
    from ingest.pipeline.ledger import Ledger, ledger_path
    from ingest.smears.source import measured
    from ingest.sources.marked import framed
    from search.disk.space import in_disk_words
    from search.library.case_records import checked
    from search.library.source_folders import SourceFolders
    from search.schemas.cases import CaseRecordsWanted

    said = tuple(change for found in scans for change in found.cases)
    if said:  # before hours of reading, not after
        checked(CaseRecordsWanted(changes=said))
    report, tasks = scans[0].report, list(scans[0].tasks)
    for found in scans[1:]:
        tasks += found.tasks
        report.add(found.report)
    tasks = [framed(task, encoder.card.fields_um) for task in tasks]
    if request is not None and request.estimate_scale:
        tasks = [measured(task) for task in tasks]
    path = ledger_path(settings.library)
    with (
        open_sink(settings, encoder.card, reference) as sink,
        Ledger(path, settings.collection, encoder.card.fingerprint) as ledger,
    ):
        ledger.begin({} if request is None else request.kept())
        SourceFolders(settings.library).record(
            [*(found.root for found in scans), *(task.path for task in tasks)]
        )
        try:
            with in_disk_words(settings.library):
                _go(tasks, encoder, sink, ledger, report, settings, reference, request)
                index = None
                if ledger.unbuilt:  # of this run, or of one that was killed before it could build
                    index = sink.build()
                    ledger.mark_built()
            if said:
                _keep_cases(said, sink, report)
            ledger.end("done", report.summary())
        except BaseException as error:
            with suppress(Exception):
                ledger.end("failed", str(error) or type(error).__name__)
            raise
    return Run(report, index)


def _keep_cases(said: Sequence[CaseChange], sink: Destination, report: Report) -> None:
    """Put what the tables say of cases into their records; a refusal goes into the report."""
    from ingest.sources.report import Failure
    from search.errors import BadQuestion, StoreError
    from search.schemas.cases import CaseRecordsWanted

    try:
        written = sink.change_cases(CaseRecordsWanted(changes=tuple(said)))
    except (BadQuestion, StoreError) as error:
        reason = f"{error}. The images are in; correct the table, then `hemaseek cases import` it"
        report.failures.append(Failure("records of cases", reason))
        return
    if written:
        report.warnings.append(f"{count(written, 'record')} of cases new or changed")


def _go(
    tasks: list[Task],
    encoder: Encoder,
    sink: Sink,
    ledger: Ledger,
    report: Report,
    settings: Settings,
    reference: str,
    request: Request | None,
) -> None:
    from ingest.pipeline.run import ingest
    from ingest.pipeline.work import How

    reports = settings.library / "reports"
    with progress_bar() as show:
        progress = recorded(show, ledger)
        if request is not None and request.engine == "ray":
            from ingest.pipeline.on_ray import ingest_on_ray

            ingest_on_ray(
                tasks,
                encoder.card,
                reference,
                sink,
                report,
                ledger,
                reports=reports,
                progress=progress,
            )
        else:
            how = How(reports=reports, progress=progress)
            ingest(tasks, encoder, sink, report=report, ledger=ledger, how=how)


@contextmanager
def open_sink(settings: Settings, card: EncoderCard, reference: str) -> Iterator[Destination]:
    """The service that owns the library, if one runs; else the library itself."""
    from ingest.pipeline.sink import LibrarySink, ServiceSink
    from search.library.indexes import stores_at
    from search.library.library import Library
    from ui.cli.backend import running_service

    client = running_service(settings)
    key = settings.api_key.get_secret_value() if settings.api_key else None
    sink: Destination
    if client is not None:
        client.close()
        sink = ServiceSink(client.url, settings.collection, card, encoder=reference, api_key=key)
    else:
        make = stores_at(settings.qdrant_url, settings.qdrant_api_key)
        library = Library.open(settings.library, make)
        sink = LibrarySink.open(library, settings.collection, card, reference)
    try:
        yield sink
    finally:
        sink.close()


def recorded(show: OnProgress, ledger: Ledger) -> OnProgress:
    """A callback that also writes the progress into the ledger, every `NOTED_S` seconds at most."""
    written = 0.0

    def update(progress: Progress) -> None:
        nonlocal written
        show(progress)
        if monotonic() - written >= NOTED_S:
            ledger.note(str(progress))
            written = monotonic()

    return update


@contextmanager
def progress_bar() -> Iterator[OnProgress]:
    """A bar on standard error with items per second and the time left."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:,.0f} of {task.total:,.0f} files"),
        TextColumn("{task.fields[items]:,} items, {task.fields[rate]:.0f}/s"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    )
    with bar:
        job = bar.add_task("ingest", total=1, items=0, rate=0.0)

        def update(progress: object) -> None:
            from ingest.sources.report import Progress as Reported

            if isinstance(progress, Reported):
                bar.update(
                    job,
                    completed=progress.done,
                    total=progress.total or max(progress.done, 1),
                    items=progress.items,
                    rate=progress.rate,
                )

        yield update


def print_report(run: Run) -> None:
    """Print the result of a run: counts, warnings, failures with their reasons, the index."""
    from rich.markup import escape

    from ui.cli.output import say

    report = run.report
    say(f"[bold]{report}[/]")
    if report.skipped:
        say(f"{count(report.skipped, 'file')} ingested before and not opened again")
    for slide in report.slides[:SHOWN_FAILURES]:
        say(f"[green]slide[/] {escape(slide)}")
    for warning in report.warnings[:SHOWN_FAILURES]:
        say(f"[yellow]![/] {escape(warning)}")
    for failure in report.failures[:SHOWN_FAILURES]:
        say(f"[red]failed[/] {escape(str(failure))}")
    if report.failed > SHOWN_FAILURES:
        say(f"... and {report.failed - SHOWN_FAILURES} more; --report FILE keeps all of them")
    if report.quarantined:
        say(
            f"{count(report.quarantined, 'file')} quarantined: `hemaseek quarantine` lists all, "
            "`hemaseek quarantine --retry` reads them again"
        )
    if run.index is not None:
        index = run.index
        say(
            f"index of {count(index.points, 'item')} built in {index.seconds:.1f} s, "
            f"recall@10 {index.recall:.3f}, filtered {index.filtered_recall:.3f}"
        )
