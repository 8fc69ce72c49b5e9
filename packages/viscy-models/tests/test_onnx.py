"""Export to ONNX, run by onnxruntime on other batch and image sizes than the one exported."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor

import viscy_models

# Constructor arguments, the size exported and one to run on.
CASES = {
    "UNeXt2": (
        {"backbone": "convnextv2_atto", "decoder_conv_blocks": 1, "head_expansion_ratio": 1},
        (2, 1, 5, 64, 64),
        (1, 1, 5, 96, 64),
    ),
    "FullyConvolutionalMAE": (
        {
            **{"in_channels": 1, "out_channels": 1, "encoder_blocks": (1, 1), "dims": (8, 16)},
            **{"pretraining": False},
        },
        (2, 1, 5, 32, 32),
        (1, 1, 5, 40, 64),
    ),
    "ContrastiveEncoder": (
        {"backbone": "resnet18", "in_channels": 1, "in_stack_depth": 5, "embedding_dim": 16},
        (2, 1, 5, 64, 64),
        (3, 1, 5, 96, 72),
    ),
    "ResNet3dEncoder": ({"backbone": "resnet10", "embedding_dim": 16}, (2, 1, 8, 32, 32), (3, 1, 8, 48, 40)),
    "Unet2d": ({"num_blocks": 2, "num_filters": (4, 6, 8)}, (2, 1, 1, 16, 16), (3, 1, 1, 24, 16)),
    "Unet25d": ({"num_blocks": 2, "num_filters": (4, 6, 8)}, (2, 1, 5, 16, 16), (3, 1, 5, 24, 16)),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_exported_models_agree_on_any_batch_and_image_size(name, tmp_path):
    arguments, exported, other = CASES[name]
    torch.manual_seed(0)
    model = getattr(viscy_models, name)(**arguments).eval()
    free = {axis: torch.export.Dim.DYNAMIC for axis in (0, 3, 4)}
    path = tmp_path / "model.onnx"
    program = torch.onnx.export(
        model, (torch.rand(exported),), dynamic_shapes=(free,), dynamo=True, verbose=False, opset_version=18
    )
    program.save(str(path))
    session = onnxruntime.InferenceSession(str(path))
    entry = session.get_inputs()[0]
    assert [isinstance(size, int) for size in entry.shape] == [False, True, True, False, False]
    for shape in (exported, other):
        x = torch.rand(shape)
        with torch.no_grad():
            expected = model(x)
        found = session.run(None, {entry.name: x.numpy()})
        expected = [expected] if isinstance(expected, Tensor) else list(expected)
        assert len(found) == len(expected)
        for a, b in zip(found, expected, strict=True):
            np.testing.assert_allclose(a, b.numpy(), rtol=0, atol=1e-4 * b.abs().max().item())
