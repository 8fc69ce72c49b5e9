"""Work on a Dask cluster gives what threads give, bit for bit, also when a worker is killed on the way."""

from __future__ import annotations

import os
import signal

import pandas as pd
import pytest
import yaml
from click.testing import CliRunner

from dynaclr.commands.build_index import build_index
from dynaclr.commands.cache_patches import cache_patches
from dynaclr.commands.compute_features import compute_features
from viscy_data.pieces import map_pieces
from viscy_data.stores import read_attributes, read_plate
from viscy_data.synthetic import ExperimentSpec, write_experiments
from viscy_utils.statistics.metadata import generate_normalization_metadata

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning", "ignore::FutureWarning"),
]
dask = pytest.importorskip("dask")
distributed = pytest.importorskip("distributed")
pytest.importorskip("mahotas")


def kill_one(flag):
    """Make a plugin of workers: the first to have done a piece is killed, and what it had done is lost."""

    class KillOne(distributed.WorkerPlugin):
        def transition(self, key, start, finish, **kwargs):
            if finish == "memory":
                try:
                    os.close(os.open(flag, os.O_CREAT | os.O_EXCL))
                except FileExistsError:
                    return
                os.kill(os.getpid(), signal.SIGKILL)

    return KillOne()


@pytest.fixture(scope="module")
def cluster():
    options = {"threads_per_worker": 1, "dashboard_address": ":0", "host": "127.0.0.1"}
    # On a busy machine a killed worker is not back within the 15 s after which the cluster would give it up.
    patience = dask.config.set({"distributed.deploy.lost-worker-timeout": "4 minutes"})
    with patience, distributed.LocalCluster(n_workers=2, silence_logs=50, **options) as cluster:
        yield cluster


def lose_a_worker_during(cluster, folder, work):
    flag = str(folder / "killed")
    with distributed.Client(cluster) as client:
        client.register_plugin(kill_one(flag), name=flag)
        done = work(cluster.scheduler_address)
        client.unregister_worker_plugin(flag)
        client.wait_for_workers(2, timeout=240)
    assert os.path.exists(flag)
    return done


@pytest.fixture(scope="module")
def experiments(tmp_path_factory):
    specs = [ExperimentSpec(f"e{n}", n_frames=4, n_cells=4, fovs_per_well=3, shape=(1, 64, 64)) for n in range(2)]
    return write_experiments(specs, tmp_path_factory.mktemp("data"), seed=0)


def test_index_and_statistics_survive_a_killed_worker(cluster, experiments, tmp_path):
    squares = lose_a_worker_during(
        cluster, _made(tmp_path / "pieces"), lambda address: list(map_pieces(lambda n: n**2, range(20), dask=address))
    )
    assert squares == [n**2 for n in range(20)]

    def index(address):
        name = tmp_path / ("on_dask.parquet" if address else "in_threads.parquet")
        arguments = [str(experiments), str(name), *(("--dask", address) if address else ("--workers", "2"))]
        CliRunner().invoke(build_index, arguments, catch_exceptions=False)
        return name.read_bytes(), pd.read_parquet(name)

    on_dask, in_threads = lose_a_worker_during(cluster, _made(tmp_path / "index"), index), index(None)
    pd.testing.assert_frame_equal(on_dask[1], in_threads[1])
    assert on_dask[0] == in_threads[0]

    [store] = experiments.parent.glob("e0*/*.zarr")

    def statistics(address):
        generate_normalization_metadata(store, 2, grid_spacing=4, sampling="stratified", dask=address)
        return [read_attributes(store, name)["normalization"] for name in (None, *(f.name for f in read_plate(store)))]

    assert lose_a_worker_during(cluster, _made(tmp_path / "statistics"), statistics) == statistics(None)


def test_patches_and_features_survive_a_killed_worker(cluster, experiments, tmp_path, monkeypatch):
    sizes = {"z_range": [0, 1], "yx_patch_size": [24, 24], "final_yx_patch_size": [16, 16], "num_workers": 0}
    data = {"class_path": "dynaclr.datamodule.MultiExperimentDataModule"}
    data |= {"init_args": {"experiments_yaml": str(experiments), **sizes}}
    config = tmp_path / "fit.yml"
    config.write_text(yaml.safe_dump({"data": data}))

    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")  # features say when they were computed
    for command in (cache_patches, compute_features):

        def stored(address, command=command):
            store = tmp_path / f"{command.name}_{'on_dask' if address else 'in_threads'}.zarr"
            arguments = ["-c", str(config), "-o", str(store), *(("--dask", address) if address else ("--workers", "2"))]
            CliRunner().invoke(command, arguments, catch_exceptions=False)
            return {path.relative_to(store): path.read_bytes() for path in store.rglob("*") if path.is_file()}

        on_dask, in_threads = lose_a_worker_during(cluster, _made(tmp_path / command.name), stored), stored(None)
        assert on_dask == in_threads
        assert len(on_dask) > 3


def _made(folder):
    folder.mkdir()
    return folder
