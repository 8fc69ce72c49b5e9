"""A folder as a user would have it after a first training, in which each test spoils one thing."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import pytest
import yaml

from dynaclr.cli import cli

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
        "loss_function": {"class_path": "dynaclr.loss.NTXentHCL", "init_args": {"temperature": 0.1}},
        "lr": 0.001,
        "example_input_array_shape": [1, 2, 1, 16, 16],
    },
}
DATA = {
    "class_path": "dynaclr.datamodule.MultiExperimentDataModule",
    "init_args": {
        "experiments_yaml": "experiments.yml",
        "z_range": [0, 1],
        "yx_patch_size": [24, 24],
        "final_yx_patch_size": [16, 16],
        "val_experiments": ["second"],
        "batch_size": 8,
        "num_workers": 0,
        "normalizations": [
            {
                "class_path": "viscy_transforms.NormalizeSampled",
                "init_args": {"keys": ["ch_0"], "level": "fov_statistics"},
            }
        ],
    },
}
TRAINER = {
    "accelerator": "cpu",
    "devices": 1,
    "logger": False,
    "max_epochs": 1,
    "limit_train_batches": 1,
    "limit_val_batches": 1,
    "num_sanity_val_steps": 0,
    "log_every_n_steps": 1,
    "enable_progress_bar": False,
    "enable_model_summary": False,
}
UNREADABLE = ("Traceback", "NoneType", "Union", "Namespace", "<class", "object at 0x", "typing.")
MOST_CHARACTERS = 1000


class Answer(NamedTuple):
    """What a command has said."""

    code: int
    said: str
    complained: str


class Place:
    """The folder: configs are written when a command runs, all else is there from the beginning."""

    def __init__(self, folder: Path, experiments: dict[str, Any], capture: pytest.CaptureFixture[str]) -> None:
        self.folder, self._capture = folder, capture
        parts = {"data": DATA, "model": MODEL, "trainer": TRAINER}
        self.fit = yaml.safe_load(yaml.safe_dump({"seed_everything": 0, **parts}))
        self.experiments = yaml.safe_load(yaml.safe_dump(experiments))

    @property
    def data(self) -> dict[str, Any]:
        """Arguments of the data module."""
        return self.fit["data"]["init_args"]

    @property
    def model(self) -> dict[str, Any]:
        """Arguments of the module."""
        return self.fit["model"]["init_args"]

    @property
    def encoder(self) -> dict[str, Any]:
        """Arguments of the encoder."""
        return self.model["encoder"]["init_args"]

    @property
    def trainer(self) -> dict[str, Any]:
        """Arguments of the trainer."""
        return self.fit["trainer"]

    @property
    def entry(self) -> dict[str, Any]:
        """The first experiment."""
        return self.experiments["experiments"][0]

    def write(self, name: str, content: Any = "") -> None:
        """Write a file, mappings as YAML; a written fit.yml or experiments.yml stays."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))

    def own(self, name: str = "first") -> Path:
        """Replace a link to what all tests share by a copy."""
        path = self.folder / name
        source = path.resolve()
        path.unlink()
        shutil.copytree(source, path)
        return path

    def change_table(self, change: Callable[[pd.DataFrame], pd.DataFrame]) -> None:
        """Change the first tracking table of the first experiment."""
        table = min((self.own("first") / "tracks").rglob("*.csv"))
        change(pd.read_csv(table)).to_csv(table, index=False)

    def run(self, command: str | list[str]) -> Answer:
        """Run ``dynaclr <command>`` here, in this process; a command in words is taken as it is."""
        for name, content in (("fit.yml", self.fit), ("experiments.yml", self.experiments)):
            if not (self.folder / name).exists():
                self.write(name, content)
        self._capture.readouterr()
        with contextlib.chdir(self.folder), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what a terminal shows beside the message would be an error here
            with pytest.raises(SystemExit) as stopped:
                cli(shlex.split(command) if isinstance(command, str) else command, prog_name="dynaclr")
        self.cause = stopped.value.__cause__
        said, complained = self._capture.readouterr()
        return Answer(stopped.value.code or 0, said, complained)

    def listing(self) -> set[str]:
        """Return the names of what is in it, but for the configurations that each run writes."""
        return set(os.listdir(self.folder)) - {"fit.yml", "experiments.yml"}

    def moved(self, folder: Path, experiments: dict[str, Any]) -> Place:
        """Return the same of another folder."""
        return Place(folder, experiments, self._capture)

    def refused(self, command: str, *patterns: str) -> str:
        """Run a command that has to be refused in a few words with which a user can go on."""
        code, said, message = self.run(command)
        assert code == 2, message + said
        return self.told(message, *patterns)

    def accepted(self, command: str | list[str], *patterns: str) -> bool:
        """Run a command that may be refused, but then in a few words."""
        code, said, message = self.run(command)
        if code not in (0, 2):
            raise AssertionError(message + said) from self.cause
        if code == 2:
            self.told(message, *patterns)
        return code == 0

    def told(self, message: str, *patterns: str) -> str:
        """Check that a message is one that a user can read."""
        most = MOST_CHARACTERS * (3 if "problems:" in message else 1)
        assert 0 < len(message) < most, message
        for word in UNREADABLE:
            assert word not in message, message
        for pattern in patterns:
            assert re.search(pattern, message), f"{pattern!r} is not in\n{message}"
        return message


@pytest.fixture(scope="session")
def trained(synthetic_experiments, tmp_path_factory) -> Path:
    """Two experiments with statistics, a run that was trained on them, and its embeddings."""
    folder = tmp_path_factory.mktemp("trained")
    source = synthetic_experiments(2).yaml.parent
    for name in ("first", "second", "experiments.yml"):
        (shutil.copytree if (source / name).is_dir() else shutil.copy)(source / name, folder / name)
    (folder / "fit.yml").write_text(
        yaml.safe_dump({"seed_everything": 0, "data": DATA, "model": MODEL, "trainer": TRAINER})
    )
    with contextlib.chdir(folder):
        for name in ("first", "second"):
            _done(f"preprocess --data_path {name}/images.zarr --block_size 4")
        _done("fit --config fit.yml --run trained")
        _done("predict --config fit.yml --run trained")
    return folder


def _done(command: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # such as of a last batch of one cell
        with pytest.raises(SystemExit) as stopped:
            cli(shlex.split(command), prog_name="dynaclr")
    assert not stopped.value.code


@pytest.fixture
def place(trained, tmp_path, monkeypatch, capsys) -> Place:
    """Return a folder of links to what is shared, to be spoilt."""
    monkeypatch.delenv("VISCY_DEBUG", raising=False)
    for name in ("first", "second"):
        (tmp_path / name).symlink_to(trained / name)
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "trained").symlink_to(trained / "runs" / "trained")
    return Place(tmp_path, yaml.safe_load((trained / "experiments.yml").read_text()), capsys)
