"""Published sets whose paths say what an image shows: ingested, and read for evaluation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ingest.layouts.known import recognise, scan
from train.data.datasets import BadDataset, fixed_test, read
from train.evaluation.run import EvaluateConfig, main, make_folds

TABLE = "image ID,class label\n1,1\n2,4\n"
Told = dict[str, tuple[str | None, str | None, str | None]]
SETS: dict[str, tuple[dict[str, str | None], Told]] = {
    "aml-hehr": (
        {"metadata.csv": "patient_id,bag_label\nAAA,PML_RARA\n"}
        | dict.fromkeys(["data/PML_RARA/AAA/image_0.tif", "data/PML_RARA/AAA/image_1.tif",
                         "data/control/XYZ/image_0.tif"]),
        {"AAA/image_0.tif": ("PML_RARA", "AAA", None), "AAA/image_1.tif": ("PML_RARA", "AAA", None),
         "XYZ/image_0.tif": ("control", "XYZ", None)},
    ),
    "lisc": (
        dict.fromkeys(["Main Dataset/Baso/1.bmp", "Main Dataset/eosi/7.bmp",
                       "Main Dataset/mixt/3.bmp",
                       "Ground Truth Segmentation/Baso/areaforexpert1/1_expert.bmp"]),
        {"Baso/1.bmp": ("basophil", None, None), "eosi/7.bmp": ("eosinophil", None, None)},
    ),
    "sslseg": (
        {"Class Labels of Dataset 1.csv": TABLE, "Class Labels of Dataset 2.csv": TABLE}
        | dict.fromkeys(["Dataset 1/001.bmp", "Dataset 1/001.png", "Dataset 2/002.bmp"]),
        {"Dataset 1/001.bmp": ("neutrophil", None, "Dataset 1"),
         "Dataset 2/002.bmp": ("eosinophil", None, "Dataset 2")},
    ),
    "nuclick": (
        dict.fromkeys(["Train/images/a.png", "Train/masks/a.png"]),
        {"images/a.png": (None, None, None)},
    ),
    "warty-pig": (
        dict.fromkeys(["Original/Basophil/1.jpg", "Augmented/Basophil/1_90.jpg"]),
        {"Basophil/1.jpg": ("basophil", None, None)},
    ),
    "elsafty": (
        dict.fromkeys(["Source 2/Cropped images/Ovalocyte/Slide 12 (1,93).png"]),
        {"Ovalocyte/Slide 12 (1,93).png": ("Ovalocyte", "source 2 slide-12", "source 2")},
    ),
    "dse": (
        dict.fromkeys(["echinocyte/1.png", "normal/1.png"]),
        {"echinocyte/1.png": ("echinocyte", None, None), "normal/1.png": ("normal", None, None)},
    ),
}  # fmt: skip


def made(root: Path, files: dict[str, str | None]) -> Path:
    for place, text in files.items():
        path = root / place
        path.parent.mkdir(parents=True, exist_ok=True)
        if text is None:
            Image.fromarray(np.full((9, 9, 3), 200, np.uint8)).save(path)
        else:
            path.write_text(text)
    return root


@pytest.mark.parametrize("name", SETS)
def test_a_published_tree_is_read_alike_by_ingest_and_evaluation(name: str, tmp_path: Path) -> None:
    files, wanted = SETS[name]
    root = made(tmp_path / "set", files)
    found = scan(root, name)
    facts = {
        "/".join(task.path.parts[-2:]): (task.facts.label, task.facts.patient, task.facts.site)
        for task in found.tasks
    }

    assert facts == wanted
    assert found.report.failures == []
    if name == "nuclick":  # it has no labels to score
        with pytest.raises(SystemExit, match=r"no labelled cell .* images and masks, no labels"):
            main(["--data", f"{name}:{root}", "--root", str(tmp_path), "--encoders", "colour"])
        return
    labelled = read(f"{name}:{root}", tmp_path)
    rows = zip(labelled.paths, labelled.labels, labelled.groups, strict=True)
    scored = {"/".join(path.parts[-2:]): (label, group) for path, label, group in rows}
    assert {place: label for place, (label, _) in scored.items()} == {
        place: label for place, (label, _, _) in wanted.items()
    }
    if labelled.patients:
        assert {group for _, group in scored.values()} == {told[1] for told in wanted.values()}
    if labelled.sources is not None:
        assert set(labelled.sources) == {told[2] for told in wanted.values()}


@pytest.mark.parametrize("name", ["aml-hehr", "lisc", "sslseg"])
def test_trees_that_are_no_others_are_recognised(name: str, tmp_path: Path) -> None:
    assert recognise(made(tmp_path / "set", SETS[name][0])) == name


def test_a_place_that_the_set_does_not_have_is_told(tmp_path: Path) -> None:
    root = made(tmp_path / "set", {"data/PML_RARA/image_0.tif": None})

    assert "data/PML_RARA/AAA/image_0.tif was expected" in scan(root, "aml-hehr").report.failures[
        0
    ].reason  # fmt: skip
    bad = {"Class Labels of Dataset 1.csv": "1,7\n", "Dataset 1/001.bmp": None}
    made(tmp_path / "bad", bad)
    with pytest.raises(BadDataset, match="class labels are 1 to 5, got 7"):
        read(f"sslseg:{tmp_path / 'bad'}", tmp_path)


MATEK = ["NGS/NGS_0001.tiff", "NGS/NGS_0002.tiff", "LYT/LYT_0001.tiff", "LYT/LYT_0002.tiff"]


@pytest.mark.parametrize(
    "table",
    [
        "Image Path,Label\n/lustre/x/AML-Cytomorphology_LMU/NGS/NGS_0002.tiff,NGS\n"
        "/lustre/x/AML-Cytomorphology_LMU/LYT/LYT_0001.tiff,LYT\n",
        "path,split\nNGS/NGS_0002.tiff,test\nNGS/NGS_0001.tiff,train\nLYT/LYT_0001.tiff,test\n",
        "C:\\x\\NGS\\NGS_0002.tiff\nLYT/LYT_0001.tiff\n",
    ],
    ids=["published", "split", "list"],
)
def test_a_fixed_split_is_that_of_its_file(table: str, tmp_path: Path) -> None:
    root = made(tmp_path / "AML-Cytomorphology_LMU", dict.fromkeys(MATEK))
    (tmp_path / "test.csv").write_text(table)
    labelled = read(f"aml-matek:{root}", tmp_path)
    config = EvaluateConfig(split="fixed", split_file=tmp_path / "test.csv")
    words, (fold,) = make_folds(labelled, config)

    assert [labelled.paths[at].name for at in fold.test] == ["LYT_0001.tiff", "NGS_0002.tiff"]
    assert len(fold.train) == 2
    assert words == "fixed by test.csv, 50 % test"


def test_a_fixed_split_of_another_set_is_refused(tmp_path: Path) -> None:
    root = made(tmp_path / "set", dict.fromkeys(MATEK))
    labelled = read(f"aml-matek:{root}", tmp_path)
    (tmp_path / "test.csv").write_text("NGS/NGS_0001.tiff\nMON/MON_0009.tiff\n")

    with pytest.raises(BadDataset, match=r"line 2: aml-matek has no image MON/MON_0009.tiff"):
        fixed_test(labelled, tmp_path / "test.csv")
    with pytest.raises(ValueError, match="belong together"):
        EvaluateConfig(split="fixed")
