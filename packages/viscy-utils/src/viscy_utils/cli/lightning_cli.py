"""The Lightning command line behind :mod:`viscy_utils.cli`: this module imports torch and Lightning."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from datetime import datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from jsonargparse import Namespace, lazy_instance
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

from viscy_data.errors import InputError, MissingInputError, reading_input
from viscy_utils.cli.config_errors import condensed, first_cause
from viscy_utils.cli.config_files import PARSER_MODE, config_paths, read_configs, refuse_dropped_keys
from viscy_utils.cli.subcommands import SUBCOMMANDS, name_in
from viscy_utils.runs.trainer import VisCyTrainer

__all__ = ["ConfigSaver", "VisCyCLI", "run"]

_logger = logging.getLogger(__name__)

_LOGGERS = ("lightning", "viscy_data", "viscy_losses", "viscy_models", "viscy_transforms", "viscy_utils", "dynaclr")


class ConfigSaver(SaveConfigCallback):
    """Keep the configuration of a run beside its logs, without overwriting that of an earlier one."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Choose a free file name, then save as Lightning does."""
        log_dir = trainer.log_dir  # broadcasts from the first process: all of them must ask
        if trainer.is_global_zero and log_dir and Path(log_dir, self.config_filename).exists():
            stem, suffix = os.path.splitext(self.config_filename)
            self.config_filename = f"{stem}-{datetime.now():%Y%m%d-%H%M%S-%f}{suffix}"
        super().setup(trainer, pl_module, stage)


class VisCyCLI(LightningCLI):
    """Lightning's command line with the subcommands ``preprocess``, ``export``, ``precompute``, ``convert_to_anndata``.

    Takes the arguments of ``lightning.pytorch.cli.LightningCLI``, and ``only``, the one subcommand to build a parser
    for, which is faster than a parser for each.
    """

    def __init__(self, *args: Any, only: str | None = None, **kwargs: Any) -> None:
        if only is not None:
            skipped = self.subcommands()[only]
            self.subcommands = lambda: {only: skipped}
        super().__init__(*args, **kwargs)

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """Name the subcommands, each with the arguments of its trainer method that the configuration leaves out."""
        known = LightningCLI.subcommands()
        return {name: known.get(name, {"model"}) for name in SUBCOMMANDS}

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Log to TensorBoard or else to CSV files, one folder per start, unless the configuration says otherwise."""
        self._started = datetime.now().strftime("%Y%m%d-%H%M%S")
        if find_spec("tensorboard") is None:
            logger = lazy_instance(CSVLogger, save_dir="", version=self._started)
        else:
            logger = lazy_instance(TensorBoardLogger, save_dir="", version=self._started, log_graph=True)
        parser.set_defaults({"trainer.logger": logger})

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse, and say in one paragraph what is wrong.

        Raises
        ------
        InputError
            Unknown key, unknown class, value of the wrong type, missing file.
        """
        paths = config_paths(args)
        configs = read_configs(paths)
        with condensed(", ".join(paths) or "command line", _KnownKeys(self._subcommand_parsers, args)):
            self.config = parser.parse_args(args)
        refuse_dropped_keys(configs, self.config[self.config["subcommand"]].as_dict())

    def instantiate_classes(self) -> None:
        """Build model, data module and trainer; what their classes refuse is bad input."""
        with reading_input("building the classes of the configuration"), first_cause():
            super().instantiate_classes()
        if isinstance(self.trainer.logger, CSVLogger) and self.trainer.logger.version == self._started:
            _logger.warning("Logging to CSV files, without TensorBoard: pip install 'viscy-utils[tensorboard]'")

    def predict(self, model: LightningModule, **kwargs: Any) -> None:
        """Predict without collecting the predictions in memory: callbacks write them."""
        kwargs["return_predictions"] = kwargs.get("return_predictions") or False
        self.trainer.predict(model, **kwargs)

    def _parse_ckpt_path(self) -> None:
        """Compare the model of the checkpoint with that of the configuration, which is the one used.

        Lightning would put the hyperparameters of the checkpoint in place of those that the user wrote.
        """
        config = self.config.get(self.config.get("subcommand", ""))
        ckpt_path = config.get("ckpt_path") if config else None
        if ckpt_path is None or str(ckpt_path) in ("last", "best", "hpc") or "://" in str(ckpt_path):
            return
        hparams = _read_hparams(Path(str(ckpt_path)))
        written = config.get("model")
        differing = _differences(hparams, written.as_dict() if hasattr(written, "as_dict") else {})
        if differing:
            _logger.warning("%s was trained with other settings; those of the configuration are used: %s",
                            ckpt_path, "; ".join(differing))  # fmt: skip


