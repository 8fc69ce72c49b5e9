"""Figures of held-out cells while training: what is logged, that training is the same, the warning of a collapse."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import nn
from torch.utils.data import DataLoader, Dataset

from viscy_utils.callbacks import OnlineEvaluation

pytest.importorskip("sklearn")
pytestmark = [
    pytest.mark.filterwarnings("ignore:The '.*_dataloader' does not have many workers"),
    pytest.mark.filterwarnings("ignore:The number of training batches"),
]


class Cells(Dataset):
    """Whole batches of cells in one of two states, of two experiments; they say which rows they are of."""

    def __init__(self, n_batches=8, size=16):
        rng = np.random.default_rng(0)
        self.lineage = np.arange(n_batches * size) // 4
        self.state = rng.integers(2, size=len(self.lineage))[self.lineage]
        self.images = rng.normal(size=(len(self.lineage), 6)).astype(np.float32)
        self.images[:, 0] += 6 * self.state
        self.rows = np.split(np.arange(len(self.lineage)), n_batches)

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, number):
        rows = self.rows[number]
        images = torch.from_numpy(self.images[rows])
        return {"anchor": images, "positive": images + 0.1, "observation": torch.from_numpy(rows)}

    def records(self, rows):
        return [
            {"experiment": f"day {row % 2}", "fov_name": "A/1/0", "track_id": row, "lineage_id": self.lineage[row],
             "condition": ["mock", "infected"][self.state[row]]}
            for row in rows
        ]  # fmt: skip


class Module(LightningModule):
    """An encoder that draws in training and, like an autoencoder, in prediction."""

    def __init__(self, scale=1.0):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(6, 6), nn.Dropout(0.5))
        nn.init.eye_(self.net[0].weight)
        self.scale = scale

    def training_step(self, batch, batch_idx):
        return self.net(batch["anchor"]).square().mean() + torch.rand(1).mean() * self.net[0].bias.sum()

    def validation_step(self, batch, batch_idx):
        return self.net(batch["anchor"]).mean()

    def predict_step(self, batch, batch_idx):
        features = self.net(batch["anchor"]) * self.scale + 3
        return {"features": features, "projections": features + 0 * torch.rand_like(features), "index": batch["index"]}

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=1e-3)


class Steady(Module):
    """A module whose steps depend on its weights alone, so that loaders need not go on where they stopped."""

    def __init__(self):
        super().__init__()
        nn.init.zeros_(self.net[0].bias)

    def training_step(self, batch, batch_idx):
        return self.net[0].weight.square().mean()


def _fit(path, callbacks, module=None, dataset=None, ckpt_path=None, **options):
    torch.manual_seed(0)
    module = module or Module()
    defaults = {"max_epochs": 2, "accelerator": "cpu", "enable_progress_bar": False, "enable_model_summary": False}
    defaults |= {"enable_checkpointing": False, "default_root_dir": path, "logger": False}
    trainer = Trainer(callbacks=callbacks, **(defaults | options))
    loaders = [DataLoader(dataset or Cells(), batch_size=None) for _ in range(2)]
    trainer.fit(module, *loaders, ckpt_path=ckpt_path)
    return trainer, module


def test_figures_of_all_held_out_cells_are_logged(tmp_path):
    trainer, _ = _fit(tmp_path, [OnlineEvaluation(k=5)])
    logged = {name.removeprefix("online/"): float(value) for name, value in trainer.callback_metrics.items()}
    assert set(logged) == {"knn_accuracy", "knn_chance", "ilisi", "effective_rank", "alignment", "uniformity"}
    assert logged["knn_accuracy"] > 0.9 > 0.7 > logged["knn_chance"]
    assert logged["ilisi"] > 0.6
    assert 3 < logged["effective_rank"] <= 6
    assert 0 < logged["alignment"] < 0.1
    assert logged["uniformity"] < 0


def test_training_is_the_same_with_and_without(tmp_path):
    (_, plain), (_, watched) = _fit(tmp_path, []), _fit(tmp_path, [OnlineEvaluation(k=5)])
    for name, value in plain.state_dict().items():
        assert torch.equal(value, watched.state_dict()[name]), name


def test_some_batches_all_over_the_validation_stand_for_many(tmp_path):
    """With the first batches alone the last lineages would never be seen."""
    seen = []

    class Watched(Cells):
        def records(self, rows):
            seen.extend(rows)
            return super().records(rows)

    _fit(tmp_path, [OnlineEvaluation(k=3, max_cells=60)], dataset=Watched(), max_epochs=1)
    assert len(seen) == 64
    assert len(set(np.array(seen) // 16)) == 4
    assert min(seen) < 40
    assert max(seen) > 100


def test_a_collapse_is_said_in_words(tmp_path):
    with pytest.warns(UserWarning, match=r"epoch 0: the embedding has collapsed. 128 held-out cells use 1\.0 of 6"):
        _fit(tmp_path, [OnlineEvaluation(k=5)], Module(scale=1e-9), max_epochs=1)


def test_batches_that_name_no_cells_give_figures_without_labels(tmp_path):
    class Nameless(Cells):
        def __getitem__(self, number):
            batch = super().__getitem__(number)
            return {key: batch[key] for key in ("anchor", "positive")}

    with pytest.warns(UserWarning, match="do not say which cells they are of"):
        trainer, _ = _fit(tmp_path, [OnlineEvaluation(k=5)], dataset=Nameless())
    assert {"online/effective_rank", "online/alignment"} <= set(trainer.callback_metrics)
    assert "online/knn_accuracy" not in trainer.callback_metrics


def test_a_label_that_is_not_there_is_named_with_those_that_are(tmp_path):
    with pytest.warns(UserWarning, match="no column 'stage' among experiment, fov_name"):
        trainer, _ = _fit(tmp_path, [OnlineEvaluation(label="stage", k=5)], max_epochs=1)
    assert "online/ilisi" in trainer.callback_metrics


def test_other_epochs_are_left_out(tmp_path):
    asked = []

    class Watched(Cells):
        def records(self, rows):
            asked.append(len(rows))
            return super().records(rows)

    _fit(tmp_path, [OnlineEvaluation(k=5, every_n_epochs=2)], dataset=Watched(), max_epochs=2)
    assert sum(asked) == 128


@pytest.mark.parametrize("option", ["k", "max_cells", "every_n_epochs"])
def test_options_out_of_range_are_refused(option):
    with pytest.raises(ValueError, match=f"{option}: found 0"):
        OnlineEvaluation(**{option: 0})


class Interrupt(Callback):
    """Save in the middle of the second epoch, after its first validation, and stop there."""

    def __init__(self, path):
        self.path = path

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if trainer.current_epoch == 1 and batch_idx == 4:
            trainer.save_checkpoint(self.path)
            trainer.should_stop = True


def _logged(trainer):
    return {name: float(value) for name, value in trainer.callback_metrics.items() if name.startswith("online/")}


@pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint that ended before the epoch")
def test_a_run_that_goes_on_in_the_middle_of_an_epoch_logs_the_same_figures(tmp_path):
    path = tmp_path / "middle.ckpt"
    whole, module = _fit(tmp_path, [OnlineEvaluation(k=5)], Steady())
    _fit(tmp_path, [OnlineEvaluation(k=5), Interrupt(path)], Steady())
    assert torch.load(path, weights_only=False)["global_step"] == 13
    resumed, again = _fit(tmp_path, [OnlineEvaluation(k=5)], Steady(), ckpt_path=path)
    assert resumed.global_step == whole.global_step == 16
    assert _logged(resumed) == _logged(whole)
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in module.state_dict().items())


class Shrinking(Steady):
    """Learns nothing, collapses in the second epoch, and recovers; keeps what each process has logged."""

    def __init__(self, path=None):
        super().__init__()
        self.path, self.logged = path, []

    def on_validation_epoch_start(self):
        self.scale = 1e-9 if self.trainer.current_epoch == 1 else 1.0

    def on_fit_end(self):
        if self.path is not None:
            self.path.with_name(f"rank {self.global_rank}.json").write_text(json.dumps(self.logged))

    def on_train_epoch_end(self):
        self.logged.append(_logged(self.trainer))

    def training_step(self, batch, batch_idx):
        return 0 * self.net(batch["anchor"]).mean()


TWO_PROCESSES = """
import sys
from pathlib import Path
from test_online_evaluation import Cells, OnlineEvaluation, Shrinking, _fit

options = {"devices": 2, "strategy": "ddp_fork", "max_epochs": 3}
_fit(sys.argv[1], [OnlineEvaluation(k=5)], Shrinking(Path(sys.argv[1], "module")), Cells(7), **options)
"""


@pytest.mark.slow
def test_two_processes_log_the_figures_of_one(tmp_path):
    """Also where the embedding collapses: the first process warns, and none waits for ever.

    Of 7 batches each process has 4: one comes twice, so that neither waits for the other.
    """
    paths = [str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    command = [sys.executable, "-c", TWO_PROCESSES, str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, env=environment)
    assert result.returncode == 0, result.stderr
    assert result.stderr.count("has collapsed. 112 held-out cells") == 1
    with pytest.warns(UserWarning, match=r"epoch 1: the embedding has collapsed. 112 held-out cells"):
        _, alone = _fit(tmp_path, [OnlineEvaluation(k=5)], Shrinking(), Cells(7), max_epochs=3)
    assert [len(figures) for figures in alone.logged] == [6, 6, 6]
    for rank in range(2):
        assert json.loads((tmp_path / f"rank {rank}.json").read_text()) == alone.logged
