"""What starting costs: CPU seconds and modules of commands, of the data module, of worker processes and of a training.

    python benchmarks/imports.py [--quick]

Each command is a process of its own; they take turns, and ratios are to importing torch, or torch and Lightning, in the
same run. Workers read one batch of simulated experiments with the dataset of `dynaclr fit`; their figures are of the
process itself, from its start until it has the batch. A server of workers imports before there is any of them.

A training is `dynaclr fit` on small 3D images, from the start of the command until its first optimizer step is done,
beside a process that only imports what it imports; both take turns. Its time is that of the process, and wall time.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import yaml

TORCH, LIGHTNING = "import torch", "import torch and lightning.pytorch"
RUN = "from dynaclr.cli import main; sys.argv = ['dynaclr', *{}]; main()"
CODES = {
    TORCH: "import torch",
    LIGHTNING: "import torch, lightning.pytorch",
    "import dynaclr.datamodule": "import dynaclr.datamodule",
    "dynaclr --help": RUN.format(["--help"]),
    "dynaclr fit --help": RUN.format(["fit", "--help"]),
    "dynaclr fit -c absent.yml": RUN.format(["fit", "-c", "absent.yml"]),
}


def cpu_of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def time_codes(n_rounds: int) -> None:
    """Print the median CPU seconds of each code, and the modules that it leaves imported."""
    seconds: dict[str, list[float]] = {name: [] for name in CODES}
    modules = {}
    for _ in range(n_rounds + 1):  # the first writes the bytecode
        for name, code in CODES.items():
            whole = f"import atexit, sys; atexit.register(lambda: print(len(sys.modules))); {code}"
            before = cpu_of_children()
            done = subprocess.run([sys.executable, "-c", whole], capture_output=True, text=True)
            seconds[name].append(cpu_of_children() - before)
            modules[name] = int(done.stdout.split()[-1])
    medians = {name: median(values[1:]) for name, values in seconds.items()}
    print(f"{'':<36}{'CPU s':>7}{'/ torch':>9}{'/ both':>8}{'modules':>9}")
    for name, value in medians.items():
        ratios = f"{value / medians[TORCH]:9.2f}{value / medians[LIGHTNING]:8.2f}"
        print(f"{name:<36}{value:7.2f}{ratios}{modules[name]:9}")


FIT_IMPORTS = """
from viscy_utils.cli.lightning_cli import run
from dynaclr.datamodule import MultiExperimentDataModule
from dynaclr.engine import ContrastiveModule
from viscy_models.contrastive import ContrastiveEncoder
from viscy_transforms import BatchedRandFlipd
tell()
"""
HOOK = "from torch.optim.optimizer import register_optimizer_step_post_hook as hook; hook(tell)"
TELL = "def tell(*_): print('took', time.process_time(), time.monotonic(), flush=True); os._exit(0)"


def first_step(folder: str) -> list[str]:
    """Write a configuration, and return the arguments of the training whose one step is its first."""
    encoder = {"backbone": "convnext_atto", "in_channels": 2, "in_stack_depth": 5, "projection_dim": 32}
    encoder |= {"stem_kernel_size": [5, 4, 4], "stem_stride": [5, 4, 4]}
    model = {
        "encoder": {"class_path": "viscy_models.contrastive.ContrastiveEncoder", "init_args": encoder},
        "loss_function": {"class_path": "dynaclr.loss.NTXentHCL"},
        "example_input_array_shape": [1, 2, 5, 32, 32],
    }
    data = {"experiments_yaml": f"{folder}/experiments.yml", "z_range": [0, 5], "yx_patch_size": [48, 48]}
    flip = {"keys": ["ch_0", "ch_1"], "spatial_axes": [1, 2], "prob": 0.5}
    data |= {"augmentations": [{"class_path": "viscy_transforms.BatchedRandFlipd", "init_args": flip}]}
    data |= {"final_yx_patch_size": [32, 32], "tau_range": [0.0, 0.5], "batch_size": 8, "num_workers": 0}
    trainer = {"max_steps": 1, "accelerator": "cpu", "devices": 1, "logger": False, "default_root_dir": folder}
    config = {
        "model": {"class_path": "dynaclr.engine.ContrastiveModule", "init_args": model},
        "data": {"class_path": "dynaclr.datamodule.MultiExperimentDataModule", "init_args": data},
        "trainer": trainer | {"enable_checkpointing": False},
    }
    Path(folder, "fit.yml").write_text(yaml.safe_dump(config))
    return ["fit", "-c", f"{folder}/fit.yml"]


def time_first_step(folder: str, n_rounds: int) -> None:
    """Print the medians of a training until its first step is done, and of its imports alone."""
    from viscy_data.synthetic import ExperimentSpec, write_experiments

    specs = [ExperimentSpec(f"e{number}", n_frames=4, n_cells=8, shape=(5, 128, 128)) for number in range(2)]
    write_experiments(specs, folder, seed=0)
    codes = {
        "what dynaclr fit imports": FIT_IMPORTS,
        "dynaclr fit until its first step": f"{HOOK}\n{RUN.format(first_step(folder))}",
    }
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in codes}
    for _ in range(n_rounds + 1):
        for name, code in codes.items():
            start = time.monotonic()
            whole = f"import os, sys, time\n{TELL}\n{code}"
            done = subprocess.run([sys.executable, "-c", whole], capture_output=True, text=True)
            if "took" not in done.stdout:
                raise RuntimeError(done.stderr)
            cpu, end = map(float, done.stdout.rpartition("took ")[2].split())
            found[name].append((cpu, end - start))
    medians = {name: [median(column) for column in zip(*rows[1:], strict=True)] for name, rows in found.items()}
    imports, fit = medians.values()
    print(f"\n{'':<36}{'CPU s':>7}{'wall s':>8}")
    for name, (cpu, wall) in medians.items():
        print(f"{name:<36}{cpu:7.2f}{wall:8.2f}")
    print(f"{'  the second / the first':<36}{fit[0] / imports[0]:7.2f}{fit[1] / imports[1]:8.2f}")


class Probe:
    """A dataset whose batches also say what the process that read them has used and imported."""

    def __init__(self, dataset) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, positions: list[int]) -> dict:
        self.dataset[positions]
        used = resource.getrusage(resource.RUSAGE_SELF)
        tops = {name.partition(".")[0] for name in sys.modules}
        return {
            "cpu": used.ru_utime + used.ru_stime,
            "modules": len(sys.modules),
            "heavy": sorted(tops & {"lightning", "monai", "pandas", "sklearn", "torch", "torchvision"}),
            "parent": os.getppid(),
        }


def cpu_of(process: int) -> float:
    """Return the CPU seconds of another process, from Linux."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")


