"""Exports: each format is read back by the library whose format it is."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator
from datetime import date
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest

from encoder.card import EncoderCard
from search.errors import BadQuestion
from search.exports.arrays import facts_of
from search.exports.files import export
from search.exports.rows import Rows, rows_of
from search.index.contract import scroll_all
from search.library.collection import Collection
from search.library.library import Library
from search.library.reviews import Reviews
from search.library.shards import Entry, make_thumbnail
from search.schemas.cases import CaseChange, CaseRecordsWanted
from search.schemas.exports import ExportFormat, ExportWanted
from search.schemas.filters import Filter
from search.schemas.items import Box, Item, item_id, source_id

CARD = EncoderCard(id="made-up", architecture="none", dim=6)
SOURCES = [source_id(name.encode()) for name in ("a", "b")]


def _item(at: int) -> Item:
    source, box = SOURCES[at % 2], None if at == 5 else Box(x=10 * at, y=7, w=64, h=64)
    return Item(
        id=item_id("d", source, box),
        dataset="d",
        source=source,
        bbox=box,
        label=None if at == 4 else f"label {at % 3}",
        case="case 1" if at < 4 else None,
        patient="P1",
        um_per_px=0.25,
        acquired=date(2024, 5, 1 + at),
    )


@pytest.fixture(name="cells", scope="module")
def _cells(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Collection]:
    library = Library.open(tmp_path_factory.mktemp("exports"))
    rows = np.random.default_rng(0).standard_normal((6, 6)).astype(np.float32)
    picture = make_thumbnail(np.full((8, 8, 3), 9, np.uint8))
    with library.create("cells", CARD) as cells:
        cells.add([Entry(_item(at), rows[at], picture) for at in range(6)])
        yield cells


def exported(rows: Rows, format: ExportFormat) -> bytes:
    return export(rows, format, lambda id: None).content


@pytest.fixture(name="rows")
def _rows(cells: Collection) -> Rows:
    """Three hits of a search, in its order, two of one source."""
    ids = tuple(_item(at).id for at in (3, 0, 1))
    return rows_of(cells, ExportWanted(format="hdf5", items=ids, scores=(0.9, 0.8, 0.7)))


def test_a_search_keeps_its_order_and_a_filter_leaves_out_the_rest(
    cells: Collection, rows: Rows
) -> None:
    of_case = rows_of(cells, ExportWanted(format="hdf5", where=Filter(case=("case 1",))))

    assert [item.id for item in rows.items] == [_item(at).id for at in (3, 0, 1)]
    assert rows.scores is not None
    assert rows.scores.tolist() == pytest.approx([0.9, 0.8, 0.7])
    assert sorted(item.id for item in of_case.items) == sorted(_item(at).id for at in range(4))


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        (ExportWanted(format="hdf5", where=Filter(case=("none",))), "no item"),
        (ExportWanted(format="hdf5", items=(_item(0).id,), scores=(0.1, 0.2)), "one by one"),
    ],
)
def test_what_cannot_be_exported_is_refused(
    cells: Collection, wanted: ExportWanted, said: str
) -> None:
    with pytest.raises(BadQuestion, match=said):
        rows_of(cells, wanted)


def test_an_export_names_the_patient_whom_only_the_record_of_a_case_names(
    cells: Collection,
) -> None:
    bare = cells.store.scroll(Filter(case=("case 1",)), 1).items[0].item
    cells.update([bare.model_copy(update={"patient": None})])
    change = CaseChange(case="case 1", patient="P1")
    try:
        cells.cases.change(CaseRecordsWanted(changes=(change,)), cells.store, "test")
        (item,) = rows_of(cells, ExportWanted(format="hdf5", items=(bare.id,))).items
    finally:
        cells.update([bare])

    assert item.patient == "P1"


def test_more_items_than_one_answer_takes_are_refused(cells: Collection) -> None:
    with pytest.raises(BadQuestion, match="too many"):
        rows_of(cells, ExportWanted(format="hdf5"), most=5)


def test_hdf5_has_features_and_coords_as_trident_keeps_them(rows: Rows) -> None:
    import h5py

    with h5py.File(BytesIO(exported(rows, "hdf5"))) as file:
        assert np.array_equal(file["features"][()], rows.vectors)
        assert file["coords"][()].tolist() == [[30, 7], [0, 7], [10, 7]]
        assert file["coords"].attrs["patch_size_level0"] == 64
        assert file["features"].attrs["encoder"] == "made-up"
        assert [one.decode() for one in file["label"]] == ["label 0", "label 0", "label 1"]
        assert file.attrs["fingerprint"] == CARD.fingerprint


def test_safetensors_hold_the_items_whole(rows: Rows) -> None:
    from safetensors.numpy import load

    content = exported(rows, "safetensors")
    size = int.from_bytes(content[:8], "little")
    said = json.loads(content[8 : 8 + size])["__metadata__"]

    assert np.array_equal(load(content)["features"], rows.vectors)
    assert [Item.model_validate(one) for one in json.loads(said["items"])] == list(rows.items)


def test_anndata_names_the_encoder_and_has_facts_and_places(
    cells: Collection, tmp_path: Path
) -> None:
    import anndata

    whole = rows_of(cells, ExportWanted(format="h5ad"))
    (tmp_path / "cells.h5ad").write_bytes(exported(whole, "h5ad"))
    found = anndata.read_h5ad(tmp_path / "cells.h5ad")
    at = {id: row for row, id in enumerate(found.obs_names)}

    assert np.array_equal(found.X, whole.vectors)
    assert found.uns["hemaseek"]["fingerprint"] == CARD.fingerprint
    assert EncoderCard.from_json(found.uns["hemaseek"]["card"]) == CARD
    assert found.obs["label"].isna().sum() == 1
    assert found.obs["label"].iloc[at[_item(1).id]] == "label 1"
    assert found.obsm["spatial"][at[_item(3).id]].tolist() == [62, 39]
    assert np.isnan(found.obsm["spatial"][at[_item(5).id]]).all()


def test_geojson_is_one_file_for_each_source_and_leaves_whole_images_out(
    cells: Collection, rows: Rows
) -> None:
    both = export(rows, "geojson", lambda id: None)
    with zipfile.ZipFile(BytesIO(both.content)) as archive:
        names = archive.namelist()
        body = json.loads(archive.read(f"{SOURCES[1]}.geojson"))
    one = rows_of(cells, ExportWanted(format="geojson", items=(_item(5).id,)))

    assert sorted(names) == sorted(f"{source}.geojson" for source in SOURCES)
    first = body["features"][0]
    assert first["properties"]["classification"]["name"] == "label 0"
    assert first["properties"]["measurements"] == {"Hemaseek score": 0.9}
    assert first["geometry"]["coordinates"][0] == [[30, 7], [94, 7], [94, 71], [30, 71], [30, 7]]
    with pytest.raises(BadQuestion, match="outline"):
        exported(one, "geojson")


def test_a_structured_report_holds_outline_label_and_score(cells: Collection) -> None:
    import highdicom as hd

    ids = (_item(3).id, _item(5).id)
    rows = rows_of(cells, ExportWanted(format="dicom-sr", items=ids, scores=(0.75, 0.5)))
    content = exported(rows, "dicom-sr")
    report = hd.sr.srread(BytesIO(content))
    (cell,) = report.content.get_planar_roi_measurement_groups()
    (whole,) = report.content.get_image_measurement_groups()

    assert cell.tracking_identifier == _item(3).id
    assert cell.roi.value.tolist() == [[30, 7], [94, 7], [94, 71], [30, 71], [30, 7]]
    assert cell.get_qualitative_evaluations()[0].value.meaning == "label 0"
    assert float(cell.get_measurements()[0].value) == 0.75
    assert whole.tracking_identifier == _item(5).id
    assert report.PatientID == "P1"
    assert hd.sr.srread(BytesIO(exported(rows, "dicom-sr"))).SOPInstanceUID == report.SOPInstanceUID


def test_reviewers_labels_are_written_and_told_unless_recorded_ones_are_wanted(
    cells: Collection,
) -> None:
    first = next(iter(scroll_all(cells.store))).item
    Reviews(cells.versions).add([(first, "a reviewer's word", None)], "key", "Ada")

    reviewed = rows_of(cells, ExportWanted(format="hdf5", items=(first.id,)))
    recorded = rows_of(cells, ExportWanted(format="hdf5", items=(first.id,), labels="recorded"))

    assert reviewed.items[0].label == "a reviewer's word"
    told = json.loads(facts_of(reviewed)["reviewed"])[first.id]
    assert (told["by"], told["recorded"]) == ("Ada", first.label)
    assert recorded.items == (first,)
    assert facts_of(recorded)["reviewed"] == "{}"


def test_a_report_on_a_dicom_slide_names_its_patient_study_and_pixels(
    cells: Collection, tmp_path: Path
) -> None:
    import highdicom as hd
    from pydicom import dcmread
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, generate_uid

    slide = Dataset()
    slide.file_meta = FileMetaDataset()
    slide.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    slide.SOPClassUID = slide.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.77.1.6"
    slide.SOPInstanceUID = slide.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    for name in ("StudyInstanceUID", "SeriesInstanceUID"):
        setattr(slide, name, generate_uid())
    slide.PatientID, slide.PatientName, slide.StudyID = "S-9", "Pseudonym^Nine", "1"
    for name in ("PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "AccessionNumber",
                 "ReferringPhysicianName"):  # fmt: skip
        setattr(slide, name, "")
    path = tmp_path / "slide.dcm"
    slide.save_as(path, enforce_file_format=True)
    rows = rows_of(cells, ExportWanted(format="dicom-sr", items=(_item(3).id,)))
    report = hd.sr.srread(BytesIO(export(rows, "dicom-sr", lambda id: path).content))
    (cell,) = report.content.get_planar_roi_measurement_groups()

    assert (report.PatientID, report.StudyInstanceUID) == ("S-9", slide.StudyInstanceUID)
    referenced = report.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence[0]
    assert referenced.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == (
        dcmread(path).SOPInstanceUID
    )
    assert cell.roi.PixelOriginInterpretation == "VOLUME"
