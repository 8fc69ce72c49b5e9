"""Contrastive losses against slow loops, closed forms, and themselves in blocks."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from viscy_losses import functional as F


def _loop(query, reference, pairs, negatives, temperature, concentration):
    """Loss of every pair by explicit loops in python floats; `negatives` lists (query, reference), repeats count."""
    unit = [torch.nn.functional.normalize(x.double(), dim=1) for x in (query, reference)]
    s = (unit[0] @ unit[1].T).tolist()
    losses = []
    for i, j in pairs:
        mine = [k for q, k in negatives if q == i]
        raw = [math.exp(concentration * s[i][k]) for k in mine]
        mass = sum(len(mine) * w / sum(raw) * math.exp(s[i][k] / temperature) for w, k in zip(raw, mine, strict=True))
        attract = math.exp(s[i][j] / temperature)
        losses.append(-math.log(attract / (attract + mass)))
    return losses


def _embeddings(n, d=5, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


def _label_pairs(labels):
    n = len(labels)
    every = [(i, j) for i in range(n) for j in range(n)]
    positive = [(i, j) for i, j in every if i != j and labels[i] == labels[j]]
    return positive, [(i, j) for i, j in every if labels[i] != labels[j]]


@settings(max_examples=30, deadline=None)
@given(
    labels=st.lists(st.integers(0, 3), min_size=2, max_size=9),
    temperature=st.floats(0.05, 2),
    concentration=st.floats(0, 5),
    seed=st.integers(0, 99),
    chunk=st.sampled_from([None, 1, 2, 4]),
)
def test_general_labels_equal_the_loop_over_pairs(labels, temperature, concentration, seed, chunk):
    z = _embeddings(len(labels), seed=seed)
    found = F.contrast(z, z, F.label_relations(torch.tensor(labels)), temperature, concentration, chunk_size=chunk)
    pairs, negatives = _label_pairs(labels)
    expected = _loop(z, z, pairs, negatives, temperature, concentration)
    assert list(zip(found.query.tolist(), found.positive.tolist(), strict=True)) == pairs
    torch.testing.assert_close(found.losses, torch.tensor(expected, dtype=torch.float32), atol=1e-5, rtol=1e-4)


def test_own_references_are_compared_with_every_row():
    query, reference = _embeddings(3), _embeddings(4, seed=1)
    labels, others = torch.tensor([0, 1, 2]), torch.tensor([0, 1, 1, 3])
    found = F.contrast(query, reference, F.label_relations(labels, others), 0.5, 1.0)
    pairs = [(0, 0), (1, 1), (1, 2)]
    negatives = [(i, k) for i in range(3) for k in range(4) if labels[i] != others[k]]
    torch.testing.assert_close(found.losses, torch.tensor(_loop(query, reference, pairs, negatives, 0.5, 1.0)))


@pytest.mark.parametrize("chunk", [None, 2])
def test_listed_negatives_count_as_often_as_listed(chunk):
    z = _embeddings(5)
    positives, negatives = [(0, 1), (3, 4), (3, 4)], [(0, 2), (0, 2), (0, 3), (3, 0), (3, 1)]
    relation = F.listed_relations(
        tuple(torch.tensor(positives).unbind(1)), tuple(torch.tensor(negatives).unbind(1)), len(z)
    )
    found = F.contrast(z, z, relation, 0.3, 2.0, chunk_size=chunk)
    torch.testing.assert_close(found.losses, torch.tensor(_loop(z, z, positives, negatives, 0.3, 2.0)))


def test_two_views_equal_labels_that_occur_twice():
    a, p = _embeddings(6), _embeddings(6, seed=1)
    views = torch.cat([a, p])
    expected = F.contrast(views, views, F.label_relations(torch.arange(6).repeat(2)), 0.1, 0.5).losses.mean()
    torch.testing.assert_close(F.nt_xent(a, p, 0.1, 0.5), expected)


def test_orthogonal_cells_have_the_closed_form():
    views = torch.eye(8)
    assert F.nt_xent(views, views, temperature=0.5).item() == pytest.approx(math.log(math.e**2 + 14) - 2, abs=1e-6)


def test_high_temperature_tends_to_chance():
    assert F.nt_xent(_embeddings(8), _embeddings(8, seed=1), temperature=1e5).item() == pytest.approx(
        math.log(15), abs=1e-3
    )


def test_loss_does_not_depend_on_which_view_comes_first():
    a, p = _embeddings(6), _embeddings(6, seed=1)
    torch.testing.assert_close(F.nt_xent(a, p, 0.2, 1.0), F.nt_xent(p, a, 0.2, 1.0))


def test_cells_of_one_group_do_not_repel():
    a, p = _embeddings(4), _embeddings(4, seed=1)
    groups = [0, 1, 0, 2]
    views = torch.cat([a, p])
    pairs = [(i, (i + 4) % 8) for i in range(8)]
    negatives = [(i, k) for i in range(8) for k in range(8) if groups[i % 4] != groups[k % 4]]
    expected = sum(_loop(views, views, pairs, negatives, 0.2, 1.0)) / 8
    assert F.nt_xent(a, p, 0.2, 1.0, groups=torch.tensor(groups)).item() == pytest.approx(expected, abs=1e-5)


def test_a_query_without_negatives_has_no_loss_and_no_gradient():
    a, p = _embeddings(3).requires_grad_(), _embeddings(3, seed=1)
    loss = F.nt_xent(a, p, 0.2, 1.0, groups=torch.zeros(3))
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(a.grad, torch.zeros_like(a))


@pytest.mark.parametrize("concentration", [0.0, 2.0])
@pytest.mark.parametrize("chunk", [1, 3, 7, 100])
def test_blocks_of_rows_give_the_same_value_and_gradient(chunk, concentration):
    results = []
    for chunk_size in (None, chunk):
        a, p = _embeddings(7).requires_grad_(), _embeddings(7, seed=1).requires_grad_()
        groups = torch.tensor([0, 1, 2, 2, 3, 4, 5])
        loss = F.nt_xent(a, p, 0.1, concentration, groups=groups, chunk_size=chunk_size)
        results.append((loss, *torch.autograd.grad(loss, (a, p))))
    torch.testing.assert_close(results[0], results[1], atol=1e-6, rtol=1e-5)


def test_gradient_equals_finite_differences():
    z = _embeddings(6).double().requires_grad_()
    relation = F.label_relations(torch.tensor([0, 0, 1, 1, 2, 0]))
    assert torch.autograd.gradcheck(lambda z: F.contrast(z, z, relation, 0.3, 1.5).losses.sum(), z)


def _saved_bytes(n, chunk_size):
    """Bytes kept for the backward pass, each storage once."""
    a, p = _embeddings(n).requires_grad_(), _embeddings(n, seed=1)
    kept = {}

    def pack(saved):
        kept[saved.untyped_storage().data_ptr()] = saved.untyped_storage()
        return saved

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda saved: saved):
        F.nt_xent(a, p, 0.1, 0.5, chunk_size=chunk_size)
    return sum(storage.nbytes() for storage in kept.values())


def test_memory_kept_for_backward_is_quadratic_not_cubic():
    ratio = _saved_bytes(128, None) / _saved_bytes(64, None)
    assert 3 < ratio < 4.2


def test_memory_kept_for_backward_is_linear_in_blocks():
    ratio = _saved_bytes(256, 16) / _saved_bytes(128, 16)
    assert ratio < 2.2
    assert _saved_bytes(256, 16) < _saved_bytes(256, None) / 16


def test_weights_have_mean_one_and_prefer_the_similar():
    s, negatives = torch.tensor([[0.9, 0.1, -0.5, 0.3]]), torch.tensor([[True, True, False, True]])
    weights = F.hard_negative_weights(s, negatives, 3.0)
    assert weights.sum().item() == pytest.approx(3)
    assert weights[0, 2] == 0
    assert weights[0, 0] > weights[0, 3] > weights[0, 1]
    torch.testing.assert_close(F.hard_negative_weights(s, negatives, 0.0), negatives.float())
    assert torch.equal(F.hard_negative_weights(s, torch.zeros_like(negatives), 3.0), torch.zeros(1, 4))


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 999), concentration=st.floats(0, 20))
def test_mass_is_the_sum_over_explicit_weights(seed, concentration):
    generator = torch.Generator().manual_seed(seed)
    s = (torch.rand(3, 6, generator=generator) * 2 - 1).double()
    counts = torch.randint(0, 3, (3, 6), generator=generator)
    weights = F.hard_negative_weights(s, counts, concentration)
    expected = (counts * weights * (s / 0.2).exp()).sum(1).log()
    torch.testing.assert_close(F.log_negative_mass(s, counts, 0.2, concentration), expected)


def test_cosine_is_computed_in_full_precision_under_autocast():
    z = _embeddings(16, 64)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        s = F.cosine_similarity(z, z)
    assert s.dtype == torch.float32
    torch.testing.assert_close(s, F.cosine_similarity(z.double(), z.double()).float(), atol=1e-6, rtol=0)


def test_rows_that_are_not_finite_are_named():
    z = _embeddings(6)
    F.check_finite(z)
    z[2, 1], z[4, 0] = math.nan, math.inf
    with pytest.raises(ValueError, match=r"anchors: 2 of 6 rows hold NaN or infinite values \(row 2, 4\)"):
        F.check_finite(z, "anchors")
