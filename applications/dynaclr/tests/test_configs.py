"""The shipped example configs run as shipped, by the command, on small simulated experiments."""

from __future__ import annotations

import dataclasses
import shutil
import subprocess
from pathlib import Path

import anndata
import pytest
import yaml

from viscy_data.synthetic import ExperimentSpec, write_experiment
from viscy_utils.statistics.metadata import generate_normalization_metadata
from viscy_utils.testing.commands import Commands

CONFIGS = Path(__file__).parents[1] / "examples" / "configs"
SLURM = CONFIGS.parent / "slurm"

# Smaller in every direction, and nothing else changed.
SMALL_TRAINER = [
    "--trainer.accelerator=cpu",
    "--trainer.devices=1",
    "--trainer.max_epochs=1",
    "--trainer.limit_train_batches=2",
    "--trainer.limit_val_batches=1",
]
SMALL_MODEL = [
    "--model.init_args.encoder.init_args.in_stack_depth=5",
    "--model.init_args.predict_turned=false",
    "--model.init_args.example_input_array_shape=[1,2,5,32,32]",
]
SMALL_DATA = [
    "--data.init_args.z_range=[0,5]",
    "--data.init_args.final_yx_patch_size=[32,32]",
    "--data.init_args.batch_size=4",
    "--data.init_args.num_workers=0",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Copy the configs and simulate the experiments they name, with statistics."""
    folder = tmp_path_factory.mktemp("configs")
    shutil.copytree(CONFIGS, folder, dirs_exist_ok=True)
    fields = {field.name for field in dataclasses.fields(ExperimentSpec)}
    for entry in yaml.safe_load((folder / "experiments.yml").read_text())["experiments"]:
        reporter_channel = next(name for name in entry["source_channel"] if name != "Phase3D")
        options = {key: value for key, value in entry.items() if key in fields}
        spec = ExperimentSpec(
            **{key: tuple(value) if isinstance(value, list) else value for key, value in options.items()},
            fovs_per_well=2, n_frames=10, n_cells=8, shape=(5, 128, 128), reporter_channel=reporter_channel,
        )  # fmt: skip
        store = write_experiment(spec, folder / "data").store
        assert store == folder / entry["data_path"]
        generate_normalization_metadata(store, grid_spacing=8)
    return folder


@pytest.fixture(scope="module")
def dynaclr(folder):
    """Run a command in the folder, in a fork of a process that has imported what all of them need."""
    server = Commands("dynaclr", folder, ["dynaclr.datamodule", "dynaclr.engine", "viscy_models.contrastive"])

    def run(*args: str) -> None:
        assert server.codes(*args, seconds=600) == [0], server.said()

    yield run
    server.close()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fit", "predict", "patch", "embeddings", "experiments"),
    [
        ("multi_experiment_fit.yml", "multi_experiment_predict.yml", "yx_patch_size", "embeddings.zarr", 3),
        ("fit.yml", "predict.yml", "initial_yx_patch_size", "embeddings_triplet.zarr", None),
    ],
)
def test_example_trains_and_predicts(folder, dynaclr, fit, predict, patch, embeddings, experiments):
    shutil.rmtree(folder / "runs", ignore_errors=True)
    small = [*SMALL_MODEL, *SMALL_DATA, f"--data.init_args.{patch}=[48,48]"]
    dynaclr("fit", "--config", fit, *SMALL_TRAINER, *small)
    assert len(list(folder.glob("runs/*/checkpoints/best.ckpt"))) == 1
    dynaclr("predict", "--config", fit, "--config", predict, *SMALL_TRAINER[:2], *small)
    table = anndata.read_zarr(folder / embeddings)
    assert table.X.shape[1] == 768
    assert table.obs_names.is_unique
    if experiments:
        assert table.obs["experiment"].nunique() == experiments


@pytest.mark.slow
def test_example_trains_two_encoders_and_one_embeds(folder, dynaclr):
    encoders = [f"--model.init_args.encoder.init_args.{arm}_encoder.init_args" for arm in ("source", "target")]
    small = [f"{encoder}.{option}" for encoder in encoders for option in ("in_stack_depth=5", "backbone=convnext_atto")]
    small += [*SMALL_DATA, "--data.init_args.yx_patch_size=[48,48]", SMALL_MODEL[-1], *SMALL_TRAINER[:2]]
    configs = ["--config", "multi_experiment_fit.yml", "--config", "multi_modal.yml"]
    run = ["--run", "two"]
    dynaclr("fit", *configs, *run, *SMALL_TRAINER[2:], *small)
    own = ["--model.init_args.predict_turned=false", "--model.init_args.batch_statistics.n_cells=20"]
    output = ["--config", "multi_experiment_predict.yml", "--trainer.callbacks.output_path=of_source.zarr"]
    dynaclr("predict", *configs, *output, *run, *own, *small)
    table = anndata.read_zarr(folder / "of_source.zarr")
    assert table.X.shape[1] == 320
    assert table.uns["batch_statistics"]["layers"]["features.running_mean"].shape == (3, 320)


@pytest.mark.slow
def test_example_embeds_by_a_pretrained_encoder(folder, dynaclr):
    # Weights cannot be had in tests: the same network, smaller and at random.
    encoder = "--model.init_args.model.init_args"
    small = [f"{encoder}.pretrained=false", f'{encoder}.model_options={{"depth": 1}}', f"{encoder}.img_size=32"]
    sizes = ["--data.init_args.yx_patch_size=[32,32]", "--model.init_args.example_input_array_shape=[1,2,5,32,32]"]
    dynaclr("predict", "--config", "pretrained.yml", *SMALL_TRAINER[:2], *SMALL_DATA, *sizes, *small)
    table = anndata.read_zarr(folder / "embeddings_pretrained.zarr")
    assert table.X.shape[1] == 2 * 384
    assert table.obsm["X_projections"].shape[1] == 64
    assert table.obs["experiment"].nunique() == 3


@pytest.mark.parametrize("script", sorted(SLURM.glob("*.sh")), ids=lambda path: path.name)
def test_slurm_script_is_valid_and_names_existing_files(script):
    subprocess.run(["bash", "-n", script], check=True)
    named = [word for word in script.read_text().replace('"', " ").split() if word.endswith(".yml")]
    assert named
    assert all((CONFIGS / name).exists() for name in named)
