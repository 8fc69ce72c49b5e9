"""The command line: what it prints when all is well, and when it is not."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from importlib.metadata import requires
from pathlib import Path

import pytest
import torch
import yaml
from lightning.pytorch.demos.boring_classes import BoringDataModule, BoringModel
from packaging.requirements import Requirement

from viscy_data.errors import InputError, reading_input
from viscy_utils.cli import SUBCOMMANDS, format_help, main
from viscy_utils.cli.config_errors import parser_error
from viscy_utils.cli.errors import report_errors

BORING = "lightning.pytorch.demos.boring_classes"


class BadData(BoringDataModule):
    def setup(self, stage):
        raise InputError("plate.zarr", field="yx_patch_size", found="64 pixels in an image of 32")


class BadCode(BoringDataModule):
    """A bug in each of the hooks that Lightning calls before the first step."""

    hook, error = "setup", KeyError("well_id")

    def prepare_data(self):
        self.break_in("prepare_data")

    def setup(self, stage):
        self.break_in("setup")

    def train_dataloader(self):
        self.break_in("train_dataloader")
        return super().train_dataloader()

    def break_in(self, hook):
        if hook == self.hook:
            raise self.error


class BadArgument(BoringDataModule):
    def __init__(self, share: float = 2.0):
        super().__init__()
        raise ValueError(f"share must be at most 1, got {share}")


class LoggingModel(BoringModel):
    def training_step(self, batch, batch_idx):
        found = super().training_step(batch, batch_idx)
        self.log("loss", found["loss"])
        return found


class BadStep(BoringModel):
    def training_step(self, batch, batch_idx):
        raise ValueError("shapes differ")


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Write a configuration that runs, with changes, and return its path."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("VISCY_DEBUG", raising=False)

    def make(model=f"{BORING}.BoringModel", data=f"{BORING}.BoringDataModule", trainer=(), **sections):
        settings = {
            "accelerator": "cpu",
            "devices": 1,
            "max_steps": 1,
            "limit_train_batches": 1,
            "limit_val_batches": 0,
        }
        settings |= {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
        config = {
            "seed_everything": 0,
            "trainer": settings | {"logger": False} | dict(trainer),
            "model": {"class_path": model},
            "data": {"class_path": data},
        }
        path = tmp_path / "config.yml"
        path.write_text(yaml.safe_dump(config | sections))
        return str(path)

    return make


def fail(args, capsys, code=2):
    with pytest.raises(SystemExit) as caught:
        main(args)
    assert caught.value.code == code
    message = capsys.readouterr().err
    message = message[message.index("viscy: error:") :]
    assert "Traceback" not in message
    assert len(message.splitlines()) <= 6
    return message


def refused_in(stage, error):
    try:
        with reading_input(stage):
            raise error
    except type(error) as err:
        return err


boring = pytest.mark.filterwarnings(
    "ignore:The '.*_dataloader' does not have many workers", "ignore:GPU available", "ignore:.*litlogger"
)


def test_help_imports_neither_torch_nor_lightning():
    code = (
        "import sys; from viscy_utils.cli import main; main(['--help'])\n"
        "sys.exit(str({'torch', 'lightning', 'jsonargparse', 'numpy', 'anndata'} & set(sys.modules) or ''))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.stderr.strip() == ""
    assert all(f"  {name}" in result.stdout for name in SUBCOMMANDS)


@pytest.mark.slow
def test_the_installed_command_reports_bad_input_with_exit_code_2(tmp_path):
    command = Path(sys.executable).with_name("viscy")
    assert command.exists()
    env = {**os.environ, "VISCY_DEBUG": ""}
    result = subprocess.run(
        [command, "fit", "-c", "missing.yml"], capture_output=True, text=True, cwd=tmp_path, env=env, check=False
    )
    assert result.returncode == 2
    assert "missing.yml\n  found    no such file" in result.stderr
    assert "Traceback" not in result.stderr


def test_help_lists_the_subcommands_of_the_command_that_asks(capsys):
    main(["--help"], prog="dynaclr")
    assert capsys.readouterr().out == format_help("dynaclr")
    with pytest.raises(SystemExit) as caught:
        main([])
    assert caught.value.code == 2


def test_the_version_is_printed(capsys):
    main(["--version"])
    assert capsys.readouterr().out.startswith("viscy ")


def test_a_misspelt_subcommand_gets_its_nearest_match(capsys):
    assert "did you mean 'predict'" in fail(["predct"], capsys)


@boring
def test_a_run_with_a_valid_configuration(write):
    path = write()
    main(["fit", "-c", path])
    main(["fit", "-c", path])
    configs = list(Path.cwd().glob("runs/*/config.yaml"))
    assert [yaml.safe_load(config.read_text())["trainer"]["max_steps"] for config in configs] == [1, 1]


@boring
@pytest.mark.parametrize("installed", [True, False])
def test_logs_are_for_tensorboard_where_it_is_installed(write, installed, monkeypatch, caplog):
    if installed:
        pytest.importorskip("tensorboard")
    else:
        monkeypatch.setitem(sys.modules, "tensorboard", None)
    monkeypatch.setattr("lightning.pytorch.demos.boring_classes.BoringModel", LoggingModel)
    config = yaml.safe_load(Path(write(trainer={"log_every_n_steps": 1})).read_text())
    del config["trainer"]["logger"]
    Path("default.yaml").write_text(yaml.safe_dump(config))
    main(["fit", "-c", "default.yaml"])
    [folder] = Path("runs").iterdir()
    assert len(list(folder.glob("events.*"))) == installed
    assert (folder / "metrics.csv").exists() != installed
    assert caplog.text.count("pip install 'viscy-utils[tensorboard]'") == (not installed)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"trainer": {"max_step": 3}}, ["trainer.max_step", "unknown key", "trainer.max_steps"]),
        ({"dta": {"class_path": "x"}}, ["dta", "unknown key", "did you mean 'data'"]),
        ({"dta": {}}, ["config.yml, field dta", "unknown key"]),
        ({"dta": None}, ["config.yml, field dta", "unknown key"]),
        ({"trainer": {"max_step": {}}}, ["config.yml, field trainer.max_step", "unknown key"]),
        ({"trainer": {"callbacks": [{"class_path": "lightning.pytorch.callbacks.ModelCheckpoint",
                                     "init_args": {"save_topk": {}}}]}}, ["trainer.callbacks", "save_topk"]),
        ({"model": f"{BORING}.BoringModle"}, ["field model", "attribute 'BoringModle'", "did you mean 'BoringModel'"]),
        ({"data": "viscy_data.TripletDataModul"}, ["field data", "attribute Trip", "did you mean 'TripletDataModule'"]),
        ({"model": "no_such_package.Model"}, ["field model", "no_such_package"]),
        ({"trainer": {"max_steps": "many"}}, ["trainer.max_steps", "found    many", "expected int"]),
        ({"trainer": {"callbacks": [{"class_path": "lightning.pytorch.callbacks.ModelCheckpoint",
                                     "init_args": {"save_topk": 1}}]}},
         ["trainer.callbacks", "'save_topk' is not accepted", "save_top_k"]),
        ({"trainer": {"precision": "bf16-mixt"}},
         ["field trainer.precision", "found    bf16-mixt", "did you mean 'bf16-mixed'"]),
        ({"trainer": {"callbacks": [{"class_path": "lightning.pytorch.callbacks.ModelCheckpoint",
                                     "init_args": {"save_top_k": "x"}}]}},
         ["trainer.callbacks.init_args.save_top_k", "found    x", "expected int"]),
        ({"trainer": {"callbacks": [{"class_path": "lightning.pytorch.callbacks.LearningRateMonitor",
                                     "init_args": {"logging_interval": "epohc"}}]}},
         ["logging_interval", "found    epohc", "expected one of 'step', 'epoch'", "did you mean 'epoch'?"]),
        ({"ckpt_path": "no.ckpt"}, ["no.ckpt", "field ckpt_path"]),
    ],
)  # fmt: skip
def test_a_wrong_configuration_is_one_paragraph(write, capsys, change, expected):
    message = fail(["fit", "-c", write(**change)], capsys)
    for text in expected:
        assert text in message


def test_a_value_named_in_the_line_of_its_key_is_found():
    error = parser_error("Parser key \"lr\": Expected a <class 'float'>. Got value: fast", "fit.yml")
    assert (error.field, error.found, error.expected) == ("lr", "fast", "float")


def test_a_command_alone_asks_for_a_configuration(capsys):
    assert fail(["fit"], capsys) == (
        "viscy: error: viscy fit\n  found    no configuration\n"
        "  expected a configuration, such as data, model and trainer\n  fix      viscy fit --config FILE.yml\n"
    )


def test_missing_sections_and_broken_yaml_are_named(write, tmp_path, capsys):
    path = Path(write())
    config = yaml.safe_load(path.read_text())
    del config["model"]
    path.write_text(yaml.safe_dump(config))
    assert "field model" in fail(["fit", "-c", str(path)], capsys)
    path.write_text("trainer: [1\n a: b")
    assert "line 2" in fail(["fit", "-c", str(path)], capsys)


@boring
def test_bad_input_found_at_set_up_is_told_from_a_bug_in_a_step(write, capsys, monkeypatch):
    import lightning.pytorch.demos.boring_classes as demos

    with monkeypatch.context() as patch:
        patch.setattr(demos, "BoringDataModule", BadData)
        assert "64 pixels in an image of 32" in fail(["fit", "-c", write()], capsys)
    monkeypatch.setattr(demos, "BoringModel", BadStep)
    message = fail(["fit", "-c", write()], capsys, code=1)
    assert "shapes differ (ValueError)" in message
    assert "VISCY_DEBUG=1" in message


@boring
@pytest.mark.parametrize("hook", ["prepare_data", "setup", "train_dataloader"])
@pytest.mark.parametrize("error", [KeyError("well_id"), ValueError("operands differ"), AttributeError("no fovs")])
def test_a_bug_before_the_first_step_is_no_bad_input(write, capsys, monkeypatch, hook, error):
    import lightning.pytorch.demos.boring_classes as demos

    monkeypatch.setattr(demos, "BoringDataModule", BadCode)
    monkeypatch.setattr(BadCode, "hook", hook)
    monkeypatch.setattr(BadCode, "error", error)
    message = fail(["fit", "-c", write()], capsys, code=1)
    assert f"({type(error).__name__})" in message
    assert "VISCY_DEBUG=1" in message


def test_an_argument_that_a_class_refuses_is_bad_input(write, capsys, monkeypatch):
    import lightning.pytorch.demos.boring_classes as demos

    monkeypatch.setattr(demos, "BoringDataModule", BadArgument)
    message = fail(["fit", "-c", write()], capsys)
    assert message == "viscy: error: share must be at most 1, got 2.0 (ValueError)\n"


def test_a_bug_in_a_constructor_is_no_bad_input(write, capsys, monkeypatch):
    import lightning.pytorch.demos.boring_classes as demos

    class BadConstructor(BoringDataModule):
        def __init__(self):
            raise KeyError("well_id")

    monkeypatch.setattr(demos, "BoringDataModule", BadConstructor)
    assert "well_id (KeyError)" in fail(["fit", "-c", write()], capsys, code=1)


def test_the_log_level_is_checked(write, capsys, monkeypatch):
    monkeypatch.setenv("VISCY_LOG_LEVEL", "LOUD")
    assert "VISCY_LOG_LEVEL" in fail(["fit", "-c", write()], capsys)


def test_an_unknown_store_is_named_by_preprocess(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    args = ["preprocess", "--data_path", "none.zarr", "--trainer.logger", "false", "--trainer.accelerator", "cpu"]
    assert "none.zarr" in fail(args, capsys)


def test_a_file_that_is_no_checkpoint_is_reported(write, tmp_path, capsys):
    (tmp_path / "bad.ckpt").write_text("nothing")
    path = write()
    message = fail(["fit", "-c", path, "--ckpt_path", "bad.ckpt"], capsys)
    assert "field ckpt_path" in message
    assert "weights_only=True" in message


@boring
def test_settings_of_the_configuration_win_over_those_of_a_checkpoint(write, capsys, caplog):
    path = write(trainer={"enable_checkpointing": True, "limit_val_batches": 0})
    main(["fit", "-c", path])
    checkpoint = next(Path.cwd().rglob("*.ckpt"))
    content = torch.load(checkpoint, weights_only=True)
    content["hyper_parameters"] = {"_class_path": "other.Model", "_instantiator": "x"}
    torch.save(content, checkpoint)
    main(["validate", "-c", path, "--ckpt_path", str(checkpoint)])
    assert f"class_path 'other.Model' -> '{BORING}.BoringModel'" in caplog.text


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (InputError("a.yml", field="lr", found="-1", expected="a positive number"), 2),
        (FileNotFoundError("no a.yml"), 2),
        (FileExistsError("out.zarr exists"), 2),
        (OSError(errno.EROFS, "Read-only file system", "/data/report"), 2),
        (OSError(errno.ENOSPC, "No space left on device", "/data/report"), 1),
        (ValueError("nan"), 1),
        (KeyError("ch_0"), 1),
        (refused_in("building the model", TypeError("no argument 'width'")), 2),
        (refused_in("building the model", KeyError("ch_0")), 1),
        (KeyboardInterrupt(), 130),
    ],
)
def test_exit_codes(error, code, capsys, monkeypatch):
    monkeypatch.delenv("VISCY_DEBUG", raising=False)

    @report_errors("dynaclr")
    def command():
        raise error

    with pytest.raises(SystemExit) as caught:
        command()
    assert caught.value.code == code
    message = capsys.readouterr().err
    assert message.startswith("dynaclr: ")
    assert "Traceback" not in message
    monkeypatch.setenv("VISCY_DEBUG", "1")
    with pytest.raises(SystemExit):
        command()
    assert ("Traceback" in capsys.readouterr().err) == (code != 130)


def test_notes_of_an_error_are_shown(capsys):
    error = RuntimeError("decoding failed")
    error.add_note("reading plate.zarr, FOV A/1/0")
    with pytest.raises(SystemExit), report_errors():
        raise error
    assert "reading plate.zarr, FOV A/1/0" in capsys.readouterr().err


def test_releases_of_jsonargparse_that_lightning_fails_with_are_not_installed():
    wanted = next(each for each in map(Requirement, requires("viscy-utils")) if each.name == "jsonargparse")
    assert wanted.specifier.contains("4.53")
    assert not wanted.specifier.contains("5.0.0rc2", prereleases=True)


def test_viscy_cli_is_found_lazily():
    import viscy_utils.cli as cli

    assert set(cli.VisCyCLI.subcommands()) == set(SUBCOMMANDS)
    with pytest.raises(AttributeError, match="Other"):
        _ = cli.Other
