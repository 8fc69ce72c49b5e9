"""Flips, crops and affine maps."""

from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings

import viscy_transforms as vt


def coordinates(batch, shape):
    """Images whose pixel value is the flat position."""
    return torch.arange(float(torch.tensor(shape).prod())).reshape(1, 1, *shape).repeat(batch, 1, 1, 1, 1)


def test_flips_of_each_axis_are_independent():
    x = coordinates(400, (2, 3, 4))
    out = vt.BatchedRandFlip([0, 1, 2], prob=0.5).set_random_state(seed=0)(x)
    # The value at the origin says which of the eight combinations a sample got; 50 expected of each.
    corners, counts = out[:, 0, 0, 0, 0].unique(return_counts=True)
    assert corners.tolist() == [0, 3, 8, 11, 12, 15, 20, 23]
    assert counts.min() > 25


def test_flip_axes_are_checked(batch):
    with pytest.raises(ValueError, match="not all axes of a batch"):
        vt.BatchedRandFlip(2)(batch[:, :, 0])
    with pytest.raises(ValueError, match="expected axes of 0"):
        vt.BatchedRandFlip(3)
    with pytest.raises(ValueError, match="one or more different axes"):
        vt.BatchedRandFlip([1, 1])


@settings(max_examples=25, deadline=None)
@given(
    image=st.tuples(st.integers(1, 4), st.integers(2, 7), st.integers(2, 7)),
    shrink=st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(0, 3)),
    seed=st.integers(0, 99),
)
def test_random_crops_are_windows_inside_the_image(image, shrink, seed):
    roi = tuple(max(size - less, 1) for size, less in zip(image, shrink, strict=True))
    x = coordinates(6, image)
    out = vt.BatchedRandSpatialCrop(roi).set_random_state(seed=seed)(x)
    assert out.shape == (6, 1, *roi)
    for sample, window in zip(x[:, 0], out[:, 0], strict=True):
        origin = (sample == window[0, 0, 0]).nonzero()[0].tolist()
        box = tuple(slice(start, start + size) for start, size in zip(origin, roi, strict=True))
        assert torch.equal(sample[box], window)


def test_random_crops_reach_every_place_and_differ_between_samples():
    x = coordinates(300, (1, 4, 5))
    out = vt.BatchedRandSpatialCrop((1, 2, 3)).set_random_state(seed=0)(x)
    assert sorted(out[:, 0, 0, 0, 0].unique().tolist()) == [0, 1, 2, 5, 6, 7, 10, 11, 12]


def test_random_crop_takes_all_keys_from_the_same_place(signed):
    x = signed((5, 2, 3, 9, 9))
    out = vt.BatchedRandSpatialCropd(["x", "y"], (2, 4, 4))({"first": None, "x": x, "y": x[:, :1]})
    assert torch.equal(out["x"][:, :1], out["y"])


@pytest.mark.parametrize(
    ("name", "arguments"),
    [("BatchedRandSpatialCropd", {"roi_size": 4}), ("BatchedRandLocalPixelShufflingd", {"prob": 1.0})],
)
def test_places_drawn_for_one_size_are_refused_for_another(name, arguments, signed):
    x = signed((4, 1, 4, 9, 9))
    with pytest.raises(ValueError, match=r"drawn for images of \(4, 9, 9\), found \(4, 9, 8\); all keys need one size"):
        getattr(vt, name)(["x", "y"], **arguments)({"x": x, "y": x[..., :8]})


def test_random_crop_keeps_its_distance_from_old_failures(batch):
    centre = vt.BatchedRandSpatialCrop((-1, 4, 4), random_center=False)(batch)
    assert torch.equal(centre, batch[..., 4:8, 4:8])
    with pytest.raises(ValueError, match="random_size and max_roi_size"):
        vt.BatchedRandSpatialCrop(4, random_size=True)
    with pytest.raises(ValueError, match="random_size and max_roi_size"):
        vt.BatchedRandSpatialCrop(4, max_roi_size=6)


@pytest.mark.parametrize("crop", [vt.BatchedRandSpatialCrop, vt.BatchedCenterSpatialCrop])
def test_a_crop_larger_than_the_image_is_refused(crop, batch):
    with pytest.raises(ValueError, match=r"roi_size \(3, 16, 4\) is larger than the image \(3, 12, 12\)"):
        crop((3, 16, 4))(batch)
    with pytest.raises(ValueError, match="does not have the 3 spatial axes"):
        crop((4, 4))(batch)


