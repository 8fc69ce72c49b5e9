"""Predicted plates: blended, resumable, shared by ranks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningModule, Trainer

from viscy_data import HCSDataModule, read_plate
from viscy_data.errors import InputError
from viscy_data.stores import PlateWriter, read_attributes, read_stack
from viscy_data.testing.foreign import write_foreign_image
from viscy_utils.callbacks import HCSPredictionWriter
from viscy_utils.predicted_plate import PredictedPlate, StackBlend

pytestmark = pytest.mark.filterwarnings("ignore:.*does not have many workers")

NAMES, SHAPE, WINDOW = ["A/1/0", "B/2/1"], (2, 2, 5, 6, 8), 3
SCALE = (1.0, 1.0, 0.5, 0.25, 0.25)


@pytest.fixture(scope="module")
def plate(tmp_path_factory):
    path = tmp_path_factory.mktemp("predicted") / "plate.zarr"
    rng = np.random.default_rng(0)
    with PlateWriter(path, ["Phase", "Nuclei"]) as writer:
        for name in NAMES:
            writer.write(name, rng.random(SHAPE).astype(np.float32), SCALE)
    return path


class Model(LightningModule):
    """Predict the source, moved by the first slice of the window; perhaps fewer slices; perhaps fail."""

    def __init__(self, n_slices=WINDOW, fails_after=None, offset=0.0):
        super().__init__()
        self.offset = torch.nn.Parameter(torch.tensor(offset))
        self.n_slices, self.fails_after, self.n_windows = n_slices, fails_after, 0

    def predict_step(self, batch, batch_idx):
        if self.fails_after is not None and batch_idx >= self.fails_after:
            raise KeyboardInterrupt
        source, z = batch["source"], batch["index"].z
        self.n_windows += len(source)
        first = WINDOW // 2 - self.n_slices // 2
        return source[:, :, first : first + self.n_slices] + z.view(-1, 1, 1, 1, 1) + self.offset


def expected(plate, n_slices=WINDOW):
    """Mean over the windows of each slice, one after the other."""
    images = {}
    for fov in read_plate(plate):
        image = np.zeros((SHAPE[0], 1, *SHAPE[2:]))
        for t in range(SHAPE[0]):
            stack = read_stack(fov, t, 0)
            for z in range(SHAPE[2]):
                values = []
                for start in range(SHAPE[2] - WINDOW + 1):
                    first = start + WINDOW // 2 - n_slices // 2
                    if first <= z < first + n_slices:
                        values.append(stack[z] + start)
                if values:
                    image[t, 0, z] = np.mean(values, axis=0)
        images[fov.name] = image
    return images


def predict(plate, output, model=None, batch_size=4, target=("Nuclei",), **options):
    data = HCSDataModule(plate, "Phase", list(target), WINDOW, batch_size=batch_size, num_workers=0)
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    trainer = Trainer(callbacks=[HCSPredictionWriter(output, **options)], **quiet)
    model = model or Model()
    trainer.predict(model, data, return_predictions=False)
    return model


def check(output, images, channel=0):
    fovs = read_plate(output)
    assert [fov.name for fov in fovs] == NAMES
    for fov in fovs:
        assert fov.scale == SCALE
        for t in range(SHAPE[0]):
            np.testing.assert_allclose(read_stack(fov, t, channel), images[fov.name][t, 0], rtol=1e-6)
    return fovs


@pytest.mark.parametrize("n_slices", [WINDOW, 1])
@pytest.mark.parametrize("batch_size", [1, 4, 5])
def test_a_slice_is_the_mean_of_its_predictions(plate, tmp_path, n_slices, batch_size):
    output = tmp_path / "out.zarr"
    predict(plate, output, Model(n_slices), batch_size)
    fovs = check(output, expected(plate, n_slices))
    assert fovs[0].channel_names == ("Nuclei_prediction",)
    assert not (tmp_path / "out.zarr.parts").exists()
    if n_slices == 1:
        assert not read_stack(fovs[0], 0, 0)[[0, -1]].any()


def test_images_that_are_in_no_plate_are_numbered_and_keep_their_source(tmp_path):
    rng, images = np.random.default_rng(1), {}
    for name in ("b", "a"):
        images[name] = rng.random(SHAPE).astype(np.float32)
        write_foreign_image(tmp_path / f"{name}.zarr", images[name], channel_names=["Phase", "Nuclei"])
    predict(str(tmp_path / "*.zarr"), tmp_path / "out" / "p.zarr")
    fovs = read_plate(tmp_path / "out" / "p.zarr")
    assert [fov.name for fov in fovs] == ["0/0/0", "0/0/1"]
    for name, fov in zip("ab", fovs, strict=True):
        assert read_attributes(*fov.key)["source"] == str((tmp_path / f"{name}.zarr").resolve())
        np.testing.assert_allclose(read_stack(fov, 1, 0)[0], images[name][1, 0, 0], rtol=1e-6)


def test_the_input_is_written_as_the_model_saw_it(plate, tmp_path):
    output = tmp_path / "out.zarr"
    predict(plate, output, write_input=True)
    fovs = check(output, expected(plate), channel=1)
    assert fovs[0].channel_names == ("Phase", "Nuclei_prediction")
    np.testing.assert_allclose(read_stack(fovs[1], 1, 0), read_stack(read_plate(plate)[1], 1, 0))


def test_an_interrupted_prediction_goes_on_after_its_last_whole_stack(plate, tmp_path):
    output = tmp_path / "out.zarr"
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        predict(plate, output, Model(fails_after=2))
    assert not output.exists()
    model = predict(plate, output)
    # Eight had been predicted, six of them were two whole stacks, and the last batch before their end is made again.
    assert model.n_windows == 12 - 4
    check(output, expected(plate))


def test_an_interrupted_prediction_of_another_model_is_not_continued(plate, tmp_path):
    output = tmp_path / "out.zarr"
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        predict(plate, output, Model(fails_after=2))
    with pytest.raises(InputError, match=r"(?s)field model.*overwrite: true"):
        predict(plate, output, Model(offset=1.0))
    assert predict(plate, output, Model(offset=1.0), overwrite=True).n_windows == 12
    assert output.exists()


def test_existing_plates_are_replaced_only_on_request(plate, tmp_path):
    output = tmp_path / "out.zarr"
    predict(plate, output, Model(1))
    with pytest.raises(FileExistsError, match="overwrite: true"):
        predict(plate, output)
    predict(plate, output, overwrite=True)
    check(output, expected(plate))


@pytest.mark.parametrize("cut", range(1, 12))
def test_ranks_divide_the_windows_anywhere(plate, tmp_path, cut):
    fovs, output = read_plate(plate), tmp_path / "out.zarr"
    windows = [(fov, t, z) for fov in range(2) for t in range(SHAPE[0]) for z in range(SHAPE[2] - WINDOW + 1)]
    ranks = [PredictedPlate(output, fovs, ["p"], WINDOW, rank) for rank in (0, 1)]
    ranks[0].create({})
    for rank, own in zip(ranks, (windows[:cut], windows[cut:]), strict=True):
        assert not ranks[0].complete()
        for fov, t, z in own:
            pixels = read_stack(fovs[fov], t, 0)[None, z : z + WINDOW] + z
            rank.add(fov, t, z, [(pixels, z, slice(None))])
        rank.flush()
        assert rank.n_done() == len(own)
    assert ranks[0].complete()
    check(output, expected(plate))


def test_a_blend_counts_channels_and_slices_apart():
    blend = StackBlend((2, 3, 1, 1))
    blend.add(np.full((1, 2, 1, 1), 6.0), 0, slice(0, 1))
    blend.add(np.full((1, 2, 1, 1), 2.0), 1, slice(0, 1))
    blend.add(np.full((1, 1, 1, 1), 5.0), 2, slice(1, 2))
    assert blend.mean()[..., 0, 0].tolist() == [[6, 4, 2], [0, 0, 5]]


def test_what_does_not_fit_is_refused(plate, tmp_path):
    with pytest.raises(InputError, match=r"(?s)predictions of shape \(4, 1, 3, 6, 8\).*2 target channels"):
        predict(plate, tmp_path / "out.zarr", target=["Nuclei", "Membrane"])
    with pytest.raises(InputError, match="write_interval"):
        HCSPredictionWriter(tmp_path / "out.zarr", write_interval="epoch")
    trainer = Trainer(callbacks=[HCSPredictionWriter(tmp_path / "o.zarr")], logger=False, accelerator="cpu")
    with pytest.raises(InputError, match="expected an HCSDataModule"):
        trainer.predict(Model(), torch.utils.data.DataLoader([1]))
