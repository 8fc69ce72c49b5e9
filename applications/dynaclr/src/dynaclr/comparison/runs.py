"""Train one variant: its configuration, its log, and what is left when it crashes."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml

from dynaclr.comparison.recorder import EpochRecord, observed_epochs, read_records
from viscy_data.errors import InputError
from viscy_utils.cli.lightning_cli import run as run_lightning

__all__ = ["VariantRun", "merge_config", "prepare_config", "train_variant", "wandb_available"]

QUICK_EPOCHS = 5
_DEFAULT_SEED = 42
_logger = logging.getLogger(__name__)
_LOUD = ("", "lightning.pytorch", "lightning.fabric", "lightning", "py.warnings")  # loggers with handlers of their own


@dataclass(frozen=True)
class VariantRun:
    """What became of a variant.

    Parameters
    ----------
    name : str
    records : list of EpochRecord
        Of the epochs that it completed.
    error : str, optional
        Why it stopped early.
    """

    name: str
    records: list[EpochRecord] = field(default_factory=list)
    error: str | None = None


def merge_config(base: Path, overrides: Path) -> dict[str, Any]:
    """Parse a configuration of ``fit`` with overrides, as the command line does, and return it complete.

    Raises
    ------
    InputError
        For keys and values that the command line refuses.
    """
    page = io.StringIO()
    try:
        with redirect_stdout(page):
            run_lightning(["fit", "--config", str(base), "--config", str(overrides), "--print_config"], "dynaclr")
    except SystemExit as stop:
        if stop.code not in (0, None):
            raise
    return yaml.safe_load(page.getvalue())


def prepare_config(
    config: Mapping[str, Any], folder: Path, *, quick_test: bool, wandb: bool, base: Path
) -> dict[str, Any]:
    """Turn a configuration into that of one run of a comparison.

    All output goes into the folder: logs replace those of the configuration, and checkpoints follow. A run has one
    device, so that the batches of all variants are alike.

    Parameters
    ----------
    config : mapping
        Complete, of ``fit``.
    folder : Path
    quick_test : bool
        Train for 5 epochs.
    wandb : bool
        Log to Weights & Biases as well, in one group per comparison.
    base : Path
        Named in messages.

    Raises
    ------
    InputError
        If there is no data block, or more than one device is asked for.
    """
    trainer = dict(config["trainer"])
    if not config.get("data"):
        raise InputError(str(base), field="data", found="nothing", expected="the block data of a config for fit")
    devices = trainer["devices"]
    one_device = len(devices) == 1 if isinstance(devices, list) else devices in ("auto", 1, "1")
    if not one_device or trainer["num_nodes"] != 1:
        raise InputError(
            str(base),
            field="trainer.devices",
            found=str(devices),
            expected="1",
            fix="losses are compared on one device, with the same batches; train the chosen one on several",
        )
    seed = config["seed_everything"]
    seed = _DEFAULT_SEED if isinstance(seed, bool) or seed is None else seed
    callbacks = [_moved(callback, folder) for callback in trainer["callbacks"] or []]
    trainer |= {
        "devices": devices if isinstance(devices, list) else 1,
        "default_root_dir": str(folder),
        "enable_progress_bar": False,
        "logger": _loggers(folder, wandb),
        "callbacks": [
            *callbacks,
            _block("dynaclr.comparison.recorder.SameDataOrder", seed=seed),
            _block("dynaclr.comparison.recorder.EpochRecorder", path=str(folder / "epochs.jsonl")),
        ],
    }
    if quick_test:
        trainer["max_epochs"] = QUICK_EPOCHS
    return {**config, "seed_everything": seed, "trainer": trainer}


def train_variant(name: str, config: Path, on_epoch: Callable[[EpochRecord], None]) -> VariantRun:
    """Train a variant; whatever happens to it is told in its log and in the result, and the next one can follow.

    Parameters
    ----------
    name : str
    config : Path
        Complete, in the folder of the variant.
    on_epoch : callable
        Called after every epoch.
    """
    error = None
    folder = config.parent
    with _log_to(folder / "train.log"), observed_epochs(on_epoch):
        try:
            run_lightning(["fit", "--config", str(config)], "dynaclr")
        except Exception as err:  # the other variants are still to come
            _logger.exception("%s stopped", name)
            error = f"{type(err).__name__}: {err}"
    return VariantRun(name, read_records(folder / "epochs.jsonl"), error)


def wandb_available() -> bool:
    """Tell whether Weights & Biases is installed."""
    return find_spec("wandb") is not None


def _block(class_path: str, **init_args: Any) -> dict[str, Any]:
    return {"class_path": class_path, "init_args": init_args}


def _loggers(folder: Path, wandb: bool) -> list[dict[str, Any]]:
    module = "lightning.pytorch.loggers"
    loggers = [_block(f"{module}.CSVLogger", save_dir=str(folder), name="", version="metrics")]
    if wandb:
        options = {"project": "dynaclr-compare-losses", "group": folder.parent.name, "save_dir": str(folder)}
        loggers.append(_block(f"{module}.WandbLogger", name=folder.name, **options))
    return loggers


def _moved(callback: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Let a callback that writes to a folder of its own write into that of the variant."""
    arguments = callback.get("init_args") or {}
    if arguments.get("dirpath") is None:
        return callback
    return {**callback, "init_args": {**arguments, "dirpath": str(folder / Path(arguments["dirpath"]).name)}}


@contextmanager
def _log_to(path: Path) -> Iterator[None]:
    """Send what is logged and warned about to a file, and nowhere else."""
    handler = logging.FileHandler(path, encoding="utf8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    loggers = [logging.getLogger(name) for name in _LOUD]
    before = [(logger.handlers, logger.propagate) for logger in loggers]
    root, *others = loggers
    root.handlers = [handler]
    for logger in others:
        logger.handlers, logger.propagate = [], True
    logging.captureWarnings(True)
    try:
        with warnings.catch_warnings():
            yield
    finally:
        logging.captureWarnings(False)
        for logger, (handlers, propagate) in zip(loggers, before, strict=True):
            logger.handlers, logger.propagate = handlers, propagate
        handler.close()
