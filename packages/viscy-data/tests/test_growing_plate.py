from __future__ import annotations

import os
from contextlib import suppress

import numpy as np
import pytest

from viscy_data.errors import InputError
from viscy_data.stores import GrowingPlate, PlateWriter, read_plate, read_stack


def make(path):
    with PlateWriter(path, ["GFP"]) as plate:
        plate.create("A/1/0", (2, 1, 1, 4, 4), "uint8")


def test_a_plate_is_continued_by_its_like_and_gets_its_name_when_whole(tmp_path):
    first = GrowingPlate(tmp_path / "plate.zarr")
    first.begin({"of": "this"}, make)
    first.array("A/1/0")[0] = 7
    first.set_done(1)
    first.set_done(3, rank=1)
    later = GrowingPlate(tmp_path / "plate.zarr")
    with pytest.raises(InputError, match="field of"):
        later.begin({"of": "that"}, make)
    later.begin({"of": "this"}, make)
    assert (later.n_done(), later.n_done(1), later.n_done_by_all()) == (1, 3, 4)
    assert not later.path.exists()
    later.finish()
    assert not later.folder.exists()
    [fov] = read_plate(later.path)
    assert np.unique(read_stack(fov, 0, 0)).tolist() == [7]
    with pytest.warns(UserWarning, match="frame 1, channel 'GFP': .*fill value"):
        assert not read_stack(fov, 1, 0).any()
    with pytest.raises(FileExistsError):
        later.begin({"of": "this"}, make)


def test_a_plate_that_was_interrupted_while_it_was_made_is_made_anew(tmp_path):
    def fail(path):
        make(path)
        raise KeyboardInterrupt

    plate = GrowingPlate(tmp_path / "plate.zarr")
    with pytest.raises(KeyboardInterrupt):
        plate.begin({"of": "this"}, fail)
    plate.begin({"of": "that"}, make)
    assert plate.n_done() == 0


def test_a_plate_in_the_making_is_none_to_any_reader(tmp_path):
    plate = GrowingPlate(tmp_path / "plate.zarr")
    plate.begin({}, make)
    for path in (plate.path, plate.folder, plate.folder / "plate.zarr"):
        with pytest.raises(InputError):
            read_plate(path)


def test_a_plate_that_is_killed_while_it_gets_its_name_is_finished_by_the_next_process(tmp_path, monkeypatch):
    rename, made = os.rename, []

    def killed_at(n):
        def stand_in(*args):
            if len(made) == n:
                raise KeyboardInterrupt
            made.append(args)
            rename(*args)

        return stand_in

    for n in range(10):
        plate = GrowingPlate(tmp_path / str(n) / "plate.zarr")
        plate.begin({}, make)
        plate.array("A/1/0")[:] = 7
        made.clear()
        with monkeypatch.context() as patch, suppress(KeyboardInterrupt):
            patch.setattr(os, "rename", killed_at(n))
            plate.finish()
        if not plate.path.exists():
            again = GrowingPlate(plate.path)
            again.begin({}, lambda path: pytest.fail("made anew"))
            again.finish()
        assert np.unique(read_stack(read_plate(plate.path)[0], 1, 0)).tolist() == [7]
        if len(made) < n:
            break
    assert 2 <= len(made) < n


def test_a_plate_that_an_older_version_has_begun_is_continued(tmp_path):
    plate = GrowingPlate(tmp_path / "plate.zarr")
    plate.begin({}, make)
    (plate.folder / "root" / "zarr.json").rename(plate.folder / "plate.zarr" / "zarr.json")
    (plate.folder / "root").rmdir()
    plate.begin({}, lambda path: pytest.fail("made anew"))
    plate.array("A/1/0")[:] = 7
    plate.finish()
    assert np.unique(read_stack(read_plate(plate.path)[0], 1, 0)).tolist() == [7]


def test_overwrite_starts_over_and_keeps_the_old_plate_until_the_new_one_is_whole(tmp_path):
    make(tmp_path / "plate.zarr")
    plate = GrowingPlate(tmp_path / "plate.zarr")
    plate.begin({}, make, overwrite=True)
    plate.array("A/1/0")[:] = 1
    plate.set_done(2)
    with pytest.warns(UserWarning, match="fill value"):
        assert not read_stack(read_plate(plate.path)[0], 0, 0).any()
    plate.begin({}, make, overwrite=True)
    assert plate.n_done() == 0
    plate.array("A/1/0")[:] = 2
    plate.finish(overwrite=True)
    assert read_stack(read_plate(plate.path)[0], 1, 0).min() == 2
