"""Checkpoints of training modules: compiled networks, other architectures, and values that are not finite."""

from __future__ import annotations

import pytest
import torch
from lightning.pytorch import Trainer
from torch import nn
from torch.utils.data import DataLoader

from dynaclr.engine import BetaVaeModule, ContrastiveModule
from dynaclr.loss import NTXentHCL
from viscy_data.errors import InputError
from viscy_losses import MoCoLoss
from viscy_models import BetaVae25D, ContrastiveEncoder
from viscy_utils.training.finite import FiniteWatch, Step, name_cells

pytestmark = [
    pytest.mark.filterwarnings("ignore:The '.*_dataloader' does not have many workers"),
    pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no `val_dataloader`"),
]


class Encoder(nn.Module):
    """A linear layer with a head."""

    def __init__(self):
        super().__init__()
        self.backbone, self.head = nn.Linear(8, 6), nn.Linear(6, 4)

    def forward(self, x):
        features = self.backbone(x.flatten(1))
        return features, self.head(features)


def _batch(n=4, **extra):
    generator = torch.Generator().manual_seed(0)
    images = {key: torch.randn(n, 1, 2, 2, 2, generator=generator) for key in ("anchor", "positive")}
    return images | {"index": {"t": torch.arange(n)}} | extra


def _loader(batch=None):
    return DataLoader([batch or _batch()], batch_size=None)


def _trainer(path, **options):
    defaults = {"max_epochs": 1, "accelerator": "cpu", "enable_progress_bar": False, "enable_model_summary": False}
    defaults |= {"enable_checkpointing": False, "default_root_dir": path, "logger": False}
    return Trainer(**(defaults | options))


def _module(compiled, **options):
    torch.manual_seed(0)
    encoder = Encoder()
    return ContrastiveModule(torch.compile(encoder, backend="eager") if compiled else encoder, NTXentHCL(), **options)


@pytest.mark.parametrize("reader", [False, True], ids=["to plain", "to compiled"])
@pytest.mark.parametrize("writer", [False, True], ids=["from plain", "from compiled"])
def test_compiled_encoders_share_their_checkpoints_with_plain_ones(tmp_path, writer, reader):
    trained, path = _module(writer, lr=0.1), tmp_path / "last.ckpt"
    trainer = _trainer(tmp_path)
    trainer.fit(trained, _loader())
    trainer.save_checkpoint(path)
    assert set(torch.load(path)["state_dict"]) == {f"model.{name}" for name in Encoder().state_dict()}

    expected = trained.eval()(_batch()["anchor"])
    found = _trainer(tmp_path).predict(_module(reader), _loader(), ckpt_path=path)[0]
    torch.testing.assert_close((found["features"], found["projections"]), expected)
    started = _module(reader, ckpt_path=str(path))
    torch.testing.assert_close(started.eval()(_batch()["anchor"]), expected)


def test_marks_of_compilation_in_older_checkpoints_are_read():
    module = _module(compiled=False)
    state = {name.replace("model.", "model._orig_mod."): value + 1 for name, value in module.state_dict().items()}
    module.load_state_dict(state)
    torch.testing.assert_close(module.state_dict()["model.head.bias"], state["model._orig_mod.head.bias"])


def test_weights_of_another_architecture_are_explained_in_a_few_lines(tmp_path):
    with torch.device("meta"):
        written = ContrastiveModule(ContrastiveEncoder("resnet50", 1, 10)).state_dict()
        read = ContrastiveModule(ContrastiveEncoder("convnext_tiny", 2, 15))
    with pytest.raises(InputError, match="backbone: resnet50 in the file, convnext_tiny in the model") as error:
        read.load_state_dict(written)
    assert isinstance(error.value, RuntimeError)
    assert "in_channels: 1 in the file, 2 in the model" in str(error.value)
    assert len(str(error.value)) < 1000


def test_the_file_that_does_not_fit_is_named(tmp_path):
    torch.save({"state_dict": {"model.tail": torch.ones(2)}, "pytorch-lightning_version": "2.5.0"}, tmp_path / "b.ckpt")
    with pytest.raises(InputError, match=r"b.ckpt, field state_dict\n  found    other weights:\n  4 missing"):
        _trainer(tmp_path).predict(_module(compiled=False), _loader(), ckpt_path=tmp_path / "b.ckpt")


