"""The data module: options, split, loaders, and what happens to batches, with and without a Trainer."""

from __future__ import annotations

import logging
import shutil

import numpy as np
import pytest
import torch
import yaml
from lightning.pytorch import Callback, LightningModule, Trainer
from monai.transforms import MapTransform, Randomizable
from torch import nn

from dynaclr.datamodule import MultiExperimentDataModule
from dynaclr.datamodule.split import SplitWithin
from dynaclr.experiment import ExperimentRegistry
from dynaclr.index import MultiExperimentIndex
from dynaclr.neighbors import anchor_neighbors
from viscy_data.batches import TransformPipeline
from viscy_data.channel_dropout import ChannelDropout
from viscy_data.distributed import FixedOrderBatchSampler
from viscy_data.errors import InputError, InputErrors
from viscy_data.patches import DEFAULT_CACHE_POOL_BYTES
from viscy_transforms import BatchedRandScaleIntensityd, NormalizeSampled
from viscy_utils.embeddings.store import build_anndata, observation_table, write_anndata

pytestmark = [
    pytest.mark.filterwarnings("ignore:The '.*_dataloader' does not have many workers"),  # advice for real runs
    pytest.mark.filterwarnings("ignore:Total length of `list` across ranks is zero"),  # no validation experiments
]
QUIET = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}


class Shift(MapTransform, Randomizable):
    """Adds one random number per call to the keys: the simplest augmentation that leaves a trace."""

    def __call__(self, data):
        data = dict(data)
        shift = self.R.uniform(1, 100)
        for key in self.key_iterator(data):
            data[key] = data[key] + shift
        return data


class Probe(LightningModule):
    """Learns nothing, keeps the batches that reach it by stage."""

    def __init__(self, loss_function=None):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))
        self.loss_function = loss_function
        self.seen = {"train": [], "sanity": [], "val": [], "test": [], "predict": []}

    def training_step(self, batch, batch_idx):
        self.seen["train"].append(batch)
        return self.weight * batch["anchor"].mean()

    def validation_step(self, batch, batch_idx):
        self.seen["sanity" if self.trainer.sanity_checking else "val"].append(batch)

    def test_step(self, batch, batch_idx):
        self.seen["test"].append(batch)

    def predict_step(self, batch, batch_idx):
        self.seen["predict"].append(batch)
        return batch["anchor"].mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


@pytest.fixture
def experiments(encoded_experiments):
    return encoded_experiments()


def module(experiments, **options):
    settings = {
        "experiments_yaml": str(experiments.yaml),
        "z_range": (1, 3),
        "yx_patch_size": (8, 12),
        "final_yx_patch_size": (6, 8),
        "val_experiments": ["second"],
        "batch_size": 4,
        "num_workers": 0,
        "channel_dropout_channels": [],
    }
    return MultiExperimentDataModule(**settings | options)


def trainer(**options):
    return Trainer(**QUIET | {"max_epochs": 1, "accelerator": "cpu", "num_sanity_val_steps": 0} | options)


def fit(data, probe=None, **options):
    probe = Probe() if probe is None else probe
    trainer(**options).fit(probe, data)
    return probe.seen


def plates(experiments, images):
    return set(experiments.encoding.decode(images.numpy()).plate.ravel().tolist())


