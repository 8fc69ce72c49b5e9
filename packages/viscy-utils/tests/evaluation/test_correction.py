"""Corrections by control cells: against formulas written out, and on experiments that differ by an affine map."""

from __future__ import annotations

import io
import json
import tracemalloc
import zipfile

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import inv, sqrtm
from sklearn.covariance import LedoitWolf

from viscy_data.errors import InputError, MissingInputError
from viscy_utils.evaluation.corrected_folds import corrected, probe_cells, separability_of_cells
from viscy_utils.evaluation.correction import METHODS, fit_correction, load_correction, save_correction
from viscy_utils.evaluation.embedded import Embedded


def experiments(n_cells=2000, n_features=3, seed=0):
    """Cells of two states in three experiments, each behind an affine map of its own; state 0 are the controls."""
    rng = np.random.default_rng(seed)
    state = np.tile([False, True], n_cells // 2)
    features, groups = [], []
    for number, name in enumerate(["first", "second", "third"]):
        mixing = np.eye(n_features) + 0.2 * rng.normal(size=(n_features, n_features))
        cells = rng.normal(size=(n_cells, n_features)) @ mixing
        cells[state] += 4
        features.append(cells * (1 + number) + 10 * number)
        groups += [name] * n_cells
    return np.concatenate(features), np.array(groups), np.tile(~state, 3)


def own(features, groups, controls, name):
    return features[controls & (groups == name)]


def covariance(cells):
    return LedoitWolf().fit(cells).covariance_


def written_out(method, features, groups, controls):
    """The definitions, one cell at a time in the end."""
    names = sorted(set(groups))
    means = {name: own(features, groups, controls, name).mean(0) for name in names}
    spreads = {name: own(features, groups, controls, name).std(0) for name in names}
    shapes = {name: covariance(own(features, groups, controls, name)) for name in names}
    mean, shape = sum(means.values()) / len(names), sum(shapes.values()) / len(names)
    whitening, one = inv(sqrtm(shape)), np.eye(len(shape))
    corrected = []
    for x, name in zip(features, groups, strict=True):
        moved = x - means[name]
        if method == "center":
            corrected.append(moved + mean)
        elif method == "standardize":
            corrected.append(moved / spreads[name])
        elif method == "tvn":
            left = whitening.T @ shapes[name] @ whitening + one
            corrected.append(np.sqrt(2) * moved @ whitening @ inv(sqrtm(left)))
        else:
            root = sqrtm(shapes[name])
            corrected.append(mean + moved @ inv(root) @ sqrtm(root @ shape @ root) @ inv(root))
    return np.real(np.array(corrected))


@pytest.mark.parametrize("method", METHODS)
def test_a_correction_is_its_formula(method):
    features, groups, controls = experiments(60)
    found = fit_correction(features, groups, controls, method).apply(features, groups)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, written_out(method, features, groups, controls), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("method", METHODS)
def test_controls_of_all_groups_have_one_mean_afterwards(method):
    features, groups, controls = experiments()
    found = fit_correction(features, groups, controls, method).apply(features, groups)
    means = [own(found, groups, controls, name).mean(0) for name in ("first", "second", "third")]
    np.testing.assert_allclose(means[1:], [means[0], means[0]], atol=1e-3)


def test_optimal_transport_gives_all_controls_one_covariance():
    features, groups, controls = experiments(20_000)
    found = fit_correction(features, groups, controls, "lot").apply(features, groups)
    shapes = [np.cov(own(found, groups, controls, name).T) for name in ("first", "second", "third")]
    np.testing.assert_allclose(shapes[1:], [shapes[0], shapes[0]], rtol=0.03, atol=0.03)


@pytest.mark.parametrize("method", METHODS)
def test_other_cells_do_not_decide(method):
    """Nothing but controls is fitted: treated cells may be anything."""
    features, groups, controls = experiments(100)
    moved = np.where(controls[:, None], features, 1e6)
    one, other = (fit_correction(cells, groups, controls, method) for cells in (features, moved))
    np.testing.assert_array_equal(one.apply(features, groups), other.apply(features, groups))


@settings(max_examples=20, deadline=None)
@given(st.sampled_from(METHODS), st.integers(0, 1000))
def test_a_new_group_goes_to_the_ground_of_the_others_which_stays(method, seed):
    features, groups, controls = experiments(40, seed=seed)
    known = groups != "third"
    fitted = fit_correction(features[known], groups[known], controls[known], method)
    more = fitted.with_groups(features, groups, controls)
    np.testing.assert_array_equal(
        more.apply(features[known], groups[known]), fitted.apply(features[known], groups[known])
    )
    corrected = more.apply(features, groups)
    means = [own(corrected, groups, controls, name).mean(0) for name in ("first", "third")]
    np.testing.assert_allclose(means[0], means[1], atol=1e-3 * max(1, np.abs(means[0]).max()))


@pytest.mark.parametrize("method", METHODS)
def test_fewer_controls_than_features_and_constant_features_are_no_division_by_zero(method):
    features, groups, controls = experiments(6, n_features=20)
    features[:, 3] = 5
    assert np.isfinite(fit_correction(features, groups, controls, method).apply(features, groups)).all()


@pytest.mark.parametrize("method", METHODS)
def test_a_file_gives_the_same_correction_and_the_same_bytes(method, tmp_path):
    features, groups, controls = experiments(40)
    fitted = fit_correction(features, groups, controls, method)
    save_correction(fitted, tmp_path / "one.npz", {"embeddings": "a.zarr"})
    save_correction(fitted, tmp_path / "two.npz", {"embeddings": "a.zarr"})
    assert (tmp_path / "one.npz").read_bytes() == (tmp_path / "two.npz").read_bytes()
    loaded, content = load_correction(tmp_path / "one.npz")
    np.testing.assert_array_equal(loaded.apply(features, groups), fitted.apply(features, groups))
    assert content["origin"] == {"embeddings": "a.zarr"}
    assert content["n_controls"] == [20, 20, 20]
    with pytest.raises(FileExistsError):
        save_correction(fitted, tmp_path / "one.npz", {})


def test_what_is_no_correction_is_refused(tmp_path):
    with pytest.raises(MissingInputError, match="no such file"):
        load_correction(tmp_path / "none.npz")
    (tmp_path / "text.npz").write_text("a text")
    with pytest.raises(InputError, match="another file"):
        load_correction(tmp_path / "text.npz")
    text = np.frombuffer(json.dumps({"schema": "viscy correction 9"}).encode(), np.uint8)
    np.savez(tmp_path / "newer.npz", json=text)
    with pytest.raises(InputError, match=r"(?s)schema, viscy correction\n  found    9\n.*update viscy-utils"):
        load_correction(tmp_path / "newer.npz")
    text = np.frombuffer(json.dumps({"schema": "viscy correction 1", "groups": []}).encode(), np.uint8)
    np.savez(tmp_path / "damaged.npz", json=text)
    with pytest.raises(InputError, match="damaged"):
        load_correction(tmp_path / "damaged.npz")


def test_a_file_that_declares_more_than_it_holds_is_refused_in_little_memory(tmp_path):
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f8", "fortran_order": False, "shape": (10**13,)})
    with zipfile.ZipFile(tmp_path / "declared.npz", "w") as archive:
        archive.writestr("x.npy", header.getvalue())
    np.savez_compressed(tmp_path / "bomb.npz", x=np.zeros(2 * 10**6))  # 16 MB of zeros in 16 kB
    for name in ("declared.npz", "bomb.npz"):
        tracemalloc.start()
        with pytest.raises(InputError, match="another file"):
            load_correction(tmp_path / name)
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
        tracemalloc.stop()


def test_groups_without_controls_and_unknown_groups_are_named():
    features, groups, controls = experiments(20)
    with pytest.raises(InputError, match="second"):
        fit_correction(features, groups, controls & (groups != "second"), "center")
    fitted = fit_correction(features, groups, controls, "center")
    with pytest.raises(InputError, match=r"(?s)thirdd.*third"):
        fitted.apply(features, np.full(len(groups), "thirdd"))
    with pytest.raises(InputError, match=r"2 per cell(?s:.*)3"):
        fitted.apply(features[:, :2], groups)


def embedded():
    """Cells of two experiments and conditions, in eight FOVs each; an experiment adds a constant of its own."""
    features, groups, controls = experiments(480, n_features=4)
    chosen = groups != "third"
    number = np.arange(chosen.sum())
    fov = [f"A/{n % 2 + 1}/{n // 2 % 4}" for n in number]
    obs = pd.DataFrame({"experiment": groups[chosen], "fov_name": fov, "track_id": number, "t": 0})
    obs["condition"] = np.where(controls[chosen], "uninfected", "infected")
    return Embedded("e", features[chosen].astype(np.float32), obs), controls[chosen]


def test_probes_of_corrected_cells_fit_the_correction_in_each_fold():
    plain, controls = embedded()
    moved = corrected(plain, controls, "lot")
    names, told = plain.obs["experiment"].to_numpy(), plain.obs["condition"].to_numpy()
    assert probe_cells(plain, names, None, 0).balanced_accuracy.value > 0.95
    assert probe_cells(moved, names, None, 0).balanced_accuracy.value < 0.7
    before, after = (separability_of_cells(cells, 0).balanced_accuracy.value for cells in (plain, moved))
    assert after < before
    assert probe_cells(moved, told, None, 0).balanced_accuracy.value > 0.95


def test_cells_that_are_left_out_or_drawn_keep_their_uncorrected_features():
    plain, controls = embedded()
    moved = (
        corrected(plain, controls, "center").without(np.arange(len(controls)) % 3 == 0, "every third").sample(100, 0)
    )
    rows = moved.obs["track_id"].to_numpy()
    np.testing.assert_array_equal(moved.refit.features, plain.features[rows])
    np.testing.assert_array_equal(moved.refit.controls, controls[rows])


def test_experiments_whose_controls_cannot_be_divided_are_not_scored():
    plain, controls = embedded()
    single = controls & ((plain.obs["experiment"] == "first") | (plain.obs["fov_name"] == "A/1/0")).to_numpy()
    moved = corrected(plain, single, "center")
    score = probe_cells(moved, plain.obs["condition"].to_numpy(), None, 0).balanced_accuracy
    assert np.isnan(score.value)
    assert "controls" in score.note
