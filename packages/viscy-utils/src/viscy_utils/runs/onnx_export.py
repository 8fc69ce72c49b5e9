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
        With ``example_input_array`` of shape (B, C, Z, Y, X). A forward that returns several tensors gives outputs
        ``output``, ``output_1``, ...; the input is called ``input``.
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
    if not isinstance(model.example_input_array, Tensor):
        where = f"{type(model).__name__} needs a tensor example_input_array to be exported"
        raise InputError(where, found=type(model.example_input_array).__name__, expected="a tensor (B, C, Z, Y, X)")
    if ckpt_path is not None:
        load_weights(model, read_checkpoint(ckpt_path), ckpt_path)
    model = model.eval().cpu()
    # An example of batch one would make the exporter take one for a constant.
    example = model.example_input_array.cpu()
    example = torch.cat([example, example]) if example.shape[0] == 1 else example
    with torch.inference_mode():
        outputs = model(example)
    n_outputs = 1 if isinstance(outputs, Tensor) else len(outputs)
    dynamic: dict[int, Any] = {0: torch.export.Dim.DYNAMIC}
    if example.dim() == 5:
        dynamic |= {3: torch.export.Dim.DYNAMIC, 4: torch.export.Dim.DYNAMIC}
    program = torch.onnx.export(
        model,
        (example,),
        input_names=["input"],
        output_names=["output", *(f"output_{i}" for i in range(1, n_outputs))],
        dynamic_shapes=(dynamic,),
        opset_version=_OPSET,
        dynamo=True,
        verbose=False,
    )
    with replacing(export_path) as temporary:
        program.save(str(temporary), external_data=False)  # weights in the file: a second one would not be renamed
    _logger.debug("wrote %s", export_path)
