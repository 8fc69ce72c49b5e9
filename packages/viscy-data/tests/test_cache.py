from __future__ import annotations

import os
import signal
import stat
import time
from multiprocessing import get_context

import numpy as np
import pytest

from viscy_data.cache import cache_root, cached_store, cached_store_path, check_space, fill_once, readable_size
from viscy_data.errors import InputError
from viscy_data.stores import PlateWriter, read_plate


def fill_slowly(place, log):
    """Write in two steps, and say so."""

    def fill(temporary):
        with open(log, "a") as opened:
            opened.write("x")
        temporary.write_text("half")
        time.sleep(0.3)
        temporary.write_text("whole")

    assert fill_once(place, fill).read_text() == "whole"


def fill_and_die(place):
    def fill(temporary):
        temporary.write_text("half")
        os.kill(os.getpid(), signal.SIGKILL)

    fill_once(place, fill)


def test_one_of_several_processes_fills_and_the_others_wait(tmp_path):
    place, log = tmp_path / "copy.txt", tmp_path / "log"
    context = get_context("fork")
    processes = [context.Process(target=fill_slowly, args=(place, log)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 4
    assert log.read_text() == "x"


def test_a_process_that_dies_leaves_nothing_that_is_trusted(tmp_path):
    place = tmp_path / "copy.txt"
    process = get_context("fork").Process(target=fill_and_die, args=(place,))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert not place.exists()
    assert len(list(tmp_path.glob(".*-copy.txt"))) == 1
    assert fill_once(place, lambda temporary: temporary.write_text("whole")).read_text() == "whole"
    assert not list(tmp_path.glob(".*-copy.txt"))


def test_what_raises_leaves_nothing(tmp_path):
    def fail(temporary):
        temporary.write_text("half")
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        fill_once(tmp_path / "copy.txt", fail)
    assert not (tmp_path / "copy.txt").exists()


def test_only_the_user_reads_the_copies(tmp_path):
    root = cache_root(tmp_path / "scratch")
    assert stat.S_IMODE(root.stat().st_mode) == 0o700
    assert cache_root(tmp_path / "scratch") == root


def plate_at(path, value):
    with PlateWriter(path, ["a"]) as writer:
        writer.write("A/1/0", np.full((1, 1, 1, 8, 8), value, np.uint8))
    return path


def test_stores_of_one_name_and_changed_stores_have_copies_of_their_own(tmp_path):
    first, second = (plate_at(tmp_path / name / "plate.zarr", value) for name, value in (("a", 1), ("b", 2)))
    places = [cached_store_path(path, tmp_path) for path in (first, second)]
    assert len(set(places)) == 2
    copy = cached_store(first, tmp_path)
    assert copy == places[0] == cached_store(first, tmp_path)
    assert read_plate(copy)[0].shape == (1, 1, 1, 8, 8)
    next(path for path in first.rglob("*") if path.is_file()).touch()
    assert cached_store_path(first, tmp_path) != copy


def test_what_cannot_be_copied_is_refused(tmp_path):
    with pytest.raises(InputError, match="caching: false"):
        cached_store("https://example.org/plate.zarr")
    with pytest.raises(InputError, match=r"(?s)expected 1024\.0 TiB for the copy.*take less"):
        check_space(tmp_path, 1 << 50, "take less")
    assert readable_size(5) == "5.0 B"
