"""The commands `export` and `ingest-features`: embeddings out, and those of others in."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from ui.cli.options import (
    CollectionOption,
    ExportFormat,
    LibraryOption,
    by_records,
    conditions,
    settings_for,
)
from ui.cli.searching import Scope, question_of


@by_records
def export(
    out: Annotated[Path, typer.Argument(help="File to write, or a folder for it.")],
    format: Annotated[ExportFormat, typer.Option("--format", help="What the file is.")] = "h5ad",
    query: Annotated[
        str | None,
        typer.Option(help="Export what a search finds: an image file, or the id of an item."),
    ] = None,
    k: Annotated[int, typer.Option("-k", min=1, max=1000, help="Neighbours of the query.")] = 50,
    of_case: Annotated[
        str | None, typer.Option("--of-case", help="Export the items of this case.")
    ] = None,
    *,
    scope: Scope,
) -> None:
    """Write items with their vectors for other programs: of a search, a case, or all.

    GeoJSON (QuPath) and DICOM SR belong to one image each: several come as a ZIP.

    Example: hemaseek export hits.h5 --format hdf5 --query cell.jpg -k 100
    """
    from search.schemas.exports import ExportWanted
    from search.schemas.questions import Question
    from ui.cli.backend import serving

    if query is not None and of_case is not None:
        raise typer.BadParameter("give --query or --of-case, not both", param_hint="--query")
    settings = settings_for(library=scope.library, collection=scope.collection)
    where = conditions(scope.where)
    wanted: dict[str, Any] = {"format": format, "where": where, "labels": scope.labels}
    if of_case is not None:
        wanted["where"] = where | {"case": [of_case]}
    with serving(settings) as backend:
        if query is not None:
            facts, image = question_of(query, k, scope, {})
            hits = backend.search(Question.model_validate(facts), image).hits
            wanted |= {"items": [hit.item.id for hit in hits]}
            wanted |= {"scores": [hit.score for hit in hits], "where": {}}
            if not hits:
                raise typer.BadParameter("the search found nothing", param_hint="--query")
        name, content = backend.export(settings.collection, ExportWanted.model_validate(wanted))
    if out.is_dir():
        out = out / name
    elif name.endswith(".zip") and out.suffix != ".zip":
        out = out.with_name(out.name + ".zip")
    out.write_bytes(content)
    typer.echo(f"wrote {out}, {len(content):,} bytes")


@dataclass(frozen=True, kw_only=True)
class FeaturesFrom:
    """Where the vectors come from, and what is known of them."""

    encoder: Annotated[
        str,
        typer.Option(
            "--encoder",
            help="Whose vectors they are: one of `hemaseek encoders`, or any other name.",
        ),
    ]
    dataset: Annotated[str, typer.Option(help="What the slides were published or acquired as.")]
    slides: Annotated[
        Path | None, typer.Option(help="Folder of the slides, named as the files; for pictures.")
    ] = None
    table: Annotated[
        Path | None,
        typer.Option(help="CSV: slide, and any of label, case, patient, site, stain, scanner."),
    ] = None
    tile_px: Annotated[
        int | None,
        typer.Option(min=1, help="Side of a tile in level-0 pixels, where files do not say."),
    ] = None


@by_records
def ingest_features(
    paths: Annotated[list[Path], typer.Argument(help="Files of vectors, or folders of them.")],
    *,
    source: FeaturesFrom,
    collection: CollectionOption = None,
    library: LibraryOption = None,
) -> None:
    """Take vectors that CLAM, TRIDENT or slide2vec computed (or safetensors) as a collection.

    Exits 1 if a file was left out. Again, it changes nothing.

    Example: hemaseek ingest-features trident/features_uni_v1 --encoder uni_v1 --dataset tcga
    """
    from dataclasses import asdict
    from json import dumps

    from ingest.features.files import feature_files, read_features
    from ingest.features.taking import FeaturesPlan, card_of, read_table, take_features
    from search.library.source_folders import SourceFolders
    from ui.cli.ingesting import open_sink

    settings = settings_for(library=library, collection=collection)
    first = read_features(feature_files(paths[0])[0])
    card = card_of(source.encoder, first.vectors.shape[1])
    plan = FeaturesPlan(
        encoder=source.encoder,
        dataset=source.dataset,
        slides=source.slides,
        side=source.tile_px,
        facts={} if source.table is None else read_table(source.table),
    )
    with open_sink(settings, card, source.encoder) as sink:
        SourceFolders(settings.library).record(
            [*paths, *([source.slides] if source.slides else [])]
        )
        done = take_features(paths, plan, sink)
        if done.stored:
            sink.build()
    typer.echo(dumps(asdict(done)))
    if done.failures:
        raise typer.Exit(1)
