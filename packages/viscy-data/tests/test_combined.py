from __future__ import annotations

import json
from typing import NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lightning.pytorch import LightningDataModule, LightningModule
from torch.utils.data import DataLoader, Dataset, TensorDataset

from viscy_data import (
    BatchedConcatDataModule,
    BatchedConcatDataset,
    CachedConcatDataModule,
    CombinedDataModule,
    CombineMode,
    ConcatDataModule,
    InputError,
)
from viscy_data.batches import StagedDataModule
from viscy_data.combined.concat_dataset import merge_batches
from viscy_data.testing.training import StopAfter, quiet_trainer

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:.*is smaller than the logging interval"),
    pytest.mark.filterwarnings("ignore:predict returned None"),
]


class Values(Dataset):
    """Whole numbers from ``first`` on, in batches."""

    def __init__(self, n: int, first: int) -> None:
        self.n, self.first = n, first

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, positions):
        return {"source": self.first + torch.tensor(positions, dtype=torch.float64)}

    def source_digests(self):
        return [{"store": str(self.first), "observations": self.n}]


class Numbers(StagedDataModule):
    """Batches of numbers, marked on the device by their module and by whether they were augmented."""

    def __init__(
        self, n: int = 12, first: int = 0, mark: float = 0.0, n_val: int = 3, batch_size: int = 4, num_workers: int = 0
    ) -> None:
        super().__init__(batch_size=batch_size, num_workers=num_workers)
        self.n, self.first, self.mark, self.n_val = n, first, mark, n_val

    def fit_datasets(self):
        val = Values(self.n_val, self.first + 500) if self.n_val else None
        return Values(self.n, self.first), val

    def prediction_dataset(self):
        return Values(self.n, self.first)

    def make_pipeline(self):
        return lambda batch, training, augment: {"source": batch["source"] + self.mark + 0.5 * augment}


class Plain(LightningDataModule):
    """What others write: a loader of tensors."""

    def __init__(self, n: int = 6) -> None:
        super().__init__()
        self.train_dataset = self.val_dataset = TensorDataset(torch.arange(n, dtype=torch.float64))

    def train_dataloader(self):
        return DataLoader(self.train_dataset, batch_size=2)

    def val_dataloader(self):
        return []


class Recorder(LightningModule):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen = {"train": [], "val": [], "predict": []}

    def training_step(self, batch, batch_idx):
        self.seen["train"].append(values(batch))
        return self.weight * 1.0

    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        self.seen["val"].append((dataloader_idx, values(batch)))

    def predict_step(self, batch, batch_idx, dataloader_idx=0):
        self.seen["predict"].append((dataloader_idx, values(batch)))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def values(batch):
    """The numbers of a batch, by member where there are several parts."""
    if batch is None:
        return None
    return [values(part) for part in batch] if isinstance(batch, list) else batch["source"].tolist()


def fit(data, **options) -> dict[str, list]:
    model = Recorder()
    quiet_trainer(**options).fit(model, data)
    return model.seen


def flat(batches) -> list[float]:
    return [value for batch in batches for value in batch]


# One batch of several


class Where(NamedTuple):
    image: list[str]
    t: torch.Tensor


