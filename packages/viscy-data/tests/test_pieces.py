"""Independent pieces of work: results in order, whoever does them; errors; what is asked for and not there."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from functools import partial
from pathlib import Path

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


def killed_once(flag, piece):
    """Be killed over one of the pieces, the first time."""
    if piece == 2 and not flag.exists():
        flag.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return piece**2, os.getpid()


def killed_always(piece):
    os.kill(os.getpid(), signal.SIGKILL)


def own_ports(_piece=None):
    """List the sockets on which this process waits for whoever comes."""
    own = set()
    for number in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):  # the one of the listing
            own.add(os.readlink(f"/proc/self/fd/{number}"))
    lines = [line.split() for name in ("tcp", "tcp6") for line in Path(f"/proc/net/{name}").read_text().splitlines()]
    return [line[1] for line in lines if line[3] == "0A" and f"socket:[{line[9]}]" in own]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs signals")
def test_processes_of_this_machine_do_again_what_one_of_them_lost(tmp_path):
    found = list(map_pieces(partial(killed_once, tmp_path / "flag"), range(6), workers=2, dask="local"))
    assert [square for square, _ in found] == [n**2 for n in range(6)]
    assert {process for _, process in found}.isdisjoint({os.getpid()})
    assert (tmp_path / "flag").exists()
    with pytest.raises(BrokenProcessPool):
        list(map_pieces(killed_always, range(2), workers=1, dask="local"))


@pytest.mark.skipif(not os.path.exists("/proc/net/tcp"), reason="needs Linux")
def test_processes_of_this_machine_open_no_port():
    with socket.create_server(("127.0.0.1", 0)):
        assert len(own_ports()) == 1
    results = map_pieces(own_ports, [0, 1], workers=1, dask="local")
    assert (next(results), own_ports(), next(results)) == ([], [], [])


def test_dask_that_is_not_installed_is_named_with_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "dask.distributed", None)
    with pytest.raises(ImportError, match=r"pip install 'viscy-data\[dask\]'"):
        list(map_pieces(abs, [1], dask="tcp://host:8786"))


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning", "ignore::FutureWarning")  # of dask
def test_an_address_without_a_scheduler_is_refused():
    pytest.importorskip("distributed")
    with pytest.raises(InputError, match=r"nonsense(.|\n)*tcp://host:8786"):
        list(map_pieces(abs, [1], dask="nonsense://x"))
