"""The behaviour of Lightning that workarounds rely on, and what they make of it."""

from __future__ import annotations

import logging
import os
import warnings
from contextlib import contextmanager

import pytest
import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.demos.boring_classes import BoringDataModule, BoringModel

from viscy_utils.lightning_workarounds import (
    NoBatchTracking,
    WatchedSaves,
    WholeCheckpointIO,
    around_restoring,
    before_loaders_of_prediction,
    prepare_batch,
    save_on_one_rank,
    validating,
    without_advertisements,
    without_broadcasts_of_signals,
)

pytestmark = pytest.mark.filterwarnings(
    "ignore:The '.*_dataloader' does not have many workers", "ignore:GPU available", "ignore:.*litlogger"
)


@pytest.fixture
def trainer(tmp_path):
    """Return a trainer with a model, as callbacks see it."""
    options = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
    trainer = Trainer(default_root_dir=tmp_path, accelerator="cpu", devices=1, max_steps=1, logger=False,
                      limit_val_batches=0, **options)  # fmt: skip
    trainer.fit(BoringModel(), BoringDataModule())
    return trainer


def test_every_save_passes_through_the_method_of_the_trainer(trainer, tmp_path):
    seen = []
    watch = WatchedSaves(trainer, lambda _, path: seen.append(path))
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    watch.stop()
    trainer.save_checkpoint(tmp_path / "b.ckpt")
    assert seen == [str(tmp_path / "a.ckpt")]
    assert (tmp_path / "b.ckpt").exists()


def test_a_checkpoint_is_there_whole_or_not_at_all(trainer, tmp_path, monkeypatch):
    WholeCheckpointIO.install(trainer)
    path = tmp_path / "sub" / "last.ckpt"
    trainer.save_checkpoint(path)
    before = path.read_bytes()

    def half(checkpoint, file):
        with open(file, "wb") as opened:
            opened.write(b"half")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", half)
        with pytest.raises(KeyboardInterrupt):
            trainer.save_checkpoint(path)
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == ["last.ckpt"]
    assert "state_dict" in torch.load(path, weights_only=True)


@pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint that ended before the epoch")
def test_each_part_of_a_training_is_restored_within_a_context(trainer, tmp_path):
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    options = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
    other = Trainer(accelerator="cpu", devices=1, max_steps=2, logger=False, limit_val_batches=0, **options)
    seen, inside = [], []

    @contextmanager
    def around(entry, saved):
        seen.append((entry, saved is not None))
        inside.append(entry)
        yield
        inside.remove(entry)

    around_restoring(other, around)
    other.fit(BoringModel(), BoringDataModule(), ckpt_path=tmp_path / "a.ckpt", weights_only=True)
    assert not inside
    assert seen == [
        ("pytorch-lightning_version", False),
        ("data module", False),
        ("callbacks", True),
        ("precision", False),
        ("loops", True),
        ("optimizer_states and lr_schedulers", False),
        ("optimizer_states", True),
        ("lr_schedulers", True),
        ("place in the epoch", False),
    ]


def test_a_way_of_saving_that_the_user_has_chosen_stays(tmp_path):
    class Own(TorchCheckpointIO):
        pass

    trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, plugins=[Own()])
    WholeCheckpointIO.install(trainer)
    assert type(trainer.strategy.checkpoint_io) is Own


def test_the_first_of_several_ranks_saves_alone(trainer, tmp_path, monkeypatch):
    monkeypatch.setattr(type(trainer), "world_size", property(lambda self: 2))
    monkeypatch.setattr(trainer.strategy, "barrier", lambda *_: pytest.fail("waited for the other ranks"))
    save_on_one_rank(trainer, tmp_path / "alone.ckpt")
    alone = torch.load(tmp_path / "alone.ckpt", weights_only=True)
    assert alone["global_step"] == 1
    assert alone["state_dict"].keys() == trainer.model.state_dict().keys()


def test_a_data_module_sees_a_validation(trainer):
    with validating(trainer):
        assert trainer.validating
    assert not trainer.validating


def test_a_batch_passes_the_hook_of_the_data_module_if_it_has_one(trainer):
    batch = torch.ones(2)
    assert torch.equal(prepare_batch(trainer, batch), batch)
    trainer.datamodule.on_before_batch_transfer = lambda batch, _: batch + 1
    assert torch.equal(prepare_batch(trainer, batch), batch + 1)


def test_a_prediction_writer_is_asked_for_its_interval_in_two_words():
    from lightning.pytorch.callbacks import BasePredictionWriter

    writer = BasePredictionWriter("batch")
    assert {name for name in vars(type(writer.interval)) if name.startswith("on_")} == {"on_batch", "on_epoch"}
    assert not NoBatchTracking.on_batch
    assert not NoBatchTracking.on_epoch


def test_between_weights_and_loaders_of_a_prediction_there_is_a_place(tmp_path):
    happened = []

    class Data(BoringDataModule):
        def predict_dataloader(self):
            happened.append("loaders")
            return super().predict_dataloader()

    class Asks(Callback):
        def setup(self, trainer, pl_module, stage):
            before_loaders_of_prediction(
                trainer, lambda: happened.append((trainer.ckpt_path, float(pl_module.layer.bias[0])))
            )

    options = {
        "accelerator": "cpu",
        "devices": 1,
        "logger": False,
        "enable_progress_bar": False,
        "enable_checkpointing": False,
    }
    saved = BoringModel()
    torch.nn.init.constant_(saved.layer.bias, 7.0)
    saver = Trainer(**options)
    saver.strategy.connect(saved)
    path = str(tmp_path / "last.ckpt")
    saver.save_checkpoint(path)
    trainer = Trainer(**options, callbacks=[Asks()])
    trainer.predict(BoringModel(), Data(), ckpt_path=path)
    assert happened == [(path, 7.0), "loaders"]


def test_ranks_are_not_asked_for_signals_before_each_batch(trainer):
    loop = trainer.fit_loop.epoch_loop
    asked = loop._broadcast_sigterm_tensor
    with without_broadcasts_of_signals(trainer):
        assert loop._broadcast_sigterm_tensor() is None
        assert loop._broadcast_sigterm_tensor != asked
    assert loop._broadcast_sigterm_tensor == asked


def test_tips_and_notices_are_kept_away_and_all_else_is_not(caplog):
    logger = logging.getLogger("lightning.pytorch.utilities.rank_zero")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with caplog.at_level(logging.INFO, logger.name), without_advertisements():
            logger.warning("💡 Tip: For seamless cloud logging and experiment tracking, try installing [litlogger]")
            logger.info("TPU available: False, using: 0 TPU cores")
            logger.warning("`Trainer.fit` stopped")
            warnings.warn("The 'train_dataloader' does not have many workers which may be a bottleneck", stacklevel=1)
            warnings.warn("the loss is nan", stacklevel=1)
    assert [record.getMessage() for record in caplog.records] == ["`Trainer.fit` stopped"]
    assert [str(warning.message) for warning in caught] == ["the loss is nan"]


def test_lightning_advertises_with_these_words(tmp_path, caplog, monkeypatch):
    with caplog.at_level(logging.INFO, "lightning.pytorch.utilities.rank_zero"):
        trainer = Trainer(default_root_dir=tmp_path, accelerator="cpu", devices=1, max_steps=0)
    advertised = [record for record in caplog.records if "litlogger" in record.getMessage()]
    assert all("Tip: For seamless" in record.getMessage() for record in advertised)
    assert all(record.name == "lightning.pytorch.utilities.rank_zero" for record in advertised)
    assert trainer.loggers