def test_batches_are_merged_entry_by_entry():
    parts = [
        {
            "x": torch.full((n, 2), float(n)),
            "at": Where(["a"] * n, torch.arange(n)),
            "deep": {"s": [n]},
            "n": np.arange(n),
        }
        for n in (1, 3)
    ]
    merged = merge_batches([part | {"kind": "images", "none": None} for part in parts])
    assert merged["x"][:, 0].tolist() == [1, 3, 3, 3]
    assert merged["at"].image == ["a"] * 4
    assert merged["at"].t.tolist() == merged["n"].tolist() == [0, 0, 1, 2]
    assert (merged["deep"], merged["kind"], merged["none"]) == ({"s": [1, 3]}, "images", None)
    merged = merge_batches([Where(("a", "b"), torch.zeros(2)), Where(("c",), torch.zeros(1))])
    assert (merged.image, len(merged.t)) == (("a", "b", "c"), 3)
    images, labels = merge_batches([(torch.zeros(1), torch.ones(1)), (torch.zeros(2), torch.ones(2))])
    assert (len(images), labels.tolist()) == (3, [1, 1, 1])


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"x": torch.zeros(1, 3)}, r"batch, x: samples of sizes \[\(2,\), \(3,\)\] in one batch"),
        ({"x": [1]}, "batch, x: Tensor, list in one batch"),
        ({"x": torch.zeros(1, 2), "kind": "labels"}, "kind: 'images', 'labels' in one batch"),
    ],
)
def test_what_does_not_fit_together_is_named(other, message):
    with pytest.raises(ValueError, match=message):
        merge_batches([{"x": torch.zeros(1, 2), "kind": "images"}, {"kind": "images"} | other])


def test_entries_that_not_all_have_are_left_out_with_a_warning():
    with pytest.warns(UserWarning, match="batch: a, b left out, which not all members have"):
        assert merge_batches([{"a": [1], "c": [2]}, {"b": [1], "c": [3]}]) == {"c": [2, 3]}


