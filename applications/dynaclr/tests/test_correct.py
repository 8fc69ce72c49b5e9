"""`dynaclr correct` as a user runs it: experiments that differ by a shift, controls that are alike."""

from __future__ import annotations

import json
import shutil

import anndata
import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from dynaclr.cli import cli
from viscy_utils.embeddings.store import write_anndata
from viscy_utils.evaluation.corrected_folds import FoldCorrection
from viscy_utils.evaluation.correction import fit_correction, load_correction

CONTROLS = "condition == 'uninfected'"


def embeddings(path, experiments=("first", "second"), n_tracks=80, shift=5.0, controls=("uninfected", "infected")):
    """Write cells of two conditions; every experiment adds a constant of its own, infection another one."""
    rng = np.random.default_rng(len(experiments))
    parts, rows = [], []
    for number, name in enumerate(experiments):
        track = np.repeat(np.arange(n_tracks), 4)
        fov, infected = track % 8, (track % 8) >= 4
        cells = rng.normal(size=(len(track), 6)).astype(np.float32)
        cells[:, 0] += shift * number
        cells[infected, 1] += 4
        parts.append(cells)
        rows.append(
            pd.DataFrame(
                {
                    "experiment": name,
                    "fov_name": [f"A/{f // 4 + 1}/{f % 4}" for f in fov],
                    "track_id": track,
                    "t": np.tile(np.arange(4), n_tracks),
                    "condition": np.where(infected, controls[1], controls[0]),
                }
            )
        )
    obs = pd.concat(rows, ignore_index=True)
    obs.index = [str(row) for row in range(len(obs))]
    write_anndata(anndata.AnnData(np.concatenate(parts), obs=obs), path)
    return path


def run(*arguments):
    return CliRunner().invoke(cli, ["correct", *map(str, arguments)], env={"COLUMNS": "160"})


def test_the_correction_is_fitted_on_controls_written_with_its_origin_and_judged(tmp_path):
    store = embeddings(tmp_path / "e.zarr")
    done = run(store, "--controls", CONTROLS, "--method", "center", "--label", "condition")
    assert done.exit_code == 0, done.output
    read = anndata.read_zarr(store)
    controls = (read.obs["condition"] == "uninfected").to_numpy()
    expected = fit_correction(read.X, read.obs["experiment"].astype(str).to_numpy(), controls, "center")
    np.testing.assert_array_equal(
        read.obsm["X_corrected"], expected.apply(read.X, read.obs["experiment"].astype(str).to_numpy())
    )
    origin = read.uns["X_corrected"]
    assert origin["method"] == "center"
    assert origin["controls"] == CONTROLS
    assert list(origin["groups"]) == ["first", "second"]
    assert list(origin["n_controls"]) == [160, 160]
    told = next(line for line in done.output.splitlines() if "linear probe, lower" in line)
    before, after = (float(text.split()[0]) for text in told.replace("│", "|").split("|")[2:4])
    assert before > 0.95
    assert after < 0.6
    assert "hurts" not in done.output
    assert "dynaclr evaluate" in done.output


def test_a_saved_correction_takes_a_new_plate_to_the_same_ground(tmp_path):
    store, plate = embeddings(tmp_path / "e.zarr"), embeddings(tmp_path / "new.zarr", ("third",), shift=0)
    file, output = tmp_path / "lot.npz", tmp_path / "out.zarr"
    done = run(store, "--controls", CONTROLS, "--method", "lot", "--save-transform", file)
    assert done.exit_code == 0, done.output
    _, content = load_correction(file)
    assert len(content["origin"]["embeddings_sha256"]) == 64
    done = run(plate, "--controls", CONTROLS, "--transform", file, "-o", output)
    assert done.exit_code == 0, done.output
    assert "X_corrected" not in anndata.read_zarr(plate).obsm
    means = []
    for path in (store, output):
        read = anndata.read_zarr(path)
        means.append(read.obsm["X_corrected"][(read.obs["condition"] == "uninfected").to_numpy()].mean(axis=0))
    np.testing.assert_allclose(means[0], means[1], atol=1e-3)


def of_encoder(path, digest):
    """Let embeddings say of which encoder they are."""
    read = anndata.read_zarr(path)
    read.uns["origin"] = {"checkpoint": {"path": f"{digest}.ckpt", "blake2b": digest}}
    shutil.rmtree(path)
    write_anndata(read, path)
    return path


def test_a_correction_of_another_encoder_is_warned_of(tmp_path):
    of_encoder(embeddings(tmp_path / "e.zarr"), "one")
    new = embeddings(tmp_path / "new.zarr", ("third",), shift=0)
    file = tmp_path / "lot.npz"
    run(tmp_path / "e.zarr", "--controls", CONTROLS, "--method", "lot", "--save-transform", file)
    warned = {}
    for digest in ("one", "other"):
        done = run(of_encoder(new, digest), "--controls", CONTROLS, "--transform", file, "-o", tmp_path / digest)
        assert done.exit_code == 0, done.output
        warned[digest] = "another encoder than other.ckpt" in done.output
    assert warned == {"one": False, "other": True}


