"""Export of an encoder with two outputs, evaluated by the reference implementation of ONNX."""

from __future__ import annotations

import sys

import numpy as np
import onnx
import pytest
import torch
import yaml
from lightning.pytorch import LightningModule
from onnx.reference import ReferenceEvaluator
from torch import nn

from viscy_data.errors import InputError, MissingInputError
from viscy_utils.cli import main
from viscy_utils.runs.trainer import VisCyTrainer


class TwoHeads(LightningModule):
    """Features and projections of an image, as a contrastive encoder gives them."""

    def __init__(self, width: int = 4, example: bool = True):
        super().__init__()
        self.stem = nn.Conv3d(2, width, (1, 3, 3), padding=(0, 1, 1))
        self.norm = nn.BatchNorm3d(width)
        self.head = nn.Linear(width, 3)
        if example:
            self.example_input_array = torch.zeros(1, 2, 1, 16, 16)

    def forward(self, x):
        features = torch.relu(self.norm(self.stem(x))).mean(dim=(2, 3, 4))
        return features, self.head(features)


@pytest.fixture(scope="module")
def trained():
    """A module whose weights and running statistics are not those of a new one."""
    torch.manual_seed(3)
    model = TwoHeads()
    with torch.no_grad():
        model.norm.running_mean.uniform_(-1, 1)
        model.norm.running_var.uniform_(0.5, 2)
    return model.eval()


@pytest.fixture
def ckpt_path(trained, tmp_path):
    path = tmp_path / "last.ckpt"
    torch.save({"state_dict": trained.state_dict()}, path)
    return path


@pytest.fixture
def trainer():
    return VisCyTrainer(
        accelerator="cpu", devices=1, logger=False, enable_checkpointing=False, enable_progress_bar=False
    )


def assert_same(path, model, shape):
    images = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    with torch.no_grad():
        expected = model(torch.from_numpy(images))
    found = ReferenceEvaluator(str(path)).run(None, {"input": images})
    assert len(found) == len(expected)
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b.numpy(), atol=1e-5)


def test_both_outputs_of_the_checkpoint_are_exported_for_any_batch_and_image_size(
    trainer, trained, ckpt_path, tmp_path
):
    path = tmp_path / "new" / "model.onnx"
    trainer.export(TwoHeads(), path, ckpt_path)
    exported = onnx.load(path)
    onnx.checker.check_model(exported)
    assert [value.name for value in exported.graph.input] == ["input"]
    assert [value.name for value in exported.graph.output] == ["output", "output_1"]
    assert [entry.version for entry in exported.opset_import if entry.domain == ""] == [18]
    for shape in [(1, 2, 1, 16, 16), (3, 2, 1, 20, 24)]:
        assert_same(path, trained, shape)


def test_the_command_exports(trained, ckpt_path, tmp_path, monkeypatch):
    import lightning.pytorch.demos.boring_classes as demos

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(demos, "BoringModel", TwoHeads)
    config = {
        "trainer": {"accelerator": "cpu", "devices": 1, "logger": False, "enable_checkpointing": False},
        "model": {"class_path": f"{demos.__name__}.BoringModel"},
        "export_path": "model.onnx",
        "ckpt_path": str(ckpt_path),
    }
    (tmp_path / "export.yml").write_text(yaml.safe_dump(config))
    main(["export", "-c", "export.yml"])
    assert_same(tmp_path / "model.onnx", trained, (2, 2, 1, 8, 12))


def test_an_existing_file_is_kept(trainer, ckpt_path, tmp_path):
    path = tmp_path / "model.onnx"
    path.write_text("earlier")
    with pytest.raises(FileExistsError, match="choose another export_path"):
        trainer.export(TwoHeads(), path, ckpt_path)
    assert path.read_text() == "earlier"


def test_other_formats_are_refused(trainer, ckpt_path, tmp_path):
    with pytest.raises(NotImplementedError, match="format must be onnx, got 'tflite'"):
        trainer.export(TwoHeads(), tmp_path / "model", ckpt_path, format="tflite")


@pytest.mark.parametrize("package", ["onnx", "onnxscript"])
def test_without_onnx_the_extra_is_named(trainer, ckpt_path, tmp_path, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=r"viscy-utils\[export\]"):
        trainer.export(TwoHeads(), tmp_path / "model.onnx", ckpt_path)


def test_a_missing_checkpoint_and_a_missing_example_are_named(trainer, ckpt_path, tmp_path):
    with pytest.raises(MissingInputError, match=r"none\.ckpt"):
        trainer.export(TwoHeads(), tmp_path / "model.onnx", tmp_path / "none.ckpt")
    with pytest.raises(ValueError, match="TwoHeads needs a tensor example_input_array"):
        trainer.export(TwoHeads(example=False), tmp_path / "model.onnx", ckpt_path)


def test_a_checkpoint_of_another_model_is_refused(trainer, ckpt_path, tmp_path):
    with pytest.raises(InputError, match=r"last\.ckpt[\s\S]*size mismatch"):
        trainer.export(TwoHeads(width=5), tmp_path / "model.onnx", ckpt_path)
    torch.save({"weights": {}}, tmp_path / "other.ckpt")
    with pytest.raises(InputError, match="no state_dict"):
        trainer.export(TwoHeads(), tmp_path / "model.onnx", tmp_path / "other.ckpt")
