"""A configuration that cannot be used: each way to get a key or a value of ``fit.yml`` wrong."""

from __future__ import annotations

import pytest

pytest_plugins = ["viscy_data.testing.fixtures"]

FLIP = {"class_path": "viscy_transforms.BatchedRandFlipd"}


def _written(text):
    return lambda place: place.write("fit.yml", text)


# What is in place of the configuration, and what the message has to say.
FILES = {
    "empty": (_written(""), "fit.yml\n.*an empty file\n.*a configuration, such as data, model and trainer"),
    "comments only": (_written("# nothing\n"), "fit.yml\n.*an empty file"),
    "a list": (_written("- 1\n- 2\n"), "fit.yml\n.*a list without keys"),
    "a text": (_written("hello"), "fit.yml\n.*text without keys"),
    "a bracket too few": (_written("data: [1\nmodel: 2"), r"fit.yml\n.*no YAML.* in line 2, column 6\n"),
    "a tab": (_written("data:\n\tclass_path: x\n"), "fit.yml\n.*no YAML.*line 2, column 1"),
    "a picture": (lambda place: (place.folder / "fit.yml").write_bytes(b"\x89PNG\xff\xfe"), "a file that is no text"),
    "a key twice": (_written("data: 1\ndata: 2\n"), "fit.yml, field data\n.*given twice, in lines 1 and 2"),
    "a folder": (lambda place: (place.folder / "fit.yml").mkdir(), "fit.yml\n.*a folder\n"),
    "another YAML": (
        _written("experiments: []"),
        "fit.yml, field experiments\n.*unknown key\n.*such as .*data, .*model",
    ),
    "a misspelt section": (
        lambda place: place.fit.update(trianer={}),
        "field trianer\n(.*\n)?.*did you mean 'trainer'",
    ),
    "no data": (lambda place: place.fit.pop("data"), "fit.yml, field data\n.*nothing\n"),
    "data without a value": (lambda place: place.fit.update(data=None), "fit.yml, field data\n.*nothing\n"),
    "no model": (lambda place: place.fit.pop("model"), "fit.yml, field model\n.*nothing\n"),
    "data is a list": (lambda place: place.fit.update(data=[1]), "field data\n.*\n.*class_path and init_args"),
    "data is a word": (
        lambda place: place.fit.update(data="Triplets"),
        "field data\n.*Triplets\n.*package.module.Class",
    ),
    "no class_path": (lambda place: place.fit["data"].pop("class_path"), "field data\n.*init_args without class_path"),
    "a misspelt class": (
        lambda place: place.fit["data"].update(class_path="dynaclr.datamodule.MultiExperimentDataModul"),
        "field data\n.*no attribute 'MultiExperimentDataModul'\n.*did you mean 'MultiExperimentDataModule'",
    ),
    "a misspelt module": (
        lambda place: place.fit["model"].update(class_path="dynaclr.engin.ContrastiveModule"),
        "field model\n.*engin\n.*did you mean 'engine'",
    ),
    "a package that is not there": (
        lambda place: place.fit["model"].update(class_path="dinaclr.engine.ContrastiveModule"),
        "field model\n.*dinaclr",
    ),
    "a model for data": (
        lambda place: place.fit["data"].update(class_path="dynaclr.engine.ContrastiveModule"),
        "field data\n.*not correspond to a subclass of LightningDataModule",
    ),
    "a misspelt init_args": (
        lambda place: place.fit["data"].update(init_arg={}),
        "field data.init_arg\n.*beside class_path\n.*\n.*did you mean 'init_args'",
    ),
    "init_args with nothing under it": (
        lambda place: place.fit["data"].update(init_args=None),
        "field data.init_args\n.*found    nothing\n.*arguments\n.*leave it out",
    ),
    "an argument beside init_args": (
        lambda place: place.fit["data"].update(batch_size=3),
        "field data.batch_size\n.*\n.*\n.*move it into init_args",
    ),
}


@pytest.mark.parametrize(("change", "pattern"), FILES.values(), ids=FILES)
def test_the_file_is_no_configuration(place, change, pattern):
    change(place)
    place.refused("fit --config fit.yml", pattern)


