"""What a worker process imports: tens of them start at once, and each import costs seconds and memory."""

from __future__ import annotations

import json
import multiprocessing
import re
import subprocess
import sys
from pathlib import Path

import pytest

import viscy_data
from viscy_data.worker_processes import seed_transforms, worker_context

HEAVY = {"monai", "lightning", "iohub", "matplotlib"}
OTHERS = ["distributed", "norm_meta", "patches", "sampler", "worker_processes"]


def test_what_is_pickled_to_a_worker_imports_nothing_heavy():
    root = Path(viscy_data.__file__).parent
    datasets = [
        path
        for path in root.rglob("*.py")
        if re.search(r"^class \w*Dataset\((?!Protocol)", path.read_text("utf8"), re.M)
    ]
    names = [".".join(path.relative_to(root).with_suffix("").parts) for path in datasets] + OTHERS
    assert "triplet.dataset" in names
    code = f"""
import sys
from importlib import import_module
for name in {sorted(names)}:
    import_module(f"viscy_data.{{name}}")
    heavy = {HEAVY} & set(sys.modules)
    assert not heavy, f"{{name}} imports {{heavy}}"
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


_DATASET = """
import os
import sys

import numpy as np
import torch

class Imports:
    def __len__(self):
        return 2

    def __getitem__(self, positions):
        modules = sorted({name.split(".")[0] for name in sys.modules})
        a = np.ones((500, 500))
        b = torch.from_numpy(a)
        sums = [float((a @ a).sum()), float((b @ b).sum())]  # with threads
        return {"modules": modules, "parent": os.getppid(), "process": os.getpid(), "sums": sums}
"""

_LOADING = """
import json
import os
from pathlib import Path

if __name__ == "__main__":
    from viscy_data.worker_processes import prepare_workers

    prepare_workers()  # does not wait for it
    children = Path(f"/proc/self/task/{os.getpid()}/children")
    prepared = [int(process) for process in children.read_text().split()] if children.exists() else None

    from imports_dataset import Imports

    from viscy_data.distributed import SequentialBatchSampler
    from viscy_data.loaders import BatchLoader

    found = list(BatchLoader(Imports(), SequentialBatchSampler(2, 1), num_workers=2))
    print(json.dumps([os.getpid(), prepared, found]))
"""


@pytest.mark.slow
def test_workers_of_a_loader_import_nothing_heavy_and_share_what_they_import(tmp_path: Path):
    (tmp_path / "imports_dataset.py").write_text(_DATASET)
    (tmp_path / "loading.py").write_text(_LOADING)
    done = subprocess.run([sys.executable, "loading.py"], capture_output=True, check=True, text=True, cwd=tmp_path)
    process, prepared, [first, second] = json.loads(done.stdout.splitlines()[-1])
    assert first["process"] != second["process"]
    for worker in (first, second):
        assert {"torch", "imports_dataset"} <= set(worker["modules"])
        assert not HEAVY & set(worker["modules"])
        assert worker["sums"] == [500.0**3] * 2
    assert first["parent"] == second["parent"]
    if worker_context().get_start_method() == "forkserver":
        assert first["parent"] != process
        assert prepared is None or first["parent"] in prepared
        assert {"pandas", "tensorstore"} <= set(first["modules"])  # the dataset needs neither


_WAITING = """
import os
import time

class Waits:
    def __len__(self):
        return 1

    def __getitem__(self, positions):
        print(os.getpid(), os.getppid(), flush=True)
        time.sleep(600)

if __name__ == "__main__":
    from viscy_data.distributed import SequentialBatchSampler
    from viscy_data.loaders import BatchLoader

    list(BatchLoader(Waits(), SequentialBatchSampler(1, 1), num_workers=1))
"""


@pytest.mark.slow
def test_workers_end_with_the_process_that_reads_even_if_it_is_killed(tmp_path: Path):
    (tmp_path / "waiting.py").write_text(_WAITING)
    running = subprocess.Popen([sys.executable, "waiting.py"], stdout=subprocess.PIPE, text=True, cwd=tmp_path)
    with running:
        processes = [int(each) for each in running.stdout.readline().split() if int(each) != running.pid]
        assert processes
        running.kill()
        # Whoever is left holds the other end of the pipe open.
        assert running.communicate(timeout=120)[0] == ""


def test_workers_are_spawned_where_forks_are_not_safe(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    assert worker_context().get_start_method() == "spawn"
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(multiprocessing, "get_all_start_methods", lambda: ["spawn"])
    assert worker_context().get_start_method() == "spawn"


def test_random_transforms_are_seeded_where_a_dataset_has_brought_them(monkeypatch):
    utils = pytest.importorskip("monai.data.utils")
    seeded = []
    monkeypatch.setattr(utils, "worker_init_fn", seeded.append)
    seed_transforms(3)
    monkeypatch.delitem(sys.modules, "monai")
    seed_transforms(4)
    assert seeded == [3]
