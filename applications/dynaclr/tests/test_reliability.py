"""Faults in real runs: commands that are killed go on as if nothing had happened."""

from __future__ import annotations

import csv
import json
import os
import random
import shutil
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from viscy_data.stores import PlateWriter
from viscy_data.tracks import write_tracks
from viscy_utils.embeddings.reading import read_embedding_dataset
from viscy_utils.testing.commands import Commands

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not hasattr(os, "fork"), reason="needs forks"),
]

N_FRAMES, N_TRACKS, FOVS = 6, 3, ("A/1/0", "B/1/0")
PRELOADED = (
    "forked_predictions",
    "anndata",
    "monai.transforms",
    "timm",
    "dynaclr.loss",
    "viscy_models",
    "viscy_transforms",
    "viscy_utils.cli.lightning_cli",
)


def write_experiments(folder: Path, name="experiments.yml", nan_at=None) -> None:
    """Write two experiments of random pixels; ``nan_at`` names experiment, FOV, frame and channel with a NaN."""
    rng, entries = np.random.default_rng(0), []
    for number, experiment in enumerate(("first", "second")):
        store, tracks = folder / name / f"{experiment}.zarr", folder / name / experiment
        with PlateWriter(store, ["Phase", "GFP"]) as plate:
            for fov in FOVS:
                pixels = rng.normal(100 * number, 5, (N_FRAMES, 2, 1, 40, 40)).astype(np.float32)
                if nan_at is not None and nan_at[:2] == (experiment, fov):
                    pixels[nan_at[2], nan_at[3], 0] = np.nan
                plate.write(fov, pixels)
                rows = [(k, t, 12.0 + 6 * k, 14.0 + 5 * k) for k in range(N_TRACKS) for t in range(N_FRAMES)]
                write_tracks(pd.DataFrame(rows, columns=["track_id", "t", "y", "x"]), tracks / fov / "tracks.csv")
        entries.append(
            {
                "name": experiment,
                "data_path": str(store),
                "tracks_path": str(tracks),
                "channel_names": ["Phase", "GFP"],
                "source_channel": ["Phase", "GFP"],
                "condition_wells": {"control": ["A/1"], "infected": ["B/1"]},
                "interval_minutes": 30.0,
            }
        )
    (folder / f"{name}.yml").write_text(yaml.safe_dump({"experiments": entries}))


def config_of(experiments: str, storage=(), **trainer) -> dict:
    keys = ["ch_0", "ch_1"]
    flips = {"class_path": "viscy_transforms.BatchedRandFlipd", "init_args": {"keys": keys, "spatial_axes": [1, 2]}}
    noise = {"class_path": "viscy_transforms.BatchedRandGaussianNoised", "init_args": {"keys": keys, "prob": 0.5}}
    encoder = {"backbone": "convnext_atto", "in_channels": 2, "in_stack_depth": 1, "stem_kernel_size": [1, 2, 2]}
    encoder |= {"stem_stride": [1, 2, 2], "embedding_dim": 16, "projection_dim": 8}
    data = {"experiments_yaml": experiments, "val_experiments": ["second"], "z_range": [0, 1], "batch_size": 4}
    data |= {"yx_patch_size": [24, 24], "final_yx_patch_size": [16, 16], "num_workers": 0}
    data |= {"augmentations": [flips, noise], "storage": dict(storage)}
    loss = {"class_path": "dynaclr.loss.NTXentHCL", "init_args": {"temperature": 0.2, "gather_distributed": True}}
    model = {"encoder": {"class_path": "viscy_models.contrastive.ContrastiveEncoder", "init_args": encoder}}
    model |= {"loss_function": loss, "example_input_array_shape": [1, 2, 1, 16, 16], "log_batches_per_epoch": 0}
    settings = {"accelerator": "cpu", "devices": 1, "max_epochs": 2, "logger": False, "limit_val_batches": 2}
    settings |= {"enable_progress_bar": False, "enable_model_summary": False, "num_sanity_val_steps": 0}
    return {
        "seed_everything": 1,
        "trainer": settings | trainer,
        "model": {"class_path": "dynaclr.engine.ContrastiveModule", "init_args": model},
        "data": {"class_path": "dynaclr.datamodule.MultiExperimentDataModule", "init_args": data},
    }