# Options


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"leaky": 7}, "leaky"),
        ({"leaky": -0.5}, "leaky"),
        ({"temporal_global_fraction": -1}, "temporal_global_fraction"),
        ({"temporal_window_hours": -1.0}, "temporal_window_hours"),
        ({"batch_size": 0}, "batch_size"),
        ({"num_workers": -1}, "num_workers"),
        ({"channel_dropout_prob": 8}, "channel_dropout_prob"),
        ({"channel_dropout_channels": [-1]}, "channels must be distinct positions"),
        ({"tau_range": (2.0, 0.5)}, "tau_range"),
        ({"tau_range": (-1.0, 0.5)}, "tau_range"),
        ({"tau_decay_rate": float("inf")}, "tau_decay_rate"),
        ({"final_yx_patch_size": (6, 16)}, r"final_yx_patch_size(.|\n)*cut out of it"),
        ({"yx_patch_size": (0, 8)}, "yx_patch_size"),
        ({"z_range": (3, 3)}, "z_range"),
        ({"cache_pool_bytes": -1}, "cache_pool_bytes"),
        ({"prefetch_factor": 0}, "prefetch_factor"),
        ({"seed": -1}, "seed"),
        ({"hcl_beta": -1.0}, "hcl_beta"),
        ({"max_per_lineage": 0}, "max_per_lineage"),
        ({"neighbor_fraction": 0.5}, "neighbor_embeddings"),
        ({"neighbor_embeddings": "e.zarr"}, "neighbor_embeddings"),
        ({"neighbor_embeddings": "e.zarr", "neighbor_fraction": 1.5}, "neighbor_fraction"),
        ({"n_neighbors": 0}, "n_neighbors"),
        ({"neighbor_obsm": "X_pca"}, "neighbor_obsm"),
        ({"val_experiments": "second"}, "val_experiments"),
        ({"val_experiments": ["second", "second"]}, "val_experiments"),
        ({"predict_experiments": []}, "predict_experiments"),
        ({"normalizations": ["Normalize"]}, "normalizations"),
    ],
)
def test_options_out_of_range_are_refused_before_anything_is_read(options, message):
    settings = {"experiments_yaml": "nowhere.yml", "z_range": (0, 1), "yx_patch_size": (8, 8)}
    settings |= {"final_yx_patch_size": (8, 8), "val_experiments": []}
    with pytest.raises(ValueError, match=message):
        MultiExperimentDataModule(**settings | options)


def test_all_wrong_options_are_reported_together(experiments):
    with pytest.raises(InputError, match=r"2 problems(.|\n)*num_workers(.|\n)*seed"):
        module(experiments, num_workers=-1, seed=-1)


def test_the_cache_is_sized_by_default(experiments):
    data = module(experiments)
    data.setup("fit")
    assert data.train_dataset.reader.cache_pool_bytes == DEFAULT_CACHE_POOL_BYTES > 0


@pytest.mark.parametrize(("num_workers", "attribute"), [(0, "buffer_size"), (2, "prefetch_factor")])
def test_batches_are_read_ahead_as_asked(experiments, num_workers, attribute):
    depths = []
    for asked in (None, 5):
        data = module(experiments, num_workers=num_workers, prefetch_factor=asked)
        data.setup("fit")
        depths.append(getattr(data.train_dataloader(), attribute))
    assert depths == [2 if num_workers else 1, 5]


# Split


def test_experiments_are_split_whole(experiments):
    data = module(experiments)
    data.setup("fit")
    train, val = (set(dataset.index.tracks["experiment"]) for dataset in (data.train_dataset, data.val_dataset))
    assert (train, val) == ({"first"}, {"second"})
    seen = fit(module(experiments))
    assert all(plates(experiments, batch["anchor"]) == {0} for batch in seen["train"])
    assert all(plates(experiments, batch["positive"]) == {1} for batch in seen["val"])


def test_an_unknown_validation_experiment_is_an_error_with_near_matches(experiments):
    with pytest.raises(InputError, match=r"val_experiments\n  found    'secnd'\n  fix      did you mean 'second'"):
        module(experiments, val_experiments=["secnd"]).setup("fit")


def test_all_experiments_in_validation_is_an_error(experiments):
    with pytest.raises(InputError, match="all 2 experiments"):
        module(experiments, val_experiments=["first", "second"]).setup("fit")


def test_one_store_under_two_names_must_not_be_on_both_sides(experiments):
    listed = yaml.safe_load(experiments.yaml.read_text())
    listed["experiments"].append(listed["experiments"][0] | {"name": "copy"})
    experiments.yaml.write_text(yaml.safe_dump(listed))
    with (
        pytest.warns(UserWarning, match="read the same store"),
        pytest.raises(InputError, match=r"'first', 'copy' read the same store .* on both sides of the split"),
    ):
        module(experiments, val_experiments=["copy"]).setup("fit")


def test_without_validation_experiments_training_goes_on_without_validation(experiments):
    seen = fit(module(experiments, val_experiments=[]))
    assert seen["train"]
    assert not seen["val"]