class DataModuleCLI(VisCyCLI):
    """Parses all of a configuration, and builds its data module alone; the block ``model`` may be missing."""

    def add_core_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Take the blocks that all subcommands have, without asking for a model."""
        parser.add_lightning_class_args(self.trainer_class, "trainer")
        parser.add_lightning_class_args(LightningModule, "model", subclass_mode=True, required=False)
        parser.add_lightning_class_args(LightningDataModule, "data", subclass_mode=True)

    def instantiate_classes(self) -> None:
        """Build the data module."""
        parser, config = self._subcommand_parsers[self.subcommand], self.config[self.subcommand]
        with reading_input("building the data module"), first_cause():
            self.datamodule = parser.instantiate(Namespace(data=config["data"]))["data"]

    def _parse_ckpt_path(self) -> None:
        """No weights are used."""

    def _set_seed(self) -> None:
        """Nothing is run."""

    def _run_subcommand(self, subcommand: str) -> None:
        """Nothing is run."""


def run(args: list[str], prog: str = "viscy", cli_class: type[VisCyCLI] = VisCyCLI) -> VisCyCLI:
    """Parse the arguments and run the subcommand they name.

    Parameters
    ----------
    args : list of str
        Arguments after the name of the command.
    prog : str, default "viscy"
        Name of the command in usage lines.
    cli_class : type, optional
        The class that does it.

    Returns
    -------
    VisCyCLI
        After the run, with its ``model``, ``datamodule`` and ``trainer``.
    """
    _set_log_level(os.environ.get("VISCY_LOG_LEVEL", "INFO"))
    torch.set_float32_matmul_precision("high")
    name = name_in(args)
    subcommand = SUBCOMMANDS[name or "fit"]
    options = {"exit_on_error": False, "parser_mode": PARSER_MODE}
    # Of subcommands alone: what else is named here would go to the parser above them.
    parsers = {key: {"prog": f"{prog} {key}", **options} for key in ([name] if name else SUBCOMMANDS)}
    return cli_class(
        model_class=LightningModule,
        datamodule_class=LightningDataModule if subcommand.needs_data else None,
        trainer_class=VisCyTrainer,
        seed_everything_default=42,
        subclass_mode_model=subcommand.needs_model,
        subclass_mode_data=True,
        save_config_callback=ConfigSaver,
        parser_kwargs={"prog": prog, **options} | parsers,
        args=args,
        only=name,
    )


class _KnownKeys:
    """Dotted keys of the subcommand in use, listed only when a message needs them."""

    def __init__(self, parsers: dict[str, LightningArgumentParser], args: Sequence[str]) -> None:
        self._parser = parsers.get(name_in(args) or "")

    def __iter__(self) -> Iterator[str]:
        if self._parser is not None:
            yield from self._parser.get_defaults(skip_validation=True).keys(branches=True)


def _set_log_level(level: str) -> None:
    number = logging.getLevelNamesMapping().get(level.upper())
    if number is None:
        raise InputError(
            "environment variable VISCY_LOG_LEVEL",
            found=repr(level),
            expected="DEBUG, INFO, WARNING, ERROR or CRITICAL",
        )
    logging.basicConfig(format="%(levelname)s %(name)s: %(message)s")
    for name in _LOGGERS:
        logging.getLogger(name).setLevel(number)


def _read_hparams(path: Path) -> dict[str, Any]:
    """Read the hyperparameters of a checkpoint; plain types only."""
    if not path.exists():
        raise MissingInputError(
            str(path), field="ckpt_path", found="no such file", fix="correct ckpt_path; null starts from scratch"
        )
    if path.is_dir():  # a sharded checkpoint: its strategy reads it
        return {}
    try:
        checkpoint = torch.load(path, weights_only=True, map_location="cpu", mmap=True)
    except Exception as err:
        raise InputError(
            str(path),
            field="ckpt_path",
            found=str(err).splitlines()[0],
            expected="a Lightning checkpoint that torch.load reads with weights_only=True",
        ) from err
    return dict(checkpoint.get("hyper_parameters") or {})


def _differences(hparams: dict[str, Any], written: dict[str, Any]) -> list[str]:
    """Say for each argument that both name with different values what they are."""
    class_path = hparams.pop("_class_path", None)
    hparams.pop("_instantiator", None)
    arguments = written.get("init_args") or {}
    rows = [(key, value, arguments[key]) for key, value in hparams.items() if key in arguments]
    if class_path is not None:
        rows.insert(0, ("class_path", class_path, written.get("class_path")))
    return [f"{key} {old!r} -> {new!r}" for key, old, new in rows if old != new]
