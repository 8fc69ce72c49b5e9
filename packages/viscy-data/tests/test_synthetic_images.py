"""Rendered pixels: nuisance does what it says, infection is a change of texture, and nothing depends on order."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, uniform_filter
from scipy.stats import rankdata

from viscy_data.synthetic import REPORTERS, ExperimentSpec, Nuisance, render_fov, simulate_tracks

QUIET = Nuisance(gain=1000.0, offset=100.0, blur_px=0.0, illumination=0.0, noise=0.0)
SMALL = ExperimentSpec("small", n_frames=3, n_cells=8, shape=(1, 96, 112), nuisance=QUIET)


def picture(spec: ExperimentSpec, fov_name: str = "B/1/0", seed: int = 0) -> np.ndarray:
    return render_fov(spec, simulate_tracks(spec, fov_name, seed=seed), fov_name, seed=seed)


def with_nuisance(**changes) -> ExperimentSpec:
    return replace(SMALL, nuisance=replace(QUIET, **changes))


def roughness(image: np.ndarray) -> float:
    return float((image - gaussian_filter(image, (0, 0, 0, 2, 2))).std())


def auc(score: np.ndarray, label: np.ndarray) -> float:
    """Share of (infected, healthy) pairs in order, from the rank sum."""
    n_positive, n_negative = int(label.sum()), int((~label).sum())
    return (rankdata(score)[label].sum() - n_positive * (n_positive + 1) / 2) / (n_positive * n_negative)


def test_pixels_are_whole_counts_in_tczyx_order():
    image = picture(SMALL)
    assert image.shape == (3, 2, 1, 96, 112)
    assert image.dtype == np.float32
    np.testing.assert_array_equal(image, np.rint(image))


def test_pixels_depend_on_seed_and_names_only():
    np.testing.assert_array_equal(picture(SMALL), picture(SMALL))
    assert not np.array_equal(picture(SMALL), picture(SMALL, seed=1))
    assert not np.array_equal(picture(SMALL), picture(replace(SMALL, name="other")))


def test_channels_follow_the_order_of_the_store():
    swapped = replace(SMALL, channel_names=("GFP", "Phase3D"))
    np.testing.assert_array_equal(picture(SMALL), picture(swapped)[:, ::-1])
    extra = picture(replace(SMALL, channel_names=("DAPI", "Phase3D", "GFP")))
    np.testing.assert_array_equal(picture(SMALL), extra[:, 1:])
    assert extra[:, 0].std() > 0


def test_gain_scales_and_offset_shifts_the_counts():
    base = picture(SMALL) - 100
    np.testing.assert_allclose(picture(with_nuisance(gain=2000.0)) - 100, 2 * base, atol=1.5)
    np.testing.assert_allclose(picture(with_nuisance(offset=350.0)) - 350, base, atol=1)


def test_blur_takes_fine_detail_and_keeps_the_mean():
    sharp, blurred = picture(SMALL), picture(with_nuisance(blur_px=1.5))
    assert roughness(blurred) < 0.5 * roughness(sharp)
    assert blurred.mean() == pytest.approx(sharp.mean(), rel=0.02)


def test_noise_adds_fine_detail_and_keeps_the_mean():
    sharp, noisy = picture(SMALL), picture(with_nuisance(noise=0.2))
    assert roughness(noisy - sharp) > 30
    assert noisy.mean() == pytest.approx(sharp.mean(), rel=0.01)


def test_illumination_is_a_gradient_of_the_stated_size():
    even, tilted = picture(SMALL) - 100, picture(with_nuisance(illumination=0.5)) - 100
    ratio = tilted[0, 0, 0] / even[0, 0, 0]
    y, x = np.mgrid[-0.5:0.5:96j, -0.5:0.5:112j]
    slope = np.linalg.lstsq(np.stack([y.ravel(), x.ravel()], 1), ratio.ravel() - 1, rcond=None)[0]
    assert np.hypot(*slope) == pytest.approx(0.5, abs=0.01)


def test_a_label_free_cell_has_a_bright_halo_and_a_dark_rim():
    spec = replace(SMALL, n_cells=1, n_frames=1, entering_per_hour=0.0, shape=(1, 96, 96))
    table = simulate_tracks(spec, "A/1/0", seed=5).assign(y=48.0, x=48.0, rounding=0.0)
    image = render_fov(spec, table, "A/1/0", seed=5)[0, 0, 0]
    background = np.median(image)
    distance = np.hypot(*np.mgrid[-48:48, -48:48]) / table["radius"][0]
    ring = (distance > 0.6) & (distance < 1.6)
    assert image[ring].max() > background + 80
    assert image[ring].min() < background - 30
    assert np.abs(image[distance > 2.5] - background).max() < 100


def test_a_fov_without_cells_is_background():
    spec = replace(SMALL, n_cells=0, entering_per_hour=0.0)
    assert picture(spec)[:, 1].std() == 0


def test_stacks_are_brightest_where_the_cells_are():
    spec = replace(SMALL, shape=(9, 96, 112), z_step_px=3.0)
    table = simulate_tracks(spec, "A/1/0")
    profile = render_fov(spec, table, "A/1/0")[:, 1].mean((0, 2, 3))
    assert abs(int(profile.argmax()) - 4) <= 1
    assert profile[4] - profile.min() > 5 * (profile[0] - profile.min() + 1)


def cell_statistics(spec: ExperimentSpec) -> dict[str, np.ndarray]:
    """Return mean intensities, texture statistics and the truth of the cells of the last frame, one patch per cell."""
    rows = {"infected": [], "mean": [], "gathered": [], "grain": []}
    for fov_name in spec.fov_conditions:
        table = simulate_tracks(spec, fov_name).query("rounding == 0")
        movie = render_fov(spec, simulate_tracks(spec, fov_name), fov_name)[:, :, 0]
        table = table[table["infection_progress"].isin([0.0, 1.0])]
        table = table[(table["t"] % 4 == 3) & table["y"].between(12, 243) & table["x"].between(12, 243)]
        smooth = gaussian_filter(movie, (0, 0, 1.2, 1.2))
        grain = smooth - gaussian_filter(movie, (0, 0, 3, 3))
        mean = uniform_filter(movie[:, 1], (0, 21, 21)) - spec.nuisance.offset
        for cell in table.itertuples():
            box = (cell.t, slice(int(cell.y) - 8, int(cell.y) + 9), slice(int(cell.x) - 8, int(cell.x) + 9))
            patch = smooth[:, 1][box] - spec.nuisance.offset
            rows["infected"].append(cell.infected)
            rows["mean"].append(mean[cell.t, int(cell.y), int(cell.x)])
            rows["gathered"].append(np.percentile(patch, 97) / np.median(patch))
            rows["grain"].append(grain[:, 0][box].std() / spec.nuisance.gain)
    return {name: np.array(values) for name, values in rows.items()}


@pytest.fixture(scope="module")
def two_experiments() -> list[dict[str, np.ndarray]]:
    spec = ExperimentSpec("one", n_frames=16, n_cells=20, nuisance=Nuisance(gain=400.0))
    other = replace(spec, name="two", nuisance=Nuisance(gain=1000.0, offset=300.0, blur_px=1.0, noise=0.08))
    return [cell_statistics(spec), cell_statistics(other)]


def test_texture_tells_infected_from_healthy_cells(two_experiments):
    for cells in two_experiments:
        assert auc(cells["gathered"], cells["infected"]) > 0.85
        assert auc(cells["grain"], cells["infected"]) > 0.85


def test_mean_intensity_does_not_tell_infected_cells_but_tells_experiments(two_experiments):
    for cells in two_experiments:
        assert 0.3 < auc(cells["mean"], cells["infected"]) < 0.7
    both = {name: np.concatenate([cells[name] for cells in two_experiments]) for name in two_experiments[0]}
    assert 0.35 < auc(both["mean"], both["infected"]) < 0.65
    number = np.repeat([False, True], [len(cells["mean"]) for cells in two_experiments])
    assert auc(both["mean"], number) > 0.9


@pytest.mark.parametrize("reporter", sorted(REPORTERS))
def test_infection_moves_the_reporter_and_keeps_its_amount(reporter):
    spec = replace(SMALL, reporter=reporter, n_cells=1, n_frames=1, entering_per_hour=0.0)
    table = simulate_tracks(spec, "B/1/0", seed=2).assign(y=48.0, x=56.0, rounding=0.0)
    healthy, infected = (
        render_fov(spec, table.assign(infection_progress=progress), "B/1/0", seed=2)[0, 1, 0] for progress in (0.0, 1.0)
    )
    assert (infected - 250).sum() == pytest.approx((healthy - 250).sum(), rel=0.05)
    assert np.abs(infected - healthy).sum() > 0.2 * (healthy - 250).sum()


def test_reporters_differ_in_texture():
    images = [picture(replace(SMALL, reporter=reporter), "A/1/0")[0, 1, 0] for reporter in sorted(REPORTERS)]
    centred = np.stack([(image - image.mean()).ravel() for image in images])
    correlation = np.corrcoef(centred)[np.triu_indices(len(images), 1)]
    assert correlation.max() < 0.9


def test_all_cells_of_a_frame_are_drawn_together(monkeypatch):
    calls = []

    def counted(cells):
        calls.append(len(cells.radius))
        return cells.inside

    monkeypatch.setitem(REPORTERS, "er", counted)
    spec = replace(SMALL, n_cells=12)
    table = simulate_tracks(spec, "A/1/0")
    render_fov(spec, table, "A/1/0")
    assert calls == table.groupby("t").size().tolist()