@pytest.mark.parametrize("by", ["fov", "lineage"])
def test_a_part_of_every_experiment_can_be_validated_on(experiments, by):
    options = {"val_experiments": None, "val_split": SplitWithin(by, 0.3)}
    data, alone, again = (module(experiments, **options) for _ in range(3))
    data.setup("fit")
    alone.setup("validate")
    again.setup("fit")
    sides = [part.index.tracks for part in (data.train_dataset, data.val_dataset)]
    column = {"fov": "fov_name", "lineage": "lineage_id"}[by]
    groups = [set(zip(side["experiment"], side[column].astype(str), strict=True)) for side in sides]
    assert not groups[0] & groups[1]
    assert {name for name, _ in groups[0]} == {name for name, _ in groups[1]} == {"first", "second"}
    assert sum(map(len, sides)) == 44
    cells = [part.val_dataset.index.tracks[["fov_name", "track_id", "t"]].astype(str) for part in (alone, again)]
    assert cells[0].equals(cells[1])
    assert len(alone.val_dataset) == len(data.val_dataset)
    # Nobody loses a positive: lineages are whole on either side.
    whole = module(experiments, val_experiments=[])
    whole.setup("fit")
    assert len(data.train_dataset) + len(data.val_dataset) == len(whole.train_dataset)


def test_other_seeds_validate_on_other_lineages(experiments):
    chosen = set()
    for seed in range(6):
        data = module(experiments, val_experiments=None, val_split=SplitWithin("lineage", 0.4), seed=seed)
        data.setup("validate")
        chosen.add(tuple(sorted(data.val_dataset.index.tracks["lineage_id"].astype(str).unique())))
    assert len(chosen) > 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"val_split": SplitWithin("fov", 1.0), "val_experiments": None}, r"val_split\.fraction\n  found    1\.0"),
        ({"val_split": SplitWithin()}, "leave one of the two out"),
    ],
)
def test_a_split_that_cannot_be_is_refused(experiments, options, message):
    with pytest.raises(InputError, match=message):
        module(experiments, **options)


def test_an_experiment_of_one_fov_cannot_be_split_by_fovs(experiments):
    data = module(experiments, val_experiments=None, val_split=SplitWithin(), exclude_fovs=["B/1/0"])
    with pytest.raises(InputErrors, match=r"experiment 'first', field val_split(.|\n)*set by: lineage"):
        data.setup("fit")


def test_an_unknown_experiment_cannot_be_predicted(experiments):
    with pytest.raises(InputError, match="predict_experiments"):
        module(experiments, predict_experiments=["frist"]).setup("predict")


# Stages


def test_every_epoch_brings_new_batches_and_the_same_validation(experiments):
    seen = fit(module(experiments), max_epochs=2)
    train = torch.stack([batch["anchor"] for batch in seen["train"]]).chunk(2)
    val = [torch.cat([batch[key] for batch in seen["val"]]).chunk(2) for key in ("anchor", "positive")]
    assert not torch.equal(*train)
    assert all(torch.equal(*epochs) for epochs in val)


def test_validation_mixes_the_anchors_and_leaves_none_out(experiments):
    data = module(experiments)
    data.setup("fit")
    batches = list(data.val_dataloader().sampler)
    positions = [position for batch in batches for position in batch]
    assert sorted(positions) == list(range(len(data.val_dataset))) != positions


@pytest.mark.parametrize("n_ranks", [1, 2, 3])
def test_ranks_validate_the_same_order_in_equally_many_batches(n_ranks):
    alone = list(FixedOrderBatchSampler(11, 2, seed=5))
    ranks = [list(FixedOrderBatchSampler(11, 2, n_ranks, rank, seed=5)) for rank in range(n_ranks)]
    assert len({len(batches) for batches in ranks}) == 1
    dealt = [batch for turn in zip(*ranks, strict=True) for batch in turn]
    assert dealt[: len(alone)] == alone


@pytest.mark.parametrize("stage", ["validate", "test"])
def test_evaluation_stages_read_the_validation_experiments(experiments, stage):
    probe, data = Probe(), module(experiments)
    getattr(trainer(), stage)(probe, data, verbose=False)
    batches = probe.seen["val" if stage == "validate" else "test"]
    assert sum(len(batch["anchor"]) for batch in batches) == len(data.val_dataset)
    assert all(plates(experiments, batch["anchor"]) == {1} for batch in batches)


def test_evaluation_without_validation_experiments_is_an_error(experiments):
    with pytest.raises(InputError, match="expected experiments to evaluate on"):
        module(experiments, val_experiments=[]).setup("validate")


