"""Outlines with classes and scores, one file for each source: QuPath's GeoJSON and DICOM SR."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from search.errors import BadQuestion
from search.exports.arrays import facts_of, need
from search.exports.rows import Rows
from search.schemas.items import Box, Item

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

VL_MICROSCOPIC = "1.2.840.10008.5.1.4.1.1.77.1.2"
"""SOP class that stands for a source that is no DICOM file."""
WHOLE_SLIDE = "1.2.840.10008.5.1.4.1.1.77.1.6"
SCHEME = "99HEMASEEK"
"""Coding scheme of labels, which are a laboratory's own words."""
PALETTE = (
    (0, 114, 178),
    (213, 94, 0),
    (0, 158, 115),
    (204, 121, 167),
    (230, 159, 0),
    (86, 180, 233),
)
"""Colours of classes (Okabe and Ito 2008)."""


def geojson(rows: Rows) -> dict[str, bytes]:
    """A QuPath file for each source: boxes as polygons with class, score and facts.

    Raises:
        BadQuestion: no item has a box.
    """
    labels = sorted({item.label for item in rows.items if item.label})
    colours = {label: PALETTE[at % len(PALETTE)] for at, label in enumerate(labels)}
    found: dict[str, bytes] = {}
    for source, members in rows.by_source().items():
        features = [
            _feature(rows.items[row], box, rows.score(row), colours)
            for row in members
            if (box := rows.items[row].bbox) is not None
        ]
        if features:
            body = {"type": "FeatureCollection", "features": features, "hemaseek": facts_of(rows)}
            found[f"{source}.geojson"] = json.dumps(body).encode()
    if not found:
        raise BadQuestion(
            "none of these items has an outline: each is a whole image; take hdf5, safetensors or "
            "h5ad"
        )
    return found


def _feature(
    item: Item, box: Box, score: float | None, colours: dict[str, tuple[int, int, int]]
) -> dict[str, Any]:
    facts = {name: value for name, value in item.model_dump(mode="json").items() if value}
    properties: dict[str, Any] = {
        "objectType": "annotation",
        "name": item.id,
        "metadata": {name: str(facts[name]) for name in ("dataset", "case", "patient", "site")
                     if name in facts},
        "measurements": {} if score is None else {"Hemaseek score": round(score, 6)},
    }  # fmt: skip
    if item.label:
        properties["classification"] = {"name": item.label, "color": list(colours[item.label])}
    ring = [[float(x), float(y)] for x, y in corners(box)]
    geometry = {"type": "Polygon", "coordinates": [ring]}
    return {"type": "Feature", "id": item.id, "geometry": geometry, "properties": properties}


def corners(box: Box) -> list[tuple[int, int]]:
    """The closed ring of a box."""
    right, bottom = box.x + box.w, box.y + box.h
    return [(box.x, box.y), (right, box.y), (right, bottom), (box.x, bottom), (box.x, box.y)]


def uid(*words: str) -> str:
    """A DICOM UID that is the same for the same words."""
    return f"2.25.{int(sha256(chr(0).join(words).encode()).hexdigest()[:32], 16)}"


def dicom_sr(rows: Rows, path_of: Callable[[str], Path | None]) -> dict[str, bytes]:
    """A Comprehensive SR (TID 1500) for each source: outline, label and score of each item.

    A source that is a DICOM file is referenced by its own UIDs, patient and study. Any other is
    referenced by UIDs derived from its id, the same in every report, and named by pseudonym.

    Args:
        rows: The items.
        path_of: The file of an item, by its id, where it may be opened.
    """
    need("highdicom")
    return {
        f"{source}.dcm": _report(rows, members, path_of(rows.items[members[0]].id))
        for source, members in rows.by_source().items()
    }


