"""Gathering across processes: nothing to do alone, exact with two and three."""

from __future__ import annotations

import pytest
import torch
from torch import distributed as dist

from viscy_losses import functional as F


def test_alone_gathering_changes_nothing():
    a, p, groups = torch.randn(3, 4), torch.randn(3, 4), torch.tensor([5, 6, 5])
    gathered, stacked = F.gather_views(a, p, groups), F.stack_views(a, p, groups)
    torch.testing.assert_close(gathered, stacked)
    assert F.world_size() == 1


def _embeddings():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(5, 4, generator=generator), torch.randn(5, 4, generator=generator)


def _contrast_share(rank, folder, sizes):
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=len(sizes))
    own = slice(sum(sizes[:rank]), sum(sizes[: rank + 1]))
    a, p = (view[own].clone().requires_grad_() for view in _embeddings())
    stacked = F.gather_views(a, p, torch.tensor([0, 1, 1, 2, 0])[own])
    pairs = F.contrast(stacked.views[stacked.ids], stacked.views, F.view_relations(stacked), 0.1, 1.0)
    pairs.losses.sum().backward()
    torch.save((pairs.losses.detach(), a.grad, p.grad), f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.slow
@pytest.mark.parametrize("sizes", [(4, 1), (2, 1, 2)])
def test_processes_equal_one_with_all_cells(tmp_path, sizes):
    torch.multiprocessing.spawn(_contrast_share, (str(tmp_path), sizes), nprocs=len(sizes))
    shares = [torch.load(tmp_path / f"{rank}.pt") for rank in range(len(sizes))]
    a, p = (view.requires_grad_() for view in _embeddings())
    stacked = F.stack_views(a, p, torch.tensor([0, 1, 1, 2, 0]))
    losses = F.contrast(stacked.views, stacked.views, F.view_relations(stacked), 0.1, 1.0).losses
    losses.sum().backward()
    parts = [share[0].split(n) for share, n in zip(shares, sizes, strict=True)]  # anchors, positives of each process
    views = torch.cat([part[view] for view in range(2) for part in parts])
    torch.testing.assert_close(views, losses.detach())
    torch.testing.assert_close(torch.cat([share[1] for share in shares]), a.grad)
    torch.testing.assert_close(torch.cat([share[2] for share in shares]), p.grad)