@pytest.mark.parametrize("n_skipped", [0, 13])
def test_every_observation_is_predicted_once_and_in_order(experiments, n_skipped):
    class Resume(Callback):
        def setup(self, trainer, pl_module, stage):
            trainer.datamodule.skip_predicted(n_skipped)

    # No frame of the second experiment fits 0.5 h, and some cells are seen once: nothing of it matters here.
    probe, data = Probe(), module(experiments, tau_range=(0.5, 0.5))
    trainer(callbacks=[Resume()]).predict(probe, data, return_predictions=False)
    rows = [row for batch in probe.seen["predict"] for row in batch["index"]]
    found = [(row["experiment"], row["fov_name"], row["track_id"], row["t"]) for row in rows]
    tracks = data.predict_dataset.index.tracks
    columns = [tracks[name].tolist() for name in ("experiment", "fov_name", "track_id", "t")]
    assert found == list(zip(*columns, strict=True))[n_skipped:]
    assert len(tracks) == 44
    assert probe.seen["predict"][0]["anchor"].shape == (4, 2, 2, 6, 8)


def test_some_experiments_can_be_predicted(experiments):
    data = module(experiments, predict_experiments=["second"])
    data.setup("predict")
    assert set(data.predict_dataset.index.tracks["experiment"]) == {"second"}


def test_ranks_share_the_prediction_without_overlap(experiments, monkeypatch):
    parts = []
    for rank in range(3):
        data = module(experiments)
        data.setup("predict")
        data.trainer = trainer()
        monkeypatch.setattr(type(data.trainer), "world_size", 3)
        monkeypatch.setattr(type(data.trainer), "global_rank", rank)
        parts += [position for batch in data.predict_dataloader().sampler for position in batch]
        monkeypatch.undo()
    assert parts == list(range(44))


def test_ranks_train_on_different_batches_of_the_same_sequence(experiments, monkeypatch):
    sequences = []
    for rank in range(2):
        data = module(experiments)
        data.setup("fit")
        data.trainer = trainer()
        monkeypatch.setattr(type(data.trainer), "world_size", 2)
        monkeypatch.setattr(type(data.trainer), "global_rank", rank)
        sequences.append(list(data.train_dataloader().sampler))
        monkeypatch.undo()
    alone = module(experiments)
    alone.setup("fit")
    expected = list(alone.train_dataloader().sampler)
    assert [batch for turn in zip(*sequences, strict=True) for batch in turn][: len(expected)] == expected


def test_a_saved_index_gives_the_same_data(experiments, tmp_path):
    built = module(experiments)
    built.setup("fit")
    registry = ExperimentRegistry.from_yaml(experiments.yaml)
    MultiExperimentIndex(registry, slice(1, 3), (8, 12), (0.5, 2.0)).save(tmp_path / "index.parquet")
    for stage, dataset in (("fit", "train_dataset"), ("validate", "val_dataset")):
        loaded = module(experiments, index_path=str(tmp_path / "index.parquet"))
        loaded.setup(stage)
        ours, theirs = (getattr(data, dataset)[[0, 3, 1]] for data in (built, loaded))
        assert torch.equal(ours["positive"], theirs["positive"])


def test_overfit_batches_is_refused_with_the_alternative(experiments):
    with pytest.raises(InputError, match="use limit_train_batches"):
        fit(module(experiments), overfit_batches=1)


class LossWithBeta(nn.Module):
    beta = 1.5


def test_a_beta_that_differs_from_that_of_the_loss_is_warned_of(experiments):
    with pytest.warns(UserWarning, match=r"hcl_beta=0\.5 .* has no effect, the loss uses its own beta=1\.5"):
        fit(module(experiments), Probe(LossWithBeta()))
    fit(module(experiments, hcl_beta=1.5), Probe(LossWithBeta()))


def test_a_leak_with_hard_negatives_is_warned_of(experiments):
    with pytest.warns(UserWarning, match=r"leaky=0\.5 brings 2 of 4 cells .* beta=1\.5 of the loss") as caught:
        fit(module(experiments, leaky=0.5, hcl_beta=1.5), Probe(LossWithBeta()))
    assert len([warning for warning in caught if "leaky" in str(warning.message)]) == 1
    fit(module(experiments, leaky=0.5))


def test_a_leak_without_experiments_of_their_own_is_warned_of_and_has_no_effect(experiments):
    with pytest.warns(UserWarning, match="leaky has no effect without experiment_aware"):
        leaky = fit(module(experiments, leaky=0.5, experiment_aware=False))
    assert sum(len(batch["anchor"]) for batch in leaky["train"]) > 0


