"""What holds for all losses of two views: gradients, precision, odd batches, invariances, memory, bad input."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import viscy_losses
from viscy_losses import BaseLoss, ContrastiveLoss, LearnedTemperature, LossRegistry

OPTIONS = {"moco": {"queue_size": 16}}
NAMES = LossRegistry.available()
WITHOUT_NEGATIVES = ["barlow_twins", "vicreg"]
NT_XENT_FAMILY = ["clip", "dcl", "debiased", "moco", "nt_xent_hcl", "siglip", "simclr", "supcon"]
LABELS = torch.tensor([4, 2, 4, 7, 7, 1])


def _create(name, **options):
    return LossRegistry.create(name, **(OPTIONS.get(name, {}) | options))


def _views(n=6, d=8, seed=0, dtype=torch.float32):
    views = torch.randn(2, n, d, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return [view.to(dtype).clone().requires_grad_() for view in views]


def _value_and_gradients(loss, anchor, positive, labels=None):
    value = loss.forward_pairs(anchor, positive, labels)
    return [value, *torch.autograd.grad(value, [anchor, positive], allow_unused=True, materialize_grads=True)]


@pytest.mark.parametrize("name", NAMES)
def test_forward_returns_named_tensors(name):
    loss = _create(name)
    anchor, positive = _views()
    found = loss(torch.randn(6, 3), LABELS % 3) if name == "focal" else loss(anchor, positive, LABELS)
    assert isinstance(loss, BaseLoss)
    assert found["loss"].shape == ()
    assert found["loss"].requires_grad or name == "focal"
    assert all(isinstance(value, torch.Tensor) for value in found.values())


@pytest.mark.parametrize("name", NAMES)
def test_at_most_two_levels_of_inheritance(name):
    bases = type(_create(name)).__mro__
    own = [base for base in bases if base.__module__.startswith("viscy_losses") and base is not BaseLoss]
    assert len(own) <= 2


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("labels", [None, LABELS[:4]], ids=["alone", "relatives"])
def test_gradients_equal_finite_differences(name, labels):
    loss = _create(name).double().eval()
    anchor, positive = _views(4, 3, dtype=torch.float64)
    parameters = list(loss.parameters())
    inputs = (anchor, positive.detach() if name == "moco" else positive, *parameters)
    assert torch.autograd.gradcheck(lambda a, p, *_: loss.forward_pairs(a, p, labels), inputs)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_within_one_percent(name, dtype):
    exact = _value_and_gradients(_create(name), *_views(16, 32))
    found = _value_and_gradients(_create(name), *_views(16, 32, dtype=dtype))
    assert found[0].dtype == torch.float32
    assert found[0].item() == pytest.approx(exact[0].item(), rel=1e-2)
    assert all(gradient.isfinite().all() for gradient in found[1:])
    for gradient, expected in zip(found[1:], exact[1:], strict=True):
        torch.testing.assert_close(gradient.float(), expected, atol=2e-2 * expected.abs().max().item(), rtol=0)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_autocast_ends_at_the_loss(name, dtype):
    views = _views()
    expected = _value_and_gradients(_create(name), *views)
    with torch.autocast("cpu", dtype=dtype):
        value = _create(name).forward_pairs(*views)
    gradients = torch.autograd.grad(value, views, allow_unused=True, materialize_grads=True)
    torch.testing.assert_close([value, *gradients], expected)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "case", ["one cell", "identical", "zeros", "one row of zeros", "one class", "collapsed views", "huge", "tiny"]
)
def test_odd_batches_have_a_finite_value_and_gradient(name, case):
    anchor, positive = (view.detach() for view in _views())
    labels = torch.zeros(6, dtype=torch.long) if case == "one class" else None
    anchor, positive = {
        "one cell": lambda: (anchor[:1], positive[:1]),
        "identical": lambda: (torch.ones(6, 8), torch.ones(6, 8)),
        "zeros": lambda: (torch.zeros(6, 8), torch.zeros(6, 8)),
        "one row of zeros": lambda: (anchor * (torch.arange(6) > 0)[:, None], positive),
        "one class": lambda: (anchor, positive),
        "collapsed views": lambda: (anchor, anchor),
        "huge": lambda: (anchor * 1e4, positive * 1e4),
        "tiny": lambda: (anchor * 1e-4, positive * 1e-4),
    }[case]()
    found = _value_and_gradients(
        _create(name), anchor.clone().requires_grad_(), positive.clone().requires_grad_(), labels
    )
    assert all(tensor.isfinite().all() for tensor in found)
    if case == "one row of zeros" and name not in WITHOUT_NEGATIVES and name != "triplet":
        assert not found[1][0].any()


@pytest.mark.parametrize("name", [*NT_XENT_FAMILY, "focal"])
def test_hardest_positives_keep_their_gradient(name):
    """Where the share of the positive underflows, its logarithm still has a value and a slope."""
    anchor = torch.eye(6, 8)
    positive = (torch.eye(8)[6] * 0.1 - anchor).requires_grad_()
    found = _value_and_gradients(_create(name, temperature=0.01), anchor.requires_grad_(), positive)
    assert all(tensor.isfinite().all() for tensor in found)
    assert found[0] > 50
    assert found[1].abs().amax() > 1e-3


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 9999))
@pytest.mark.parametrize("name", NAMES)
def test_the_order_of_cells_does_not_matter(name, seed):
    anchor, positive = _views(seed=seed, dtype=torch.float64)
    order = torch.randperm(6, generator=torch.Generator().manual_seed(seed))
    found = _create(name).double().forward_pairs(anchor[order], positive[order], LABELS[order])
    torch.testing.assert_close(found, _create(name).double().forward_pairs(anchor, positive, LABELS))


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 9999))
@pytest.mark.parametrize("name", [name for name in NAMES if name not in (*WITHOUT_NEGATIVES, "moco")])
def test_a_rotation_of_the_embedding_does_not_matter(name, seed):
    anchor, positive = _views(seed=seed, dtype=torch.float64)
    rotation, _ = torch.linalg.qr(_views(8, 8, seed, torch.float64)[0])
    loss = _create(name).double()
    torch.testing.assert_close(
        loss.forward_pairs(anchor @ rotation, positive @ rotation, LABELS),
        loss.forward_pairs(anchor, positive, LABELS),
    )


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 9999))
@pytest.mark.parametrize("name", [name for name in NAMES if name not in WITHOUT_NEGATIVES])
def test_the_length_of_embeddings_does_not_matter(name, seed):
    anchor, positive = _views(seed=seed, dtype=torch.float64)
    lengths = torch.rand(6, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) * 10 + 0.1
    found = _create(name).double().forward_pairs(anchor * lengths, positive / lengths, LABELS)
    torch.testing.assert_close(found, _create(name).double().forward_pairs(anchor, positive, LABELS))


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 9999))
@pytest.mark.parametrize("name", WITHOUT_NEGATIVES)
def test_the_order_and_origin_of_dimensions_do_not_matter_without_negatives(name, seed):
    anchor, positive = _views(seed=seed, dtype=torch.float64)
    generator = torch.Generator().manual_seed(seed)
    order, shift = torch.randperm(8, generator=generator), torch.randn(8, dtype=torch.float64, generator=generator)
    found = _create(name).forward_pairs(anchor[:, order] + shift, positive[:, order] + shift)
    torch.testing.assert_close(found, _create(name).forward_pairs(anchor, positive))


@pytest.mark.parametrize("name", [name for name in NAMES if name != "moco"])
def test_it_does_not_matter_which_view_comes_first(name):
    anchor, positive = _views()
    loss = _create(name)
    torch.testing.assert_close(
        loss.forward_pairs(anchor, positive, LABELS), loss.forward_pairs(positive, anchor, LABELS)
    )


@pytest.mark.parametrize("name", NT_XENT_FAMILY)
@pytest.mark.parametrize("chunk_size", [1, 4, 5, 100])
def test_blocks_of_rows_give_the_same_value_and_gradient(name, chunk_size):
    results = []
    for size in (None, chunk_size):
        loss = _create(name, chunk_size=size)
        anchor, positive = _views()
        value = loss.forward_pairs(anchor, positive, LABELS)
        inputs = [anchor, positive, *loss.parameters()]
        results.append([value, *torch.autograd.grad(value, inputs, allow_unused=True, materialize_grads=True)])
    torch.testing.assert_close(*results, atol=1e-6, rtol=1e-5)


def _kept_bytes(name, n, chunk_size):
    """Bytes kept for the backward pass, each storage once."""
    kept = {}

    def pack(saved):
        kept[saved.untyped_storage().data_ptr()] = saved.untyped_storage()
        return saved

    loss = _create(name, chunk_size=chunk_size, **({"queue_size": n} if name == "moco" else {}))
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda saved: saved):
        value = loss.forward_pairs(*_views(n), torch.arange(n) // 2)
    assert value.isfinite()
    return sum(storage.nbytes() for storage in kept.values())


@pytest.mark.parametrize("name", NT_XENT_FAMILY)
def test_memory_kept_for_backward_is_quadratic_and_linear_in_blocks(name):
    assert _kept_bytes(name, 128, None) < 4.2 * _kept_bytes(name, 64, None)
    assert _kept_bytes(name, 128, 8) < 2.2 * _kept_bytes(name, 64, 8)
    assert _kept_bytes(name, 128, 8) < _kept_bytes(name, 128, None) / 4


@pytest.mark.parametrize("name", NAMES)
def test_views_that_do_not_match_are_refused(name):
    anchor, positive = (view.detach() for view in _views())
    loss = _create(name)
    with pytest.raises(ValueError, match=r"found shapes \(6, 8\) and \(5, 8\)"):
        loss.forward_pairs(anchor, positive[:5])
    with pytest.raises(ValueError, match=r"found shapes \(0, 8\)"):
        loss.forward_pairs(anchor[:0], positive[:0])
    with pytest.raises(ValueError, match=r"labels: found shape \(5,\), expected \(6,\)"):
        loss.forward_pairs(anchor, positive, LABELS[:5])
    positive[3, 1] = math.nan
    with pytest.raises(ValueError, match=r"positive embeddings: 1 of 6 rows .* \(row 3\)"):
        loss.forward_pairs(anchor, positive)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("simclr", {"temperature": 0.0}, "temperature: found 0.0, expected a number larger than 0"),
        ("focal", {"temperature": -1.0}, "temperature: found -1.0"),
        ("dcl", {"temperature": math.nan}, "temperature: found nan"),
        ("simclr", {"chunk_size": 0}, "chunk_size: found 0, expected None or at least 1"),
        ("nt_xent_hcl", {"beta": -1.0}, "beta: found -1.0, expected 0 or a larger number"),
        ("nt_xent_hcl", {"beta_scale": "loud"}, "beta_scale: found 'loud'"),
        ("debiased", {"prior": 1.0}, "prior: found 1.0, expected a probability"),
        ("clip", {"temperature": 0.001, "learn_temperature": True}, "found 0.001, expected at least 0.01"),
        ("triplet", {"margin": 0.0}, "margin: found 0.0, expected a number larger than 0"),
        ("triplet", {"mining": "soft"}, "mining: found 'soft', expected 'all', 'hard' or 'semi_hard'"),
        ("vicreg", {"variance_weight": -1.0}, "variance_weight: found -1.0"),
        ("barlow_twins", {"redundancy_weight": math.inf}, "redundancy_weight: found inf"),
        ("moco", {"queue_size": 0}, "queue_size and dim: found 0 and None"),
        ("focal", {"gamma": -0.5}, "gamma: found -0.5, expected 0 or a larger number"),
        ("focal", {"reduction": "median"}, "reduction: found 'median'"),
    ],
)
def test_parameters_out_of_range_are_refused(name, options, message):
    with pytest.raises(ValueError, match=message):
        _create(name, **options)


def test_focal_loss_of_classes_is_no_loss_of_views():
    with pytest.raises(ValueError, match="views of cells have no classes"):
        _create("focal", class_weight=[1.0, 2.0]).forward_pairs(*_views())


def test_similarity_is_divided_by_the_temperature():
    anchor, positive = _views()
    cosine = torch.nn.functional.cosine_similarity(anchor[:, None], positive, dim=2)
    torch.testing.assert_close(_create("simclr", temperature=0.2).compute_similarity(anchor, positive), cosine / 0.2)
    plain = _create("simclr", temperature=0.2, normalize=False)
    torch.testing.assert_close(plain.compute_similarity(anchor, positive), anchor @ positive.T / 0.2)


def test_a_learned_temperature_is_trained_and_bounded():
    loss = _create("clip", temperature=0.02, learn_temperature=True)
    assert isinstance(loss.get_submodule("_temperature"), LearnedTemperature)
    assert loss.temperature.item() == pytest.approx(0.02)
    anchor = _views()[0].detach()
    optimizer = torch.optim.SGD(loss.parameters(), lr=1e6)
    loss(anchor, anchor + 0.3 * _views(seed=1)[0].detach())["loss"].backward()
    optimizer.step()
    (log_scale,) = loss.parameters()
    assert log_scale.grad != 0
    assert loss.temperature.item() == pytest.approx(0.01)
    assert not list(_create("clip").parameters())


def test_a_loss_of_ones_own_takes_one_method():
    class Attraction(ContrastiveLoss):
        def query_losses(self, logits, relations):
            return -logits[relations.query, relations.positive]

    anchor, positive = _views()
    expected = -torch.nn.functional.cosine_similarity(anchor, positive).mean() / 0.5
    torch.testing.assert_close(Attraction(0.5)(anchor, positive)["loss"], expected)
    torch.testing.assert_close(
        ContrastiveLoss(0.5)(anchor, positive), _create("simclr", temperature=0.5)(anchor, positive)
    )


def test_the_package_names_all_losses():
    classes = {type(_create(name)).__name__ for name in NAMES}
    assert classes <= set(viscy_losses.__all__)
    assert set(viscy_losses.__all__) <= set(dir(viscy_losses))
    with pytest.raises(AttributeError, match="attribute SimCLR"):
        viscy_losses.SimCLR  # noqa: B018


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("labels", [None, LABELS], ids=["alone", "relatives"])
@pytest.mark.parametrize("chunk_size", [None, 4])
def test_no_loss_waits_for_the_device(name, labels, chunk_size):
    """Tensors without values (meta) refuse every question about them, be it a value or how many there are."""
    chunked = chunk_size is not None and isinstance(_create(name), ContrastiveLoss)
    loss = _create(name, **({"chunk_size": chunk_size} if chunked else {})).to("meta")
    anchor, positive = (view.detach().to("meta").requires_grad_() for view in _views())
    value = loss.forward_pairs(anchor, positive, None if labels is None else labels.to("meta"))
    value.backward()
    assert value.device.type == anchor.grad.device.type == "meta"


def test_supcon_masks_list_the_pairs_of_its_relation():
    stacked = viscy_losses.functional.stack_views(*_views(), LABELS)
    rows = slice(2, 9)
    masks = viscy_losses.functional.group_masks(stacked)(rows)
    relations = viscy_losses.functional.group_relations(stacked)(rows)
    groups = LABELS.repeat(2).tolist()
    expected = [(i, j) for i in range(7) for j in range(12) if groups[i + 2] == groups[j] and i + 2 != j]
    assert list(zip(relations.query.tolist(), relations.positive.tolist(), strict=True)) == expected
    assert masks.positives.nonzero().tolist() == [list(pair) for pair in expected]
    assert torch.equal(masks.negatives, relations.negatives)
