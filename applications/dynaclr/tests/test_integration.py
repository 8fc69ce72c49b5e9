"""The main job in one piece, on real files: training, checkpoint, prediction, embeddings; exact and repeatable."""

from __future__ import annotations

import dataclasses
import tracemalloc
from pathlib import Path
from types import SimpleNamespace

import anndata
import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from lightning.pytorch import Callback, Trainer, seed_everything
from torch import nn

from dynaclr.adaptation import BatchStatistics, balanced_rows
from dynaclr.datamodule import MultiExperimentDataModule
from dynaclr.engine import ContrastiveModule
from dynaclr.experiment import ExperimentConfig
from dynaclr.loss import NTXentHCL
from viscy_data.errors import InputError
from viscy_data.stores import PlateWriter
from viscy_data.tracks import write_tracks
from viscy_models import ContrastiveEncoder
from viscy_transforms import BatchedScaleIntensityRangePercentilesd
from viscy_utils.callbacks import EmbeddingWriter

REFERENCE = Path(__file__).parent / "golden" / "integration" / "embeddings.npz"
EVERY = 16  # of the features one is in the reference
SIDE = 16
N_FRAMES, FOVS, IMAGE = 5, ("A/1/0", "B/1/0"), (64, 96)
EXPERIMENTS = ("first", "second")

pytestmark = [
    pytest.mark.filterwarnings("ignore:The '.*_dataloader' does not have many workers"),  # advice for real runs
    pytest.mark.filterwarnings("ignore:.*is smaller than the logging interval"),
]


def waves(plate, fov):
    """Make a movie (T, C, 1, Y, X) by a formula: fringes whose width tells where they are, and that move in time."""
    t, c, y, x = np.ogrid[:N_FRAMES, :2, : IMAGE[0], : IMAGE[1]]
    phase = 0.1 * (c + 1) * y + 0.003 * (plate + 1) * x**2 + 0.004 * fov * y * x + 0.4 * t
    return np.rint(2000 + 900 * np.sin(phase)).astype(np.uint16)[:, :, None]


