"""Pictures beside checkpoints, made by real trainers."""

from __future__ import annotations

import random
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningDataModule, LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from torch import nn
from torch.utils.data import DataLoader, Dataset

from viscy_data.distributed import SequentialBatchSampler
from viscy_data.loaders import BatchLoader
from viscy_utils.callbacks import CheckpointVisualization
from viscy_utils.evaluation import visualization

pytest.importorskip("matplotlib")
pytest.importorskip("skimage")


class Cells(Dataset):
    """Twelve cells; `wobble` draws from a generator of its own when it reads."""

    def __init__(self, wobble=False, size=12):
        self.images = torch.rand((size, 1, 1, 8, 8), generator=torch.Generator().manual_seed(0))
        self.rng = np.random.default_rng(0) if wobble else None
        self.read = []

    def __len__(self):
        return len(self.images)

    def __getitem__(self, position):
        self.read.append(position)
        noise = 0.0 if self.rng is None else self.rng.normal()
        return {"anchor": self.images[position] + noise, "positive": self.images[position] * 2}


class Batches(Cells):
    """Items are whole batches."""

    def __getitem__(self, positions):
        assert isinstance(positions, list)
        self.read += positions
        noise = 0.0 if self.rng is None else self.rng.normal()
        return {"anchor": self.images[positions] + noise, "positive": self.images[positions] * 2}


class AutoEncoder(LightningModule):
    def __init__(self):
        super().__init__()
        self.model = nn.Sequential(nn.Conv3d(1, 4, 1), nn.BatchNorm3d(4), nn.Dropout(0.3), nn.Conv3d(4, 1, 1))
        self.losses, self.seen = [], []

    def forward(self, x):
        if not self.training:
            self.seen.append(x.clone())
            assert not torch.is_grad_enabled()
            assert not self.model[2].training
        noise = torch.randn_like(x) * random.random() * np.random.rand()  # noqa: NPY002
        return {"recon_x": self.model(x) + 0.1 * noise, "mu": x.mean((2, 3, 4))}

    def training_step(self, batch, batch_idx):
        loss = ((self(batch["anchor"])["recon_x"] - batch["anchor"]) ** 2).mean()
        self.losses.append(loss.item())
        self.log("loss", loss)
        return loss

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), 1e-2)


class Encoder(AutoEncoder):
    def forward(self, x):
        features = self.model(x).flatten(1)
        return features, features[:, :5]

    def training_step(self, batch, batch_idx):
        return (self(batch["anchor"])[1] - self(batch["positive"])[1]).pow(2).mean()


def trainer(path, *callbacks, logger=False, **options):
    settings = {"max_epochs": 3, "accelerator": "cpu", "enable_progress_bar": False, "enable_model_summary": False}
    if not any(isinstance(callback, ModelCheckpoint) for callback in callbacks):
        callbacks = (*callbacks, ModelCheckpoint(path, save_top_k=-1))
    return Trainer(
        callbacks=list(callbacks), logger=logger, default_root_dir=path, log_every_n_steps=1, **(settings | options)
    )


def fit(path, *callbacks, module=None, loader=None, **options):
    seed_everything(3, workers=True, verbose=False)
    module = AutoEncoder() if module is None else module
    loader = DataLoader(Cells(), batch_size=4, shuffle=True) if loader is None else loader
    run = trainer(path, *callbacks, **options)
    run.fit(module, loader)
    return module, run


def pictures(path):
    return sorted(found.name for found in path.rglob("*.png"))


def test_a_picture_is_written_beside_every_checkpoint_and_announced(tmp_path, capsys):
    fit(tmp_path, CheckpointVisualization(2))
    names = [f"reconstructions_epoch_{epoch}.png" for epoch in range(3)]
    assert pictures(tmp_path) == names
    assert len(list(tmp_path.glob("*.ckpt"))) == 3
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line.startswith("[")] == [
        f"[VISUALIZATION] Saved: {tmp_path / name}" for name in names
    ]
    assert (tmp_path / names[0]).read_bytes().startswith(b"\x89PNG")
    assert not list(tmp_path.glob("*.part"))


