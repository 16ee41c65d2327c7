"""Regions of interest from GeoJSON."""

from __future__ import annotations

import json

import numpy as np
import pytest

from ingest.slides.regions import RegionError, Regions

SQUARE = [[0, 0], [100, 0], [100, 100], [0, 100], [0, 0]]
HOLE = [[40, 40], [60, 40], [60, 60], [40, 60], [40, 40]]


def collection(*geometries):
    features = [
        {"type": "Feature", "geometry": g, "properties": {"name": "CANARY"}} for g in geometries
    ]
    return json.dumps({"type": "FeatureCollection", "features": features})


def test_a_tile_belongs_if_its_centre_is_inside_and_not_in_a_hole():
    regions = Regions.from_geojson(collection({"type": "Polygon", "coordinates": [SQUARE, HOLE]}))
    boxes = np.array([[0, 0, 20, 20], [45, 45, 10, 10], [95, 95, 20, 20], [85, 85, 20, 20]])

    assert regions.hold(boxes).tolist() == [True, False, False, True]


def test_multipolygons_collections_and_bare_lists_are_read():
    far = [[[x + 500, y] for x, y in SQUARE]]
    many = {"type": "MultiPolygon", "coordinates": [[SQUARE], far]}
    nested = {"type": "GeometryCollection", "geometries": [many]}
    points = np.array([[50.0, 50.0], [550.0, 50.0], [300.0, 50.0]])

    for text in (collection(nested), json.dumps([{"type": "Feature", "geometry": many}])):
        assert Regions.from_geojson(text).contain(points).tolist() == [True, True, False]


def test_a_concave_ring_agrees_with_a_count_by_hand():
    ring = [[0, 0], [10, 0], [10, 10], [5, 4], [0, 10]]
    regions = Regions.from_geojson(json.dumps({"type": "Polygon", "coordinates": [ring]}))
    points = np.array([[5.0, 2.0], [5.0, 6.0], [1.0, 7.0], [9.0, 7.0], [11.0, 1.0]])

    assert regions.contain(points).tolist() == [True, False, True, True, False]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "not JSON"),
        ("{}", "no Polygon"),
        (collection({"type": "Point", "coordinates": [1, 2]}), "no Polygon"),
        (collection({"type": "Polygon", "coordinates": []}), "no coordinates"),
        (collection({"type": "Polygon", "coordinates": [[[0, 0], [1, 1]]]}), "three corners"),
        (collection({"type": "Polygon", "coordinates": [[[0, 0], [1, "x"], [2, 2]]]}), "numbers"),
        (collection({"type": "Polygon", "coordinates": [[[0, 0], [1e999, 1], [2, 2]]]}), "numbers"),
        ("[" * 100_000, "JSON"),
    ],
)
def test_what_is_no_region_is_refused_in_words(text, words):
    with pytest.raises(RegionError, match=words):
        Regions.from_geojson(text)


def test_a_file_that_is_not_text_is_refused(tmp_path):
    path = tmp_path / "r.geojson"
    path.write_bytes(b"\xff\xfe\x00")

    with pytest.raises(RegionError, match="UTF-8"):
        Regions.read(path)
    with pytest.raises(RegionError, match=r"gone\.geojson cannot be read: No such file"):
        Regions.read(tmp_path / "gone.geojson")
