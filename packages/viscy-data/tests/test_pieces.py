"""Independent pieces of work: results in order, whoever does them; errors; what is asked for and not there."""

from __future__ import annotations

import sys
import threading

import pytest

from viscy_data.errors import InputError
from viscy_data.pieces import map_pieces


def test_results_come_in_the_order_of_the_pieces():
    release = threading.Event()

    def work(piece):
        if piece == 0:
            assert release.wait(10)  # the first one is done last
        elif piece == 4:
            release.set()
        return piece**2

    assert list(map_pieces(work, range(5), workers=5)) == [0, 1, 4, 9, 16]


@pytest.mark.parametrize("workers", [1, 3])
def test_no_more_threads_work_than_asked_for(workers):
    seen = set(map_pieces(lambda _: threading.current_thread().name, range(50), workers=workers))
    assert 1 <= len(seen) <= workers
    assert list(map_pieces(abs, [], workers=workers)) == []


def test_an_error_is_raised_where_its_result_is_taken():
    results = map_pieces(lambda piece: 1 // piece, [1, 0, 1], workers=1)
    assert next(results) == 1
    with pytest.raises(ZeroDivisionError):
        next(results)


def test_dask_that_is_not_installed_is_named_with_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "dask.distributed", None)
    with pytest.raises(ImportError, match=r"pip install 'viscy-data\[dask\]'"):
        list(map_pieces(abs, [1], dask="tcp://host:8786"))


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning", "ignore::FutureWarning")  # of dask
def test_an_address_without_a_scheduler_is_refused():
    pytest.importorskip("distributed")
    with pytest.raises(InputError, match=r"nonsense(.|\n)*tcp://host:8786"):
        list(map_pieces(abs, [1], dask="nonsense://x"))
