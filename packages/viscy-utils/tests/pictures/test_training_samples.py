"""Samples read beside a loader, and randomness that leaves no trace."""

from __future__ import annotations

import random
from functools import partial

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, SubsetRandomSampler, default_collate

from viscy_data.distributed import SequentialBatchSampler
from viscy_data.loaders import BatchLoader
from viscy_utils.pictures.log_images import log_image
from viscy_utils.pictures.training_samples import read_samples
from viscy_utils.randomness import fixed_randomness, generators_of


class Numbers(Dataset):
    def __init__(self, size=50):
        self.size, self.process_rng = size, random.Random(3)

    def __len__(self):
        return self.size

    def __getitem__(self, position):
        return position, self.process_rng.random() + torch.rand(()).item() + np.random.rand()  # noqa: NPY002


class Fetched(Numbers):
    def __getitems__(self, positions):
        return [(position, 0.0) for position in positions]

    def __getitem__(self, position):
        raise AssertionError("several are fetched at once")


class Whole(Numbers):
    def __getitem__(self, positions):
        return torch.tensor(positions)


class Stream(IterableDataset):
    def __init__(self):
        self.numbers = iter(range(20))

    def __iter__(self):
        return iter([next(self.numbers) for _ in range(10)])


def global_states():
    return random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()  # noqa: NPY002


def test_samples_are_different_the_same_for_a_seed_and_collated():
    loader = DataLoader(Numbers(), batch_size=4, shuffle=True)
    positions, values = read_samples(loader, 10, seed=1)
    assert len(set(positions.tolist())) == 10
    assert isinstance(values, torch.Tensor)
    again = read_samples(DataLoader(Numbers(), batch_size=2), 10, seed=1)
    assert torch.equal(positions, again[0])
    assert torch.equal(values, again[1])
    assert not torch.equal(positions, read_samples(loader, 10, seed=2)[0])
    assert sorted(read_samples(DataLoader(Numbers(3), batch_size=2), 10)[0].tolist()) == [0, 1, 2]


@pytest.mark.parametrize("n_workers", [0, 1])
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")  # torch forks its workers
def test_reading_leaves_no_trace(n_workers):
    generator = torch.Generator().manual_seed(0)
    options = {"num_workers": 1, "multiprocessing_context": "fork"} if n_workers else {}
    loader = DataLoader(Numbers(), batch_size=4, shuffle=True, generator=generator, **options)
    own = loader.dataset.process_rng
    before = global_states(), own.getstate(), generator.get_state().tolist()
    read_samples(loader, 10)
    assert before == (global_states(), own.getstate(), generator.get_state().tolist())


def test_datasets_that_fetch_several_items_at_once_are_asked_for_several():
    assert len(read_samples(DataLoader(Fetched(), batch_size=4), 5)[0]) == 5


def test_datasets_of_whole_batches_get_a_list_of_positions_and_their_loader_keeps_its_place():
    loader = BatchLoader(Whole(), sampler=SequentialBatchSampler(50, 4, pad=True))
    state = loader.state_dict()
    batch = read_samples(loader, 7)
    assert len(set(batch.tolist())) == 7
    assert loader.state_dict() == state
    assert next(iter(loader)).tolist() == [0, 1, 2, 3]
    single = DataLoader(Whole(), batch_size=None, shuffle=True)  # each position is a batch
    assert read_samples(single, 7).ndim == 0


def test_only_samples_that_are_trained_on_are_read():
    loader = DataLoader(Numbers(), batch_size=4, sampler=SubsetRandomSampler([40, 41, 45]))
    assert sorted(read_samples(loader, 10)[0].tolist()) == [40, 41, 45]


def test_a_stream_is_not_consumed():
    loader = DataLoader(Stream(), batch_size=5)
    assert read_samples(loader, 3).tolist() == [0, 1, 2]
    assert next(iter(loader)).tolist() == [0, 1, 2, 3, 4]


def test_several_loaders_give_several_batches():
    batches = read_samples({"a": DataLoader(Numbers(), batch_size=2), "b": [DataLoader(Numbers(), batch_size=2)]}, 2)
    assert torch.equal(batches["a"][0], batches["b"][0][0])


@pytest.mark.parametrize(
    ("loader", "error"), [(range(3), TypeError), (DataLoader(Numbers(0), batch_size=2), ValueError)]
)
def test_what_has_no_samples_is_refused(loader, error):
    with pytest.raises(error, match="dataset"):
        read_samples(loader, 3)


def test_randomness_is_fixed_inside_and_untouched_outside():
    before = global_states()
    drawn = []
    for _ in range(2):
        with fixed_randomness(5):
            drawn.append((random.random(), np.random.rand(), torch.rand(()).item()))  # noqa: NPY002
    assert drawn[0] == drawn[1]
    assert before == global_states()
    with pytest.raises(RuntimeError, match="size"), fixed_randomness(5):
        torch.rand(2) @ torch.rand(3)
    assert before == global_states()


GENERATORS = {
    "python": (random.Random(1), lambda generator: generator.random()),
    "numpy": (np.random.default_rng(1), lambda generator: generator.random()),
    "old numpy": (np.random.RandomState(1), lambda generator: generator.rand()),
    "torch": (torch.Generator(), lambda generator: torch.rand((), generator=generator).item()),
}


@pytest.mark.parametrize("kind", GENERATORS)
def test_generators_of_objects_are_put_back(kind):
    generator, draw = GENERATORS[kind]
    with fixed_randomness(0, generators=[generator]):
        first = draw(generator)
    assert draw(generator) == first


def test_generators_are_found_wherever_objects_keep_them():
    class Holder:
        def __init__(self, thing):
            self.thing, self.itself = thing, self

        def method(self, x):
            return x

    rngs = [np.random.default_rng(i) for i in range(6)]

    def closure(x):
        return rngs[4], x

    things = [
        Holder([{"a": rngs[0]}]),
        Holder((Holder(rngs[1]).method, partial(print, rngs[2]))),
        Holder({3: {Holder(rngs[3])}}),
        closure,
        Holder(np.zeros(10)),
    ]
    found = generators_of(*things)
    assert {id(rng) for rng in found} == {id(rng) for rng in rngs}
    assert generators_of(things[0], beyond=(Holder,)) == []
    assert generators_of(None, 3, "text", default_collate) == []


class Recorder:
    def __init__(self, *methods):
        self.calls = []
        for method in methods:
            setattr(self, method, partial(self._record, method))

    def _record(self, method, *args, **kwargs):
        self.calls.append((method, args, kwargs))


def test_images_go_to_every_logger_that_takes_them():
    image = np.zeros((2, 3, 3), np.uint8)
    wandb, tensorboard, mlflow, comet, plain = (Recorder("log_image"), *(Recorder() for _ in range(4)))
    tensorboard.experiment, comet.experiment = Recorder("add_image"), Recorder("log_image")
    mlflow.experiment, mlflow.run_id = Recorder("log_image"), "run 7"
    assert log_image([wandb, tensorboard, mlflow, comet, plain], "cells", image, 12) == 4
    assert wandb.calls == [("log_image", (), {"key": "cells", "images": [image]})]
    assert tensorboard.experiment.calls == [("add_image", ("cells", image, 12), {"dataformats": "HWC"})]
    assert mlflow.experiment.calls == [("log_image", ("run 7", image), {"artifact_file": "cells_12.png"})]
    assert comet.experiment.calls == [("log_image", (image,), {"name": "cells", "step": 12})]
    assert log_image([], "cells", image, 12) == 0