def test_negatives_reach_the_model_and_are_cropped(experiments):
    batch = fit(module(experiments, return_negative=True))["train"][0]
    assert batch["negative"].shape == batch["anchor"].shape == (4, 2, 2, 6, 8)


def test_at_most_so_many_anchors_of_a_lineage_are_in_a_batch(experiments):
    seen = fit(module(experiments, max_per_lineage=2, condition_balanced=False))
    assert all(batch["lineage"].unique(return_counts=True)[1].max() <= 2 for batch in seen["train"])


def write_embeddings(path, anchors, seed):
    """Random features of some anchors."""
    features = np.random.default_rng(seed).normal(size=(len(anchors), 3))
    obs = observation_table(anchors[["experiment", "fov_name", "track_id", "t"]])
    write_anndata(build_anndata(features, obs, {}), path)


def test_near_neighbours_replace_part_of_the_training_batches(experiments, tmp_path):
    plain = module(experiments, val_experiments=[])
    plain.setup("fit")
    anchors = plain.train_dataset.index.valid_anchors
    write_embeddings(tmp_path / "embeddings.zarr", anchors, 0)
    options = {"neighbor_embeddings": str(tmp_path / "embeddings.zarr"), "neighbor_fraction": 0.25, "n_neighbors": 3}
    data = module(experiments, val_experiments=[], **options)
    data.setup("fit")
    sampler, before = data.train_sampler(), plain.train_sampler()
    neighbors = anchor_neighbors(anchors, tmp_path / "embeddings.zarr", 3)
    n_came = 0
    for number in range(sampler.n_batches):
        old, new = before.batch(number).tolist(), sampler.batch(number).tolist()
        for came in set(new) - set(old):
            assert any(came in neighbors[anchor] for anchor in set(new) & set(old))
            n_came += 1
    assert n_came == sampler.stats()["neighbors"]["delivered"] > sampler.n_batches / 2
    assert fit(data)["train"]


def test_neighbours_may_be_those_of_another_array_of_the_embeddings(experiments, tmp_path):
    data = module(experiments, val_experiments=[])
    data.setup("fit")
    anchors = data.train_dataset.index.valid_anchors
    features, other = np.random.default_rng(0).normal(size=(2, len(anchors), 3))
    obs = observation_table(anchors[["experiment", "fov_name", "track_id", "t"]])
    write_anndata(build_anndata(features, obs, {"X_pca": other}), tmp_path / "both.zarr")
    write_anndata(build_anndata(other, obs, {}), tmp_path / "other.zarr")
    batches = {}
    for name, key in (("both", "X_pca"), ("both", None), ("other", None)):
        options = {"neighbor_embeddings": str(tmp_path / f"{name}.zarr"), "neighbor_fraction": 0.25}
        data = module(experiments, val_experiments=[], **options, neighbor_obsm=key)
        data.setup("fit")
        batches[name, key] = [list(batch) for batch in data.train_sampler()]
    assert batches["both", "X_pca"] == batches["other", None] != batches["both", None]
    data = module(experiments, val_experiments=[], **options, neighbor_obsm="X_pcs")
    data.setup("fit")
    with pytest.raises(InputError, match=r"other\.zarr, field obsm\n  found    no 'X_pcs'"):
        data.train_sampler()


def test_neighbours_follow_embeddings_that_were_written_meanwhile(experiments, tmp_path):
    data = module(experiments, val_experiments=[], neighbor_embeddings=str(tmp_path / "e.zarr"), neighbor_fraction=0.25)
    data.setup("fit")
    batches = []
    for seed in range(2):
        shutil.rmtree(tmp_path / "e.zarr", ignore_errors=True)
        write_embeddings(tmp_path / "e.zarr", data.train_dataset.index.valid_anchors, seed)
        batches.append(list(data.train_dataloader().sampler))
    assert batches[0] != batches[1]


# Transforms