# Arguments of the data module: what is set, and what the message has to say of that field.
DATA = [
    ({"batchsize": 4}, "field data\n.*'batchsize' is not accepted\n.*did you mean 'batch_size'"),
    ({"experiments_yaml": None}, "field data.init_args.experiments_yaml\n.*nothing"),
    ({"experiments_yaml": "experiment.yml"}, "experiment.yml\n.*no such file\n.*\n.*did you mean 'experiments.yml'"),
    ({"experiments_yaml": "fit.yml"}, "fit.yml\n.*the keys data, model.*\n.*the key `experiments`"),
    ({"experiments_yaml": "first/images.zarr"}, "first/images.zarr\n.*a folder\n.*the key `experiments`"),
    ({"experiments_yaml": 3}, "init_args.experiments_yaml\n.*3\n.*str"),
    ({"z_range": None}, "data.init_args.z_range\n.*nothing"),
    ({"z_range": [1, 0]}, r"z_range\n.*\(1, 0\)\n.*first < last\n.*in  .*fit.yml, data.init_args.z_range"),
    ({"z_range": [1, 1]}, r"z_range\n.*\(1, 1\)\n.*first < last\n"),
    ({"z_range": [-1, 1]}, r"z_range\n.*\(-1, 1\)\n.*0 <= first"),
    ({"z_range": [0.0, 1.5]}, "data.init_args.z_range\n.*\n.*int"),
    ({"z_range": [1]}, r"data.init_args.z_range\n.*\[1\]\n.*2 elements"),
    ({"z_range": "0-1"}, "data.init_args.z_range\n.*0-1\n.*tuple"),
    ({"z_range": [3, 4]}, "z_range\n.*FOV A/1/0.* has 1 slices\n.*within (.|\n)*in  .*fit.yml, data.init_args.z_range"),
    ({"final_yx_patch_size": [32, 32]}, r"final_yx_patch_size\n.*\(32, 32\)\n.*at most yx_patch_size \(24, 24\)"),
    ({"yx_patch_size": [0, 24]}, r"yx_patch_size\n.*\(0, 24\)\n.*more than 0\n.*fit.yml"),
    ({"final_yx_patch_size": [-16, 16]}, r"final_yx_patch_size\n.*\(-16, 16\)\n.*more than 0"),
    ({"yx_patch_size": 24}, "data.init_args.yx_patch_size\n.*24\n.*tuple"),
    (
        {"yx_patch_size": [200, 200], "final_yx_patch_size": [200, 200]},
        "yx_patch_size\n.*96 x 96 pixels\n(.|\n)*fit.yml",
    ),
    (
        {"val_experiments": ["HCC"]},
        "val_experiments\n.*'HCC'\n.*'first', 'second'\n.*\n.*fit.yml, data.init_args.val_exp",
    ),
    ({"val_experiments": ["secnd"]}, "val_experiments\n.*\n.*did you mean 'second'"),
    ({"val_experiments": "second"}, "data.init_args.val_experiments\n.*second\n.*list"),
    ({"val_experiments": ["first", "second"]}, "val_experiments\n.*all 2 experiments\n.*left to train on"),
    ({"val_experiments": ["second", "second"]}, "val_experiments\n.*\n.*different names"),
    ({"val_split": {"fraction": 0.2}}, "val_split\n.*\n.*one way to choose.*\n.*leave one of the two out"),
    ({"val_experiments": [], "val_split": {"fraction": 2}}, "val_split.fraction\n.*2.0\n.*less than 1"),
    ({"val_experiments": [], "val_split": {"fractoin": 0.2}}, "val_split\n.*'fractoin'.*\n.*did you mean 'fraction'"),
    ({"val_experiments": [], "val_split": {"by": "wells"}}, "val_split.*by\n.*wells\n.*'fov', 'lineage'"),
    ({"tau_range": [2.0, 0.5]}, "tau_range\n.*reversed\n.*\n.*swap the two\n.*fit.yml, data.init_args.tau_range"),
    ({"tau_range": [-2.0, -1.5]}, "tau_range\n.*negative\n.*0 <= first"),
    ({"tau_range": [50.0, 60.0]}, "tau_range\n.*no observation.*positive.*frames.*\n.*shorter than the tracks"),
    ({"tau_range": "fast"}, "data.init_args.tau_range\n.*fast\n.*tuple"),
    ({"batch_size": 0}, "batch_size\n.*0\n.*at least 1\n.*fit.yml, data.init_args.batch_size"),
    ({"batch_size": 2.5}, "data.init_args.batch_size\n.*2.5\n.*int"),
    ({"num_workers": -1}, "num_workers\n.*-1\n.*at least 0"),
    ({"leaky": 2.0}, "leaky\n.*2.0\n.*below 1\n.*fit.yml"),
    ({"temporal_enrichment": True, "temporal_global_fraction": 3.0}, "temporal_global_fraction\n.*3.0\n.*from 0 to 1"),
    ({"experiment_weights": {"frist": 2.0}}, "experiment_weights\n.*'frist'\n.*did you mean 'first'.*\n.*fit.yml"),
    ({"experiment_weights": {"first": -2.0}}, r"experiment_weights\['first'\]\n.*-2.0\n.*at least 0"),
    ({"condition_ratio": {"infectd": 0.5}}, "condition_ratio\n.*'infectd'\n.*did you mean 'infected'"),
    ({"channel_dropout_channels": [7]}, "channel_dropout_channels\n.*channel 7\n.*2 channels"),
    ({"channel_dropout_prob": 1.5}, "channel_dropout_prob\n.*1.5\n.*0 to 1\n.*fit.yml"),
    ({"positive_scope": "descendents"}, "positive_scope\n.*descendents\n.*\n.*did you mean 'descendants'"),
    ({"training_channels": ["GPF"]}, "experiments.yml: experiment 'first'.*\n.*'GPF'.*\n.*did you mean 'GFP'"),
    ({"include_wells": ["C/3"]}, "include_wells\n.*'C/3'\n.*'A/1', 'B/1'\n.*\n.*fit.yml, data.init_args.include_wells"),
    ({"include_wells": "A/1"}, "include_wells\n.*A/1\n.*list"),
    ({"exclude_fovs": ["Z/9/9"]}, "exclude_fovs\n.*'Z/9/9'\n.*'A/1/0'"),
    ({"exclude_fovs": ["A/1/0", "B/1/0"]}, "exclude_fovs\n.*no FOV left\n(.|\n)*fit.yml, data.init_args.exclude_fovs"),
    ({"max_border_shift": -1}, "max_border_shift\n.*-1\n.*at least 0"),
    ({"cache_pool_bytes": -1}, "cache_pool_bytes\n.*-1\n.*at least 0"),
    ({"max_per_lineage": 0}, "max_per_lineage\n.*0\n.*at least 1"),
    ({"neighbor_fraction": 0.5}, "neighbor_embeddings\n.*\n.*if, and only if, neighbor_fraction is above 0"),
    ({"neighbor_fraction": 0.5, "neighbor_embeddings": "none.zarr"}, "none.zarr\n.*nothing\n.*a store of embeddings"),
    (
        {"neighbor_fraction": 0.5, "neighbor_embeddings": "first/images.zarr"},
        "an image store.*\n.*a store of embeddings",
    ),
    ({"index_path": "index.parquet"}, "index.parquet\n.*nothing\n.*a saved index\n.*dynaclr build-index"),
    ({"index_path": "experiments.yml"}, "experiments.yml\n.*no parquet file\n.*a saved index"),
    ({"index_path": "first"}, "first\n.*no parquet file\n.*a saved index"),
    ({"seed": "x"}, "data.init_args.seed\n.*x\n.*int"),
    ({"normalizations": {"class_path": "viscy_transforms.NormalizeSampled"}}, "init_args.normalizations\n.*\n.*list"),
    ({"augmentations": ["flip"]}, "data.init_args.augmentations\n.*flip.*\n.*package.module.Class"),
    (
        {"augmentations": [FLIP | {"init_args": {"keys": ["GFP"], "prob": 0.5}}]},
        r"keys of BatchedRandFlipd\n.*'GFP'\n.*ch_0, ch_1\n.*\n.*fit.yml, data.*augmentations\[0\].init_args.keys",
    ),
    ({"augmentations": [FLIP | {"init_args": {"keys": ["ch_0"], "prob": 5}}]}, r"prob .* is 5.*\n.*augmentations\[0\]"),
    (
        {"augmentations": [FLIP | {"init_args": {"keys": ["ch_0"], "spatial_axes": [9]}}]},
        r"spatial_axes is \[9\].*\n.*fit.yml, data.init_args.augmentations\[0\].init_args.spatial_axes",
    ),
]


