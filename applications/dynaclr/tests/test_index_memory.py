"""What an index costs per observation: bytes held, bytes at the peak."""

from __future__ import annotations

import tracemalloc

import pytest

from dynaclr.dataset import MultiExperimentTripletDataset
from dynaclr.experiment import ExperimentRegistry
from dynaclr.index import MultiExperimentIndex
from viscy_data.synthetic.benchmark_tables import write_track_tables

PATCH = slice(0, 1), (32, 32)
LIMIT = 64  # bytes of an observation, what the dataset draws from included


@pytest.fixture(scope="module")
def registries(tmp_path_factory):
    """Experiments of 10 000 and of 60 000 observations."""
    sizes = 10_000, 60_000
    roots = [tmp_path_factory.mktemp(f"rows{size}") for size in sizes]
    files = [
        write_track_tables(size, root, observations_per_fov=size // 32) for size, root in zip(sizes, roots, strict=True)
    ]
    return dict(zip(sizes, map(ExperimentRegistry.from_yaml, files), strict=True))


def test_an_observation_costs_no_more_than_its_bytes_and_building_no_more_than_twice_that(registries):
    held, peak = {}, {}
    for size, registry in registries.items():
        tracemalloc.start()
        dataset = MultiExperimentTripletDataset(MultiExperimentIndex(registry, *PATCH, workers=1), cache_pool_bytes=0)
        held[size], peak[size] = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert len(dataset.index.tracks) == size
    few, many = registries
    assert (held[many] - held[few]) / (many - few) <= LIMIT
    assert (peak[many] - peak[few]) / (many - few) <= 2 * LIMIT