@settings(deadline=None, max_examples=50)
@given(sizes=st.lists(st.integers(0, 5), min_size=1, max_size=4), data=st.data())
def test_micro_batches_hold_what_was_asked_for(sizes, data):
    joined = BatchedConcatDataset([Values(n, 100 * k) for k, n in enumerate(sizes)])
    everything = [100 * k + i for k, n in enumerate(sizes) for i in range(n)]
    assert len(joined) == len(everything)
    asked = data.draw(st.lists(st.integers(-len(joined), len(joined) - 1)) if everything else st.just([]))
    parts = joined[asked]
    owners = [part["_dataset_idx"] for part in parts]
    assert owners == sorted(set(owners))
    for part in parts:
        own = part["_dataset_idx"]
        assert part["source"].tolist() == [everything[i] for i in asked if everything[i] // 100 == own]
    with pytest.raises(ValueError, match=f"there are {len(joined)} items"):
        joined[[len(joined)]]


class Patches(Dataset):
    """Two patches of each item, as transforms of others make them."""

    def __len__(self):
        return 4

    def __getitem__(self, position):
        return [{"x": torch.tensor(10 * position + patch)} for patch in range(2)]


def test_patches_of_others_are_collated():
    (found,) = BatchedConcatDataset([Patches()])[[3, 1]]
    assert found["x"].tolist() == [30, 31, 10, 11]


def test_datasets_of_others_are_collated():
    class Listing(TensorDataset):
        def __getitems__(self, positions):
            return [self[i] for i in positions]

    joined = BatchedConcatDataset([TensorDataset(torch.arange(3)), Listing(torch.arange(10, 13))])
    first, second = joined[[4, 0, 2, 3]]
    assert first["batch"][0].tolist() == [0, 2]
    assert second["batch"][0].tolist() == [11, 10]
    with pytest.raises(NotImplementedError, match="not for single ones"):
        joined[0]


# Concatenation


@pytest.mark.parametrize("cls", [ConcatDataModule, BatchedConcatDataModule, CachedConcatDataModule])
def test_every_sample_trains_once_an_epoch_prepared_by_its_own_module(cls):
    data = cls([Numbers(12, 0, mark=1000), Numbers(8, 100, mark=2000, n_val=5)])
    seen = fit(data)
    expected = [1000.5 + i for i in range(12)] + [2100.5 + i for i in range(8)]
    epochs = seen["train"][:5], seen["train"][5:]
    assert [len(batch) for batch in seen["train"]] == [4] * 10
    assert [sorted(flat(epoch)) for epoch in epochs] == [expected] * 2
    assert epochs[0] != epochs[1]
    assert any(min(batch) < 2000 < max(batch) for batch in epochs[0])
    validated = [1500.0 + i for i in range(3)] + [2600.0 + i for i in range(5)]
    assert flat(batch for _, batch in seen["val"][:2]) == validated


@pytest.mark.filterwarnings("ignore:Total length of `list` across ranks is zero")
def test_a_member_without_validation_does_not_validate():
    seen = fit(ConcatDataModule([Numbers(n_val=0), Numbers(first=100, mark=2000, n_val=2)]), max_epochs=1)
    assert seen["val"] == [(0, [2600.0, 2601.0])]
    assert fit(ConcatDataModule([Numbers(n_val=0)]), max_epochs=1)["val"] == []


def test_validation_needs_no_training_set_up():
    model, data = Recorder(), ConcatDataModule([Numbers(), Numbers(first=100)])
    quiet_trainer().validate(model, data, verbose=False)
    assert flat(batch for _, batch in model.seen["val"]) == [500.0, 501.0, 502.0, 600.0, 601.0, 602.0]
    with pytest.raises(NotImplementedError, match="no stage 'predict'"):
        data.setup("predict")


def test_cached_members_keep_to_their_rank(monkeypatch):
    parts = []
    for rank in range(2):
        data = CachedConcatDataModule([Numbers(12), Numbers(8, 100)])
        data.trainer = quiet_trainer()
        with monkeypatch.context() as patch:
            patch.setattr(type(data.trainer), "world_size", 2)
            patch.setattr(type(data.trainer), "global_rank", rank)
            data.setup("fit")
            loader = data.train_dataloader()
        epochs = []
        for epoch in range(20):
            loader.sampler.set_epoch(epoch)
            epochs.append(flat(loader.sampler))
        assert len({len(epoch) for epoch in epochs}) == 1
        assert len(set(map(tuple, epochs))) == 20
        parts.append(set(flat(epochs)))
    assert parts == [set(range(10)), set(range(10, 20))]


@pytest.mark.parametrize(
    ("members", "message"),
    [
        (lambda: [Numbers(batch_size=4), Numbers(batch_size=2)], "field batch_size\n.*Numbers 4, Numbers 2"),
        (lambda: [Numbers(num_workers=1), Numbers()], "field num_workers\n.*Numbers 1, Numbers 0"),
        (lambda: [Plain(), Numbers()], "field batch_size\n.*Plain None, Numbers 4"),
        (lambda: [], "field data_modules\n.*none"),
        (lambda: ["Numbers"], "field data_modules\n.*str"),
    ],
)
def test_members_that_do_not_go_together_are_refused(members, message):
    with pytest.raises(InputError, match=message):
        ConcatDataModule(members())


def test_members_have_to_have_a_training_set():
    class Empty(LightningDataModule):
        batch_size, num_workers = 4, 0

    with pytest.raises(InputError, match="Empty has no train_dataset"):
        ConcatDataModule([Empty()]).setup("fit")


# Side by side


def test_every_member_has_its_part_of_a_batch_and_short_ones_begin_again_in_a_new_order():
    data = CombinedDataModule([Numbers(40, 0, mark=1000), Numbers(6, 100, mark=2000, batch_size=2)])
    seen = fit(data)
    assert len(seen["train"]) == 20
    for epoch in (seen["train"][:10], seen["train"][10:]):
        assert sorted(flat(long for long, _ in epoch)) == [1000.5 + i for i in range(40)]
        short = [part for _, part in epoch]
        cycles = [short[:3], short[3:6], short[6:9]]
        assert [sorted(flat(cycle)) for cycle in cycles] == [[2100.5 + i for i in range(6)]] * 3
        assert len({str(cycle) for cycle in cycles}) == 3
    assert seen["train"][:10] != seen["train"][10:]


@pytest.mark.parametrize("killed_after", [2, 9, 10, 13])
@pytest.mark.parametrize("mode", [CombineMode.MAX_SIZE_CYCLE, CombineMode.MIN_SIZE, CombineMode.MAX_SIZE])
def test_a_resumed_run_goes_on_with_all_parts(tmp_path, killed_after, mode):
    def data():
        return CombinedDataModule([Numbers(40), Numbers(7 if mode != CombineMode.MIN_SIZE else 38, 100)], mode)

    whole = fit(data())["train"]
    if len(whole) <= killed_after:
        pytest.skip("the epochs are shorter")
    with pytest.raises(SystemExit):
        fit(data(), callbacks=[StopAfter(tmp_path / "killed.ckpt", killed_after)])
    model = Recorder()
    quiet_trainer().fit(model, data(), ckpt_path=tmp_path / "killed.ckpt", weights_only=True)
    assert model.seen["train"] == whole[killed_after:]


@pytest.mark.parametrize(
    ("mode", "n_batches", "n_of_the_short"), [("min_size", 3, 3), ("max_size", 9, 3), ("max_size_cycle", 9, 9)]
)
def test_modes_decide_how_long_an_epoch_is(mode, n_batches, n_of_the_short):
    data = CombinedDataModule([Numbers(9, batch_size=1), Plain(6)], train_mode=CombineMode(mode))
    data.setup("fit")
    batches = [batch for batch, _, _ in data.train_dataloader()]
    assert len(batches) == n_batches
    assert sum(short is not None for _, short in batches) == n_of_the_short


@pytest.mark.parametrize("n_skipped", [0, 1, 5, 7, 14])
def test_an_interrupted_prediction_goes_on_after_what_is_predicted(n_skipped):
    def predicted(n):
        data = CombinedDataModule([Numbers(5), Numbers(0), Numbers(9, first=100)])
        data.setup("predict")
        data.skip_predicted(n)
        return [(owner, value) for batch, _, owner in data.predict_dataloader() for value in values(batch)]

    whole = predicted(0)
    assert [owner for owner, _ in whole] == [0] * 5 + [2] * 9
    assert predicted(n_skipped) == whole[n_skipped:]


def test_validation_and_prediction_go_through_the_members_in_turn():
    data = CombinedDataModule([Numbers(5, mark=1000), Numbers(n_val=0), Numbers(6, 100, mark=2000)])
    seen = fit(data, max_epochs=1)
    assert seen["val"] == [(0, [1500.0, 1501.0, 1502.0]), (1, [2600.0, 2601.0, 2602.0])]
    model = Recorder()
    quiet_trainer().predict(model, data, return_predictions=False)
    assert [number for number, _ in model.seen["predict"]] == [0, 0, 1, 1, 1, 2, 2]
    assert flat(batch for number, batch in model.seen["predict"] if number == 2) == [2100.0 + i for i in range(6)]


def test_validation_side_by_side():
    data = CombinedDataModule([Numbers(mark=1000), Numbers(first=100, mark=2000)], val_mode="min_size")
    assert fit(data, max_epochs=1)["val"] == [(0, [[1500.0, 1501.0, 1502.0], [2600.0, 2601.0, 2602.0]])]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"train_mode": CombineMode.SEQUENTIAL}, "field train_mode\n.*'sequential'\n.*min_size.*\n.*ConcatDataModule"),
        ({"val_mode": "longest"}, "field val_mode\n.*'longest'"),
        ({"predict_mode": CombineMode.MIN_SIZE}, "field predict_mode"),
    ],
)
def test_modes_that_cannot_be_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        CombinedDataModule([Numbers()], **options)


# Of both


@pytest.mark.parametrize("cls", [CombinedDataModule, ConcatDataModule])
def test_checkpoints_and_records_tell_of_the_members(tmp_path, cls):
    data = cls([Numbers(12), Numbers(8, 100)])
    model, trainer = Recorder(), quiet_trainer(max_epochs=1)
    trainer.fit(model, data)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    saved = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert [member["n"] for member in saved["datamodule_hyper_parameters"]["data_modules"]] == [12, 8]
    assert [state["n_anchors"] for state in saved[cls.__name__]["members"]] == [{"all": 12}, {"all": 8}]
    record = json.loads(json.dumps(data.data_record()))
    assert [member["settings"]["n"] for member in record["members"]] == [12, 8]
    assert record["members"][1]["sources"]["train"] == [{"store": "100", "observations": 8}]