@pytest.fixture(scope="module")
def commands(tmp_path_factory):
    folder = tmp_path_factory.mktemp("reliability")
    write_experiments(folder, "whole")
    server = Commands("dynaclr", folder, PRELOADED, Path(__file__).parent)
    yield server
    server.close()


def fit(commands, run, fault=None, *, ranks=1, callbacks=(), experiments="whole.yml", storage=(), data=None, **trainer):
    """Begin or go on with a run, with a fault; returns how its ranks have ended."""
    fault = {"steps": f"{run}.steps", **(fault or {})}
    own = {"class_path": "viscy_utils.testing.faults.Fault", "init_args": fault}
    config = config_of(experiments, storage, callbacks=[own, *callbacks], **trainer)
    config["data"] = data or config["data"]
    (commands.folder / f"{run}.yml").write_text(yaml.safe_dump(config))
    return commands.run("fit", "--config", f"{run}.yml", "--run", run, "--resume", ranks=ranks)


def steps_of(commands, run, rank=0):
    """Return what happened in each step, by epoch and number; a step that was made twice has to be the same."""
    steps = {}
    for line in (commands.folder / f"{run}.steps.{rank}").read_text().splitlines():
        epoch, number, *happened = json.loads(line)
        assert steps.setdefault((epoch, number), happened) == happened, f"epoch {epoch} step {number} differs"
    return steps


def weights(commands, run):
    path = commands.folder / "runs" / run / "checkpoints" / "last.ckpt"
    return torch.load(path, weights_only=True)["state_dict"]


@pytest.fixture(scope="module")
def unbroken(commands):
    (ended,) = fit(commands, "unbroken")
    assert ended["code"] == 0, commands.said()
    steps = steps_of(commands, "unbroken")
    assert len({epoch for epoch, _ in steps}) == 2
    assert len(steps) >= 8
    return steps


EVERY_STEP = {
    "class_path": "lightning.pytorch.callbacks.ModelCheckpoint",
    "init_args": {"every_n_train_steps": 1, "save_last": True, "save_top_k": -1, "monitor": None},
}
FAULTS = [  # hook, steps made before, what happens, exit code
    ("on_before_backward", 2, "SIGKILL", -9),  # before the first checkpoint
    ("on_before_optimizer_step", 3, "SIGUSR1", 138),
    ("on_validation_batch_start", 7, "SIGKILL", -9),
    ("on_validation_batch_start", 7, "SIGTERM", 143),
    ("on_train_batch_start", 9, "full disk", 1),
    ("on_before_optimizer_step", 9, "SIGKILL", -9),
    ("on_before_zero_grad", 11, "SIGINT", 130),
]


def assert_whole(commands, run):
    """Whatever has the name of a checkpoint is one."""
    for path in (commands.folder / "runs" / run / "checkpoints").glob("*.ckpt"):
        torch.load(path, weights_only=True)


def assert_ends_alike(commands, run, unbroken, of="unbroken"):
    assert steps_of(commands, run) == unbroken
    found, expected = weights(commands, run), weights(commands, of)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[key], expected[key]) for key in expected)


def test_a_fit_that_is_ended_again_and_again_goes_on_to_the_last_bit(commands, unbroken):
    for hook, after, kind, code in FAULTS:
        (ended,) = fit(commands, "broken", {"hook": hook, "after": after, "kind": kind})
        assert ended["code"] == code, commands.said()
        if kind == "full disk":
            assert "could not be written, and is as it was" in commands.said()
        assert_whole(commands, "broken")
    (ended,) = fit(commands, "broken")
    assert ended["code"] == 0, commands.said()
    assert_ends_alike(commands, "broken", unbroken)