@pytest.mark.parametrize(("size", "roi", "start"), [(8, 4, 2), (9, 4, 2), (8, 5, 2), (9, 5, 2), (5, 5, 0), (4, 1, 2)])
def test_centre_crop_starts_at_half_the_size_minus_half_the_crop(size, roi, start):
    x = coordinates(1, (1, 1, size))
    assert vt.BatchedCenterSpatialCrop((0, 0, roi))(x).flatten().tolist() == list(range(start, start + roi))


def test_centre_crop_of_2d_images_and_keys(batch):
    out = vt.BatchedCenterSpatialCropd(["x"], 4)({"x": batch[:, :, 0], "y": 1})
    assert torch.equal(out["x"], batch[:, :, 0, 4:8, 4:8])
    assert out["y"] == 1


def affine(prob=1.0, **ranges):
    return vt.BatchedRandAffined("x", prob=prob, **ranges)


@pytest.mark.parametrize("angle", [torch.pi / 2, torch.pi, -torch.pi / 2])
def test_rotation_by_quarter_turns_moves_pixels_exactly(angle, batch):
    out = affine(rotate_range=[(angle, angle), 0.0, 0.0])({"x": batch})["x"]
    torch.testing.assert_close(out, torch.rot90(batch, round(2 * angle / torch.pi), (-2, -1)), atol=1e-4, rtol=0)


def test_interpolating_in_2d_equals_interpolating_in_3d(batch):
    in_plane = [0.0, 0.0, 0.0, 0.2, 0.0, 0.2]
    ranges = {"rotate_range": [1.0, 0.0, 0.0], "shear_range": in_plane, "translate_range": [0.0, 0.1, 0.1]}
    flat = affine(**ranges, scale_range=[(1.0, 1.0), (0.8, 1.2), (0.8, 1.2)]).set_random_state(seed=3)
    full = affine(**ranges, scale_range=[(1.0, 1.0 + 1e-6), (0.8, 1.2), (0.8, 1.2)]).set_random_state(seed=3)
    torch.testing.assert_close(flat({"x": batch})["x"], full({"x": batch})["x"], atol=1e-4, rtol=0)


def test_scale_above_one_magnifies_about_the_centre():
    x = torch.zeros(1, 1, 1, 21, 21)
    x[..., 8:13, 8:13] = 1
    out = affine(scale_range=(2.0, 2.0))({"x": x})["x"]
    # Five pixels wide at half height become ten.
    assert 9 <= (out[0, 0, 0, 10] > 0.5).sum() <= 11
    torch.testing.assert_close(out, out.flip(-1), atol=1e-5, rtol=0)


def test_one_pair_of_scales_is_one_factor_for_all_axes():
    x = torch.zeros(1, 1, 1, 33, 33)
    x[..., 12:21, 12:21] = 1
    out = affine(scale_range=(0.5, 1.5))({"x": x})["x"]
    torch.testing.assert_close(out, out.mT, atol=1e-5, rtol=0)


def test_a_number_rotates_about_z_alone(batch):
    outs = [affine(rotate_range=r).set_random_state(seed=1)({"x": batch})["x"] for r in (0.5, [0.5, 0.0, 0.0])]
    assert torch.equal(*outs)


def test_a_single_slice_is_not_turned_out_of_its_plane():
    x = torch.ones(4, 1, 1, 9, 9)
    out = affine(rotate_range=[0.0, 0.3, 0.3], translate_range=[0.5, 0.0, 0.0])({"x": x})["x"]
    assert (out[..., 4, 4] > 0.99).all()


FIXED = {
    "rotate_range": (0.7, -0.5, 0.3),
    "scale_range": (1.3, 0.9, 1.1),
    "shear_range": (0.25, -0.15, 0.05, 0.3, -0.2, 0.1),
    "translate_range": (3 / 33, 2 / 33, 1 / 33),
}