def time_workers(folder: str) -> None:
    """Print what two workers use until they have their first batch, spawned and as the loaders start them."""
    from dynaclr.datamodule import MultiExperimentDataModule
    from viscy_data.distributed import SequentialBatchSampler
    from viscy_data.loaders import BatchLoader
    from viscy_data.synthetic import ExperimentSpec, write_experiments
    from viscy_data.worker_processes import worker_context

    specs = [ExperimentSpec(f"e{number}", n_frames=4, n_cells=4, shape=(1, 96, 96)) for number in range(2)]
    data = MultiExperimentDataModule(
        str(write_experiments(specs, folder, seed=0)), (0, 1), (32, 32), (32, 32), tau_range=(0.0, 0.0), batch_size=2
    )
    data.setup("fit")
    for context in (multiprocessing.get_context("spawn"), worker_context()):
        order = SequentialBatchSampler(4, 2)
        loader = BatchLoader(Probe(data.train_dataset), order, num_workers=2, multiprocessing_context=context)
        for number, found in enumerate(loader):
            what = f"{context.get_start_method()}, worker {number + 1}"
            print(f"{what:<36}{found['cpu']:7.2f}{'':17}{found['modules']:9}  {', '.join(found['heavy'])}")
        if found["parent"] != os.getpid():
            print(f"{'  their server':<36}{cpu_of(found['parent']):7.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one round")
    quick = parser.parse_args().quick
    time_codes(1 if quick else 5)
    with tempfile.TemporaryDirectory() as folder:
        time_workers(folder)
    with tempfile.TemporaryDirectory() as folder:
        time_first_step(folder, 1 if quick else 3)


if __name__ == "__main__":
    main()
