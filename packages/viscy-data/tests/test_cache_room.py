"""What the copies on disk may take, and who makes room: processes of their own, as runs are."""

from __future__ import annotations

import logging
import os
import shutil
import time
from multiprocessing import get_context
from pathlib import Path

import pytest

from viscy_data.cache_room import max_cache_option, reserve
from viscy_data.errors import InputError

KIB = 1 / (1 << 20)
CONTEXT = get_context("fork")


def use(entry, n_kib, max_kib, ready=None):
    """Make an entry of the cache, as a run does, and stay until killed where that is asked for."""
    try:
        reserve(entry, n_kib * 1024, max_kib and max_kib * KIB)
    except InputError:
        raise SystemExit(2) from None
    entry.mkdir(exist_ok=True)
    for number in range(n_kib):
        (entry / f"{number}.npy").write_bytes(bytes(1024))
    if ready is not None:
        ready.set()
        time.sleep(60)
    os._exit(0)


def run(*args):
    process = CONTEXT.Process(target=use, args=args)
    process.start()
    process.join()
    return process.exitcode


class Using:
    """Another process that uses an entry while the block runs, and is killed then."""

    def __init__(self, *args):
        ready = CONTEXT.Event()
        self.process = CONTEXT.Process(target=use, args=(*args, ready))
        self.process.start()
        assert ready.wait(60)

    def __enter__(self):
        pass

    def __exit__(self, *_):
        self.process.kill()
        self.process.join()


def entries(root: Path):
    """Names of entries with the number of their whole KiB files."""
    return {path.name: len(list(path.iterdir())) for path in root.iterdir() if path.is_dir()}


def set_age(entry, minutes):
    file = entry.with_name(f".{entry.name}.use")
    moment = file.stat().st_mtime - 60 * minutes
    os.utime(file, (moment, moment))


@pytest.fixture
def three(tmp_path):
    """Entries of 3, 2 and 1 KiB; ``b`` was used last."""
    for minutes, (name, n_kib) in enumerate({"b": 2, "c": 1, "a": 3}.items()):
        assert run(tmp_path / name, n_kib, None) == 0
        set_age(tmp_path / name, 1 + minutes)
    return tmp_path


@pytest.mark.parametrize(
    ("max_kib", "expected"),
    [
        (None, {"a": 3, "b": 2, "c": 1, "new": 2}),
        (8, {"a": 3, "b": 2, "c": 1, "new": 2}),
        (7, {"b": 2, "c": 1, "new": 2}),
        (5, {"b": 2, "c": 1, "new": 2}),
        (4, {"b": 2, "new": 2}),
        (3, {"new": 2}),
    ],
)
def test_those_used_longest_ago_leave_and_no_more_than_needed(three, max_kib, expected):
    assert run(three / "new", 2, max_kib) == 0
    assert entries(three) == expected


def test_nothing_leaves_for_what_does_not_fit_at_all(three):
    assert run(three / "new", 9, 8) == 2
    assert entries(three) == {"a": 3, "b": 2, "c": 1}
    assert run(three / "other", 2, 8) == 0  # and what was refused holds no room


def test_what_another_process_uses_stays(three):
    with Using(three / "a", 3, None):
        set_age(three / "a", 99)
        assert run(three / "new", 2, 5) == 0
        assert entries(three) == {"a": 3, "new": 2}
        assert run(three / "new", 3, 5) == 2
    assert run(three / "new", 3, 5) == 0  # the other was killed, which leaves nothing in use
    assert entries(three) == {"new": 3}


def test_what_another_process_is_yet_to_fill_counts(tmp_path):
    reserve(tmp_path / "a", 3 * 1024)
    assert [run(tmp_path / "new", 2, max_kib) for max_kib in (4, 5)] == [2, 0]


def test_a_copy_whose_folder_somebody_has_removed_is_held_anew(tmp_path):
    root = tmp_path / "cache"
    for _ in range(2):
        root.mkdir()
        reserve(root / "a", 3 * 1024)
        assert [run(root / "new", 2, max_kib) for max_kib in (4, 5)] == [2, 0]
        shutil.rmtree(root)


def test_copies_of_older_versions_leave_by_the_time_of_their_folder(three):
    old = three / "old"
    old.mkdir()
    (old / "0.npy").write_bytes(bytes(1024))
    os.utime(old, (0, 0))
    assert run(three / "new", 1, 7) == 0
    assert entries(three) == {"a": 3, "b": 2, "c": 1, "new": 1}


def test_what_leaves_is_said_with_its_size(three, caplog):
    with caplog.at_level(logging.INFO, logger="viscy_data"):
        reserve(three / "new", 1024, 4 * KIB)
    assert f"removing {three / 'a'}, 3.0 KiB that no process uses" in caplog.text
    assert f"3 copies in {three} take 4.0 KiB, of 4.0 KiB at most" in caplog.text
    with pytest.raises(InputError, match=r"(?s)max_cache_gb.*9\.0 KiB that this run.*4\.0 KiB at most.*scratch_dir"):
        reserve(three / "new", 9 * 1024, 4 * KIB)


def test_the_limit_is_a_size():
    assert [max_cache_option(value).holds for value in (None, 0.5, 3, 0, -1, "3")] == [True] * 3 + [False] * 3


def test_without_locks_of_unix_nothing_is_removed_and_a_limit_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("viscy_data.cache_room.fcntl", None)
    reserve(tmp_path / "frames", 10)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(InputError, match="Windows"):
        reserve(tmp_path / "frames", 10, max_gb=1)
