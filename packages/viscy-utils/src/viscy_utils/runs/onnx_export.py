"""Export of models to ONNX."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor

from viscy_data.errors import InputError
from viscy_data.files import refuse_existing, replacing
from viscy_data.optional import require
from viscy_utils.runs.compatibility import load_weights, read_checkpoint

__all__ = ["export_onnx"]

_logger = logging.getLogger(__name__)
_OPSET = 18


def export_onnx(model: LightningModule, export_path: Path, ckpt_path: Path | None = None) -> None:
    """Write ``model.forward`` to an ONNX file (opset 18) whose batch, Y and X sizes are free.

    Parameters
    ----------
    model : LightningModule
        With ``example_input_array`` of shape (B, C, Z, Y, X), or a tuple of such tensors for a forward of several. The
        inputs are called ``input``, ``input_1``, ..., and the outputs ``output``, ``output_1``, ...
    export_path : Path
        The file to write.
    ckpt_path : Path, optional
        Lightning checkpoint to load the weights from.

    Raises
    ------
    ImportError
        Without onnx and onnxscript.
    FileExistsError
        If the file exists.
    InputError
        If the model has no example input, or the checkpoint is missing, is none, or does not fit the model.
    """
    for module in ("onnx", "onnxscript"):
        require(module, extra="export", package="viscy-utils")
    export_path = Path(export_path)
    refuse_existing(export_path, remedy="choose another export_path")
    given = model.example_input_array
    examples = given if isinstance(given, tuple) else (given,)
    if not all(isinstance(example, Tensor) for example in examples):
        where = f"{type(model).__name__} needs a tensor example_input_array to be exported"
        raise InputError(where, found=type(given).__name__, expected="a tensor (B, C, Z, Y, X), or several")
    if ckpt_path is not None:
        load_weights(model, read_checkpoint(ckpt_path), ckpt_path)
    model = model.eval().cpu()
    examples = tuple(_batch_of_several(example.cpu()) for example in examples)
    with torch.inference_mode():
        outputs = model(*examples)
    n_outputs = 1 if isinstance(outputs, Tensor) else len(outputs)
    program = torch.onnx.export(
        model,
        examples,
        input_names=_names("input", len(examples)),
        output_names=_names("output", n_outputs),
        dynamic_shapes=tuple(_free_sizes(example) for example in examples),
        opset_version=_OPSET,
        dynamo=True,
        verbose=False,
    )
    with replacing(export_path) as temporary:
        program.save(str(temporary), external_data=False)  # weights in the file: a second one would not be renamed
    _logger.debug("wrote %s", export_path)


def _batch_of_several(example: Tensor) -> Tensor:
    """Double an example of batch one, which the exporter would take for a constant."""
    return torch.cat([example, example]) if example.shape[0] == 1 else example


def _free_sizes(example: Tensor) -> dict[int, Any]:
    free = (0, 3, 4) if example.dim() == 5 else (0,)
    return dict.fromkeys(free, torch.export.Dim.DYNAMIC)


def _names(stem: str, number: int) -> list[str]:
    return [stem, *(f"{stem}_{i}" for i in range(1, number))]
