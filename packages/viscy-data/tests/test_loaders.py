import os
import pickle

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from torch.utils.data import Dataset

from viscy_data.distributed import SequentialBatchSampler
from viscy_data.loaders import BatchLoader, identity
from viscy_data.sampler import FlexibleBatchSampler

pd = pytest.importorskip("pandas")

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:.*`isinstance.treespec, LeafSpec.` is deprecated"),
    pytest.mark.filterwarnings("ignore:.*is smaller than the logging interval"),
]

N_ANCHORS = 96


class Positions(Dataset):
    """A batch is the positions that were asked for."""

    def __len__(self):
        return N_ANCHORS

    def __getitem__(self, positions):
        return {"anchor": torch.tensor(positions), "process": os.getpid()}


class Broken(Positions):
    def __getitem__(self, positions):
        raise OSError("chunk 7 cannot be read")


class Recorder(pl.LightningModule):
    """Remember the batches of each epoch."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen, self.validated = [], []

    def training_step(self, batch, batch_idx):
        self.seen.append((self.current_epoch, batch["anchor"].tolist()))
        return self.weight * batch["anchor"].float().mean()

    def validation_step(self, batch, batch_idx):
        self.validated.append(batch["anchor"].tolist())

    def predict_step(self, batch, batch_idx):
        return batch["anchor"]

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Bare(pl.LightningDataModule):
    """Lightning alone restores the training loader."""

    def train_dataloader(self):
        return BatchLoader(Positions(), sampler=make_sampler())

    def val_dataloader(self):
        return BatchLoader(Positions(), sampler=SequentialBatchSampler(N_ANCHORS, 40))

    predict_dataloader = val_dataloader


def make_sampler(**options):
    table = pd.DataFrame({"experiment": ["a", "b"] * (N_ANCHORS // 2), "condition": ["x", "x", "y", "y"] * 24})
    return FlexibleBatchSampler(table, 16, **options)


def expected(epochs, first=0):
    sampler = make_sampler()
    return [(epoch, sampler.batch(n, epoch).tolist()) for epoch in epochs for n in range(6)][first:]


def make_trainer(path, **options):
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    return pl.Trainer(default_root_dir=path, **{"max_epochs": 3, **quiet, **options})


def test_every_epoch_under_lightning_brings_new_batches(tmp_path):
    model = Recorder()
    make_trainer(tmp_path).fit(model, datamodule=Bare())
    assert model.seen == expected(range(3))
    assert len({str(batch) for _, batch in model.seen}) == 18
    in_order = [list(range(0, 40)), list(range(40, 80)), list(range(80, 96))]
    assert model.validated == in_order[:2] + 3 * in_order


@pytest.mark.parametrize("as_module", [True, False])
def test_prediction_makes_the_loader_again_and_keeps_the_batches(tmp_path, as_module):
    source = {"datamodule": Bare()} if as_module else {"dataloaders": Bare().predict_dataloader()}
    parts = make_trainer(tmp_path).predict(Recorder(), **source)
    assert torch.cat(parts).tolist() == list(range(N_ANCHORS))


class Save(pl.Callback):
    def __init__(self, path, after):
        self.path, self.after = path, after

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        if len(module.seen) == self.after:
            trainer.save_checkpoint(self.path)
            raise SystemExit(1)


@pytest.mark.parametrize("killed_after", [1, 6, 8, 17])
def test_a_killed_run_goes_on_with_the_remaining_batches(tmp_path, killed_after):
    path = tmp_path / "killed.ckpt"
    trainer = make_trainer(tmp_path, enable_checkpointing=False, callbacks=[Save(path, killed_after)])
    with pytest.raises(SystemExit):
        trainer.fit(Recorder(), datamodule=Bare())
    resumed = Recorder()
    make_trainer(tmp_path, enable_checkpointing=False).fit(resumed, datamodule=Bare(), ckpt_path=path)
    assert resumed.seen == expected(range(3), killed_after)


@pytest.mark.parametrize("num_workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_the_sequence_and_the_global_generator_do_not_depend_on_workers(num_workers):
    sampler = make_sampler()
    torch.manual_seed(3)
    before = torch.get_rng_state()
    loader = BatchLoader(Positions(), sampler=sampler, num_workers=num_workers)
    seen, processes = [], set()
    for epoch in range(2):
        sampler.set_epoch(epoch)
        for batch in loader:
            seen.append((epoch, batch["anchor"].tolist()))
            processes.add(batch["process"])
    assert seen == expected(range(2))
    assert torch.equal(before, torch.get_rng_state())
    assert (os.getpid() in processes) == (num_workers == 0)
    assert len(loader) == 6


def test_an_error_in_the_reading_thread_reaches_the_consumer():
    with pytest.raises(OSError, match="chunk 7 cannot be read"):
        list(BatchLoader(Broken(), sampler=make_sampler()))


def test_leaving_early_stops_the_reading_thread():
    loader = BatchLoader(Positions(), sampler=make_sampler(), buffer_size=2)
    for _ in range(3):
        iterator = iter(loader)
        next(iterator)
        iterator.close()
    assert loader.state_dict()["done"] == 1


def test_the_state_counts_what_was_handed_out():
    loader = BatchLoader(Positions(), sampler=make_sampler(), buffer_size=4)
    iterator = iter(loader)
    for _ in range(2):
        next(iterator)
    state = loader.state_dict()
    assert state == {"epoch": 0, "batches": 6, "done": 2, "ranks": 1}
    iterator.close()
    resumed = BatchLoader(Positions(), sampler=make_sampler())
    resumed.load_state_dict(state)
    assert [batch["anchor"].tolist() for batch in resumed] == [batch for _, batch in expected([0], 2)]
    assert len(resumed) == 6
    resumed.sampler.set_epoch(1)
    assert len(list(resumed)) == 6


@pytest.mark.parametrize(("before", "after"), [(2, 1), (1, 2), (2, 3), (3, 2)])
def test_other_ranks_share_what_is_left_of_an_epoch(before, after):
    def loaders(size):
        return [BatchLoader(Positions(), sampler=make_sampler(num_replicas=size, rank=rank)) for rank in range(size)]

    def anchors(loader):
        return [batch["anchor"].tolist() for batch in loader]

    first = loaders(before)
    for loader in first:
        loader.sampler.set_epoch(3)
        next(iter(loader))
    (state,) = {tuple(sorted(loader.state_dict().items())) for loader in first}
    assert dict(state) == {"epoch": 3, "batches": 6, "done": before, "ranks": before}
    second = loaders(after)
    for loader in second:
        loader.load_state_dict(dict(state))
        assert loader.state_dict() == dict(state) | {"ranks": after}
    turns = list(zip(*map(anchors, second), strict=True))
    whole = [batch for _, batch in expected([3])]
    assert [batch for turn in turns for batch in turn] == (whole[before:] + whole)[: len(turns) * after]
    assert (len(turns) - 1) * after < 6 - before
    for loader in second:
        assert loader.state_dict() == {"epoch": 3, "batches": 6, "done": 6, "ranks": after}
        loader.sampler.set_epoch(4)
        assert loader.state_dict()["done"] == 0
        assert len(anchors(loader)) == len(loader)


def test_the_state_of_a_version_that_counted_the_batches_of_a_rank_is_read():
    loader = BatchLoader(Positions(), sampler=make_sampler(num_replicas=2, rank=1))
    loader.load_state_dict({"epoch": 1, "batches": 2})
    assert [batch["anchor"].tolist() for batch in loader] == [make_sampler().batch(5, 1).tolist()]


def test_a_sampler_that_cannot_resume_says_so():
    loader = BatchLoader(Positions(), sampler=SequentialBatchSampler(N_ANCHORS, 16))
    with pytest.raises(ValueError, match="SequentialBatchSampler cannot begin in the middle"):
        loader.load_state_dict({"epoch": 0, "batches": 2})


@pytest.mark.parametrize("sampler", [None, torch.utils.data.SequentialSampler(range(4))])
def test_samplers_of_single_positions_are_refused(sampler):
    with pytest.raises(ValueError, match="lists of positions"):
        BatchLoader(Positions(), sampler=sampler)


def test_collation_is_refused():
    with pytest.raises(ValueError, match="batch_size cannot be set"):
        BatchLoader(Positions(), sampler=make_sampler(), batch_size=4)


def test_identity_pickles():
    assert pickle.loads(pickle.dumps(identity)) is identity
    assert identity(5) == 5


def test_ranks_get_disjoint_batches_of_equal_number():
    loaders = [BatchLoader(Positions(), sampler=make_sampler(num_replicas=2, rank=rank)) for rank in range(2)]
    assert [len(loader) for loader in loaders] == [3, 3]
    drawn = [np.concatenate([batch["anchor"].numpy() for batch in loader]) for loader in loaders]
    assert sorted(np.concatenate(drawn)) == list(range(N_ANCHORS))