EPOCHS = [f"reconstructions_epoch_{epoch}.png" for epoch in range(3)]
BEST = "reconstructions_best.png"


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, EPOCHS),
        ({"every_n_epochs": 2}, EPOCHS[1:2]),
        ({"every_n_train_steps": 2, "save_top_k": -1}, EPOCHS),
        ({"every_n_train_steps": 5}, EPOCHS[1:2]),
        ({"monitor": "loss", "save_top_k": 1}, [BEST]),
        ({"monitor": "loss", "save_top_k": -1}, [BEST, *EPOCHS]),
        ({"monitor": "loss", "mode": "max", "filename": "sub/{epoch}"}, [BEST]),
        ({"save_top_k": 0, "save_last": True}, []),  # Lightning saves nothing at the epochs, but at the very end
        ({"save_weights_only": True, "filename": "always-the-same"}, EPOCHS),
        ({"save_last": "link"}, EPOCHS),
        ({"save_on_train_epoch_end": False, "every_n_epochs": 1}, EPOCHS),
    ],
)
def test_every_kind_of_checkpoint_gets_its_picture(tmp_path, options, expected):
    module = AutoEncoder()
    module.validation_step = lambda batch, batch_idx: None
    loaders = {"train_dataloaders": DataLoader(Cells(), batch_size=4), "val_dataloaders": DataLoader(Cells())}
    run = trainer(tmp_path, CheckpointVisualization(1), ModelCheckpoint(tmp_path / "run", **options))
    saved = []
    save = run.save_checkpoint
    run.save_checkpoint = lambda filepath, *args: (saved.append(filepath), save(filepath, *args))
    run.fit(module, **loaders)
    if not expected:
        expected = ["reconstructions_epoch_3.png"] if saved else []
    assert pictures(tmp_path) == expected
    assert all(found.parent == tmp_path / "run" for found in tmp_path.rglob("*.png"))


def test_checkpoints_without_a_folder_of_their_own_and_by_hand_get_theirs(tmp_path):
    class ByHand(Callback):
        def on_train_batch_end(self, run, *args):
            if run.global_step == 2:
                run.save_checkpoint(tmp_path / "by hand" / "x.ckpt", weights_only=True)

    fit(tmp_path, ModelCheckpoint(), CheckpointVisualization(1), ByHand(), logger=CSVLogger(tmp_path, name="csv"))
    assert pictures(tmp_path / "csv" / "version_0" / "checkpoints") == EPOCHS
    assert pictures(tmp_path / "by hand") == EPOCHS[:1]


def test_several_checkpoints_of_one_state_share_a_picture(tmp_path, capsys):
    callbacks = [ModelCheckpoint(tmp_path, monitor="loss", filename="best"), ModelCheckpoint(tmp_path, save_top_k=-1)]
    fit(tmp_path, *callbacks, CheckpointVisualization(1), max_epochs=1)
    assert pictures(tmp_path) == [BEST, EPOCHS[0]]
    assert capsys.readouterr().out.count("[VISUALIZATION]") == 2


KINDS = {
    "shuffled": {"shuffle": True},
    "shuffled by a generator of its own": {"shuffle": True, "generator": torch.Generator()},
    "worker processes": {"shuffle": True, "num_workers": 2, "multiprocessing_context": "fork"},
    "persistent worker": {"num_workers": 1, "persistent_workers": True, "multiprocessing_context": "fork"},
    "batches": {},
    "batches, worker process": {"num_workers": 1, "multiprocessing_context": "fork"},
}


def wobbling_loader(kind):
    options = dict(KINDS[kind])
    if kind.startswith("batches"):
        return BatchLoader(Batches(wobble=True), SequentialBatchSampler(12, 4, pad=True), **options)
    if "generator" in options:
        options["generator"].manual_seed(1)
    return DataLoader(Cells(wobble=True), batch_size=4, **options)


def outcome(path, loader, *callbacks):
    often = ModelCheckpoint(path, every_n_train_steps=2, save_top_k=-1, filename="{step}")
    module, _ = fit(path, often, *callbacks, loader=loader)
    state = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()  # noqa: NPY002
    return module.losses, state, torch.load(path / "step=8.ckpt", weights_only=False)


def assert_same_training(one, other):
    assert len(one[0]) == 9
    assert one[:2] == other[:2]
    assert one[2]["loops"] == other[2]["loops"]
    for key, value in one[2]["state_dict"].items():
        assert torch.equal(value, other[2]["state_dict"][key]), key


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")  # torch forks its workers
def test_training_is_the_same_with_and_without_pictures(tmp_path, kind):
    without = outcome(tmp_path / "without", wobbling_loader(kind))
    assert_same_training(without, outcome(tmp_path / "with", wobbling_loader(kind), CheckpointVisualization(1)))
    assert pictures(tmp_path / "without") == []
    assert pictures(tmp_path / "with") == EPOCHS


