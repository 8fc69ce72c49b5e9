"""Data modules of two public sets, on small sets in their layouts."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from monai.transforms import MapTransform, RandSpatialCropSamplesd

from viscy_data import CTMCv1DataModule, LiveCellDataModule, LiveCellDataset, LiveCellTestDataset
from viscy_data.errors import InputError, MissingInputError
from viscy_data.livecell.annotations import detections, read_annotations
from viscy_data.stores import read_plate, read_stack
from viscy_data.synthetic import write_ctmc, write_livecell
from viscy_data.testing.training import Recorder, quiet_trainer

tifffile = pytest.importorskip("tifffile")
pytest.importorskip("pycocotools")

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:.*is smaller than the logging interval"),
    # pycocotools 2.0.11 with numpy 2
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
]

SIZE = (64, 80)


class Stack(MapTransform):
    """What the model asks for."""

    def __call__(self, data):
        return {"source": torch.cat([data[key] for key in self.keys], dim=-4)}


class Double(MapTransform):
    def __call__(self, data):
        return {**data, **{key: data[key] * 2 for key in self.keys}}


def images(batches):
    return torch.cat([batch["source"] for batch in batches])


# CTMC


@pytest.fixture(scope="module")
def plates(tmp_path_factory):
    root = tmp_path_factory.mktemp("ctmc")
    return write_ctmc(root / "train.zarr", seed=1), write_ctmc(root / "val.zarr", n_frames=7, seed=2)


def ctmc(plates, scratch, **options):
    transforms = {name: [] for name in ("train_cpu_transforms", "val_cpu_transforms")}
    transforms |= {name: [Stack(["DIC"])] for name in ("train_gpu_transforms", "val_gpu_transforms")}
    settings = {
        "batch_size": 3,
        "num_workers": 0,
        "val_subsample_ratio": 3,
        "pin_memory": False,
        "scratch_dir": scratch,
    }
    return CTMCv1DataModule(*plates, **transforms | settings | options)


def frames(path, step=1):
    found = []
    for fov in read_plate(path):
        for t in range(0, fov.shape[0], step):
            found.append(read_stack(fov, t, 0))
    return np.stack(found)[:, None].astype(np.float32)


@pytest.mark.parametrize("skip_cache", [False, True])
def test_ctmc_trains_on_all_frames_and_validates_on_some_of_the_other_plate(plates, tmp_path, skip_cache):
    model, data = Recorder(keep=dict), ctmc(plates, tmp_path, skip_cache=skip_cache)
    quiet_trainer().fit(model, data)
    for epoch in (0, 1):
        seen = images(model.seen["train"][4 * epoch : 4 * epoch + 4]).numpy()
        order = np.lexsort(seen.reshape(12, -1).T)
        expected = frames(plates[0])
        np.testing.assert_array_equal(seen[order], expected[np.lexsort(expected.reshape(12, -1).T)])
        validated = images(model.seen["val"][2 * epoch : 2 * epoch + 2])
        np.testing.assert_array_equal(validated, frames(plates[1], 3))
    assert bool(list(tmp_path.rglob("*.npy"))) is not skip_cache
    assert data.train_dataset.cache is None or data.train_dataset.cache.folder != data.val_dataset.cache.folder


def test_ctmc_refuses_what_does_not_fit(plates, tmp_path):
    with pytest.raises(InputError, match="val_subsample_ratio"):
        ctmc(plates, tmp_path, val_subsample_ratio=0)
    with pytest.raises(ValueError, match="'Phase'"):
        ctmc(plates, tmp_path, channel_name="Phase").setup("fit")
    with pytest.raises(MissingInputError, match=r"none\.zarr"):
        ctmc((plates[0], tmp_path / "none.zarr"), tmp_path).setup("fit")


# LIVECell


@pytest.fixture(scope="module")
def livecell(tmp_path_factory):
    return write_livecell(tmp_path_factory.mktemp("livecell"), size=SIZE)


def module(paths, **options):
    settings = {"batch_size": 2, "num_workers": 0, "pin_memory": False}
    return LiveCellDataModule(**paths._asdict() | settings | options)


@pytest.mark.slow
def test_workers_give_the_same_batches(livecell):
    found = []
    for num_workers in (0, 2):
        data = module(livecell, num_workers=num_workers)
        data.setup("fit")
        found.append(images(data.train_dataloader()))
    assert torch.equal(*found)


def test_livecell_trains_validates_and_is_tested(livecell):
    crops = RandSpatialCropSamplesd(["source"], (1, 32, 32), num_samples=2, random_size=False)
    doubled = {"val_gpu_transforms": [Double(["source"])], "test_transforms": [Double(["source"])]}
    model, data = Recorder(keep=dict), module(livecell, train_cpu_transforms=[crops], **doubled)
    trainer = quiet_trainer(max_epochs=1)
    trainer.fit(model, data)
    assert [batch["source"].shape for batch in model.seen["train"]] == [(4, 1, 1, 32, 32)] * 2
    (val,) = model.seen["val"]
    for image, number in zip(val["source"], range(2), strict=True):
        path = livecell.train_val_images / f"val_{number:03d}.tif"
        np.testing.assert_array_equal(image[0, 0], 2.0 * tifffile.imread(path))
    tested = Recorder(keep=dict)
    trainer.test(tested, data, verbose=False)
    (batch,) = tested.seen["test"]
    assert torch.equal(batch["source"], batch["target"] * 2)
    assert batch["file_name"] == ["test_000.tif", "test_001.tif"]
    assert [len(found["boxes"]) for found in batch["detections"]] == [5, 0]


def test_outlines_are_drawn_where_the_cells_are(livecell):
    data = LiveCellTestDataset(livecell.test_images, None, livecell.test_annotations, load_labels=True)
    found = data[0]["detections"]
    listed = json.loads(livecell.test_annotations.read_text())["annotations"]
    assert found["labels"].tolist() == [0] * 5
    assert found["labels"].dtype == torch.uint8
    y, x = np.mgrid[: SIZE[0], : SIZE[1]] + 0.5
    for mask, box, cell in zip(found["masks"].numpy(), found["boxes"].tolist(), listed, strict=True):
        left, top, width, height = cell["bbox"]
        assert box == pytest.approx([left, top, left + width, top + height], abs=1e-3)
        disc = (y - top - height / 2) ** 2 + (x - left - width / 2) ** 2 <= (width / 2) ** 2
        assert (mask & disc).sum() / (mask | disc).sum() > 0.8
    assert "target" not in data[0]
    assert data[1]["detections"]["masks"].shape == (0, *SIZE)


def test_outlines_of_every_kind_are_drawn_alike():
    polygon = {"bbox": [2, 3, 4, 2], "segmentation": [[2, 3, 6, 3, 6, 5, 2, 5]]}
    expected = np.zeros((8, 9), bool)
    expected[3:5, 2:6] = True
    flat = np.concatenate([[0], expected.T.ravel(), [0]])
    runs = np.diff(np.flatnonzero(np.diff(flat.astype(int)) != 0), prepend=0).tolist()
    runs.append(72 - sum(runs))
    drawn = {"bbox": [2, 3, 4, 2], "segmentation": {"counts": runs, "size": [8, 9]}}
    masks = detections([polygon, drawn], (8, 9))["masks"].numpy()
    np.testing.assert_array_equal(masks[1], expected)
    np.testing.assert_array_equal(masks[0], expected)


def test_training_is_reproducible_and_another_one_in_each_epoch(livecell):
    crops = RandSpatialCropSamplesd(["source"], (1, 16, 16), num_samples=1, random_size=False)

    def epochs():
        model = Recorder(keep=dict)
        quiet_trainer().fit(model, module(livecell, train_cpu_transforms=[crops], batch_size=4))
        return images(model.seen["train"][:1]), images(model.seen["train"][1:])

    first, second = epochs(), epochs()
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[1], second[1])
    assert not torch.equal(*first)


def test_the_record_notices_other_images(livecell, tmp_path):
    names = [livecell.train_val_images / f"train_{number:03d}.tif" for number in range(4)]
    first, second = LiveCellDataset(names), LiveCellDataset(names[:3])
    assert first.source_digests() != second.source_digests()
    assert first.source_digests()[0]["observations"] == 4


def test_livecell_refuses_what_does_not_fit(livecell, tmp_path):
    with pytest.raises(ValueError, match=r"(?s)2 problems.*test_images.*a folder that.*val_annotations.*a file that"):
        module(livecell, test_images=tmp_path / "none", val_annotations=tmp_path)
    with pytest.raises(InputError, match=r"(?s)train_annotations\n  found    none"):
        module(livecell, train_annotations=None).setup("fit")
    broken = tmp_path / "broken.json"
    for text in ("{", "[]", '{"images": [], "annotations": [{"image_id": 3}]}'):
        broken.write_text(text)
        with pytest.raises(InputError, match="COCO annotations"):
            read_annotations(broken)
    broken.write_text('{"images": [{"id": 1, "file_name": "absent.tif"}]}')
    with pytest.raises(MissingInputError, match=r"absent\.tif"):
        module(livecell, val_annotations=broken).setup("validate")
    with pytest.raises(NotImplementedError, match="no stage 'predict'"):
        module(livecell).setup("predict")