@pytest.mark.parametrize(("change", "pattern"), DATA, ids=[str(change) for change, _ in DATA])
def test_an_argument_of_the_data_is_wrong(place, change, pattern):
    for name, value in change.items():
        place.data[name] = value
        if value is None:
            del place.data[name]
    place.refused("fit --config fit.yml", pattern)


NORMALIZATION = [
    (
        {"keys": ["Phase"]},
        r"keys of NormalizeSampled\n.*'Phase'\n.*ch_0, ch_1\n.*\n.*fit.yml, data.*\[0\].init_args.keys",
    ),
    ({"keys": None}, "data.init_args.normalizations.init_args.keys\n.*nothing"),
    (
        {"level": "fov_statistic"},
        "normalizations.init_args.level\n.*fov_statistic\n.*\n.*did you mean 'fov_statistics'",
    ),
    ({"subtrahnd": "mean"}, "normalizations\n.*'subtrahnd' is not accepted\n.*did you mean 'subtrahend'"),
]


@pytest.mark.parametrize(("change", "pattern"), NORMALIZATION, ids=[str(change) for change, _ in NORMALIZATION])
def test_an_argument_of_a_transform_is_wrong(place, change, pattern):
    place.data["normalizations"][0]["init_args"].update(change)
    if change.get("keys", 0) is None:
        del place.data["normalizations"][0]["init_args"]["keys"]
    place.refused("fit --config fit.yml", pattern)


