"""The queue of MoCo: what goes in, what comes back from a checkpoint."""

from __future__ import annotations

import copy

import pytest
import torch

from viscy_losses import MoCoLoss


def _views(n=3, d=4, seed=0):
    return torch.randn(2, n, d, generator=torch.Generator().manual_seed(seed)).unbind()


def _unit(rows):
    return rows / rows.norm(dim=1, keepdim=True)


def test_keys_replace_the_oldest_ones():
    loss, fed = MoCoLoss(queue_size=7, dim=4), []
    first = loss.queue.clone()
    for seed in range(4):
        anchor, positive = _views(seed=seed)
        loss(anchor, positive)
        fed += _unit(positive)
        expected = list(first)
        for at, key in enumerate(fed):
            expected[at % 7] = key
        torch.testing.assert_close(loss.queue, torch.stack(expected))
        assert loss.position == len(fed) % 7


def test_a_batch_larger_than_the_queue_leaves_its_last_keys():
    loss = MoCoLoss(queue_size=4)
    anchor, positive = _views(n=10)
    loss(anchor, positive)
    rows = {tuple(row.tolist()) for row in loss.queue}
    assert rows == {tuple(row.tolist()) for row in _unit(positive)[-4:]}
    assert loss.position == 2


def test_keys_have_no_gradient_and_queries_have():
    anchor, positive = (view.requires_grad_() for view in _views())
    MoCoLoss(queue_size=5)(anchor, positive)["loss"].backward()
    assert anchor.grad.abs().sum() > 0
    assert positive.grad is None


@pytest.mark.parametrize("chunk_size", [None, 2])
def test_the_gradient_is_that_of_the_queue_before_it_moved_on(chunk_size):
    labels = torch.tensor([0, 1, 0])
    results = []
    for training in (True, False):
        torch.manual_seed(0)
        loss = MoCoLoss(queue_size=5, chunk_size=chunk_size)
        loss(*_views(seed=1), labels)
        anchor, positive = _views()
        value = loss.train(training)(anchor.requires_grad_(), positive, labels)["loss"]
        results.append((value, *torch.autograd.grad(value, anchor)))
    torch.testing.assert_close(*results)


def test_validation_leaves_the_queue_alone():
    loss = MoCoLoss(queue_size=5)
    loss(*_views())
    before = copy.deepcopy(loss.state_dict())
    loss.eval()(*_views(seed=1))
    torch.testing.assert_close(dict(loss.state_dict()), dict(before))


def test_the_queue_does_not_draw_from_the_global_generator():
    state = torch.get_rng_state()
    first, second = MoCoLoss(queue_size=5, dim=4), MoCoLoss(queue_size=5)
    second.eval()(*_views())
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first.queue, second.queue)


@pytest.mark.parametrize("dim", [None, 4])
def test_a_checkpoint_holds_the_queue(dim, tmp_path):
    loss = MoCoLoss(queue_size=7, dim=dim)
    for seed in range(3):
        loss(*_views(seed=seed), torch.tensor([seed, 1, 2]))
    torch.save(loss.state_dict(), tmp_path / "loss.pt")
    resumed = MoCoLoss(queue_size=7, dim=dim)
    resumed.load_state_dict(torch.load(tmp_path / "loss.pt"))
    arguments = (*_views(seed=5), torch.tensor([1, 8, 9]))
    torch.testing.assert_close(resumed(*arguments), loss(*arguments), rtol=0, atol=0)
    torch.testing.assert_close(dict(resumed.state_dict()), dict(loss.state_dict()))


def test_a_checkpoint_from_before_the_first_batch_loads():
    MoCoLoss(queue_size=7).load_state_dict(MoCoLoss(queue_size=7).state_dict())


def test_a_queue_of_another_size_is_refused():
    loss = MoCoLoss(queue_size=7, dim=4)
    with pytest.raises(RuntimeError, match="size mismatch for queue"):
        MoCoLoss(queue_size=8).load_state_dict(loss.state_dict())
    with pytest.raises(ValueError, match="embeddings: found 5 features, expected 4, those of the queue"):
        loss(*_views(d=5))


def test_relatives_in_the_queue_are_no_negatives():
    loss = MoCoLoss(queue_size=3)
    loss(*_views(), torch.tensor([5, 5, 5]))
    assert loss.eval()(*_views(seed=1), torch.tensor([5, 5, 5]))["loss"] == 0
    assert loss(*_views(seed=1), torch.tensor([5, 5, 6]))["loss"] > 0
    assert loss(*_views(seed=1))["loss"] > 0


def test_half_precision_modules_keep_a_queue():
    loss = MoCoLoss(queue_size=5).bfloat16()
    anchor, positive = (view.bfloat16() for view in _views())
    for _ in range(2):
        assert loss(anchor, positive)["loss"].isfinite()
    assert loss.queue.dtype == torch.bfloat16
