"""Arguments of the commands that train, predict and export: what they mean, or a few words and nothing written."""

from __future__ import annotations

import os

import pytest
import yaml
from hypothesis import strategies as st

from dynaclr.cli import cli

pytest_plugins = ["viscy_data.testing.fixtures"]

# Nothing that would start processes, wait for machines or train for long: those are right to do so.
OPTIONS = [
    *(
        "--config",
        "--config=fit.yml",
        "-c",
        "--run",
        "--run=trained",
        "--resume",
        "--ckpt_path",
        "--help",
        "--print_config",
    ),
    *("--model", "--model.init_args.lr", "--model.lr", "--model.init_args.encoder", "--model.init_args.loss_function"),
    *("--model.init_args.encoder.init_args.backbone", "--model.init_args.encoder.class_path", "--model.help"),
    *("--data", "--data.init_args.batch_size", "--data.init_args.z_range", "--data.init_args.experiments_yaml"),
    *("--data.init_args.val_experiments", "--data.init_args.storage", "--data.init_args.storage.bad_fovs"),
    *("--data.init_args.normalizations+=x", "--data.init_args.tau_range", "--data.init_args.cell_index_path"),
    *("--trainer.callbacks", "--trainer.callbacks+=x", "--trainer.precision", "--trainer.default_root_dir"),
    *("--trainer.limit_val_batches", "--trainer.logger", "--trainer", "--trainer.accelerator"),
    *("--seed_everything", "--export_path", "--export_path=m.onnx", "--format", "--return_predictions", "--verbose"),
    *("--lable", "--optimizer", "--trainer.lable", "--data.lable", "--model.init_args", "---", "-", "--=", "--config="),
]
WORDS = [
    *(
        "",
        "x",
        "-1",
        "0",
        "1",
        "nan",
        "0.5",
        "../x",
        "--",
        "[",
        "{}",
        "[]",
        "a=b",
        "ä\u2028",
        "null",
        "true",
        "{a: &a [*a]}",
    ),
    *("fit.yml", "experiments.yml", "first", "first/images.zarr", "runs/trained", "trained", "latest", "best", "last"),
    *("runs/trained/checkpoints/last.ckpt", "runs/trained/config.yaml", "m.onnx", "cpu", "leave_out", "os.system"),
    *("dynaclr.engine.ContrastiveModule", "dynaclr.loss.NTXentHCL", "viscy_models.contrastive.ContrastiveEncoder"),
]
COMMANDS = ["fit", "predict", "test", "validate", "export"]
BEGINNINGS = [[], ["--config", "fit.yml"], ["--config", "fit.yml", "--run", "trained"]]


@st.composite
def arguments(draw) -> list[str]:
    """Draw a command that may mean something, with options that it has or not, and values that they take or not."""
    words = st.one_of(st.sampled_from(OPTIONS), st.sampled_from(WORDS))
    beginning = draw(st.sampled_from(BEGINNINGS))
    return [draw(st.sampled_from(COMMANDS)), *beginning, *draw(st.lists(words, min_size=1, max_size=5))]


def everything(folder) -> set[str]:
    """List all files and folders but for the configurations that each run of a test writes."""
    found = {os.path.join(above, name) for above, *names in os.walk(folder) for own in names for name in own}
    return found - {os.path.join(folder, name) for name in ("fit.yml", "experiments.yml")}


KEPT: list[list[str]] = []


def test_arguments_of_trainings(fresh, tried):
    def check(words):
        place = fresh()
        place.fit["trainer"]["max_epochs"] = 1
        place.write("fit.yml", yaml.safe_dump(place.fit))
        before = everything(place.folder)
        if not place.accepted(words):
            assert everything(place.folder) == before, words

    tried(check, arguments(), 6, 240, KEPT)


@pytest.mark.parametrize("name", ["demo", "compare-losses"])
def test_arguments_of_long_commands(fresh, tried, name):
    options = [text for option in cli.commands[name].load().params for text in option.opts]
    words = st.lists(st.one_of(st.sampled_from(options), st.sampled_from(WORDS)), max_size=5)

    def check(drawn):
        place = fresh()
        place.write("fit.yml", yaml.safe_dump(place.fit))
        before = everything(place.folder)
        assert not place.accepted([name, "--lable", *drawn])  # they would take minutes, were they accepted
        assert everything(place.folder) == before

    tried(check, words, 5, 100)