def evaluated(tmp_path, *arguments):
    folder = tmp_path / "report"
    command = ["evaluate", "-e", str(tmp_path / "e.zarr"), "-o", str(folder), "--overwrite", *arguments]
    done = CliRunner().invoke(cli, command, env={"COLUMNS": "160"})
    assert done.exit_code == 0, done.output
    return {row["name"]: row for row in json.loads((folder / "report.json").read_text())}


def test_controls_of_a_held_out_experiment_that_fit_its_correction_are_not_scored(tmp_path):
    embeddings(tmp_path / "e.zarr", n_tracks=48)
    arguments = ("--correct", "lot", "--controls", CONTROLS, "--test-experiment", "second")
    rows = evaluated(tmp_path, *arguments)
    # 96 of the 192 cells of the experiment are controls, and half of their four FOVs fit the correction
    assert rows["e"]["probe"]["n_cells"] == 192
    assert rows["e, lot"]["probe"]["n_cells"] == 192 - 48
    assert rows["e, lot"]["probe"]["value"] > 0.9
    assert any("anew on the training cells" in note for note in rows["e, lot"]["notes"])


def test_a_warning_where_it_hurts(tmp_path):
    """Controls that are not alike: what is called uninfected in the second experiment is something else."""
    store = embeddings(tmp_path / "e.zarr", shift=0)
    adata = anndata.read_zarr(store)
    odd = ((adata.obs["experiment"] == "second") & (adata.obs["condition"] == "uninfected")).to_numpy()
    features = np.asarray(adata.X).copy()
    features[odd, 2] += 30 * (adata.obs["fov_name"].astype(str)[odd] == "A/1/0").to_numpy()
    adata.X = features
    write_anndata(adata, tmp_path / "odd.zarr")
    done = run(tmp_path / "odd.zarr", "--controls", CONTROLS, "--method", "center")
    assert done.exit_code == 0, done.output
    assert "it hurts here: experiment told" in done.output


def test_what_was_not_finite_has_no_corrected_features_and_is_counted(tmp_path):
    store = embeddings(tmp_path / "e.zarr")
    adata = anndata.read_zarr(store)
    features = np.asarray(adata.X).copy()
    features[[0, 5]] = np.nan
    adata.X = features
    write_anndata(adata, tmp_path / "holes.zarr")
    done = run(tmp_path / "holes.zarr", "--controls", CONTROLS, "--method", "standardize")
    assert done.exit_code == 0, done.output
    missing = np.isnan(anndata.read_zarr(tmp_path / "holes.zarr").obsm["X_corrected"]).any(axis=1)
    assert np.flatnonzero(missing).tolist() == [0, 5]
    assert "2 cells have features that are not finite" in done.output


def test_a_fold_is_corrected_by_its_training_cells_alone():
    rng = np.random.default_rng(0)
    features, groups = rng.normal(size=(40, 3)), np.repeat(["a", "b"], 20)
    controls = np.tile([True, False], 20)
    packed = FoldCorrection.pack(features, groups, controls)
    train = np.arange(40) % 4 < 2
    step = FoldCorrection("lot").fit(packed[train])
    expected = fit_correction(features[train], groups[train], controls[train], "lot").apply(features, groups)
    np.testing.assert_allclose(step.transform(packed), expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--controls", CONTROLS], "one of --method and --transform"),
        (["--controls", "condition == 'mock'", "--method", "center"], "control cells"),
        (["--controls", "conditon == 'mock'", "--method", "center"], "did you mean 'condition'"),
        (["--controls", CONTROLS, "--method", "center", "--by", "plate"], "--by"),
        (["--controls", CONTROLS, "--method", "center", "--label", "infction"], "--label"),
        (["--controls", CONTROLS, "--transform", "none.npz"], "no such file"),
    ],
)
def test_bad_input_is_a_sentence_and_leaves_the_store_alone(tmp_path, arguments, message):
    store = embeddings(tmp_path / "e.zarr", n_tracks=16)
    done = run(store, *arguments)
    assert done.exit_code == 2
    assert message in done.output
    assert "Traceback" not in done.output
    assert "X_corrected" not in anndata.read_zarr(store).obsm


def test_nothing_is_replaced_unasked(tmp_path):
    store = embeddings(tmp_path / "e.zarr", n_tracks=16)
    arguments = (store, "--controls", CONTROLS, "--method", "center", "--save-transform", tmp_path / "c.npz")
    assert run(*arguments).exit_code == 0
    assert run(*arguments).exit_code == 2
    (tmp_path / "c.npz").unlink()
    done = run(*arguments)
    assert done.exit_code == 2
    assert "an earlier correction" in done.output
    assert run(*arguments, "--overwrite").exit_code == 0
