"""Metrics of segmentations and images: against numbers of VisCy v2.2 where those are right, and by definition."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from viscy_utils.evaluation.metrics import (
    POD_metric,
    VOI_metric,
    labels_to_detection,
    labels_to_masks,
    mean_average_precision,
    ms_ssim_25d,
    ssim_25d,
)


@pytest.fixture
def expected(golden):
    return np.load(golden / "metrics.npz")


MASKS = arrays(bool, (6, 7))


@given(MASKS, MASKS)
@settings(deadline=None)
def test_variation_of_information_is_a_metric_by_its_definition(target, prediction):
    (found,) = VOI_metric(target, prediction)
    pairs = list(zip(target.ravel().tolist(), prediction.ravel().tolist(), strict=True))

    def entropy(values):
        shares = np.array([values.count(value) / len(values) for value in set(values)])
        return -np.sum(shares * np.log2(shares))

    x, y = ([pair[k] for pair in pairs] for k in (0, 1))
    assert found == pytest.approx(2 * entropy(pairs) - entropy(x) - entropy(y), abs=1e-9)
    assert 0 <= found <= 2
    assert VOI_metric(prediction, target)[0] == pytest.approx(found, abs=1e-9)


def test_equal_and_complementary_masks_tell_the_same():
    mask = np.random.default_rng(0).random((9, 9)) > 0.5
    for other in (mask, ~mask):
        assert VOI_metric(mask, other) == pytest.approx([0.0])
    assert VOI_metric(np.ones((4, 4)), np.ones((4, 4))) == [0.0]
    assert VOI_metric(np.arange(4) % 2, np.arange(4) // 2) == pytest.approx([2.0])
    with pytest.raises(ValueError, match="expected one shape"):
        VOI_metric(np.ones(3), np.ones(4))


def squares(*corners, size=4, shape=(40, 40)):
    image = np.zeros(shape, np.int16)
    for number, (y, x) in enumerate(corners, start=1):
        image[y : y + size, x : x + size] = number
    return image


def test_detections_are_those_of_the_reference_for_equal_numbers_of_objects(expected):
    np.testing.assert_allclose(POD_metric(expected["lab_target"], expected["lab_pred"]), expected["POD"])


def test_padding_is_no_hit():
    """Two targets and one prediction: v2.2 found 2 true positives, -1 false one and a precision of 2."""
    found = POD_metric(squares((2, 2), (20, 20)), squares((2, 3)))
    assert found == [1, 0, 1, 1.0, 0.5, pytest.approx(2 / 3)]
    found = POD_metric(squares((2, 3)), squares((2, 2), (20, 20), (30, 5)))
    assert found == [1, 2, 0, pytest.approx(1 / 3), 1.0, 0.5]


def test_frames_without_matches_or_objects_are_counted():
    some, other, none = squares((2, 2)), squares((30, 30)), np.zeros((40, 40))
    assert POD_metric(some, other) == [0, 1, 1, 0.0, 0.0, 0.0]
    assert POD_metric(some, none)[:3] == [0, 0, 1]
    assert POD_metric(none, some)[:3] == [0, 1, 0]
    assert np.isnan(POD_metric(none, none)[3:]).all()


def test_the_nearest_pair_does_not_cost_another_hit():
    def bars(*columns):
        image = np.zeros((20, 40), np.int16)
        for number, x in enumerate(columns, start=1):
            image[2:17, x : x + 3] = number
        return image

    # Half of the major axis is 8.7 pixels: 5 and 8 away are hits, 13 is none. Nearest first hits one.
    assert POD_metric(bars(2, 6), bars(7, 14))[:3] == [2, 0, 0]


CORNERS = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), max_size=6, unique=True)


@given(CORNERS, CORNERS)
@settings(max_examples=40, deadline=None)
def test_counts_add_up_and_shares_are_at_most_one(first, second):
    target, prediction = (squares(*[(6 * y + 1, 6 * x + 1) for y, x in corners]) for corners in (first, second))
    hits, false, missed, precision, recall, f1 = POD_metric(target, prediction)
    assert hits == len(set(first) & set(second))  # squares of one grid are near only to themselves
    assert (hits + missed, hits + false) == (len(first), len(second))
    assert all(np.isnan(share) or 0 <= share <= 1 for share in (precision, recall, f1))


def test_masks_and_boxes_are_those_of_the_reference(expected):
    labels = torch.from_numpy(expected["lab_target"])
    np.testing.assert_array_equal(labels_to_masks(labels), expected["masks"])
    found = labels_to_detection(labels)
    np.testing.assert_array_equal(found["boxes"], expected["boxes"])
    assert found["scores"].tolist() == [1.0] * 3
    assert found["labels"].tolist() == [0] * 3


def test_images_without_background_keep_their_first_object_and_empty_ones_have_none():
    full = torch.tensor([[1, 1], [2, 2]])
    assert labels_to_masks(full).tolist() == [[[True, True], [False, False]], [[False, False], [True, True]]]
    empty = labels_to_detection(torch.zeros(3, 4, dtype=torch.int16))
    assert (empty["masks"].shape, empty["boxes"].shape, empty["scores"].shape) == ((0, 3, 4), (0, 4), (0,))
    with pytest.raises(ValueError, match=r"expected \(Y, X\)"):
        labels_to_masks(torch.zeros(2, 3, 4))


@pytest.mark.filterwarnings("ignore")
def test_average_precision_is_that_of_the_reference_and_takes_empty_frames(expected):
    pytest.importorskip("pycocotools")
    target, prediction = (torch.from_numpy(expected[f"lab_{name}"]) for name in ("target", "pred"))
    found = mean_average_precision(prediction, target)
    for key, value in zip(expected["mAP_keys"], expected["mAP_values"], strict=True):
        if str(key) != "classes":
            assert float(found[str(key)]) == pytest.approx(value, abs=1e-5), key
    none = torch.zeros_like(target)
    assert mean_average_precision(none, target)["map"] == 0
    assert mean_average_precision(none, none)["map"] == -1


@pytest.mark.parametrize("case", [0, 1, 2])
def test_similarity_is_that_of_the_reference_at_its_data_range(expected, signed, case):
    """v2.2 takes the largest target of the batch for the range of values."""
    *shape, height, width = expected[f"meta{case}"].tolist()
    preds = (signed(tuple(shape), f"ssim_p{case}") + 1) / 2
    target = torch.from_numpy(0.7 * preds + 0.3 * (signed(tuple(shape), f"ssim_t{case}") + 1) / 2)
    found = ssim_25d(torch.from_numpy(preds), target, (height, width), True, data_range=target.max())
    for values, name in zip(found, ("ssim", "cs"), strict=True):
        np.testing.assert_allclose(values, expected[f"{name}{case}"], rtol=1e-4)


@pytest.mark.parametrize(("case", "betas"), [(0, None), (1, None), (2, (0.3, 0.7))])
def test_similarity_over_scales_is_that_of_the_reference(expected, signed, case, betas):
    *shape, clamp = expected[f"ms_meta{case}"].tolist()
    preds = (signed(tuple(shape), f"msssim_p{case}") + 1) / 2
    target = torch.from_numpy(0.8 * preds + 0.2 * (signed(tuple(shape), f"msssim_t{case}") + 1) / 2)
    options = {} if betas is None else {"betas": betas}
    found = ms_ssim_25d(torch.from_numpy(preds), target, clamp=bool(clamp), data_range=target.max(), **options)
    # v2.2 takes the range of each scale anew.
    assert float(found) == pytest.approx(float(expected[f"ms_ssim{case}"]), rel=1e-2)


def pair(seed=0, shape=(3, 1, 4, 24, 24)):
    generator = torch.Generator().manual_seed(seed)
    target = torch.rand(shape, generator=generator)
    return target + 0.3 * torch.randn(shape, generator=generator), target


def test_similarity_depends_neither_on_an_offset_of_the_range_nor_on_the_batch():
    preds, target = pair()
    preds[1], target[1] = 100 * preds[1], 100 * target[1]
    together = ssim_25d(preds, target)
    alone = torch.cat([ssim_25d(preds[k : k + 1], target[k : k + 1]) for k in range(3)])
    torch.testing.assert_close(together, alone)
    torch.testing.assert_close(ssim_25d(preds / 50, target / 50), together)
    shift = ssim_25d(preds - 1, target - 1, return_contrast_sensitivity=True)[1]
    torch.testing.assert_close(
        shift, ssim_25d(preds, target, return_contrast_sensitivity=True)[1], rtol=1e-3, atol=1e-4
    )


def test_similarity_is_one_for_equal_images_and_finite_for_constant_ones():
    _, target = pair()
    torch.testing.assert_close(ssim_25d(target, target), torch.ones(3))
    flat = torch.full((1, 1, 2, 16, 16), 3.0)
    assert float(ssim_25d(flat, flat)) == pytest.approx(1)
    assert float(ssim_25d(torch.rand(1, 1, 2, 16, 16), flat)) < 1
    torch.testing.assert_close(ms_ssim_25d(target, target, (5, 5), betas=(0.5, 0.5)), torch.tensor(1.0))


def test_similarity_over_scales_is_finite_where_images_are_opposites():
    _, target = pair()
    for clamp in (False, True):
        found = ms_ssim_25d(1 - target, target, (5, 5), clamp=clamp, betas=(0.5, 0.5))
        assert 0 <= float(found) < 0.05


def test_images_of_other_shapes_are_refused():
    preds, target = pair()
    with pytest.raises(ValueError, match="expected two of one shape"):
        ssim_25d(preds[0], target[0])
    with pytest.raises(ValueError, match=r"at least the window \(30, 30\)"):
        ssim_25d(preds, target, (30, 30))
    with pytest.raises(ValueError, match="at least the window"):
        ms_ssim_25d(preds, target)
    with pytest.warns(UserWarning, match="all 20 slices"):
        ssim_25d(torch.rand(1, 1, 20, 12, 12), torch.rand(1, 1, 20, 12, 12))
