"""Run folders: each run has its own, and names lead to them."""

from __future__ import annotations

import os

import pytest

from viscy_data.errors import InputError, MissingInputError
from viscy_utils.runs.choice import checkpoint_of, embeddings_of, refuse_older_twin
from viscy_utils.runs.folder import Run, claim_folder, find_run, place_in, update_record


def begin(root, name, started, **entries):
    folder = claim_folder(name, root)
    update_record(folder, started=started, **entries)
    return folder


def touch(path, time=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x")
    if time is not None:
        os.utime(path, (time, time))
    return path


def test_no_two_runs_share_a_folder(tmp_path):
    folders = [claim_folder(None, tmp_path) for _ in range(4)]
    assert len(set(folders)) == 4
    assert all(folder.parent == tmp_path / "runs" and not list(folder.iterdir()) for folder in folders)
    assert claim_folder("first", tmp_path) == tmp_path / "runs" / "first"
    with pytest.raises(InputError, match=r"another run[\s\S]*--run first --ckpt_path last"):
        claim_folder("first", tmp_path)
    with pytest.raises(InputError, match="a name of its own"):
        claim_folder("latest", tmp_path)


def test_a_run_may_have_a_path(tmp_path):
    folder = claim_folder(str(tmp_path / "elsewhere" / "run"), tmp_path / "root")
    assert folder == tmp_path / "elsewhere" / "run"
    assert find_run(str(folder)).path == folder


def test_the_latest_run_is_the_one_begun_last(tmp_path):
    with pytest.raises(MissingInputError, match="no run"):
        find_run("latest", tmp_path)
    begin(tmp_path, "z", "2024-01-01T10:00:00")
    newest = begin(tmp_path, "a", "2024-01-01T11:00:00")
    update_record(tmp_path / "runs" / "z", ended="2024-01-01T12:00:00")  # ends last, and is not the latest for it
    claim_folder("never_began", tmp_path)
    assert find_run("latest", tmp_path).path == newest


def test_a_misspelt_run_gets_its_nearest_name(tmp_path):
    begin(tmp_path, "resnet50", "2024-01-01T10:00:00")
    with pytest.raises(MissingInputError, match="did you mean 'resnet50'"):
        find_run("resnet5", tmp_path)


def test_entries_of_a_record_are_added(tmp_path):
    folder = begin(tmp_path, "a", "now", seed=1)
    update_record(folder, seed=2, status="finished")
    record = find_run("a", tmp_path).record
    assert {name: record[name] for name in ("started", "seed", "status")} == {
        "started": "now",
        "seed": 2,
        "status": "finished",
    }
    (folder / "run.json").write_text("{")
    with pytest.raises(InputError, match="no JSON"):
        find_run("a", tmp_path)


def test_the_best_checkpoint_is_used_unless_another_is_asked_for(tmp_path):
    folder = tmp_path / "runs" / "a"
    best, last = touch(folder / "checkpoints" / "best.ckpt", 2), touch(folder / "checkpoints" / "last.ckpt", 1)
    recorded = Run(folder, {"checkpoints": {"best": ["checkpoints/best.ckpt"], "last": ["checkpoints/last.ckpt"]}})
    for run in (recorded, Run(folder)):
        assert checkpoint_of(run) == best
        assert checkpoint_of(run, "last") == last
    best.unlink()
    assert checkpoint_of(recorded) == last
    with pytest.raises(InputError, match="no best checkpoint"):
        checkpoint_of(recorded, "best")
    last.unlink()
    with pytest.raises(InputError, match=r"no checkpoint[\s\S]*another run"):
        checkpoint_of(recorded)


def test_of_an_old_folder_the_one_checkpoint_is_used(tmp_path):
    only = touch(tmp_path / "checkpoints" / "epoch=3-step=40.ckpt")
    assert checkpoint_of(Run(tmp_path)) == only
    last = touch(tmp_path / "checkpoints" / "last.ckpt")
    assert checkpoint_of(Run(tmp_path)) == last


@pytest.mark.parametrize("names", [("last", "last-v1"), ("best", "best-v1", "last"), ("epoch=1", "epoch=2")])
def test_what_may_mean_two_checkpoints_is_refused(tmp_path, names):
    paths = [touch(tmp_path / "checkpoints" / f"{name}.ckpt") for name in names]
    with pytest.raises(InputError, match="--ckpt_path") as caught:
        checkpoint_of(Run(tmp_path))
    assert all(str(path) in str(caught.value) for path in paths[:2])


def test_the_embeddings_of_a_run_are_those_predicted_with_it(tmp_path):
    folder = begin(tmp_path, "a", "now")
    with pytest.raises(InputError, match=r"no embeddings[\s\S]*predict --config .*config.yaml"):
        embeddings_of(find_run("a", tmp_path))
    paths = [touch(folder / "embeddings.zarr"), touch(tmp_path / "other.zarr")]
    update_record(folder, predictions=[place_in(folder, paths[0]), "gone.zarr"])
    assert find_run("a", tmp_path).record["predictions"][0] == "embeddings.zarr"
    assert embeddings_of(find_run("a", tmp_path)) == paths[0]
    update_record(folder, predictions=[place_in(folder, path) for path in paths])
    with pytest.raises(InputError, match="2 predictions"):
        embeddings_of(find_run("a", tmp_path))


def test_a_checkpoint_with_a_newer_twin_is_refused(tmp_path):
    older, newer = touch(tmp_path / "last.ckpt", 100), touch(tmp_path / "last-v1.ckpt", 200)
    with pytest.raises(InputError, match=r"last-v1\.ckpt beside it, which is newer"):
        refuse_older_twin(older)
    refuse_older_twin(newer)
    os.utime(older, (300, 300))
    refuse_older_twin(older)
    touch(tmp_path / "last-vae.ckpt", 900)
    refuse_older_twin(older)
