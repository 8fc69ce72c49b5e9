"""NTXentHCL against golden numbers, its parent class, and itself in other precisions, blocks and processes."""

from __future__ import annotations

import json
import math
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pytorch_metric_learning.distances import LpDistance
from pytorch_metric_learning.losses import NTXentLoss
from pytorch_metric_learning.miners import BatchHardMiner
from pytorch_metric_learning.reducers import SumReducer
from pytorch_metric_learning.regularizers import LpRegularizer
from torch import distributed as dist

from dynaclr.loss import NTXentHCL

GOLDEN = Path(__file__).parent / "golden" / "loss"
CASES = json.loads((GOLDEN / "ntxent.json").read_text())
GRADIENTS = np.load(GOLDEN / "ntxent_gradients.npz")


def _u01(n, name):
    mask = np.uint64(0xFFFFFFFF)
    h = (np.arange(n, dtype=np.uint64) + np.uint64(zlib.crc32(name.encode()))) & mask
    h ^= h >> np.uint64(16)
    h = (h * np.uint64(0x7FEB352D)) & mask
    h ^= h >> np.uint64(15)
    h = (h * np.uint64(0x846CA68B)) & mask
    h ^= h >> np.uint64(16)
    return h.astype(np.float64) / 2**32


def _golden_input(case):
    b, d = case["B"], case["D"]
    anchor = 2 * _u01(b * d, f"anchor_B{b}_D{d}") - 1
    positive = 0.6 * anchor + 0.4 * (2 * _u01(b * d, f"positive_B{b}_D{d}") - 1)
    embeddings = torch.tensor(np.concatenate([anchor, positive]).reshape(2 * b, d).astype(np.float32))
    if case["labels"] == "paired":
        return embeddings, torch.arange(b).repeat(2)
    return embeddings, torch.tensor(np.floor(_u01(2 * b, f"labels_B{b}") * max(2, 2 * b // 4)).astype(np.int64))


def _views(n, d=8, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(n, d, generator=generator).requires_grad_() for _ in range(2)]


@pytest.mark.parametrize("n_blocks", [1, 3])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case["case"])
def test_golden_values_and_gradients(case, n_blocks):
    embeddings, labels = _golden_input(case)
    embeddings.requires_grad_()
    beta = 0.0 if case["beta"] == "standard" else case["beta"]
    loss = NTXentHCL(case["temperature"], beta, chunk_size=math.ceil(len(labels) / n_blocks))
    values = [loss(embeddings, labels)]
    if case["labels"] == "paired":
        values.append(loss.forward_pairs(*embeddings.chunk(2)))
    for value in values:
        assert value.item() == pytest.approx(case["loss"], abs=1e-5, rel=1e-6)
        if case["case"] in GRADIENTS:
            (gradient,) = torch.autograd.grad(value, embeddings)
            np.testing.assert_allclose(gradient.numpy(), GRADIENTS[case["case"]], atol=1e-5)


@pytest.mark.parametrize("case", json.loads((GOLDEN / "edge_cases.json").read_text()), ids=lambda case: case["desc"])
def test_golden_edge_cases(case):
    embeddings = torch.tensor(case["embeddings"]).requires_grad_()
    value = NTXentHCL(case["temperature"], case["beta"])(embeddings, torch.tensor(case["labels"]))
    value.backward()
    assert value.item() == pytest.approx(case["loss"], abs=1e-6)
    assert embeddings.grad.isfinite().all()


@settings(max_examples=20, deadline=None)
@given(
    labels=st.lists(st.integers(0, 3), min_size=3, max_size=10), seed=st.integers(0, 99), temperature=st.floats(0.1, 1)
)
def test_without_concentration_it_is_its_parent(labels, seed, temperature):
    embeddings = torch.randn(len(labels), 4, generator=torch.Generator().manual_seed(seed)).requires_grad_()
    results = []
    for loss in (NTXentHCL(temperature, beta=0.0), NTXentLoss(temperature)):
        value = loss(embeddings, torch.tensor(labels))
        results.append((value.detach(), *torch.autograd.grad(value, embeddings)))
    torch.testing.assert_close(*results, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(
    "options",
    [{"distance": LpDistance()}, {"reducer": SumReducer()}, {"embedding_regularizer": LpRegularizer()}],
    ids=lambda options: next(iter(options)),
)
def test_options_of_the_parent_are_used(options):
    embeddings, labels = torch.cat(_views(6)), torch.arange(6).repeat(2)
    loss, expected = NTXentHCL(0.5, beta=0.0, **options), NTXentLoss(0.5, **options)(embeddings, labels)
    torch.testing.assert_close(loss(embeddings, labels), expected)
    torch.testing.assert_close(loss.forward_pairs(*embeddings.chunk(2)), expected)


def test_miners_and_references_are_used_like_in_the_parent():
    embeddings, labels = torch.cat(_views(6)), torch.arange(4).repeat(3)
    reference, reference_labels = torch.cat(_views(3, seed=1)), torch.tensor([0, 1, 2, 3, 0, 5])
    loss, parent = NTXentHCL(0.5, beta=0.0), NTXentLoss(0.5)
    triplets = BatchHardMiner()(embeddings, labels)
    torch.testing.assert_close(loss(embeddings, labels, triplets), parent(embeddings, labels, triplets))
    torch.testing.assert_close(loss(embeddings, indices_tuple=triplets), parent(embeddings, indices_tuple=triplets))
    arguments = {"ref_emb": reference, "ref_labels": reference_labels}
    torch.testing.assert_close(loss(embeddings, labels, **arguments), parent(embeddings, labels, **arguments))


def test_logit_scale_is_the_published_weight():
    anchor, positive = _views(8)
    published = NTXentHCL(0.1, beta=0.5, beta_scale="logit").forward_pairs(anchor, positive)
    torch.testing.assert_close(published, NTXentHCL(0.1, beta=5.0).forward_pairs(anchor, positive))
    assert published > NTXentHCL(0.1, beta=0.5).forward_pairs(anchor, positive)


def test_cells_of_the_own_lineage_are_no_negatives():
    anchor, positive = _views(6)
    lineage = torch.tensor([7, 8, 7, 9, 10, 11])
    z = torch.nn.functional.normalize(torch.cat([anchor, positive]).detach().double(), dim=1)
    expected = 0.0
    for i in range(12):
        others = [k for k in range(12) if lineage[k % 6] != lineage[i % 6]]
        raw = [math.exp(0.5 * z[i] @ z[k]) for k in others]
        mass = sum(len(others) * w / sum(raw) * math.exp(z[i] @ z[k] / 0.2) for w, k in zip(raw, others, strict=True))
        attract = math.exp(z[i] @ z[(i + 6) % 12] / 0.2)
        expected -= math.log(attract / (attract + mass)) / 12
    assert NTXentHCL(0.2).forward_pairs(anchor, positive, lineage).item() == pytest.approx(expected, abs=1e-5)
    unmasked = NTXentHCL(0.2, mask_lineage=False).forward_pairs(anchor, positive, lineage)
    torch.testing.assert_close(unmasked, NTXentHCL(0.2).forward_pairs(anchor, positive))


@pytest.mark.parametrize(("dtype", "temperature"), [(torch.float16, 0.07), (torch.float32, 0.01)])
def test_hardest_positives_keep_their_gradient(dtype, temperature):
    """Where the softmax ratio underflows, log-sum-exp still has a value and a slope."""
    anchor = torch.nn.functional.one_hot(torch.arange(8), 16).to(dtype).requires_grad_()
    positive = (-anchor.detach() + 0.1 * torch.eye(16, dtype=dtype)[8:]).requires_grad_()
    loss = NTXentHCL(temperature, beta=0.0).forward_pairs(anchor, positive)
    loss.backward()
    z = torch.nn.functional.normalize(torch.cat([anchor, positive]).double(), dim=1)
    logits = (z @ z.T / temperature).fill_diagonal_(-math.inf)
    expected = torch.nn.functional.cross_entropy(logits, (torch.arange(16) + 8) % 16)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(expected.item(), rel=1e-2 if dtype == torch.float16 else 1e-5)
    assert anchor.grad.abs().max() > 1e-2


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_within_one_percent(dtype):
    anchor, positive = _views(32, 64)
    exact = NTXentHCL().forward_pairs(anchor, positive).item()
    assert NTXentHCL().forward_pairs(anchor.to(dtype), positive.to(dtype)).item() == pytest.approx(exact, rel=0.01)


def test_autocast_does_not_reach_the_loss():
    anchor, positive = _views(32, 64)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = NTXentHCL().forward_pairs(anchor, positive)
    torch.testing.assert_close(value, NTXentHCL().forward_pairs(anchor, positive))


@pytest.mark.parametrize("beta", [200, 1000])
@pytest.mark.parametrize("scale", ["similarity", "logit"])
def test_any_concentration_is_finite(beta, scale):
    anchor, positive = _views(8)
    value = NTXentHCL(0.07, beta, beta_scale=scale).forward_pairs(anchor, positive)
    value.backward()
    assert value.isfinite()
    assert anchor.grad.isfinite().all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": 0.0}, "temperature: found 0.0, expected a number larger than 0"),
        ({"temperature": -1.0}, "temperature: found -1.0"),
        ({"temperature": math.nan}, "temperature: found nan"),
        ({"beta": -0.5}, "beta: found -0.5, expected 0 or a larger number"),
        ({"beta": math.nan}, "beta: found nan"),
        ({"beta_scale": "loud"}, "beta_scale: found 'loud', expected 'similarity' or 'logit'"),
        ({"chunk_size": 0}, "chunk_size: found 0, expected None or at least 1"),
    ],
)
def test_parameters_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        NTXentHCL(**options)


def test_embeddings_with_nan_are_refused_by_row():
    anchor, positive = (view.detach() for view in _views(4))
    positive[2, 3] = math.nan
    with pytest.raises(ValueError, match=r"positive embeddings: 1 of 4 rows .* \(row 2\)"):
        NTXentHCL().forward_pairs(anchor, positive)
    with pytest.raises(ValueError, match=r"embeddings: 1 of 8 rows .* \(row 6\)"):
        NTXentHCL()(torch.cat([anchor, positive]), torch.arange(4).repeat(2))


def test_views_of_different_size_are_refused():
    with pytest.raises(ValueError, match=r"found shapes \(4, 8\) and \(3, 8\)"):
        NTXentHCL().forward_pairs(_views(4)[0], _views(3)[0])


@pytest.mark.parametrize("general", [False, True], ids=["pairs", "labels"])
def test_memory_kept_for_backward(general):
    def kept(n, chunk_size):
        anchor, positive = _views(n)
        storages = {}

        def pack(saved):
            storages[saved.untyped_storage().data_ptr()] = saved.untyped_storage()
            return saved

        loss = NTXentHCL(chunk_size=chunk_size)
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda saved: saved):
            value = (
                loss(torch.cat([anchor, positive]), torch.arange(n).repeat(2))
                if general
                else loss.forward_pairs(anchor, positive)
            )
        assert value.isfinite()
        return sum(storage.nbytes() for storage in storages.values())

    assert kept(128, None) < 4.2 * kept(64, None)
    assert kept(128, 16) < 2.2 * kept(64, 16)
    assert kept(128, 16) < kept(128, None) / 8


