"""Thousands of spoilt inputs: how a property is tried on them, and a new folder for each."""

from __future__ import annotations

import itertools
import shutil
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, Phase, example, given, seed, settings
from hypothesis import strategies as st

from applications.dynaclr.tests.bad_input.fuzz.samples import write_samples

N_PARTS = 2  # of the marked run, to be spread over processes
MOST_SECONDS = 120  # for one case; the first imports everything, on a machine with other work to do


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Try a few cases in the ordinary run, and many in parts under the marker ``fuzz``."""
    if "tried" in metafunc.fixturenames:
        marks = [pytest.mark.fuzz, pytest.mark.slow]
        many = [pytest.param(part, marks=marks, id=f"many-{part}") for part in range(1, N_PARTS + 1)]
        metafunc.parametrize("tried", [pytest.param(0, id="few"), *many], indirect=True)


@pytest.fixture
def tried(request) -> Callable[..., None]:
    """Return a function ``(check, strategy, few, many, kept)`` that runs a check on drawn cases and on those kept.

    ``few`` cases are drawn in the ordinary run, ``many`` in all parts of the marked one; always the same ones.
    """

    def run(
        check: Callable[[Any], None], cases: st.SearchStrategy, few: int, many: int, kept: Iterable[Any] = ()
    ) -> None:
        tried = []

        def timed(case: Any) -> None:
            tried.append(case)
            begin = time.monotonic()
            check(case)
            assert time.monotonic() - begin < MOST_SECONDS, "it hangs"

        number = many // N_PARTS if request.param else few
        tested = given(case=cases)(lambda case: timed(case))
        for case in kept:
            tested = example(case=case)(tested)
        quiet = settings(
            max_examples=number,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
            phases=(Phase.explicit, Phase.generate, Phase.shrink),
        )
        seed(request.param)(quiet(tested))()
        request.node.user_properties.append(("cases", len(tried)))

    return run


@pytest.fixture(scope="session")
def samples(trained, tmp_path_factory) -> Path:
    """Return a folder with one valid file or store of every kind."""
    folder = tmp_path_factory.mktemp("samples")
    write_samples(trained, folder)
    return folder


@pytest.fixture
def fresh(place, trained, samples, tmp_path):
    """Return a function that makes a new folder like that of ``place`` with copies of some samples.

    The folder before is removed.
    """
    numbers = itertools.count()
    last = []

    def make(*copied: str):
        while last:
            shutil.rmtree(last.pop(), ignore_errors=True)
        folder = tmp_path / f"case_{next(numbers)}"
        folder.mkdir()
        last.append(folder)
        for name in ("first", "second", "runs/trained"):
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).symlink_to(trained / name)
        for name in copied:
            (shutil.copytree if (samples / name).is_dir() else shutil.copy)(samples / name, folder / name)
        return place.moved(folder, yaml.safe_load((trained / "experiments.yml").read_text()))

    return make
