"""A prediction of images without the command line; called in forked processes."""

from __future__ import annotations

import torch
from lightning.pytorch import Trainer

from cytoland import VSUNet
from viscy_data import HCSDataModule
from viscy_utils.callbacks import HCSPredictionWriter


def predict(plate: str, output: str) -> None:
    """Predict two channels with random weights, in batches that end within stacks."""
    torch.manual_seed(0)
    network = {"encoder_blocks": [1, 1], "dims": [4, 8], "in_stack_depth": 5, "stem_kernel_size": [5, 4, 4]}
    model = VSUNet("fcmae", {"in_channels": 1, "out_channels": 2, **network})
    data = HCSDataModule(plate, "Phase3D", ["Nuclei", "Membrane"], 5, batch_size=2, num_workers=0)
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    trainer = Trainer(**quiet, callbacks=[HCSPredictionWriter(output)])
    trainer.predict(model, data, return_predictions=False)
