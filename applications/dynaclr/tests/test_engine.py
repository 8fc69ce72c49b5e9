"""ContrastiveModule under a real Trainer, with tiny encoders."""

from __future__ import annotations

import contextlib
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from pytorch_metric_learning.losses import NTXentLoss, SupConLoss
from torch import nn
from torch.utils.data import DataLoader

from dynaclr.engine import ContrastiveModule
from dynaclr.loss import NTXentHCL
from viscy_data.errors import InputError

GOLDEN = Path(__file__).parent / "golden" / "loss"
SHAPE = (1, 2, 3, 8, 8)


class Encoder(nn.Module):
    """A pooled linear layer with dropout and a head."""

    def __init__(self):
        super().__init__()
        self.backbone = nn.Sequential(nn.Flatten(2), nn.Linear(3 * 8 * 8, 4), nn.Flatten(), nn.Dropout(0.5))
        self.head = nn.Linear(8, 4)

    def forward(self, x):
        features = self.backbone(x)
        return features, self.head(features)


class Passthrough(nn.Module):
    """Takes embeddings for images."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x):
        return x, x * self.scale


class Recorder(Callback):
    """Keeps what a run logged."""

    def __init__(self):
        self.rates, self.epochs = [], []

    def on_train_batch_end(self, trainer, *args):
        self.rates.append(trainer.optimizers[0].param_groups[0]["lr"])

    def on_train_epoch_end(self, trainer, module):
        self.epochs.append({name: value.item() for name, value in trainer.callback_metrics.items()})


def _batches(sizes, negative=True, seed=0):
    generator = torch.Generator().manual_seed(seed)
    keys = ["anchor", "positive", *(["negative"] if negative else [])]
    batches = [{key: torch.randn(n, *SHAPE[1:], generator=generator) for key in keys} for n in sizes]
    for batch, n in zip(batches, sizes, strict=True):
        batch |= {"lineage": torch.arange(n) // 2, "index": {"t": torch.arange(n)}, "rng_seed": 3}
    return DataLoader(batches, batch_size=None)


def _module(loss=None, **options):
    torch.manual_seed(0)
    return ContrastiveModule(Encoder(), loss, example_input_array_shape=SHAPE, **options)


def _name(loss):
    return type(loss).__name__


def _trainer(path, logger=False, **options):
    defaults = {"max_epochs": 1, "accelerator": "cpu", "enable_progress_bar": False, "enable_model_summary": False}
    defaults |= {"enable_checkpointing": False, "log_every_n_steps": 1, "default_root_dir": path, "logger": logger}
    return Trainer(**(defaults | options))


@pytest.mark.filterwarnings("ignore:The '.*_dataloader' does not have many workers")
@pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no `val_dataloader`")
class TestRuns:
    """Everything that needs a Trainer."""

    def _fit(self, module, tmp_path, sizes=(4, 4), val_sizes=(4,), **options):
        recorder = Recorder()
        trainer = _trainer(tmp_path, callbacks=[recorder], **options)
        negative = not isinstance(module.loss_function, (NTXentLoss, SupConLoss))
        trainer.fit(module, _batches(sizes, negative), _batches(val_sizes, negative, seed=1) if val_sizes else None)
        return recorder

    @pytest.mark.parametrize(
        "case", json.loads((GOLDEN / "contrastive_metrics.json").read_text()), ids=lambda c: f"{c['loss']}-{c['B']}"
    )
    def test_golden_figures_are_logged(self, case, tmp_path, golden_signed):
        loss = NTXentHCL() if case["loss"] == "NTXentHCL()" else None
        shape = (case["B"], case["D"])
        batch = {
            key: torch.from_numpy(golden_signed(shape, f"cm_{key[0]}{shape[0]}"))
            for key in ("anchor", "positive", "negative")
        }
        recorder = Recorder()
        module = ContrastiveModule(Passthrough(), loss, lr=0.0)
        _trainer(tmp_path, callbacks=[recorder]).fit(module, DataLoader([batch], batch_size=None))
        for name, value in case["logged"].items():
            assert recorder.epochs[0][name] == pytest.approx(value, abs=1e-5), name

    @pytest.mark.parametrize("logger", [False, "csv", "tensorboard"])
    @pytest.mark.parametrize("loss", [None, NTXentHCL(), nn.CosineEmbeddingLoss(), SupConLoss()], ids=_name)
    def test_any_logger_and_any_loss(self, loss, logger, tmp_path):
        loggers = {"csv": CSVLogger, "tensorboard": TensorBoardLogger}
        chosen = loggers[logger](tmp_path) if logger else False
        recorder = self._fit(_module(loss, log_embeddings=True), tmp_path, logger=chosen)
        for stage in ("train", "val"):
            assert math.isfinite(recorder.epochs[0][f"loss/{stage}"])

    def test_images_reach_a_logger_that_takes_them(self, tmp_path):
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        logger = TensorBoardLogger(tmp_path)
        module = _module(NTXentHCL(), log_embeddings=True, log_batches_per_epoch=1, log_samples_per_batch=2)
        self._fit(module, tmp_path, logger=logger, max_epochs=2)
        events = EventAccumulator(logger.log_dir)
        events.Reload()
        assert set(events.Tags()["images"]) == {"train_samples", "val_samples", "val_embeddings"}
        samples = events.Images("train_samples")
        assert [image.step for image in samples] == [0, 1]
        assert (samples[0].height, samples[0].width) == (2 * 8, 2 * 2 * 8)  # samples; anchor and positive, 2 channels

    @pytest.mark.filterwarnings("ignore:`torch.jit.trace")  # torch's own writer of graphs
    def test_summary_and_graph_use_the_example_input(self, tmp_path):
        logger = TensorBoardLogger(tmp_path, log_graph=True)
        self._fit(_module(NTXentHCL()), tmp_path, logger=logger, enable_model_summary=True)

    def test_epoch_figures_are_means_over_cells(self, tmp_path):
        module = _module(NTXentHCL())
        recorder = self._fit(module, tmp_path, val_sizes=(6, 2), limit_train_batches=1, num_sanity_val_steps=0)
        module.eval()
        with torch.no_grad():
            losses = [
                NTXentHCL()
                .forward_pairs(module(batch["anchor"])[1], module(batch["positive"])[1], batch["lineage"])
                .item()
                for batch in _batches((6, 2), negative=False, seed=1)
            ]
        assert recorder.epochs[0]["loss/val"] == pytest.approx((6 * losses[0] + 2 * losses[1]) / 8, rel=1e-5)

    def test_validation_batch_of_one_does_not_poison_the_epoch(self, tmp_path):
        figures = []
        for val_sizes in ((6,), (6, 1)):
            module = _module(NTXentHCL(), lr=0.0)
            trainer = _trainer(tmp_path, num_sanity_val_steps=0)
            batches = [*_batches((6,), False, seed=1), *_batches(val_sizes[1:], False, seed=2)]
            expected = "a val batch of one cell has no negatives" if 1 in val_sizes else None
            with pytest.warns(UserWarning, match=expected) if expected else contextlib.nullcontext():
                figures += trainer.validate(module, DataLoader(batches, batch_size=None), verbose=False)
        alone, with_one = figures
        assert {name for name in alone if not name.endswith("_step")} <= with_one.keys()
        for name, value in alone.items():
            assert with_one[name] == pytest.approx(value), name

    def test_other_cells_are_compared_with_every_n_epochs(self, tmp_path):
        module = _module(NTXentHCL(), log_negative_metrics_every_n_epochs=3)
        seen = []

        class Epochs(Callback):
            def on_train_epoch_start(self, trainer, *_):
                trainer.callback_metrics.clear()

            def on_train_epoch_end(self, trainer, *_):
                seen.append("metrics/uniformity/train" in trainer.callback_metrics)

        _trainer(tmp_path, max_epochs=4, callbacks=[Epochs()]).fit(module, _batches((4,), False))
        assert seen == [True, False, False, True]

    def test_warmup_then_cosine_is_what_the_optimizer_sees(self, tmp_path):
        module = _module(NTXentHCL(), lr=1.0, schedule="WarmupCosine", warmup_epochs=2)
        rates = self._fit(module, tmp_path, sizes=(4,) * 4, val_sizes=(), max_epochs=6).rates
        # the rate after step k is that of step k + 1: 8 steps up, 16 down
        assert rates[:7] == pytest.approx([k / 8 for k in range(2, 9)])
        assert rates[7:] == pytest.approx([math.cos(math.pi * k / 32) ** 2 for k in range(17)], abs=1e-6)

    def test_warmup_counts_optimizer_steps_under_accumulation(self, tmp_path):
        module = _module(NTXentHCL(), lr=1.0, schedule="WarmupCosine", warmup_epochs=1)
        rates = self._fit(module, tmp_path, sizes=(4,) * 4, val_sizes=(), max_epochs=2, accumulate_grad_batches=2).rates
        assert rates[::2] == pytest.approx([0.5, 1.0, 1.0, 0.5])

    def test_warmup_as_long_as_the_run_is_said(self, tmp_path):
        module = _module(NTXentHCL(), schedule="WarmupCosine")
        with pytest.warns(UserWarning, match="a warm-up of 3 epochs of 2 steps fills the whole run of 2"):
            self._fit(module, tmp_path, val_sizes=())

    def test_schedule_without_end_is_refused(self, tmp_path):
        module = _module(NTXentHCL(), schedule="WarmupCosine")
        with pytest.raises(ValueError, match="WarmupCosine needs the length of the run"):
            self._fit(module, tmp_path, val_sizes=(), max_epochs=-1)

    def test_constant_rate_stays(self, tmp_path):
        assert set(self._fit(_module(NTXentHCL(), lr=0.25), tmp_path).rates) == {0.25}

    def test_fast_dev_run(self, tmp_path):
        self._fit(_module(NTXentHCL(), schedule="WarmupCosine"), tmp_path, fast_dev_run=True)

    def test_prediction_is_deterministic_and_complete(self, tmp_path):
        module = _module(NTXentHCL())
        first, second = (_trainer(tmp_path).predict(module, _batches((3, 2), False)) for _ in range(2))
        assert [set(batch) for batch in first] == [{"features", "projections", "index"}] * 2
        assert [tuple(batch["features"].shape) for batch in first] == [(3, 8), (2, 8)]
        assert [tuple(batch["projections"].shape) for batch in first] == [(3, 4), (2, 4)]
        torch.testing.assert_close(first, second, rtol=0, atol=0)

    def test_checkpoint_is_plain_and_starts_another_module(self, tmp_path):
        trainer = _trainer(tmp_path)
        module = _module(NTXentHCL(), lr=0.5)
        trainer.fit(module, _batches((4,), False))
        path = tmp_path / "last.ckpt"
        trainer.save_checkpoint(path)
        content = torch.load(path, weights_only=True)
        assert all(key.startswith("model.") for key in content["state_dict"])
        assert content["hyper_parameters"]["lr"] == 0.5
        started = ContrastiveModule(Encoder(), ckpt_path=str(path))
        torch.testing.assert_close(started.state_dict(), module.state_dict())
        restored = ContrastiveModule.load_from_checkpoint(path, encoder=Encoder(), loss_function=NTXentHCL())
        torch.testing.assert_close(restored.state_dict(), module.state_dict())
        assert restored.lr == 0.5


def test_checkpoint_of_another_encoder_is_refused(tmp_path):
    path = tmp_path / "other.ckpt"
    torch.save({"state_dict": {"model.head.weight": torch.zeros(3, 3), "model.tail": torch.zeros(2)}}, path)
    with pytest.raises(ValueError, match=r"(?s)does not fit Encoder.*missing.*unexpected.*shape"):
        ContrastiveModule(Encoder(), ckpt_path=str(path))
    with pytest.raises(FileNotFoundError, match="no such checkpoint file"):
        ContrastiveModule(Encoder(), ckpt_path=str(tmp_path / "none.ckpt"))


def test_checkpoint_that_would_run_code_is_refused(tmp_path):
    path = tmp_path / "unsafe.ckpt"
    torch.save({"state_dict": {"model.x": print}}, path)
    with pytest.raises(ValueError, match="objects that would have to be executed"):
        ContrastiveModule(Encoder(), ckpt_path=str(path))


def test_default_loss_belongs_to_its_module():
    first, second = _module(), _module()
    assert isinstance(first.loss_function, nn.TripletMarginLoss)
    assert first.loss_function.margin == 0.5
    assert first.loss_function is not second.loss_function


def test_making_a_module_draws_no_random_number():
    encoder = Encoder()
    before = torch.get_rng_state()
    module = ContrastiveModule(encoder)
    assert module.example_input_array.shape == (1, 2, 15, 256, 256)
    assert torch.equal(before, torch.get_rng_state())


def test_missing_negative_is_explained():
    batch = next(iter(_batches((2,), negative=False)))
    expected = r"batch, field negative\n[\s\S]*TripletMarginLoss compares\n[\s\S]*return_negative: true"
    with pytest.raises(InputError, match=expected) as raised:
        _module().training_step(batch, 0)
    assert isinstance(raised.value, KeyError)  # as in earlier versions


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"schedule": "Linear"}, "schedule: found 'Linear', expected 'WarmupCosine' or 'Constant'"),
        ({"log_negative_metrics_every_n_epochs": 0}, "log_negative_metrics_every_n_epochs: found 0"),
        ({"warmup_epochs": -1}, "warmup_epochs: found -1"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        _module(**options)


@pytest.fixture
def golden_signed():
    """Values in (-1, 1) from the integer hash that the golden README describes."""
    import zlib

    def signed(shape, name):
        h = np.arange(np.prod(shape), dtype=np.uint32) + np.uint32(zlib.crc32(name.encode()))
        h = (h ^ (h >> np.uint32(16))) * np.uint32(0x7FEB352D)
        h = (h ^ (h >> np.uint32(15))) * np.uint32(0x846CA68B)
        h ^= h >> np.uint32(16)
        return (2 * (h / 2**32) - 1).astype(np.float32).reshape(shape)

    return signed
