"""The Lightning command line behind :mod:`viscy_utils.cli`: this module imports torch and Lightning."""

from __future__ import annotations

import logging
import os
import shlex
import shutil
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from jsonargparse import Namespace
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.utilities.model_helpers import is_overridden
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from viscy_data.errors import InputError, reading_input
from viscy_data.yaml_reading import dump_yaml
from viscy_utils.cli.checkpoint_options import (
    LIGHTNING_WORDS,
    Training,
    checkpoint_to_use,
    training_of,
)
from viscy_utils.cli.closing import Interrupted, after_fit, after_predict, how_to_go_on, outputs_of, say
from viscy_utils.cli.config_errors import condensed, first_cause
from viscy_utils.cli.config_files import (
    config_paths,
    read_configs,
    refuse_dropped_keys,
    refuse_misshapen,
    refuse_no_config,
)
from viscy_utils.cli.errors import BAD_INPUT, exit_code_of
from viscy_utils.cli.parser_mode import PARSER_MODE
from viscy_utils.cli.places import COMMAND_LINE, add_places, dotted_options
from viscy_utils.cli.same_settings import refuse_other_settings
from viscy_utils.cli.subcommands import NOT_GIVEN, RESUME_HELP, SEED, SUBCOMMANDS, name_in
from viscy_utils.cli.trainer_parts import added_writer, callbacks_of_run, default_logger
from viscy_utils.cli.unknown_metrics import refusing_unknown_metrics
from viscy_utils.lightning_workarounds import WholeCheckpointIO, without_advertisements
from viscy_utils.runs.compatibility import differing_settings, load_weights, read_checkpoint
from viscy_utils.runs.folder import RECORD, RUNS, claim_folder, place_in, read_run, update_record
from viscy_utils.runs.keeper import RunKeeper, is_trained_in
from viscy_utils.runs.restored_state import check_restored_state
from viscy_utils.runs.stopped_prediction import StoppedPrediction
from viscy_utils.runs.trainer import VisCyTrainer
from viscy_utils.training.module import TrainingModule

__all__ = ["DataModuleCLI", "VisCyCLI", "run"]

_logger = logging.getLogger(__name__)

_APPLICATIONS = ("cytoland", "dynaclr")
_LIBRARIES = ("viscy_data", "viscy_losses", "viscy_models", "viscy_transforms", "viscy_utils")
_LOGGERS = ("lightning", *_LIBRARIES, *_APPLICATIONS)


