"""Every loss against its formula, written down as plain loops in float64, and against peers where they have it."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from viscy_losses import (
    BarlowTwinsLoss,
    CLIPLoss,
    DCLLoss,
    DebiasedLoss,
    FocalLoss,
    HardNegativeLoss,
    MoCoLoss,
    SigLIPLoss,
    SimCLRLoss,
    SupConLoss,
    TripletLoss,
    VICRegLoss,
)

LABELS = torch.tensor([4, 2, 4, 7, 7, 1])


def _views(n=6, d=5, seed=0):
    return torch.randn(2, n, d, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).unbind()


def _cosines(x, y):
    x, y = x.double().tolist(), y.double().tolist()
    return [[sum(a * b for a, b in zip(u, v, strict=True)) / math.hypot(*u) / math.hypot(*v) for v in y] for u in x]


def _negatives(i, n, labels):
    """Rows of other cells than that of row i, of 2n views."""
    keys = list(range(n)) if labels is None else labels.tolist()
    return [k for k in range(2 * n) if keys[k % n] != keys[i % n]]


def _over_views(term, anchor, positive, labels):
    """Mean over the views i of term(similarity to the other view, similarities to negatives)."""
    n = len(anchor)
    s = _cosines(torch.cat([anchor, positive]), torch.cat([anchor, positive]))
    terms = [term(s[i][(i + n) % (2 * n)], [s[i][k] for k in _negatives(i, n, labels)]) for i in range(2 * n)]
    return sum(terms) / len(terms)


def _softmax_term(temperature):
    def term(p, negatives):
        attract = math.exp(p / temperature)
        return -math.log(attract / (attract + sum(math.exp(s / temperature) for s in negatives)))

    return term


def _hard_term(temperature, c):
    def term(p, negatives):
        attract, raw = math.exp(p / temperature), [math.exp(c * s) for s in negatives]
        weights = [len(raw) * w / sum(raw) for w in raw]
        mass = sum(w * math.exp(s / temperature) for w, s in zip(weights, negatives, strict=True))
        return -math.log(attract / (attract + mass))

    return term


def _debiased_term(temperature, prior):
    def term(p, negatives):
        attract, n = math.exp(p / temperature), len(negatives)
        mass = sum(math.exp(s / temperature) for s in negatives)
        corrected = max((mass - n * prior * attract) / (1 - prior), n * math.exp(-1 / temperature))
        return -math.log(attract / (attract + corrected))

    return term


def _decoupled_term(temperature):
    return lambda p, negatives: -p / temperature + math.log(sum(math.exp(s / temperature) for s in negatives))


def _focal_term(temperature, gamma):
    def term(p, negatives):
        nll = _softmax_term(temperature)(p, negatives)
        return (1 - math.exp(-nll)) ** gamma * nll

    return term


@pytest.mark.parametrize("labels", [None, LABELS], ids=["alone", "relatives"])
@pytest.mark.parametrize(
    ("loss", "term"),
    [
        (SimCLRLoss(0.2), _softmax_term(0.2)),
        (HardNegativeLoss(0.2, 1.5), _hard_term(0.2, 1.5)),
        (HardNegativeLoss(0.2, 0.5, beta_scale="logit"), _hard_term(0.2, 2.5)),
        (DebiasedLoss(0.3, 0.1), _debiased_term(0.3, 0.1)),
        (DebiasedLoss(0.5, 0.6), _debiased_term(0.5, 0.6)),
        (DCLLoss(0.2), _decoupled_term(0.2)),
        (FocalLoss(1.5, temperature=0.4), _focal_term(0.4, 1.5)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_losses_over_all_views(loss, term, labels):
    anchor, positive = _views()
    expected = _over_views(term, anchor, positive, labels)
    assert loss.forward_pairs(anchor, positive, labels).item() == pytest.approx(expected, abs=1e-10)
    assert loss.forward_pairs(anchor.float(), positive.float(), labels).item() == pytest.approx(expected, rel=2e-6)


def test_the_debiased_floor_is_reached():
    """Where positives are much more alike than negatives, the corrected sum would be negative."""
    anchor = torch.eye(6, dtype=torch.float64)
    loss = DebiasedLoss(0.2, 0.5)(anchor, anchor)["loss"]
    assert loss.item() == pytest.approx(_over_views(_debiased_term(0.2, 0.5), anchor, anchor, None), abs=1e-12)
    assert loss.item() == pytest.approx(math.log1p(10 * math.exp(-10)), abs=1e-12)


@pytest.mark.parametrize("labels", [None, LABELS], ids=["alone", "relatives"])
def test_clip(labels):
    anchor, positive = _views()
    keys = list(range(6)) if labels is None else labels.tolist()
    s, expected = _cosines(anchor, positive), 0.0
    for i in range(6):
        others = [k for k in range(6) if keys[k] != keys[i]]
        expected += _softmax_term(0.3)(s[i][i], [s[i][k] for k in others]) / 12
        expected += _softmax_term(0.3)(s[i][i], [s[k][i] for k in others]) / 12
    for learned in (False, True):
        loss = CLIPLoss(0.3, learn_temperature=learned).double()
        assert loss(anchor, positive, labels)["loss"].item() == pytest.approx(expected, abs=1e-7)


def test_clip_is_cross_entropy_of_the_logits_in_both_directions():
    anchor, positive = _views()
    logits = CLIPLoss(0.3).compute_similarity(anchor, positive)
    rows, columns = (torch.nn.functional.cross_entropy(x, torch.arange(6)) for x in (logits, logits.T))
    torch.testing.assert_close(CLIPLoss(0.3)(anchor, positive)["loss"], (rows + columns) / 2)


@pytest.mark.parametrize("labels", [None, LABELS], ids=["alone", "relatives"])
def test_siglip(labels):
    anchor, positive = _views()
    keys = list(range(6)) if labels is None else labels.tolist()
    s, expected = _cosines(anchor, positive), 0.0
    for i in range(6):
        for j in range(6):
            if i == j or keys[i] != keys[j]:
                sign = 1 if i == j else -1
                expected += math.log1p(math.exp(-sign * (s[i][j] / 0.25 - 3))) / 6
    for learned in (False, True):
        found = SigLIPLoss(0.25, -3.0, learn_temperature=learned).double()(anchor, positive, labels)["loss"]
        assert found.item() == pytest.approx(expected, abs=1e-7)


@pytest.mark.parametrize("labels", [None, LABELS, torch.zeros(6, dtype=torch.long)], ids=["alone", "classes", "one"])
def test_supcon(labels):
    anchor, positive = _views()
    keys = (list(range(6)) if labels is None else labels.tolist()) * 2
    s, expected = _cosines(torch.cat([anchor, positive]), torch.cat([anchor, positive])), 0.0
    for i in range(12):
        denominator = sum(math.exp(s[i][k] / 0.2) for k in range(12) if k != i)
        mine = [j for j in range(12) if j != i and keys[j] == keys[i]]
        expected -= sum(math.log(math.exp(s[i][j] / 0.2) / denominator) for j in mine) / len(mine) / 12
    assert SupConLoss(0.2)(anchor, positive, labels)["loss"].item() == pytest.approx(expected, abs=1e-10)


@pytest.mark.parametrize("labels", [None, LABELS], ids=["alone", "relatives"])
@pytest.mark.parametrize("mining", ["all", "hard", "semi_hard"])
@pytest.mark.parametrize("normalize", [True, False])
def test_triplet(mining, normalize, labels):
    anchor, positive = _views()
    views = torch.cat([anchor, positive])
    if normalize:
        views = views / views.norm(dim=1, keepdim=True)
    margin = 0.4
    terms = []
    for i in range(12):
        d = [math.dist(views[i].tolist(), views[k].tolist()) for k in range(12)]
        near, others = d[(i + 6) % 12], _negatives(i, 6, labels)
        chosen = {
            "all": others,
            "hard": [min(others, key=lambda k, d=d: d[k])],
            "semi_hard": [k for k in others if near < d[k] < near + margin],
        }[mining]
        terms += [max(0.0, near - d[k] + margin) for k in chosen]
    found = TripletLoss(margin, mining=mining, normalize=normalize)(anchor, positive, labels)
    assert found["loss"].item() == pytest.approx(sum(terms) / len(terms), abs=1e-10)
    assert found["violations"].item() == pytest.approx(sum(term > 0 for term in terms) / len(terms))


def test_vicreg():
    anchor, positive = _views()
    n, d = anchor.shape
    invariance = sum((anchor - positive).flatten().square().tolist()) / (n * d)
    variance = covariance = 0.0
    for view in (anchor, positive):
        c = torch.cov(view.T)
        variance += sum(max(0.0, 1 - math.sqrt(c[k, k] + 1e-4)) for k in range(d)) / d / 2
        covariance += sum(c[k, m].item() ** 2 for k in range(d) for m in range(d) if k != m) / d
    found = VICRegLoss(20.0, 10.0, 2.0)(anchor, positive)
    assert found["invariance"].item() == pytest.approx(invariance)
    assert found["variance"].item() == pytest.approx(variance)
    assert found["covariance"].item() == pytest.approx(covariance)
    assert found["loss"].item() == pytest.approx(20 * invariance + 10 * variance + 2 * covariance, abs=1e-10)


def test_barlow_twins():
    anchor, positive = _views()
    norm = torch.nn.BatchNorm1d(5, affine=False).double()
    c = (norm(anchor).T @ norm(positive) / 6).tolist()
    diagonal = sum((1 - c[k][k]) ** 2 for k in range(5))
    rest = sum(c[k][m] ** 2 for k in range(5) for m in range(5) if k != m)
    found = BarlowTwinsLoss(0.02)(anchor, positive)
    assert found["invariance"].item() == pytest.approx(diagonal)
    assert found["redundancy"].item() == pytest.approx(rest)
    assert found["loss"].item() == pytest.approx(diagonal + 0.02 * rest, abs=1e-10)


@pytest.mark.parametrize("labels", [None, LABELS], ids=["alone", "relatives"])
def test_moco_contrasts_with_the_keys_of_earlier_batches(labels):
    loss = MoCoLoss(0.3, queue_size=6).double()
    earlier, query, key = _views(seed=1)[1], *_views()
    loss(query, earlier, labels)
    s, expected = _cosines(query, earlier), 0.0
    for i in range(6):
        others = [k for k in range(6) if labels is None or labels[k] != labels[i]]
        expected += _softmax_term(0.3)(_cosines(query[i : i + 1], key[i : i + 1])[0][0], [s[i][k] for k in others]) / 6
    assert loss(query, key, labels)["loss"].item() == pytest.approx(expected, abs=1e-10)


def test_focal_of_classes():
    logits = torch.randn(7, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    target, weight = torch.tensor([0, 2, 1, 1, -100, 0, 2]), [0.5, 2.0, 1.0]
    terms, total = [], 0.0
    for row, y in zip(logits.tolist(), target.tolist(), strict=True):
        if y >= 0:
            p = math.exp(row[y]) / sum(map(math.exp, row))
            terms.append(-weight[y] * (1 - p) ** 1.5 * math.log(p))
            total += weight[y]
    found = FocalLoss(1.5, weight)(logits, target)["loss"]
    assert found.item() == pytest.approx(sum(terms) / total, abs=1e-10)


class TestPeers:
    """Values and gradients of other libraries."""

    @settings(max_examples=15, deadline=None)
    @given(seed=st.integers(0, 999), n=st.integers(2, 8), temperature=st.floats(0.05, 1))
    def test_metric_learning(self, seed, n, temperature):
        losses = pytest.importorskip("pytorch_metric_learning.losses")
        reducers = pytest.importorskip("pytorch_metric_learning.reducers")
        anchor, positive = (view.requires_grad_() for view in _views(n, seed=seed))
        labels = torch.arange(n)
        classes = torch.randint(0, 3, (n,), generator=torch.Generator().manual_seed(seed))
        classes[0], classes[-1] = 0, 1  # of a single class the peer makes 0
        stacked = torch.cat([anchor, positive])
        pairs = [
            (SimCLRLoss(temperature)(anchor, positive), losses.NTXentLoss(temperature), labels),
            (
                SupConLoss(temperature)(anchor, positive, classes),
                losses.SupConLoss(temperature, reducer=reducers.MeanReducer()),
                classes,
            ),
            (
                TripletLoss(0.5, mining="all")(anchor, positive),
                losses.TripletMarginLoss(0.5, reducer=reducers.MeanReducer()),
                labels,
            ),
        ]
        for found, peer, y in pairs:
            expected = peer(stacked, y.repeat(2))
            torch.testing.assert_close(found["loss"], expected, atol=1e-6, rtol=1e-6)
            torch.testing.assert_close(
                torch.autograd.grad(found["loss"], [anchor, positive], retain_graph=True),
                torch.autograd.grad(expected, [anchor, positive], retain_graph=True),
                atol=1e-6,
                rtol=1e-6,
            )

    def test_vicreg_of_metric_learning(self):
        losses = pytest.importorskip("pytorch_metric_learning.losses")
        anchor, positive = (view.float() for view in _views(16))
        expected = losses.VICRegLoss(25, 25, 1)(anchor, ref_emb=positive)
        assert VICRegLoss()(anchor, positive)["loss"].item() == pytest.approx(expected.item(), rel=1e-6)

    @settings(max_examples=15, deadline=None)
    @given(seed=st.integers(0, 999), weighted=st.booleans(), reduction=st.sampled_from(["mean", "sum", "none"]))
    def test_focal_without_focus_is_cross_entropy(self, seed, weighted, reduction):
        generator = torch.Generator().manual_seed(seed)
        logits = torch.randn(4, 3, 2, 2, dtype=torch.float64, generator=generator, requires_grad=True)
        target = torch.randint(0, 3, (4, 2, 2), generator=generator)
        target[0, 0, 0] = -100
        weight = torch.rand(3, dtype=torch.float64, generator=generator) + 0.1 if weighted else None
        expected = torch.nn.functional.cross_entropy(logits, target, weight, reduction=reduction)
        found = FocalLoss(0.0, weight, reduction).double()(logits, target)["loss"]
        torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-6)
        gradients = [torch.autograd.grad(value.sum(), logits, retain_graph=True)[0] for value in (found, expected)]
        torch.testing.assert_close(*gradients, atol=1e-6, rtol=1e-6)
