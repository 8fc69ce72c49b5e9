"""Bad input at the command line: one paragraph that names file, field and fix, exit code 2, and no traceback."""

from __future__ import annotations

import shutil
from pathlib import Path

import pandas as pd
import pytest
import yaml

from viscy_utils.cli import main

pytest_plugins = ["viscy_data.testing.fixtures"]

MODEL = {
    "class_path": "dynaclr.engine.ContrastiveModule",
    "init_args": {
        "encoder": {
            "class_path": "viscy_models.contrastive.ContrastiveEncoder",
            "init_args": {
                "backbone": "convnext_atto",
                "in_channels": 2,
                "in_stack_depth": 1,
                "stem_kernel_size": [1, 2, 2],
                "stem_stride": [1, 2, 2],
                "embedding_dim": 16,
                "projection_dim": 8,
            },
        },
        "loss_function": {"class_path": "dynaclr.loss.NTXentHCL"},
        "example_input_array_shape": [1, 2, 1, 16, 16],
    },
}
NORMALIZE = {
    "class_path": "viscy_transforms.NormalizeSampled",
    "init_args": {"keys": ["ch_0"], "level": "fov_statistics"},
}


def _table_of(folder: Path, change) -> None:
    """Change the first tracking table of the first experiment."""
    path = min((folder / "first" / "tracks").rglob("*.csv"))
    change(pd.read_csv(path)).to_csv(path, index=False)


def _cycle(table: pd.DataFrame) -> pd.DataFrame:
    one, two = table["track_id"].unique()[:2]
    return table.assign(parent_track_id=table["track_id"].map({one: two, two: one}).fillna(-1).astype(int))


# What is done to (folder, first entry of the experiments, init_args of the data), and what the message must hold.
CASES = {
    "missing store": (
        lambda f, e, d: shutil.rmtree(f / "first" / "images.zarr"),
        ["'first'", "data_path", "images.zarr"],
    ),
    "missing tracks folder": (lambda f, e, d: shutil.rmtree(f / "first" / "tracks"), ["'first'", "tracks_path"]),
    "missing column": (
        lambda f, e, d: _table_of(f, lambda table: table.drop(columns="y")),
        ["tracks_A_1_0.csv", "y"],
    ),
    "two tables": (
        lambda f, e, d: shutil.copy(f / "first/tracks/A/1/0/tracks_A_1_0.csv", f / "first/tracks/A/1/0/old.csv"),
        ["old.csv", "tracks_A_1_0.csv"],
    ),
    "unknown channel": (
        lambda f, e, d: e.update(source_channel=["Phase3D", "GPF"]),
        ["experiments.yml", "'first'", "source_channel", "GPF", "GFP"],
    ),
    "unknown well": (
        lambda f, e, d: e.update(condition_wells={"uninfected": ["A/1"], "infected": ["B/7"]}),
        ["experiments.yml", "'first'", "condition_wells", "B/7"],
    ),
    "duplicate experiment": (lambda f, e, d: e.update(name="second"), ["experiments.yml", "second"]),
    "unknown field": (
        lambda f, e, d: e.update(interval_minute=5),
        ["experiments.yml", "interval_minute", "interval_minutes"],
    ),
    "z beyond the stack": (lambda f, e, d: d.update(z_range=[3, 4]), ["first", "z_range"]),
    "patch larger than the image": (
        lambda f, e, d: d.update(yx_patch_size=[200, 200], final_yx_patch_size=[200, 200]),
        ["A/1/0", "yx_patch_size", "200"],
    ),
    "nothing left by the filter": (lambda f, e, d: d.update(include_wells=["C/3"]), ["include_wells", "C/3"]),
    "unreachable tau": (lambda f, e, d: d.update(tau_range=[50.0, 60.0]), ["tau_range", "50"]),
    "reversed tau": (lambda f, e, d: d.update(tau_range=[2.0, 0.5]), ["tau_range"]),
    "all in validation": (lambda f, e, d: d.update(val_experiments=["first", "second"]), ["val_experiments"]),
    "unknown validation": (lambda f, e, d: d.update(val_experiments=["secnd"]), ["val_experiments", "secnd", "second"]),
    "unknown key": (lambda f, e, d: d.update(batchsize=4), ["fit.yml", "batchsize", "batch_size"]),
    "unknown choice": (
        lambda f, e, d: d.update(positive_scope="descendents"),
        ["data.init_args.positive_scope", "found    descendents", "'track'", "did you mean 'descendants'?"],
    ),
    "missing statistics": (
        lambda f, e, d: d.update(normalizations=[NORMALIZE]),
        ["fov_statistics", "first", "preprocess"],
    ),
    "duplicate observation": (
        lambda f, e, d: _table_of(f, lambda table: pd.concat([table, table.iloc[:1]])),
        ["tracks_A_1_0.csv", "track_id"],
    ),
    "lineage cycle": (lambda f, e, d: _table_of(f, _cycle), ["A/1/0", "ancestor"]),
    "coordinate that is not a number": (
        lambda f, e, d: _table_of(f, lambda table: table.assign(y=table["y"].where(table.index > 0))),
        ["tracks_A_1_0.csv", "y"],
    ),
}


@pytest.mark.parametrize(("damage", "named"), CASES.values(), ids=CASES)
def test_bad_input_is_one_paragraph(damage, named, synthetic_experiments, tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("VISCY_DEBUG", raising=False)
    source = synthetic_experiments(2).yaml
    shutil.copytree(source.parent, tmp_path, dirs_exist_ok=True)
    experiments = yaml.safe_load(source.read_text())
    data = {
        "experiments_yaml": "experiments.yml",
        "z_range": [0, 1],
        "yx_patch_size": [24, 24],
        "final_yx_patch_size": [16, 16],
        "val_experiments": ["second"],
        "batch_size": 8,
        "num_workers": 0,
    }
    damage(tmp_path, experiments["experiments"][0], data)
    (tmp_path / "experiments.yml").write_text(yaml.safe_dump(experiments))
    trainer = {"accelerator": "cpu", "devices": 1, "logger": False, "max_epochs": 1, "enable_checkpointing": False}
    data_block = {"class_path": "dynaclr.datamodule.MultiExperimentDataModule", "init_args": data}
    (tmp_path / "fit.yml").write_text(yaml.safe_dump({"data": data_block, "model": MODEL, "trainer": trainer}))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stopped:
        main(["fit", "--config", "fit.yml"], prog="dynaclr")
    message = capsys.readouterr().err.partition("dynaclr: error: ")[2]
    assert stopped.value.code == 2, message
    assert "Traceback" not in message
    assert 0 < len(message.splitlines()) < 16
    for word in named:
        assert word in message.replace('"', "'"), message
