"""Files of every layout that was released are read, and those of a later one are refused by what reads them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from zipfile import ZipFile

import numpy as np
import pytest
import torch
import zarr

from viscy_data.errors import InputError
from viscy_data.schema import refuse_newer, written_by
from viscy_utils.embeddings.kind import ORIGIN_SCHEMA
from viscy_utils.embeddings.origin import read_origin
from viscy_utils.embeddings.reading import open_embeddings, read_embedding_dataset, read_embeddings
from viscy_utils.evaluation.array_file import load_arrays, save_arrays
from viscy_utils.evaluation.correction import SCHEMA as CORRECTION
from viscy_utils.evaluation.correction import load_correction
from viscy_utils.evaluation.linear_classifier_file import SCHEMA as CLASSIFIER
from viscy_utils.evaluation.linear_classifier_file import load_classifier
from viscy_utils.runs.compatibility import read_checkpoint
from viscy_utils.runs.folder import SCHEMA as RUN
from viscy_utils.runs.folder import find_run, update_record
from viscy_utils.training.module import TrainingModule

SCHEMAS = Path(__file__).parent / "schemas"


def checkpoint_schema():
    saved: dict = {}
    TrainingModule(0.1, "Constant", 0, (1, 2)).on_save_checkpoint(saved)
    return saved["viscy"]["schema"]


def test_every_layout_up_to_the_newest_has_its_file():
    newest = {"correction": int(CORRECTION.split()[-1]), "classifier": int(CLASSIFIER.split()[-1]), "run": RUN}
    newest |= {"embeddings": ORIGIN_SCHEMA, "checkpoint": checkpoint_schema()}
    there = {path.stem for path in SCHEMAS.iterdir()} - {"README"}
    assert there == {f"{kind}-{number}" for kind, last in newest.items() for number in range(1, last + 1)}


def test_the_first_correction_moves_cells_to_a_common_ground():
    correction, content = load_correction(SCHEMAS / "correction-1.npz")
    assert content["written_by"].startswith("viscy-utils")
    moved = correction.apply(np.array([[1, 2], [11, 22]], np.float32), np.array(["a", "b"]))
    np.testing.assert_allclose(moved[0], moved[1], atol=1e-5)


def test_the_first_classifier_tells_its_classes():
    pytest.importorskip("sklearn")
    pipeline, content = load_classifier(SCHEMAS / "classifier-1.npz")
    assert content["task"] == "state"
    features = np.zeros((2, 4), np.float32)
    features[:, 0] = -5, 5
    assert pipeline.predict(features).tolist() == ["healthy", "infected"]


def test_the_first_record_of_a_run_is_read():
    assert find_run(str(SCHEMAS / "run-1")).record["status"] == "finished"


def unpacked(name, folder):
    with ZipFile(SCHEMAS / name) as archive:
        archive.extractall(folder)
    return folder / Path(name).with_suffix(".zarr")


def test_the_first_embeddings_are_read(tmp_path):
    pytest.importorskip("anndata")
    path = unpacked("embeddings-1.zip", tmp_path)
    assert read_embeddings(path).X.tolist() == [[1, 2], [3, 4]]
    assert open_embeddings(path).obs["t"].tolist() == [0, 1]
    assert read_embedding_dataset(path)["projections"].values.tolist() == [[5], [6]]
    assert read_origin(path)["schema"] == 1


@pytest.mark.parametrize("read", [read_embeddings, open_embeddings, read_embedding_dataset, read_origin])
def test_later_embeddings_are_refused_by_whatever_reads_them(tmp_path, read):
    pytest.importorskip("anndata")
    path = unpacked("embeddings-1.zip", tmp_path)
    origin = zarr.open_group(path / "uns/origin", mode="r+")
    origin["schema"][()] = 2
    with pytest.raises(InputError, match=r"(?s)field schema\n  found    2, written by viscy-utils.*read it with"):
        read(path)
    del origin["schema"]  # embeddings that do not say so
    if read is not read_origin:
        read(path)


def test_the_first_checkpoint_is_read_and_a_later_one_refused(tmp_path):
    checkpoint = read_checkpoint(SCHEMAS / "checkpoint-1.ckpt")
    assert checkpoint["state_dict"]["layer.weight"].tolist() == [[1, 1]]
    module = TrainingModule(0.1, "Constant", 0, (1, 2))
    saved: dict = {}
    module.on_save_checkpoint(saved)
    assert saved["viscy"].keys() == checkpoint["viscy"].keys() == {"schema", "written_by"}
    module.on_load_checkpoint(checkpoint)
    module.on_load_checkpoint({"state_dict": {}})  # of VisCy v2.2, or of Lightning alone
    later = checkpoint | {"viscy": {"schema": 2, "written_by": "viscy-utils 9.1.0"}}
    torch.save(later, tmp_path / "later.ckpt")
    for use in (lambda: read_checkpoint(tmp_path / "later.ckpt"), lambda: module.on_load_checkpoint(later)):
        with pytest.raises(InputError, match=r"(?s)found    2, written by.*read it with viscy-utils 9\.1\.0 or later"):
            use()


def test_a_later_file_of_arrays_is_refused_by_the_version_that_reads_it(tmp_path):
    save_arrays(tmp_path / "a.npz", "viscy thing 3", {"written_by": "viscy-utils 9.1.0"}, {})
    with pytest.raises(InputError) as caught:
        load_arrays(tmp_path / "a.npz", "viscy thing 2", "a thing")
    assert (caught.value.found, caught.value.fix) == (
        "3, written by viscy-utils 9.1.0",
        "read it with viscy-utils 9.1.0 or later",
    )
    assert load_arrays(tmp_path / "a.npz", "viscy thing 4", "a thing")[0]["schema"] == "viscy thing 3"
    with pytest.raises(InputError, match="viscy other 3"):
        load_arrays(tmp_path / "a.npz", "viscy other 3", "another")


@pytest.mark.parametrize(
    ("name", "load"), [("correction-1.npz", load_correction), ("classifier-1.npz", load_classifier)]
)
def test_a_later_correction_or_classifier_is_refused_by_the_version_that_reads_it(tmp_path, name, load):
    pytest.importorskip("sklearn")
    with np.load(SCHEMAS / name) as content:
        arrays = dict(content)
    about = json.loads(bytes(arrays.pop("json")))
    later = about.pop("schema").replace(" 1", " 2")
    save_arrays(tmp_path / name, later, about | {"written_by": "viscy-utils 9.1.0"}, arrays)
    with pytest.raises(InputError, match=r"(?s)found    2, written by.*read it with viscy-utils 9\.1\.0 or later"):
        load(tmp_path / name)


def test_a_run_of_a_later_version_is_refused_and_not_written_to(tmp_path):
    shutil.copytree(SCHEMAS / "run-1", tmp_path / "run")
    path = tmp_path / "run/run.json"
    later = json.dumps(json.loads(path.read_text()) | {"schema": 2, "written_by": "viscy-utils 9.1.0"})
    path.write_text(later)
    for use in (lambda: find_run(str(tmp_path / "run")), lambda: update_record(tmp_path / "run", status="running")):
        with pytest.raises(
            InputError, match=r"(?s)run\.json, field schema\n  found    2.*viscy-utils 9\.1\.0 or later"
        ):
            use()
    assert path.read_text() == later


@pytest.mark.parametrize("found", [0, -1, True, None, "1", 1.0, 3])
def test_what_is_no_known_layout_is_refused(found):
    with pytest.raises(InputError, match="update viscy-data"):
        refuse_newer("a.zarr", found, 2, "viscy-data")


def test_older_layouts_are_read():
    for found in (1, 2):
        refuse_newer("a.zarr", found, 2, "viscy-data")
    assert written_by("viscy-utils").startswith("viscy-utils ")
    assert written_by("no-such-package") == "no-such-package"