def recovered_map(**values):
    """Return matrix and shift, in x, y, z and pixels, of the affine map with ranges of one value each."""
    size, around = 33, 4
    axis = torch.arange(size) - size // 2.0
    zyx = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"))  # interpolation is exact on ramps
    ranges = {key: [(value, value) for value in entry] for key, entry in values.items()}
    out = affine(**ranges)({"x": zyx[None]})["x"][0]
    middle = (slice(None), *[slice(size // 2 - around, size // 2 + around + 1)] * 3)
    to = zyx[middle].flatten(1).flip(0).numpy().astype(float)
    source = out[middle].flatten(1).flip(0).numpy().astype(float)
    *inverse, moved = np.linalg.lstsq(np.vstack([to, np.ones_like(to[:1])]).T, source.T, rcond=None)[0]
    matrix = np.linalg.inv(np.array(inverse).T)
    return matrix, -matrix @ moved * (size - 1) / size


def test_an_affine_map_of_all_parts_is_that_of_the_reference():
    # kornia 0.9.0, get_affine_matrix3d in float64: what published augmentations were tuned with
    matrix, shift = recovered_map(**FIXED)
    expected = [
        [0.8119623, 0.1976864, 0.7632966],
        [-0.7850906, 0.8931095, -0.2206515],
        [-0.1093103, -0.4019984, 1.1799955],
    ]
    np.testing.assert_allclose(matrix, expected, atol=1e-5)
    np.testing.assert_allclose(shift, [1, 2, 3], atol=1e-4)


def test_an_affine_map_shears_scales_rotates_and_shifts():
    z, y, x = FIXED["rotate_range"]
    cross = np.array([[0, z, -y], [-z, 0, x], [y, -x, 0]])
    power, rotation = np.eye(3), np.zeros((3, 3))
    for k in range(30):  # the exponential series
        rotation += power
        power = power @ cross / (k + 1)
    zy, zx, yz, yx, xz, xy = (-np.tan(angle) for angle in FIXED["shear_range"])
    expected = np.empty((3, 3))
    for column, point in enumerate(np.eye(3)):
        px, py, pz = point
        px, py = px + zx * pz, py + zy * pz
        px, pz = px + yx * py, pz + yz * py
        py, pz = py + xy * px, pz + xz * px
        expected[:, column] = rotation @ (np.array([px, py, pz]) * FIXED["scale_range"][::-1])
    np.testing.assert_allclose(recovered_map(**FIXED)[0], expected, atol=1e-5)


@pytest.mark.parametrize("angle", [0.0, 1e-7, 1e-3])
def test_small_rotations_are_exact(angle):
    matrix, _ = recovered_map(rotate_range=(angle, 0.0, 0.0))
    expected = [[np.cos(angle), np.sin(angle), 0], [-np.sin(angle), np.cos(angle), 0], [0, 0, 1]]
    np.testing.assert_allclose(matrix, expected, atol=1e-6)


@pytest.mark.parametrize(
    ("ranges", "message"),
    [
        ({"rotate_range": [1.0, 2.0]}, "rotate_range is .* expected 3 numbers or 3 pairs"),
        ({"shear_range": [0.0, 0.1, 0.1]}, "shear_range is .* expected 6 numbers"),
        ({"shear_range": 0.1}, "shear_range is 0.1, expected 6 numbers"),
        ({"scale_range": [0.9, 1.0, 1.1]}, "scale_range is .* expected a pair .* or three pairs"),
        ({"scale_range": (0.0, 1.0)}, "factors above 0"),
        ({"rotate_range": [(0.0, 1.0, 2.0), 0.0, 0.0]}, "expected a number or a pair"),
        ({"mode": "cubic"}, "mode is 'cubic'"),
    ],
)
def test_wrong_affine_ranges_say_what_fits(ranges, message):
    with pytest.raises(ValueError, match=message):
        affine(**ranges)


def test_stacks_are_shifted_by_whole_slices_and_filled():
    x = torch.arange(1.0, 6.0).reshape(1, 1, 5, 1, 1).repeat(200, 2, 1, 3, 3)
    out = vt.BatchedRandZStackShiftd("x", max_shift=2, prob=1.0, cval=-1.0).set_random_state(seed=0)({"x": x})["x"]
    assert (out == out[..., :1, :1]).all()
    assert (out[:, 0] == out[:, 1]).all()
    shifted = {tuple(line) for line in out[:, 0, :, 0, 0].tolist()}
    assert shifted == {(3, 4, 5, -1, -1), (2, 3, 4, 5, -1), (1, 2, 3, 4, 5), (-1, 1, 2, 3, 4), (-1, -1, 1, 2, 3)}


@pytest.mark.parametrize("size", [2, 128])
def test_small_and_large_stacks_are_shifted_alike(size):
    x = torch.arange(1.0, 6.0).reshape(1, 1, 5, 1, 1).repeat(150, 1, 1, size, size)  # 80 bytes, 320 KiB a sample
    out = vt.BatchedRandZStackShiftd("x", max_shift=7, prob=0.9, cval=-1.0).set_random_state(seed=0)({"x": x})["x"]
    assert (out == out[..., :1, :1]).all()
    filled = [-1] * 7 + [1, 2, 3, 4, 5] + [-1] * 7
    assert {tuple(line) for line in out[:, 0, :, 0, 0].tolist()} == {
        tuple(filled[first : first + 5]) for first in range(15)
    }


def test_shifts_are_alike_for_all_keys_and_keep_the_dtype(batch):
    out = vt.BatchedRandZStackShiftd(["x", "y"], prob=0.7)({"x": batch.half(), "y": batch[:, :1].half()})
    assert out["x"].dtype == torch.float16
    assert torch.equal(out["x"][:, :1], out["y"])


def test_wrong_shifts_are_refused(batch):
    with pytest.raises(ValueError, match="mode is 'wrap'"):
        vt.BatchedRandZStackShiftd("x", mode="wrap")
    with pytest.raises(ValueError, match="max_shift is -1"):
        vt.BatchedRandZStackShiftd("x", max_shift=-1)
    with pytest.raises(ValueError, match="shift along z needs a batch"):
        vt.BatchedRandZStackShiftd("x")({"x": batch[:, :, 0]})


def test_elastic_displacement_is_the_same_number_of_pixels_along_every_axis():
    shape = (16, 48, 64)
    deviations = []
    for axis in range(3):
        ramp = torch.arange(float(shape[axis])).reshape([-1 if i == axis else 1 for i in range(3)]).expand(shape)
        x = ramp.expand(4, 1, *shape)
        warp = vt.BatchedRand3DElasticd("x", (2.0, 2.0), (8.0, 8.0), prob=1.0).set_random_state(seed=0)
        displacement = (warp({"x": x})["x"] - x)[..., 4:-4, 4:-4, 4:-4]
        deviations.append(displacement.std().item())
    # White noise blurred by sigma along three axes keeps 1 / (2 sigma sqrt(pi)) of its variance per axis.
    expected = 8.0 * (1 / (2 * 2.0 * torch.pi**0.5)) ** 1.5
    assert deviations == pytest.approx([expected] * 3, rel=0.25)


def test_elastic_options_are_used_or_refused(batch):
    with pytest.raises(ValueError, match="spatial_size is 4"):
        vt.BatchedRand3DElasticd("x", (1.0, 2.0), (1.0, 2.0), spatial_size=4)
    with pytest.raises(ValueError, match="elastic warp needs a batch"):
        vt.BatchedRand3DElasticd("x", (1.0, 2.0), (1.0, 2.0))({"x": batch[:, :, 0]})
    with pytest.raises(ValueError, match="sigma_range is"):
        vt.BatchedRand3DElasticd("x", (-1.0, 2.0), (1.0, 2.0))


def test_tiles_run_through_x_first_and_keep_the_statistics():
    image = torch.arange(2 * 4 * 6.0).reshape(1, 2, 4, 6)
    tiles = vt.TiledSpatialCropSamplesd("x", (2, 2, 3), 3)({"x": image, "norm_meta": "kept", "index": "dropped"})
    assert [tile["x"][0, 0, 0, 0].item() for tile in tiles] == [0, 3, 12]
    assert all(tile["norm_meta"] == "kept" and "index" not in tile for tile in tiles)
    with pytest.raises(ValueError, match=r"num_samples is 5, but .* has 4 whole tiles"):
        vt.TiledSpatialCropSamplesd("x", (2, 2, 3), 5)({"x": image})


@pytest.mark.parametrize("align_corners", [None, True])
def test_zooming_slices_in_the_plane_is_zooming_the_volume(align_corners, signed):
    x = signed((2, 3, 4, 9, 12))
    found = vt.BatchedZoom((1.0, 0.5, 1.75), "trilinear", align_corners)(x)
    expected = torch.nn.functional.interpolate(
        x, scale_factor=(1.0, 0.5, 1.75), mode="trilinear", align_corners=align_corners
    )
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("slices", [1, 5, 7, 8])
def test_slices_of_a_sample_are_interpolated_alike_however_many_there_are(slices, signed):
    x = signed((3, 1, 1, 9, 12))
    turn = affine(rotate_range=[1.0, 0.0, 0.0], scale_range=[(1.0, 1.0), (0.8, 1.2), (0.8, 1.2)])
    one = turn.set_random_state(seed=0)({"x": x})["x"]
    many = turn.set_random_state(seed=0)({"x": x.expand(-1, 2, slices, -1, -1)})["x"]
    torch.testing.assert_close(many, one.expand_as(many))


def test_zoom_needs_its_keys(batch):
    with pytest.raises(KeyError, match="absent"):
        vt.BatchedZoomd("absent", 0.5, "nearest")({"x": batch})
