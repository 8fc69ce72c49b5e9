"""How NTXentHCL compares with a bare matrix formulation and with the cubic loss it replaces.

    python benchmarks/loss.py [--quick] [--all]

Forward and backward of two views of B cells, D = 128, best of several rounds taken in turn; peak memory
is counted over the storages that operations make. With ``--all`` every loss of ``viscy_losses`` takes part.
"""

from __future__ import annotations

import argparse
import time
import weakref

import torch
from pytorch_metric_learning.losses import NTXentLoss
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from dynaclr.loss import NTXentHCL
from viscy_losses import LossRegistry

FEATURES, TEMPERATURE, BETA = 128, 0.07, 0.5
LARGEST_FOR_PARENT = 64


def bare_matrix(anchor: Tensor, positive: Tensor) -> Tensor:
    """Write the loss down with one similarity matrix: no checks, no options."""
    z = torch.nn.functional.normalize(torch.cat([anchor, positive]), dim=1)
    s = z @ z.T
    others = torch.eye(len(z), dtype=torch.bool)
    others = others | others.roll(len(anchor), 1)
    attract = s.diagonal(len(anchor)).repeat(2) / TEMPERATURE
    s = s.masked_fill(others, -torch.inf)
    weights = torch.log_softmax(BETA * s, dim=1) + torch.log(torch.tensor(len(z) - 2.0))
    return (torch.logaddexp(attract, torch.logsumexp(weights + s / TEMPERATURE, dim=1)) - attract).mean()


def parent(anchor: Tensor, positive: Tensor) -> Tensor:
    labels = torch.arange(len(anchor)).repeat(2)
    return NTXentLoss(TEMPERATURE)(torch.cat([anchor, positive]), labels)


FORMS = {
    "bare matrix": bare_matrix,
    "NTXentHCL": NTXentHCL(TEMPERATURE, BETA).forward_pairs,
    "NTXentHCL, chunks of 128": NTXentHCL(TEMPERATURE, BETA, chunk_size=128).forward_pairs,
    "parent (beta 0)": parent,
}


def make_views(n_cells: int) -> list[Tensor]:
    torch.manual_seed(0)
    return [torch.randn(n_cells, FEATURES, requires_grad=True) for _ in range(2)]


def time_forms(n_cells: int, n_rounds: int) -> dict[str, float]:
    """Best time of each form in seconds; the forms take turns, so that a busy machine slows all alike."""
    best = {name: float("inf") for name in FORMS if name != "parent (beta 0)" or n_cells <= LARGEST_FOR_PARENT}
    views = make_views(n_cells)
    for _ in range(n_rounds):
        for name in best:
            start = time.perf_counter()
            FORMS[name](*views).backward()
            best[name] = min(best[name], time.perf_counter() - start)
    return best


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of the storages that operations have made and that are still alive."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self.known: set[int] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor) and tensor.untyped_storage()._cdata not in self.known:
                self._track(tensor.untyped_storage())
        return result

    def _track(self, storage: torch.UntypedStorage) -> None:
        self.known.add(storage._cdata)
        self.now += storage.nbytes()
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._forget, storage._cdata, storage.nbytes())

    def _forget(self, key: int, size: int) -> None:
        self.known.discard(key)
        self.now -= size


def measure_peak(name: str, n_cells: int) -> float:
    """Most memory that one forward and backward pass holds at a time, in MiB."""
    views = make_views(n_cells)
    with LiveBytes() as live:
        FORMS[name](*views).backward()
    return live.peak / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two sizes, few rounds")
    parser.add_argument("--all", action="store_true", help="every loss of viscy_losses as well")
    args = parser.parse_args()
    if args.all:
        FORMS.update({name: LossRegistry.create(name).forward_pairs for name in LossRegistry.available()})
    torch.set_num_threads(1)
    print("| B | form | time (ms) | / bare | peak (MiB) |\n|---|---|---|---|---|")
    for n_cells in (64, 512) if args.quick else (64, 128, 256, 512):
        best = time_forms(n_cells, 10 if args.quick else 30)
        for name, seconds in best.items():
            ratio, peak = seconds / best["bare matrix"], measure_peak(name, n_cells)
            print(f"| {n_cells} | {name} | {seconds * 1e3:.1f} | {ratio:.2f} | {peak:.1f} |", flush=True)


if __name__ == "__main__":
    main()