def test_a_queue_whose_width_is_not_known_yet_takes_that_of_the_checkpoint():
    written = ContrastiveModule(Encoder(), MoCoLoss(queue_size=8, dim=4))
    read = ContrastiveModule(Encoder(), MoCoLoss(queue_size=8))
    read.load_state_dict(written.state_dict())
    assert torch.equal(read.loss_function.queue, written.loss_function.queue)


def test_modules_tell_what_images_they_take():
    with torch.device("meta"):
        encoder, vae = ContrastiveEncoder("resnet18", 3, 10), BetaVae25D("resnet18", 2, 4, 4, 16, (64, 64))
    assert ContrastiveModule(encoder).expected_input() == {"channels": 3, "depth": 10}
    assert ContrastiveModule(torch.compile(encoder)).expected_input() == {"channels": 3, "depth": 10}
    assert BetaVaeModule(vae).expected_input() == {"channels": 2, "depth": 4}
    assert BetaVaeModule(vae, num_classes=2).expected_input() == {"depth": 4}
    assert ContrastiveModule(Encoder()).expected_input() == {}


RECORDS = [{"fov_name": f"A/1/{i}", "track_id": i, "t": 7, "id": 3} for i in range(4)]


@pytest.mark.parametrize(
    ("extra", "named"),
    [
        ({"index": RECORDS}, "row 2: fov_name A/1/2, track_id 2, t 7"),
        ({"index": {"track_id": torch.arange(4) + 5}}, "row 2: track_id 7"),
        ({"index": {}, "lineage": torch.arange(4) + 30}, "row 2"),
        ({"lineage": torch.arange(4) + 30}, "row 2: lineage 32"),
    ],
)
def test_cells_are_named_as_the_batch_knows_them(extra, named):
    assert name_cells(extra, [2]) == [named]


def test_pixels_that_are_not_finite_are_traced_to_their_cells(tmp_path):
    batch = _batch(index=RECORDS)
    batch["positive"][2, 0, 0, 0, 0] = torch.nan
    module = _module(compiled=False, lr=0.1)
    before = module.model.head.bias.detach().clone()
    message = (
        r"train epoch 0 batch 0: projections of 1 of 4 cells hold NaN or infinite values "
        r"\(row 2: fov_name A/1/2, track_id 2, t 7\); look for such pixels"
    )
    with pytest.raises(ValueError, match=message):
        _trainer(tmp_path).fit(module, _loader(batch))
    assert torch.equal(module.model.head.bias, before)


class Infinite(nn.Module):
    """A loss that overflows."""

    def forward(self, anchor, positive, negative):
        return (anchor.sum() + 1e4) * 1e38


def test_a_loss_that_is_not_finite_is_named(tmp_path):
    batch = _batch()
    module = ContrastiveModule(Encoder(), Infinite())
    with pytest.raises(ValueError, match="train epoch 0 batch 0: the loss of Infinite is NaN or infinite"):
        _trainer(tmp_path).fit(module, _loader(batch | {"negative": batch["anchor"]}))


def test_away_from_the_cpu_one_look_is_for_many_steps():
    """Rows that were noticed keep their step; nobody looks before it is time."""
    watch, values = FiniteWatch(every=3), torch.ones(4, 2, device="meta")
    watch.add(values, "projections", Step("train", 0, 0))
    watch.add(values, "projections", Step("train", 0, 1))
    with pytest.raises((RuntimeError, NotImplementedError), match=r"[mM]eta"):  # tensors without values refuse the look
        watch.add(values, "projections", Step("train", 0, 2))


def test_nothing_that_is_not_finite_is_saved(tmp_path):
    module = _module(compiled=False)
    looked = []
    trainer = _trainer(tmp_path)
    trainer.fit(module, _loader())
    module.on_save_checkpoint = lambda checkpoint: looked.append("state_dict" in checkpoint)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    assert looked == [True]
