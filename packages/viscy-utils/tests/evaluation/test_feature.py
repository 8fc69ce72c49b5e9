"""Features of patches and tracks, against definitions written as loops and against libraries."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from skimage.feature import graycomatrix, graycoprops

from viscy_utils.evaluation.feature import CellFeatures, DynamicFeatures
from viscy_utils.evaluation.patch_measures import co_occurrence, radial_slope, spectral_entropy

mahotas = pytest.importorskip("mahotas")


@pytest.fixture
def image():
    return np.random.default_rng(0).gamma(2.0, size=(24, 20)) * 50


@pytest.fixture
def mask():
    """Two rectangles of 4 x 6 and 5 x 5 pixels."""
    mask = np.zeros((24, 20), np.uint8)
    mask[2:6, 3:9], mask[10:15, 10:15] = 1, 2
    return mask


def test_intensity_is_that_of_the_pixels(image):
    cell = CellFeatures(image)
    cell.compute_intensity_features()
    found = cell.intensity_features
    assert found["kurtosis"] == pytest.approx(stats.kurtosis(image.ravel()))
    assert found["skewness"] == pytest.approx(stats.skew(image.ravel()))
    assert found["iqr"] == pytest.approx(stats.iqr(image))
    named = (image.mean(), image.std(), image.min(), image.max())
    assert tuple(found[k] for k in ("mean_intensity", "std_dev", "min_intensity", "max_intensity")) == pytest.approx(
        named
    )
    shares = np.abs(np.fft.fft2(image)) ** 2 + 1e-10
    assert found["spectral_entropy"] == pytest.approx(stats.entropy(shares.ravel()))


def test_a_constant_patch_has_no_shape_of_its_distribution():
    cell = CellFeatures(np.full((8, 8), 3.0))
    table = cell.compute_all_features()
    assert table[["kurtosis", "skewness"]].isna().all(axis=None)
    assert table.loc[0, ["std_dev", "iqr", "contrast", "radial_intensity_gradient", "texture"]].tolist() == [0] * 5
    assert table.loc[0, "homogeneity"] == 1


def test_slopes_are_those_of_means_over_rings():
    values = np.random.default_rng(1).normal(size=(9, 12))
    for center, n_radii in (((4, 6), 4), ((4.5, 6.0), None)):
        rings = {}
        for y in range(9):
            for x in range(12):
                rings.setdefault(int(math.hypot(y - center[0], x - center[1])), []).append(values[y, x])
        radii = sorted(radius for radius in rings if n_radii is None or radius < n_radii)
        expected = stats.linregress(radii, [np.mean(rings[radius]) for radius in radii]).slope
        assert radial_slope(values, center, n_radii) == pytest.approx(expected)
    assert radial_slope(np.ones((1, 1)), (0, 0)) == 0
    cone = 20 - np.hypot(*(np.indices((33, 33)) - 16))
    assert radial_slope(cone, (16, 16), 16) == pytest.approx(-1, abs=0.02)


def test_co_occurrence_is_that_of_neighbours_at_45_degrees(image):
    levels = (255 * (image - image.min()) / np.ptp(image)).astype(np.uint8)
    expected = graycomatrix(levels, [1], [np.pi / 4], symmetric=True, normed=True)
    np.testing.assert_allclose(co_occurrence(levels), expected[:, :, 0, 0], atol=1e-12)
    cell = CellFeatures(image)
    cell.compute_texture_features()
    for name in ("contrast", "homogeneity", "dissimilarity"):
        assert cell.texture_features[name] == pytest.approx(graycoprops(expected, name)[0, 0])
    assert cell.texture_features["entropy"] == pytest.approx(spectral_entropy(image))


def test_texture_of_stripes_depends_on_direction_and_that_of_noise_less(image):
    stripes = np.tile([0.0, 0.0, 1.0, 1.0], (20, 5))
    found = []
    for patch in (stripes, stripes.T, np.random.default_rng(0).random((20, 20))):
        cell = CellFeatures(patch)
        cell.compute_texture_features()
        found.append(cell.texture_features["texture"])
    assert found[0] == pytest.approx(found[1])
    assert found[0] > 3 * found[2]


def test_morphology_is_that_of_the_regions(mask):
    image = np.zeros((24, 20))
    image[10:15, 10:15] = 8.0
    cell = CellFeatures(image, mask)
    cell.compute_morphology_features()
    found = cell.morphology_features
    assert found["area"] == (24 + 25) / 2
    perimeters = (2 * (3 + 5), 4 * 4)  # along the middles of the outer pixels
    assert found["perimeter"] == pytest.approx(np.mean(perimeters))
    assert found["perimeter_area_ratio"] == pytest.approx(sum(perimeters) / 49)
    rectangle = math.sqrt(1 - (4**2 - 1) / (6**2 - 1))
    assert found["eccentricity"] == pytest.approx((rectangle + 0) / 2, abs=1e-6)
    rings = {(4, 6): [1] * 16 + [2] * 8, (5, 5): [1] * 16 + [2] * 8 + [3]}
    assert found["intensity_localization"] == pytest.approx(8 * sum(rings[5, 5]) / sum(map(sum, rings.values())))
    assert (found["masked_area"], found["masked_intensity"]) == (25, 8 * 25 / image.size)


def test_morphology_needs_a_region(image):
    for mask in (None, np.zeros((24, 20))):
        with pytest.raises(ValueError, match="needs a segmentation_mask"):
            CellFeatures(image, mask).compute_morphology_features()
    with pytest.raises(ValueError, match="expected that of the image"):
        CellFeatures(image, np.ones((3, 3)))
    with pytest.raises(ValueError, match=r"expected \(Y, X\)"):
        CellFeatures(image[None])


def test_symmetry_does_not_change_when_the_patch_is_turned():
    y, x = np.indices((40, 40)) - 19.5
    image = np.exp(-(y**2 + 3 * x**2) / 100)
    found = []
    for patch in (image, np.rot90(image)):
        cell = CellFeatures(patch)
        cell.compute_symmetry_descriptor()
        found.append(cell.symmetry_descriptor)
    assert found[0]["zernike_mean"] == pytest.approx(found[1]["zernike_mean"], rel=1e-3)
    assert found[0]["zernike_std"] == pytest.approx(found[1]["zernike_std"], rel=1e-3)
    assert found[0]["radial_intensity_gradient"] < 0


def test_all_features_are_one_row(image, mask):
    table = CellFeatures(image, mask).compute_all_features()
    assert table.shape == (1, 9 + 5 + 7 + 3)
    assert table.notna().all(axis=None)
    assert len(CellFeatures(image).compute_all_features().columns) == 9 + 5 + 3


class TestTracks:
    @pytest.fixture
    def table(self):
        """A square walked at another pace on each side, in no order, and another track."""
        table = pd.DataFrame(
            {"track_id": [1] * 5 + [2], "t": [0, 1, 3, 4, 8, 0], "x": [0, 2, 2, 0, 0, 9], "y": [0, 0, 2, 2, 0, 9]}
        )
        return table.sample(frac=1, random_state=0)

    def test_speed_distance_and_turning_go_by_time(self, table):
        row = DynamicFeatures(table).compute_all_features(1).iloc[0]
        speeds = [0, 2, 1, 2, 0.5]
        assert row["instantaneous_velocity"] == pytest.approx(speeds)
        names = ("mean_velocity", "max_velocity", "min_velocity", "std_velocity")
        assert row[list(names)].tolist() == pytest.approx([np.mean(speeds), 2, 0, np.std(speeds)])
        assert (row["total_distance"], row["net_displacement"], row["directional_persistence"]) == (8, 0, 0)
        turning = [np.pi / 2 / 2, np.pi / 2, np.pi / 2 / 4]
        names = ("mean_angular_velocity", "max_angular_velocity", "std_angular_velocity")
        assert row[list(names)].tolist() == pytest.approx([np.mean(turning), np.pi / 2, np.std(turning)])

    def test_short_tracks_and_cells_that_stand_still_are_zero(self, table):
        row = DynamicFeatures(table).compute_all_features(2).iloc[0]
        assert row["instantaneous_velocity"] == [0.0]
        assert row.drop("instantaneous_velocity").astype(float).tolist() == [0.0] * 10
        still = table.assign(x=1.0, y=1.0)
        assert DynamicFeatures(still).compute_all_features(1)["max_angular_velocity"].tolist() == [0.0]

    def test_tables_that_cannot_be_used_are_refused(self, table):
        with pytest.raises(ValueError, match="no column x"):
            DynamicFeatures(table.drop(columns="x"))
        with pytest.raises(ValueError, match="no numbers in the column y"):
            DynamicFeatures(table.astype({"y": str}))
        features = DynamicFeatures(table)
        assert features.to_df().empty
        with pytest.raises(ValueError, match="no track 3"):
            features.compute_all_features(3)
