"""The pure functions: masks, mining, terms without negatives, class imbalance."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from viscy_losses import functional as F


def _random(*shape, seed=0):
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


class TestMasks:
    """Which pairs attract."""

    def test_pairs(self):
        mask = F.pair_mask(3)
        assert mask.nonzero().tolist() == [[0, 3], [1, 4], [2, 5], [3, 0], [4, 1], [5, 2]]

    @settings(max_examples=20, deadline=None)
    @given(labels=st.lists(st.integers(-1, 2), min_size=1, max_size=7), n=st.integers(1, 7))
    def test_labels_and_ids(self, labels, n):
        keys, others = torch.tensor(labels), torch.tensor(labels[:n])
        for i, key in enumerate(labels):
            for k, other in enumerate(labels):
                assert F.label_mask(keys)[i, k] == (i != k and key == other)
                assert F.id_mask(keys)[i, k] == (i != k and key == other != -1)
            for k, other in enumerate(labels[:n]):
                assert F.label_mask(keys, others)[i, k] == (key == other)
                assert F.id_mask(keys, others)[i, k] == (key == other != -1)

    def test_unknown_ids_can_be_named(self):
        assert F.id_mask(torch.tensor([0, 0, -1, -1]), unknown=0).nonzero().tolist() == [[2, 3], [3, 2]]

    @pytest.mark.parametrize("chunk_size", [None, 4])
    def test_masks_and_relations_contrast_alike(self, chunk_size):
        views, labels = _random(6, 4), torch.tensor([0, 1, 0, 2, 1, 0])
        expected = F.contrast(views, views, F.label_relations(labels), 0.2)
        relation = F.mask_relations(F.label_mask(labels))
        torch.testing.assert_close(F.contrast(views, views, relation, 0.2, chunk_size=chunk_size), expected)
        similarity = F.cosine_similarity(views, views)
        found = F.info_nce(similarity, relation(slice(0, 6)), 0.2)
        torch.testing.assert_close(found, expected.losses)
        torch.testing.assert_close(F.info_nce(similarity, F.label_mask(labels), 0.2), expected.losses)

    def test_negatives_can_be_given(self):
        positives = torch.tensor([[True, False, False]])
        negatives = torch.tensor([[False, False, True]])
        similarity = torch.tensor([[0.5, 0.9, 0.1]])
        loss = F.info_nce(similarity, F.mask_relations(positives, negatives)(slice(0, 1)), 1.0)
        assert loss.item() == pytest.approx(math.log(1 + math.exp(0.1 - 0.5)))
        rest = F.info_nce(similarity, F.mask_relations(positives)(slice(0, 1)), 1.0)
        assert rest.item() == pytest.approx(math.log(1 + math.exp(0.4) + math.exp(-0.4)))

    def test_masks_that_do_not_match_are_refused(self):
        with pytest.raises(ValueError, match=r"found torch.bool \(2, 2\) and torch.bool \(2, 3\)"):
            F.mask_relations(F.pair_mask(1), torch.zeros(2, 3, dtype=torch.bool))
        with pytest.raises(ValueError, match="expected two bool masks"):
            F.mask_relations(torch.zeros(2, 2))


class TestMining:
    """Which negatives count."""

    @settings(max_examples=25, deadline=None)
    @given(seed=st.integers(0, 9999), k=st.integers(1, 9), percentile=st.sampled_from([0, 10, 50, 75, 90, 100]))
    def test_selection_equals_the_loop(self, seed, k, percentile):
        s = _random(4, 7, seed=seed)
        negatives = torch.rand(4, 7, generator=torch.Generator().manual_seed(seed)) < 0.6
        top, share = F.top_k_negatives(s, negatives, k), F.percentile_negatives(s, negatives, percentile)
        semi = F.semi_hard_negatives(s, s[:, 0], negatives, 0.5)
        for i in range(4):
            mine = [j for j in range(7) if negatives[i, j]]
            values = s[i, mine].tolist()
            threshold = np.percentile(values, percentile) if mine else math.inf
            assert set(top[i].nonzero().flatten().tolist()) == set(sorted(mine, key=lambda j: -s[i, j])[:k])
            assert set(share[i].nonzero().flatten().tolist()) == {j for j in mine if s[i, j] >= threshold - 1e-12}
            assert set(semi[i].nonzero().flatten().tolist()) == {j for j in mine if s[i, 0] - 0.5 < s[i, j] < s[i, 0]}

    def test_mined_negatives_are_used_in_place_of_all(self):
        s, relations = _random(6, 6), F.mask_relations(F.pair_mask(3))(slice(0, 6))
        hardest = relations._replace(negatives=F.top_k_negatives(s, relations.negatives, 1))
        worst = s.masked_fill(~relations.negatives, -math.inf).amax(1)
        expected = torch.log1p(torch.exp((worst - s[relations.query, relations.positive]) / 0.5))
        torch.testing.assert_close(F.info_nce(s, hardest, 0.5), expected)

    def test_concentration_of_beta(self):
        assert F.hard_negative_concentration(0.5) == 0.5
        assert F.hard_negative_concentration(0.5, "logit", 0.1) == pytest.approx(5)

    @pytest.mark.parametrize(
        ("mine", "message"),
        [
            (lambda s, n: F.top_k_negatives(s, n, 0), "k: found 0, expected at least 1"),
            (lambda s, n: F.percentile_negatives(s, n, 101), "percentile: found 101, expected 0 to 100"),
            (lambda s, n: F.semi_hard_negatives(s, s[:, 0], n, 0.0), "margin: found 0.0, expected a number larger"),
        ],
    )
    def test_options_out_of_range_are_refused(self, mine, message):
        with pytest.raises(ValueError, match=message):
            mine(torch.zeros(2, 2), torch.ones(2, 2, dtype=torch.bool))


class TestSimilarity:
    """Normalisation and similarity."""

    def test_rows_have_length_one_and_zeros_stay(self):
        rows = _random(4, 3).requires_grad_()
        padded = torch.cat([rows, rows.new_zeros(1, 3)])
        unit = F.normalize(padded)
        torch.testing.assert_close(unit.norm(dim=1), torch.tensor([1.0, 1, 1, 1, 0], dtype=torch.float64))
        assert torch.autograd.gradcheck(F.normalize, rows)

    def test_a_row_of_zeros_has_no_gradient(self):
        rows = torch.zeros(1, 3, requires_grad=True)
        F.normalize(rows).sum().backward()
        assert not rows.grad.any()

    def test_scaled_similarity(self):
        a, b = _random(3, 4), _random(2, 4, seed=1)
        torch.testing.assert_close(F.scaled_similarity(a, b, 0.5, cosine=False), a @ b.T * 2)
        torch.testing.assert_close(F.scaled_similarity(a, b, 0.5), F.cosine_similarity(a, b) * 2)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = F.scaled_similarity(a.float(), b.float(), cosine=False)
        torch.testing.assert_close(found, (a @ b.T).float())


class TestRedundancy:
    """Terms without negatives."""

    def test_off_diagonal(self):
        matrix = _random(4, 4)
        assert F.off_diagonal(matrix).tolist() == [matrix[i, j].item() for i in range(4) for j in range(4) if i != j]
        assert F.off_diagonal(torch.ones(1, 1)).tolist() == []
        with pytest.raises(ValueError, match=r"found shape \(2, 3\), expected a square one"):
            F.off_diagonal(torch.ones(2, 3))

    def test_covariance_and_correlation_equal_numpy(self):
        a, p = _random(9, 4), _random(9, 4, seed=1)
        np.testing.assert_allclose(F.covariance(a), np.cov(a.T.numpy()), atol=1e-12)
        both = np.corrcoef(a.T.numpy(), p.T.numpy())[:4, 4:]
        np.testing.assert_allclose(F.cross_correlation(a, p, eps=0.0), both, atol=1e-12)

    def test_terms_of_known_embeddings(self):
        z = torch.tensor([[1.0, 1.0], [-1.0, -1.0]], dtype=torch.float64)  # variances and covariance 2
        assert F.covariance_term(z).item() == pytest.approx(4)
        assert F.variance_term(z, target=2.0, eps=0.0).item() == pytest.approx(2 - math.sqrt(2))
        assert F.variance_term(z).item() == 0


class TestImbalance:
    """Focal cross-entropy and weights of classes."""

    @pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0])
    def test_gradient_equals_finite_differences(self, gamma):
        logits, target = _random(5, 3, 2).requires_grad_(), torch.randint(0, 3, (5, 2))
        target[0, 0] = -100
        weight = torch.tensor([1.0, 2.0, 0.5], dtype=torch.float64)
        assert torch.autograd.gradcheck(lambda x: F.focal_cross_entropy(x, target, gamma, weight), logits)

    @pytest.mark.parametrize("gamma", [0.0, 0.3, 1.0, 5.0])
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
    def test_extreme_logits_are_finite(self, gamma, dtype):
        logits = torch.tensor([[1e4, -1e4], [-1e4, 1e4], [0, 0]], dtype=dtype).requires_grad_()
        loss = F.focal_cross_entropy(logits, torch.tensor([0, 0, 1]), gamma)
        loss.backward()
        assert loss.isfinite()
        assert logits.grad.isfinite().all()

    def test_half_precision_and_autocast(self):
        logits, target = _random(64, 4).float(), torch.randint(0, 4, (64,), generator=torch.Generator().manual_seed(0))
        exact = F.focal_cross_entropy(logits, target)
        for dtype in (torch.float16, torch.bfloat16):
            assert F.focal_cross_entropy(logits.to(dtype), target).item() == pytest.approx(exact.item(), rel=1e-2)
            with torch.autocast("cpu", dtype=dtype):
                torch.testing.assert_close(F.focal_cross_entropy(logits, target), exact)

    def test_well_told_samples_count_less(self):
        easy, hard = torch.tensor([[4.0, 0.0]]), torch.tensor([[0.0, 1.0]])
        target = torch.tensor([0])
        focal, plain = ([F.focal_cross_entropy(x, target, gamma).item() for x in (easy, hard)] for gamma in (2.0, 0.0))
        assert focal[0] / focal[1] < plain[0] / plain[1] / 100

    def test_ignored_samples_have_no_part_whatever_they_hold(self):
        logits = _random(3, 2).float()
        logits[1] = math.nan
        logits.requires_grad_()
        target = torch.tensor([0, -100, 1])
        loss = F.focal_cross_entropy(logits, target)
        loss.backward()
        torch.testing.assert_close(loss, F.focal_cross_entropy(logits[[0, 2]], target[[0, 2]]))
        assert not logits.grad[1].any()

    def test_nothing_to_count_is_zero(self):
        logits = torch.zeros(2, 2, requires_grad=True)
        for target, weight in (([-100, -100], None), ([0, 0], [0.0, 1.0])):
            loss = F.focal_cross_entropy(logits, torch.tensor(target), class_weight=weight)
            loss.backward()
            assert loss.item() == 0
            assert not logits.grad.any()

    def test_booleans_are_classes(self):
        logits, target = _random(4, 2), torch.tensor([True, False, True, True])
        torch.testing.assert_close(F.focal_cross_entropy(logits, target), F.focal_cross_entropy(logits, target.long()))

    @pytest.mark.parametrize(
        ("logits", "target", "options", "message"),
        [
            ((4, 3), [0, 1, 3, 0], {}, "target: found class 3, expected 0 to 2 or -100"),
            ((4, 3), [0, -1, 1, 0], {}, "target: found class -1"),
            ((4, 3), [0, 1], {}, r"found shapes \(4, 3\) and \(2,\)"),
            ((4, 1), [0, 0, 0, 0], {}, "with K > 1"),
            ((4, 3), [0.0, 1, 1, 0], {}, "target: found torch.float32, expected integers"),
            ((2, 2), [0, 1], {"gamma": -1.0}, "gamma: found -1.0"),
            ((2, 2), [0, 1], {"class_weight": [1.0]}, r"class_weight: found \[1.0\], expected 2 numbers"),
            ((2, 2), [0, 1], {"class_weight": [1.0, -1.0]}, "0 or larger"),
            ((2, 2), [0, 1], {"reduction": "median"}, "reduction: found 'median'"),
        ],
    )
    def test_bad_input_is_refused(self, logits, target, options, message):
        with pytest.raises(ValueError, match=message):
            F.focal_cross_entropy(torch.zeros(logits), torch.tensor(target), **options)

    def test_weights_of_classes(self):
        counts = [50, 30, 20]
        torch.testing.assert_close(F.class_weights(counts), torch.tensor([100 / 150, 100 / 90, 100 / 60]))
        torch.testing.assert_close(F.class_weights(counts, "sqrt_inverse"), F.class_weights(counts).sqrt())
        torch.testing.assert_close(F.class_weights(torch.tensor(counts), "none"), torch.ones(3))
        rare = F.class_weights([123, 1], "sqrt_inverse")
        assert (rare[1] / rare[0]).item() == pytest.approx(11.09, abs=0.01)

    @settings(max_examples=20, deadline=None)
    @given(counts=st.lists(st.integers(0, 1000), min_size=1, max_size=6).filter(any))
    def test_balanced_weights_are_those_of_scikit_learn(self, counts):
        class_weight = pytest.importorskip("sklearn.utils.class_weight")
        occurring = [k for k, n in enumerate(counts) if n]
        y = np.repeat(np.arange(len(counts)), counts)
        expected = np.zeros(len(counts))
        expected[occurring] = class_weight.compute_class_weight("balanced", classes=np.array(occurring), y=y)
        np.testing.assert_allclose(F.class_weights(counts, "balanced"), expected, rtol=1e-6)

    def test_every_class_contributes_alike(self):
        counts = torch.tensor([93.0, 7.0])
        contributions = counts * F.class_weights(counts)
        torch.testing.assert_close(contributions, torch.full((2,), 50.0))

    @pytest.mark.parametrize(
        ("counts", "method", "message"),
        [
            ([5, 0, 2], "inverse", "no sample of class 1, so that 'inverse' weights are infinite; use 'balanced'"),
            ([5, 0, 0], "sqrt_inverse", "no sample of class 1, 2"),
            ([5, 1], "squared", "class weight method: found 'squared', expected one of 'none', 'inverse'"),
            ([5, -1], "inverse", "counts: found .*-1.* expected the number of samples"),
            ([0, 0], "balanced", "counts: found"),
            ([[1, 2]], "none", "counts: found"),
            ([], "none", "counts: found"),
        ],
    )
    def test_counts_that_are_none_are_refused(self, counts, method, message):
        with pytest.raises(ValueError, match=message):
            F.class_weights(counts, method)


def test_every_name_of_the_package_is_a_function_or_a_type():
    for name in F.__all__:
        assert callable(getattr(F, name)) or name == "Relation"


def test_a_negative_listed_twice_counts_twice():
    pairs = torch.tensor([0]), torch.tensor([1])
    relate = F.listed_relations(pairs, (torch.tensor([0, 0, 0]), torch.tensor([2, 2, 3])), 4)
    assert relate(slice(0, 1)).negatives.tolist() == [[0, 0, 2, 1]]


@pytest.mark.parametrize("loss", [F.info_nce, F.decoupled_info_nce, F.debiased_info_nce])
def test_a_query_without_negatives_has_no_loss_and_no_gradient(loss):
    similarity = _random(2, 3).requires_grad_()
    positives = torch.tensor([[True, False, False], [False, True, False]])
    negatives = torch.tensor([[False, False, False], [True, False, True]])
    assert F.log_negative_mass(similarity, negatives, 0.5).isinf().tolist() == [True, False]
    losses = loss(similarity, F.mask_relations(positives, negatives)(slice(0, 2)), 0.5)
    losses.sum().backward()
    assert losses[0] == 0 < losses[1].abs()
    assert (similarity.grad[0] == 0).all()
    assert similarity.grad[1].abs().sum() > 0


@pytest.mark.parametrize(("positive", "floor"), [(-0.9, True), (-0.999, True), (-1.0, True), (-1.0, False)])
def test_a_corrected_sum_that_is_below_the_least_possible_one_is_replaced_by_it(positive, floor):
    negatives = torch.full((1, 4), -1.0 if floor else -0.5, dtype=torch.float64)
    similarity = torch.cat([torch.tensor([[positive]], dtype=torch.float64), negatives], dim=1)
    is_positive = torch.arange(5)[None] == 0
    relations = F.mask_relations(is_positive, ~is_positive)(slice(0, 1))
    corrected = (negatives.exp().sum().item() - 4 * 0.1 * math.exp(positive)) / 0.9
    least = 4 * math.exp(-1)
    assert (corrected <= least + 1e-9) == floor
    expected = math.log1p(max(corrected, least) / math.exp(positive))
    assert F.debiased_info_nce(similarity, relations, 1.0, 0.1).item() == pytest.approx(expected, abs=1e-12)
