"""Packed files are unpacked, but not for ever."""

from __future__ import annotations

import bz2
import gzip
import lzma
import tracemalloc

import pytest

from viscy_data import packed_files
from viscy_data.errors import InputError
from viscy_data.packed_files import unpacked

PACK = {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress}
TEXT = b"fov_name,id\nA/1/0,7\n"
MIB = 2**20


@pytest.mark.parametrize("suffix", PACK)
def test_what_was_packed_comes_out(suffix, tmp_path):
    path = tmp_path / f"table.csv{suffix}"
    path.write_bytes(PACK[suffix](TEXT))
    assert unpacked(path).read() == TEXT


def test_what_is_not_packed_is_left_to_the_reader(tmp_path):
    assert unpacked(tmp_path / "table.csv") == tmp_path / "table.csv"


@pytest.mark.parametrize("suffix", PACK)
@pytest.mark.parametrize("spoil", [lambda packed: packed[: len(packed) // 2], lambda packed: b"not packed"])
def test_a_file_that_cannot_be_unpacked_is_named(suffix, spoil, tmp_path):
    path = tmp_path / f"table.csv{suffix}"
    path.write_bytes(spoil(PACK[suffix](TEXT)))
    with pytest.raises(InputError, match=rf"table.csv{suffix}\n  found    nothing to unpack"):
        unpacked(path)


@pytest.mark.parametrize("suffix", PACK)
def test_a_file_that_unpacks_to_more_than_memory_is_refused_early(suffix, tmp_path, monkeypatch):
    monkeypatch.setattr(packed_files, "memory_bytes", lambda: 16 * MIB)
    path = tmp_path / f"table.csv{suffix}"
    path.write_bytes(PACK[suffix](bytes(64 * MIB)))
    assert path.stat().st_size < MIB / 8
    tracemalloc.start()
    with pytest.raises(InputError, match="of text"):
        unpacked(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 24 * MIB  # xz has a dictionary of 8


def test_a_file_that_is_not_there_is_said_by_the_system(tmp_path):
    with pytest.raises(FileNotFoundError):
        unpacked(tmp_path / "table.csv.gz")