def test_augmentation_and_channel_dropout_act_in_training_only(experiments):
    data = module(
        experiments, augmentations=[Shift(["ch_0", "ch_1"])], channel_dropout_channels=[1], channel_dropout_prob=1.0
    )
    seen = fit(data, num_sanity_val_steps=1)
    for batch in seen["train"]:
        for role in ("anchor", "positive"):
            assert not batch[role][:, 1].any()
            assert (batch[role][:, 0] % 1).any()  # shifted by a fraction
    for batch in seen["sanity"] + seen["val"]:
        assert plates(experiments, batch["anchor"]) == plates(experiments, batch["positive"]) == {1}
    data.setup("predict")
    raw = data.predict_dataset[[0, 1]]
    ready = data.on_after_batch_transfer(data.on_before_batch_transfer(raw, 0), 0)
    assert torch.equal(ready["anchor"], raw["anchor"])


def test_channels_are_hidden_from_each_view_independently_and_never_all(experiments):
    pipeline = TransformPipeline(["ch_0", "ch_1"], final_size=(1, 4, 4), channel_dropout=ChannelDropout([0, 1], 0.5))
    images = torch.ones(400, 2, 1, 4, 4)
    batch = pipeline({"anchor": images, "positive": images, "rng_seed": 1}, training=True)
    present = {role: batch[role].flatten(2).any(2) for role in ("anchor", "positive")}
    assert all(mask.any(1).all() for mask in present.values())
    assert not torch.equal(present["anchor"], present["positive"])


def test_dropout_fits_the_number_of_channels_by_default(encoded_experiments):
    one = module(encoded_experiments(source_channel=["Phase"]), channel_dropout_channels=None)
    seen = fit(one)
    assert all(batch["anchor"].flatten(1).any(1).all() for batch in seen["train"])


def test_the_second_channel_is_the_one_hidden_by_default(experiments):
    seen = fit(module(experiments, channel_dropout_channels=None, channel_dropout_prob=1.0))
    assert all(batch["positive"].flatten(2).any(2).tolist() == [[True, False]] * 4 for batch in seen["train"])


def test_a_dropout_channel_that_does_not_exist_is_found_at_set_up(experiments):
    with pytest.raises(
        InputError, match=r"channel_dropout_channels\n  found    channel 2\n  expected positions of the 2"
    ):
        module(experiments, channel_dropout_channels=[2]).setup("fit")


def test_transforms_of_channels_by_name_are_refused_at_set_up(experiments):
    with pytest.raises(InputError, match=r"keys of Shift\n  found    'Phase'\n  expected some of ch_0, ch_1"):
        module(experiments, augmentations=[Shift(["Phase"])]).setup("fit")


def test_stored_statistics_normalise_every_sample_by_its_own_fov(encoded_experiments, encoded_mean):
    experiments = encoded_experiments(statistics=("first", "second"))
    normalize = NormalizeSampled(["ch_0", "ch_1"], "fov_statistics")
    data = module(experiments, normalizations=[normalize])
    data.setup("fit")
    plain = module(experiments)
    plain.setup("fit")
    for plate, name in enumerate(("train_dataset", "val_dataset")):
        positions = list(range(len(getattr(data, name))))
        raw = getattr(plain, name)[positions]["positive"]
        ready = data.pipeline(getattr(data, name)[positions], training=False)["positive"]
        origin = experiments.encoding.decode(raw.numpy())
        mean = np.vectorize(lambda fov, c, plate=plate: encoded_mean(plate, ("A/1/0", "B/1/0")[fov], c))(
            origin.fov, origin.c
        )
        assert np.allclose(ready.numpy(), (raw.numpy() - mean) / 2.0)


def test_batches_of_experiments_with_and_without_statistics_pass_when_none_are_needed(encoded_experiments):
    experiments = encoded_experiments(statistics=("first",))
    data = module(experiments, val_experiments=[], leaky=0.5)
    seen = fit(data)
    assert {0, 1} == set().union(*(plates(experiments, batch["anchor"]) for batch in seen["train"]))
    assert not any("norm_meta" in key for batch in seen["train"] for key in batch)


@pytest.mark.parametrize("stage", ["fit", "predict"])
def test_missing_statistics_are_found_at_set_up_with_the_command_that_computes_them(encoded_experiments, stage):
    experiments = encoded_experiments(statistics=("first",))
    data = module(experiments, normalizations=[NormalizeSampled(["ch_1"], "fov_statistics")])
    with pytest.raises(
        InputError,
        match=r"experiment 'second'.*\n  found    no fov_statistics of channel 'RFP' in 2 FOVs(.|\n)*"
        r"viscy preprocess --data_path .*second/plate\.zarr",
    ):
        data.setup(stage)