def _report(rows: Rows, members: list[int], path: Path | None) -> bytes:
    import highdicom as hd
    from highdicom.sr import (
        CodedConcept,
        DeviceObserverIdentifyingAttributes,
        MeasurementReport,
        ObservationContext,
        ObserverContext,
    )
    from pydicom.sr.codedict import codes

    image = _image(rows.items[members[0]], path)
    device = DeviceObserverIdentifyingAttributes(uid=uid("device"), name="Hemaseek")
    report = MeasurementReport(
        observation_context=ObservationContext(
            observer_device_context=ObserverContext(
                observer_type=codes.DCM.Device, observer_identifying_attributes=device
            )
        ),
        procedure_reported=CodedConcept("104157003", "SCT", "Light microscopy procedure"),
        imaging_measurements=[_group(rows, row, image) for row in members],
    )
    content = report[0]
    ids = "|".join(f"{rows.items[row].id}{rows.score(row)}" for row in members)
    made = hd.sr.ComprehensiveSR(
        evidence=[image],
        content=content,
        series_number=1,
        series_instance_uid=uid("series", image.SOPInstanceUID, rows.card.fingerprint),
        sop_instance_uid=uid("report", image.SOPInstanceUID, rows.card.fingerprint, ids),
        instance_number=1,
        manufacturer="Hemaseek",
        series_description=f"{rows.collection} {rows.version}: {rows.card.title}"[:64],
    )
    out = BytesIO()
    made.save_as(out, enforce_file_format=True)
    return out.getvalue()


def _group(rows: Rows, row: int, image: Dataset) -> Any:
    """One item: its outline (or the whole image), its label and its score."""
    from highdicom.sr import (
        CodedConcept,
        ImageRegion,
        Measurement,
        MeasurementsAndQualitativeEvaluations,
        PlanarROIMeasurementsAndQualitativeEvaluations,
        QualitativeEvaluation,
        SourceImageForMeasurementGroup,
        SourceImageForRegion,
        TrackingIdentifier,
    )
    from pydicom.sr.codedict import codes

    item, score = rows.items[row], rows.score(row)
    said: dict[str, Any] = {
        "tracking_identifier": TrackingIdentifier(uid=uid("item", item.id), identifier=item.id),
        "finding_type": CodedConcept("4421005", "SCT", "Cell structure"),
    }
    if item.label:
        value = CodedConcept(sha256(item.label.encode()).hexdigest()[:12], SCHEME, item.label[:64])
        whose = "a reviewer" if item.id in rows.reviewed else "the source"
        name = CodedConcept("label", SCHEME, f"Label of {whose}")
        said["qualitative_evaluations"] = [QualitativeEvaluation(name=name, value=value)]
    if score is not None:
        name = CodedConcept("cosine", SCHEME, "Cosine similarity to the query")
        unit = codes.UCUM.NoUnits
        said["measurements"] = [Measurement(name=name, value=round(score, 6), unit=unit)]
    if item.bbox is None:
        source = SourceImageForMeasurementGroup(image.SOPClassUID, image.SOPInstanceUID)
        return MeasurementsAndQualitativeEvaluations(source_images=[source], **said)
    region = ImageRegion(
        graphic_type="POLYLINE",
        graphic_data=np.array(corners(item.bbox), np.float32),
        source_image=SourceImageForRegion(image.SOPClassUID, image.SOPInstanceUID),
        pixel_origin_interpretation="VOLUME" if image.SOPClassUID == WHOLE_SLIDE else None,
    )
    return PlanarROIMeasurementsAndQualitativeEvaluations(referenced_region=region, **said)


def _image(item: Item, path: Path | None) -> Dataset:
    """The header of a source: its own where it is a DICOM file, else one that stands for it."""
    from pydicom import dcmread
    from pydicom.dataset import Dataset
    from pydicom.errors import InvalidDicomError

    if path is not None and path.is_file():
        try:
            return dcmread(path, stop_before_pixels=True)
        except (InvalidDicomError, OSError):
            pass  # no DICOM file: a photograph, or a slide of another kind
    image = Dataset()
    image.SOPClassUID = VL_MICROSCOPIC
    image.SOPInstanceUID = uid("source", item.source)
    image.SeriesInstanceUID = uid("series of source", item.source)
    image.StudyInstanceUID = uid("study", item.dataset, item.case or item.source)
    image.PatientID = item.patient or ""
    image.StudyDate = item.acquired.strftime("%Y%m%d") if item.acquired else ""
    for name in ("PatientName", "PatientBirthDate", "PatientSex", "StudyTime", "AccessionNumber",
                 "StudyID", "ReferringPhysicianName"):  # fmt: skip
        setattr(image, name, "")
    image.ContentDate = datetime.now().strftime("%Y%m%d")
    return image
