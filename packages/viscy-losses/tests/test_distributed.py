"""Two and three processes train like one with the whole batch."""

from __future__ import annotations

import gc

import pytest
import torch
from torch import distributed as dist

from viscy_losses import LossRegistry, MoCoLoss

SIZES = [(4, 2), (3, 1, 2)]
"""Cells of each process."""
LABELS = torch.tensor([0, 1, 2, 0, 3, 4])
N_STEPS = 2
CASES = [
    *(
        (name, {"gather_distributed": True, "chunk_size": chunk_size})
        for name in ("simclr", "nt_xent_hcl", "debiased", "dcl", "siglip", "supcon")
        for chunk_size in (None, 3)
    ),
    ("clip", {"gather_distributed": True, "learn_temperature": True}),
    ("clip", {"gather_distributed": True, "chunk_size": 2}),
    ("vicreg", {"gather_distributed": True}),
    ("barlow_twins", {"gather_distributed": True}),
    ("moco", {"queue_size": 8}),
    ("moco", {"queue_size": 5, "chunk_size": 2}),
]


def _train(name, options, own, n_processes):
    """Take a few steps on the share of a process: losses, parameters and buffers after them."""
    torch.manual_seed(0)
    encoder, loss = torch.nn.Linear(8, 4).double(), LossRegistry.create(name, **options).double()
    parameters = [*encoder.parameters(), *loss.parameters()]
    optimizer = torch.optim.SGD(parameters, lr=0.1)
    values = []
    for step in range(N_STEPS):
        generator = torch.Generator().manual_seed(step)
        anchor, positive = torch.randn(2, 6, 8, dtype=torch.float64, generator=generator)[:, own]
        value = loss.forward_pairs(encoder(anchor), encoder(positive), LABELS[own])
        optimizer.zero_grad()
        value.backward()
        for parameter in parameters if n_processes > 1 else ():
            dist.all_reduce(parameter.grad)
            parameter.grad /= n_processes
        optimizer.step()
        values.append(value.item())
    return values, [parameter.detach() for parameter in parameters], dict(loss.named_buffers())


class _Model(torch.nn.Module):
    """An encoder with its loss, as a Lightning module has them."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.encoder, self.loss = torch.nn.Linear(8, 4), MoCoLoss(queue_size=8)

    def forward(self, anchor, positive):
        return self.loss.forward_pairs(self.encoder(anchor), self.encoder(positive))


def _train_model(own, wrap):
    model = wrap(_Model())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for step in range(3):
        views = torch.randn(2, 6, 8, generator=torch.Generator().manual_seed(step))[:, own]
        optimizer.zero_grad()
        model(*views).backward()
        optimizer.step()
    return {name.removeprefix("module."): value for name, value in model.state_dict().items()}


def _train_share(rank, folder, sizes):
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=len(sizes))
    own = slice(sum(sizes[:rank]), sum(sizes[: rank + 1]))
    torch.save([_train(name, options, own, len(sizes)) for name, options in CASES], f"{folder}/{rank}.pt")
    torch.save(_train_model(own, torch.nn.parallel.DistributedDataParallel), f"{folder}/model{rank}.pt")
    gc.collect()  # a model in a cycle keeps the threads of its group, with which a process cannot end
    dist.barrier()
    dist.destroy_process_group()


@pytest.mark.slow
@pytest.mark.parametrize("sizes", SIZES)
def test_values_gradients_and_queues_equal_those_of_one_process(tmp_path, sizes):
    torch.multiprocessing.spawn(_train_share, (str(tmp_path), sizes), nprocs=len(sizes))
    shares = [torch.load(tmp_path / f"{rank}.pt") for rank in range(len(sizes))]
    for (name, options), *ranks in zip(CASES, *shares, strict=True):
        values, parameters, buffers = _train(name, options, slice(None), 1)
        message = f"{name} {options}"
        found = [sum(of_ranks) / len(sizes) for of_ranks in zip(*(rank[0] for rank in ranks), strict=True)]
        assert found == pytest.approx(values, rel=1e-6), message
        torch.testing.assert_close(ranks[0][1:], (parameters, buffers), rtol=1e-6, atol=1e-8, msg=message)
        for rank in ranks[1:]:
            torch.testing.assert_close(rank[1:], ranks[0][1:], rtol=0, atol=0, msg=message)
    first, *others = (torch.load(tmp_path / f"model{rank}.pt") for rank in range(len(sizes)))
    for other in others:
        torch.testing.assert_close(first, other, rtol=0, atol=0)
    torch.testing.assert_close(first, _train_model(slice(None), lambda model: model), rtol=1e-5, atol=1e-6)