def test_a_fit_with_a_checkpoint_of_every_step_goes_on_with_the_next_step(commands, unbroken):
    fault = {"hook": "on_before_backward", "after": 5, "kind": "SIGKILL"}
    (ended,) = fit(commands, "every", fault, callbacks=(EVERY_STEP,))
    assert ended["code"] == -9, commands.said()
    n_made = len(steps_of(commands, "every"))
    (ended,) = fit(commands, "every", callbacks=(EVERY_STEP,))
    assert ended["code"] == 0, commands.said()
    assert_ends_alike(commands, "every", unbroken)
    lines = (commands.folder / "every.steps.0").read_text().splitlines()
    assert (n_made, len(lines)) == (5, len(unbroken)), "no step is made twice"


def test_a_fit_on_the_triplets_of_one_plate_goes_on_with_the_next_step(commands):
    keys = ["Phase", "GFP"]
    flips = {"class_path": "viscy_transforms.BatchedRandFlipd", "init_args": {"keys": keys, "spatial_axes": [1, 2]}}
    options = {"data_path": "whole/first.zarr", "tracks_path": "whole/first", "source_channel": keys, "z_range": [0, 1]}
    options |= {"initial_yx_patch_size": [24, 24], "final_yx_patch_size": [16, 16], "split_ratio": 0.5, "batch_size": 3}
    options |= {"num_workers": 0, "time_interval": 1, "augmentations": [flips]}
    data = {"class_path": "viscy_data.triplet.TripletDataModule", "init_args": options}
    for run in ("triplets", "triplets_killed"):
        for after in (2, 8, None) if run == "triplets_killed" else (None,):
            fault = None if after is None else {"hook": "on_before_optimizer_step", "after": after, "kind": "SIGKILL"}
            (ended,) = fit(commands, run, fault, callbacks=(EVERY_STEP,), data=data)
            assert ended["code"] == (0 if after is None else -9), commands.said()
    unbroken = steps_of(commands, "triplets")
    assert len(unbroken) == 10
    assert_ends_alike(commands, "triplets_killed", unbroken, of="triplets")
    lines = (commands.folder / "triplets_killed.steps.0").read_text().splitlines()
    assert len(lines) == len(unbroken), "no step is made twice"