class VisCyCLI(LightningCLI):
    """Lightning's command line with the subcommands ``preprocess``, ``export``, ``precompute``, ``convert_to_anndata``.

    Takes the arguments of ``lightning.pytorch.cli.LightningCLI``, and ``only``, the one subcommand to build a parser
    for, which is faster than a parser for each, and ``prog``, the name of the command in messages.
    """

    def __init__(self, *args: Any, only: str | None = None, prog: str = "viscy", **kwargs: Any) -> None:
        if only is not None:
            skipped = self.subcommands()[only]
            self.subcommands = lambda: {only: skipped}
        self.prog = prog
        self.training, self.used_run = Training(), None
        self.run_folder: Path | None = None
        self._claimed: Path | None = None
        self._stopping = StoppedPrediction()
        self._checkpoint: dict[str, Any] = {}
        self._differing: list[str] = []
        self._configs: dict[str, dict[str, Any]] = {}
        self._arguments: dict[str, str] = {}
        try:
            super().__init__(*args, **kwargs)
        except Exception as err:
            if exit_code_of(err) == BAD_INPUT:
                add_places(err, {**self._configs, COMMAND_LINE: self._arguments})
            raise
        finally:
            self._remove_unused_folder()

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """Name the subcommands, each with the arguments of its trainer method that the configuration leaves out."""
        known = LightningCLI.subcommands()
        return {name: known.get(name, {"model"}) for name in SUBCOMMANDS}

    def setup_parser(self, *args: Any) -> None:
        """Add the option ``run``, and ask for a checkpoint where weights are used."""
        super().setup_parser(*args)
        for name, parser in self._subcommand_parsers.items():
            kind = SUBCOMMANDS[name].checkpoint
            if kind:
                parser.add_argument("--run", type=str | None, default=None, help=SUBCOMMANDS[name].run_help)
            if kind == "begun with":
                parser.add_argument("--resume", type=bool, nargs="?", const=True, default=False, help=RESUME_HELP)
            if kind == "used":
                parser.set_defaults({"ckpt_path": NOT_GIVEN})

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse, and say in one paragraph what is wrong.

        Raises
        ------
        InputError
            Unknown key, unknown class, value of the wrong type, missing file.
        """
        paths = config_paths(args)
        if not paths:
            refuse_no_config(args, self.prog)
        self._configs, self._arguments = read_configs(paths), dotted_options(args)
        refuse_misshapen(self._configs)
        known = _KnownKeys(self._subcommand_parsers, args)
        with condensed(", ".join(paths) or "command line", known):
            self.config = parser.parse_args(args)
        refuse_dropped_keys(self._configs, self.config[self.config["subcommand"]].as_dict(), known)

    def before_instantiate_classes(self) -> None:
        """Leave out a data module that the subcommand has no use for, such as that of a training for an export."""
        if not SUBCOMMANDS[self.subcommand].needs_data:
            self.config[self.subcommand].pop("data", None)

    def instantiate_classes(self) -> None:
        """Build model, data module and trainer; what their classes refuse is bad input."""
        with reading_input("building the classes of the configuration"), first_cause():
            super().instantiate_classes()

    def after_instantiate_classes(self) -> None:
        """Refuse weights that do not fit before any data are read."""
        # Hooks of the module's own may change weights or layers first; that of our base looks at the layout alone.
        base = TrainingModule if isinstance(self.model, TrainingModule) else LightningModule
        hooks = {"on_load_checkpoint": base, "configure_model": LightningModule}
        if self._checkpoint and not any(is_overridden(name, self.model, of) for name, of in hooks.items()):
            load_weights(self.model, self._checkpoint, self._ckpt_path(), self._differing)
        self._checkpoint = {}  # it keeps the file open

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Build the trainer with what a run needs beside the configuration."""
        settings = self._get(self.config_init, "trainer", default={})
        callbacks = settings.get("callbacks") or []
        callbacks = [callbacks] if isinstance(callbacks, Callback) else list(callbacks)
        root = settings.get("default_root_dir") or "."
        is_default_logger = settings.get("logger") in (None, True)
        kwargs["logger"] = False if is_default_logger else settings.get("logger")
        if self.subcommand == "fit" and not settings.get("fast_dev_run"):
            self._begin_run(root)
            kwargs["default_root_dir"] = str(self.run_folder)  # where Lightning saves when a cluster ends a job
            if is_default_logger:
                kwargs["logger"] = default_logger(self.run_folder)
            can_save = settings.get("enable_checkpointing") is not False
            callbacks += callbacks_of_run(callbacks, self.run_folder, self._resolved_config(), can_save)
        elif self.subcommand == "predict" and not settings.get("fast_dev_run"):
            writer = added_writer(callbacks, self.used_run, root, self.model)
            if writer is not None:
                (path,) = outputs_of([writer])
                say(f"no callback writes the predictions: they will be at {path}")
                callbacks.append(writer)
            callbacks.append(self._stopping)
        trainer = super().instantiate_trainer(**kwargs, callbacks=callbacks)
        trainer.resolved_config = self._resolved_config() if SUBCOMMANDS[self.subcommand].needs_model else ""
        WholeCheckpointIO.install(trainer)
        if self.subcommand == "fit":
            check_restored_state(trainer)
        return trainer

    def _begin_run(self, root: str) -> None:
        """Find the folder; that of a new run is made by the first rank, which tells the others later."""
        if self.training.goes_on is not None:
            self.run_folder = self.training.goes_on.path
        elif rank_zero_only.rank == 0:
            self.run_folder = self._claimed = claim_folder(self.training.name, root)
        else:
            self.run_folder = Path(root, RUNS)

    def predict(self, model: LightningModule, **kwargs: Any) -> None:
        """Predict without collecting the predictions in memory: callbacks write them."""
        kwargs["return_predictions"] = kwargs.get("return_predictions") or False
        with self._stopping:
            self.trainer.predict(model, **kwargs)

    def preprocess(self, model: LightningModule, **options: Any) -> None:
        """Compute statistics, and say of what."""
        done = self.trainer.preprocess(**options)
        without = ", with storage.bad_fovs: leave_out of the data module" if done.left_out else ""
        say(str(done), f"next: {self.prog} fit{without}; NormalizeSampled finds them")

    def after_export(self) -> None:
        """Say what is written."""
        path = self._get(self.config, "export_path")
        say(f"wrote {path}", f"next: onnxruntime.InferenceSession('{path}'); it takes images normalised as in training")

    def after_precompute(self) -> None:
        """Say what is written."""
        path = self._get(self.config, "output_path")
        say(f"wrote {path}", f"next: dask.array.from_npy_stack('{path}')")

    def after_convert_to_anndata(self) -> None:
        """Say what is written."""
        say(*after_predict([self._get(self.config, "output_anndata_path")], self.prog))

    def after_validate(self) -> None:
        """Say that nothing is written, and what comes next."""
        how = f"--run {self.used_run.path.name}" if self.used_run else f"--ckpt_path {self._ckpt_path() or 'null'}"
        configs = " ".join(f"--config {path}" for path in self._configs)
        say("wrote no file: the metrics are above", f"next: {self.prog} predict {configs} {how}")

    after_test = after_validate

    def after_fit(self) -> None:
        """Say what is written."""
        if self.run_folder is not None:
            say(*after_fit(self.run_folder, self.prog))

    def after_predict(self) -> None:
        """Say what is written."""
        paths = outputs_of(self.trainer.callbacks)
        if self.used_run is not None and self.trainer.is_global_zero:
            known = read_run(self.used_run.path).record.get("predictions", [])
            new = [place_in(self.used_run.path, path) for path in paths]
            update_record(self.used_run.path, predictions=list(dict.fromkeys([*known, *new])))
        say(*after_predict(paths, self.prog, self._test_command()))

    def _test_command(self) -> str:
        """Return the command that tests what has predicted; empty for models without a test."""
        if not is_overridden("test_step", self.model, LightningModule):
            return ""
        configs = [word for path in self._configs for word in ("--config", path)]
        weights = ["--ckpt_path", self._ckpt_path() or "null"]
        if self.used_run is not None:
            weights = ["--run", str(self.used_run.path)]
        return shlex.join([self.prog, "test", *configs, *weights])

    def _parse_ckpt_path(self) -> None:
        """Find the checkpoint, and compare its settings with those of the configuration, which are the ones used.

        Lightning would put the hyperparameters of the checkpoint in place of those that the user wrote.
        """
        subcommand = self.config["subcommand"]
        config, kind = self.config[subcommand], SUBCOMMANDS[subcommand].checkpoint
        if not kind:
            return
        root = config["trainer"].get("default_root_dir") or "."
        if kind == "begun with":
            self.training = training_of(config["run"], config["ckpt_path"], root, config["resume"])
            path = self.training.ckpt_path
            self._refuse_another_run(config)
        else:
            command = f"{self.prog} {subcommand}"
            path, self.used_run = checkpoint_to_use(config["run"], config["ckpt_path"], root, command)
        config["ckpt_path"] = path
        if path is not None and path not in LIGHTNING_WORDS and "://" not in path:
            self._checkpoint = read_checkpoint(path)
            written = config.get("model")
            self._differing = differing_settings(self._checkpoint, written.as_dict() if written else {})
        if self._differing:
            _logger.warning("%s was trained with other settings; those of the configuration are used: %s",
                            path, "; ".join(self._differing))  # fmt: skip
        if kind == "used":
            epoch, step = (self._checkpoint.get(key, "?") for key in ("epoch", "global_step"))
            weights = f"weights of {path} (epoch {epoch}, step {step})"
            say("random weights, as ckpt_path is null" if path is None else weights)

    def _refuse_another_run(self, config: Namespace) -> None:
        """Refuse to go on, unasked by name, with a run of another configuration."""
        run = self.training.goes_on
        if run is None or self.training.name is not None:
            return
        added = refuse_other_settings(run, self._subcommand_parsers[self.config["subcommand"]], config)
        say(f"going on with {run.path}" + (f" from {self.training.ckpt_path}" if self.training.ckpt_path else ""))
        if added:
            say(f"options that there were not when it began have their defaults: {'; '.join(added)}")

    def _ckpt_path(self) -> str | None:
        return self._get(self.config, "ckpt_path")

    def _resolved_config(self) -> str:
        """Write out the configuration, defaults included, as a command would read it again."""
        config = {key: value for key, value in self.config_dump.items() if key not in ("config", "resume")}
        if self.run_folder is not None:
            config["run"] = str(self.run_folder)
        if config.get("ckpt_path") is None:  # for a prediction, null would mean random weights
            config.pop("ckpt_path", None)
        return dump_yaml(config)

    def _run_subcommand(self, subcommand: str) -> None:
        """Run; after Ctrl-C, say how to go on."""
        try:
            with refusing_unknown_metrics(self.trainer):
                super()._run_subcommand(subcommand)
        except BaseException as err:
            if self._was_interrupted(err):
                stopped = [callback for callback in self.trainer.callbacks if getattr(callback, "is_stopping", False)]
                number = stopped[0].signal if stopped else 0
                advice = how_to_go_on(self.trainer, self.run_folder, self.prog)
                raise Interrupted(advice, number or signal.SIGINT) from err
            raise
        finally:
            for callback in self.trainer.callbacks:
                if isinstance(callback, RunKeeper):
                    callback.close()

    def _was_interrupted(self, error: BaseException) -> bool:
        """Tell Ctrl-C, which Lightning turns into an exit, and which may break a loader first, from other ends."""
        stopping = any(getattr(callback, "is_stopping", False) for callback in self.trainer.callbacks)
        return stopping or (isinstance(error, SystemExit) and self.trainer.interrupted)

    def _remove_unused_folder(self) -> None:
        """Remove the folder of a run that has not begun, unless another process has gone on with it meanwhile."""
        if self._claimed is None or (self._claimed / RECORD).exists():
            return
        if not is_trained_in(self._claimed):
            shutil.rmtree(self._claimed, ignore_errors=True)


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

    def after_instantiate_classes(self) -> None:
        """There is no model."""

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
    with without_advertisements(chatty=subcommand.needs_data):
        return cli_class(
            model_class=LightningModule,
            datamodule_class=LightningDataModule if subcommand.needs_data else None,
            trainer_class=VisCyTrainer,
            seed_everything_default=SEED,
            subclass_mode_model=subcommand.needs_model,
            subclass_mode_data=True,
            save_config_callback=None,
            parser_kwargs={"prog": prog, **options} | parsers,
            args=args,
            only=name,
            prog=prog,
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