TWO_PROCESSES = """
import sys, torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from viscy_utils.callbacks import CheckpointVisualization

class AutoEncoder(LightningModule):
    def __init__(self):
        super().__init__()
        self.model = nn.Sequential(nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1))
    def forward(self, x):
        return self.model(x)
    def training_step(self, batch, batch_idx):
        loss = (self(batch[0]) - batch[0]).pow(2).mean()
        self.log("loss", loss, sync_dist=True, on_epoch=True)
        return loss
    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)

callbacks = [CheckpointVisualization(2), ModelCheckpoint(sys.argv[1], monitor="loss", save_top_k=-1)]
quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
trainer = Trainer(accelerator="cpu", devices=2, strategy="ddp_fork", max_epochs=2, callbacks=callbacks, **quiet)
trainer.fit(AutoEncoder(), DataLoader(TensorDataset(torch.rand(8, 1, 8, 8)), batch_size=2))
"""


@pytest.mark.slow
def test_of_two_processes_the_first_draws_and_none_waits_for_ever(tmp_path):
    command = [sys.executable, "-c", TWO_PROCESSES, str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("[VISUALIZATION] Saved:") == len(pictures(tmp_path)) + 1 == 4  # the best one twice
    assert pictures(tmp_path) == [BEST, *EPOCHS[:2]]


def test_each_part_of_the_model_is_left_in_the_mode_it_was_in(tmp_path):
    class Modes(Callback):
        found = ()

        def on_train_batch_start(self, run, module, *args):
            module.model[1].eval()  # frozen
            self.found += ([part.training for part in module.modules()],)

    modes = Modes()
    every_step = ModelCheckpoint(tmp_path, every_n_train_steps=1)
    module, _ = fit(tmp_path, modes, CheckpointVisualization(1), every_step, max_epochs=1)
    assert [part.training for part in module.model] == [True, False, True, True]
    assert all(found == modes.found[0] for found in modes.found)


def test_the_same_ten_samples_are_shown_each_time(tmp_path):
    dataset = Cells(wobble=True, size=40)
    module, _ = fit(tmp_path, CheckpointVisualization(), loader=DataLoader(dataset, batch_size=20, shuffle=True))
    assert [len(seen) for seen in module.seen] == [10, 10, 10]
    assert torch.equal(module.seen[0], module.seen[1])
    assert torch.equal(module.seen[0], module.seen[2])
    chosen = dataset.read[:10]
    assert len(set(chosen)) == 10
    assert max(chosen) > 12
    loader = DataLoader(Cells(size=40), batch_size=20)
    other, _ = fit(tmp_path / "b", CheckpointVisualization(seed=1), loader=loader, max_epochs=1)
    assert not torch.equal(module.seen[0], other.seen[0])


class Data(LightningDataModule):
    """Normalises in place on the device; augments in training, from a generator that it keeps."""

    def __init__(self):
        super().__init__()
        self.dataset, self.rng, self.stages = Cells(), np.random.RandomState(0), []

    def train_dataloader(self):
        return DataLoader(self.dataset, batch_size=4)

    def on_before_batch_transfer(self, batch, dataloader_idx):
        return {**batch, "offset": 10.0}

    def on_after_batch_transfer(self, batch, dataloader_idx):
        self.stages.append(self.trainer.state.stage.value)
        batch["anchor"] += batch["offset"] + 0 * self.rng.rand()
        if self.trainer.training:
            batch["anchor"] += 100 * self.rng.rand()
        return batch


def test_samples_pass_the_batch_hooks_of_the_data_module_as_in_validation(tmp_path):
    losses = []
    for callbacks in ([], [CheckpointVisualization(3)]):
        seed_everything(1, verbose=False)
        module, data = AutoEncoder(), Data()
        run = trainer(tmp_path / str(len(callbacks)), *callbacks)
        run.fit(module, data)
        losses.append(module.losses)
    assert losses[0] == losses[1]
    assert data.stages.count("validate") == 3
    assert data.stages.count("train") == 9
    chosen = data.dataset.read[:3]
    for seen in module.seen:
        torch.testing.assert_close(seen, data.dataset.images[chosen] + 10)


def test_embedding_models_show_positives_and_nearest_neighbours(tmp_path, monkeypatch):
    drawn = []
    original = visualization.draw_blocks
    monkeypatch.setattr(visualization, "draw_blocks", lambda *args: drawn.append(original(*args)) or drawn[-1])
    fit(tmp_path, CheckpointVisualization(4), module=Encoder(), max_epochs=1)
    assert pictures(tmp_path) == EPOCHS[:1]
    assert drawn[0].get_suptitle().startswith("epoch 0, step 3   nearest neighbours: the own positive is the first for")
    assert [axes.get_title().split("\n")[0] for axes in drawn[0].axes[:2]] == ["anchor 1", "positive"]
    assert len(drawn[0].axes) == 4 * 5


def test_a_failing_picture_warns_and_training_goes_on(tmp_path):
    class Failing(AutoEncoder):
        def forward(self, x):
            if not self.training:
                raise RuntimeError("out of paint")
            return super().forward(x)

    with pytest.warns(UserWarning, match=r"no picture of the checkpoint .*ckpt: RuntimeError: out of paint\nTraceback"):
        module, run = fit(tmp_path, CheckpointVisualization(), module=Failing())
    assert len(module.losses) == 9
    assert module.training
    assert run.state.finished
    assert pictures(tmp_path) == []


def test_samples_that_cannot_be_read_warn_once_and_training_goes_on(tmp_path):
    class Stream:
        def __iter__(self):
            return iter(DataLoader(Cells(), batch_size=4))

    with pytest.warns(UserWarning, match="no pictures at checkpoints: TypeError: Stream has no dataset") as record:
        module, _ = fit(tmp_path, CheckpointVisualization(), loader=Stream())
    assert len([warning for warning in record if "pictures" in str(warning.message)]) == 1
    assert len(module.losses) == 9


def test_a_model_divided_among_processes_is_not_run_by_one_of_them():
    run = SimpleNamespace(is_global_zero=True, fast_dev_run=False, world_size=2, strategy=SimpleNamespace())
    with pytest.warns(UserWarning, match="SimpleNamespace divides the model among processes"):
        CheckpointVisualization().on_train_start(run, None)
    run.is_global_zero = False
    CheckpointVisualization().on_train_start(run, None)  # the other processes do nothing, and wait for nothing


def test_the_trainer_is_as_before_after_a_run_even_after_an_interrupted_one(tmp_path, capsys):
    class Interrupt(Callback):
        done = False

        def on_train_batch_end(self, *args):
            if not self.done:
                self.done = True
                raise RuntimeError("interrupted")

    seed_everything(1, verbose=False)
    run = trainer(tmp_path, CheckpointVisualization(2), CheckpointVisualization(3), Interrupt(), max_epochs=1)
    module = AutoEncoder()
    with pytest.raises(RuntimeError, match="interrupted"):
        run.fit(module, DataLoader(Cells(), batch_size=4))
    run.fit(module, DataLoader(Cells(), batch_size=4))
    assert capsys.readouterr().out.count("[VISUALIZATION]") == 2  # of two callbacks
    printed = len(pictures(tmp_path))
    run.save_checkpoint(tmp_path / "later" / "x.ckpt")
    assert len(pictures(tmp_path)) == printed


def test_loggers_that_take_images_get_the_picture(tmp_path, monkeypatch):
    pytest.importorskip("tensorboard")
    logger = TensorBoardLogger(tmp_path / "logs")
    images = []
    monkeypatch.setattr(logger.experiment, "add_image", lambda *args, **kwargs: images.append((args, kwargs)))
    fit(tmp_path / "run", CheckpointVisualization(1), logger=logger)
    assert [args[0] for args, _ in images] == ["reconstructions"] * 3
    assert [args[2] for args, _ in images] == [3, 6, 9]
    assert images[0][0][1].dtype == np.uint8
    assert images[0][0][1].shape[2] == 3
    assert images[0][1] == {"dataformats": "HWC"}


def test_a_failing_logger_does_not_take_the_picture_from_the_disk(tmp_path, monkeypatch):
    pytest.importorskip("tensorboard")
    logger = TensorBoardLogger(tmp_path / "logs")
    monkeypatch.setattr(logger.experiment, "add_image", lambda *args, **kwargs: 1 / 0)
    with pytest.warns(UserWarning, match="did not reach all loggers: ZeroDivisionError"):
        fit(tmp_path / "run", CheckpointVisualization(1), logger=logger)
    assert pictures(tmp_path) == EPOCHS


@pytest.mark.parametrize(("options", "name"), [({"num_samples": 0}, "num_samples"), ({"seed": -1}, "seed")])
def test_bad_options_are_refused(options, name):
    with pytest.raises(ValueError, match=name):
        CheckpointVisualization(**options)


def test_what_pictures_need_is_missed_before_training(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r"pip install 'viscy-utils\[plot\]'"):
        fit(tmp_path, CheckpointVisualization(1))
