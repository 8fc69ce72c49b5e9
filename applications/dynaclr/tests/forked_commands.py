"""Runs commands in processes forked after the imports, with faults: torch is imported once for dozens of kills.

Reads a JSON line per job, a list of processes that run side by side, and answers with how each has ended.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import resource
import signal
import sys
import time
import traceback
from pathlib import Path

from lightning.pytorch import Callback
from lightning.pytorch.utilities.rank_zero import rank_zero_only

_PRELOADED = (
    "anndata",
    "monai.transforms",
    "pandas",
    "timm",
    "dynaclr.cli",
    "dynaclr.datamodule",
    "dynaclr.engine",
    "dynaclr.loss",
    "viscy_models",
    "viscy_transforms",
    "viscy_utils.cli.lightning_cli",
)
_WRITING = ("os.rename", "os.link", "os.remove", "os.mkdir", "os.rmdir", "shutil.rmtree")


class Fault(Callback):
    """Write down each step, and let something happen in one of them.

    Parameters
    ----------
    steps : str
        File of JSON lines: epoch, batch, lineages, and images and loss to the last bit.
    hook : str, optional
        Name of the hook of a callback in which it happens.
    after : int, default 0
        Steps of the optimizer after which it does.
    kind : str, optional
        Name of a signal, ``full disk``, or ``error``.
    rank : int, optional
        To which it happens; all by default.
    """

    def __init__(
        self, steps: str, hook: str | None = None, after: int = 0, kind: str | None = None, rank: int | None = None
    ) -> None:
        self.steps, self.hook, self.after, self.kind, self.rank = steps, hook, after, kind, rank
        if hook is not None and hook != "on_train_batch_end":
            setattr(self, hook, lambda trainer, *args, **kwargs: self._happen(trainer))

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        images = [float(batch[role].double().sum()).hex() for role in ("anchor", "positive")]
        step = [trainer.current_epoch, batch_idx, batch["lineage"].tolist(), *images, float(outputs["loss"]).hex()]
        with open(f"{self.steps}.{trainer.global_rank}", "a") as file:
            file.write(json.dumps(step) + "\n")
        if self.hook == "on_train_batch_end":
            self._happen(trainer)

    def _happen(self, trainer):
        if self.kind is None or trainer.global_step != self.after or self.rank not in (None, trainer.global_rank):
            return
        if self.kind == "full disk":
            resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
        elif self.kind == "error":
            raise ValueError("a rank has failed")
        else:
            os.kill(os.getpid(), getattr(signal, self.kind))
        self.kind = None


def _kill_at(n: int, folder: str) -> None:
    """Be killed at the n-th time that something is about to be written below a folder; tell how often, if never."""
    seen, counting = [0], [False]

    def audit(event, args):
        if counting[0]:
            return
        writes = event == "open" and isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        if not writes and event not in _WRITING:
            return
        if any(isinstance(arg, str | os.PathLike) and str(arg).startswith(folder) for arg in args):
            seen[0] += 1
            if seen[0] == n:
                os.kill(os.getpid(), signal.SIGKILL)
            counting[0] = True
            Path(f"{folder.rstrip('/')}.events").write_text(str(seen[0]))
            counting[0] = False

    sys.addaudithook(audit)


def _run(process: dict) -> None:
    os.setsid()
    out = os.open(process["out"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(out, 1)
    os.dup2(out, 2)
    os.chdir(process["cwd"])
    os.environ.update(process.get("env", {}))
    rank_zero_only.rank = int(os.environ.get("RANK", "0"))  # as Lightning finds it when it is imported
    sys.argv = ["dynaclr", *process["argv"]]
    if "kill_at" in process:
        _kill_at(process["kill_at"], process["folder"])
    if "predict" in process:
        _predict(**process["predict"])
    else:
        from dynaclr.cli import main

        main()


def _predict(experiments_yaml: str, output: str, statistics_of: int | None = None) -> None:
    """Predict without the command line, whose parsing would take longer than the prediction.

    With ``statistics_of`` by statistics of so many cells of each experiment.
    """
    import torch
    from lightning.pytorch import Trainer

    from dynaclr.adaptation import BatchStatistics
    from dynaclr.datamodule import MultiExperimentDataModule
    from dynaclr.engine import ContrastiveModule
    from viscy_utils.callbacks import EmbeddingWriter

    class Encoder(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.num_features = 6
            self.features, self.projection = torch.nn.Linear(2 * 16 * 16, 6), torch.nn.Linear(6, 3)
            self.norm = torch.nn.Identity() if statistics_of is None else torch.nn.BatchNorm1d(6)

        def forward(self, x):
            features = self.norm(self.features(x.flatten(1)))
            return features, self.projection(features)

    torch.manual_seed(0)
    model = ContrastiveModule(
        Encoder(), batch_statistics=None if statistics_of is None else BatchStatistics(statistics_of)
    )
    options = {"z_range": (0, 1), "yx_patch_size": (16, 16), "final_yx_patch_size": (16, 16), "batch_size": 5}
    data = MultiExperimentDataModule(experiments_yaml, num_workers=0, **options)
    ranks = int(os.environ.get("WORLD_SIZE", "1"))
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    parallel = {"devices": ranks, "strategy": "ddp"} if ranks > 1 else {}
    trainer = Trainer(**quiet, **parallel, callbacks=[EmbeddingWriter(output, part_rows=8)])
    trainer.predict(model, data, return_predictions=False)


def _fork(process: dict) -> int:
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        _run(process)
        code = 0
    except SystemExit as err:
        code = err.code if isinstance(err.code, int) else int(err.code is not None)
    except BaseException:  # noqa: BLE001 - shown and told by the exit code
        traceback.print_exc()
    finally:
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
        os._exit(code)


def _wait(pids: list[int], seconds: float) -> list[dict]:
    """Wait for all; those that are left over are killed, and their code is None."""
    begun, ended = time.monotonic(), {}
    while len(ended) < len(pids) and time.monotonic() - begun < seconds:
        for pid in set(pids) - ended.keys():
            found, status = os.waitpid(pid, os.WNOHANG)
            if found:
                ended[pid] = {"code": os.waitstatus_to_exitcode(status), "at": time.monotonic() - begun}
        time.sleep(0.01)
    for pid in set(pids) - ended.keys():
        os.killpg(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        ended[pid] = {"code": None, "at": seconds}
    return [ended[pid] for pid in pids]


if __name__ == "__main__":
    sys.modules["forked_commands"] = sys.modules["__main__"]  # the class path of the callback
    for name in _PRELOADED:
        importlib.import_module(name)
    print("ready", flush=True)
    for line in sys.stdin:
        job = json.loads(line)
        print(json.dumps(_wait([_fork(process) for process in job["processes"]], job["seconds"])), flush=True)