MODEL = [
    ("model", {"lr": "fast"}, "model.init_args.lr\n.*fast\n.*float"),
    ("model", {"lr": -1.0}, "lr: found -1.0.*\n.*fit.yml, model.init_args.lr"),
    ("model", {"learning_rate": 0.1}, "field model\n.*'learning_rate' is not accepted"),
    ("model", {"schedule": "Cosine"}, "model.init_args.schedule\n.*Cosine\n.*\n.*did you mean 'WarmupCosine'"),
    ("model", {"encoder": None}, "model.init_args.encoder\n.*nothing"),
    ("encoder", {"backbone": "convnext_atoo"}, "backbone\n.*convnext_atoo\n.*\n.*did you mean 'convnext_atto'"),
    ("encoder", {"backbone": 5}, "backbone\n.*5\n.*one of 'convnext_tiny'"),
    ("encoder", {"in_channels": 1}, "in_channels of the encoder\n.*1, and 2 in the images.*\n.*\n.*set in_channels: 2"),
    ("encoder", {"in_channels": 0}, "in_channels is 0.*\n.*fit.yml, model.init_args.encoder.init_args.in_channels"),
    (
        "encoder",
        {"in_stack_depth": 5, "stem_kernel_size": [5, 2, 2], "stem_stride": [5, 2, 2]},
        "in_stack_depth of the encoder\n.*5, and 1 in the images by z_range\n.*\n.*set in_stack_depth: 1",
    ),
    ("encoder", {"in_stack_depth": 4, "stem_kernel_size": [5, 2, 2]}, "in_stack_depth is 4, .*depths that fit are"),
    ("encoder", {"embedding_dim": -4}, "embedding_dim is -4.*\n.*fit.yml, model.init_args.encoder"),
    ("encoder", {"stem_kernel_size": 3}, "encoder.init_args.stem_kernel_size\n.*3\n.*tuple"),
    ("encoder", {"embeding_dim": 4}, "model.init_args.encoder\n.*'embeding_dim'.*\n.*did you mean 'embedding_dim'"),
]