def test_pixels_that_are_not_finite_end_a_fit_with_the_cells_in_a_file(commands):
    write_experiments(commands.folder, "nan", nan_at=("first", "B/1/0", 3, 1))
    (ended,) = fit(commands, "nonfinite", experiments="nan.yml", callbacks=(EVERY_STEP,))
    assert ended["code"] == 1, commands.said()
    folder = commands.folder / "runs" / "nonfinite"
    assert "nonfinite_cells.csv" in commands.said()
    with open(folder / "nonfinite_cells.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows
    for row in rows:
        named = {name: row[name] for name in ("experiment", "fov_name", "t", "nonfinite_channels")}
        assert named == {"experiment": "first", "fov_name": "B/1/0", "t": "3", "nonfinite_channels": "GFP"}
        assert row["role"] in ("anchor", "positive")
        assert int(row["track_id"]) < N_TRACKS
    assert json.loads((folder / "run.json").read_text())["status"] == "failed"
    kept = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    n_steps = len(steps_of(commands, "nonfinite"))
    assert kept["global_step"] == n_steps > 0
    assert rows[0]["step"] == f"train epoch 0 batch {n_steps}"
    assert all(weight.isfinite().all() for weight in kept["state_dict"].values())


def test_bad_fovs_end_a_fit_or_are_left_out_by_all_ranks_and_named_in_its_log(commands):
    write_experiments(commands.folder, "faulty")
    bad = "first.zarr, FOV B/1/0"
    broken = commands.folder / "faulty" / "first.zarr" / "B/1/0/0/c/5/1/0/0/0"
    broken.write_bytes(broken.read_bytes()[:-4])
    (ended,) = fit(commands, "stops", experiments="faulty.yml")
    assert ended["code"] == 2
    said = commands.said()
    assert f"{bad}, frame 5, channel 'GFP'" in said
    assert str(broken) in said
    assert "storage.bad_fovs: leave_out" in said
    assert "Traceback" not in said
    ends = fit(commands, "goes_on", ranks=2, experiments="faulty.yml", storage={"bad_fovs": "leave_out"}, max_epochs=1)
    assert [ended["code"] for ended in ends] == [0, 0], commands.said()
    folder = commands.folder / "runs" / "goes_on"
    for text in (commands.said(), (folder / "train.log").read_text()):
        assert "1 FOV that cannot be read is left out" in text
        assert f"{bad} (frame 5, channel 'GFP'" in text
    record = json.loads((folder / "run.json").read_text())["data"]
    [[store, fov, why]] = record["left_out"]
    assert (Path(store).name, fov) == ("first.zarr", "B/1/0")
    assert why.startswith("frame 5, channel 'GFP'")
    assert sum(source["fovs"] for source in record["sources"]["train"]) == 1


@pytest.mark.parametrize("kind", ["error", "SIGKILL"])
def test_a_rank_that_ends_ends_the_others_within_seconds(commands, kind):
    fault = {"hook": "on_before_backward", "after": 2, "kind": kind, "rank": 1}
    ends = fit(commands, f"ranks_{kind}", fault, ranks=2)
    assert ends[1]["code"] == {"error": 1, "SIGKILL": -9}[kind], commands.said(1)
    assert ends[0]["code"] == 1, commands.said(0)
    assert abs(ends[0]["at"] - ends[1]["at"]) < 20
    assert kind != "error" or "a rank has failed" in commands.said(1)


def test_a_signal_to_one_rank_stops_all_after_the_same_step(commands):
    fault = {"hook": "on_before_backward", "after": 2, "kind": "SIGTERM", "rank": 1}
    ends = fit(commands, "told", fault, ranks=2, max_epochs=1000)
    assert [ended["code"] for ended in ends] == [143, 143], commands.said()
    assert "stopping after the step in which all ranks know of it" in commands.said(1)
    n_steps = len(steps_of(commands, "told", 0))
    assert steps_of(commands, "told", 0).keys() == steps_of(commands, "told", 1).keys()
    path = commands.folder / "runs" / "told" / "checkpoints" / "last.ckpt"
    assert torch.load(path, weights_only=True)["global_step"] == n_steps >= 3


def test_a_fit_goes_on_with_fewer_and_with_more_ranks_from_where_it_was(commands, unbroken):
    parts = [(2, 2), (1, 3), (2, None)]  # of ranks, and steps after which they are stopped
    for ranks, after in parts:
        fault = {} if after is None else {"hook": "on_before_backward", "after": after, "kind": "SIGKILL"}
        ends = fit(commands, "elastic", fault, ranks=ranks, callbacks=(EVERY_STEP,))
        assert [ended["code"] for ended in ends] == [0 if after is None else -9] * ranks, commands.said()
    assert len(unbroken) == 14
    first = {(0, 0): 0, (0, 1): 2, (0, 4): 4, (0, 3): 5}  # numbers over all ranks, of a rank's batches
    second = {(0, 0): 1, (0, 1): 3, (0, 3): 6}
    for rank, numbers in enumerate((first, second)):
        numbers |= {(1, turn): (rank + 2 * turn) % 7 for turn in range(4)}  # the epoch is filled up for two ranks
        steps = steps_of(commands, "elastic", rank)
        assert steps.keys() == numbers.keys()
        for (epoch, number), (batch, _) in steps.items():
            assert batch == unbroken[epoch, numbers[epoch, number]][0]


# Prediction


def predict(commands, output, *, ranks=1, kills=(), **options):
    """Predict on some ranks; kills say at which write below the folder of the output each is killed."""
    folder = str(output.parent) + "/"
    faults = [{} if kill is None else {"kill_at": kill, "folder": folder} for kill in kills]
    options |= {"experiments_yaml": "whole.yml", "output": str(output)}
    return commands.codes(call=("forked_predictions", "predict"), options=options, ranks=ranks, faults=faults)


def assert_same_rows(found, expected):
    found, expected = anndata.read_zarr(found), anndata.read_zarr(expected)
    pd.testing.assert_frame_equal(found.obs, expected.obs)
    np.testing.assert_array_equal(found.X, expected.X)
    np.testing.assert_array_equal(found.obsm["X_projections"], expected.obsm["X_projections"])


def assert_readable(output, expected):
    """What readers see of an interrupted prediction: rows that are right, or nothing."""
    if output.exists():
        assert_same_rows(output, expected)
    parts = output.with_name(f"{output.name}.parts")
    if list(parts.glob("rank*/[0-9]*-[0-9]*")):
        part, whole = read_embedding_dataset(parts)["features"].to_numpy(), anndata.read_zarr(expected).X
        assert 0 < len(part) <= len(whole)
        assert {row.tobytes() for row in part} <= {row.tobytes() for row in np.asarray(whole)}


@pytest.mark.parametrize(("ranks", "n_kills"), [(1, 20), (2, 4)])
def test_a_prediction_that_is_killed_anywhere_loses_doubles_and_moves_no_row(commands, ranks, n_kills):
    expected = commands.folder / f"expected{ranks}" / "embeddings.zarr"
    assert predict(commands, expected, ranks=ranks, kills=[10**9]) == [0] * ranks, commands.said()
    n_writes = int((commands.folder / f"expected{ranks}.events").read_text())
    assert n_writes > 100
    rng, n_killed, output = random.Random(ranks), 0, commands.folder / f"killed{ranks}" / "embeddings.zarr"
    for _ in range(10 * n_kills):
        if n_killed == n_kills:
            break
        of_first = [rng.randrange(1, n_writes // 4)]  # it goes on with fewer writes, up to the merging
        kills = of_first if ranks == 1 or rng.random() < 0.5 else [None, rng.randrange(1, n_writes // 2)]
        codes = predict(commands, output, ranks=ranks, kills=kills)
        assert None not in codes, "a rank goes on waiting for one that is gone"
        assert ranks > 1 or codes in ([0], [-9]), commands.said()
        n_killed += -9 in codes
        if codes == [0] * ranks:
            assert_same_rows(output, expected)
            shutil.rmtree(output.parent)
        elif output.parent.exists():
            assert_readable(output, expected)
    assert n_killed == n_kills
    if not output.exists():
        assert predict(commands, output, ranks=ranks) == [0] * ranks, commands.said()
    assert_same_rows(output, expected)


def test_two_ranks_predict_by_the_statistics_that_one_finds(commands):
    found = []
    for ranks in (1, 2):
        output = commands.folder / f"adapted{ranks}" / "embeddings.zarr"
        n_cells = len(FOVS) * N_TRACKS * N_FRAMES
        assert predict(commands, output, ranks=ranks, statistics_of=n_cells) == [0] * ranks, commands.said()
        found.append(anndata.read_zarr(output))
    one, two = found
    pd.testing.assert_frame_equal(two.obs, one.obs)
    np.testing.assert_allclose(two.X, one.X, rtol=1e-5, atol=1e-5)
    for name, layer in one.uns["batch_statistics"]["layers"].items():
        np.testing.assert_array_equal(two.uns["batch_statistics"]["layers"][name], layer)
    for _, rows in one.obs.groupby("experiment", observed=True).indices.items():  # each by its own
        np.testing.assert_allclose(one.X[rows].mean(axis=0), 0, atol=1e-4)
        # While it is estimated, the normalisation behind the features sees what the one before divides by the deviation
        # of the batch, of which these cells are one, and not by that of the population.
        np.testing.assert_allclose(one.X[rows].std(axis=0, ddof=1), np.sqrt((len(rows) - 1) / len(rows)), atol=1e-3)
