"""What is refused, and what is explained, before torch is imported: the same as after it."""

from __future__ import annotations

import re

import pytest
import yaml

from viscy_data.errors import InputError
from viscy_utils.cli.early_checks import refuse_early
from viscy_utils.cli.lightning_cli import run
from viscy_utils.cli.subcommand_help import format_subcommand_help, known_keys, options_of
from viscy_utils.cli.subcommands import SUBCOMMANDS

PLATE = {"class_path": "viscy_data.HCSDataModule", "init_args": {"data_path": "plate.zarr", "source_channel": "Phase"}}
PLATE["init_args"] |= {"target_channel": "GFP", "z_window_size": 1, "num_workers": 0, "batch_size": 2}
BORING = {"class_path": "lightning.pytorch.demos.boring_classes.BoringModel"}
TRAINER = {"accelerator": "cpu", "devices": 1, "logger": False, "max_steps": 1, "enable_checkpointing": False}


@pytest.fixture
def write(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def make(name="fit.yml", **sections):
        (tmp_path / name).write_text(yaml.safe_dump(sections))
        return ["--config", name]

    return make


def refusal(function, *args):
    with pytest.raises(InputError) as caught:
        function(*args)
    return [str(caught.value), *getattr(caught.value, "__notes__", [])]


def flags(page):
    """Options of a page, without those that describe classes."""
    found = re.findall(r"^ +(?:-\w(?: \w+)?, )?(--[\w.]+)", page, re.MULTILINE)
    return {flag for flag in found if not flag.endswith(".help")}


@pytest.mark.parametrize("name", ["fit", "validate", "predict", "preprocess", "export"])
def test_help_is_that_of_the_parser(name, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit):
        run([name, "--help"])
    of_parser = flags(capsys.readouterr().out)
    assert {"--trainer.max_epochs", "--data", "--config"} < of_parser
    own = {flag for flag in of_parser if not flag.startswith(("--trainer", "--data.", "--optimizer", "--lr_scheduler"))}
    own -= {"--data"}
    assert flags(format_subcommand_help(name, "viscy")) == (own if name == "preprocess" else of_parser)
    assert {f"--{key}" for key in known_keys(name)} == of_parser - {"--help", "--print_config"}


def test_help_tells_types_defaults_and_texts():
    options = {option.key: option for group in options_of("fit").values() for option in group}
    epochs = options["trainer.max_epochs"]
    assert epochs.default == "null"
    assert "int" in epochs.kind
    assert epochs.help.startswith("Stop training once this number of epochs is reached.")
    assert options["trainer.accelerator"].default == '"auto"'
    assert options["trainer.precision"].kind == ""  # an alias with an underscore says nothing
    preprocess = {option.key: option for option in options_of("preprocess")["preprocess"]}
    assert "model" not in preprocess
    assert preprocess["data_path"].default == ""
    assert preprocess["channel_names"].default == "-1"
    assert preprocess["storage.bad_fovs"].default == '"stop"'
    assert preprocess["storage.bad_fovs"].help.startswith("Stop at set-up")
    assert "random weights" in {option.key: option for option in options_of("predict")["predict"]}["ckpt_path"].default


@pytest.mark.parametrize("name", SUBCOMMANDS)
def test_help_has_no_option_without_a_text(name):
    assert not [option for group in options_of(name).values() for option in group if not option.help]


@pytest.mark.parametrize(
    "sections",
    [
        {"trainer": TRAINER, "model": BORING, "data": PLATE},
        {"trainer": TRAINER, "model": BORING, "data": PLATE, "optimiser": {"class_path": "torch.optim.Adam"}},
        {"trainer": TRAINER, "modle": BORING, "data": PLATE},
        {"trainer": TRAINER, "model": BORING, "data": PLATE, "something": 1},
        {"trainer": TRAINER, "model": BORING, "data": PLATE, "ckpt_path": "none.ckpt"},
    ],
    ids=["missing store", "near key", "misspelt section", "unknown key", "missing weights"],
)
def test_what_is_refused_early_is_refused_late_in_the_same_words(sections, write):
    args = ["fit", *write(**sections)]
    late = [line.replace(".class_path\n", "\n") for line in refusal(run, args)]  # the parser looks into the section
    assert refusal(refuse_early, args, "viscy", {}) == late


@pytest.mark.parametrize("args", [["fit", "--config", "absent.yml"], ["fit"], ["predict"]])
def test_a_missing_configuration_is_refused_early_in_the_same_words(args, write):
    assert refusal(refuse_early, args, "viscy", {}) == refusal(run, args)


def test_what_is_not_certain_is_left_to_the_parser(write):
    first = write(data=PLATE, trainer=TRAINER)
    twice = [*first, *write("other.yml", data={"init_args": {"data_path": "elsewhere.zarr"}})]
    cached = write("cached.yml", data=PLATE | {"init_args": PLATE["init_args"] | {"caching": True}})
    stranger = write("stranger.yml", data=PLATE | {"class_path": "mine.HCSDataModule"})
    short = write("short.yml", data="data.yml")
    for more in (twice, cached, stranger, short, [*first, "--data.data_path", "elsewhere.zarr"]):
        refuse_early(["fit", *more], "viscy", {})
    refuse_early(["export", *first], "viscy", {})
    refuse_early(["--config", "absent.yml", "fit"], "viscy", {})
    refuse_early(["fit", *write("dotted.yml", **{"trainer.max_epochs": 1, "seed_everything": 1})], "viscy", {})


def test_a_store_that_is_there_is_not_looked_into(write, tmp_path):
    (tmp_path / "plate.zarr").mkdir()
    refuse_early(["fit", *write(data=PLATE)], "viscy", {})