def test_gathering_alone_changes_nothing():
    anchor, positive = _views(5)
    lineage = torch.tensor([0, 1, 0, 2, 3])
    gathered = NTXentHCL(gather_distributed=True).forward_pairs(anchor, positive, lineage)
    torch.testing.assert_close(gathered, NTXentHCL().forward_pairs(anchor, positive, lineage))


SHARES = [((3, 3), None), ((4, 2), 2)]


def _train_share(rank, folder):
    from torch.nn.parallel import DistributedDataParallel

    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    results = []
    for sizes, chunk_size in SHARES:
        own = slice(sum(sizes[:rank]), sum(sizes[: rank + 1]))
        torch.manual_seed(0)
        encoder = torch.nn.Linear(8, 4)
        model = DistributedDataParallel(encoder)
        anchor, positive = (model(view.detach()[own]) for view in _views(6))
        loss = NTXentHCL(0.2, gather_distributed=True, chunk_size=chunk_size)
        value = loss.forward_pairs(anchor, positive, torch.tensor([0, 1, 2, 0, 3, 4])[own])
        value.backward()
        results.append((value.detach(), encoder.weight.grad))
        with pytest.raises(ValueError, match="use forward_pairs"):
            loss(anchor, torch.arange(len(anchor)))
    torch.save(results, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.slow
def test_two_processes_train_like_one_with_the_whole_batch(tmp_path):
    torch.multiprocessing.spawn(_train_share, (str(tmp_path),), nprocs=2)
    torch.manual_seed(0)
    encoder = torch.nn.Linear(8, 4)
    value = NTXentHCL(0.2).forward_pairs(*map(encoder, _views(6)), torch.tensor([0, 1, 2, 0, 3, 4]))
    value.backward()
    shares = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    for (first, gradient), (second, same_gradient) in zip(*shares, strict=True):
        torch.testing.assert_close((first + second) / 2, value.detach())
        torch.testing.assert_close(gradient, encoder.weight.grad)
        torch.testing.assert_close(same_gradient, gradient)