@pytest.mark.parametrize(("section", "change", "pattern"), MODEL, ids=[str(change) for _, change, _ in MODEL])
def test_an_argument_of_the_model_is_wrong(place, section, change, pattern):
    getattr(place, section).update(change)
    if change.get("encoder", 0) is None:
        del place.model["encoder"]
    place.refused("fit --config fit.yml", pattern)


LOSS = [
    ({"class_path": "dynaclr.loss.NTXentHLC"}, "model.init_args.loss_function\n.*\n.*did you mean 'NTXentHCL'"),
    (
        {"class_path": "dynaclr.index.MultiExperimentIndex"},
        "loss_function\n.*Index .*\n.*class_path and init_args of a Module",
    ),
    ({"init_args": {"temprature": 1}}, "loss_function\n.*'temprature' is not accepted\n.*did you mean 'temperature'"),
    (
        {"init_args": {"temperature": -1}},
        "temperature: found -1.*\n.*fit.yml, model.*loss_function.init_args.temperature",
    ),
    ({"init_args": {"temperature": "warm"}}, "loss_function.init_args.temperature\n.*warm\n.*float"),
]


@pytest.mark.parametrize(("change", "pattern"), LOSS, ids=[str(change) for change, _ in LOSS])
def test_the_loss_is_wrong(place, change, pattern):
    place.model["loss_function"].update(change)
    place.refused("fit --config fit.yml", pattern)


def _callback(name, **arguments):
    return [{"class_path": f"lightning.pytorch.callbacks.{name}", "init_args": arguments}]


TRAINER = [
    ({"max_epochs": "ten"}, "trainer.max_epochs\n.*ten\n.*int"),
    ({"max_epochs": -5}, "`max_epochs` must be.*\n.*fit.yml, trainer.max_epochs"),
    ({"max_epoch": 3}, "trainer.max_epoch\n.*unknown key\n.*did you mean 'trainer.max_epochs'"),
    ({"accelerator": "gpuu"}, "accelerator='gpuu'.*Available names.*\n.*fit.yml, trainer.accelerator"),
    ({"devices": 0}, r"devices=0(.|\n)*fit.yml, trainer.devices"),
    ({"precision": "bf16-mixt"}, "trainer.precision\n.*bf16-mixt\n.*\n.*did you mean 'bf16-mixed'"),
    ({"strategy": "dpp"}, "strategy='dpp'.*\n.*fit.yml, trainer.strategy"),
    ({"limit_train_batches": -1}, "limit_train_batches.*\n.*fit.yml, trainer.limit_train_batches"),
    (
        {"callbacks": _callback("ModelChekpoint")},
        "trainer.callbacks\n.*ModelChekpoint(.|\n)*did you mean 'ModelCheckpoint'",
    ),
    ({"callbacks": _callback("ModelCheckpoint", save_top_k="x")}, "callbacks.init_args.save_top_k\n.*x\n.*int"),
    (
        {"callbacks": _callback("ModelCheckpoint", monitor="nope")},
        "ModelCheckpoint, field monitor\n.*'nope', which is not logged\n.*one of .*loss/train.*\n.*monitor one of them"
        r".*\n.*fit.yml, trainer.callbacks\[0\].init_args.monitor",
    ),
    (
        {"callbacks": _callback("EarlyStopping", monitor="loss/vall")},
        r"EarlyStopping, field monitor\n.*'loss/vall', which is not logged\n.*loss/train.*\n.*did you mean 'loss/val"
        r"(.|\n)*fit.yml, trainer.callbacks\[0\].init_args.monitor",
    ),
]


@pytest.mark.parametrize(("change", "pattern"), TRAINER, ids=[str(change) for change, _ in TRAINER])
def test_an_argument_of_the_trainer_is_wrong(place, change, pattern):
    place.trainer.update(change)
    place.refused("fit --config fit.yml", pattern)
