"""The learning rate over the steps of a run."""

from __future__ import annotations

import math

import pytest
import torch

from viscy_data.batches.stages import StagedDataModule
from viscy_data.testing.training import StopAfter, quiet_trainer
from viscy_utils.training.module import TrainingModule
from viscy_utils.training.schedule import warmup_cosine


def test_the_rate_rises_in_a_line_and_falls_along_half_a_cosine():
    factors = [warmup_cosine(step, 4, 12) for step in range(13)]
    assert factors[:4] == [0.25, 0.5, 0.75, 1.0]
    for step in range(4, 13):
        assert factors[step] == pytest.approx(math.cos(math.pi * (step - 4) / 16) ** 2)
    assert warmup_cosine(100, 4, 12) == pytest.approx(0, abs=1e-12)


def test_the_rise_may_begin_above_zero():
    assert [warmup_cosine(step, 2, 8, start=0.5) for step in range(3)] == [0.75, 1.0, 1.0]
    assert warmup_cosine(0, 0, 8, start=0.5) == 1.0


class Numbers(torch.utils.data.Dataset):
    def __len__(self):
        return 32

    def __getitem__(self, positions):
        return {"source": torch.tensor(positions, dtype=torch.float32)[:, None]}

    def source_digests(self):
        return []


class Batches(StagedDataModule):
    """Eight batches an epoch."""

    def __init__(self):
        super().__init__(batch_size=4)

    def fit_datasets(self):
        return Numbers(), None


class Rates(TrainingModule):
    """Keeps the rate of each step, by its place: epochs and the share of the present one that is done."""

    def __init__(self, warmup_epochs):
        super().__init__(1.0, "WarmupCosine", warmup_epochs, (1, 1))
        self.layer, self.by_place, self.by_step = torch.nn.Linear(1, 1), {}, {}

    def training_step(self, batch, batch_idx):
        rate = self.optimizers().param_groups[0]["lr"]
        self.by_place[self.current_epoch + batch_idx / self.trainer.num_training_batches] = rate
        self.by_step[self.global_step] = rate
        return self.layer(batch["source"]).mean()

    def validation_step(self, batch, batch_idx):
        pass


def trained(warmup_epochs, ranks=1, stop=(), ckpt_path=None, **length):
    """Train as the first of so many ranks."""
    model, trainer = Rates(warmup_epochs), quiet_trainer(callbacks=list(stop), limit_val_batches=0, **length)
    trainer.strategy.world_size = ranks
    trainer.fit(model, Batches(), ckpt_path=ckpt_path, weights_only=None if ckpt_path is None else True)
    return model


@pytest.mark.filterwarnings("ignore:.*does not have many workers", "ignore:.*is smaller than the logging interval")
@pytest.mark.parametrize(("before", "after"), [(1, 2), (2, 1), (2, 4)])
def test_with_another_number_of_ranks_the_rate_is_that_of_the_same_share_of_the_training(tmp_path, before, after):
    path = tmp_path / "last.ckpt"
    whole = trained(1, before, max_epochs=3)
    with pytest.raises(SystemExit):
        trained(1, before, [StopAfter(path, 12 // before)], max_epochs=3)
    resumed = trained(1, after, ckpt_path=path, max_epochs=3)
    n_left = 12 // after
    assert sorted(resumed.by_place) == [1.5 + 1.5 * step / n_left for step in range(n_left)]
    shared = whole.by_place.keys() & resumed.by_place.keys()
    assert len(shared) >= 3
    for place in shared:
        assert resumed.by_place[place] == pytest.approx(whole.by_place[place])
        assert resumed.by_place[place] == pytest.approx(math.cos(math.pi * (place - 1) / 4) ** 2)


@pytest.mark.filterwarnings("ignore:.*does not have many workers", "ignore:.*is smaller than the logging interval")
def test_where_steps_end_the_run_they_are_counted_whatever_the_number_of_ranks(tmp_path):
    path = tmp_path / "last.ckpt"
    length = {"max_epochs": -1, "max_steps": 24}
    whole = trained(0, **length)
    with pytest.raises(SystemExit):
        trained(0, 1, [StopAfter(path, 12)], **length)
    resumed = trained(0, 2, ckpt_path=path, **length)
    assert sorted(resumed.by_step) == list(range(12, 24))
    for step, rate in resumed.by_step.items():
        assert rate == pytest.approx(whole.by_step[step])