def tracks():
    """Put six cells into the FOV, two of them at its edge."""
    place, t = np.divmod(np.arange(6 * N_FRAMES), N_FRAMES)
    y, x = 5.0 + 25 * (place % 2), 16.25 + 28 * (place // 2) + 0.5 * t
    return pd.DataFrame({"track_id": place, "t": t, "y": y, "x": x, "parent_track_id": -1})


@pytest.fixture
def experiments(tmp_path):
    """The file that lists two experiments of two FOVs."""
    entries = []
    for plate, name in enumerate(EXPERIMENTS):
        store, tables = tmp_path / name / "plate.zarr", tmp_path / name / "tracks"
        with PlateWriter(store, ["Phase", "GFP"]) as writer:
            for number, fov in enumerate(FOVS):
                writer.write(fov, waves(plate, number))
                write_tracks(tracks(), tables / fov / "tracks.csv")
        wells = {"uninfected": ["A/1"], "infected": ["B/1"]}
        channels = ["Phase", "GFP"]
        config = ExperimentConfig(name, str(store), str(tables), channels, channels, wells, interval_minutes=30.0)
        entries.append(dataclasses.asdict(config))
    path = tmp_path / "experiments.yml"
    path.write_text(yaml.safe_dump({"experiments": entries}))
    return path


def make_data(experiments, **options):
    keys = ["ch_0", "ch_1"]
    return MultiExperimentDataModule(
        str(experiments),
        z_range=(0, 1),
        yx_patch_size=(SIDE, SIDE),
        final_yx_patch_size=(SIDE, SIDE),
        val_experiments=["second"],
        tau_range=(0.5, 1.0),
        batch_size=8,
        num_workers=0,
        normalizations=[BatchedScaleIntensityRangePercentilesd(keys, lower=0, upper=100, b_min=-2.0, b_max=2.0)],
        **options,
    )


def make_model(loss=None, **options):
    encoder = ContrastiveEncoder(
        "resnet18", in_channels=2, in_stack_depth=1, stem_kernel_size=(1, 3, 3), stem_stride=(1, 2, 2), width=8,
        zero_init_last=False, embedding_dim=16, projection_dim=4,
    )  # fmt: skip
    return ContrastiveModule(encoder, loss or NTXentHCL(), example_input_array_shape=(1, 2, 1, SIDE, SIDE), **options)


def make_trainer(*callbacks, **options):
    quiet = {"accelerator": "cpu", "logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    return Trainer(**quiet, enable_checkpointing=False, callbacks=list(callbacks), **options)


def fill_with_waves(model):
    """Set every weight by a formula, so that no generator of random numbers has a say."""
    with torch.no_grad():
        for number, (name, value) in enumerate(sorted(model.model.named_parameters())):
            if value.ndim > 1:
                wave = torch.sin(0.7 * torch.arange(value.numel(), dtype=torch.float64) + number)
                value.copy_(wave.reshape(value.shape) / value[0].numel() ** 0.5)
            else:  # the scales and shifts of normalisation, and biases
                value.fill_(float(name.endswith("weight")))


@pytest.fixture
def checkpoint(tmp_path):
    """A checkpoint of known weights."""
    model, trainer = make_model(), make_trainer()
    fill_with_waves(model)
    trainer.strategy.connect(model)
    trainer.save_checkpoint(tmp_path / "waves.ckpt")
    return tmp_path / "waves.ckpt"


def predict(
    experiments, checkpoint, path, batch_statistics=None, callbacks=(), part_rows=4096, turned=False, **options
):
    seed_everything(len(str(path)))  # the weights that the checkpoint replaces
    trainer = make_trainer(EmbeddingWriter(path, part_rows=part_rows), *callbacks)
    model = make_model(batch_statistics=batch_statistics, predict_turned=turned)
    trainer.predict(model, make_data(experiments, **options), ckpt_path=checkpoint, return_predictions=False)
    return anndata.read_zarr(path)


@torch.no_grad()
def loss_of(model, batch):
    """Compute the loss of one batch as training does."""
    roles = [role for role in ("anchor", "positive", "negative") if role in batch]
    projections = [model.train()(batch[role])[1] for role in roles]
    if len(roles) == 3:
        return model.loss_function(*projections).item()
    labels = torch.arange(len(projections[0])).repeat(2)
    return model.loss_function(torch.cat(projections), labels).item()


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["triplet margin", "NT-Xent"])
def test_training_lowers_the_loss_and_its_checkpoint_predicts(experiments, tmp_path, loss):
    function = torch.nn.TripletMarginLoss(margin=0.5) if loss == "triplet margin" else NTXentHCL(temperature=0.3)
    seed_everything(0)
    model = make_model(function, lr=4e-3)
    data = make_data(experiments, return_negative=loss == "triplet margin")
    trainer = make_trainer(max_epochs=30)
    data.setup("fit")
    batches = [data.on_after_batch_transfer(batch, 0) for batch in data.train_dataloader()]
    before = {name: value.clone() for name, value in model.model.named_parameters()}
    untrained = np.mean([loss_of(model, batch) for batch in batches])
    trainer.fit(model, data)
    trained = np.mean([loss_of(model, batch) for batch in batches])
    assert trained < 0.75 * untrained
    assert all(not torch.equal(value, before[name]) for name, value in model.model.named_parameters())

    trainer.save_checkpoint(tmp_path / "trained.ckpt")
    embedded = predict(experiments, tmp_path / "trained.ckpt", tmp_path / "embeddings.zarr")
    batch = torch.from_numpy(patches(embedded.obs))
    with torch.inference_mode():
        features, _ = model.eval()(batch)
    np.testing.assert_allclose(embedded.X, features, rtol=1e-4, atol=1e-4)


def patches(obs):
    """Cut and scale the patch of each cell from the formula of its movie, by a loop."""
    cut = []
    for cell in obs.itertuples():
        image = waves(EXPERIMENTS.index(cell.experiment), FOVS.index(cell.fov_name))[cell.t]
        top, left = (
            int(np.clip(np.floor(place + 0.5) - SIDE // 2, 0, extent - SIDE))
            for place, extent in zip((cell.y, cell.x), IMAGE, strict=True)
        )
        own = image[..., top : top + SIDE, left : left + SIDE].astype(np.float64)
        low, high = (function(own, axis=(1, 2, 3), keepdims=True) for function in (np.min, np.max))
        cut.append(4 * (own - low) / (high - low) - 2)
    return np.array(cut, np.float32)


def test_embeddings_are_those_of_the_stored_reference(experiments, checkpoint, tmp_path):
    embedded = predict(experiments, checkpoint, tmp_path / "embeddings.zarr")
    with np.load(REFERENCE) as stored:
        assert embedded.obs_names.tolist() == stored["names"].tolist()
        scale = np.abs(stored["features"]).max()
        np.testing.assert_allclose(embedded.X[:, ::EVERY], stored["features"], rtol=1e-4, atol=1e-5 * scale)
        projections = embedded.obsm["X_projections"]
        scale = np.abs(stored["projections"]).max()
        np.testing.assert_allclose(projections, stored["projections"], rtol=1e-4, atol=1e-5 * scale)


def files(store):
    return {str(path.relative_to(store)): path.read_bytes() for path in store.rglob("*") if path.is_file()}


def test_predicting_twice_gives_the_same_bytes(experiments, checkpoint, tmp_path, monkeypatch):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    stores = [tmp_path / name for name in ("one.zarr", "another.zarr")]
    for store in stores:
        predict(experiments, checkpoint, store)
    first, second = map(files, stores)
    assert len(first) > 20
    assert first == second

    monkeypatch.delenv("SOURCE_DATE_EPOCH")
    predict(experiments, checkpoint, tmp_path / "later.zarr")
    later = files(tmp_path / "later.zarr")
    assert later.keys() == first.keys()
    assert {path.rpartition("/")[0] for path in first if later[path] != first[path]} == {"uns/origin/date"}


ALL_CELLS = 2 * 6 * N_FRAMES  # of an experiment: each comes once, in one batch


def images_of(experiments, name):
    """All cells of an experiment, as the encoder sees them."""
    data = make_data(experiments, predict_experiments=[name])
    data.setup("predict")
    batches = [data.on_after_batch_transfer(batch, 0)["anchor"] for batch in data.predict_dataloader()]
    return torch.cat(batches)


def inputs_of_batch_norms(encoder, images):
    """What comes into each batch normalisation that normalises by the batch, and into the one behind the features."""
    found = {}

    def keep(name):
        return lambda layer, inputs: found.update({name: inputs[0].double().numpy()})

    norms = {
        name: module for name, module in encoder.named_modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)
    }
    hooks = [module.register_forward_pre_hook(keep(name)) for name, module in norms.items()]
    with torch.no_grad():
        features, _ = encoder.train()(images)
    for hook in hooks:
        hook.remove()
    return {f"encoder.{name}": values for name, values in found.items()} | {"features": features.double().numpy()}


@pytest.fixture
def adapted(experiments, checkpoint, tmp_path):
    """Embeddings by the statistics of each experiment."""
    return predict(experiments, checkpoint, tmp_path / "adapted.zarr", BatchStatistics(ALL_CELLS))


def test_each_experiment_is_predicted_by_its_own_statistics(experiments, checkpoint, adapted):
    weights = torch.load(checkpoint, weights_only=True)["state_dict"]
    stored = adapted.uns["batch_statistics"]
    assert yaml.safe_load(stored["experiments"]) == list(EXPERIMENTS)
    for row, name in enumerate(EXPERIMENTS):
        images, model = images_of(experiments, name), make_model()
        model.load_state_dict(weights)
        for layer, values in inputs_of_batch_norms(model.model, images).items():
            axes = (0, *range(2, values.ndim))
            mean, var = stored["layers"][f"{layer}.running_mean"][row], stored["layers"][f"{layer}.running_var"][row]
            np.testing.assert_allclose(mean, values.mean(axis=axes), rtol=1e-3, atol=1e-4)
            np.testing.assert_allclose(var, values.var(axis=axes, ddof=1), rtol=1e-3, atol=1e-4)
        own = {key: values[row] for key, values in stored["layers"].items()}
        mean, var = own.pop("features.running_mean"), own.pop("features.running_var")
        own = {key.replace("encoder", "model", 1): torch.from_numpy(values) for key, values in own.items()}
        model.load_state_dict(weights | own)
        with torch.no_grad():
            expected = (model.eval()(images)[0].numpy() - mean) / np.sqrt(var + 1e-5)
        np.testing.assert_allclose(
            adapted.X[(adapted.obs["experiment"] == name).to_numpy()], expected, rtol=1e-4, atol=1e-5
        )


def test_a_validation_uses_the_statistics_of_what_it_validates_on(experiments, checkpoint):
    weights, data = torch.load(checkpoint, weights_only=True)["state_dict"], make_data(experiments)
    data.setup("validate")
    n_cells = len(data.val_dataset)
    batches = [data.on_after_batch_transfer(batch, 0) for batch in data.val_dataloader()]
    every = data.on_after_batch_transfer(data.val_dataset[list(range(n_cells))], 0)["anchor"]

    def validated(options):
        model = make_model(**options)
        model.load_state_dict(weights)
        (found,) = make_trainer().validate(model, make_data(experiments), verbose=False)
        return found["loss/val_epoch"], model

    plain, _ = validated({})
    adapted, model = validated({"batch_statistics": BatchStatistics(n_cells)})
    untouched = model.state_dict()
    assert all(torch.equal(untouched[name], value) for name, value in weights.items())
    for layer, values in inputs_of_batch_norms(model.model, every).items():
        if layer == "features":  # the loss is of projections
            continue
        axes, norm = (0, *range(2, values.ndim)), model.model.get_submodule(layer.removeprefix("encoder."))
        norm.running_mean.copy_(torch.from_numpy(values.mean(axis=axes)))
        norm.running_var.copy_(torch.from_numpy(values.var(axis=axes, ddof=1)))
    model.eval()
    with torch.no_grad():
        losses = [
            model.loss_function.forward_pairs(model(b["anchor"])[1], model(b["positive"])[1], b["lineage"]).item()
            for b in batches
        ]
    expected = np.average(losses, weights=[len(batch["anchor"]) for batch in batches])
    assert adapted == pytest.approx(expected, rel=1e-3)
    assert plain != pytest.approx(expected, rel=1e-2)


class StopsInTheMiddle(Callback):
    """What a power cut does."""

    def on_predict_batch_start(self, trainer, pl_module, batch, batch_idx, dataloader_idx=0):
        if batch_idx == 6:
            raise RuntimeError("power cut")


def test_a_prediction_by_own_statistics_goes_on_where_it_was_stopped(experiments, checkpoint, adapted, tmp_path):
    path, own = tmp_path / "stopped.zarr", BatchStatistics(ALL_CELLS)
    with pytest.raises(RuntimeError, match="power cut"):
        predict(experiments, checkpoint, path, own, [StopsInTheMiddle()], part_rows=16)
    for other, turned in ((None, False), (BatchStatistics(ALL_CELLS // 2), False), (own, True)):
        with pytest.raises(InputError):
            predict(experiments, checkpoint, path, other, turned=turned)
    resumed = predict(experiments, checkpoint, path, own)
    np.testing.assert_array_equal(resumed.X, adapted.X)
    for layer, values in adapted.uns["batch_statistics"]["layers"].items():
        np.testing.assert_array_equal(resumed.uns["batch_statistics"]["layers"][layer], values)


def test_further_plates_take_the_statistics_of_earlier_embeddings(experiments, checkpoint, adapted, tmp_path):
    wells = {"include_wells": ["B/1"]}
    with pytest.raises(InputError, match="the condition 'infected' alone"):
        predict(experiments, checkpoint, tmp_path / "infected.zarr", BatchStatistics(ALL_CELLS), **wells)
    assert not list(tmp_path.glob("infected.zarr*"))
    earlier = BatchStatistics(ALL_CELLS, source=str(tmp_path / "adapted.zarr"))
    later = predict(experiments, checkpoint, tmp_path / "later.zarr", earlier, **wells)
    expected = adapted.X[adapted.obs["fov_name"].astype(str).str.startswith("B/1").to_numpy()]
    np.testing.assert_allclose(later.X, expected, rtol=1e-4, atol=1e-5)


def test_a_prediction_may_be_the_mean_over_turns(experiments, checkpoint, tmp_path):
    found, model = predict(experiments, checkpoint, tmp_path / "turned.zarr", turned=True), make_model()
    model.load_state_dict(torch.load(checkpoint, weights_only=True)["state_dict"])
    images = torch.cat([images_of(experiments, name) for name in EXPERIMENTS]).numpy()
    views = [np.rot90(side, number, (-2, -1)) for side in (images, images[..., ::-1]) for number in range(4)]
    with torch.no_grad():
        embedded = [model.eval()(torch.from_numpy(view.copy())) for view in views]
    for number, values in enumerate((found.X, found.obsm["X_projections"])):
        expected = np.mean([each[number].numpy() for each in embedded], axis=0)
        np.testing.assert_allclose(values, expected, rtol=1e-4, atol=1e-5)
    other = make_model(predict_turned=True, batch_statistics=BatchStatistics())
    other.load_state_dict(model.state_dict())
    with torch.no_grad():  # of cells of nowhere in particular, as when embeddings are judged while training
        as_trained = other.eval().predict_step({"anchor": torch.from_numpy(images), "index": None}, 0)["features"]
    torch.testing.assert_close(as_trained, embedded[0][0])


class WithoutBatchNorm(nn.Module):
    """An encoder as small as can be."""

    num_features = 6

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.embed, self.projection = nn.Linear(2 * SIDE * SIDE, 6), nn.Linear(6, 3)

    def forward(self, x):
        features = torch.relu(self.embed(x.flatten(1)))
        return features, self.projection(features)


def test_an_encoder_without_batch_norm_is_predicted_by_features_of_its_own_experiment(experiments, tmp_path):
    """Features get a mean of 0 and a variance of 1 in each experiment, and further plates what these have."""

    def predicted(name, statistics, turned=False, **options):
        model = ContrastiveModule(WithoutBatchNorm(), batch_statistics=statistics, predict_turned=turned)
        trainer = make_trainer(EmbeddingWriter(tmp_path / name))
        trainer.predict(model, make_data(experiments, **options), return_predictions=False)
        assert all(key.startswith("model.") for key in model.state_dict())
        return anndata.read_zarr(tmp_path / name)

    every = BatchStatistics(ALL_CELLS)
    plain, own = predicted("plain.zarr", None), predicted("own.zarr", every)
    turned = predicted("turned.zarr", every, turned=True)
    assert np.abs(turned.X - own.X).max() > 0.1
    for name in EXPERIMENTS:
        rows = (plain.obs["experiment"] == name).to_numpy()
        x = plain.X[rows].astype(np.float64)
        expected = (x - x.mean(axis=0)) / np.sqrt(x.var(axis=0, ddof=1) + 1e-5)
        np.testing.assert_allclose(own.X[rows], expected, rtol=1e-3, atol=1e-3)
        np.testing.assert_allclose(turned.X[rows].mean(axis=0), 0, atol=1e-3)
    np.testing.assert_array_equal(own.obsm["X_projections"], plain.obsm["X_projections"])
    wells = {"include_wells": ["B/1"]}
    with pytest.raises(InputError, match="the condition 'infected' alone"):
        predicted("infected.zarr", every, **wells)
    later = predicted("later.zarr", BatchStatistics(source=str(tmp_path / "own.zarr")), **wells)
    rows = own.obs["fov_name"].astype(str).str.startswith("B/1").to_numpy()
    np.testing.assert_allclose(later.X, own.X[rows], rtol=1e-4, atol=1e-5)


def test_encoders_and_sizes_that_it_cannot_use_are_refused(experiments):
    data = make_data(experiments)
    data.setup("predict")
    with pytest.raises(InputError, match="num_features"):
        BatchStatistics().of(nn.Linear(2, 2), data)
    with pytest.raises(ValueError, match="n_cells"):
        BatchStatistics(n_cells=1)


class ManyCells:
    """What a data module has, of two million cells of two conditions, whose names are not in order."""

    seed = 0

    def __init__(self, n_cells):
        labels = {"experiment": ["second", "first"], "condition": ["uninfected", "infected"]}
        codes = {"experiment": np.arange(n_cells) >= 30, "condition": np.arange(n_cells) % 3 == 0}
        table = {name: pd.Categorical.from_codes(codes[name].astype(np.int8), labels[name]) for name in labels}
        self.index, self.fit, self.drawn = SimpleNamespace(tracks=pd.DataFrame(table)), False, []
        self.predict_dataset = self

    def __getitem__(self, rows):
        self.drawn += rows
        return {"anchor": torch.tensor(rows, dtype=torch.float32)[:, None]}

    def on_before_batch_transfer(self, batch, _):
        return batch

    on_after_batch_transfer = on_before_batch_transfer

    def transfer_batch_to_device(self, batch, device, _):
        return batch


class Number(nn.Module):
    """Takes a number for what a cell looks like."""

    num_features = 1

    def __init__(self):
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(1))

    def forward(self, x):
        return (x,)


def test_names_of_many_cells_are_numbers_while_statistics_are_estimated():
    network, data = Number(), ManyCells(2_000_000)
    tracemalloc.start()
    with pytest.warns(UserWarning, match="second: batch statistics are of 20 different"):
        found = BatchStatistics(128).of(network, data)
    assert tracemalloc.get_traced_memory()[1] < 30 * 2_000_000
    tracemalloc.stop()
    rows = np.array(data.drawn)
    for name, own in (("first", rows[rows >= 30]), ("second", rows[rows < 30])):
        assert (own % 3 == 0).mean() == 0.5
        assert len(own) == 128
        np.testing.assert_allclose(found[name]["features.running_mean"], own.mean(), rtol=1e-4)
        np.testing.assert_allclose(found[name]["features.running_var"], own.var(ddof=1), rtol=1e-4)


def test_few_cells_are_told_and_come_equally_often_of_each_condition(experiments, checkpoint, tmp_path):
    conditions = np.repeat(["infected", "uninfected", "other"], [5, 40, 7])
    rows = balanced_rows(conditions, 30, seed=1)
    assert {name: int(np.sum(conditions[rows] == name)) for name in np.unique(conditions)} == {
        "infected": 10, "uninfected": 10, "other": 10
    }  # fmt: skip
    assert np.bincount(rows, minlength=52).max() == 2
    assert len(np.unique(rows[conditions[rows] == "uninfected"])) == 10
    with pytest.warns(UserWarning, match="60 different cells"):
        predict(experiments, checkpoint, tmp_path / "few.zarr", BatchStatistics(128))
    with pytest.raises(InputError, match="no batch_statistics"):
        BatchStatistics(source=str(tmp_path / "few.zarr" / "..")).stored()
