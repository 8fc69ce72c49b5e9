"""The last words of a command: what it has written, and what to do next; and how an interrupted one goes on."""

from __future__ import annotations

import logging
import shlex
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import zarr
from lightning.pytorch import Callback
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from viscy_data.stores import read_plate
from viscy_utils.callbacks.embedding_writer import EmbeddingWriter
from viscy_utils.callbacks.prediction_writer import HCSPredictionWriter
from viscy_utils.runs.folder import CONFIG, read_run

__all__ = ["Interrupted", "after_fit", "after_predict", "how_to_go_on", "outputs_of", "say"]

_CONTINUED = (EmbeddingWriter, HCSPredictionWriter)


class Interrupted(KeyboardInterrupt):
    """Ctrl-C or another signal, with what can be done about it.

    Parameters
    ----------
    advice : str
    number : int, default SIGINT
        Of the signal; kept in the attribute ``signal``.
    """

    def __init__(self, advice: str, number: int = signal.SIGINT) -> None:
        super().__init__(advice)
        self.signal = int(number)


@rank_zero_only
def say(*lines: str) -> None:
    """Print lines, once, unless the log level asks for warnings only."""
    if logging.getLogger("viscy_utils").isEnabledFor(logging.INFO):
        sys.stdout.write("".join(f"{line}\n" for line in lines))
        sys.stdout.flush()


def after_fit(folder: Path, prog: str) -> list[str]:
    """Say what a training has left in its folder."""
    run = read_run(folder)
    kept = run.record.get("checkpoints", {})
    names = [name for kind in ("best", "last", "other") for name in kept.get(kind, []) if (folder / name).exists()]
    lines = [f"wrote {folder}: {', '.join([CONFIG, *names])}"]
    return [*lines, f"next: {prog} predict --config {run.config}"] if names else lines


def outputs_of(callbacks: Sequence[Callback]) -> list[Path]:
    """Return where callbacks write predictions."""
    places = []
    for callback in callbacks:
        place = getattr(callback, "output_path", getattr(callback, "output_store", None))
        places += [] if place is None else [place]
    return places


def after_predict(paths: list[Path], prog: str, measure: str = "") -> list[str]:
    """Say where predictions are.

    Parameters
    ----------
    paths : list of Path
    prog : str
        Name of the command.
    measure : str, optional
        The command that compares predicted images with true ones.
    """
    stores = [path for path in paths if Path(path, "X").is_dir()]
    plates = [path for path in paths if _is_plate(Path(path))]
    lines = [f"wrote {path}" for path in paths if path not in [*stores, *plates]]
    for path in stores:
        n_rows, n_features = zarr.open_array(f"{path}/X", mode="r").shape
        lines.append(f"wrote {path}: {n_rows} embeddings of {n_features} features")
    for path in plates:
        fovs = read_plate(path)
        lines.append(f"wrote {path}: {', '.join(fovs[0].channel_names)} in {len(fovs)} FOVs")
    if stores and prog == "dynaclr":
        lines.append(f"next: {prog} evaluate --embeddings {stores[0]} --output-dir report")
    if plates and measure:
        lines.append(f"next: {measure}")
    return lines


def _is_plate(path: Path) -> bool:
    if path.suffix != ".zarr" or not path.is_dir():
        return False
    attributes = zarr.open_group(path, mode="r").attrs
    return "plate" in attributes.get("ome", attributes)


def how_to_go_on(trainer: Any, folder: Path | None, prog: str) -> str:
    """Say what an interrupted command has kept, and the command that goes on from there."""
    writers = [callback for callback in trainer.callbacks if isinstance(callback, _CONTINUED)]
    if trainer.state.fn == "predict" and writers:
        return f"what is predicted is kept; the same command goes on: {shlex.join([prog, *sys.argv[1:]])}"
    if folder is None or trainer.state.fn != "fit":
        return ""
    saved = [callback.last_model_path for callback in trainer.checkpoint_callbacks]
    newest = max((Path(path) for path in saved if path and Path(path).exists()), key=_modified, default=None)
    if newest is None:
        return "nothing was saved yet"
    command = f"{prog} fit --config {read_run(folder).config} --ckpt_path {newest}"
    return f"saved after step {trainer.global_step}. Go on with: {command}"


def _modified(path: Path) -> int:
    return path.stat().st_mtime_ns
