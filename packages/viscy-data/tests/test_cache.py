from __future__ import annotations

import logging
import os
import signal
import stat
import time
from multiprocessing import get_context

import numpy as np
import pytest

from viscy_data.cache import cache_root, check_space, fill_once, folder_size, readable_size
from viscy_data.errors import InputError
from viscy_data.store_copies import StoreCopy
from viscy_data.stores import PlateWriter, read_fovs, read_stack
from viscy_data.testing.foreign import write_foreign_image, write_foreign_series


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


def test_what_the_disk_cannot_hold_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"(?s)expected 1024\.0 TiB for the copy.*take less"):
        check_space(tmp_path, 1 << 50, "take less")
    assert readable_size(5) == "5.0 B"


# Copies of stores


def pixels(value):
    return np.full((1, 1, 1, 8, 8), value, np.uint8)


def plate_at(path, *values):
    with PlateWriter(path, ["a"]) as writer:
        for number, value in enumerate(values):
            writer.write(f"A/1/{number}", pixels(value))
    return path


def images_at(folder, *names):
    for value, name in enumerate(names):
        write_foreign_image(folder / name, pixels(value), channel_names=["a"])
    return folder


def test_stores_of_one_name_and_changed_stores_have_copies_of_their_own(tmp_path, caplog):
    paths = [plate_at(tmp_path / name / "plate.zarr", value) for name, value in (("a", 1), ("b", 2))]
    first, second = copies = [StoreCopy(path, tmp_path) for path in paths]
    for copy, value in zip(copies, (1, 2), strict=True):
        with caplog.at_level(logging.INFO, logger="viscy_data"):
            copy.make()
        assert f"({readable_size(folder_size(copy.folder))}) is read from its copy {copy.folder}; rm -r" in caplog.text
        [fov] = read_fovs(copy.source)
        assert (fov.store, fov.name) == (str(copy.folder), "A/1/0")
        assert (read_stack(fov, 0, 0) == value).all()
    assert first.folder != second.folder
    assert StoreCopy(paths[0], tmp_path).folder == first.folder
    next(path for path in paths[0].rglob("*") if path.is_file()).touch()
    assert StoreCopy(paths[0], tmp_path).folder != first.folder


@pytest.mark.parametrize(
    "source",
    [
        "images/*.zarr",
        "images/a.zarr",
        "images/*/b.zarr",
        ["images/y/b.zarr", "plate.zarr"],
        "plate.zarr/A/1/1",
        "plate.zarr/A/1/[01]",
        "series.zarr",
        ["series.zarr/0", "series.zarr/1"],
    ],
)
def test_fovs_of_a_copy_have_the_names_and_pixels_of_their_source(tmp_path, source):
    plate_at(tmp_path / "plate.zarr", 4, 5)
    images_at(tmp_path / "images", "a.zarr", "c.zarr", "x/b.zarr", "y/b.zarr")
    write_foreign_series(tmp_path / "series.zarr", {"0": pixels(8), "1": pixels(9)}, channel_names=["a"])
    given = [str(tmp_path / path) for path in ([source] if isinstance(source, str) else source)]
    copy = StoreCopy(given, tmp_path / "scratch")
    copy.make()
    copied, expected = read_fovs(copy.source), read_fovs(given)
    assert [fov.name for fov in copied] == [fov.name for fov in expected]
    assert {fov.store for fov in copied} == {str(copy.folder)}
    for ours, theirs in zip(copied, expected, strict=True):
        np.testing.assert_array_equal(read_stack(ours, 0, 0), read_stack(theirs, 0, 0))


def test_what_cannot_be_copied_is_refused():
    with pytest.raises(InputError, match="caching: false"):
        StoreCopy("https://example.org/plate.zarr")