def test_absent_channels_stay_empty_through_normalisation_and_augmentation(encoded_experiments):
    experiments = encoded_experiments(statistics=("first", "second"))
    data = module(
        experiments,
        val_experiments=[],
        training_channels="all",
        normalizations=[NormalizeSampled(["ch_0", "ch_1", "ch_2"], "fov_statistics")],
        augmentations=[Shift(["ch_0", "ch_1", "ch_2"])],
        channel_dropout_channels=[0, 1],
        channel_dropout_prob=1.0,
    )
    for batch in fit(data)["train"]:
        present = batch["anchor"].flatten(2).any(2)
        assert not (present & ~batch["channel_mask"]).any()
        assert present.any(1).all()


def test_preparing_a_batch_depends_on_its_seed_alone_and_leaves_it_as_it_is():
    transforms = [BatchedRandScaleIntensityd(["ch_0", "ch_1"], prob=0.5, factors=0.5), Shift(["ch_1"])]
    dropout = ChannelDropout([0, 1], 0.5)
    first, second = (TransformPipeline(["ch_0", "ch_1"], (), transforms, (1, 4, 4), dropout) for _ in range(2))
    images = torch.rand(16, 2, 1, 8, 8)
    batch = {"anchor": images, "positive": images.clone(), "rng_seed": 7}
    one = first(batch, training=True)
    torch.manual_seed(1)
    second(batch | {"rng_seed": 8}, training=True)
    two = second(batch, training=True)
    other = second(batch | {"rng_seed": 9}, training=True)
    assert torch.equal(one["anchor"], two["anchor"])
    assert torch.equal(one["positive"], two["positive"])
    assert not torch.equal(one["anchor"], one["positive"])  # two views
    assert not torch.equal(one["anchor"], other["anchor"])
    assert batch["anchor"] is images
    assert images.shape == (16, 2, 1, 8, 8)


@pytest.mark.parametrize(("given", "expected"), [(torch.uint16, torch.float32), (torch.bfloat16, torch.bfloat16)])
def test_prepared_images_are_contiguous_and_floating(given, expected):
    pipeline = TransformPipeline(["ch_0"], (), (), (1, 3, 3))
    ready = pipeline({"anchor": torch.ones(2, 1, 1, 8, 8).to(given)}, training=True)["anchor"]
    assert ready.dtype == expected
    assert ready.is_contiguous()
    assert ready.shape == (2, 1, 1, 3, 3)


def test_what_is_no_batch_of_this_module_passes_the_hooks_unchanged(experiments):
    data = module(experiments)
    example = torch.zeros(1, 2, 2, 6, 8)
    assert data.on_after_batch_transfer(data.on_before_batch_transfer(example, 0), 0) is example


# Checkpoints


def test_a_checkpoint_tells_the_data_settings_and_loads_safely(experiments, tmp_path):
    data = module(experiments, augmentations=[Shift(["ch_0"])], tau_range=(0.5, 1.0))
    run = trainer()
    run.fit(Probe(), data)
    run.save_checkpoint(tmp_path / "last.ckpt")
    checkpoint = torch.load(tmp_path / "last.ckpt", weights_only=True)
    settings = checkpoint["datamodule_hyper_parameters"]
    assert settings["experiments_yaml"] == str(experiments.yaml)
    assert settings["tau_range"] == [0.5, 1.0]
    assert settings["seed"] == 0
    assert settings["augmentations"][0].endswith(".Shift")
    state = checkpoint["MultiExperimentDataModule"]
    assert state["n_anchors"] == {"first": len(data.train_dataset)}
    n_batches = len(data.train_dataset) // 4
    assert state["train_loader"] == {"epoch": 0, "batches": n_batches, "done": n_batches, "ranks": 1}


def test_resuming_on_other_anchors_is_warned_of(experiments):
    data = module(experiments)
    data.setup("fit")
    data.load_state_dict(data.state_dict())
    with pytest.warns(UserWarning, match="trained on other anchors"):
        data.load_state_dict({"n_anchors": {"first": 1}})


def test_setup_says_what_is_trained_and_validated_on(experiments, caplog):
    with caplog.at_level(logging.INFO, "dynaclr"):
        module(experiments).setup("fit")
    assert "anchors of first; validating on" in caplog.text
